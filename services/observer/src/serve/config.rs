//! Settings of `observer serve`: those of all four services at once, and the few defaults that are
//! right only on a machine of one's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use observer_api::ApiConfig;
use observer_bus::BusConfig;
use observer_chassis::config::{Loaded, Origin, Sources};
use observer_chassis::{
    AdminConfig, ConfigArgs, ConfigError, InvalidConfig, LogConfig, LogFormat, SECTIONS, Settings,
    ShutdownConfig, check_config,
};
use observer_gateway::GatewayConfig;
use observer_log_indexer::LogIndexerConfig;
use observer_store::config::StoreConfig;
use observer_var_store::VarStoreConfig;
use observer_wire::Limits;
use serde::{Deserialize, Serialize};

use crate::demo::{DEVICES_MAX, DemoConfig, RATE_MAX};
use crate::terminal;

/// Settings: a field for each section.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ServeConfig {
    /// The admin port.
    pub(crate) admin: AdminConfig,
    /// Page and api.
    pub(crate) api: ApiConfig,
    /// The bus, in this process unless it is said otherwise.
    pub(crate) bus: BusConfig,
    /// Simulated games, with `--demo`.
    pub(crate) demo: DemoConfig,
    /// The game port.
    pub(crate) gateway: GatewayConfig,
    /// What one line, value or socket may take.
    pub(crate) limits: Limits,
    /// The log of this process.
    pub(crate) log: LogConfig,
    /// What stores log records.
    pub(crate) log_indexer: LogIndexerConfig,
    /// The end.
    pub(crate) shutdown: ShutdownConfig,
    /// The stores, files in one folder unless it is said otherwise.
    pub(crate) store: StoreConfig,
    /// What stores variables.
    pub(crate) var_store: VarStoreConfig,
}

/// Admin port unless settings say otherwise.
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            admin: AdminConfig { listen: Some(ADMIN_LISTEN) },
            api: ApiConfig::default(),
            bus: BusConfig::default(),
            demo: DemoConfig::default(),
            gateway: GatewayConfig::default(),
            limits: Limits::default(),
            log: LogConfig::default(),
            log_indexer: LogIndexerConfig::default(),
            shutdown: ShutdownConfig::default(),
            store: StoreConfig::default(),
            var_store: VarStoreConfig::default(),
        }
    }
}

impl Settings for ServeConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if DEVICES_MAX < self.demo.devices.get() {
            let problem = format!("is {}, but may be at most {DEVICES_MAX}", self.demo.devices);
            return Err(InvalidConfig::new("demo.devices", problem));
        }
        if !(0.0 < self.demo.rate && self.demo.rate <= RATE_MAX) {
            let problem = format!("is {}, but must be above 0, at most {RATE_MAX}", self.demo.rate);
            return Err(InvalidConfig::new("demo.rate", problem));
        }
        if let Some((name, problem)) = self.limits.first_unworkable() {
            return Err(InvalidConfig::new(format!("limits.{name}"), problem));
        }
        if let Some((name, problem)) = self.gateway.first_unworkable() {
            return Err(InvalidConfig::new(format!("gateway.{name}"), problem));
        }
        match self.store.first_unworkable() {
            Some((setting, problem)) => {
                Err(InvalidConfig::new(format!("store.{setting}"), problem))
            }
            None => Ok(()),
        }
    }
}

/// Who may reach the game port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Whoever the settings let in: this machine, unless they say otherwise.
    AsSet,
    /// The local network.
    Lan,
}

impl ServeConfig {
    /// Reads the settings from every layer, as they are.
    pub(crate) fn load(args: &ConfigArgs) -> Result<Loaded<Self>, ConfigError> {
        Sources::of_process(SECTIONS, args).load()
    }

    /// Reads the settings, and fills in what nobody set.
    pub(crate) fn for_one_machine(args: &ConfigArgs, reach: Reach) -> Result<Self, ConfigError> {
        let mut args = args.clone();
        if reach == Reach::Lan {
            // Opening it is the wish, and a phone in the same room has no certificate to trust.
            args.overrides.push(("gateway.allow_plaintext".into(), "true".into()));
        }
        Ok(Self::adapted(Self::load(&args)?, reach, terminal::is_read_by_a_person()))
    }

