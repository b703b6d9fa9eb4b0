//! T15: lines that were sent again over midnight, and deliveries that come again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use observer_tests::eventually;
use observer_wire::ProjectId;
use serde_json::{Value, json};

use super::published::{Line, Rig};

/// A midnight that is over, of a day that no other test has.
const MIDNIGHT: i64 = 1_420_070_400_000;

/// Records of a line.
const RECORDS: usize = 10;

/// Lines of an event.
const LINES: usize = 10;

/// Time for what is stored to be found.
const FOUND_WITHIN: Duration = Duration::from_mins(1);

/// What is stored of lines on both sides of midnight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Midnight {
    pub(crate) kills: usize,
    /// Records that were sent, each on both days.
    pub(crate) records: usize,
    pub(crate) stored: usize,
    pub(crate) lost: usize,
    pub(crate) duplicates: usize,
    /// Deliveries beyond one for each event.
    pub(crate) redelivered: u64,
}

impl fmt::Display for Midnight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, records, stored, lost, duplicates, redelivered } = self;
        write!(
            f,
            "| T15 sent again over midnight | {kills} | {records} | {stored} | {lost} | {duplicates} | \
             {redelivered} events delivered again |"
        )
    }
}

/// So many lines of a day's last moment wait in the stream with the same lines, sent again on the next day,
/// before, behind and beside them. The indexer is killed so many times while it stores them, so that what
/// it had not acknowledged comes again.
///
/// # Panics
///
/// When the events are not settled.
pub(crate) async fn sent_again_over_midnight(lines: usize, kills: usize) -> Midnight {
    let mut rig = Rig::start().await;
    let project = rig.project().await;
    rig.cluster.log_indexers[0].kill();
    let first: Vec<Line> = (0..lines).map(|number| line(project, number)).collect();
    for (number, part) in first.chunks(LINES).enumerate() {
        let again: Vec<Line> = part.iter().map(again).collect();
        let (part, again): (Vec<_>, Vec<_>) = (part.iter().collect(), again.iter().collect());
        match number % 3 {
            0 => rig.publish(project, &[part, again].concat()).await,
            1 => {
                rig.publish(project, &part).await;
                rig.publish(project, &again).await;
            }
            _ => {
                // By another gateway, which was faster.
                rig.publish(project, &again).await;
                rig.publish(project, &part).await;
            }
        }
    }
    let url = rig.cluster.elasticsearch.url();
    let mut before = 0;
    for _ in 0..kills {
        rig.cluster.log_indexers[0].restart();
        // Killed while it stores: what is stored is not acknowledged yet, as far as chance will have it.
        before = eventually(Duration::from_mins(1), "some more is stored", async || {
            let now = count(&url, project).await.unwrap_or_default();
            (before < now || now == lines * RECORDS).then_some(now)
        })
        .await;
        rig.cluster.log_indexers[0].kill();
    }
    rig.cluster.log_indexers[0].restart();
    let deliveries = rig.settled().await;
    judge(&url, project, &first, (kills, deliveries - rig.events)).await
}

fn line(project: ProjectId, number: usize) -> Line {
    Line {
        id: format!("r{project}{number:020}"),
        seq: (number * RECORDS) as u64,
        received: MIDNIGHT - 1 - i64::try_from(number % 500).expect("small"),
        again: false,
        records: (0..RECORDS).map(|place| format!(r#"{{"n":{number},"p":{place}}}"#)).collect(),
    }
}

fn again(line: &Line) -> Line {
    Line { received: MIDNIGHT + 1_000, again: true, ..line.clone() }
}

async fn judge(
    url: &str,
    project: ProjectId,
    lines: &[Line],
    (kills, redelivered): (usize, u64),
) -> Midnight {
    let records = lines.len() * RECORDS;
    let ids = eventually(FOUND_WITHIN, "every record is found", async || {
        let ids = ids(url, project).await?;
        (records <= ids.len()).then_some(ids)
    })
    .await;
    let stored = ids.values().sum();
    let all = lines.iter().flat_map(|line| (0..RECORDS).map(|n| format!("{}-{n:03}", line.id)));
    let lost = all.filter(|id| !ids.contains_key(id)).count();
    Midnight { kills, records, stored, lost, duplicates: stored - ids.len(), redelivered }
}

async fn search(url: &str, path: &str, body: Value) -> Option<Value> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.post(format!("{url}/observer-logs-*/{path}")).json(&body).send();
    answer.await.ok()?.json().await.ok()
}

async fn count(url: &str, project: ProjectId) -> Option<usize> {
    let query = json!({"query": {"term": {"observer.project": project.as_str()}}});
    usize::try_from(search(url, "_count", query).await?["count"].as_u64()?).ok()
}

/// How often each record is there.
async fn ids(url: &str, project: ProjectId) -> Option<BTreeMap<String, usize>> {
    let (mut ids, mut after) = (BTreeMap::new(), None);
    loop {
        let mut query = json!({
            "size": 1_000,
            "_source": false,
            "query": {"term": {"observer.project": project.as_str()}},
            "sort": [{"observer.id": "asc"}, {"observer.received": "asc"}],
        });
        if let Some(after) = after {
            query["search_after"] = after;
        }
        let answer = search(url, "_search", query).await?;
        let hits = answer["hits"]["hits"].as_array()?;
        for hit in hits {
            *ids.entry(hit["_id"].as_str()?.to_owned()).or_default() += 1;
        }
        match hits.last() {
            Some(last) => after = Some(last["sort"].clone()),
            None => return Some(ids),
        }
    }
}
