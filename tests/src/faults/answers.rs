//! Elasticsearch answers in its rarer ways, while devices send: a scripted one takes its place.

use std::time::Duration;

use super::killed::gateway_addresses;
use super::{Load, Row};
use crate::device::AHEAD_LINES_MAX;
use crate::eventually;
use crate::laws::{Counts, Found};
use crate::process::{Process, settings};
use crate::servers::FakeBulk;
use crate::servers::fake_bulk::{Act, Answer, Items};
use crate::stack::{Cluster, ClusterOptions};

/// Time for all scripted answers to have been given. One that hangs is given up after half a minute.
const PLAYED_WITHIN: Duration = Duration::from_mins(2);

/// Records that may be on the way while devices send: two seconds of them.
const LEFT_RECORDS_MAX: u64 = 400;

/// Refused items that make a storm.
const STORM_ITEMS_MIN: usize = 100;

/// A cluster over a scripted Elasticsearch.
struct Scripted {
    fake: FakeBulk,
    cluster: Cluster,
    load: Load,
}

impl Scripted {
    async fn start() -> Self {
        let fake = FakeBulk::start().await;
        let options = ClusterOptions {
            gateways: 1,
            log_indexers: 1,
            var_stores: 1,
            settings: settings(&[("OBSERVER_STORE__LOGS__URL", fake.url())]),
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start(options).await;
        let addresses = gateway_addresses(&mut cluster).await;
        let load = Load::start(&cluster.api().await, &addresses).await;
        Self { fake, cluster, load }
    }

    /// Judges what the fake has, and what the processes counted.
    async fn judge(mut self, name: &'static str, cycles: usize) -> (Row, FakeBulk) {
        // Reading all of it takes time from the fake, which lives in this process.
        eventually(PLAYED_WITHIN, "what waited is stored", async || {
            let counts = Counts::of(&mut self.processes()).await;
            let left = counts.accepted.saturating_sub(counts.stored + counts.duplicate);
            (left <= counts.redelivered + LEFT_RECORDS_MAX).then_some(())
        })
        .await;
        let fake = &self.fake;
        let row = self.load.judge_by((name, cycles), async || Some(found(fake))).await;
        let (gateways, indexers) = (&mut self.cluster.gateways, &mut self.cluster.log_indexers);
        let mut processes: Vec<_> = gateways.iter_mut().chain(indexers).collect();
        (row.counted(&mut processes).await, self.fake)
    }

    fn processes(&mut self) -> Vec<&mut Process> {
        let (gateways, indexers) = (&mut self.cluster.gateways, &mut self.cluster.log_indexers);
        gateways.iter_mut().chain(indexers).collect()
    }
}

/// What the fake has, as a search would show it.
fn found(fake: &FakeBulk) -> Found {
    let mut found = Found::new();
    for document in fake.stored().into_values() {
        let key = document["observer"]["project"].as_str().unwrap_or_default().to_owned();
        found.entry(key).or_default().push(document);
    }
    found
}

/// T12: half of the items of each answer have status 429, until as many were refused as make a storm, in
/// each of so many storms. What was taken must not be sent again.
///
/// # Panics
///
/// When records that were taken are sent again, or the devices are not served meanwhile.
pub async fn half_of_the_items_are_refused(storms: usize) -> Row {
    let mut rig = Scripted::start().await;
    for _ in 0..storms {
        let before = rig.fake.refused();
        rig.fake.always(Act::items(Items::Half(429)));
        rig.load.healed().await; // Devices are answered all the same.
        eventually(PLAYED_WITHIN, "enough items are refused", async || {
            (before + STORM_ITEMS_MIN <= rig.fake.refused()).then_some(())
        })
        .await;
        rig.fake.always(Act::default());
        rig.load.healed().await;
    }
    let sent_again = rig.load.fleet.each(|kept| {
        let again: u64 =
            kept.answers.iter().filter(|(code, _)| *code != "OK").map(|(_, n)| n).sum();
        usize::try_from(again + kept.pauses * AHEAD_LINES_MAX as u64).unwrap_or(usize::MAX)
            * kept.line_records
    });
    let (row, fake) = rig.judge("T12 429 for half of the items", storms).await;
    // None, but for what a slow machine made devices or the bus send again.
    let redelivered = row.counts.map_or(0, |counts| counts.redelivered);
    let may = sent_again.iter().sum::<usize>() + usize::try_from(redelivered).unwrap_or_default();
    assert!(fake.known() <= may, "{} records sent though they were taken, {may} may", fake.known());
    row
}

/// T13: every answer that cannot be believed, each once with its documents stored and once without, so
/// many times; `hangs` says whether also the one that never comes, which takes its time.
///
/// # Panics
///
/// When the indexer does not come past one of them.
pub async fn unbelievable_answers(cycles: usize, hangs: Hangs) -> Row {
    let mut rig = Scripted::start().await;
    for _ in 0..cycles {
        let answers = ANSWERS.iter().chain((hangs == Hangs::Too).then_some(&Answer::Hang));
        for answer in answers {
            for items in [Items::Stored, Items::Dropped] {
                rig.fake.script([Act { items, answer: *answer }]);
                eventually(PLAYED_WITHIN, "the answer is given", async || {
                    (rig.fake.acts_left() == 0).then_some(())
                })
                .await;
            }
        }
        rig.load.healed().await;
    }
    rig.judge("T13 answers that cannot be believed", cycles).await.0
}

/// Whether an answer that never comes is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangs {
    /// It is.
    Too,
    /// It is not.
    Not,
}

/// More bytes than the log store reads.
const TOO_LONG: usize = 17 * 1024 * 1024;

const ANSWERS: [Answer; 9] = [
    Answer::Cut,
    Answer::Garbage,
    Answer::Truncated,
    Answer::OneShort,
    Answer::OneOver,
    Answer::Stranger,
    Answer::Huge(TOO_LONG),
    Answer::Status(429),
    Answer::Status(503),
];
