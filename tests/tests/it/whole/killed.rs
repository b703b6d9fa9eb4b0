//! What was answered `OK` survives `kill -9`, and is stored once however often it is sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use observer_tests::game::{Game, LINE_WITHIN};
use observer_tests::stack::Embedded;
use observer_tests::wait::eventually;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{SOON, items, items_once};

/// Sockets that send while the process is killed.
const SOCKETS: usize = 20;

/// Lines that a socket sends ahead of their answers.
const AHEAD: usize = 8;

/// Lines answered on each socket before the kill, so that all of them were in the middle of it.
const BEFORE_KILL: usize = 20;

/// What one socket knows when its server is gone.
#[derive(Default)]
struct Sender {
    socket: usize,
    next: usize,
    unanswered: BTreeSet<usize>,
    answered: BTreeSet<usize>,
}

impl Sender {
    fn mid(&self, line: usize) -> String {
        format!("s{}-{line}", self.socket)
    }

    fn records(&self, line: usize) -> Value {
        json!([{ "socket": self.socket, "line": line, "half": 0 },
            { "socket": self.socket, "line": line, "half": 1 }])
    }

    /// Sends until the socket breaks; tells `enough` once it has had its first answers.
    async fn send(
        mut self,
        address: SocketAddr,
        key: &str,
        enough: tokio::sync::mpsc::Sender<()>,
    ) -> Self {
        let mut game = Game::sign_in(address, key).await.unwrap();
        loop {
            while self.unanswered.len() < AHEAD {
                let (mid, records) = (self.mid(self.next), self.records(self.next));
                self.unanswered.insert(self.next);
                self.next += 1;
                if game.log_with_mid(&records, &mid).await.is_err() {
                    return self;
                }
            }
            let Ok(answer) = game.answer(LINE_WITHIN).await else { return self };
            self.settle(&answer);
            if self.answered.len() == BEFORE_KILL {
                enough.send(()).await.unwrap();
            }
        }
    }

    fn settle(&mut self, answer: &str) {
        let prefix = format!("OK s{}-", self.socket);
        let line = answer.strip_prefix(&prefix).unwrap_or_else(|| panic!("{answer}"));
        let line = line.parse().unwrap();
        assert!(self.unanswered.remove(&line), "answered twice: {answer}");
        self.answered.insert(line);
    }

    /// Sends what was not answered again, with its mids, on a new socket.
    async fn send_again(mut self, address: SocketAddr, key: &str) -> Self {
        let mut game = Game::sign_in(address, key).await.unwrap();
        for line in self.unanswered.clone() {
            game.log_with_mid(&self.records(line), &self.mid(line)).await.unwrap();
        }
        while !self.unanswered.is_empty() {
            let answer = game.answer(LINE_WITHIN).await.unwrap();
            self.settle(&answer);
        }
        self
    }
}

#[tokio::test]
async fn what_was_answered_survives_a_kill_and_is_stored_once() {
    let mut embedded = Embedded::start().await;
    let key = embedded.api().await.new_key().await;
    let address = embedded.game_address().await;

    let (enough, mut seen) = tokio::sync::mpsc::channel(SOCKETS);
    let mut senders = JoinSet::new();
    for socket in 0..SOCKETS {
        let sender = Sender { socket, ..Sender::default() };
        let (key, enough) = (key.clone(), enough.clone());
        senders.spawn(async move { sender.send(address, &key, enough).await });
    }
    for _ in 0..SOCKETS {
        tokio::time::timeout(Duration::from_mins(1), seen.recv()).await.unwrap().unwrap();
    }
    embedded.process.kill();
    let senders: Vec<Sender> = senders.join_all().await;
    let unanswered: usize = senders.iter().map(|sender| sender.unanswered.len()).sum();
    assert!(unanswered > 0, "the kill came when nothing was under way");

    embedded.process.restart();
    embedded.up().await;
    let address = embedded.game_address().await;
    // Until the process has begun to answer for keys, games are told to come again.
    eventually(SOON, "the key is good again", async || Game::sign_in(address, &key).await.ok())
        .await;
    let mut again = JoinSet::new();
    for sender in senders {
        let key = key.clone();
        again.spawn(async move { sender.send_again(address, &key).await });
    }
    let senders = again.join_all().await;

    let lines: usize = senders.iter().map(|sender| sender.answered.len()).sum();
    let api = embedded.api().await;
    items_once(&api, &key, 2 * lines).await;
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for item in items(&api, &key, "").await {
        let name = format!("{} {} {}", item["socket"], item["line"], item["half"]);
        *found.entry(name).or_default() += 1;
    }
    assert!(found.values().all(|count| *count == 1), "a record is stored twice");
    for sender in &senders {
        for line in &sender.answered {
            for half in 0..2 {
                let name = format!("{} {line} {half}", sender.socket);
                assert!(found.contains_key(&name), "lost: {name}");
            }
        }
    }
    assert_eq!(found.len(), 2 * lines);
}
