//! The gateway with the bus that is embedded in one process: a publish returns once its consumer
//! has settled the event.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::in_process::InProcessBus;
use observer_bus::{Bus, BusConfig, Durable, Outgoing, Service, Stream};
use observer_chassis::{Readiness, Shutdown};
use observer_gateway::{GatewayConfig, Listeners, Ports, run};
use observer_wire::ask::{KeyAnswer, VarsAnswer};
use observer_wire::edit::{Document, EDIT_VERSION, Edit};
use observer_wire::{Limits, ProjectId};
use serde_json::value::RawValue;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::game::Game;
use crate::rig::KEY;

/// Answers every request of a service with the same.
async fn answer(bus: Arc<dyn Bus>, service: Service, answer: Vec<u8>) {
    let mut requests = bus.serve(service).await.unwrap();
    let answer = Bytes::from(answer);
    loop {
        requests.next().await.reply.send(answer.clone()).await;
    }
}

#[tokio::test]
async fn a_line_is_safe_once_its_consumer_settled_it_and_edits_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let bus = InProcessBus::open(&BusConfig::default(), folder.path()).await.unwrap();
    let bus: Arc<dyn Bus> = Arc::new(bus);
    let project: ProjectId = KEY.parse().unwrap();
    let key = serde_json::to_vec(&KeyAnswer { project: Some(project) }).unwrap();
    let document = serde_json::to_vec(&VarsAnswer::Document(Document::default())).unwrap();
    let services = [
        tokio::spawn(answer(Arc::clone(&bus), Service::Keys, key)),
        tokio::spawn(answer(Arc::clone(&bus), Service::Vars, document)),
    ];
    let mut logs = bus.consume(Durable::LogIndexer).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = Shutdown::new(Duration::from_secs(10));
    let ports = Ports { bus: Arc::clone(&bus), readiness: Readiness::new("embedded") };
    let running = tokio::spawn(run(
        GatewayConfig { workers: 2, ..GatewayConfig::default() },
        Limits::default(),
        Listeners { plain: listener, tls: None, web: None, certificate: None },
        ports,
        shutdown.clone(),
    ));

    let mut game = Game::connect(address).await;
    loop {
        game.send(&format!("v:{KEY}\n")).await;
        let answer = game.line().await;
        if answer == "OK" {
            break;
        }
        assert!(answer.starts_with("ERR busy"), "{answer}"); // Keys are not served yet.
    }
    game.send(&format!("l:{KEY}:[{{}}]:a\n")).await;
    let delivery = logs.next().await;
    game.hears_nothing_more().await;
    delivery.ack().await.unwrap();
    assert_eq!(game.line().await, "OK a");

    let edit = Edit {
        v: EDIT_VERSION,
        project,
        epoch: "e".into(),
        rev: 1,
        edit_id: "1".into(),
        actor: "anna".into(),
        at: 1,
        note: None,
        changes: vec![],
        raw: RawValue::from_string("{\"name\":\"a\"}".into()).ok(),
    };
    let payload = Bytes::from(serde_json::to_vec(&edit).unwrap());
    let id = "edit-1".to_owned();
    let event = Outgoing { stream: Stream::Edits, project, id, expected: None, payload };
    let mut edits = bus.consume(Durable::EditApplier).await.unwrap();
    let publisher = Arc::clone(&bus);
    let publishing = tokio::spawn(async move { publisher.publish(event).await });
    edits.next().await.ack().await.unwrap();
    publishing.await.unwrap().unwrap();
    assert_eq!(game.callback(KEY).await, "{\"name\":\"a\"}");

    drop(game);
    shutdown.request();
    // Nobody consumes sign-ins and ends here, so the gateway is cut off in time, or was just done.
    timeout(Duration::from_secs(20), running).await.unwrap().unwrap().ok();
    for service in services {
        service.abort();
    }
}
