//! Variables under load: a game that reports a growing number, an operator who edits one, and a page
//! that looks on. Afterwards V0 is judged: the newest value counts, and nothing ever went back.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{SERVED_WITHIN, SETTLED_WITHIN};
use crate::device::Addresses;
use crate::eventually;
use crate::game::{Game, LINE_WITHIN};
use crate::http::Api;

/// Pauses between two reports, two edits, and two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The game's name, and its session: the same on every socket.
const DEVICE: &str = "reporter";

/// What the three know.
#[derive(Debug, Default)]
struct Known {
    /// The number that the game reports, and the highest one whose line was acknowledged.
    report: u64,
    reported: u64,
    /// Edits that were attempted; the value of each is its number.
    edits: u64,
    /// Value of each revision that was told.
    revisions: BTreeMap<u64, u64>,
    /// Newest revision that the game was sent.
    sent: u64,
    /// Laws that were broken on the way.
    broken: Vec<String>,
}

/// The three, until they are judged. Dropped, they end at once.
pub(super) struct Values {
    key: String,
    api: Api,
    known: Arc<Mutex<Known>>,
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// What one of the three works with.
#[derive(Clone)]
struct Hand {
    key: String,
    api: Api,
    known: Arc<Mutex<Known>>,
    stop: watch::Receiver<bool>,
}

impl Values {
    /// Starts, and returns once both are served.
    pub(super) async fn start(api: &Api, addresses: &Addresses) -> Self {
        let key = api.new_key().await;
        let (stop, stopped) = watch::channel(false);
        let known = Arc::new(Mutex::new(Known::default()));
        let (api, mut tasks) = (api.clone(), JoinSet::new());
        let hand =
            Hand { key: key.clone(), api: api.clone(), known: Arc::clone(&known), stop: stopped };
        tasks.spawn(hand.clone().report(addresses.clone()));
        tasks.spawn(hand.clone().edit());
        tasks.spawn(hand.look());
        let values = Self { key, api, known, stop, tasks };
        values.healed().await;
        values
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// Waits until a report and an edit that were made from now on are acknowledged.
    pub(super) async fn healed(&self) {
        let (report, edits) = {
            let known = self.known();
            (known.report, known.edits)
        };
        eventually(SERVED_WITHIN, "reports and edits are acknowledged again", async || {
            let known = self.known();
            let edited = known.revisions.values().any(|value| edits < *value);
            (report < known.reported && edited).then_some(())
        })
        .await;
    }

    /// Stops, and gives all that is not as it must be, and how many reports and edits were acknowledged.
    pub(super) async fn judge(mut self) -> (Vec<String>, u64, u64) {
        self.stop.send_replace(true);
        let ended = timeout(SETTLED_WITHIN, async {
            while let Some(ended) = self.tasks.join_next().await {
                ended.expect("they do not panic");
            }
        });
        ended.await.expect("reports and edits come to an end");
        let mut wrong = vec!["the api tells nothing".to_owned()];
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            if let Some(vars) = vars(&self.api, &self.key).await {
                wrong = self.known().wrong(&vars);
                if wrong.is_empty() {
                    break;
                }
            }
            if until < Instant::now() {
                break;
            }
            sleep(PAUSE).await;
        }
        let known = self.known();
        wrong.extend(known.broken.iter().cloned());
        (wrong, known.reported, known.revisions.len() as u64)
    }
}

impl Known {
    /// What is not as it must be in the end.
    fn wrong(&self, vars: &Vars) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut check = |holds: bool, what: String| {
            if !holds {
                wrong.push(what);
            }
        };
        let told = self.revisions.last_key_value().map_or(0, |(revision, _)| *revision);
        check(
            vars.reported == Some(self.reported),
            format!("reported is {:?}, not {}", vars.reported, self.reported),
        );
        check(told <= vars.revision, format!("revision {told} is lost, now {}", vars.revision));
        check(
            vars.revision <= self.edits,
            format!("{} revisions of {} edits", vars.revision, self.edits),
        );
        let of_revision = self.revisions.get(&vars.revision);
        check(
            of_revision.is_none_or(|value| vars.wanted == Some(*value)),
            format!("wanted is {:?}, not {of_revision:?}", vars.wanted),
        );
        wrong
    }

    fn broke(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }
}

impl Hand {
    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Reports a growing number, each until it is acknowledged, over as many sockets as it takes.
    async fn report(self, addresses: Addresses) {
        while !self.is_done() {
            // Whatever was wrong with the socket, the next one sends again what has no answer.
            self.report_on_one_socket(&addresses).await.ok();
            sleep(PAUSE).await;
        }
    }

