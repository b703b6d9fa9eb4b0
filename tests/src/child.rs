//! A child process that never outlives its test, however the test ends.
//!
//! A watchdog shell holds the other end of a pipe: when the test process dies, even by `kill -9`,
//! the pipe closes, and the watchdog kills the child and removes its folder. Unix only.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

/// Pause between two looks at a child that is about to end.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Most lines of a child's output in a panic's message: the end says why.
const OUTPUT_TAIL_LINES: usize = 60;

/// Waits for the end of its standard input, then kills `$0` and removes `$1` once it is gone.
const WATCHDOG: &str = r#"
read -r _
kill -9 "$0" 2>/dev/null
for _ in 1 2 3 4 5 6 7 8 9 10; do kill -0 "$0" 2>/dev/null && sleep 0.1; done
rm -rf "$1"
"#;

/// A signal that tests send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `SIGTERM`: please end.
    Term,
    /// `SIGINT`: what Ctrl-C sends.
    Int,
    /// `SIGSTOP`: the process stands still, its sockets stay open.
    Stop,
    /// `SIGCONT`: it goes on.
    Cont,
}

impl From<Signal> for rustix::process::Signal {
    fn from(signal: Signal) -> Self {
        match signal {
            Signal::Term => Self::TERM,
            Signal::Int => Self::INT,
            Signal::Stop => Self::STOP,
            Signal::Cont => Self::CONT,
        }
    }
}

/// A running child with a temporary folder of its own. Dropping it kills it and removes the folder.
#[derive(Debug)]
pub struct GuardedChild {
    name: String,
    process: Child,
    watchdog: Child,
    /// Set once the child was waited for: its process id may be another's from then on.
    ended: Option<ExitStatus>,
    folder: TempDir,
    /// Length of the log when this life began: what is before it, an earlier life printed.
    log_start_bytes: usize,
}

impl GuardedChild {
    /// Starts `command` with its output, both kinds, appended to `<folder>/output.log`.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    #[must_use]
    pub fn spawn(name: &str, command: Command, folder: TempDir) -> Self {
        let log_start_bytes = read_log(folder.path()).len();
        let (process, watchdog) = launch(name, command, folder.path());
        let name = name.to_owned();
        Self { name, process, watchdog, ended: None, folder, log_start_bytes }
    }

    /// Starts `command` in the same folder, as the next life. A child that still runs is killed first.
    ///
    /// # Panics
    ///
    /// When the program cannot be started.
    pub fn respawn(&mut self, command: Command) {
        self.kill();
        self.log_start_bytes = read_log(self.folder.path()).len();
        (self.process, self.watchdog) = launch(&self.name, command, self.folder.path());
        self.ended = None;
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Folder of the child. It goes when the child is dropped.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that the child printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&read_log(self.folder())).into_owned()
    }

    /// What the child printed since it was started last.
    #[must_use]
    pub fn output_of_this_life(&self) -> String {
        let log = read_log(self.folder());
        String::from_utf8_lossy(&log[self.log_start_bytes.min(log.len())..]).into_owned()
    }

    /// The last lines of what the child printed.
    #[must_use]
    pub fn output_tail(&self) -> String {
        let output = self.output();
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(OUTPUT_TAIL_LINES)..].join("\n")
    }

    /// How the child ended, or `None` while it runs.
    ///
    /// # Panics
    ///
    /// When the system cannot tell.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            let status = self.process.try_wait();
            let status = status.unwrap_or_else(|error| panic!("{}: {error}", self.name));
            if status.is_some() {
                self.dismiss_watchdog();
            }
            self.ended = status;
        }
        self.ended
    }

    /// Waits until the child has ended by itself.
    ///
    /// # Panics
    ///
    /// When it has not within `deadline`; with the end of its output.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let until = tokio::time::Instant::now() + deadline;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            let late = until <= tokio::time::Instant::now();
            assert!(!late, "{} runs after {deadline:?}:\n{}", self.name, self.output_tail());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Sends a signal. A child that has ended gets none. After [`Signal::Stop`] every thread of the
    /// child stands still: the system sends the signal at once, but threads heed it one by one.
    ///
    /// # Panics
    ///
    /// When it cannot be sent.
    pub fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pid = pid.expect("the system's ids of processes are positive");
        let sent = kill_process(pid, signal.into());
        sent.unwrap_or_else(|error| panic!("{}: cannot send {signal:?}: {error}", self.name));
        if signal == Signal::Stop {
            // NOWAIT leaves what else there is to learn of the child to `ended`.
            let told = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let stopped = waitid(WaitId::Pid(pid), told);
            stopped.unwrap_or_else(|error| panic!("{}: not stopped: {error}", self.name));
        }
    }

    /// Kills the child at once (`SIGKILL`) and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // It fails only for a child that is gone already, and that is what is wanted.
        self.process.kill().ok();
        self.ended = self.process.wait().ok();
        self.dismiss_watchdog();
    }

    /// The watchdog must be gone before its child's process id can be another's.
    fn dismiss_watchdog(&mut self) {
        self.watchdog.kill().ok();
        self.watchdog.wait().ok();
    }
}

