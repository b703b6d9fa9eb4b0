//! What every process of Observer needs and no domain does.
//!
//! No hop of the path lives here: chassis reads settings, starts telemetry, binds listeners, answers
//! the admin port, watches tasks and ends the process in order. It knows nothing of lines, records,
//! buses or stores, and uses no other crate of ours.
//!
//! The life of a process, in the order of a `main`:
//!
//! | step | call |
//! | --- | --- |
//! | read | [`load_config`], with [`ConfigArgs`] from the command line |
//! | watch | [`start_telemetry`], [`shutdown_on_signals`], [`Tasks`] |
//! | bind | [`bind`], [`serve_admin`] |
//! | serve | the service's own `run(…, shutdown)` |
//! | end | [`Tasks::finish`], [`exit_code`] |

pub mod admin;
pub mod backoff;
pub mod clock;
pub mod config;
pub mod exit;
pub mod files;
pub mod listen;
pub mod process;
pub mod shutdown;
pub mod tasks;
pub mod telemetry;

#[cfg(unix)]
mod unix;
#[cfg(not(unix))]
#[path = "not_unix.rs"]
mod unix;

pub use admin::{AdminServer, Check, Readiness, serve_admin};
pub use backoff::Backoff;
pub use clock::{now_ms, now_us};
pub use config::{
    ConfigArgs, ConfigError, InvalidConfig, Secret, Settings, check_config, dotted_flags,
    load_config,
};
pub use exit::{WrongUsage, exit_code};
pub use files::{files_max, raise_files_max};
pub use listen::{ListenError, bind};
pub use process::{
    AdminConfig, SECTIONS, ShutdownConfig, connect_patiently, keep_checking, reason,
};
pub use shutdown::{DrainTimeout, Shutdown, shutdown_on_signals};
pub use tasks::{TaskFailed, Tasks};
pub use telemetry::{
    LogConfig, LogFormat, LogLevel, Metrics, Telemetry, TelemetryError, start_telemetry,
};

/// Any error, as it comes from a service or a library.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
