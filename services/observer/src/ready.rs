//! `ready.json`: what `observer serve` tells other programs about itself, and what our own commands
//! read when they are not told where to go.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use observer_chassis::{ConfigArgs, WrongUsage};
use observer_wire::ApiKey;
use serde::{Deserialize, Serialize};

use crate::serve::config::ServeConfig;

/// Its name in the data folder.
const FILE_NAME: &str = "ready.json";

/// Largest file that is read, in bytes: ours has a few hundred.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Addresses and key of a running `observer serve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// The dashboard, signed in.
    pub(crate) page: String,
    /// A key that works.
    pub(crate) key: String,
    /// Where games connect: `host:port`.
    pub(crate) game: String,
    /// Where games connect with TLS, if they can: `host:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) game_tls: Option<String>,
    /// Where browser games connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) game_ws: Option<String>,
    /// Address of the api, without a slash at its end.
    pub(crate) api: String,
    /// Address of the admin port, without a slash at its end.
    pub(crate) admin: String,
    /// Where everything is stored.
    pub(crate) data_dir: PathBuf,
}

/// Where everything listens, as others reach it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    /// Games.
    pub(crate) game: SocketAddr,
    /// Games with TLS.
    pub(crate) game_tls: Option<SocketAddr>,
    /// Games in browsers.
    pub(crate) game_ws: Option<SocketAddr>,
    /// Page and api.
    pub(crate) api: SocketAddr,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
}

impl Ready {
    /// What a server that listens at these addresses says about itself.
    pub(crate) fn new(key: ApiKey, at: &Addresses, data_dir: &Path) -> io::Result<Self> {
        let (api, admin) = (format!("http://{}", at.api), format!("http://{}", at.admin));
        let key = key.as_str().to_owned();
        let page = format!("{api}/#key={key}");
        let data_dir = std::path::absolute(data_dir)?;
        let game_tls = at.game_tls.map(|address| address.to_string());
        let game_ws = at.game_ws.map(|address| format!("ws://{address}/device"));
        Ok(Self { page, key, game: at.game.to_string(), game_tls, game_ws, api, admin, data_dir })
    }

    /// Writes the file so that a reader sees all of it or nothing. Removed when the guard is dropped.
    pub(crate) fn announce(&self) -> io::Result<Announced> {
        let path = self.data_dir.join(FILE_NAME);
        let half = self.data_dir.join(format!("{FILE_NAME}.new"));
        let mut file = File::create(&half)?;
        serde_json::to_writer_pretty(&mut file, self)?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        drop(file);
        fs::rename(&half, &path)?;
        Ok(Announced(path))
    }

    /// Removes what a process that was killed left in `data_dir`.
    pub(crate) fn forget(data_dir: &Path) -> io::Result<()> {
        match fs::remove_file(data_dir.join(FILE_NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// What the `observer serve` with this environment's data folder says; `None` when none runs.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        let config: ServeConfig = ServeConfig::load(&ConfigArgs::default())?.settings;
        Self::read(&config.store.data_dir)
    }

    fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = data_dir.join(FILE_NAME);
        let read = File::open(&path).and_then(|file| {
            let mut text = String::new();
            io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text)?;
            Ok(text)
        });
        match read {
            Ok(text) => {
                let ready = serde_json::from_str(&text);
                ready.map(Some).with_context(|| format!("cannot understand {}", path.display()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// As [`Ready::find`], for a command that was not told `what` it needs.
    pub(crate) fn expect(what: &str) -> anyhow::Result<Self> {
        let missing = || {
            WrongUsage(format!(
                "no {what} given, and no `observer serve` runs on this data folder: give one, or \
                 start `observer serve --demo` in another terminal"
            ))
        };
        Ok(Self::find()?.ok_or_else(missing)?)
    }
}

/// `ready.json` stands in the data folder until this is dropped.
#[derive(Debug)]
pub(crate) struct Announced(PathBuf);

impl Drop for Announced {
    fn drop(&mut self) {
        // It may be gone already; if it cannot be removed, the next start does.
        fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(data_dir: &Path) -> Ready {
        Ready {
            page: "http://127.0.0.1:8080/#key=0123456789ab".into(),
            key: "0123456789ab".into(),
            game: "127.0.0.1:6667".into(),
            game_tls: None,
            game_ws: Some("ws://127.0.0.1:6669/device".into()),
            api: "http://127.0.0.1:8080".into(),
            admin: "http://127.0.0.1:9090".into(),
            data_dir: data_dir.to_owned(),
        }
    }

    #[test]
    fn what_was_announced_is_read_until_the_end() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Ready::read(folder.path()).unwrap(), None);
        let announced = ready(folder.path()).announce().unwrap();
        assert_eq!(Ready::read(folder.path()).unwrap(), Some(ready(folder.path())));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(announced);
        assert_eq!(Ready::read(folder.path()).unwrap(), None);
    }

    #[test]
    fn what_a_killed_process_left_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        Ready::forget(folder.path()).unwrap();
        std::mem::forget(ready(folder.path()).announce().unwrap());
        Ready::forget(folder.path()).unwrap();
        assert_eq!(Ready::read(folder.path()).unwrap(), None);
    }
}
