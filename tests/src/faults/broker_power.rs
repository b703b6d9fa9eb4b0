//! The power of the machine is cut under load: the broker's store is a file system on an image of its own,
//! and what had reached the image at that moment is all that it starts with again. The services start
//! anew too: they make no stream again that was there before.
//!
//! The preloaded shim of [`crate::powercut`] does not see what a Go program does. This takes the system's
//! mounts instead, and so needs root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::sleep;

use super::killed::gateway_addresses;
use super::{Load, Row, random_moment};
use crate::child::{Signal, folder};
use crate::process::{Settings, settings};
use crate::servers::NatsOptions;
use crate::stack::{Cluster, ClusterOptions};

/// Room for the streams of a run, in bytes.
const IMAGE_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of each stream at most: together well below the image.
const STREAM_BYTES: u64 = 32 * 1024 * 1024;

/// Time after full service before the power is cut, so that each cut has lines to lose.
const STRIKES_AFTER: Duration = Duration::from_millis(500);

/// Within this time after it, the cut comes.
const STRIKES_WITHIN: Duration = Duration::from_millis(1500);

/// Whether the broker syncs what it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Syncs {
    /// `sync_interval: always`, and the profile that wants it.
    Always,
    /// Every two minutes, and the profile that promises nothing.
    Seldom,
}

/// Cuts the power again and again. The log-indexer stands still before each cut: what was acknowledged
/// is nowhere but in the broker's store.
///
/// # Panics
///
/// When an image cannot be mounted, or the devices do not come back to full service.
pub async fn power_of_the_broker_is_cut(cuts: usize, syncs: Syncs) -> Row {
    let mut disk = Disk::new();
    let profile = match syncs {
        Syncs::Always => "durable",
        Syncs::Seldom => "fast",
    };
    let options = ClusterOptions {
        log_indexers: 1,
        var_stores: 1,
        nats: NatsOptions {
            monitoring: true,
            sync_always: syncs == Syncs::Always,
            store: Some(disk.mounted.clone()),
            ..NatsOptions::default()
        },
        settings: bus(profile),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(options).await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    for _ in 0..cuts {
        cluster.log_indexers[0].signal(Signal::Stop);
        sleep(STRIKES_AFTER).await;
        random_moment(STRIKES_WITHIN).await;
        cluster.nats.stop(); // It acknowledges nothing any more.
        let left = disk.copy();
        cluster.nats.kill();
        disk.replace_by(left);
        cluster.nats.restart().await;
        let Cluster { gateways, log_indexers, var_stores, .. } = &mut cluster;
        for service in gateways.iter_mut().chain(log_indexers).chain(var_stores) {
            service.restart(); // One that runs is killed.
        }
        load.addresses.set(&gateway_addresses(&mut cluster).await);
        load.healed().await;
    }
    let name = match syncs {
        Syncs::Always => "power cut of nats-server, synced always",
        Syncs::Seldom => "power cut of nats-server, synced seldom",
    };
    let row = load.judge(name, cuts, &api).await;
    drop(cluster); // Before its disk.
    row
}

/// The broker keeps room for as much as its streams may hold.
fn bus(profile: &str) -> Settings {
    let mut bus = settings(&[("OBSERVER_BUS__PROFILE", profile)]);
    for stream in ["LOGS", "VARS", "EDITS", "DEAD"] {
        bus.push((format!("OBSERVER_BUS__{stream}_BYTES_MAX"), STREAM_BYTES.to_string()));
    }
    bus
}

/// A file system on an image, mounted.
struct Disk {
    mounted: PathBuf,
    image: PathBuf,
    copies: usize,
    folder: TempDir,
}

impl Disk {
    fn new() -> Self {
        let folder = folder("disk");
        let (mounted, image) = (folder.path().join("mounted"), folder.path().join("image"));
        fs::create_dir(&mounted).expect("the folder is ours");
        let file = fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES));
        file.expect("there is room for an image");
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), &image]);
        let disk = Self { mounted, image, copies: 0, folder };
        disk.mount();
        disk
    }

    /// Its file system writes nothing of its own accord for five minutes.
    fn mount(&self) {
        run("mount", &["-o".as_ref(), "loop,commit=300".as_ref(), &self.image, &self.mounted]);
    }

    /// The image as the power would leave it now.
    fn copy(&mut self) -> PathBuf {
        self.copies += 1;
        let copy = self.folder.path().join(format!("copy-{}", self.copies));
        fs::copy(&self.image, &copy).expect("there is room for a copy");
        copy
    }

    /// Takes the disk away and puts another in its place.
    fn replace_by(&mut self, image: PathBuf) {
        run("umount", &[&self.mounted]);
        fs::remove_file(&self.image).expect("it is there");
        self.image = image;
        self.mount();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: after a failed test somebody may still use it.
        Command::new("umount").arg("-l").arg(&self.mounted).status().ok();
    }
}

/// Runs a program of the system.
fn run(program: &str, args: &[&Path]) {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program} does not run: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?} (it needs root): {complaint}");
}
