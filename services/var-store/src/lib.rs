//! Third hop of a variable: what devices report is stored, what operators want is committed.
//!
//! ```text
//! gateway ──> bus (vars)  ──> report ──> var store ──> live news ──> viewers
//! api     ──> bus (asked) ──> commit ──> bus (edits) ──> var store, gateways
//! ```
//!
//! - [`report`] takes what devices say and stores it, each value once, newest last.
//! - [`commit`] checks an edit and publishes it to the edit log: that is its commit. [`applier`]
//!   applies committed edits to the store, also those of a process that died in between.
//! - [`receipts`] decides what became of a wanted value on a device; [`view`] shows it.
//! - [`retell`] tells viewers again when time alone changed a receipt.
//! - [`presence`] knows which gateways are alive, and so which devices are online.
//! - [`answer`] takes the requests of api and gateways.
//!
//! var-store holds no socket and keeps no state of its own: any number may run, any may die.

mod answer;
mod applier;
mod commit;
mod config;
mod presence;
mod receipts;
mod report;
mod retell;
#[cfg(test)]
mod rig;
mod view;

pub use config::VarStoreConfig;

use std::sync::Arc;

use observer_bus::{Bus, Consumer, Durable, Listener, Requests, Service, Topic};
use observer_chassis::{
    BoxError, Check, Readiness, Shutdown, Tasks, connect_patiently, keep_checking, reason,
};
use observer_store::VarStore;
use observer_wire::Limits;

use commit::Turns;
use presence::Presence;
use retell::Retells;

/// What all parts of var-store share.
pub(crate) struct Context {
    pub(crate) limits: Limits,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) store: Arc<dyn VarStore>,
    pub(crate) presence: Presence,
    pub(crate) turns: Turns,
    pub(crate) retells: Retells,
}

impl Context {
    fn new(limits: Limits, bus: Arc<dyn Bus>, store: Arc<dyn VarStore>) -> Self {
        let (presence, turns, retells) = Default::default();
        Self { limits, bus, store, presence, turns, retells }
    }
}

/// Stores values and commits edits until shutdown is requested, then finishes what is in hand.
///
/// # Errors
///
/// When a part failed, or work was cut off at the deadline: the bus delivers it again.
pub async fn run(
    config: VarStoreConfig,
    limits: Limits,
    (bus, store): (Arc<dyn Bus>, Arc<dyn VarStore>),
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let context = Arc::new(Context::new(limits, bus, store));
    let tasks = Tasks::new(shutdown.clone());
    let Some(Joined { gateways, reports, edits, requests }) =
        join(context.bus.as_ref(), &readiness.check("bus"), &shutdown).await
    else {
        return Ok(()); // Asked to end while the bus is away.
    };
    tasks.spawn("presence", presence::keep(Arc::clone(&context), gateways, shutdown.clone()));
    tasks.spawn("report", report::take(Arc::clone(&context), reports, shutdown.clone()));
    tasks.spawn("applier", applier::apply(Arc::clone(&context), edits, shutdown.clone()));
    tasks.spawn("sweep", presence::sweep(Arc::clone(&context), shutdown.clone()));
    tasks.spawn("retell", retell::keep_telling(Arc::clone(&context), shutdown.clone()));
    let requests_max = config.requests_max.get();
    tasks.spawn(
        "answer",
        answer::serve(Arc::clone(&context), requests, requests_max, shutdown.clone()),
    );
    tasks.spawn("checks", watch(context, readiness, shutdown));
    tasks.finish().await?;
    Ok(())
}

/// What var-store gets from the bus.
struct Joined {
    gateways: Box<dyn Listener>,
    reports: Box<dyn Consumer>,
    edits: Box<dyn Consumer>,
    requests: Box<dyn Requests>,
}

/// Joins the bus, which may be away for a while; `None` when shutdown is requested first.
async fn join(bus: &dyn Bus, check: &Check, shutdown: &Shutdown) -> Option<Joined> {
    Some(Joined {
        gateways: connect_patiently(check, shutdown, || bus.listen(Topic::Gateways)).await?,
        reports: connect_patiently(check, shutdown, || bus.consume(Durable::VarStore)).await?,
        edits: connect_patiently(check, shutdown, || bus.consume(Durable::EditApplier)).await?,
        requests: connect_patiently(check, shutdown, || bus.serve(Service::Vars)).await?,
    })
}

/// Tells `/readyz` whether store and bus can be used.
async fn watch(
    context: Arc<Context>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let look = || async { context.store.check().await.map_err(|error| reason(&error)) };
    let store = keep_checking(readiness.check("var_store"), shutdown.clone(), look);
    let bus = keep_checking(readiness.check("bus"), shutdown, || context.bus.check());
    tokio::join!(store, bus);
    Ok(())
}