    fn is_done(&self) -> bool {
        let known = self.known();
        self.is_stopped() && known.reported == known.report
    }

    async fn report_on_one_socket(&self, addresses: &Addresses) -> io::Result<()> {
        let target = addresses.choose().ok_or(io::ErrorKind::NotFound)?;
        let mut game = Game::connect(target.address).await?;
        let hello = json!({ "device": DEVICE, "session": "one" });
        game.send_line(&format!("h:{}:{hello}", self.key)).await?;
        while !game.read_line(LINE_WITHIN).await?.starts_with("h:") {}
        while let Some(report) = self.next_report() {
            let values =
                json!([{ "name": "count", "type": "integer", "value": report.to_string() }]);
            game.send_line(&format!("i:{}:{values}:v{report}", self.key)).await?;
            loop {
                let line = game.read_line(LINE_WITHIN).await?;
                if line == format!("OK v{report}") {
                    self.known().reported = report;
                    break;
                }
                if line.starts_with("ERR ") {
                    break; // It is sent again.
                }
                self.hear(&line);
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// The report that has no answer, or the next one.
    fn next_report(&self) -> Option<u64> {
        if self.is_done() {
            return None;
        }
        let mut known = self.known();
        known.report += u64::from(known.reported == known.report);
        Some(known.report)
    }

    /// An edit must not be older than the one before it.
    fn hear(&self, line: &str) {
        let mut fields = line.rsplitn(3, ':').skip(1);
        let revision = fields.next().and_then(|revision| revision.parse::<u64>().ok());
        if let Some(revision) = revision.filter(|_| line.starts_with("v:")) {
            let mut known = self.known();
            let before = std::mem::replace(&mut known.sent, revision);
            known.broke(before <= revision, || format!("sent {revision} after {before}"));
        }
    }

    /// Edits a variable to the number of the attempt.
    async fn edit(self) {
        while !self.is_stopped() {
            let value = {
                let mut known = self.known();
                known.edits += 1;
                known.edits
            };
            let edit = json!({ "name": "speed", "type": "integer", "value": value.to_string() });
            let answer = self.api.edit(&self.key, &json!({ "edits": [edit] })).await;
            if let Some(revision) = answer.ok().and_then(|answer| answer.json["revision"].as_u64())
            {
                let mut known = self.known();
                let other = known.revisions.insert(revision, value);
                known.broke(other.is_none(), || format!("revision {revision} was told twice"));
            }
            sleep(PAUSE).await;
        }
    }

    /// Looks on: neither the revision nor what is reported ever goes back.
    async fn look(self) {
        let mut before = Vars::default();
        while !self.is_stopped() {
            if let Some(now) = vars(&self.api, &self.key).await {
                let went_back = now.revision < before.revision || now.reported < before.reported;
                self.known().broke(!went_back, || format!("{now:?} after {before:?}"));
                before = now;
            }
            sleep(PAUSE).await;
        }
    }
}

/// What the api says about the variables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vars {
    revision: u64,
    wanted: Option<u64>,
    reported: Option<u64>,
}

async fn vars(api: &Api, key: &str) -> Option<Vars> {
    let vars = api.vars(key).await.ok().filter(|answer| answer.status == 200)?.json;
    let number = |list: &Value| list[0]["value"].as_str()?.parse().ok();
    let devices = vars["devices"].as_array()?;
    let device = devices.iter().find(|device| device["device"] == DEVICE);
    Some(Vars {
        revision: vars["revision"].as_u64()?,
        wanted: number(&vars["wanted"]),
        reported: device.and_then(|device| number(&device["reported"])),
    })
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let revisions = BTreeMap::from([(1, 1), (3, 4)]);
        Known { report: 7, reported: 7, edits: 5, revisions, ..Known::default() }
    }

    #[test]
    fn the_newest_values_hold_whether_their_edit_was_told_or_not() {
        let told = Vars { revision: 3, wanted: Some(4), reported: Some(7) };
        assert_eq!(known().wrong(&told), [""; 0]);
        let untold = Vars { revision: 4, wanted: Some(3), ..told };
        assert_eq!(known().wrong(&untold), [""; 0]);
    }

    #[test]
    fn lost_reports_lost_edits_and_edits_applied_twice_are_wrong() {
        let good = Vars { revision: 3, wanted: Some(4), reported: Some(7) };
        for bad in [
            Vars { reported: Some(6), ..good },
            Vars { reported: None, ..good },
            Vars { revision: 2, wanted: Some(2), ..good },
            Vars { wanted: Some(1), ..good },
            Vars { revision: 6, ..good },
        ] {
            assert_eq!(known().wrong(&bad).len(), 1, "{bad:?}");
        }
    }
}
