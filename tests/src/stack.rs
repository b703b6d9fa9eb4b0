//! All of Observer, in both of its forms: one process with files, and services over real servers.

use std::net::SocketAddr;

use crate::faultproxy::FaultProxy;
use crate::game::Game;
use crate::http::Api;
use crate::process::{Process, Settings, settings};
use crate::servers::{Elasticsearch, Fsync, NatsOptions, NatsServer, RedisOptions, RedisServer};

/// A free port, chosen by the system when the program binds.
const ANY_PORT: &str = "127.0.0.1:0";

/// `observer serve`: the embedded form, on free ports, with its files in a temporary folder.
#[derive(Debug)]
pub struct Embedded {
    /// The process, to be killed and restarted.
    pub process: Process,
}

impl Embedded {
    /// Starts it with its own defaults, and waits until games and pages can connect.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn start() -> Self {
        Self::start_with(&["serve"], &[]).await
    }

    /// Starts it with other arguments (`serve` is the first) and further settings.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn start_with(args: &[&str], further: &[(&str, &str)]) -> Self {
        Self::start_under(&[], args, further).await
    }

    /// As [`Embedded::start_with`], under another program ([`Process::start_under`]).
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn start_under(under: &[&str], args: &[&str], further: &[(&str, &str)]) -> Self {
        let mut all = listeners();
        // Relative: below the process's own folder, which stays over restarts.
        all.extend(settings(&[("OBSERVER_STORE__DATA_DIR", "data")]));
        all.extend(settings(further));
        let mut embedded = Self { process: Process::start_under(under, "observer", args, all) };
        embedded.up().await;
        embedded
    }

    /// Waits until games and pages can connect, after a start or [`Process::restart`].
    ///
    /// # Panics
    ///
    /// When it does not come up.
    pub async fn up(&mut self) {
        self.game_address().await;
        self.process.address("api").await;
    }

    /// Where games connect. Another port after each restart.
    ///
    /// # Panics
    ///
    /// When nothing listens there.
    pub async fn game_address(&mut self) -> SocketAddr {
        self.process.address("gateway").await
    }

    /// A client of its api.
    ///
    /// # Panics
    ///
    /// When nothing listens there.
    pub async fn api(&mut self) -> Api {
        Api::new(self.process.address("api").await)
    }
}

/// How many of each service a cluster has, and what else they are told.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Gateways.
    pub gateways: usize,
    /// Log-indexers.
    pub log_indexers: usize,
    /// Var-stores.
    pub var_stores: usize,
    /// The nats-server.
    pub nats: NatsOptions,
    /// Who reaches it through a proxy.
    pub link: Link,
    /// Further settings, for every service.
    pub settings: Settings,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let (nats, settings, link) = (NatsOptions::default(), Settings::new(), Link::Direct);
        Self { gateways: 2, log_indexers: 2, var_stores: 2, nats, link, settings }
    }
}

/// Whose way to the bus leads through a [`FaultProxy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// Nobody's.
    #[default]
    Direct,
    /// That of the gateways.
    Gateways,
    /// That of all services.
    All,
}

/// The four services over nats-server, two redis-servers and the shared Elasticsearch.
#[derive(Debug)]
pub struct Cluster {
    /// Gateways.
    pub gateways: Vec<Process>,
    /// Log-indexers.
    pub log_indexers: Vec<Process>,
    /// Var-stores.
    pub var_stores: Vec<Process>,
    /// The api.
    pub api: Process,
    /// The bus. After the services, so that it outlives them when the cluster is dropped.
    pub nats: NatsServer,
    /// The proxy before the bus, if there is to be one.
    pub link: Option<FaultProxy>,
    /// Where variables are.
    pub vars: RedisServer,
    /// Where accounts are.
    pub accounts: RedisServer,
    /// Where logs are. Shared with other tests: use keys of your own.
    pub elasticsearch: &'static Elasticsearch,
}

