//! `observer serve`: the four services in one process. Wiring only.
//!
//! ```text
//! game ──TCP──> gateway ──┐                 ┌──> log-indexer ──> log store
//!                         ├── bus, in here ─┤
//! browser ─HTTP──> api ───┘                 └──> var-store ────> var store
//! ```
//!
//! It starts in this order: claim the data folder, bind the listeners, open bus and stores, run the
//! services. It ends in the other: gateway and api take no more and finish what they have, then
//! log-indexer and var-store, then the stores close and the folder is given back.

mod banner;
pub(crate) mod config;
mod folder;
mod ports;

use std::error::Error as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use observer_api::About;
use observer_bus::config::BusType;
use observer_chassis::{
    BoxError, ConfigArgs, Readiness, Shutdown, Tasks, bind, raise_files_max, serve_admin,
    shutdown_on_signals, start_telemetry,
};
use tokio::net::TcpListener;
use tokio::time::{Duration, sleep};
use tokio_util::task::TaskTracker;

use self::banner::Door;
use self::config::{Reach, ServeConfig};
use self::folder::DataFolder;
use self::ports::Ports;
use crate::demo::{self, Audience, DemoConfig};
use crate::device::socket::Target;
use crate::ready::{Addresses, Announced, Ready};
use crate::terminal;

/// Any port of this machine, where settings take the admin port's address away.
const ADMIN_ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Pause between two looks at whether everything works yet.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Checks that the services look after.
const CHECKS: [&str; 5] = ["account_store", "bus", "edits", "log_store", "var_store"];

/// Starts everything in this process.
#[derive(clap::Args)]
#[command(after_help = SETTINGS)]
pub(crate) struct ServeArgs {
    /// Start simulated games as well
    #[arg(long)]
    demo: bool,
    /// Open the game port to the local network: whoever has the key can send
    #[arg(long)]
    lan: bool,
    /// Let games beyond this machine connect without TLS, as --lan does (`gateway.allow_plaintext`)
    #[arg(long)]
    allow_plaintext: bool,
    /// Settings.
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

impl ServeArgs {
    /// Where settings come from, the flags among them that stand for one.
    fn sources(&self) -> ConfigArgs {
        let mut sources = self.config.clone();
        if self.allow_plaintext {
            sources.overrides.push(("gateway.allow_plaintext".into(), "true".into()));
        }
        sources
    }
}

/// How to change what.
const SETTINGS: &str = "\
Settings (flag, or environment, or TOML file):
  --gateway.listen 127.0.0.1:6667    OBSERVER_GATEWAY__LISTEN    where games connect
  --api.listen 127.0.0.1:8080        OBSERVER_API__LISTEN        page and api
  --admin.listen 127.0.0.1:9090      OBSERVER_ADMIN__LISTEN      health and metrics
  --store.data_dir ./data            OBSERVER_STORE__DATA_DIR    where everything is stored
`observer check-config` prints all of them, with their values and where these come from.";

/// Serves until it is asked to end, then ends in order.
pub(crate) async fn run(args: &ServeArgs) -> anyhow::Result<()> {
    let sources = args.sources();
    if sources.check_config {
        return config::check(&sources);
    }
    let reach = if args.lan { Reach::Lan } else { Reach::AsSet };
    let mut config = ServeConfig::for_one_machine(&sources, reach)?;
    raise_files_max();
    let telemetry = start_telemetry("observer", &config.log)?;
    let shutdown = shutdown_on_signals(config.shutdown.grace())?;

    let folder = DataFolder::claim(&config.store.data_dir)?;
    Ready::forget(folder.path()).context("cannot remove an old ready.json")?;
    let Doors { admin, gateway, api } = Doors::open(&config).await?;
    let at = addresses(&admin, &gateway, &api, reach)?;

    let about = about(&config);
    let promise = config.bus.delivery().1;
    let readiness = Readiness::new(&about.profile).promising(promise);
    let _admin = serve_admin(admin, readiness.clone(), telemetry.metrics(), shutdown.clone());
    let Some(ports) = ports::connect(&config, &readiness, &shutdown).await? else {
        return Ok(());
    };
    let key = if args.demo { demo::key() } else { folder.first_key()? };
    ports.accounts.register_key(key).await.context("cannot register the key")?;

    config.api.about = about;
    let door = if config.api.open_keys { Door::Open } else { Door::Closed };
    config.api.game_address = at.game.into();
    let demo = config.demo.clone();
    let tasks = Tasks::new(shutdown.clone());
    start_services(&tasks, config, Listeners { gateway, api }, ports, (&readiness, &shutdown));

    let ready = Ready::new(key, &at, folder.path())?;
    let announced = announce_when_ready(&ready, (reach, door), &readiness, &shutdown).await?;
    if args.demo && announced.is_some() {
        start_demo(&tasks, demo, Target { address: at.game.to_string(), key }, shutdown);
    }
    Ok(tasks.finish().await?)
}

/// Listeners, all bound before anything is opened: a taken port shall cost nothing.
struct Doors {
    admin: TcpListener,
    gateway: observer_gateway::Listeners,
    api: TcpListener,
}

impl Doors {
    async fn open(config: &ServeConfig) -> anyhow::Result<Self> {
        let admin = config.admin.listen.unwrap_or(ADMIN_ANYWHERE);
        Ok(Self {
            gateway: observer_gateway::Listeners::open(&config.gateway, open_door).await?,
            api: open_door("api", config.api.listen).await?,
            admin: open_door("admin", admin).await?,
        })
    }
}

/// Where everything listens, as others reach it.
fn addresses(
    admin: &TcpListener,
    gateway: &observer_gateway::Listeners,
    api: &TcpListener,
    reach: Reach,
) -> io::Result<Addresses> {
    let reachable = |listener: &TcpListener, reach| {
        listener.local_addr().map(|address| banner::reachable(address, reach))
    };
    Ok(Addresses {
        game: reachable(&gateway.plain, reach)?,
        game_tls: gateway.tls.as_ref().map(|tls| reachable(tls, reach)).transpose()?,
        game_ws: gateway.web.as_ref().map(|web| reachable(web, reach)).transpose()?,
        api: reachable(api, Reach::AsSet)?,
        admin: admin.local_addr()?,
    })
}

/// Binds a listener. `what` is its name in the log, and as good as that of its setting.
async fn open_door(what: &'static str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    bind(what, address).await.map_err(|error| {
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        if source.is_some_and(|source| source.kind() == io::ErrorKind::AddrInUse) {
            let setting = match what {
                "gateway_tls" => "OBSERVER_GATEWAY__TLS_LISTEN".to_owned(),
                "gateway_ws" => "OBSERVER_GATEWAY__WS_LISTEN".to_owned(),
                section => format!("OBSERVER_{}__LISTEN", section.to_uppercase()),
            };
            let free = SocketAddr::new(address.ip(), 0);
            return anyhow!(
                "{address} is taken, perhaps by another observer: end what listens there, or choose \
                 another address for the {what} ({setting}={free} takes a free port)"
            );
        }
        error.into()
    })
}

