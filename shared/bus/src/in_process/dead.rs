//! Dead letters of the embedded form: one line of JSON each in `dead.jsonl`, synced before the event
//! counts as settled. Who reads them again is not decided here.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use observer_wire::ProjectId;
use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::{BusError, BusErrorKind, Stream, lock};

/// Name of the file in the data folder.
const FILE_NAME: &str = "dead.jsonl";

/// Longest reason that is kept, in bytes: it may quote what a game sent.
const REASON_BYTES_MAX: usize = 1024;

/// What is to be kept.
pub(super) struct Letter {
    pub(super) stream: Stream,
    pub(super) project: ProjectId,
    pub(super) id: Arc<str>,
    pub(super) reason: String,
    pub(super) payload: Bytes,
}

/// A letter as it stands in the file.
#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    stream: &'static str,
    project: &'a str,
    id: &'a str,
    reason: &'a str,
    /// In base64.
    payload: String,
}

/// The file of dead letters.
pub(super) struct DeadLetters {
    file: Arc<Mutex<DeadFile>>,
}

struct DeadFile {
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl DeadLetters {
    /// Opens the file in `data_dir`; makes both if need be.
    pub(super) async fn open(data_dir: PathBuf, bytes_max: u64) -> Result<Self, BusError> {
        let opened = blocking(move || open(&data_dir, bytes_max)).await;
        let file =
            opened.map_err(|source| dead_error("opening the file of dead letters", source))?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// Keeps a letter. Returns when it is on the disk.
    pub(super) async fn keep(&self, letter: Letter) -> Result<(), BusError> {
        let file = Arc::clone(&self.file);
        let kept = blocking(move || {
            let line = line(&letter)?;
            lock(&file).append(&line)
        });
        kept.await.map_err(|source| dead_error("keeping a dead letter", source))
    }

    /// Whether there is room for more.
    pub(super) fn check(&self) -> Result<(), String> {
        let file = lock(&self.file);
        if file.bytes < file.bytes_max {
            return Ok(());
        }
        Err(format!("{FILE_NAME} has reached bus.dead_bytes_max ({} bytes)", file.bytes_max))
    }
}

impl DeadFile {
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = self.bytes + line.len() as u64;
        if self.bytes_max < bytes {
            return Err(io::Error::other(format!("{FILE_NAME} is full")));
        }
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Half a line must not run into the next letter.
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes = bytes;
        Ok(())
    }
}

fn open(data_dir: &Path, bytes_max: u64) -> io::Result<DeadFile> {
    fs::create_dir_all(data_dir)?;
    let path = data_dir.join(FILE_NAME);
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    // A new file is safe once its folder is. Folders cannot be opened everywhere.
    #[cfg(unix)]
    File::open(data_dir)?.sync_all()?;
    let mut bytes = file.metadata()?.len();
    if 0 < bytes {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            // A kill left half a line; its event was not settled and came again.
            file.write_all(b"\n")?;
            bytes += 1;
        }
    }
    Ok(DeadFile { file, bytes, bytes_max })
}

fn line(letter: &Letter) -> io::Result<Vec<u8>> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let line = Line {
        at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        stream: crate::stream_name(letter.stream),
        project: letter.project.as_str(),
        id: &letter.id,
        reason: crate::shortened(&letter.reason, REASON_BYTES_MAX),
        payload: STANDARD.encode(&letter.payload),
    };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    Ok(text)
}

/// Runs file work where it blocks no other task.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(io::Error::other(error)),
    }
}

fn dead_error(operation: &'static str, source: io::Error) -> BusError {
    BusError { operation, kind: BusErrorKind::Refused, source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(reason: &str) -> Letter {
        Letter {
            stream: Stream::Logs,
            project: "0123456789ab".parse().unwrap(),
            id: "id".into(),
            reason: reason.to_owned(),
            payload: Bytes::from_static(b"\x00\n"),
        }
    }

    fn lines(folder: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(folder.join(FILE_NAME)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_default()).collect()
    }

    #[tokio::test]
    async fn letters_are_kept_across_starts_and_behind_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let dead = DeadLetters::open(folder.path().join("new"), 10_000).await.unwrap();
        dead.keep(letter("first")).await.unwrap();
        drop(dead);
        let path = folder.path().join("new").join(FILE_NAME);
        File::options().append(true).open(path).unwrap().write_all(b"{\"half").unwrap();

        let dead = DeadLetters::open(folder.path().join("new"), 10_000).await.unwrap();
        dead.keep(letter("second")).await.unwrap();
        let lines = lines(&folder.path().join("new"));
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["reason"], &lines[2]["reason"]), (&"first".into(), &"second".into()));
        assert_eq!(lines[0]["payload"], "AAo=");
    }

    #[tokio::test]
    async fn full_file_refuses_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let one = line(&letter("why")).unwrap().len() as u64;
        let dead = DeadLetters::open(folder.path().to_owned(), one).await.unwrap();
        dead.check().unwrap();
        dead.keep(letter("why")).await.unwrap();
        assert!(dead.keep(letter("why")).await.is_err());
        assert!(dead.check().unwrap_err().contains("dead_bytes_max"));
    }
}
