//! The var-store as a process of its own: read settings, watch, connect, serve, drain.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use observer_chassis::{
    AdminConfig, ConfigArgs, InvalidConfig, LogConfig, Readiness, SECTIONS, Settings,
    ShutdownConfig, bind, check_config, connect_patiently, dotted_flags, exit_code, load_config,
    serve_admin, shutdown_on_signals, start_telemetry,
};
use observer_var_store::VarStoreConfig;
use observer_wire::Limits;
use serde::{Deserialize, Serialize};

/// Admin port unless settings say otherwise.
const ADMIN_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9093);

/// Stores what devices report and commits what operators edit.
#[derive(clap::Parser)]
#[command(name = "observer-var-store", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Settings of this process: a field for each section.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    admin: AdminConfig,
    bus: observer_bus::BusConfig,
    log: LogConfig,
    limits: Limits,
    shutdown: ShutdownConfig,
    store: observer_store::StoreConfig,
    var_store: VarStoreConfig,
}

impl Settings for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if let Some((name, problem)) = self.bus.first_unshared() {
            return Err(InvalidConfig::new(format!("bus.{name}"), problem));
        }
        if let Some((name, problem)) = self.store.first_unworkable() {
            return Err(InvalidConfig::new(format!("store.{name}"), problem));
        }
        match self.limits.first_unworkable() {
            Some((name, problem)) => Err(InvalidConfig::new(format!("limits.{name}"), problem)),
            None => Ok(()),
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(dotted_flags(std::env::args_os()));
    exit_code(&run(&cli))
}

#[tokio::main]
async fn run(cli: &Cli) -> anyhow::Result<()> {
    if cli.config.check_config {
        return Ok(check_config::<Config>(SECTIONS, &cli.config)?);
    }
    let config: Config = load_config(SECTIONS, &cli.config)?;
    let telemetry = start_telemetry("var-store", &config.log)?;
    let shutdown = shutdown_on_signals(config.shutdown.grace())?;
    let (profile, promise) = config.bus.delivery();
    let readiness = Readiness::new(profile).promising(promise);
    let admin = bind("admin", config.admin.listen.unwrap_or(ADMIN_LISTEN)).await?;
    let _admin = serve_admin(admin, readiness.clone(), telemetry.metrics(), shutdown.clone());

    let check = readiness.check("bus");
    let connect_bus = || observer_bus::connect(&config.bus, &config.store.data_dir);
    let Some(bus) = connect_patiently(&check, &shutdown, connect_bus).await else {
        return Ok(());
    };
    let check = readiness.check("var_store");
    let Some(store) =
        connect_patiently(&check, &shutdown, || observer_store::connect_vars(&config.store)).await
    else {
        return Ok(());
    };
    observer_var_store::run(config.var_store, config.limits, (bus, store), readiness, shutdown)
        .await
        .map_err(anyhow::Error::from_boxed)
        .context("var-store ended")
}
