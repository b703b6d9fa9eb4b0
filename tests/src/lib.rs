//! The test kit: real servers, our own binaries, and the clients that play device and browser.
//!
//! It starts and asks; it checks nothing. The checks are the tests that use it. `child`, `servers`
//! and `wait` know none of our crates, so that those may use them in their own tests.

pub mod child;
pub mod servers;
pub mod wait;

pub use wait::eventually;
