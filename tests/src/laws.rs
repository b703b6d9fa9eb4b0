//! The laws: what devices kept, compared with what the log store has, and what processes counted.
//!
//! Judging is pure. Reading goes through the api's search, again and again until nothing changes any
//! more: the first answer after a fault is not to be trusted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::device::{Fate, Kept};
use crate::http::Api;
use crate::process::Process;

/// Time for acknowledged records to be found: longer than a broker waits before it gives away again
/// what a killed log-indexer had in hand.
const FOUND_WITHIN: Duration = Duration::from_mins(1);

/// Pause between two readings of a store.
const READ_EVERY: Duration = Duration::from_millis(250);

/// Records of each project, by its key.
pub type Found = BTreeMap<String, Vec<Value>>;

/// How the laws fared. Each broken one lists its cases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records in acknowledged lines.
    pub acknowledged: usize,
    /// Records that were found, gap records left out.
    pub stored: usize,
    /// Gap records: the server says that records are missing. Nobody sent them.
    pub gaps: usize,
    /// L0: acknowledged and not found.
    pub lost: Vec<String>,
    /// D0: found twice, by their id or by what they say.
    pub duplicates: Vec<String>,
    /// U0: found, though nobody sent them so, or their line was refused.
    pub strangers: Vec<String>,
    /// X0: found in one project with the canary of another.
    pub foreign: Vec<String>,
}

impl Verdict {
    /// Whether no law is broken.
    #[must_use]
    pub fn holds(&self) -> bool {
        [&self.lost, &self.duplicates, &self.strangers, &self.foreign]
            .iter()
            .all(|broken| broken.is_empty())
    }
}

/// Compares what devices kept with what was found in their projects.
#[must_use]
pub fn judge(kept: &[Kept], found: &Found) -> Verdict {
    let mut verdict = Verdict::default();
    let devices: BTreeMap<(&str, &str), &Kept> =
        kept.iter().map(|kept| ((kept.key.as_str(), kept.device.as_str()), kept)).collect();
    let mut seen = BTreeSet::new();
    for (key, records) in found {
        let mut ids = BTreeSet::new();
        for record in records {
            if record["kind"] == "gap" {
                verdict.gaps += 1;
                continue;
            }
            verdict.stored += 1;
            let text = record.to_string();
            if kept.iter().any(|other| other.key != *key && text.contains(&other.canary)) {
                verdict.foreign.push(text.clone());
            }
            let Some(place) = place(&devices, key, record) else {
                verdict.strangers.push(text);
                continue;
            };
            let id_is_new = ids.insert(record["observer"]["id"].to_string());
            if !seen.insert(place) || !id_is_new {
                verdict.duplicates.push(text);
            }
        }
    }
    for kept in kept {
        for (line, fate) in kept.lines().iter().enumerate() {
            if *fate != Fate::Acknowledged {
                continue;
            }
            verdict.acknowledged += kept.line_records;
            for record in 0..kept.line_records {
                let place = (kept.key.as_str(), kept.device.as_str(), line, record);
                if !seen.contains(&place) {
                    verdict.lost.push(format!("{place:?}"));
                }
            }
        }
    }
    verdict
}

/// A record's project, device, line and number.
type Place<'k> = (&'k str, &'k str, usize, usize);

/// Where a record was sent; `None` when nobody sent it just so.
fn place<'k>(
    devices: &BTreeMap<(&'k str, &'k str), &'k Kept>,
    key: &str,
    record: &Value,
) -> Option<Place<'k>> {
    let kept = *devices.get(&(key, record["device"].as_str()?))?;
    let line = usize::try_from(record["line"].as_u64()?).ok()?;
    let number = usize::try_from(record["record"].as_u64()?).ok()?;
    if let Fate::Refused(_) = kept.lines().get(line)? {
        return None;
    }
    let mut own = record.clone();
    own.as_object_mut()?.remove("observer");
    let sent = kept.records(line);
    (sent.get(number)? == &own).then_some((&kept.key, &kept.device, line, number))
}

/// Reads the projects of these devices until every acknowledged record is there and nothing has
/// changed for `quiet`, or until it is certain that records are lost.
pub async fn read_until_stable(api: &Api, kept: &[Kept], quiet: Duration) -> Found {
    let keys: BTreeSet<&str> = kept.iter().map(|kept| kept.key.as_str()).collect();
    until_stable(kept, quiet, async || read(api, &keys).await).await
}

