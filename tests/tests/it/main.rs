//! All tests against real servers and whole processes, in one binary: they share what is slow to
//! start, and link once.

#![cfg(test)] // Or the lints take helpers of tests for something else.

mod accounts;
mod accounts_redis;
mod bus;
mod dependencies;
mod faults;
mod logs;
mod logs_elastic;
mod vars;
mod whole;