impl Drop for GuardedChild {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder for a child's files, removed with the value.
///
/// # Panics
///
/// When the system's temporary folder is not writable.
#[must_use]
pub fn folder(name: &str) -> TempDir {
    let folder = tempfile::Builder::new().prefix(&format!("observer-{name}-")).tempdir();
    folder.unwrap_or_else(|error| panic!("no temporary folder for {name}: {error}"))
}

/// Nothing when there is no log yet.
fn read_log(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("output.log")).unwrap_or_default()
}

/// The child and its watchdog.
fn launch(name: &str, mut command: Command, folder: &Path) -> (Child, Child) {
    let log = File::options().create(true).append(true).open(folder.join("output.log"));
    let log = log.unwrap_or_else(|error| panic!("{name}: cannot open output.log: {error}"));
    let errors = log.try_clone();
    let errors = errors.unwrap_or_else(|error| panic!("{name}: cannot share the log: {error}"));
    let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
    let child = child.unwrap_or_else(|error| panic!("{name}: cannot start: {error}"));
    let watchdog = watch(child.id(), folder);
    let watchdog = watchdog.unwrap_or_else(|error| panic!("{name}: no watchdog: {error}"));
    (child, watchdog)
}

fn watch(pid: u32, folder: &Path) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", WATCHDOG, &pid.to_string()])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C reaches the whole group of the terminal; the watchdog must live to do its work.
        .process_group(0)
        .spawn()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    const SOON: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> GuardedChild {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        GuardedChild::spawn("shell", command, folder("shell"))
    }

    fn alive(pid: u32) -> bool {
        let script = format!("kill -0 {pid}");
        Command::new("sh").args(["-c", &script]).output().unwrap().status.success()
    }

    #[tokio::test]
    async fn output_and_exit_code_are_kept() {
        let mut child = shell("echo out; echo err >&2; exit 3");
        assert_eq!(child.wait(SOON).await.code(), Some(3));
        assert_eq!(child.output(), "out\nerr\n");
    }

    #[tokio::test]
    async fn dropped_child_is_gone_with_its_folder_and_its_watchdog() {
        let child = shell("exec sleep 600");
        let (pid, watchdog, folder) = (child.pid(), child.watchdog.id(), child.folder().to_owned());
        assert!(alive(pid) && alive(watchdog) && folder.exists());
        drop(child);
        assert!(!alive(pid) && !alive(watchdog) && !folder.exists());
    }

    #[tokio::test]
    async fn watchdog_kills_the_child_and_removes_its_folder_when_the_pipe_closes() {
        let mut child = shell("exec sleep 600");
        let folder = child.folder().to_owned();
        drop(child.watchdog.stdin.take()); // What the end of this process would do.
        eventually(SOON, "the folder is gone", async || (!folder.exists()).then_some(())).await;
        assert_eq!(child.wait(SOON).await.code(), None, "ended by a signal");
    }

    #[tokio::test]
    async fn next_life_has_the_same_folder() {
        let mut child = shell("echo one; exec sleep 600");
        eventually(SOON, "first life", async || (child.output() == "one\n").then_some(())).await;
        let mut command = Command::new("sh");
        command.args(["-c", "echo two"]);
        child.respawn(command);
        child.wait(SOON).await;
        assert_eq!(child.output(), "one\ntwo\n");
        assert_eq!(child.output_of_this_life(), "two\n");
    }
}
