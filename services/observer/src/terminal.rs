//! Words for whoever typed the command, on stdout. The log is not written here.
//!
//! A reader that went away (`observer tail … | head`) is no failure: the command ends.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

/// Whoever read our output is gone: there is nobody left to talk to.
#[derive(Debug, thiserror::Error)]
#[error("output is closed")]
pub(crate) struct OutputClosed(#[source] io::Error);

/// Prints a line.
///
/// # Errors
///
/// [`OutputClosed`]: end the command.
pub(crate) fn line(text: &str) -> Result<(), OutputClosed> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(OutputClosed)
}

/// Prints text that has its own line ends, or is to have none.
///
/// # Errors
///
/// [`OutputClosed`]: end the command.
pub(crate) fn text(text: &str) -> Result<(), OutputClosed> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(OutputClosed)
}

/// Whether a person types, rather than a file or a pipe.
pub(crate) fn is_typed() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Whether a person reads, rather than a file or a pipe.
pub(crate) fn is_read_by_a_person() -> bool {
    io::stdout().is_terminal()
}

/// Text of a game or a server without what would steer a terminal. Line ends become spaces.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_game_sends_cannot_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{9b}d"), "a [31mb c d");
        assert_eq!(clean("ünchanged"), "ünchanged");
    }
}
