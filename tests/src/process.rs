//! One of our own programs as a process: settings in the environment, addresses from its log.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::child::{GuardedChild, Signal, folder};

/// Time a program has to bind a listener. Generous: several start at once on a busy machine.
const LISTENS_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at a program's log.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Packages whose programs tests start.
const PACKAGES: [&str; 5] =
    ["observer", "observer-gateway", "observer-log-indexer", "observer-var-store", "observer-api"];

/// Settings by their name in the environment.
pub type Settings = Vec<(String, String)>;

/// Settings from pairs.
#[must_use]
pub fn settings<V: ToString>(pairs: &[(&str, V)]) -> Settings {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
}

/// A running program of ours, with a folder of its own. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    program: &'static str,
    /// Program that starts ours, with its arguments; usually nothing.
    under: Vec<String>,
    args: Vec<String>,
    settings: Settings,
    child: GuardedChild,
}

impl Process {
    /// Starts a program, in its folder, with nothing of this environment but what programs need.
    ///
    /// # Panics
    ///
    /// When it cannot be built or started.
    #[must_use]
    pub fn start(program: &'static str, args: &[&str], settings: Settings) -> Self {
        Self::start_under(&[], program, args, settings)
    }

    /// As [`Process::start`], under another program that becomes ours in the end (`exec`): what it
    /// is given after its own arguments is our program and the arguments of that.
    ///
    /// # Panics
    ///
    /// When it cannot be built or started.
    #[must_use]
    pub fn start_under(
        under: &[&str],
        program: &'static str,
        args: &[&str],
        settings: Settings,
    ) -> Self {
        let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        let (under, args): (Vec<String>, Vec<String>) = (owned(under), owned(args));
        let folder = folder(program);
        let command = command(program, (&under, &args), &settings, folder.path());
        let child = GuardedChild::spawn(program, command, folder);
        Self { program, under, args, settings, child }
    }

    /// Address of the listener that the program calls `what`: `gateway`, `api` or `admin`.
    ///
    /// # Panics
    ///
    /// When the program has ended, or does not listen within 30 s; with the end of its output.
    pub async fn address(&mut self, what: &str) -> SocketAddr {
        let until = Instant::now() + LISTENS_WITHIN;
        loop {
            let ended = self.child.ended();
            let output = self.child.output_of_this_life();
            if let Some(address) = output.lines().find_map(|line| listening(line, what)) {
                return address;
            }
            let over = ended.is_some() || until <= Instant::now();
            let (program, tail) = (self.program, || self.child.output_tail());
            assert!(!over, "{program} does not listen as {what}, {ended:?}:\n{}", tail());
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Kills the program at once (`SIGKILL`). Its folder stays for [`Process::restart`].
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Waits until the program has ended by itself.
    ///
    /// # Panics
    ///
    /// When it runs after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        self.child.wait(deadline).await
    }

    /// Asks the program to end (`SIGTERM`) and waits for its exit code; `None` when a signal ended it.
    ///
    /// # Panics
    ///
    /// When it runs after `deadline`.
    pub async fn terminate(&mut self, deadline: Duration) -> Option<i32> {
        self.signal(Signal::Term);
        self.wait(deadline).await.code()
    }

    /// Starts the program again in the same folder, with the same settings. One that runs is killed.
    pub fn restart(&mut self) {
        let folder = self.child.folder();
        let args = (&self.under[..], &self.args[..]);
        let command = command(self.program, args, &self.settings, folder);
        self.child.respawn(command);
    }

    /// Changes a setting for the next [`Process::restart`].
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Name of the program.
    #[must_use]
    pub fn program(&self) -> &'static str {
        self.program
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Memory of the running program that is in RAM, in KiB.
    ///
    /// # Panics
    ///
    /// When it has ended.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.expect("a running process has a status");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok());
        kib.expect("a running process is in RAM")
    }

    /// The program's folder, where it runs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.child.folder()
    }

    /// All that the program printed, in all its lives.
    #[must_use]
    pub fn output(&self) -> String {
        self.child.output()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A failed test is explained by what the programs said; cargo shows it with the failure.
        if std::thread::panicking() {
            let (program, tail) = (self.program, self.child.output_tail());
            #[expect(
                clippy::print_stderr,
                reason = "the place where a failed test explains itself"
            )]
            {
                eprintln!("---- {program} ----\n{tail}");
            }
        }
    }
}

fn command(
    name: &str,
    (under, args): (&[String], &[String]),
    settings: &Settings,
    folder: &Path,
) -> Command {
    let program = program(name).into_os_string();
    let mut whole = under.iter().map(Into::into).chain([program]);
    let mut command = Command::new(whole.next().expect("there is at least our program"));
    command.args(whole).args(args).current_dir(folder);
    // A developer's own OBSERVER_ settings are not the test's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OBSERVER_") {
            command.env_remove(name);
        }
    }
    command.env("OBSERVER_LOG__FORMAT", "json");
    // Gateways of other tests run at the same time; programs without one pass over it.
    command.env("OBSERVER_GATEWAY__WS_LISTEN", "127.0.0.1:0");
    command.env("OBSERVER_GATEWAY__TLS_LISTEN", "127.0.0.1:0");
    command.envs(settings.iter().map(|(name, value)| (name, value)));
    command
}

/// Path of one of our programs, built from the sources as they are now.
///
/// # Panics
///
/// When the build fails, or makes no such program.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(build).join(name);
    assert!(program.is_file(), "{} is missing after the build", program.display());
    program
}

/// Builds all programs with the profile of this test; a moment when they are fresh. `cargo test` does
/// not build the programs of other packages, and old ones would be tested in silence.
fn build() -> PathBuf {
    let test = std::env::current_exe().expect("the system knows this program's path");
    // target/<profile>/deps/<test>, or target/<profile>/<benchmark>.
    let folder = test.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let folder = folder.expect("a test is below the target folder").to_owned();
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    command.arg("--target-dir").arg(folder.parent().expect("a profile's folder has a parent"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    // What cargo tells this test of its own package would make build scripts run again and again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    let status = command.status().expect("cargo, which built this, is still there");
    assert!(status.success(), "the programs do not build");
    folder
}

/// The address in a log line that says that `what` listens.
fn listening(line: &str, what: &str) -> Option<SocketAddr> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    let matches = fields["message"] == "listening" && fields["what"] == what;
    fields["address"].as_str().filter(|_| matches)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_read_from_the_line_of_that_listener() {
        let line = r#"{"timestamp":"t","level":"INFO","fields":{"message":"listening","what":"gateway","address":"127.0.0.1:40001"},"target":"x"}"#;
        assert_eq!(listening(line, "gateway"), "127.0.0.1:40001".parse().ok());
        assert_eq!(listening(line, "api"), None);
        assert_eq!(listening("not json", "gateway"), None);
    }
}
