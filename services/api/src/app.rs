//! What all handlers share: settings, ports, and the bounds that hold for the whole process.

use std::sync::Arc;

use observer_chassis::Shutdown;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::live::Live;
use crate::password::Hasher;
use crate::{ApiConfig, Ports};

/// One api, for as long as it runs.
pub(crate) struct App {
    pub(crate) config: ApiConfig,
    pub(crate) ports: Ports,
    pub(crate) live: Arc<Live>,
    pub(crate) hasher: Hasher,
    /// Permits for `/ws` and `/stream` together.
    pub(crate) viewers: Arc<Semaphore>,
    /// WebSockets, connections and subscriptions: what shutdown waits for.
    pub(crate) open: TaskTracker,
    pub(crate) shutdown: Shutdown,
}

impl App {
    pub(crate) fn new(config: ApiConfig, ports: Ports, shutdown: Shutdown) -> Self {
        let open = TaskTracker::new();
        let live = Live::new(Arc::clone(&ports.bus), open.clone(), shutdown.clone());
        let viewers = Arc::new(Semaphore::new(config.live_viewers_max.get()));
        Self { config, ports, live: Arc::new(live), hasher: Hasher::new(), viewers, open, shutdown }
    }
}
