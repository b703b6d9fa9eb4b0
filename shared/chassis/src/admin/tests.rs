//! The admin port, asked over real TCP.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::bounded::{CONNECTION_TIME_MAX, CONNECTIONS_MAX};
use super::*;
use crate::telemetry::install_metrics;

/// An admin port, and what its process knows.
struct Process {
    address: std::net::SocketAddr,
    readiness: Readiness,
    shutdown: Shutdown,
    server: AdminServer,
}

impl Process {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::new("durable").promising("it is kept");
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let metrics = install_metrics().unwrap();
        let server = serve_admin(listener, readiness.clone(), metrics, shutdown.clone());
        Self { address, readiness, shutdown, server }
    }

    /// Status and body of the answer.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap(); // Ends: the port closes connections.
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn check_ready(&self, status: u16, expected: Value) {
        let (got, body) = self.get("/readyz").await;
        assert_eq!((got, serde_json::from_str::<Value>(&body).unwrap()), (status, expected));
    }
}

#[tokio::test]
async fn process_is_alive_even_when_not_ready() {
    let process = Process::start().await;
    process.readiness.check("bus").not_ok("refused");
    assert_eq!(process.get("/livez").await, (200, r#"{"ok":true}"#.to_owned()));
}

#[tokio::test]
async fn process_without_dependencies_is_ready() {
    let process = Process::start().await;
    assert!(process.readiness.is_ready());
    let expected =
        json!({ "ready": true, "profile": "durable", "promise": "it is kept", "checks": {} });
    process.check_ready(200, expected).await;
}

#[tokio::test]
async fn every_check_must_be_ok() {
    let process = Process::start().await;
    let bus = process.readiness.check("bus");
    let store = process.readiness.check("store");
    bus.ok();
    let ok = json!({ "ok": true, "reason": null });
    let expect = |ready, store: &Value| json!({ "ready": ready, "profile": "durable", "promise": "it is kept", "checks": { "bus": ok, "store": store } });
    let starting = json!({ "ok": false, "reason": "starting" });
    process.check_ready(503, expect(false, &starting)).await;

    store.not_ok("disk full");
    let full = json!({ "ok": false, "reason": "disk full" });
    process.check_ready(503, expect(false, &full)).await;

    store.ok();
    process.check_ready(200, expect(true, &ok)).await;
}

#[tokio::test]
async fn draining_process_is_not_ready_but_answers() {
    let process = Process::start().await;
    process.shutdown.request();
    let checks = json!({ "shutdown": { "ok": false, "reason": "draining" } });
    let expected =
        json!({ "ready": false, "profile": "durable", "promise": "it is kept", "checks": checks });
    process.check_ready(503, expected).await;
    assert_eq!(process.get("/livez").await.0, 200);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let process = Process::start().await;
    metrics::counter!("chassis_admin_test_total").increment(3);
    let (status, body) = process.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("# TYPE chassis_admin_test_total counter\nchassis_admin_test_total 3\n"));
}

#[tokio::test]
async fn unknown_path_is_404() {
    assert_eq!(Process::start().await.get("/").await.0, 404);
}

#[tokio::test]
async fn port_is_closed_when_the_guard_is_dropped() {
    let Process { address, server, .. } = Process::start().await;
    drop(server);
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn same_name_is_the_same_check() {
    let readiness = Readiness::new("fast");
    readiness.check("bus").ok();
    let again = readiness.check("bus");
    assert!(readiness.is_ready());
    again.not_ok("gone");
    assert!(!readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_block_the_port_for_ever() {
    let process = Process::start().await;
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        silent.push(TcpStream::connect(process.address).await.unwrap());
    }
    let began = tokio::time::Instant::now();
    assert_eq!(process.get("/livez").await.0, 200);
    assert!(CONNECTION_TIME_MAX <= began.elapsed());
}
