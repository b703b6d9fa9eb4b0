//! The power of the broker's disk is cut under load. Its store is on an image of a disk; what the image
//! holds at a moment is what such a disk would have: all that was written through to it, and nothing
//! that only the system's cache had. Needs root, for mounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::killed::{STRIKES_WITHIN, gateway_addresses};
use super::{Load, Row, random_moment};
use crate::child::{Signal, folder};
use crate::process::settings;
use crate::servers::{NatsOptions, NatsServer};
use crate::stack::{Cluster, ClusterOptions};

/// Bytes of the image: far more than a run stores.
const IMAGE_BYTES: u64 = 512 * 1024 * 1024;

/// Bytes of each stream: the broker reserves them.
const STREAM_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Copies until two are the same. Nobody writes then, so one differs at most while the system writes
/// back what it had.
const COPIES_MAX: usize = 20;

/// A file system on an image, mounted.
struct Disk {
    folder: TempDir,
    image: PathBuf,
    cuts: usize,
}

impl Disk {
    fn new() -> Self {
        let folder = folder("disk");
        let image = folder.path().join("image");
        fs::File::create(&image).expect("the folder is ours").set_len(IMAGE_BYTES).expect("room");
        run("mkfs.ext4", &["-q".as_ref(), &image]);
        let disk = Self { folder, image, cuts: 0 };
        fs::create_dir(disk.mounted()).expect("the folder is ours");
        disk.mount();
        disk
    }

    /// Writes all through that the system has.
    fn sync(&self) {
        run("sync", &["-f".as_ref(), &self.mounted()]);
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn mount(&self) {
        // The system commits when it is asked to, and hardly by itself.
        let options = "loop,commit=300".as_ref();
        run("mount", &["-o".as_ref(), options, &self.image, &self.mounted()]);
    }

    /// Cuts the power, and has it again: with what was on the image.
    async fn cut(&mut self, server: &mut NatsServer) {
        server.stop();
        self.cuts += 1;
        let after = self.folder.path().join(format!("image-{}", self.cuts));
        copy_as_it_is(&self.image, &after);
        server.kill();
        run("umount", &[&self.mounted()]);
        fs::remove_file(&self.image).expect("it is ours");
        self.image = after;
        self.mount();
        server.restart().await;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The server may be alive when a test fails; a lazy one waits for its end.
        Command::new("umount").arg("-l").arg(self.mounted()).status().ok();
    }
}

/// Copies the image as of one moment.
fn copy_as_it_is(from: &Path, to: &Path) {
    let copy = || run("cp", &["--sparse=always".as_ref(), from, to]);
    copy();
    for _ in 0..COPIES_MAX {
        let same = Command::new("cmp").arg("-s").args([from, to]).status();
        if same.expect("cmp is there: diffutils").success() {
            return;
        }
        copy();
    }
    panic!("the system never stopped to write");
}

fn run(program: &str, args: &[&Path]) {
    let status = Command::new(program).args(args).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}: as root?");
}

/// The power of nats-server's disk is cut at random moments, while nobody takes from its streams. With
/// `durable`, it syncs before it acknowledges, and the services are told to insist on that.
///
/// # Panics
///
/// When the devices do not come back to full service, or without root.
pub async fn nats_power_is_cut(cycles: usize, durable: bool) -> Row {
    let mut disk = Disk::new();
    let args = vec!["-sd".to_owned(), disk.mounted().display().to_string()];
    let nats =
        NatsOptions { monitoring: true, sync_always: durable, args, ..NatsOptions::default() };
    let profile = if durable { "durable" } else { "fast" };
    let mut settings = settings(&[("OBSERVER_BUS__PROFILE", profile)]);
    for stream in ["LOGS", "VARS", "EDITS", "DEAD", "LIVE"] {
        settings.push((format!("OBSERVER_BUS__{stream}_BYTES_MAX"), STREAM_BYTES_MAX.to_string()));
    }
    let (log_indexers, var_stores) = (1, 1);
    let options =
        ClusterOptions { log_indexers, var_stores, nats, settings, ..ClusterOptions::default() };
    let mut cluster = Cluster::start(options).await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    if !durable {
        disk.sync(); // Else the streams themselves are lost, not what was sent.
    }
    for _ in 0..cycles {
        cluster.log_indexers[0].signal(Signal::Stop);
        random_moment(STRIKES_WITHIN).await;
        disk.cut(&mut cluster.nats).await;
        load.healed().await;
        cluster.log_indexers[0].signal(Signal::Cont);
    }
    let name = if durable { "nats-server, power cut" } else { "nats-server, power cut, fast" };
    let row = load.judge(name, cycles, &api).await;
    cluster.nats.kill(); // Its disk is unmounted first.
    row
}
