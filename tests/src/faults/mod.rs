//! Faults under load: each is a function with its size as a parameter, which returns what happened as
//! a row of the table in `docs/reliability.md`. Small, they are ordinary tests; at full size they are
//! `make test-faults`.

mod abuse;
mod answers;
#[cfg(target_os = "linux")]
mod files;
mod gone;
mod killed;
mod link;
#[cfg(target_os = "linux")]
mod nats_power;
mod network;
mod noisy;
mod outage;
#[cfg(target_os = "linux")]
mod power;
mod pressed;
#[cfg(target_os = "linux")]
mod slow_readers;
#[cfg(target_os = "linux")]
mod slowloris;
mod soak;
mod still;
mod stopped;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::device::{Addresses, Fleet, FleetOptions, Kept, Project, Target, below};
use crate::http::Api;
use crate::laws::{Counts, Found, Verdict, judge, read_until_stable, until_stable};
use crate::process::Process;

pub use abuse::{Abuse, Figure};
pub use answers::{Hangs, half_of_the_items_are_refused, unbelievable_answers};
#[cfg(target_os = "linux")]
pub use files::files_run_out;
pub use gone::{RETURN_WITHIN, embedded_is_terminated, servers_are_gone, start_with_a_backlog};
pub use killed::{
    all_are_killed, embedded_is_killed, embedded_is_killed_on_every_transport, gateway_is_killed,
    log_indexer_is_killed, nats_is_killed, var_store_is_killed,
};
pub use link::{
    acknowledgements_are_lost, broken_broker_link, broker_link_flaps, broker_link_is_a_black_hole,
};
#[cfg(target_os = "linux")]
pub use nats_power::nats_power_is_cut;
pub use network::{broken_connections, sliced_network};
pub use noisy::noisy_neighbour;
pub use outage::{Drained, Outage, elasticsearch_is_away};
#[cfg(target_os = "linux")]
pub use power::{Cuts, power_is_cut, power_is_cut_on_a_lying_disk};
pub use pressed::{
    Crowd, Crowded, Flood, broker_is_full, crowd_at_twice_the_load, line_without_an_end, tiny_lines,
};
#[cfg(target_os = "linux")]
pub use slow_readers::{game_does_not_read, viewer_does_not_read};
#[cfg(target_os = "linux")]
pub use slowloris::slowloris;
pub use soak::{Held, Soak, soak};
pub use still::{PendingLine, Silence, acknowledgement_pending_at_the_end, nats_stands_still};
#[cfg(target_os = "linux")]
pub use still::{Storm, acknowledgements_time_out};
pub use stopped::{Rolling, half_a_line_at_the_end, rolling_restart};

use values::Values;

/// Time for full service after a fault is healed. Above the promise of the table, which the row tells:
/// the machine may be busy with builds.
const SERVED_WITHIN: Duration = Duration::from_mins(1);

/// Time for every line to have its final answer once no more are made.
const SETTLED_WITHIN: Duration = Duration::from_mins(1);

/// What one fault did.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which fault.
    pub name: &'static str,
    /// How often.
    pub cycles: usize,
    /// The laws.
    pub verdict: Verdict,
    /// Answers that devices got, by what they said.
    pub answers: BTreeMap<String, u64>,
    /// The counting law, where no process was killed.
    pub counts: Option<Counts>,
    /// Longest time from healing to full service.
    pub full_service: Duration,
    /// Longest time from sending a line to its answer, whatever that said, on one socket.
    pub slowest_answer: Duration,
}

impl Row {
    /// # Panics
    ///
    /// When a law is broken, or nothing was acknowledged.
    pub fn must_hold(&self) {
        assert!(self.verdict.holds(), "{}: {:?}", self.name, self.verdict);
        assert!(self.verdict.acknowledged > 0, "{}: nothing was acknowledged", self.name);
        if let Some(counts) = self.counts {
            assert!(counts.add_up(), "{}: {counts:?}", self.name);
            let in_store = self.verdict.stored + self.verdict.gaps;
            assert!(counts.fit(in_store), "{}: {in_store} in the store, {counts:?}", self.name);
        }
    }

    /// What these processes counted, all of which lived, once it adds up.
    async fn counted(self, processes: &mut [&mut Process]) -> Self {
        let until = Instant::now() + COUNTED_WITHIN;
        loop {
            let counts = Counts::of(processes).await;
            if counts.add_up() {
                return Self { counts: Some(counts), ..self };
            }
            assert!(Instant::now() < until, "{}: {counts:?}", self.name);
            sleep(LOOK_EVERY).await;
        }
    }

    /// How often devices were answered so.
    #[must_use]
    pub fn answered(&self, answer: &str) -> u64 {
        self.answers.get(answer).copied().unwrap_or_default()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, cycles, verdict, full_service, .. } = self;
        let (acknowledged, stored) = (verdict.acknowledged, verdict.stored);
        let (lost, duplicates) = (verdict.lost.len(), verdict.duplicates.len());
        let seconds = full_service.as_secs_f32();
        write!(
            f,
            "| {name} | {cycles} | {acknowledged} | {stored} | {lost} | {duplicates} | {seconds:.1} |"
        )
    }
}

/// Devices of two projects that send all the time.
struct Load {
    fleet: Fleet,
    addresses: Addresses,
    full_service: Duration,
}

impl Load {
    /// Starts eight devices, and returns once every one is served.
    async fn start<T: Clone + Into<Target>>(api: &Api, addresses: &[T]) -> Self {
        Self::start_with(api, addresses, |_| {}).await
    }

