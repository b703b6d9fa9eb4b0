//! `dead.jsonl`: a line of JSON a letter, and one for each letter that was dropped. Lines are only
//! added, and synced; now and then what was dropped is left out of a new file that takes the old one's
//! place, so that a kill at any moment finds one whole file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use observer_wire::ProjectId;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::dead::Burial;
use crate::{DeadCount, DeadHead, DeadKind, DeadLetter, DeadPage};

/// Name of the file in the data folder.
const FILE_NAME: &str = "dead.jsonl";

/// Name of its successor, as long as that is not whole.
const NEW_NAME: &str = "dead.jsonl.new";

/// Longest reason that is kept, in bytes: it may quote what a game sent.
const REASON_BYTES_MAX: usize = 1024;

/// Most letters: their places are held in memory, some ten megabytes of it.
pub(super) const LETTERS_MAX: usize = 100_000;

/// Bytes of dropped letters that may lie in the file before it is written anew; more where the rest of
/// it is larger, so that no byte is written more than twice.
const DROPPED_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes that are read for one page: letters are up to a megabyte, and burying waits meanwhile.
const PAGE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The file, and where each letter stands in it.
pub(super) struct DeadFile {
    folder: PathBuf,
    file: File,
    letters: BTreeMap<u64, Place>,
    last: u64,
    /// Length of the file.
    bytes: u64,
    /// Of that, letters that were not dropped.
    kept_bytes: u64,
    /// The file may end with a part of a line that could not be taken back.
    torn: bool,
    pub(super) bytes_max: u64,
    pub(super) letters_max: usize,
}

#[derive(Clone, Copy)]
struct Place {
    project: ProjectId,
    at: u64,
    len: u64,
}

/// A letter as it stands in the file.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    letter: u64,
    at_ms: i64,
    kind: &'a str,
    stream: &'a str,
    project: ProjectId,
    /// The event that it was, or was in.
    event: std::borrow::Cow<'a, str>,
    reason: std::borrow::Cow<'a, str>,
    /// In base64.
    payload: &'a str,
}

/// The letter was dropped.
#[derive(Serialize, Deserialize)]
struct Gone {
    gone: u64,
}

impl DeadFile {
    /// Opens the file in `folder`; makes both if need be.
    pub(super) fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        match fs::remove_file(folder.join(NEW_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = append_to(&folder.join(FILE_NAME))?;
        sync_folder(folder)?;
        let mut opened = Self {
            folder: folder.to_owned(),
            file,
            letters: BTreeMap::new(),
            last: 0,
            bytes: 0,
            kept_bytes: 0,
            torn: false,
            bytes_max,
            letters_max: LETTERS_MAX,
        };
        opened.read_all()?;
        Ok(opened)
    }

    /// Finds the letters that are in the file.
    fn read_all(&mut self) -> io::Result<()> {
        let mut lines = BufReader::new(self.file.try_clone()?);
        let (mut line, mut unread) = (Vec::new(), 0_u64);
        loop {
            line.clear();
            let len = lines.read_until(b'\n', &mut line)? as u64;
            if len == 0 {
                break;
            }
            if line.last() != Some(&b'\n') {
                // A kill left half a line; its event was not settled and came again.
                self.file.set_len(self.bytes)?;
                break;
            }
            if let Ok(letter) = serde_json::from_slice::<Line<'_>>(&line) {
                self.last = self.last.max(letter.letter);
                self.kept_bytes += len;
                let place = Place { project: letter.project, at: self.bytes, len };
                self.letters.insert(letter.letter, place);
            } else if let Ok(Gone { gone }) = serde_json::from_slice(&line) {
                self.forget(gone);
            } else {
                unread += 1;
            }
            self.bytes += len;
        }
        if 0 < unread {
            warn!(lines = unread, "{FILE_NAME} has lines that are no dead letters");
        }
        Ok(())
    }

