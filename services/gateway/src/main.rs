//! The gateway as a process of its own: read settings, watch, connect, bind, serve, drain.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use observer_bus::{BusConfig, PAYLOAD_BYTES_MAX};
use observer_chassis::{
    AdminConfig, ConfigArgs, InvalidConfig, LogConfig, Readiness, SECTIONS, Settings,
    ShutdownConfig, bind, check_config, connect_patiently, dotted_flags, exit_code, load_config,
    raise_files_max, serve_admin, shutdown_on_signals, start_telemetry,
};
use observer_gateway::{GatewayConfig, Listeners, Ports};
use observer_wire::Limits;
use serde::{Deserialize, Serialize};

/// Admin port unless settings say otherwise.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9091);

/// Holds the sockets of games: takes their lines, brings them edits.
#[derive(clap::Parser)]
#[command(name = "observer-gateway", version)]
struct Cli {
    /// Let games beyond this machine connect without TLS (`gateway.allow_plaintext`)
    #[arg(long)]
    allow_plaintext: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Settings of this process: a field for each section.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    admin: AdminConfig,
    bus: BusConfig,
    gateway: GatewayConfig,
    limits: Limits,
    log: LogConfig,
    shutdown: ShutdownConfig,
}

impl Settings for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if let Some((name, problem)) = self.bus.first_unshared() {
            return Err(InvalidConfig::new(format!("bus.{name}"), problem));
        }
        // A line travels in one message, whose head takes a few hundred bytes.
        if PAYLOAD_BYTES_MAX / 2 < self.limits.line_bytes_max {
            let problem = format!("must be at most {}", PAYLOAD_BYTES_MAX / 2);
            return Err(InvalidConfig::new("limits.line_bytes_max", problem));
        }
        if let Some((name, problem)) = self.gateway.first_unworkable() {
            return Err(InvalidConfig::new(format!("gateway.{name}"), problem));
        }
        match self.limits.first_unworkable() {
            Some((name, problem)) => Err(InvalidConfig::new(format!("limits.{name}"), problem)),
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    let mut cli = Cli::parse_from(dotted_flags(std::env::args_os()));
    if cli.allow_plaintext {
        cli.config.overrides.push(("gateway.allow_plaintext".into(), "true".into()));
    }
    exit_code(&run(&cli))
}

#[tokio::main]
async fn run(cli: &Cli) -> anyhow::Result<()> {
    if cli.config.check_config {
        return Ok(check_config::<Config>(SECTIONS, &cli.config)?);
    }
    let config: Config = load_config(SECTIONS, &cli.config)?;
    raise_files_max();
    let telemetry = start_telemetry("gateway", &config.log)?;
    let shutdown = shutdown_on_signals(config.shutdown.grace())?;
    let (profile, promise) = config.bus.delivery();
    let readiness = Readiness::new(profile).promising(promise);
    let admin = bind("admin", config.admin.listen.unwrap_or(ADMIN_LISTEN)).await?;
    let _admin = serve_admin(admin, readiness.clone(), telemetry.metrics(), shutdown.clone());

    let check = readiness.check("bus");
    // The folder is for the adapter in process, which was refused above.
    let connect_bus = || observer_bus::connect(&config.bus, Path::new("."));
    let Some(bus) = connect_patiently(&check, &shutdown, connect_bus).await else {
        return Ok(());
    };
    let listeners = Listeners::open(&config.gateway, async |what, address| {
        anyhow::Ok(bind(what, address).await?)
    })
    .await?;
    let ports = Ports { bus, readiness };
    Ok(observer_gateway::run(config.gateway, config.limits, listeners, ports, shutdown).await?)
}
