//! Standard input, line by line. A thread of its own reads it: a read that waits for a person cannot
//! be cancelled, and would keep the process from ending.

use std::io::{self, BufRead as _, Read as _};

use tokio::sync::mpsc;

/// Lines that wait to be obeyed; a pipe is read no faster than that.
const LINES_MAX: usize = 64;

/// Longest line that is read, in bytes. What is behind it is read as the next.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// Lines as they come; the channel closes at the end of the input.
pub(super) fn lines() -> io::Result<mpsc::Receiver<String>> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    let read = move || {
        let mut stdin = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match (&mut stdin).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    };
    // Nobody waits for it: it ends with the input, or with the process.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(read)?;
    Ok(receiver)
}
