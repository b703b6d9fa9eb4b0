//! The smallest process on the chassis: read, watch, bind, serve. The tests of the crate start it.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use observer_chassis as chassis;
use observer_chassis::{
    ConfigArgs, InvalidConfig, LogConfig, Readiness, Settings, Shutdown, Tasks,
};
use serde::{Deserialize, Serialize};

/// Sections of all processes that share a file or an environment with this one.
const SECTIONS: &[&str] = &["example", "admin", "log", "other"];

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    example: ExampleConfig,
    admin: AdminConfig,
    log: LogConfig,
}

/// Settings of the example: section `[example]`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct ExampleConfig {
    /// Address to connect to. Port 0 takes a free one.
    listen: SocketAddr,
    /// Time work has to finish once shutdown is requested, in seconds.
    shutdown_grace_secs: u64,
}

/// Settings of the admin port: section `[admin]`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct AdminConfig {
    /// Address of `/livez`, `/readyz` and `/metrics`. Never a public one.
    listen: SocketAddr,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            example: ExampleConfig::default(),
            admin: AdminConfig { listen: local(9090) },
            log: LogConfig::default(),
        }
    }
}

impl Default for ExampleConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 6667)), shutdown_grace_secs: 10 }
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        Config::default().admin
    }
}

impl Settings for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if self.example.shutdown_grace_secs == 0 {
            let problem = "is 0, but must be at least 1";
            return Err(InvalidConfig::new("example.shutdown_grace_secs", problem));
        }
        Ok(())
    }
}

/// The smallest process on the chassis.
#[derive(clap::Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args: Vec<OsString> = chassis::dotted_flags(std::env::args_os());
    chassis::exit_code(&run(&Cli::parse_from(args).config))
}

#[tokio::main]
async fn run(args: &ConfigArgs) -> anyhow::Result<()> {
    if args.check_config {
        return Ok(chassis::check_config::<Config>(SECTIONS, args)?);
    }
    let config: Config = chassis::load_config(SECTIONS, args)?;
    let telemetry = chassis::start_telemetry("example", &config.log)?;
    let grace = Duration::from_secs(config.example.shutdown_grace_secs);
    let shutdown = chassis::shutdown_on_signals(grace).context("cannot watch for signals")?;

    let readiness = Readiness::new("fast");
    let admin = chassis::bind("admin", config.admin.listen).await?;
    let _admin =
        chassis::serve_admin(admin, readiness.clone(), telemetry.metrics(), shutdown.clone());
    let listener = chassis::bind("example", config.example.listen).await?;
    readiness.check("listener").ok();

    let tasks = Tasks::new(shutdown.clone());
    tasks.spawn("example", serve(listener, shutdown));
    Ok(tasks.finish().await?)
}

/// Serves nobody, and holds its first connection until the client closes it.
async fn serve(listener: tokio::net::TcpListener, shutdown: Shutdown) -> std::io::Result<()> {
    let first = tokio::select! {
        () = shutdown.requested() => return Ok(()),
        accepted = listener.accept() => accepted?.0,
    };
    tracing::info!("client is here");
    shutdown.requested().await;
    loop {
        first.readable().await?;
        match first.try_read(&mut [0; 16]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
