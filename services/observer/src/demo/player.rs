//! Plays one simulated game: lets things happen at their time, and obeys edits.

use observer_chassis::{BoxError, now_ms, reason};
use observer_wire::ApiKey;
use serde_json::Value;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval_at};
use tracing::debug;

use super::Audience;
use super::game::{Game, variables};
use super::random::Random;
use crate::device::Device;
use crate::device::heard::Heard;
use crate::device::play::{Next, Player};
use crate::device::socket::Lost;
use crate::terminal;

/// Most lines that a game sends in a second; at higher rates a line carries several records.
const LINES_PER_SEC_MAX: f64 = 10.0;

/// Most records that a game logs in a second: 500 a line is what the server takes.
pub(crate) const RATE_MAX: f64 = 5_000.0;

/// Pause between two reports of what drifts.
const DRIFT_EVERY: Duration = Duration::from_secs(3);

/// A simulated game with its device.
pub(super) struct GamePlayer {
    number: usize,
    audience: Audience,
    game: Game,
    device: Device,
    happens: Interval,
    drifts: Interval,
    /// Records of each line, and what is left of a record after the last.
    records_per_line: f64,
    due: f64,
    /// Whether the loss of the connection has been told: one sentence is enough.
    away: bool,
}

impl GamePlayer {
    /// The game with that number, at its start. Needs a runtime.
    pub(super) fn new(
        number: usize,
        rate: f64,
        key: ApiKey,
        audience: Audience,
    ) -> Result<Self, BoxError> {
        let mut seed = [0; 8];
        getrandom::fill(&mut seed)?;
        let seed = u64::from_le_bytes(seed);
        let rate = rate.clamp(0.001, RATE_MAX);
        let lines_per_sec = rate.min(LINES_PER_SEC_MAX);
        // Games that start together shall not speak together.
        let part = Random::new(seed).between(0.0, 1.0);
        Ok(Self {
            number,
            audience,
            game: Game::new(seed),
            device: Device::new(key, variables(number))?,
            happens: every(Duration::from_secs_f64(1.0 / lines_per_sec), part),
            drifts: every(DRIFT_EVERY, part),
            records_per_line: rate / lines_per_sec,
            due: 0.0,
            away: false,
        })
    }

    fn records_happen(&mut self) {
        self.due += self.records_per_line;
        let mut records: Vec<Value> = Vec::new();
        let now = now_ms();
        match self.device.outbox.take_dropped() {
            0 => {}
            lines => records.push(self.game.dropped(lines, now)),
        }
        while 1.0 <= self.due {
            self.due -= 1.0;
            records.push(self.game.happens(&self.device.variables, now));
        }
        if !records.is_empty() {
            self.device.log(&records);
        }
    }

    fn tell(&self, text: &str) -> Result<(), BoxError> {
        match self.audience {
            Audience::Terminal => terminal::line(&format!("game {}: {text}", self.number))?,
            Audience::Log => debug!(game = self.number, text, "demo"),
        }
        Ok(())
    }
}

fn every(period: Duration, part: f64) -> Interval {
    let mut interval = interval_at(Instant::now() + period.mul_f64(part), period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Player for GamePlayer {
    type Error = BoxError;

    fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    async fn act(&mut self) -> Result<Next, BoxError> {
        tokio::select! {
            _ = self.happens.tick() => self.records_happen(),
            _ = self.drifts.tick() => {
                let changed = self.game.drift(&mut self.device.variables);
                self.device.report(&changed);
            }
        }
        Ok(Next::Play)
    }

    fn connected(&mut self) -> Result<(), BoxError> {
        self.away = false;
        self.tell("signed in")
    }

    fn lost(&mut self, why: Lost) -> Result<(), BoxError> {
        if std::mem::replace(&mut self.away, true) {
            return Ok(());
        }
        self.tell(&format!("{}; trying again until it is back", reason(&why)))
    }

    fn heard(&mut self, heard: Heard) -> Result<(), BoxError> {
        match heard {
            Heard::Edits(edits) => {
                let outcomes = self.device.obey(&edits);
                let now = now_ms();
                let records: Vec<_> =
                    outcomes.iter().map(|outcome| self.game.edited(outcome, now)).collect();
                if !records.is_empty() {
                    self.device.log(&records);
                }
                for outcome in &outcomes {
                    self.tell(&terminal::clean(&outcome.describe()))?;
                }
            }
            Heard::Refused { code, words, .. } => {
                self.tell(&terminal::clean(&format!("refused: {code} {words}")))?;
            }
            Heard::Fine | Heard::Done { .. } | Heard::Other(_) => {}
        }
        Ok(())
    }
}
