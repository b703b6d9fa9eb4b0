//! `observer`: all in one process, and the command line. Wiring only: what happens to a line is the
//! services' business, what a command asks is the api's.
//!
//! | command | is |
//! | --- | --- |
//! | [`serve`] | the four services over an embedded bus and store |
//! | [`demo`], [`prompt`] | games, simulated and typed, over [`device`] |
//! | [`tail`], [`set`], [`dead_letters`], [`health`] | clients of a running server |
//! | [`backup`] | a copy of the data folder, beside a running server |

mod backup;
mod client;
mod dead_letters;
mod demo;
mod device;
mod health;
mod prompt;
mod ready;
mod serve;
mod set;
mod tail;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _, Subcommand};
use observer_chassis::{ConfigArgs, dotted_flags, exit_code, shutdown_on_signals};

/// Time that a command, unlike a server, has to finish once it is asked to end.
const COMMAND_GRACE: Duration = Duration::from_secs(2);

/// A live console for games: see what they log, change their variables while they run.
#[derive(clap::Parser)]
#[command(name = "observer", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

/// What a newcomer tries first.
const EXAMPLES: &str = "\
Examples:
  observer serve --demo                      start everything, with three simulated games; it
                                             prints the address of the page and a line to try
  observer tail demo00000000                 in another terminal: the log of these games, live
  observer set demo00000000 gravity=3.5      change a variable, and see which game applied it

`observer COMMAND --help` says more about a command.";

#[derive(Subcommand)]
enum Command {
    /// Start everything in this process: game port, page, api, storage
    Serve(serve::ServeArgs),
    /// Play simulated games against a running server
    Demo(demo::command::DemoArgs),
    /// Play a device yourself: type `log hi`, `var gravity 9.8`
    Device(prompt::DeviceArgs),
    /// Follow the log of a project
    Tail(tail::TailArgs),
    /// Change variables, and see which device applied it
    Set(set::SetArgs),
    /// Copy the data folder, also while `serve` works on it
    Backup(backup::BackupArgs),
    /// See what could not be stored, and replay or drop it
    DeadLetters(dead_letters::DeadLettersArgs),
    /// Check the settings of `serve`, and print each with its source
    CheckConfig(ConfigArgs),
    /// Ask a running process whether it is ready, and if not, why
    Healthcheck(health::HealthArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(dotted_flags(std::env::args_os()));
    let ended = run(cli.command);
    match &ended {
        Err(error) if error.is::<terminal::OutputClosed>() => ExitCode::SUCCESS,
        _ => exit_code(&ended),
    }
}

#[tokio::main]
async fn run(command: Option<Command>) -> anyhow::Result<()> {
    let Some(command) = command else {
        return Ok(terminal::text(&Cli::command().render_long_help().to_string())?);
    };
    match command {
        Command::Serve(args) => serve::run(&args).await,
        Command::Demo(args) => demo::command::run(&args, shutdown_on_signals(COMMAND_GRACE)?).await,
        Command::Device(args) => prompt::run(&args, &shutdown_on_signals(COMMAND_GRACE)?).await,
        Command::Tail(args) => tail::run(&args, &shutdown_on_signals(COMMAND_GRACE)?).await,
        Command::Set(args) => set::run(&args).await,
        Command::Backup(args) => backup::run(args).await,
        Command::DeadLetters(args) => dead_letters::run(&args).await,
        Command::CheckConfig(args) => serve::config::check(&args),
        Command::Healthcheck(args) => health::run(&args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_a_newcomer_three_things_to_type() {
        let help = Cli::command().render_long_help().to_string();
        let examples = help.split("Examples:").nth(1).unwrap();
        assert_eq!(examples.lines().filter(|line| line.starts_with("  observer ")).count(), 3);
    }

    #[test]
    fn every_setting_is_a_flag_of_serve() {
        let args = ["observer", "serve", "--demo", "--gateway.listen", "127.0.0.1:0"];
        let cli = Cli::parse_from(dotted_flags(args.map(Into::into)));
        let Some(Command::Serve(args)) = cli.command else { panic!("not serve") };
        assert_eq!(args.config.overrides, [("gateway.listen".into(), "127.0.0.1:0".into())]);
    }
}
