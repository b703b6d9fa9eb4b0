//! What protects people: foreign hosts and origins, headers, bounds on connections, and the page.

use std::num::NonZeroUsize;
use std::time::Duration;

use observer_api::ApiConfig;
use observer_tests::ws::WebSocket;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::{KEY, Running, SOON, no_vars, open_keys, start};

/// Status and body of a request with these headers, byte for byte.
async fn raw(running: &Running, head: &str) -> String {
    let mut socket = TcpStream::connect(running.api.address()).await.unwrap();
    let request = format!("{head}Connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn foreign_hosts_are_refused_on_every_route() {
    let config = ApiConfig { allowed_hosts: vec!["console.example".into()], ..open_keys() };
    let running = start(config, no_vars).await;
    let logs = format!("/api/v1/projects/{KEY}/logs");
    for path in ["/", "/alive", "/users/tokens", "/ws", logs.as_str(), "/api/v1/other"] {
        let answer = raw(&running, &format!("GET {path} HTTP/1.1\r\nHost: evil.example\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 403 "), "{path}: {answer}");
        assert!(answer.contains("\"foreign_host\""));
    }
    for host in ["localhost:1", "127.0.0.1", "[::1]:8080", "console.example"] {
        let answer = raw(&running, &format!("GET {logs} HTTP/1.1\r\nHost: {host}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{host}: {answer}");
    }
    let none = raw(&running, &format!("GET {logs} HTTP/1.0\r\n")).await;
    assert!(none.contains("\"foreign_host\""));
}

#[tokio::test]
async fn foreign_origins_are_refused_for_requests_and_websockets() {
    let running = start(open_keys(), no_vars).await;
    let api = &running.api;
    let own = format!("http://{}", api.address());
    let stream = format!("/api/v1/projects/{KEY}/stream");
    for origin in ["http://evil.example", "null", "http://127.0.0.1:1"] {
        let request = api.request(Method::POST, "/users/tokens").header("origin", origin);
        let answer = api.send(request.json(&json!({ "token": "aaaaaaaaaaaa" }))).await.unwrap();
        assert_eq!((answer.status, &answer.json["code"]), (403, &json!("foreign_origin")));
        for path in ["/ws", stream.as_str()] {
            let refused = WebSocket::open_with(&api.ws_url(path), &[("origin", origin)]).await;
            let Err(Error::Http(response)) = refused else { panic!("{origin} was let in") };
            assert_eq!(response.status().as_u16(), 403);
        }
    }
    assert_eq!(running.stores.keys.lock().unwrap().len(), 1);
    let request = api.request(Method::POST, "/users/tokens").header("origin", own.as_str());
    let answer = api.send(request.json(&json!({ "token": "aaaaaaaaaaaa" }))).await.unwrap();
    assert_eq!(answer.status, 200);
    assert!(WebSocket::open_with(&api.ws_url("/ws"), &[("origin", own.as_str())]).await.is_ok());
}

#[tokio::test]
async fn every_answer_has_the_headers_that_protect() {
    let running = start(open_keys(), no_vars).await;
    for path in ["/", "/alive", "/api/v1/server", "/nothing"] {
        let request = running.api.request(Method::GET, path);
        let answer = request.send().await.unwrap();
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(
            header("content-security-policy"),
            "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        );
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert_eq!(header("referrer-policy"), "no-referrer");
        let caching = header("cache-control");
        assert_eq!(caching, if path == "/" { "no-cache" } else { "no-store" }, "{path}");
    }
}

#[tokio::test]
async fn a_page_is_served_with_or_without_the_dashboard() {
    let running = start(ApiConfig::default(), no_vars).await;
    let answer = running.api.get("/").await.unwrap();
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "text/html; charset=utf-8"));
    assert!(answer.text.to_lowercase().starts_with("<!doctype html>"));
    let host = "Host: localhost\r\n";
    let packed = raw(&running, &format!("GET / HTTP/1.1\r\n{host}Accept-Encoding: gzip\r\n")).await;
    assert!(packed.contains("content-encoding: gzip"), "{packed}");
    let tag = packed.lines().find_map(|line| line.strip_prefix("etag: "));
    if let Some(tag) = tag {
        let again = format!("GET / HTTP/1.1\r\n{host}If-None-Match: {tag}\r\n");
        assert!(raw(&running, &again).await.starts_with("HTTP/1.1 304 "));
    }
    for outside in ["/assets/..%2f..%2fpackage.json", "/assets/%2e%2e/index.html", "/assets/"] {
        assert_eq!(running.api.get(outside).await.unwrap().status, 404, "{outside}");
    }
}

#[tokio::test]
async fn connections_past_the_bound_wait_for_their_turn() {
    let one = NonZeroUsize::new(1).unwrap();
    let running = start(ApiConfig { connections_max: one, ..open_keys() }, no_vars).await;
    let first = TcpStream::connect(running.api.address()).await.unwrap();
    let api = &running.api;
    let waiting = api.get("/alive");
    let early = tokio::time::timeout(Duration::from_millis(300), waiting).await;
    assert!(early.is_err(), "the second connection was served beside the first");
    drop(first);
    assert_eq!(running.api.get("/alive").await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_that_ask_for_nothing_make_room() {
    let two = NonZeroUsize::new(2).unwrap();
    let running = start(ApiConfig { connections_max: two, ..open_keys() }, no_vars).await;
    let mut silent = TcpStream::connect(running.api.address()).await.unwrap();
    let mut slow = TcpStream::connect(running.api.address()).await.unwrap();
    slow.write_all(b"GET /alive HTTP/1.1\r\nHost: lo").await.unwrap();
    assert_eq!(running.api.get("/alive").await.unwrap().status, 200);
    // Two have their places, whoever they are: the one that came first is gone.
    let closed = tokio::time::timeout(SOON, silent.read(&mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let running = start(open_keys(), no_vars).await;
    let mut slow = TcpStream::connect(running.api.address()).await.unwrap();
    slow.write_all(b"GET /alive HTTP/1.1\r\nHost: lo").await.unwrap();
    let mut rest = Vec::new();
    // The bound is 15 s: real time passes, as the clock of sockets cannot be paused.
    let ended = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is open after 30 s");
}

#[tokio::test]
async fn shutdown_lets_viewers_know_and_waits_for_them() {
    let running = start(open_keys(), no_vars).await;
    let (mut stream, _) = running.stream("").await;
    let mut page = WebSocket::open(&running.api.ws_url("/ws")).await.unwrap();
    running.shutdown.request();
    stream.closed(SOON).await;
    page.closed(SOON).await;
    tokio::time::timeout(SOON, running.ended.wait()).await.unwrap();
    assert!(TcpStream::connect(running.api.address()).await.is_err());
}
