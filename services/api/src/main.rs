//! The api as a process of its own: read settings, watch, connect, bind, serve, drain.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use observer_api::{About, ApiConfig, Ports};
use observer_bus::BusConfig;
use observer_chassis::{
    AdminConfig, ConfigArgs, InvalidConfig, LogConfig, Readiness, SECTIONS, Settings, Shutdown,
    ShutdownConfig, bind, check_config, connect_patiently, dotted_flags, exit_code, load_config,
    serve_admin, shutdown_on_signals, start_telemetry,
};
use observer_store::{StoreConfig, connect_accounts, connect_logs, connect_vars};
use serde::{Deserialize, Serialize};

/// Admin port unless settings say otherwise.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Serves people: HTTP, WebSockets and the dashboard.
#[derive(clap::Parser)]
#[command(name = "observer-api", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Settings of this process: a field for each section.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    admin: AdminConfig,
    api: ApiConfig,
    bus: BusConfig,
    log: LogConfig,
    shutdown: ShutdownConfig,
    store: StoreConfig,
}

impl Settings for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if let Some((name, problem)) = self.bus.first_unshared() {
            return Err(InvalidConfig::new(format!("bus.{name}"), problem));
        }
        match self.store.first_unworkable() {
            Some((name, problem)) => Err(InvalidConfig::new(format!("store.{name}"), problem)),
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
    let mut config: Config = load_config(SECTIONS, &cli.config)?;
    let telemetry = start_telemetry("api", &config.log)?;
    let shutdown = shutdown_on_signals(config.shutdown.grace())?;
    let (profile, promise) = config.bus.delivery();
    let readiness = Readiness::new(profile).promising(promise);
    let admin = bind("admin", config.admin.listen.unwrap_or(ADMIN_LISTEN)).await?;
    let _admin = serve_admin(admin, readiness.clone(), telemetry.metrics(), shutdown.clone());

    let Some(ports) = connect(&config, &readiness, &shutdown).await else { return Ok(()) };
    let listener = bind("api", config.api.listen).await?;
    config.api.about = About { form: "distributed", profile: profile.to_owned() };
    observer_api::run(config.api, ports, listener, readiness, shutdown)
        .await
        .map_err(anyhow::Error::from_boxed)
        .context("api ended")
}

/// Connects to all that api needs, waiting for what is not up yet.
async fn connect(config: &Config, readiness: &Readiness, shutdown: &Shutdown) -> Option<Ports> {
    let check = readiness.check("bus");
    let bus = || observer_bus::connect(&config.bus, &config.store.data_dir);
    let bus = connect_patiently(&check, shutdown, bus).await?;
    let check = readiness.check("account_store");
    let accounts = connect_patiently(&check, shutdown, || connect_accounts(&config.store)).await?;
    let check = readiness.check("log_store");
    let logs = connect_patiently(&check, shutdown, || connect_logs(&config.store)).await?;
    let check = readiness.check("var_store");
    let vars = connect_patiently(&check, shutdown, || connect_vars(&config.store)).await?;
    check.ok(); // It is only asked for the original's page; var-store watches it.
    Some(Ports { bus, logs, accounts, vars })
}