    fn adapted(loaded: Loaded<Self>, reach: Reach, read_by_a_person: bool) -> Self {
        let untouched = |name| loaded.origin(name) == Origin::Default;
        let (keys, level) = (untouched("api.open_keys"), untouched("log.level"));
        let mut config = loaded.settings;
        if keys {
            // Who reaches a loopback address owns this machine, or is allowed on it.
            config.api.open_keys = config.api.listen.ip().is_loopback();
        }
        if level && read_by_a_person && config.log.format == LogFormat::Text {
            // A person wants to find the address of the page, and whatever goes wrong.
            config.log.level = "warn".parse().expect("it is a level");
        }
        if reach == Reach::Lan {
            let everywhere = match config.gateway.listen.ip() {
                IpAddr::V4(ip) if ip.is_loopback() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(ip) if ip.is_loopback() => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                chosen @ (IpAddr::V4(_) | IpAddr::V6(_)) => chosen,
            };
            config.gateway.listen.set_ip(everywhere);
        }
        config
    }
}

/// Checks the settings of `serve` and prints each with its source.
pub(crate) fn check(args: &ConfigArgs) -> anyhow::Result<()> {
    check_config::<ServeConfig>(SECTIONS, args)?;
    let loaded = ServeConfig::load(args)?;
    if loaded.origin("api.open_keys") == Origin::Default {
        terminal::line(
            "# api.open_keys: as nobody set it, serve opens keys on a loopback api.listen",
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(variables: &[(&str, &str)], reach: Reach, read_by_a_person: bool) -> ServeConfig {
        let sources = Sources::new(SECTIONS).environment(variables.iter().copied());
        ServeConfig::adapted(sources.load().unwrap(), reach, read_by_a_person)
    }

    fn open_keys(variables: &[(&str, &str)]) -> bool {
        adapted(variables, Reach::AsSet, false).api.open_keys
    }

    #[test]
    fn keys_are_open_only_on_loopback_unless_somebody_says_so() {
        assert!(open_keys(&[]));
        assert!(!open_keys(&[("OBSERVER_API__LISTEN", "0.0.0.0:8080")]));
        assert!(!open_keys(&[("OBSERVER_API__OPEN_KEYS", "false")]));
        let both = [("OBSERVER_API__LISTEN", "0.0.0.0:1"), ("OBSERVER_API__OPEN_KEYS", "true")];
        assert!(open_keys(&both));
    }

    #[test]
    fn lan_opens_the_game_port_and_nothing_else() {
        let config = adapted(&[("OBSERVER_GATEWAY__LISTEN", "127.0.0.1:7")], Reach::Lan, false);
        assert_eq!(config.gateway.listen, "0.0.0.0:7".parse().unwrap());
        assert!(config.api.listen.ip().is_loopback());
        let chosen = [
            ("OBSERVER_GATEWAY__LISTEN", "192.0.2.1:7"),
            ("OBSERVER_GATEWAY__ALLOW_PLAINTEXT", "true"),
        ];
        let config = adapted(&chosen, Reach::Lan, false);
        assert_eq!(config.gateway.listen, "192.0.2.1:7".parse().unwrap());
    }

    #[test]
    fn the_log_is_quiet_only_for_people_who_did_not_ask_for_it() {
        let level = |variables: &[(&str, &str)], person| {
            adapted(variables, Reach::AsSet, person).log.level.to_string()
        };
        assert_eq!(level(&[], true), "warn");
        assert_eq!(level(&[], false), "info");
        assert_eq!(level(&[("OBSERVER_LOG__FORMAT", "json")], true), "info");
        assert_eq!(level(&[("OBSERVER_LOG__LEVEL", "debug")], true), "debug");
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        for (name, value, field) in [
            ("OBSERVER_DEMO__DEVICES", "201", "demo.devices"),
            ("OBSERVER_DEMO__RATE", "0", "demo.rate"),
            ("OBSERVER_STORE__VARS__TYPE", "redis", "store.vars.url"),
            ("OBSERVER_GATEWAY__LISTEN", "0.0.0.0:7", "gateway.listen"),
        ] {
            let sources = Sources::new(SECTIONS).environment([(name, value)]);
            let error = sources.load::<ServeConfig>().map(|_| ()).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