impl Cluster {
    /// Starts servers and services, and waits until games and pages can connect.
    ///
    /// # Panics
    ///
    /// When a part does not come up.
    pub async fn start(options: ClusterOptions) -> Self {
        let monitoring = options.nats.monitoring;
        let always = RedisOptions { fsync: Fsync::Always, ..RedisOptions::default() };
        let (nats, vars, accounts, elasticsearch) = tokio::join!(
            NatsServer::start(options.nats),
            RedisServer::start(RedisOptions::default()),
            RedisServer::start(always),
            Elasticsearch::shared(),
        );
        let link = match options.link {
            Link::Direct => None,
            Link::Gateways | Link::All => Some(FaultProxy::start(nats.socket_address()).await),
        };
        let mut all = listeners();
        all.extend(settings(&[
            ("OBSERVER_API__OPEN_KEYS", "true"),
            ("OBSERVER_BUS__TYPE", "nats"),
            ("OBSERVER_BUS__URL", &nats.url()),
            ("OBSERVER_STORE__LOGS__TYPE", "elasticsearch"),
            ("OBSERVER_STORE__LOGS__URL", &elasticsearch.url()),
            ("OBSERVER_STORE__VARS__TYPE", "redis"),
            ("OBSERVER_STORE__VARS__URL", &vars.url()),
            ("OBSERVER_STORE__ACCOUNTS__TYPE", "redis"),
            ("OBSERVER_STORE__ACCOUNTS__URL", &accounts.url()),
        ]));
        if monitoring {
            all.extend(settings(&[("OBSERVER_BUS__MONITOR_URL", nats.monitor_url())]));
        }
        all.extend(options.settings);
        let mut of_gateways = all.clone();
        if let Some(link) = &link {
            let url = settings(&[("OBSERVER_BUS__URL", format!("nats://{}", link.address()))]);
            of_gateways.extend(url.clone()); // The last one counts.
            if options.link == Link::All {
                all.extend(url);
            }
        }
        let start = |program, count, settings: &Settings| -> Vec<Process> {
            (0..count).map(|_| Process::start(program, &[], settings.clone())).collect()
        };
        let mut cluster = Self {
            gateways: start("observer-gateway", options.gateways, &of_gateways),
            log_indexers: start("observer-log-indexer", options.log_indexers, &all),
            var_stores: start("observer-var-store", options.var_stores, &all),
            api: Process::start("observer-api", &[], all.clone()),
            nats,
            link,
            vars,
            accounts,
            elasticsearch,
        };
        cluster.up().await;
        cluster
    }

    /// Waits until every service answers, after a start or restarts.
    ///
    /// # Panics
    ///
    /// When one does not come up.
    pub async fn up(&mut self) {
        for gateway in &mut self.gateways {
            gateway.address("gateway").await;
        }
        for worker in self.log_indexers.iter_mut().chain(&mut self.var_stores) {
            worker.address("admin").await;
        }
        self.api.address("api").await;
    }

    /// A client of the api.
    ///
    /// # Panics
    ///
    /// When nothing listens there.
    pub async fn api(&mut self) -> Api {
        Api::new(self.api.address("api").await)
    }

    /// A game signed in at the gateway with that number.
    ///
    /// # Panics
    ///
    /// When there is no such gateway, or it refuses the key.
    pub async fn game(&mut self, gateway: usize, key: &str) -> Game {
        let address = self.gateways[gateway].address("gateway").await;
        Game::sign_in(address, key).await.expect("the key is registered")
    }
}

/// Listeners on free ports. A program reads the settings that are its own.
fn listeners() -> Settings {
    settings(&[
        ("OBSERVER_GATEWAY__LISTEN", ANY_PORT),
        ("OBSERVER_API__LISTEN", ANY_PORT),
        ("OBSERVER_ADMIN__LISTEN", ANY_PORT),
    ])
}
