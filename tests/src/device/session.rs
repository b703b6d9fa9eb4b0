//! One socket of a device: signs in, sends again what is unanswered, then new lines; reads and writes
//! at once, so that neither side waits for the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::transport::{Connection, Reader, Writer};
use super::{Device, Fate, Level, Phase};
use crate::game::{from_payload, to_base64};

/// Time that a device waits for any one answer before it gives the socket up. Longer than the server's
/// own time to answer `timeout`.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// Silence after which it shows the server that it is there.
const PING_AFTER: Duration = Duration::from_secs(10);

/// Pause when the server asks for one without saying how long.
const RETRY_DEFAULT: Duration = Duration::from_millis(500);

/// Codes of refusals that mean "send it again".
const AGAIN: [&str; 4] = ["busy", "timeout", "rate", "quota"];

/// How a socket ended.
pub(super) enum End {
    /// Nothing is left to do.
    Done,
    /// It is gone; with the pause that the server asked for, if it did.
    Lost(Option<Duration>),
}

/// What the socket is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    SigningIn,
    Open,
    /// The server said that it closes: nothing new is sent.
    Closing,
    /// It is of no use: the sign-in was refused.
    GivenUp,
}

/// One socket.
pub(super) struct Session<'d> {
    device: &'d mut Device,
    reader: BufReader<Reader>,
    writer: Writer,
    /// What carries bytes between these and the socket.
    _carriers: JoinSet<()>,
    /// Bytes of a line whose end has not come.
    started: Vec<u8>,
    out: Vec<u8>,
    written: usize,
    state: State,
    /// Lines sent on this socket without an answer, and when.
    sent: BTreeMap<usize, Instant>,
    /// Lines to be sent again once `held_until` is over.
    again: BTreeSet<usize>,
    held_until: Option<Instant>,
    asked_pause: Option<Duration>,
    last_written: Instant,
    signed_in: bool,
}

impl<'d> Session<'d> {
    pub(super) fn new(device: &'d mut Device, connection: Connection) -> Self {
        let Connection { reader, writer, carriers } = connection;
        Self {
            device,
            reader: BufReader::new(reader),
            writer,
            _carriers: carriers,
            started: Vec::new(),
            out: Vec::new(),
            written: 0,
            state: State::SigningIn,
            sent: BTreeMap::new(),
            again: BTreeSet::new(),
            held_until: None,
            asked_pause: None,
            last_written: Instant::now(),
            signed_in: false,
        }
    }

    /// Talks until the socket ends; also tells whether the sign-in had succeeded.
    pub(super) async fn run(mut self) -> (End, bool) {
        self.sign_in();
        let end = loop {
            if self.device.is_done() {
                break End::Done;
            }
            self.fill();
            let wake_at = self.wake_at();
            let unwritten = &self.out[self.written..];
            tokio::select! {
                read = self.reader.read_until(b'\n', &mut self.started) => {
                    if read.is_err() || self.started.pop() != Some(b'\n') {
                        break End::Lost(self.asked_pause);
                    }
                    let line = std::mem::take(&mut self.started);
                    self.hear(&String::from_utf8_lossy(&line));
                }
                wrote = self.writer.write(unwritten), if !unwritten.is_empty() => {
                    match wrote {
                        Ok(count @ 1..) => self.wrote(count),
                        Ok(0) | Err(_) => break End::Lost(self.asked_pause),
                    }
                }
                () = sleep_until(wake_at) => {}
                told = self.device.phase.changed() => if told.is_err() {
                    break End::Done; // Nobody is left who would tell it to end.
                },
            }
            if self.state == State::GivenUp {
                break End::Lost(self.asked_pause);
            }
            if self.is_silent() {
                self.device.kept().silences += 1;
                break End::Lost(None);
            }
        };
        (end, self.signed_in)
    }

