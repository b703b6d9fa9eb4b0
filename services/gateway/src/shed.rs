//! What is given up under pressure, and that it is told. When the bus fills, lines of little weight
//! are shed before it is full; what was shed becomes a gap record in the project's log, so that the
//! loss is seen where the lost records would have been.
//!
//! What the socket is answered is [`crate::accept_line`]'s.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use observer_bus::{Bus, Stream};
use observer_chassis::now_us;
use observer_wire::dropped::Dropped;
use observer_wire::event::{LineHead, LineKind};
use observer_wire::ids::LineId;
use observer_wire::record::Level;
use observer_wire::{Code, Refusal};
use tokio::time::sleep;

use crate::batch::{Accepted, Origin};
use crate::documents::Project;
use crate::numbers::Numbers;
use crate::shared::random;
use crate::worker::Worker;

/// How full the bus is for logs, in percent, when lines of `trace` and `debug` are shed.
const DEBUG_SHED_PERCENT: u8 = 60;

/// How full it is, in percent, when all are shed but those with a warning or worse.
const INFO_SHED_PERCENT: u8 = 85;

/// How full the bus may be for reported values, in percent, and still take more. Past it what
/// var-store never saw could be lost: the other half is for what is under way.
const VARS_PERCENT_MAX: u8 = 50;

/// The bus is asked how full it is for a project at most this often, in milliseconds: it answers
/// from what it knows, but behind a lock, and a queue takes longer than that to fill.
const ASK_EVERY_MS: u64 = 100;

/// Between two gap records of a project, in milliseconds: a storm of losses is told in few words.
const GAP_EVERY_MS: u64 = 10_000;

/// How often it is looked whether a gap record can be written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How full the bus is for one project and stream, as it said last.
#[derive(Debug, Default)]
pub(crate) struct Fullness {
    /// When it said so, in milliseconds, and above the bits below what it said.
    heard: AtomicU64,
}

/// Bits of [`Fullness`] for a percentage, and one that says that it is known.
const PERCENT_BITS: u32 = 9;

const KNOWN: u64 = 1 << (PERCENT_BITS - 1);

impl Fullness {
    /// How full it is, asked with `ask` if what was heard is old at `now_us`.
    fn at(&self, now_us: u64, ask: impl FnOnce() -> Option<u8>) -> Option<u8> {
        let now = now_us / 1000;
        let heard = self.heard.load(Ordering::Relaxed);
        let age = now.checked_sub(heard >> PERCENT_BITS);
        // A clock that was set back is another reason to ask.
        if heard != 0 && age.is_some_and(|age| age < ASK_EVERY_MS) {
            let percent = u8::try_from(heard & (KNOWN - 1)).unwrap_or(u8::MAX);
            return (heard & KNOWN != 0).then_some(percent);
        }
        let percent = ask();
        let said = percent.map_or(0, |percent| KNOWN | u64::from(percent));
        self.heard.store((now << PERCENT_BITS) | said, Ordering::Relaxed);
        percent
    }
}

/// What the bus says of a project, and what its log is still to be told.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    logs: Fullness,
    vars: Fullness,
    owed: Owed,
    /// The last message of it was refused by the bus.
    bus_refuses: AtomicBool,
}

impl Pressure {
    /// Whether the bus took the last message, as far as is known.
    pub(crate) fn bus_takes(&self) -> bool {
        !self.bus_refuses.load(Ordering::Relaxed)
    }

    /// Notes whether the bus takes messages.
    pub(crate) fn set_bus_takes(&self, takes: bool) {
        if self.bus_takes() != takes {
            self.bus_refuses.store(!takes, Ordering::Relaxed);
        }
    }
}

/// Records that were shed and not told.
#[derive(Debug, Default)]
struct Owed {
    records: AtomicU64,
    /// When the first was shed, in Unix milliseconds.
    since_ms: AtomicU64,
    /// When a gap record was written last, in Unix milliseconds.
    told_ms: AtomicU64,
    /// The project is in the list of those that owe, or its gap record is under way.
    listed: AtomicBool,
}

