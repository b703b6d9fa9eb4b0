//! What all workers of a process share. Everything that only one worker needs is in
//! [`crate::worker`].

use std::sync::Arc;

use observer_bus::Bus;
use observer_wire::{ApiKey, Limits};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::GatewayConfig;
use crate::budget::Budget;
use crate::documents::{Documents, Projects};
use crate::edits::{PUSHES_MAX, Push};
use crate::keys::Keys;
use crate::listener::certificate::Certificate;
use crate::listener::handshake::Handshakes;
use crate::numbers::Numbers;
use crate::rate::{Address, Rates};
use crate::shed::Gaps;
use crate::slots::Slots;
use crate::spread::Spread;

/// Sockets that are told why they are refused and closed, at once. Past it they are dropped.
const REFUSED_SOCKETS_MAX: usize = 256;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) limits: Limits,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) numbers: Arc<Numbers>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) gaps: Gaps,
    pub(crate) keys: Keys,
    pub(crate) key_slots: Arc<Slots<ApiKey>>,
    /// Connections that are open, in all stages.
    pub(crate) open_sockets: Arc<Slots<()>>,
    pub(crate) address_slots: Arc<Slots<Address>>,
    pub(crate) rates: Rates,
    pub(crate) refused_sockets: Arc<Semaphore>,
    pub(crate) handshakes: Handshakes,
    /// What TLS shows, if it is spoken.
    pub(crate) certificate: Option<Arc<Certificate>>,
    pub(crate) projects: Projects,
    pub(crate) documents: Documents,
    /// Tells gateways apart, also one from itself before a restart.
    pub(crate) gateway_id: String,
    /// Asks for a reconciliation.
    pub(crate) reconcile: Notify,
    pub(crate) refreshes: TaskTracker,
    /// When games come back to another gateway.
    pub(crate) spread: Spread,
    pushes: broadcast::Sender<Push>,
    /// The grace is over: what is under way is told `timeout`.
    pub(crate) cut: CancellationToken,
    /// The gateway ended: background work stops.
    pub(crate) ended: CancellationToken,
}

impl Shared {
    pub(crate) fn new(
        config: GatewayConfig,
        limits: Limits,
        bus: Arc<dyn Bus>,
        certificate: Option<Arc<Certificate>>,
    ) -> Self {
        let numbers = Arc::new(Numbers::new());
        Self {
            budget: Budget::new(&limits),
            gaps: Gaps::default(),
            keys: Keys::new(Arc::clone(&bus), Arc::clone(&numbers)),
            key_slots: Slots::new(limits.key_sockets_max),
            open_sockets: Slots::new(usize::MAX),
            address_slots: Slots::new(limits.address_sockets_max),
            rates: Rates::new(&limits),
            handshakes: Handshakes::new(limits.handshakes_max),
            certificate,
            refused_sockets: Arc::new(Semaphore::new(REFUSED_SOCKETS_MAX)),
            projects: Projects::default(),
            documents: Documents::new(Arc::clone(&bus), Arc::clone(&numbers)),
            gateway_id: format!("g-{:016x}", random()),
            reconcile: Notify::new(),
            refreshes: TaskTracker::new(),
            #[expect(clippy::cast_possible_truncation, reason = "any 32 bits will do")]
            spread: Spread::new(random() as u32),
            pushes: broadcast::Sender::new(PUSHES_MAX),
            cut: CancellationToken::new(),
            ended: CancellationToken::new(),
            config,
            limits,
            bus,
            numbers,
        }
    }

    /// Gives every worker something to push.
    pub(crate) fn push(&self, push: Push) {
        // No receiver: no worker, so no socket.
        self.pushes.send(push).ok();
    }

    /// What this process hears from now on, for one worker.
    pub(crate) fn pushes(&self) -> broadcast::Receiver<Push> {
        self.pushes.subscribe()
    }
}

/// A random number: ids that nobody shall guess or repeat are made of it.
///
/// # Panics
///
/// When the system has no randomness to give: nothing can be told apart then.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("the system gives random numbers")
}
