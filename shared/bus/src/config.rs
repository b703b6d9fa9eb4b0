//! Settings of the bus, and the choice of its adapter. Which services use it, they do not say.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::in_process::InProcessBus;
use crate::nats::NatsBus;
use crate::{Bus, BusError};

const MIB: u64 = 1024 * 1024;

/// Which adapter carries the bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BusType {
    /// Within one process; nothing to install.
    #[default]
    InProcess,
    /// NATS `JetStream`, for any number of processes.
    Nats,
}

/// What an accepted event survives on NATS. In process it is what the store survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Killed processes. A power cut may cost two minutes.
    #[default]
    Fast,
    /// Power cuts too. Needs `sync_interval: always` at the server, and `monitor_url` to see it.
    Durable,
    /// Loss of a disk too. Needs three servers besides.
    ReplicatedDurable,
}

impl Profile {
    /// The name, as settings spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Durable => "durable",
            Self::ReplicatedDurable => "replicated-durable",
        }
    }

    /// What an event that was acknowledged survives, in words for people.
    #[must_use]
    pub fn promise(self) -> &'static str {
        match self {
            Self::Fast => {
                "what is acknowledged survives killed processes; a power cut may cost two minutes"
            }
            Self::Durable => "what is acknowledged survives killed processes and power cuts",
            Self::ReplicatedDurable => {
                "what is acknowledged survives killed processes, power cuts and the loss of a disk"
            }
        }
    }

    /// Copies that the broker keeps of each stream.
    #[must_use]
    pub fn replicas(self) -> usize {
        match self {
            Self::Fast | Self::Durable => 1,
            Self::ReplicatedDurable => 3,
        }
    }
}

/// Settings of the bus: section `[bus]`, or `OBSERVER_BUS__*` in the environment.
///
/// All processes on one broker need the same bounds of streams: a process that finds a stream with
/// others refuses to start.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct BusConfig {
    /// Adapter: `in_process` or `nats`.
    #[serde(rename = "type")]
    pub kind: BusType,
    /// NATS: addresses of servers, separated by commas.
    pub url: String,
    /// NATS: what an accepted event survives: `fast`, `durable` or `replicated-durable`.
    pub profile: Profile,
    /// NATS: addresses of the servers' monitoring ports (`http://…`), separated by commas. Above `fast`
    /// those of all servers are needed, since nothing else shows whether a server syncs.
    pub monitor_url: Option<String>,
    /// NATS: bytes of log events that may wait for the log indexer; then games are told `busy`.
    pub logs_bytes_max: u64,
    /// NATS: log events of one project that may wait. The default is a quarter of the default bytes,
    /// in messages of 16 KiB, so that one noisy game is not everybody's `busy`.
    pub logs_project_messages_max: u64,
    /// NATS: bytes of reported values that are kept, up to a day, for replay.
    pub vars_bytes_max: u64,
    /// NATS: bytes of the log of edits. It has no age; when full, edits are refused.
    pub edits_bytes_max: u64,
    /// Bytes of events that could never be dealt with and were kept. When full, nothing more can be
    /// buried and what would be comes again.
    pub dead_bytes_max: u64,
    /// NATS: bytes of live events that are kept in memory, up to two minutes, for viewers that
    /// come back.
    pub live_bytes_max: u64,
    /// In process: bytes of events that may wait in one queue, a quarter of them for one project.
    /// Then games are told `busy`.
    pub queue_bytes_max: u64,
    /// In process: bytes of log events that are kept, up to two minutes, for viewers that are slow
    /// or come back.
    pub ring_bytes_max: u64,
}

impl Default for BusConfig {
    fn default() -> Self {
        Self {
            kind: BusType::InProcess,
            url: "nats://127.0.0.1:4222".to_owned(),
            profile: Profile::Fast,
            monitor_url: None,
            logs_bytes_max: 2048 * MIB,
            logs_project_messages_max: 32_768,
            vars_bytes_max: 512 * MIB,
            edits_bytes_max: 1024 * MIB,
            dead_bytes_max: 256 * MIB,
            live_bytes_max: 256 * MIB,
            queue_bytes_max: 64 * MIB,
            ring_bytes_max: 64 * MIB,
        }
    }
}

impl BusConfig {
    /// Name of the delivery profile in force, and what it promises.
    #[must_use]
    pub fn delivery(&self) -> (&'static str, &'static str) {
        match self.kind {
            // What its consumers settled their stores have synced, and those of `observer serve` are
            // files in one folder.
            BusType::InProcess => ("embedded", Profile::Durable.promise()),
            BusType::Nats => (self.profile.name(), self.profile.promise()),
        }
    }

    /// Names the setting that keeps a process apart from the others, with what would do; `None` when
    /// they can reach each other.
    #[must_use]
    pub fn first_unshared(&self) -> Option<(&'static str, &'static str)> {
        let problem = "is in_process, but this process needs a bus that others share: nats; \
                       `observer serve` is all in one process";
        (self.kind == BusType::InProcess).then_some(("type", problem))
    }
}

/// Connects to the bus that `config` names. The adapter in process keeps its dead letters in
/// `data_dir`; the one for NATS puts nothing there.
///
/// # Errors
///
/// [`BusError`]: what was wrong stands in its source, ready to be shown.
pub async fn connect(config: &BusConfig, data_dir: &Path) -> Result<Arc<dyn Bus>, BusError> {
    match config.kind {
        BusType::InProcess => {
            let bus = InProcessBus::open(config, data_dir).await?;
            Ok(Arc::new(bus))
        }
        BusType::Nats => {
            let bus = Box::pin(NatsBus::connect(config)).await?; // It is large, and made once.
            Ok(Arc::new(bus))
        }
    }
}
