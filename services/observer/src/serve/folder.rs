//! The data folder of one process: claimed for as long as it runs, so that no second one writes there.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use observer_wire::ApiKey;

/// Locked while a process works on the folder. The system unlocks it however the process ends.
const LOCK_NAME: &str = "observer.lock";

/// Holds the key that was made at the first start.
const KEY_NAME: &str = "first-key";

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct DataFolder {
    path: PathBuf,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is missing, and claims it.
    pub(super) fn claim(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        fs::create_dir_all(path).with_context(|| format!("cannot make the folder {shown}"))?;
        let lock = File::create(path.join(LOCK_NAME))
            .with_context(|| format!("cannot write in the folder {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(anyhow!(
                "another observer works on the folder {shown}: end it, or choose another folder with \
                 OBSERVER_STORE__DATA_DIR"
            )),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock the folder {shown}"))
            }
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The key that was made when this was first called on this folder.
    pub(super) fn first_key(&self) -> anyhow::Result<ApiKey> {
        let path = self.path.join(KEY_NAME);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let key = text.trim().parse();
                key.with_context(|| format!("{} holds no key; remove it", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut random = [0; 6];
                getrandom::fill(&mut random)?;
                let key = ApiKey::from_random(random);
                write_whole(&path, key.as_str())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(key)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Writes all of the file or nothing.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let half = path.with_extension("new");
    let mut file = File::create(&half)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    drop(file);
    fs::rename(half, path)?;
    sync_folder(path.parent())
}

/// A name survives a power cut once its folder is synced. Folders cannot be opened everywhere, and
/// where they cannot, that is not needed.
fn sync_folder(folder: Option<&Path>) -> io::Result<()> {
    match folder.map(File::open) {
        Some(Ok(folder)) => folder.sync_all(),
        Some(Err(_)) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_claimed_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/data");
        let first = DataFolder::claim(&path).unwrap();
        let refused = DataFolder::claim(&path).unwrap_err().to_string();
        assert!(refused.starts_with("another observer works on the folder"), "{refused}");
        drop(first);
        DataFolder::claim(&path).unwrap();
    }

    #[test]
    fn the_first_key_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = DataFolder::claim(folder.path()).unwrap();
        let key = folder.first_key().unwrap();
        assert_eq!(folder.first_key().unwrap(), key);
    }
}