/// How this process is put together, as page and `/readyz` show it.
fn about(config: &ServeConfig) -> About {
    let form = match config.bus.kind {
        BusType::InProcess => "embedded",
        BusType::Nats => "distributed",
    };
    About { form, profile: config.bus.delivery().0.to_owned() }
}

/// Listeners that services take over.
struct Listeners {
    gateway: observer_gateway::Listeners,
    api: TcpListener,
}

/// Starts the four services on `tasks`. Those that publish end first, those that consume after them.
fn start_services(
    tasks: &Tasks,
    config: ServeConfig,
    listeners: Listeners,
    ports: Ports,
    (readiness, shutdown): (&Readiness, &Shutdown),
) {
    for check in CHECKS {
        // Registered before a service runs: its silence is no readiness.
        drop(readiness.check(check));
    }
    let (first, second) = (shutdown.clone(), shutdown.later_stage());
    let Ports { bus, logs, vars, accounts } = ports;
    let ServeConfig { api, gateway, limits, log_indexer, var_store, .. } = config;

    let indexing = observer_log_indexer::run(
        log_indexer,
        Arc::clone(&bus),
        Arc::clone(&logs),
        readiness.clone(),
        second.clone(),
    );
    tasks.spawn_until("log-indexer", second.clone(), indexing);
    let keeping = observer_var_store::run(
        var_store,
        limits.clone(),
        (Arc::clone(&bus), Arc::clone(&vars)),
        readiness.clone(),
        second.clone(),
    );
    tasks.spawn_until("var-store", second.clone(), keeping);

    let publishers = TaskTracker::new();
    let api_ports = observer_api::Ports { bus: Arc::clone(&bus), logs, accounts, vars };
    let answering =
        observer_api::run(api, api_ports, listeners.api, readiness.clone(), first.clone());
    tasks.spawn("api", publishers.track_future(answering));
    let gateway_ports = observer_gateway::Ports { bus, readiness: readiness.clone() };
    let serving = observer_gateway::run(gateway, limits, listeners.gateway, gateway_ports, first);
    tasks.spawn("gateway", publishers.track_future(serving));

    publishers.close();
    tasks.spawn_until("order", second.clone(), async move {
        publishers.wait().await;
        second.request();
        Ok::<(), BoxError>(())
    });
}

/// Waits until everything works, then tells programs and people. `None` when shutdown came first.
async fn announce_when_ready(
    ready: &Ready,
    (reach, door): (Reach, Door),
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> anyhow::Result<Option<Announced>> {
    let mut told = false;
    let announced = loop {
        if readiness.is_ready() {
            match ready.announce() {
                Ok(announced) => break announced,
                // A full disk is no reason to end: what is stored can be read.
                Err(error) if !told => tracing::warn!(%error, "cannot write ready.json yet"),
                Err(_) => {}
            }
            told = true;
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(None),
            () = sleep(LOOK_EVERY) => {}
        }
    };
    // A closed stdout is no reason to end a server.
    terminal::line(&banner::lines(ready, reach, door).join("\n")).ok();
    Ok(Some(announced))
}

/// Starts the simulated games; they end with the services that take no more.
fn start_demo(tasks: &Tasks, demo: DemoConfig, target: Target, shutdown: Shutdown) {
    tasks.spawn("demo", async move { demo::run(&demo, &target, Audience::Log, shutdown).await });
}
