//! Many devices at once, over several projects, told together to go on or to settle.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::{AHEAD_LINES_MAX, Addresses, Device, DeviceOptions, Kept, Level, Phase, Project};
use crate::eventually;

/// What a fleet is made of.
#[derive(Clone, Debug)]
pub struct FleetOptions {
    /// Projects; devices are dealt out to them in turn.
    pub projects: Vec<Project>,
    /// Number of devices.
    pub devices: usize,
    /// How they sign in, dealt out in turn.
    pub levels: Vec<Level>,
    /// Records of a line.
    pub line_records: usize,
    /// Pause of a device between two lines; `None` is as fast as answers come.
    pub pace: Option<Duration>,
}

impl FleetOptions {
    /// Eight devices, a third of them of level 1, two records a line, a hundred lines a second in all.
    #[must_use]
    pub fn new(projects: &[Project]) -> Self {
        Self {
            projects: projects.to_vec(),
            devices: 8,
            levels: vec![Level::Two, Level::Two, Level::One],
            line_records: 2,
            pace: Some(Duration::from_millis(80)),
        }
    }
}

/// Devices that run until they are settled. Dropped, they end at once.
#[derive(Debug)]
pub struct Fleet {
    devices: JoinSet<()>,
    kept: Vec<Arc<Mutex<Kept>>>,
    phase: watch::Sender<Phase>,
}

impl Fleet {
    /// Starts the devices.
    ///
    /// # Panics
    ///
    /// When there is no project or no level.
    #[must_use]
    pub fn start(options: &FleetOptions, addresses: &Addresses) -> Self {
        let (phase, phases) = watch::channel(Phase::Sending);
        let mut fleet = Self { devices: JoinSet::new(), kept: Vec::new(), phase };
        for number in 0..options.devices {
            let options = DeviceOptions {
                name: format!("d{number}"),
                project: options.projects[number % options.projects.len()].clone(),
                level: options.levels[number % options.levels.len()],
                line_records: options.line_records,
                pace: options.pace,
                ahead_lines_max: AHEAD_LINES_MAX,
            };
            let kept = Arc::new(Mutex::new(Kept::new(&options)));
            fleet.kept.push(Arc::clone(&kept));
            let device = Device {
                options,
                addresses: addresses.clone(),
                phase: phases.clone(),
                kept,
                boot: format!("{:08x}-{number}", super::below(1 << 32)),
                secret: None,
                last_line_at: None,
            };
            fleet.devices.spawn(device.run());
        }
        fleet
    }

    /// What the devices know at this moment.
    #[must_use]
    pub fn kept(&self) -> Vec<Kept> {
        self.each(Clone::clone)
    }

    /// Something of each device.
    #[must_use]
    pub fn each<T>(&self, of: impl Fn(&Kept) -> T) -> Vec<T> {
        let lock =
            |kept: &Arc<Mutex<Kept>>| of(&kept.lock().unwrap_or_else(PoisonError::into_inner));
        self.kept.iter().map(lock).collect()
    }

    /// Acknowledged lines of all devices.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.each(Kept::acknowledged).into_iter().sum()
    }

    /// Waits until each device got an `OK` for a line that it sent after `since`; returns how long
    /// after it that was.
    ///
    /// # Panics
    ///
    /// When that takes longer than `deadline` from now.
    pub async fn full_service(&self, since: Instant, deadline: Duration) -> Duration {
        let served = |kept: &Kept| kept.newest_sent.is_some_and(|sent| since <= sent);
        let what = "every device gets its lines acknowledged again";
        eventually(deadline, what, async || self.each(served).iter().all(|is| *is).then_some(()))
            .await;
        since.elapsed()
    }

    /// Lets the devices send again what has no final answer, and nothing new, until nothing is left;
    /// returns what they know in the end.
    ///
    /// # Panics
    ///
    /// When a device panicked, or is not done within `deadline`.
    pub async fn settle(mut self, deadline: Duration) -> Vec<Kept> {
        self.phase.send_replace(Phase::Settling);
        let settled = timeout(deadline, async {
            while let Some(ended) = self.devices.join_next().await {
                ended.expect("a device does not panic");
            }
        });
        if settled.await.is_err() {
            let left =
                self.each(|kept| (kept.device.clone(), kept.unknown().len(), kept.answers.clone()));
            panic!("not settled within {deadline:?}, unanswered: {left:?}");
        }
        self.kept()
    }
}
