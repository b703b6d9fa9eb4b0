//! A game connects: over TCP, TLS or a WebSocket. What it says is the session's business.

pub(crate) mod accept;
pub(crate) mod certificate;
pub(crate) mod handshake;
mod upgrade;