    /// Adds a letter. Returns when it is on the disk.
    pub(super) fn keep(&mut self, burial: &Burial) -> io::Result<()> {
        let id = self.next_id();
        let line = line_of(id, burial)?;
        let len = line.len() as u64;
        if self.bytes_max < self.kept_bytes + len || self.letters_max <= self.letters.len() {
            return Err(io::Error::other(format!("{FILE_NAME} is full")));
        }
        let at = self.append(&line)?;
        self.last = id;
        self.kept_bytes += len;
        self.letters.insert(id, Place { project: burial.project, at, len });
        Ok(())
    }

    /// Starts at the clock in microseconds, so that no id comes twice, dropped ones included.
    fn next_id(&self) -> u64 {
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        u64::try_from(clock).unwrap_or_default().max(self.last + 1)
    }

    /// Drops a letter; false when the project has none of this id.
    pub(super) fn drop(&mut self, project: ProjectId, id: u64) -> io::Result<bool> {
        if self.letters.get(&id).is_none_or(|place| place.project != project) {
            return Ok(false);
        }
        let mut line = serde_json::to_vec(&Gone { gone: id })?;
        line.push(b'\n');
        self.append(&line)?;
        self.forget(id);
        if self.kept_bytes.max(DROPPED_BYTES_MAX) < self.bytes - self.kept_bytes
            && let Err(error) = self.leave_out_dropped()
        {
            warn!(%error, "{FILE_NAME} stays as long as it is");
        }
        Ok(true)
    }

    fn forget(&mut self, id: u64) {
        if let Some(place) = self.letters.remove(&id) {
            self.kept_bytes -= place.len;
        }
    }

    /// Adds a line, and syncs it; returns where it begins.
    fn append(&mut self, line: &[u8]) -> io::Result<u64> {
        // What was torn may lack nothing but its newline, and must be no letter all the same.
        let start: &[u8] = if self.torn { b"~\n" } else { b"" };
        let written = self.file.write_all(&[start, line].concat());
        if let Err(error) = written.and_then(|()| self.file.sync_data()) {
            // Half a line must not run into the next letter.
            self.torn = self.file.set_len(self.bytes).is_err() || self.torn;
            self.bytes = self.file.metadata().map_or(self.bytes, |file| file.len());
            return Err(error);
        }
        self.torn = false;
        let at = self.bytes + start.len() as u64;
        self.bytes = at + line.len() as u64;
        Ok(at)
    }

    /// Writes the letters that were not dropped into a new file, and puts it in this one's place.
    fn leave_out_dropped(&mut self) -> io::Result<()> {
        let new_path = self.folder.join(NEW_NAME);
        let mut new = append_to(&new_path)?;
        new.set_len(0)?; // An attempt before may have failed.
        let mut letters = self.letters.clone();
        let mut bytes = 0;
        for place in letters.values_mut() {
            new.write_all(&self.read(*place)?)?;
            place.at = bytes;
            bytes += place.len;
        }
        new.sync_all()?;
        fs::rename(&new_path, self.folder.join(FILE_NAME))?;
        (self.file, self.letters) = (new, letters);
        (self.bytes, self.kept_bytes, self.torn) = (bytes, bytes, false);
        sync_folder(&self.folder)
    }

    fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(place.at))?; // Lines are added at the end, wherever this is.
        let mut line = vec![0; usize::try_from(place.len).map_err(io::Error::other)?];
        file.read_exact(&mut line)?;
        Ok(line)
    }

    /// A letter.
    pub(super) fn get(&self, project: ProjectId, id: u64) -> io::Result<Option<DeadLetter>> {
        match self.letters.get(&id) {
            Some(place) if place.project == project => {
                let text = self.read(*place)?;
                let line: Line<'_> = serde_json::from_slice(&text)?;
                let payload = STANDARD.decode(line.payload).map_err(io::Error::other)?;
                Ok(Some(DeadLetter { head: head(&line)?, payload: Bytes::from(payload) }))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// A project's letters behind `after`.
    pub(super) fn list(
        &self,
        project: ProjectId,
        after: Option<u64>,
        limit: usize,
    ) -> io::Result<DeadPage> {
        let first = after.map_or(0, |after| after.saturating_add(1));
        let mut page = DeadPage::default();
        let mut bytes = 0;
        for (_, place) in self.letters.range(first..).filter(|(_, at)| at.project == project) {
            bytes += place.len;
            let full = limit <= page.letters.len() || PAGE_BYTES_MAX < bytes;
            if let Some(last) = page.letters.last().filter(|_| full) {
                page.next = Some(last.id);
                break;
            }
            page.letters.push(head(&serde_json::from_slice(&self.read(*place)?)?)?);
        }
        Ok(page)
    }

    /// How many letters there are.
    pub(super) fn count(&self) -> DeadCount {
        DeadCount { letters: self.letters.len() as u64, bytes: self.kept_bytes }
    }

    /// Whether there is room for more.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.bytes_max <= self.kept_bytes {
            let max = self.bytes_max;
            return Err(format!("{FILE_NAME} has reached bus.dead_bytes_max ({max} bytes)"));
        }
        if self.letters_max <= self.letters.len() {
            return Err(format!("{FILE_NAME} has {} letters, the most it takes", self.letters_max));
        }
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).read(true).append(true).open(path)
}

