//! The last hop of a process: what `run` returned becomes an exit code and words on stderr.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::iter;
use std::process::ExitCode;

use crate::config::{ConfigError, InvalidConfig};

/// Exit code of a process that failed while running.
pub const EXIT_FAILURE: u8 = 1;
/// Exit code of a command used wrongly. The command line parser uses the same.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of a process whose settings cannot work: restarting it does not help.
pub const EXIT_CONFIG: u8 = 64;

/// A command was used in a way that cannot work, and the command line parser could not see it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(
    /// What is wrong, and what would work.
    pub String,
);

/// Turns the end of `run` into the exit code of the process, and prints an error with its causes.
///
/// Takes `anyhow::Result<()>` as well as `Result<(), BoxError>`. It prints to stderr rather than
/// logging: telemetry may not have started, and whoever typed the command reads the terminal.
pub fn exit_code<E>(result: &Result<(), E>) -> ExitCode
where
    E: AsRef<dyn Error + Send + Sync + 'static>,
{
    let Err(error) = result else { return ExitCode::SUCCESS };
    let error: &(dyn Error + 'static) = error.as_ref();
    // A closed stderr leaves nobody to tell; the exit code still speaks.
    std::io::stderr().write_all(explain(error).as_bytes()).ok();
    ExitCode::from(code_of(error))
}

fn code_of(error: &(dyn Error + 'static)) -> u8 {
    for cause in causes(error) {
        if cause.is::<ConfigError>() || cause.is::<InvalidConfig>() {
            return EXIT_CONFIG;
        }
        if cause.is::<WrongUsage>() {
            return EXIT_USAGE;
        }
    }
    EXIT_FAILURE
}

/// One line for the error and one for each cause.
fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = format!("error: {error}\n");
    for cause in causes(error).skip(1) {
        writeln!(text, "  because: {cause}").expect("writing to a String cannot fail");
    }
    text
}

/// The error itself, then its source, then the source of that.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&cause| cause.source())
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    fn check(error: &anyhow::Error, code: u8, text: &str) {
        assert_eq!(code_of(error.as_ref()), code);
        assert_eq!(explain(error.as_ref()), text);
    }

    #[test]
    fn failure_while_running_is_1_and_names_every_cause() {
        let error = anyhow::anyhow!("connection refused").context("cannot reach the bus");
        check(&error, 1, "error: cannot reach the bus\n  because: connection refused\n");
    }

    #[test]
    fn wrong_usage_is_2() {
        check(&WrongUsage("no key given".into()).into(), 2, "error: no key given\n");
    }

    #[test]
    fn bad_configuration_is_64_also_under_context() {
        let invalid = InvalidConfig::new("gateway.listen", "is odd");
        let error = Err::<(), _>(ConfigError::from(invalid)).context("cannot start").unwrap_err();
        assert_eq!(code_of(error.as_ref()), 64);
    }

    #[test]
    fn success_is_0() {
        let result: anyhow::Result<()> = Ok(());
        assert_eq!(format!("{:?}", exit_code(&result)), format!("{:?}", ExitCode::SUCCESS));
    }
}