    fn sign_in(&mut self) {
        let key = &self.device.options.project.key;
        let line = match self.device.options.level {
            Level::One => format!("v:{key}"),
            Level::Two => {
                let mut hello = json!({
                    "device": self.device.options.name,
                    "session": self.device.boot,
                    "sdk": "test-kit",
                });
                if let Some(secret) = &self.device.secret {
                    hello["secret"] = Value::from(secret.as_str());
                }
                format!("h:{key}:{hello}")
            }
        };
        self.write_line(&line);
    }

    fn write_line(&mut self, line: &str) {
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        self.out.extend_from_slice(line.as_bytes());
        self.out.push(b'\n');
    }

    fn wrote(&mut self, count: usize) {
        self.written += count;
        self.last_written = Instant::now();
    }

    /// Queues what may be sent now.
    fn fill(&mut self) {
        let now = Instant::now();
        if self.held_until.is_some_and(|until| now < until) {
            return;
        }
        self.held_until = None;
        match self.state {
            State::SigningIn | State::Closing | State::GivenUp => return,
            State::Open => {}
        }
        for line in std::mem::take(&mut self.again) {
            self.send(line, now);
        }
        let (pace, ahead_lines_max) =
            (self.device.options.pace, self.device.options.ahead_lines_max);
        while *self.device.phase.borrow() == Phase::Sending
            && self.device.kept().unknown().len() < ahead_lines_max
            && self.device.last_line_at.zip(pace).is_none_or(|(last, pace)| last + pace <= now)
        {
            let line = self.device.kept().attempt();
            self.device.last_line_at = Some(now);
            self.send(line, now);
        }
        if self.last_written + PING_AFTER <= now && self.written == self.out.len() {
            self.last_written = now;
            self.write_line("p:1");
        }
    }

    fn send(&mut self, line: usize, now: Instant) {
        let records = Value::from(self.device.kept().records(line));
        let key = &self.device.options.project.key;
        let text = format!("l:{key}:{}:{}-{line}", to_base64(&records), self.device.boot);
        self.sent.insert(line, now);
        self.write_line(&text);
    }

