//! A game connects. What it says is the session's business.

pub(crate) mod accept;