/// Whether a line may go on, by how full the bus is.
///
/// # Errors
///
/// [`Code::Shed`] for logs, which is final; [`Code::Busy`] for reported values.
pub(crate) fn check(
    bus: &dyn Bus,
    project: &Project,
    kind: LineKind,
    (level, now_us): (Level, u64),
) -> Result<(), Refusal> {
    if kind == LineKind::Reported {
        let full = project.pressure.vars.at(now_us, || bus.fullness(Stream::Vars, project.id));
        return if full.is_some_and(|percent| VARS_PERCENT_MAX < percent) {
            Err(Refusal::new(Code::Busy, "too many variables wait to be stored"))
        } else {
            Ok(())
        };
    }
    if Level::Warn <= level {
        return Ok(());
    }
    let full = project.pressure.logs.at(now_us, || bus.fullness(Stream::Logs, project.id));
    let (shed_at, words) = if level < Level::Info {
        (DEBUG_SHED_PERCENT, "too many lines wait to be stored; debug and trace are dropped")
    } else {
        (INFO_SHED_PERCENT, "too many lines wait to be stored; only warnings and errors are taken")
    };
    match full {
        Some(percent) if shed_at <= percent => Err(Refusal::new(Code::Shed, words)),
        _ => Ok(()),
    }
}

/// What projects' logs are to be told.
#[derive(Default)]
pub(crate) struct Gaps {
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    /// Projects that owe, each once.
    owing: Vec<Arc<Project>>,
    /// Gap records that were not taken; at most one a project.
    untold: Vec<Gap>,
}

/// A gap record.
pub(crate) struct Gap {
    project: Arc<Project>,
    records: u64,
    json: String,
    /// The record stays the same when it is told again: if it was stored, it is stored once.
    id: LineId,
    made_us: u64,
    again: bool,
}

impl Gaps {
    /// A line of `records` was shed at `now_us`.
    pub(crate) fn add(&self, project: &Arc<Project>, records: u32, now_us: u64) {
        let owed = &project.pressure.owed;
        if owed.records.fetch_add(u64::from(records), Ordering::AcqRel) == 0 {
            owed.since_ms.store(now_us / 1000, Ordering::Relaxed);
        }
        self.owe(project);
    }

    /// Takes what is due at `now_us`: of each project with room by `has_room` what was not taken
    /// before, and what it owes if its last gap record was long enough ago.
    fn due(&self, now_us: u64, has_room: impl Fn(&Project) -> bool) -> Vec<Gap> {
        let mut list = self.lock();
        let mut due = Vec::new();
        let List { owing, untold } = &mut *list;
        due.extend(untold.extract_if(.., |gap| has_room(&gap.project)));
        owing.retain(|project| {
            let may = project.pressure.owed.may_be_told(now_us) && has_room(project);
            if may {
                due.extend(Gap::take(project, now_us));
            }
            !may
        });
        due
    }

    /// Counts what is owed as never told. The gateway has ended.
    pub(crate) fn give_up(&self, numbers: &Numbers) {
        for gap in self.all(now_us()) {
            numbers.records_untold.increment(gap.records);
        }
    }

    /// Takes everything, however soon and full.
    fn all(&self, now_us: u64) -> Vec<Gap> {
        let mut list = self.lock();
        let owing = std::mem::take(&mut list.owing);
        let owed = owing.iter().filter_map(|project| Gap::take(project, now_us));
        std::mem::take(&mut list.untold).into_iter().chain(owed).collect()
    }

