//! TLS: who gets in, with which certificate, and for how long others may try.

use std::fs;
use std::time::Duration;

use observer_gateway::{Certificate, CertificateError, GatewayConfig};
use observer_wire::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::rustls::version;

use crate::game::{Game, WITHIN, tcp};
use crate::rig::{KEY, Rig, eventually};
use crate::transport::{Transport, write_certificate};

/// Waits until the server closes, whatever it says before.
async fn closes(mut socket: tokio::net::TcpStream) {
    let mut said = Vec::new();
    timeout(WITHIN, socket.read_to_end(&mut said)).await.expect("it closes").ok();
}

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken() {
    let rig = Rig::start().await;
    let target = rig.target(Transport::Tls);
    for version in [&version::TLS12, &version::TLS13] {
        let mut game = Game::on(target.tls(&[version]).await.unwrap());
        game.send(&format!("v:{KEY}\n")).await;
        assert_eq!(game.line().await, "OK");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_plain_game_on_the_tls_port_is_closed() {
    let rig = Rig::start().await;
    let mut plain = tcp(rig.tls).await;
    plain.write_all(format!("v:{KEY}\n").as_bytes()).await.unwrap();
    closes(plain).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_old_ones_go_on() {
    let rig = Rig::start().await;
    let target = rig.target(Transport::Tls);
    let mut old = target.sign_in(KEY).await;
    let first = fs::read(&target.certificate).unwrap();
    write_certificate(rig.folder.path());
    let taken = async {
        // Who trusts the new one alone gets in once it is used.
        while target.tls(&[&version::TLS13]).await.is_err() {}
    };
    timeout(WITHIN, taken).await.expect("the new certificate is used");
    old.hears_nothing_more().await;
    target.sign_in(KEY).await;
    rig.target(Transport::WebTls).sign_in(KEY).await;
    fs::write(&target.certificate, first).unwrap();
    assert!(target.tls(&[&version::TLS13]).await.is_err(), "the first is not shown any more");
    rig.stop().await;
}

#[tokio::test]
async fn bad_new_files_change_nothing_and_are_told() {
    let rig = Rig::start().await;
    let target = rig.target(Transport::Tls);
    let trusted = rig.folder.path().join("trusted.pem");
    fs::copy(&target.certificate, &trusted).unwrap();
    let check = || rig.readiness.state_of("tls");
    eventually("the certificate is looked after", || check() == Some((true, None))).await;
    for bad in [&b"no pem"[..], b""] {
        fs::write(&target.certificate, bad).unwrap();
        eventually("it is told", || {
            check().is_some_and(|(ok, reason)| {
                ok && reason.is_some_and(|reason| reason.contains("the old certificate is used"))
            })
        })
        .await;
        let target = crate::transport::Target { certificate: trusted.clone(), ..target.clone() };
        target.sign_in(KEY).await;
    }
    write_certificate(rig.folder.path());
    eventually("all is well again", || check() == Some((true, None))).await;
    target.sign_in(KEY).await;
    rig.stop().await;
}

#[tokio::test]
async fn files_that_are_no_certificate_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let error = || Certificate::read(&cert, &key).unwrap_err();
    assert!(matches!(error(), CertificateError::Unreadable { path, .. } if path == cert));
    write_certificate(folder.path());
    Certificate::read(&cert, &key).unwrap();
    let other = tempfile::tempdir().unwrap();
    write_certificate(other.path());
    fs::copy(other.path().join("key.pem"), &key).unwrap();
    assert!(matches!(error(), CertificateError::NoPair { .. }));
    fs::copy(&cert, &key).unwrap();
    assert!(matches!(error(), CertificateError::NoPem { path, .. } if path == key));
    fs::write(&cert, vec![b'x'; 1024 * 1024]).unwrap();
    assert!(matches!(error(), CertificateError::NoPem { path, .. } if path == cert));
    fs::write(&cert, vec![b'x'; 1024 * 1024 + 1]).unwrap();
    assert!(matches!(error(), CertificateError::Unreadable { path, .. } if path == cert));
}

#[tokio::test]
async fn who_does_not_shake_hands_in_time_is_closed() {
    let limits = Limits { handshake_secs_max: 1, ..Limits::default() };
    let rig = Rig::with_limits(limits).await;
    let [silent, mut half] = [tcp(rig.tls).await, tcp(rig.tls).await];
    half.write_all(&[0x16, 3, 1, 0, 200]).await.unwrap();
    closes(silent).await;
    closes(half).await;
    let mut slow = tcp(rig.web).await;
    let drip = async {
        for byte in b"GET /device HTTP/1.1\r\nHost: x\r\n".iter().cycle() {
            if slow.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WITHIN, drip).await.expect("slow headers are cut off");
    rig.stop().await;
}

#[tokio::test]
async fn one_handshake_too_many_ends_the_oldest_and_lets_good_ones_in() {
    let limits = Limits { handshakes_max: 2, handshake_secs_max: 3600, ..Limits::default() };
    // One worker, so that they are greeted in the order in which they came.
    let config = GatewayConfig { workers: 1, ..GatewayConfig::default() };
    let rig = Rig::with_config(config, limits, Duration::from_secs(10)).await;
    let first = tcp(rig.tls).await;
    let second = tcp(rig.tls).await;
    let third = tcp(rig.tls).await;
    closes(first).await;
    let fourth = tcp(rig.web).await;
    closes(second).await;
    for transport in Transport::ALL {
        rig.target(transport).sign_in(KEY).await;
    }
    closes(third).await;
    drop(fourth);
    rig.stop().await;
}
