//! All tests against real servers and whole processes, in one binary: they share what is slow to
//! start, and link once.

mod accounts;
mod bus;
mod dependencies;
mod logs;
mod vars;