    /// As [`Load::start`], with devices that differ from the usual ones.
    async fn start_with<T: Clone + Into<Target>>(
        api: &Api,
        addresses: &[T],
        change: impl FnOnce(&mut FleetOptions),
    ) -> Self {
        let projects = [Project::new(&api.new_key().await), Project::new(&api.new_key().await)];
        let addresses = Addresses::new(addresses);
        let mut options = FleetOptions::new(&projects);
        change(&mut options);
        let fleet = Fleet::start(&options, &addresses);
        fleet.full_service(Instant::now(), SERVED_WITHIN).await;
        Self { fleet, addresses, full_service: Duration::ZERO }
    }

    /// The fault is healed now: waits until every device is served again.
    async fn healed(&mut self) {
        let took = self.fleet.full_service(Instant::now(), SERVED_WITHIN).await;
        self.full_service = self.full_service.max(took);
    }

    /// As [`Load::judge`], and compares what these processes counted, all of which lived.
    async fn judge_and_count(
        self,
        (name, cycles): (&'static str, usize),
        api: &Api,
        processes: &mut [&mut Process],
    ) -> Row {
        let row = self.judge(name, cycles, api).await;
        row.counted(processes).await
    }

    /// As [`Load::judge`], with the variables; what is wrong with them counts as lost.
    async fn judge_with(self, name: &'static str, cycles: usize, api: &Api, values: Values) -> Row {
        let (wrong, reports, edits) = values.judge().await;
        let mut row = self.judge(name, cycles, api).await;
        row.verdict.lost.extend(wrong);
        row.answers.extend([("report".to_owned(), reports), ("edit".to_owned(), edits)]);
        row
    }

    /// Waits for every answer, and compares with what is stored.
    async fn judge(self, name: &'static str, cycles: usize, api: &Api) -> Row {
        let kept = self.fleet.settle(SETTLED_WITHIN).await;
        let found = read_until_stable(api, &kept, quiet(cycles)).await;
        row((name, cycles), &kept, &found, self.full_service)
    }

    /// As [`Load::judge`], with a store that is read in another way.
    async fn judge_by(
        self,
        (name, cycles): (&'static str, usize),
        read: impl AsyncFn() -> Option<Found>,
    ) -> Row {
        let kept = self.fleet.settle(SETTLED_WITHIN).await;
        let found = until_stable(&kept, quiet(cycles), read).await;
        row((name, cycles), &kept, &found, self.full_service)
    }
}

fn quiet(cycles: usize) -> Duration {
    if cycles < FULL_CYCLES_MIN { QUIET_SMALL } else { QUIET_FULL }
}

fn row(
    (name, cycles): (&'static str, usize),
    kept: &[Kept],
    found: &Found,
    full_service: Duration,
) -> Row {
    Row {
        name,
        cycles,
        verdict: judge(kept, found),
        answers: answers(kept),
        counts: None,
        full_service,
        slowest_answer: kept.iter().map(|kept| kept.slowest_answer).max().unwrap_or_default(),
    }
}

/// Time for the counters to add up once every record is found.
const COUNTED_WITHIN: Duration = Duration::from_secs(30);

/// Pause between two looks at the counters.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Cycles from which a fault is at full size.
const FULL_CYCLES_MIN: usize = 10;

/// Time for which nothing may change in the store before it is judged.
const QUIET_SMALL: Duration = Duration::from_millis(500);

/// The same at full size: longer than a broker waits before it gives an event away again, which would
/// show duplicates that come late.
const QUIET_FULL: Duration = Duration::from_secs(20);

fn answers(kept: &[Kept]) -> BTreeMap<String, u64> {
    let mut answers = BTreeMap::new();
    for (answer, count) in kept.iter().flat_map(|kept| &kept.answers) {
        *answers.entry(answer.clone()).or_default() += count;
    }
    answers
}

/// A moment within `bound`, at random: when a fault strikes is not for the test to choose.
async fn random_moment(bound: Duration) {
    let millis = below(usize::try_from(bound.as_millis()).unwrap_or(usize::MAX));
    sleep(Duration::from_millis(millis as u64)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row_of(verdict: Verdict) -> Row {
        let (answers, full_service) = (BTreeMap::new(), Duration::from_millis(1250));
        let slowest_answer = Duration::from_millis(20);
        let (name, counts) = ("T00 a fault", None);
        Row { name, cycles: 3, verdict, answers, counts, full_service, slowest_answer }
    }

    #[test]
    fn a_row_is_a_line_of_the_table() {
        let row = row_of(Verdict { acknowledged: 8, stored: 10, ..Verdict::default() });
        row.must_hold();
        assert_eq!(row.to_string(), "| T00 a fault | 3 | 8 | 10 | 0 | 0 | 1.2 |");
    }

    #[test]
    #[should_panic(expected = "lost: [\"x\"]")]
    fn a_row_with_a_lost_record_fails() {
        let lost = vec!["x".to_owned()];
        row_of(Verdict { acknowledged: 8, lost, ..Verdict::default() }).must_hold();
    }

    #[test]
    #[should_panic(expected = "nothing was acknowledged")]
    fn a_row_in_which_nothing_happened_fails() {
        row_of(Verdict::default()).must_hold();
    }

    #[test]
    #[should_panic(expected = "accepted: 1")]
    fn a_row_with_more_records_than_were_accepted_fails() {
        let counts = Some(Counts { accepted: 1, stored: 2, ..Counts::default() });
        Row { counts, ..row_of(Verdict { acknowledged: 1, ..Verdict::default() }) }.must_hold();
    }
}
