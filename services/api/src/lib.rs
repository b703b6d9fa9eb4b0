//! The face to people: HTTP, WebSockets and the dashboard; and the answer to gateways that ask for
//! keys.
//!
//! ```text
//! browser ──HTTP──> router ─> guard ─┬─> users             ──> account store
//!                                    ├─> logs              ──> log store
//!                                    ├─> dead_letters      ──> bus
//!                                    ├─> vars, edits       ──> bus (asked) ──> var-store
//!                                    └─> stream, ws <── live <── bus (live)
//! gateway ──bus (asked)──> keys ──> account store
//! ```
//!
//! - [`connections`] accepts and bounds sockets, of which the [`idle`] make room for others; [`router`] names the routes and what wraps them;
//!   [`guard`] says who may come in; [`problem`] alone knows what an error looks like outside.
//! - [`live`] holds one bus subscription a watched project, whatever the number of viewers;
//!   [`queue`] is what one viewer has not read yet; [`frames`] turns it into text.
//!
//! api decides nothing about variables and stores no record: it asks, shows and passes on.

mod about;
mod app;
mod assets;
mod config;
mod connections;
mod dead_letters;
mod edits;
mod feed;
mod filter;
mod frames;
mod guard;
mod idle;
mod item;
mod keys;
mod live;
mod logs;
mod object;
mod password;
mod problem;
mod query;
mod queue;
mod router;
mod sends;
mod socket;
mod stream;
mod users;
mod vars;
mod views;
mod ws;

pub use config::{About, ApiConfig, GameAddress};

use std::sync::Arc;

use observer_bus::{Bus, Service};
use observer_chassis::{
    BoxError, Readiness, Shutdown, Tasks, connect_patiently, keep_checking, reason,
};
use observer_store::{AccountStore, LogStore, VarStore};
use tokio::net::TcpListener;

use app::App;

/// What api reads and asks.
#[derive(Clone)]
pub struct Ports {
    /// Live news, and questions to var-store.
    pub bus: Arc<dyn Bus>,
    /// Where logs are searched.
    pub logs: Arc<dyn LogStore>,
    /// Where accounts and keys are.
    pub accounts: Arc<dyn AccountStore>,
    /// What the original's page gets at its start; nothing else is read from it here.
    pub vars: Arc<dyn VarStore>,
}

/// Serves people and answers for keys until shutdown is requested, then lets open requests finish
/// and tells open WebSockets to come back.
///
/// # Errors
///
/// When a part failed, or connections were cut off at the deadline.
pub async fn run(
    config: ApiConfig,
    ports: Ports,
    listener: TcpListener,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let (bus, check) = (Arc::clone(&ports.bus), readiness.check("bus"));
    let serve = || bus.serve(Service::Keys);
    let Some(requests) = connect_patiently(&check, &shutdown, serve).await else {
        return Ok(()); // Asked to end while the bus is away.
    };
    let app = Arc::new(App::new(config, ports, shutdown.clone()));
    let tasks = Tasks::new(shutdown.clone());
    tasks.spawn("http", connections::serve(Arc::clone(&app), listener));
    tasks.spawn("keys", keys::answer(Arc::clone(&app), requests));
    tasks.spawn("checks", watch(app, readiness, shutdown));
    tasks.finish().await?;
    Ok(())
}

/// Tells `/readyz` whether what api needs can be used.
async fn watch(app: Arc<App>, readiness: Readiness, shutdown: Shutdown) -> Result<(), BoxError> {
    let ports = &app.ports;
    let look = || async { ports.logs.check().await.map_err(|error| reason(&error)) };
    let logs = keep_checking(readiness.check("log_store"), shutdown.clone(), look);
    let look = || async { ports.accounts.check().await.map_err(|error| reason(&error)) };
    let accounts = keep_checking(readiness.check("account_store"), shutdown.clone(), look);
    let bus = keep_checking(readiness.check("bus"), shutdown, || ports.bus.check());
    tokio::join!(logs, accounts, bus);
    Ok(())
}
