//! The bus: how events, edits, live news and requests get from one service to another.
//!
//! [`Bus`] is the port; its doc comment is the contract. Two adapters keep it: [`nats`]
//! (`JetStream`, for any number of processes) and [`in_process`] (one process, nothing to install).
//! Both pass the same conformance suite, `tests/tests/it/bus.rs` at the top of the workspace.
//!
//! What is deliberately absent: the bus looks into no payload, and knows no store.

pub mod config;
mod dead;
mod in_hand;
pub mod in_process;
mod mailbox;
pub mod nats;
mod port;
mod shared;

pub use config::{BusConfig, connect};
pub use dead::{
    DEAD_PAGE_MAX, DeadCount, DeadHead, DeadKind, DeadLetter, DeadLetters, DeadPage, ReplayError,
    replay_dead,
};
pub use in_hand::in_hand;
pub use port::*;
use shared::{check_broadcast, check_event, lock, percent, shortened, stream_named};
