//! The gateway on real sockets, with a bus that does what the test says.
#![expect(clippy::disallowed_methods, reason = "tests join what they spawn")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod conformance;
mod drain;
mod edits;
mod embedded;
mod fake_bus;
mod game;
mod level2;
mod lines;
mod pressed;
mod rates;
mod rig;
mod shed;
mod sign_in;
mod tls;
mod transport;
mod transports;
mod web;
