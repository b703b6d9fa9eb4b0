//! Dead letters of the embedded form: in a file of the data folder, synced before the event counts as
//! settled. Here file work is kept off the runtime's threads; the file itself is [`super::dead_file`].

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;
use tokio::task::spawn_blocking;

use super::dead_file::DeadFile;
use crate::{
    BusError, BusErrorKind, DEAD_PAGE_MAX, DeadCount, DeadKind, DeadLetter, DeadLetters, DeadPage,
    Stream, lock,
};

/// What is to be kept.
pub(super) struct Burial {
    pub(super) stream: Stream,
    pub(super) project: ProjectId,
    /// Id of the event.
    pub(super) event: Arc<str>,
    pub(super) kind: DeadKind,
    pub(super) reason: String,
    pub(super) payload: Bytes,
}

/// The file of dead letters.
pub(super) struct DeadLettersFile {
    file: Arc<Mutex<DeadFile>>,
}

impl DeadLettersFile {
    /// Opens the file in `data_dir`; makes both if need be.
    pub(super) async fn open(data_dir: PathBuf, bytes_max: u64) -> Result<Self, BusError> {
        let opened = blocking(move || DeadFile::open(&data_dir, bytes_max)).await;
        let file =
            opened.map_err(|source| dead_error("opening the file of dead letters", source))?;
        Ok(Self { file: Arc::new(Mutex::new(file)) })
    }

    /// Keeps a letter. Returns when it is on the disk.
    pub(super) async fn keep(&self, burial: Burial) -> Result<(), BusError> {
        self.with("keeping a dead letter", move |file| file.keep(&burial)).await
    }

    /// Whether there is room for more.
    pub(super) fn check(&self) -> Result<(), String> {
        lock(&self.file).check()
    }

    async fn with<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&mut DeadFile) -> io::Result<T> + Send + 'static,
    ) -> Result<T, BusError> {
        let file = Arc::clone(&self.file);
        let done = blocking(move || work(&mut lock(&file))).await;
        done.map_err(|source| dead_error(operation, source))
    }
}

#[async_trait]
impl DeadLetters for DeadLettersFile {
    async fn list(
        &self,
        project: ProjectId,
        after: Option<u64>,
        limit: usize,
    ) -> Result<DeadPage, BusError> {
        let limit = limit.clamp(1, DEAD_PAGE_MAX);
        self.with("listing dead letters", move |file| file.list(project, after, limit)).await
    }

    async fn get(&self, project: ProjectId, id: u64) -> Result<Option<DeadLetter>, BusError> {
        self.with("reading a dead letter", move |file| file.get(project, id)).await
    }

    async fn drop(&self, project: ProjectId, id: u64) -> Result<bool, BusError> {
        self.with("dropping a dead letter", move |file| file.drop(project, id)).await
    }

    async fn count(&self) -> Result<DeadCount, BusError> {
        self.with("counting dead letters", |file| Ok(file.count())).await
    }
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
