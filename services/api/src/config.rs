//! Settings of api.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Settings of api: section `[api]`, or `OBSERVER_API__*` in the environment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// Address of dashboard, HTTP and WebSockets. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whoever knows a key may see and change its project, and anybody may make keys: for a machine
    /// of one's own. Off, all of that is refused, as there is no sign-in in this release.
    pub open_keys: bool,
    /// Names under which the dashboard is reached, besides loopback and the address that a
    /// connection came to. Requests for other names are refused: a foreign page may have sent them.
    pub allowed_hosts: Vec<String>,
    /// Address of games, as the dashboard shows it: `host:port`.
    pub game_address: GameAddress,
    /// HTTP connections at once. Further ones wait to be accepted.
    pub connections_max: NonZeroUsize,
    /// Live viewers at once, `/ws` and `/stream` together. Further ones get `busy`.
    pub live_viewers_max: NonZeroUsize,
    /// Largest message that a viewer may send, in bytes; `/ws` takes edits. Past it, 1009.
    pub ws_message_bytes_max: NonZeroUsize,
    /// News that wait for one viewer, in bytes. Past it they are dropped, counted and shown as a gap.
    pub viewer_queue_bytes_max: NonZeroUsize,
    /// What this process is part of; set by whoever starts it, not by settings.
    #[serde(skip)]
    pub about: About,
}

/// How the running system is put together, as `/api/v1/server` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `embedded` or `distributed`.
    pub form: &'static str,
    /// What an acknowledged line survives: the bus's delivery profile.
    pub profile: String,
}

impl Default for About {
    fn default() -> Self {
        Self { form: "embedded", profile: "embedded".into() }
    }
}

impl Default for ApiConfig {
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).expect("defaults are not zero");
        Self {
            listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            open_keys: false,
            allowed_hosts: Vec::new(),
            game_address: GameAddress::default(),
            connections_max: number(4096),
            live_viewers_max: number(1000),
            ws_message_bytes_max: number(256 * 1024),
            viewer_queue_bytes_max: number(1024 * 1024),
            about: About::default(),
        }
    }
}

/// A host and a port, for people to copy. Nothing connects to it here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GameAddress {
    /// A name or an address; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Default for GameAddress {
    fn default() -> Self {
        Self { host: "127.0.0.1".into(), port: 6667 }
    }
}

impl FromStr for GameAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{text}\" is no host:port, such as 127.0.0.1:6667");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl TryFrom<String> for GameAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for GameAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl From<GameAddress> for String {
    fn from(address: GameAddress) -> Self {
        address.to_string()
    }
}

impl From<SocketAddr> for GameAddress {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_game_address_is_a_host_and_a_port() {
        for (text, host, port) in
            [("games.example:1", "games.example", 1), ("[::1]:6667", "::1", 6667)]
        {
            let address: GameAddress = text.parse().unwrap();
            assert_eq!((address.host.as_str(), address.port), (host, port));
            assert_eq!(address.to_string(), text);
        }
        for wrong in ["", "host", ":1", "host:", "host:65536", "a b:1"] {
            assert!(wrong.parse::<GameAddress>().is_err(), "{wrong}");
        }
    }
}
