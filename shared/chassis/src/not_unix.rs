//! The twin of `unix.rs` for systems without signals: Ctrl-C asks the process to end.

use std::future::pending;
use std::io;

/// The events that ask the process to end.
pub(crate) struct Signals;

impl Signals {
    /// Nothing to take over before the first wait.
    #[expect(clippy::unnecessary_wraps, reason = "the twin can fail")]
    pub(crate) fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits for the next Ctrl-C and names it.
    pub(crate) async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            // Without a handler the system ends the process by itself.
            pending::<()>().await;
        }
        "Ctrl-C"
    }
}
