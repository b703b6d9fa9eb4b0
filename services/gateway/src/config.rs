//! Settings of the gateway. Bounds of lines, sockets and bytes are not here: see
//! [`observer_wire::Limits`].

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

/// Settings of the gateway: section `[gateway]`, or `OBSERVER_GATEWAY__*` in the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayConfig {
    /// Address that games connect to. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether games beyond this machine may connect without TLS: whoever is on the way can read
    /// keys and logs, and change both.
    pub allow_plaintext: bool,
    /// Address that games connect to with TLS, if there is a certificate. Port 0 takes a free one.
    pub tls_listen: SocketAddr,
    /// PEM file with the certificate, its chain behind it. Read again when it changes.
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key. Read again when it changes.
    pub tls_key: Option<PathBuf>,
    /// Address that browser games connect to: `ws://…/device`, and `wss://` if there is a
    /// certificate. Port 0 takes a free one.
    pub ws_listen: SocketAddr,
    /// Threads that serve sockets, each with a runtime of its own; 0 is one a core.
    pub workers: usize,
    /// Messages that one worker may have under way on the bus. Further lines gather meanwhile.
    pub publishes_max: NonZeroUsize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6667)),
            allow_plaintext: false,
            tls_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6668)),
            tls_cert: None,
            tls_key: None,
            ws_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6669)),
            workers: 0,
            // 4 MiB in messages of 16 KiB: more than the round trip to a broker holds.
            publishes_max: NonZeroUsize::new(256).expect("256 is not 0"),
        }
    }
}

impl GatewayConfig {
    /// Names the first setting that cannot work, with what would; `None` when all can.
    #[must_use]
    pub fn first_unworkable(&self) -> Option<(&'static str, String)> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => return Some(("tls_key", "is missing beside tls_cert".into())),
            (None, Some(_)) => return Some(("tls_cert", "is missing beside tls_key".into())),
            _ => {}
        }
        let plain = |address: SocketAddr| {
            format!(
                "is {address}, which is reached from beyond this machine: that takes TLS (tls_cert, \
                 tls_key), or allow_plaintext = true (--allow-plaintext) where nobody listens in"
            )
        };
        if !self.may_be_plain(self.listen) {
            return Some(("listen", plain(self.listen)));
        }
        if self.tls_cert.is_none() && !self.web_may_be_plain() {
            return Some(("ws_listen", plain(self.ws_listen)));
        }
        None
    }

    /// Whether WebSockets may do without TLS.
    pub(crate) fn web_may_be_plain(&self) -> bool {
        self.may_be_plain(self.ws_listen)
    }

    fn may_be_plain(&self, address: SocketAddr) -> bool {
        self.allow_plaintext || address.ip().to_canonical().is_loopback()
    }

    /// The number of workers to start.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => available_parallelism().map_or(1, NonZeroUsize::get),
            count => count,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_workers_means_one_a_core() {
        assert!(1 <= GatewayConfig::default().worker_count());
        assert_eq!(GatewayConfig { workers: 3, ..GatewayConfig::default() }.worker_count(), 3);
    }

    fn unworkable(change: impl FnOnce(&mut GatewayConfig)) -> Option<&'static str> {
        let mut config = GatewayConfig::default();
        change(&mut config);
        config.first_unworkable().map(|(setting, _)| setting)
    }

    #[test]
    fn plain_lines_beyond_this_machine_must_be_asked_for() {
        let everywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
        assert_eq!(unworkable(|_| {}), None);
        assert_eq!(unworkable(|config| config.listen = "[::1]:0".parse().unwrap()), None);
        assert_eq!(unworkable(|config| config.listen = everywhere), Some("listen"));
        assert_eq!(unworkable(|config| config.ws_listen = everywhere), Some("ws_listen"));
        assert_eq!(unworkable(|config| config.tls_listen = everywhere), None);
        let allowed = unworkable(|config| {
            (config.listen, config.ws_listen) = (everywhere, everywhere);
            config.allow_plaintext = true;
        });
        assert_eq!(allowed, None);
        let encrypted = unworkable(|config| {
            config.ws_listen = everywhere;
            (config.tls_cert, config.tls_key) = (Some("c".into()), Some("k".into()));
        });
        assert_eq!(encrypted, None, "what is plain there is refused, not served");
    }

    #[test]
    fn certificate_and_key_come_together() {
        assert_eq!(unworkable(|config| config.tls_cert = Some("c".into())), Some("tls_key"));
        assert_eq!(unworkable(|config| config.tls_key = Some("k".into())), Some("tls_cert"));
    }
}
