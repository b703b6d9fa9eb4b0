//! The language that games, gateways and services speak: lines, frames, events, edits, subjects, ids
//! and limits.
//!
//! The path of one line through this crate:
//!
//! 1. [`line`]: bytes from a socket become lines, bounded while they wait.
//! 2. [`frame`]: a line becomes a [`frame::Frame`]; [`payload`] turns base64 into JSON.
//! 3. [`records`] and [`declare`]: the JSON is checked once, without building a tree.
//! 4. [`event`]: the checked bytes are copied, as they came, into the message that travels on the bus.
//! 5. [`record`]: the indexer reads the recognised fields of each record.
//!
//! [`hello`], [`dropped`] and [`sending`] are the payloads of level 2; [`server`] is what a game gets.
//!
//! And of one edit: [`edit`] is what an operator asked for, [`value`] decides what equals what, and
//! [`edit::push_frame`] is what the game gets.
//!
//! No I/O here, no clock, no runtime: gateway, services, tests and fuzzers feed it. The protocol
//! itself is described in `PROTOCOL.md` beside this crate.

pub mod answer;
pub mod ask;
pub mod declare;
pub mod dropped;
pub mod edit;
pub mod event;
pub mod frame;
pub mod hello;
pub mod ids;
mod json;
pub mod key;
pub mod limits;
pub mod line;
pub mod payload;
pub mod record;
pub mod records;
pub mod sending;
pub mod server;
pub mod subject;
pub mod text;
pub mod time;
pub mod value;

pub use answer::{Code, Refusal};
pub use key::{ApiKey, ProjectId};
pub use limits::Limits;