    fn owe(&self, project: &Arc<Project>) {
        if !project.pressure.owed.listed.swap(true, Ordering::AcqRel) {
            self.lock().owing.push(Arc::clone(project));
        }
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

impl Owed {
    fn may_be_told(&self, now_us: u64) -> bool {
        let told_ms = self.told_ms.load(Ordering::Relaxed);
        // A clock that was set back is no reason to wait for it.
        (now_us / 1000).checked_sub(told_ms).is_none_or(|waited| GAP_EVERY_MS <= waited)
    }
}

impl Gap {
    /// Takes what a project owes. It stays listed until the record is settled.
    fn take(project: &Arc<Project>, now_us: u64) -> Option<Self> {
        let owed = &project.pressure.owed;
        let since = i64::try_from(owed.since_ms.load(Ordering::Relaxed)).ok();
        let records = owed.records.swap(0, Ordering::AcqRel);
        if records == 0 {
            owed.listed.store(false, Ordering::Release);
            return None;
        }
        owed.told_ms.store(now_us / 1000, Ordering::Relaxed);
        let counts = BTreeMap::from([(Code::Shed.name().to_owned(), records)]);
        let json = Dropped { counts, since }.gap_json("under pressure");
        let id = LineId::fresh(random(), now_us);
        let project = Arc::clone(project);
        Some(Self { project, records, json, id, made_us: now_us, again: false })
    }

    /// It is safe. What was shed meanwhile is owed.
    pub(crate) fn settled(self, gaps: &Gaps) {
        let owed = &self.project.pressure.owed;
        owed.listed.store(false, Ordering::Release);
        if owed.records.load(Ordering::Acquire) > 0 {
            gaps.owe(&self.project);
        }
    }

    /// It was not taken, or nobody knows.
    pub(crate) fn tell_later(mut self, gaps: &Gaps) {
        self.again = true;
        gaps.lock().untold.push(self);
    }
}

/// Writes gap records where there is room, until it is dropped.
pub(crate) async fn tell_gaps(worker: Rc<Worker>) {
    loop {
        sleep(LOOK_EVERY).await;
        let (shared, now_us) = (&worker.shared, now_us());
        let has_room = |project: &Project| {
            check(&*shared.bus, project, LineKind::Logs, (Level::Trace, now_us)).is_ok()
        };
        for gap in shared.gaps.due(now_us, has_room) {
            tell(&worker, gap);
        }
    }
}

/// Writes all gap records, now or never: the gateway stops.
pub(crate) fn tell_all(worker: &Rc<Worker>) {
    for gap in worker.shared.gaps.all(now_us()) {
        tell(worker, gap);
    }
}

/// Appends a gap record to its project's batch.
pub(crate) fn tell(worker: &Rc<Worker>, gap: Gap) {
    let project = Arc::clone(&gap.project);
    let (id, json) = (gap.id, gap.json.clone());
    let head = LineHead {
        kind: LineKind::Logs,
        id: Cow::Borrowed(id.as_str()),
        key: project.id.first_key(),
        device: Cow::Borrowed(&worker.shared.gateway_id),
        named: false,
        session: Cow::Borrowed(&worker.shared.gateway_id),
        epoch: 0,
        seq: gap.made_us,
        received: i64::try_from(gap.made_us / 1000).unwrap_or(i64::MAX),
        mid: None,
        index: 0,
        count: 1,
        rev: 0,
        again: gap.again,
        odd: Cow::Borrowed(&[]),
        len: 0,
    };
    let origin = Origin::Gap(Box::new(gap));
    worker.append(&project, Stream::Logs, Accepted { head, json: &json, origin });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_US: u64 = 1_700_000_000_000_000;

    fn project() -> Arc<Project> {
        Arc::new(Project::new("0123456789ab".parse().unwrap()))
    }

    #[test]
    fn the_bus_is_asked_at_most_each_100_ms_and_when_the_clock_was_set_back() {
        let fullness = Fullness::default();
        let age_us = ASK_EVERY_MS * 1000;
        assert_eq!(fullness.at(NOW_US, || Some(255)), Some(255));
        assert_eq!(fullness.at(NOW_US + age_us - 1, || Some(1)), Some(255));
        assert_eq!(fullness.at(NOW_US + age_us, || None), None);
        assert_eq!(fullness.at(NOW_US + age_us, || Some(2)), None, "nobody knew");
        assert_eq!(fullness.at(NOW_US - 1_000, || Some(0)), Some(0));
    }

    #[test]
    fn a_project_has_a_gap_record_each_10_seconds_and_not_a_millisecond_earlier() {
        let (gaps, project) = (Gaps::default(), project());
        let told = |now_us| -> Vec<u64> {
            let due = gaps.due(now_us, |_| true);
            due.into_iter().map(|gap| (gap.records, gap.settled(&gaps)).0).collect()
        };
        let later = NOW_US + GAP_EVERY_MS * 1000;
        gaps.add(&project, 2, NOW_US);
        gaps.add(&project, 3, NOW_US);
        assert_eq!(told(NOW_US), [5]);
        gaps.add(&project, 7, NOW_US);
        assert_eq!(told(later - 1000), [0; 0]);
        assert_eq!(told(later), [7]);
        assert_eq!(told(later + GAP_EVERY_MS * 1000), [0; 0]);
    }

    #[test]
    fn nothing_is_told_without_room_and_everything_at_the_end() {
        let (gaps, one, other) = (Gaps::default(), project(), project());
        gaps.add(&one, 1, NOW_US);
        gaps.add(&other, 2, NOW_US);
        assert!(gaps.due(NOW_US, |_| false).is_empty());
        let mut due = gaps.due(NOW_US, |project| std::ptr::eq(project, &raw const *one));
        due.remove(0).tell_later(&gaps);
        gaps.add(&one, 4, NOW_US + 1000);
        let now = gaps.due(NOW_US, |project| std::ptr::eq(project, &raw const *one));
        assert_eq!(now.len(), 1, "what was shed meanwhile has its own record later");
        now.into_iter().next().unwrap().tell_later(&gaps);
        let records: Vec<_> = gaps.all(NOW_US).into_iter().map(|gap| gap.records).collect();
        assert_eq!(records, [1, 2]);
    }
}