/// As [`read_until_stable`], by another way to read; `None` when that failed.
pub async fn until_stable(
    kept: &[Kept],
    quiet: Duration,
    read: impl AsyncFn() -> Option<Found>,
) -> Found {
    let until = Instant::now() + FOUND_WITHIN + quiet;
    let (mut last, mut since) = (Found::new(), Instant::now());
    loop {
        if let Some(found) = read().await {
            if found != last {
                (last, since) = (found, Instant::now());
            }
            if quiet <= since.elapsed() && judge(kept, &last).lost.is_empty() {
                return last;
            }
        }
        if until <= Instant::now() {
            return last;
        }
        sleep(READ_EVERY).await;
    }
}

/// All records of projects; `None` when the api did not answer every page.
async fn read(api: &Api, keys: &BTreeSet<&str>) -> Option<Found> {
    let mut found = Found::new();
    for key in keys {
        let records = found.entry((*key).to_owned()).or_default();
        let mut cursor = String::new();
        loop {
            let page = api.logs(key, &format!("limit=1000{cursor}")).await.ok()?;
            records.extend(page.json["items"].as_array()?.iter().cloned());
            match page.json["next"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
    }
    Some(found)
}

/// The counting law over processes that all lived: every accepted record has one outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records in lines that gateways accepted.
    pub accepted: u64,
    /// Records that the log store took.
    pub stored: u64,
    /// Records that it, or the bus, had already.
    pub duplicate: u64,
    /// Records that no store takes.
    pub buried: u64,
    /// Records of lines that were answered `timeout`: stored or not, and accepted in neither case.
    pub unknown: u64,
    /// Records that the store had already when the bus delivered them again: most were counted the
    /// first time.
    pub redelivered: u64,
}

impl Counts {
    /// Asks all processes. What a killed process had counted is gone: the law holds only where all of
    /// them lived.
    ///
    /// # Panics
    ///
    /// When a process has no admin port, or does not answer.
    pub async fn of(processes: &mut [&mut Process]) -> Self {
        let mut counts = Self::default();
        for process in processes {
            let api = Api::new(process.address("admin").await);
            let text = api.get("/metrics").await.expect("the process is up").text;
            counts.accepted += sum(&text, "observer_records_accepted_total");
            counts.stored += sum(&text, "observer_records_stored_total");
            counts.duplicate += sum(&text, "observer_records_duplicate_total");
            counts.buried += sum(&text, "observer_records_buried_total");
            counts.unknown += sum(&text, "observer_records_unknown_total");
            counts.redelivered += sum(&text, "observer_records_redelivered_total");
        }
        counts
    }

    /// A0: nothing is under way any more, nothing is missing and nothing too much. An equation, but for
    /// what was answered `timeout` or delivered again.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let outcomes = self.stored + self.duplicate + self.buried;
        self.accepted <= outcomes + self.redelivered && outcomes <= self.accepted + self.unknown
    }

    /// Whether so many records may be in the store. A store may take a record and its answer be lost:
    /// sent again, it is a duplicate there.
    #[must_use]
    pub fn fit(&self, in_store: usize) -> bool {
        let in_store = in_store as u64;
        let more = self.duplicate + self.redelivered;
        (self.stored..=self.stored + more).contains(&in_store)
    }
}