    /// When to look again though nothing came.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let pace = self.device.last_line_at.zip(self.device.options.pace);
        // A pace that is over waits for answers, not for the clock.
        let next_line = pace.map(|(last, pace)| last + pace).filter(|at| now < *at);
        let silence = self.sent.values().min().map_or(now, |at| *at) + ANSWER_WITHIN;
        let ping = self.last_written + PING_AFTER;
        let ping = (self.state == State::Open && now < ping).then_some(ping);
        let held = self.held_until.filter(|at| now < *at);
        [next_line, held, ping].into_iter().flatten().fold(silence, Instant::min)
    }

    /// Whether an answer is missing for too long.
    fn is_silent(&self) -> bool {
        let oldest = self.sent.values().min().copied();
        let waits_since = match self.state {
            State::Open => oldest,
            State::SigningIn | State::Closing | State::GivenUp => {
                Some(oldest.unwrap_or(self.last_written).min(self.last_written))
            }
        };
        waits_since.is_some_and(|since| since + ANSWER_WITHIN <= Instant::now())
    }

    fn hear(&mut self, line: &str) {
        let (tag, rest) = line.split_once([':', ' ']).unwrap_or((line, ""));
        match tag {
            "OK" if self.state == State::SigningIn => self.opened(),
            "OK" => self.acknowledged(rest),
            "ERR" => self.refused(rest),
            "h" => {
                let hello = rest.split_once(':').and_then(|(_, json)| from_payload(json).ok());
                let secret = hello.as_ref().and_then(|hello| hello["secret"].as_str());
                if let Some(secret) = secret {
                    self.device.secret = Some(secret.to_owned());
                }
                if self.state == State::SigningIn {
                    self.opened();
                }
            }
            // The echo of our own is not echoed.
            "p" if rest != "1" => self.write_line(line),
            "x" => {
                let mut fields = rest.split(':');
                let code = fields.next().unwrap_or_default();
                self.device.kept().count(&format!("x:{code}"));
                let pause = fields.next().and_then(|ms| ms.parse().ok());
                self.asked_pause = pause.map(Duration::from_millis);
                self.state = State::Closing;
            }
            _ => {} // What it does not know, a client ignores.
        }
    }

    /// The sign-in succeeded: everything unanswered is sent again, in order.
    fn opened(&mut self) {
        self.state = State::Open;
        self.signed_in = true;
        let mut kept = self.device.kept();
        kept.sign_ins.push(Instant::now());
        self.again = kept.unknown().clone();
    }

    fn acknowledged(&mut self, mid: &str) {
        let line = self.line_of(mid);
        let sent_at = line.and_then(|line| self.sent.remove(&line));
        let mut kept = self.device.kept();
        kept.count("OK");
        let Some((line, sent_at)) = line.zip(sent_at) else {
            kept.stray.push(format!("OK {mid}"));
            return;
        };
        kept.slowest_answer = kept.slowest_answer.max(sent_at.elapsed());
        kept.newest_sent = kept.newest_sent.max(Some(sent_at));
        kept.settle(line, Fate::Acknowledged);
    }

    /// `<code> <mid or -> <retry_ms or -> <words>`.
    fn refused(&mut self, rest: &str) {
        let mut fields = rest.splitn(4, ' ');
        let (code, mid) = (fields.next().unwrap_or_default(), fields.next().unwrap_or("-"));
        let retry = fields.next().and_then(|ms| ms.parse().ok()).map(Duration::from_millis);
        self.device.kept().count(code);
        if mid == "-" {
            // Whatever it says, it is about the socket.
            self.asked_pause = retry.or(self.asked_pause);
            if self.state == State::SigningIn {
                self.state = State::GivenUp;
            }
            return;
        }
        let line = self.line_of(mid);
        let sent_at = line.and_then(|line| self.sent.remove(&line));
        let Some((line, sent_at)) = line.zip(sent_at) else {
            self.device.kept().stray.push(format!("ERR {code} {mid}"));
            return;
        };
        let mut kept = self.device.kept();
        kept.slowest_answer = kept.slowest_answer.max(sent_at.elapsed());
        if AGAIN.contains(&code) {
            drop(kept);
            self.again.insert(line);
            self.hold(retry);
        } else {
            kept.settle(line, Fate::Refused(code.to_owned()));
        }
    }

    fn hold(&mut self, retry: Option<Duration>) {
        let until = Instant::now() + super::jittered(retry.unwrap_or(RETRY_DEFAULT));
        self.held_until = self.held_until.max(Some(until));
    }

    fn line_of(&self, mid: &str) -> Option<usize> {
        mid.strip_prefix(&self.device.boot)?.strip_prefix('-')?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests join what they spawn")]

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::device::{Addresses, Fleet, FleetOptions, Kept, Project};

    const KEY: &str = "0123456789ab";
    const SOON: Duration = Duration::from_secs(20);

    /// A device of a fleet of one, and the listener that plays its server.
    async fn device(level: Level) -> (Fleet, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = Addresses::new(&[listener.local_addr().unwrap()]);
        let options = FleetOptions {
            devices: 1,
            levels: vec![level],
            line_records: 1,
            pace: Some(Duration::from_millis(10)),
            ..FleetOptions::new(&[Project::new(KEY)])
        };
        (Fleet::start(&options, &addresses), listener)
    }

    /// The server's end of a device's socket.
    struct Served(BufReader<TcpStream>);

    impl Served {
        async fn accept(listener: &TcpListener) -> Self {
            Self(BufReader::new(listener.accept().await.unwrap().0))
        }

        async fn line(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            line.trim_end().to_owned()
        }

        /// The message id of the next line.
        async fn mid(&mut self) -> String {
            let line = self.line().await;
            assert!(line.starts_with(&format!("l:{KEY}:")), "{line}");
            line.rsplit(':').next().unwrap().to_owned()
        }

        async fn say(&mut self, line: &str) {
            self.0.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }

        /// Closes so that the device hears all that was said before: no reset takes it back.
        async fn close(mut self) {
            self.0.shutdown().await.unwrap();
            tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await.ok();
        }

        /// Answers every line until the device ends; `never` is not sent again.
        async fn answer_all(&mut self, never: &str) {
            loop {
                let line = self.line().await;
                let Some((_, mid)) = line.rsplit_once(':') else { return };
                assert_ne!(mid, never);
                // The device may have ended meanwhile.
                self.0.write_all(format!("OK {mid}\n").as_bytes()).await.ok();
            }
        }
    }

    async fn one(fleet: Fleet) -> Kept {
        fleet.settle(SOON).await.remove(0)
    }

    #[tokio::test]
    async fn what_was_not_answered_is_sent_again_in_order_with_its_mids() {
        let (fleet, listener) = device(Level::One).await;
        let mut served = Served::accept(&listener).await;
        assert_eq!(served.line().await, format!("v:{KEY}"));
        served.say("OK").await;
        let mids = [served.mid().await, served.mid().await, served.mid().await];
        served.say(&format!("OK {}", mids[1])).await;
        served.mid().await;
        served.close().await;

        let mut served = Served::accept(&listener).await;
        served.line().await;
        served.say("OK").await;
        let settled = tokio::spawn(one(fleet));
        assert_eq!([served.mid().await, served.mid().await], [mids[0].clone(), mids[2].clone()]);
        served.say(&format!("OK {}\nOK {}", mids[0], mids[2])).await;
        served.answer_all("").await;
        let kept = settled.await.unwrap();
        assert_eq!((kept.acknowledged(), kept.unknown().len()), (kept.lines().len(), 0));
        assert_eq!((kept.sign_ins.len(), kept.stray.len()), (2, 0));
    }

    #[tokio::test]
    async fn a_busy_line_is_sent_again_and_a_shed_one_is_not() {
        let (fleet, listener) = device(Level::One).await;
        let mut served = Served::accept(&listener).await;
        served.line().await;
        served.say("OK").await;
        let (busy, shed) = (served.mid().await, served.mid().await);
        served.say(&format!("ERR busy {busy} 20 wait\nERR shed {shed} - under pressure")).await;
        served.say("OK of-another-1").await;
        let settled = tokio::spawn(one(fleet));
        served.answer_all(&shed).await;
        let kept = settled.await.unwrap();
        assert_eq!(kept.lines()[..2], [Fate::Acknowledged, Fate::Refused("shed".to_owned())]);
        assert_eq!((kept.answered("busy"), kept.answered("shed")), (1, 1));
        assert_eq!(kept.stray, ["OK of-another-1"]);
    }

    #[tokio::test]
    async fn thirty_two_lines_are_unanswered_at_most() {
        let (fleet, listener) = device(Level::One).await;
        let mut served = Served::accept(&listener).await;
        served.line().await;
        served.say("OK").await;
        let mut mids = Vec::new();
        for _ in 0..crate::device::AHEAD_LINES_MAX {
            mids.push(served.mid().await);
        }
        let more = tokio::time::timeout(Duration::from_millis(200), served.mid()).await;
        assert!(more.is_err(), "a line too many: {more:?}");
        served.say(&format!("OK {}", mids[0])).await;
        served.mid().await;
        drop(fleet);
    }

    #[tokio::test]
    async fn a_hello_keeps_its_secret_and_obeys_the_last_words() {
        let (_fleet, listener) = device(Level::Two).await;
        let mut served = Served::accept(&listener).await;
        let hello = served.line().await;
        assert!(hello.starts_with(&format!("h:{KEY}:{{")) && !hello.contains("secret"), "{hello}");
        served.say(&format!(r#"h:{KEY}:{{"secret":"s3","rev":0}}"#)).await;
        served.mid().await;
        served.say("p:7").await;
        while served.line().await != "p:7" {}
        let closed = Instant::now();
        served.say("x:draining:300").await;
        served.close().await;

        let mut served = Served::accept(&listener).await;
        assert!(Duration::from_millis(300) <= closed.elapsed());
        let hello = served.line().await;
        assert!(hello.contains(r#""secret":"s3""#), "{hello}");
    }
}
