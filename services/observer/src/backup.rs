//! `observer backup`: a copy of the data folder, also while `observer serve` works on it. What was
//! acknowledged before the command began is in the copy; to restore is to start on it.
//!
//! Dead letters are copied first: one that is replayed meanwhile is in the databases by then.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, anyhow, bail};
use observer_bus::config::BusType;
use observer_chassis::{ConfigArgs, WrongUsage};
use observer_store::config::{AccountsType, LogsType, StoreConfig, VarsType};
use observer_store::sqlite::{BACKUP_MARK, back_up};
use serde_json::json;

use crate::serve::config::ServeConfig;
use crate::terminal;

/// Files of the data folder besides the databases. Each is whole up to its last line at any time.
const FILES: [&str; 2] = ["dead.jsonl", "first-key"];

/// Copies the data folder, also of a running server.
#[derive(clap::Args)]
#[command(after_help = RESTORE)]
pub(crate) struct BackupArgs {
    /// Folder for the copy; must not exist yet
    target: PathBuf,
}

/// How to get back what was copied.
const RESTORE: &str = "\
To restore, start on the copy, or on a copy of it:
  OBSERVER_STORE__DATA_DIR=TARGET observer serve
The data folder that is copied is that of the same settings as for `observer serve`.";

/// Copies, and says what to do with it.
pub(crate) async fn run(args: BackupArgs) -> anyhow::Result<()> {
    let config: ServeConfig = ServeConfig::load(&ConfigArgs::default())?.settings;
    if !is_all_here(&config) {
        let words = "bus or stores of these settings are servers: back those up, above all the Redis \
                     of accounts, which nothing can rebuild";
        return Err(WrongUsage(words.to_owned()).into());
    }
    let shown = args.target.display().to_string();
    let target = args.target;
    let copying = tokio::task::spawn_blocking(move || copy_folder(&config.store.data_dir, &target));
    let bytes = copying.await.context("the copy was cut off")??;
    terminal::line(&format!("Copied  {bytes} bytes of databases to {shown}"))?;
    Ok(terminal::line(&format!("Restore OBSERVER_STORE__DATA_DIR={shown} observer serve"))?)
}

/// Whether everything that `observer serve` keeps is in its data folder.
fn is_all_here(config: &ServeConfig) -> bool {
    let StoreConfig { logs, vars, accounts, .. } = &config.store;
    config.bus.kind == BusType::InProcess
        && logs.kind == LogsType::Sqlite
        && vars.kind == VarsType::Sqlite
        && accounts.kind == AccountsType::Sqlite
}

/// Copies the folder; under its name there is all of it or nothing.
fn copy_folder(from: &Path, target: &Path) -> anyhow::Result<u64> {
    if target.exists() {
        bail!("{} exists: choose a folder that does not", target.display());
    }
    let mut half = target.as_os_str().to_owned();
    half.push(".part");
    let half = PathBuf::from(half);
    fs::create_dir(&half).map_err(|error| {
        let shown = half.display();
        if error.kind() == io::ErrorKind::AlreadyExists {
            anyhow!("{shown} is there, of a backup that goes on or was cut off: wait, or remove it")
        } else {
            anyhow!("cannot make the folder {shown}: {error}")
        }
    })?;
    let copied = copy_files(from, &half).and_then(|bytes| {
        fs::rename(&half, target).with_context(|| format!("cannot name {}", target.display()))?;
        let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_folder(parent.unwrap_or(Path::new(".")))?;
        Ok(bytes)
    });
    if copied.is_err() {
        // What is left of it is of no use; should it stay, the next backup says so.
        fs::remove_dir_all(&half).ok();
    }
    copied
}

fn copy_files(from: &Path, to: &Path) -> anyhow::Result<u64> {
    for name in FILES {
        copy_lines(&from.join(name), &to.join(name))
            .with_context(|| format!("cannot copy {name} of {}", from.display()))?;
    }
    let bytes = back_up(from, to)?;
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mark = json!({ "at": at, "release": env!("CARGO_PKG_VERSION") });
    write_synced(&to.join(BACKUP_MARK), format!("{mark}\n").as_bytes())?;
    sync_folder(to)?;
    Ok(bytes)
}

/// Copies whole lines: the last one may be under way. A file that is not there is not copied.
fn copy_lines(from: &Path, to: &Path) -> io::Result<()> {
    let mut source = match File::open(from) {
        Ok(source) => source,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    source.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    write_synced(to, &bytes[..whole])
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// New names survive a power cut once their folder is synced. Folders cannot be opened everywhere.
fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(open) => open.sync_all(),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_are_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        for (text, copied) in [("", ""), ("half", ""), ("one\nhalf", "one\n"), ("a\nb\n", "a\nb\n")]
        {
            fs::write(&from, text).unwrap();
            copy_lines(&from, &to).unwrap();
            assert_eq!(fs::read_to_string(&to).unwrap(), copied);
        }
        copy_lines(&folder.path().join("none"), &folder.path().join("c")).unwrap();
        assert!(!folder.path().join("c").exists());
    }

    #[test]
    fn a_backup_that_fails_leaves_nothing_and_one_that_is_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("copy");
        assert!(copy_folder(&folder.path().join("none"), &target).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::create_dir(&target).unwrap();
        let refused = copy_folder(folder.path(), &target).unwrap_err().to_string();
        assert!(refused.contains("exists"), "{refused}");
        fs::remove_dir(&target).unwrap();
        fs::create_dir(folder.path().join("copy.part")).unwrap();
        let refused = copy_folder(folder.path(), &target).unwrap_err().to_string();
        assert!(refused.contains("wait, or remove it"), "{refused}");
        assert!(folder.path().join("copy.part").exists());
    }
}
