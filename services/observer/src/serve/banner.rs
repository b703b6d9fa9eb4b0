//! What `observer serve` prints once everything works: at most six lines, the last of its start.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use super::config::Reach;
use crate::ready::Ready;

/// Whether page and api let anybody in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Whoever reaches them.
    Open,
    /// Nobody: there is no sign-in in this release.
    Closed,
}

/// The lines, for people.
pub(super) fn lines(ready: &Ready, reach: Reach, door: Door) -> [String; 6] {
    let Ready { page, key, game, data_dir, .. } = ready;
    let (host, port) = game.rsplit_once(':').unwrap_or((game, ""));
    let host = host.trim_matches(['[', ']']);
    let warning = match reach {
        Reach::AsSet => "",
        Reach::Lan => "  open to your network, unencrypted: whoever has the key can send",
    };
    let closed = match door {
        Door::Open => "",
        Door::Closed => "  closed: OBSERVER_API__OPEN_KEYS=true opens it to whoever reaches it",
    };
    [
        format!("Page  {page}{closed}"),
        format!("Key   {key}"),
        format!("Game  {game}{warning}"),
        format!(
            "Try   printf 'v:{key}\\nl:{key}:{{\"message\":\"hello from nc\"}}\\n' | nc {host} {port}"
        ),
        format!("Data  {}", data_dir.display()),
        "Stop  Ctrl-C".to_owned(),
    ]
}

/// The address under which people reach a listener: never "every address".
pub(super) fn reachable(listening: SocketAddr, reach: Reach) -> SocketAddr {
    if !listening.ip().is_unspecified() {
        return listening;
    }
    let local = match reach {
        Reach::Lan => lan_address(),
        Reach::AsSet => None,
    };
    SocketAddr::new(IpAddr::V4(local.unwrap_or(Ipv4Addr::LOCALHOST)), listening.port())
}

/// This machine's address in its network, if it has one. Nothing is sent.
fn lan_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Connecting a UDP socket only asks which way packets would go; the port is that of `discard`.
    socket.connect((Ipv4Addr::new(10, 254, 254, 254), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        IpAddr::V4(ip) if !ip.is_loopback() && !ip.is_unspecified() => Some(ip),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Ready {
        Ready {
            page: "http://127.0.0.1:8080/#key=demo00000000".into(),
            key: "demo00000000".into(),
            game: "127.0.0.1:6667".into(),
            game_tls: None,
            game_ws: Some("ws://127.0.0.1:6669/device".into()),
            api: "http://127.0.0.1:8080".into(),
            admin: "http://127.0.0.1:9090".into(),
            data_dir: "./data".into(),
        }
    }

    #[test]
    fn the_line_to_paste_holds_key_and_address() {
        let lines = lines(&ready(), Reach::AsSet, Door::Open);
        assert_eq!(
            lines[3],
            "Try   printf 'v:demo00000000\\nl:demo00000000:{\"message\":\"hello from nc\"}\\n' | nc \
             127.0.0.1 6667"
        );
        assert!(lines.iter().all(|line| !line.contains('\n')));
    }

    #[test]
    fn the_network_is_warned_of() {
        assert!(
            lines(&ready(), Reach::Lan, Door::Open)[2].contains("whoever has the key can send")
        );
    }

    #[test]
    fn a_page_that_lets_nobody_in_says_what_opens_it() {
        let closed = &lines(&ready(), Reach::AsSet, Door::Closed)[0];
        assert!(closed.contains("OBSERVER_API__OPEN_KEYS=true"), "{closed}");
    }

    #[test]
    fn every_address_is_shown_as_one_that_can_be_typed() {
        let shown = |text: &str| reachable(text.parse().unwrap(), Reach::AsSet).to_string();
        assert_eq!(shown("0.0.0.0:1"), "127.0.0.1:1");
        assert_eq!(shown("[::1]:1"), "[::1]:1");
        assert!(!reachable("0.0.0.0:1".parse().unwrap(), Reach::Lan).ip().is_unspecified());
    }
}
