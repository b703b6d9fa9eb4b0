//! All tests against real servers and whole processes, in one binary: they share what is slow to
//! start, and link once.

mod accounts;
mod accounts_redis;
mod bus;
mod dependencies;
mod logs;
#[cfg(test)]
mod logs_elastic;
mod vars;
mod whole;
