//! The api over real sockets: its own server, the bus in process, stores that live in memory and a
//! var-store that says what a test tells it to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod dead_letters;
mod harness;
mod http;
mod live;
mod original;
mod web;