/// A new file is safe once its folder is. Folders cannot be opened everywhere.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

fn line_of(id: u64, burial: &Burial) -> io::Result<Vec<u8>> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let payload = STANDARD.encode(&burial.payload);
    let line = Line {
        letter: id,
        at_ms: i64::try_from(at.as_millis()).unwrap_or(i64::MAX),
        kind: burial.kind.name(),
        stream: burial.stream.name(),
        project: burial.project,
        event: (&*burial.event).into(),
        reason: crate::shortened(&burial.reason, REASON_BYTES_MAX).into(),
        payload: &payload,
    };
    let mut text = serde_json::to_vec(&line)?;
    text.push(b'\n');
    Ok(text)
}

fn head(line: &Line<'_>) -> io::Result<DeadHead> {
    let unknown = || io::Error::other(format!("a letter of no stream: {}", line.stream));
    let padding = line.payload.bytes().rev().take_while(|byte| *byte == b'=').count();
    Ok(DeadHead {
        id: line.letter,
        project: line.project,
        stream: crate::stream_named(line.stream).ok_or_else(unknown)?,
        kind: DeadKind::named(line.kind),
        reason: line.reason.clone().into_owned(),
        at: line.at_ms,
        size: line.payload.len() / 4 * 3 - padding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stream;

    const ROOM: u64 = 100_000;

    fn project(n: u32) -> ProjectId {
        format!("project-{n:04}").parse().unwrap()
    }

    fn burial(reason: &str) -> Burial {
        Burial {
            stream: Stream::Logs,
            project: project(1),
            event: "id".into(),
            kind: DeadKind::Event,
            reason: reason.to_owned(),
            payload: Bytes::from_static(b"\x00\n"),
        }
    }

    fn reasons(file: &DeadFile) -> Vec<String> {
        let page = file.list(project(1), None, 1_000).unwrap();
        page.letters.into_iter().map(|head| head.reason).collect()
    }

    fn ids(file: &DeadFile) -> Vec<u64> {
        file.letters.keys().copied().collect()
    }

    #[test]
    fn letters_are_kept_across_starts_and_behind_half_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        DeadFile::open(&folder, ROOM).unwrap().keep(&burial("first")).unwrap();
        let mut half = append_to(&folder.join(FILE_NAME)).unwrap();
        half.write_all(b"{\"letter\":1,\"at").unwrap();

        let mut file = DeadFile::open(&folder, ROOM).unwrap();
        file.keep(&burial("second")).unwrap();
        assert_eq!(reasons(&file), ["first", "second"]);
        let file = DeadFile::open(&folder, ROOM).unwrap();
        assert_eq!(reasons(&file), ["first", "second"]);
        let letter = file.get(project(1), ids(&file)[1]).unwrap().unwrap();
        assert_eq!((&letter.payload[..], letter.head.size), (&b"\x00\n"[..], 2));
    }

    #[test]
    fn full_file_refuses_says_so_and_has_room_once_a_letter_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let one = line_of(1_700_000_000_000_000, &burial("why")).unwrap().len() as u64;
        let mut file = DeadFile::open(folder.path(), one).unwrap();
        file.check().unwrap();
        file.keep(&burial("why")).unwrap();
        assert!(file.keep(&burial("why")).is_err());
        assert!(file.check().unwrap_err().contains("dead_bytes_max"));

        assert!(file.drop(project(1), ids(&file)[0]).unwrap());
        file.check().unwrap();
        assert!(file.keep(&burial("one byte more")).is_err());
        file.keep(&burial("why")).unwrap();
    }

    #[test]
    fn letters_are_kept_up_to_their_bound_and_not_one_past_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = DeadFile::open(folder.path(), ROOM).unwrap();
        file.letters_max = 2;
        file.keep(&burial("a")).unwrap();
        file.check().unwrap();
        file.keep(&burial("b")).unwrap();
        assert!(file.keep(&burial("c")).is_err());
        assert!(file.check().is_err());
    }

    #[test]
    fn dropped_letters_leave_the_file_in_time_and_ids_do_not_come_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = DeadFile::open(folder.path(), 10 * DROPPED_BYTES_MAX).unwrap();
        let large =
            |reason: &str| Burial { payload: vec![b'x'; 200 * 1024].into(), ..burial(reason) };
        let names: Vec<_> = (0..12).map(|n| n.to_string()).collect();
        for name in &names {
            file.keep(&large(name)).unwrap();
        }
        let all = ids(&file);
        for id in &all[..11] {
            assert!(file.drop(project(1), *id).unwrap());
            assert!(file.bytes <= 2 * file.kept_bytes.max(DROPPED_BYTES_MAX));
        }
        assert_eq!(reasons(&file), ["11"]);
        assert_eq!(fs::metadata(folder.path().join(FILE_NAME)).unwrap().len(), file.bytes);
        file.keep(&large("12")).unwrap();

        let mut file = DeadFile::open(folder.path(), 10 * DROPPED_BYTES_MAX).unwrap();
        assert_eq!(reasons(&file), ["11", "12"]);
        for id in ids(&file) {
            file.drop(project(1), id).unwrap();
        }
        file.keep(&burial("new")).unwrap();
        assert!(all[11] < ids(&file)[0]);
    }

    #[test]
    fn a_kill_at_any_byte_of_the_file_costs_no_letter_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = DeadFile::open(folder.path(), ROOM).unwrap();
        let mut safe = Vec::new(); // The file's length when a letter was reported kept.
        for name in ["a", "b", "c"] {
            file.keep(&burial(name)).unwrap();
            safe.push(file.bytes);
        }
        let path = folder.path().join(FILE_NAME);
        let whole = fs::read(&path).unwrap();
        // A successor that was not whole yet counts for nothing, whatever is in it.
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            fs::write(folder.path().join(NEW_NAME), &whole[..cut / 2]).unwrap();
            let mut file = DeadFile::open(folder.path(), ROOM).unwrap();
            let kept = safe.iter().filter(|safe| **safe <= cut as u64).count();
            assert_eq!(reasons(&file), ["a", "b", "c"][..kept]);
            file.keep(&burial("d")).unwrap();
            assert_eq!(reasons(&file).last().unwrap(), "d");
            assert_eq!(reasons(&DeadFile::open(folder.path(), ROOM).unwrap()).len(), kept + 1);
            assert!(!folder.path().join(NEW_NAME).exists());
        }
    }

    #[test]
    fn pages_follow_each_other_and_are_of_one_project() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = DeadFile::open(folder.path(), ROOM).unwrap();
        for name in ["a", "b", "c"] {
            file.keep(&burial(name)).unwrap();
            file.keep(&Burial { project: project(2), ..burial("other") }).unwrap();
        }
        let first = file.list(project(1), None, 2).unwrap();
        assert_eq!(first.next, Some(first.letters[1].id));
        let second = file.list(project(1), first.next, 2).unwrap();
        assert_eq!((second.letters.len(), second.next), (1, None));
        assert_eq!(second.letters[0].reason, "c");
        let id = first.letters[0].id;
        assert_eq!(file.get(project(2), id).unwrap(), None);
        assert!(!file.drop(project(2), id).unwrap());
        assert_eq!(file.count().letters, 6);
    }
}