/// Sum of a counter over its labels, in the text of `/metrics`.
pub(crate) fn sum(text: &str, name: &str) -> u64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = rest.strip_prefix(' ').or_else(|| Some(rest.split_once("} ")?.1))?;
        rest.starts_with([' ', '{']).then(|| value.parse::<u64>().ok())?
    });
    values.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{AHEAD_LINES_MAX, DeviceOptions, Level, Project};
    use serde_json::json;

    /// A device of a project with three lines of two records: acknowledged, refused, unknown.
    fn device(key: &str, name: &str) -> Kept {
        let mut kept = Kept::new(&DeviceOptions {
            name: name.to_owned(),
            project: Project::new(key),
            level: Level::One,
            line_records: 2,
            pace: None,
            ahead_lines_max: AHEAD_LINES_MAX,
        });
        for _ in 0..3 {
            kept.attempt();
        }
        kept.settle(0, Fate::Acknowledged);
        kept.settle(1, Fate::Refused("records".to_owned()));
        kept
    }

    /// What a store has of a line.
    fn stored(kept: &Kept, line: usize) -> Vec<Value> {
        let mut records = kept.records(line);
        for (number, record) in records.iter_mut().enumerate() {
            record["observer"] = json!({ "id": format!("{}-{line}-{number}", kept.device) });
        }
        records
    }

    fn judged(change: impl Fn(&mut Vec<Value>, &mut Vec<Value>, &Kept, &Kept)) -> Verdict {
        let kept = [device("a", "d0"), device("b", "d1")];
        let (mut a, mut b) = (stored(&kept[0], 0), stored(&kept[1], 0));
        change(&mut a, &mut b, &kept[0], &kept[1]);
        judge(&kept, &Found::from([("a".to_owned(), a), ("b".to_owned(), b)]))
    }

    #[test]
    fn all_acknowledged_and_some_unknown_records_hold() {
        let verdict = judged(|a, _, d0, _| a.extend(stored(d0, 2)));
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.stored), (4, 6));
    }

    #[test]
    fn a_missing_record_is_lost() {
        let verdict = judged(|_, b, _, _| drop(b.pop()));
        assert_eq!(verdict.lost, [r#"("b", "d1", 0, 1)"#]);
        assert!(!verdict.holds());
        let verdict = judged(|a, _, _, _| a.clear());
        assert_eq!(verdict.lost.len(), 2);
    }

    #[test]
    fn a_record_with_a_second_id_or_an_id_with_a_second_record_is_a_duplicate() {
        let again = |a: &mut Vec<Value>, other_id: bool| {
            let mut again = a[0].clone();
            if other_id {
                again["observer"]["id"] = json!("another");
            }
            a.push(again);
        };
        for other_id in [false, true] {
            let verdict = judged(|a, _, _, _| again(a, other_id));
            assert_eq!((verdict.duplicates.len(), verdict.holds()), (1, false));
        }
        let verdict = judged(|a, _, _, _| a[1]["observer"]["id"] = json!("d0-0-0"));
        assert_eq!((verdict.duplicates.len(), verdict.lost.len()), (1, 0));
    }

    #[test]
    fn changed_refused_and_unattempted_records_are_strangers() {
        let changed = judged(|a, _, _, _| a[0]["level"] = json!("warn"));
        assert_eq!((changed.strangers.len(), changed.lost.len()), (1, 1));
        let refused = judged(|a, _, d0, _| a.extend(stored(d0, 1)));
        assert_eq!((refused.strangers.len(), refused.lost.len()), (2, 0));
        let unattempted = judged(|a, _, d0, _| a.extend(stored(d0, 3)));
        assert_eq!((unattempted.strangers.len(), unattempted.holds()), (2, false));
    }

    #[test]
    fn a_record_in_another_project_is_foreign() {
        let verdict = judged(|a, b, _, _| a.extend(b.pop()));
        assert_eq!((verdict.foreign.len(), verdict.lost.len()), (1, 1));
    }

    #[test]
    fn counters_are_summed_over_labels_and_must_add_up() {
        let text = "# TYPE a counter\na 1\na{x=\"y\"} 2\na{x=\"z\"} 4\na_more 8\n";
        assert_eq!(sum(text, "a"), 7);
        let counts =
            Counts { accepted: 4, stored: 2, duplicate: 1, buried: 1, ..Counts::default() };
        assert!(counts.add_up());
        assert!(!Counts { accepted: 5, ..counts }.add_up());
        assert!(!Counts { stored: 3, ..counts }.add_up());
        assert!(counts.fit(2) && counts.fit(3) && !counts.fit(1) && !counts.fit(4));
    }

    #[test]
    fn only_unknown_records_may_be_too_many_and_only_redelivered_ones_too_few() {
        let counts = Counts { accepted: 4, stored: 4, ..Counts::default() };
        let unknown = Counts { unknown: 1, ..counts };
        assert!(unknown.add_up() && Counts { stored: 5, ..unknown }.add_up());
        assert!(!Counts { stored: 6, ..unknown }.add_up());
        assert!(!Counts { stored: 3, ..unknown }.add_up());
        let redelivered = Counts { redelivered: 1, ..counts };
        assert!(redelivered.add_up() && Counts { stored: 3, ..redelivered }.add_up());
        assert!(!Counts { stored: 2, ..redelivered }.add_up());
        assert!(!Counts { stored: 5, ..redelivered }.add_up());
    }

    #[test]
    fn gap_records_are_nobodys_and_set_apart() {
        let verdict = judged(|a, _, _, _| a.push(json!({ "kind": "gap", "dropped": {"shed": 2} })));
        assert!(verdict.holds(), "{verdict:?}");
        assert_eq!((verdict.stored, verdict.gaps), (4, 1));
    }
}
