//! The test kit: real servers, our own binaries, and the clients that play device and browser.
//!
//! It starts, sends and asks; what must hold, the tests that use it say. It depends on none of our
//! crates, so that each of them may use it in its own tests.

pub mod child;
pub mod device;
pub mod faultproxy;
pub mod faults;
pub mod game;
pub mod http;
pub mod laws;
#[cfg(target_os = "linux")]
pub mod powercut;
pub mod process;
pub mod servers;
pub mod stack;
#[cfg(target_os = "linux")]
pub mod usage;
pub mod wait;
pub mod ws;

pub use wait::eventually;
