//! Before the first `_bulk` of a project and day: the day's index, and the filtered alias
//! `logs-<key>` over it. Our own search uses no alias; they are for people who ask Elasticsearch.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use elasticsearch::http::Method;
use observer_wire::ProjectId;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tracing::warn;

use super::day::Day;
use super::server::{Request, Server};
use crate::logs::NewRecord;
use crate::{StoreError, StoreErrorKind};

const OPERATION: &str = "adding of an alias";

/// Days of which projects are remembered. Records arrive on two days at most, a backlog has more;
/// of a forgotten day aliases are added once more, which changes nothing.
const DAYS_MAX: usize = 16;

/// Which aliases there are, as far as this process added them.
#[derive(Debug)]
pub(super) struct Aliases {
    projects_max: usize,
    known: Mutex<Known>,
    /// A project got no alias because `projects_max` have one.
    full: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    /// Projects with an alias, by day. A day that is here has its index.
    days: BTreeMap<Day, HashSet<ProjectId>>,
    /// Projects with an alias on any day.
    projects: HashSet<ProjectId>,
}

impl Aliases {
    pub(super) fn new(projects_max: usize) -> Self {
        Self { projects_max, known: Mutex::default(), full: AtomicBool::new(false) }
    }

    /// Makes the indices and aliases that `batch` needs.
    ///
    /// # Cancel safety
    ///
    /// If dropped, some may be there and not be remembered; making them again changes nothing.
    pub(super) async fn cover(
        &self,
        server: &Server,
        batch: &[NewRecord<'_>],
    ) -> Result<(), StoreError> {
        // Held across the requests: batches side by side need the same aliases at midnight.
        let mut known = self.known.lock().await;
        let mut pairs = BTreeSet::new();
        let mut last = None;
        for record in batch {
            let pair = (Day::of(record.received), record.project);
            // Lines of a project come together, so most pairs are that of the record before.
            if last == Some(pair) {
                continue;
            }
            last = Some(pair);
            let there = known.days.get(&pair.0).is_some_and(|day| day.contains(&pair.1));
            if !there {
                pairs.insert(pair);
            }
        }
        for (day, _) in &pairs {
            if !known.days.contains_key(day) {
                create_index(server, *day).await?;
                known.days.insert(*day, HashSet::new());
            }
        }
        pairs.retain(|(_, project)| self.admit(&mut known, *project));
        add_all(server, &pairs).await?;
        for (day, project) in pairs {
            known.days.entry(day).or_default().insert(project);
        }
        known.forget_old_days();
        Ok(())
    }

    /// Takes `project` among those with an alias, if there is room.
    fn admit(&self, known: &mut Known, project: ProjectId) -> bool {
        if known.projects.contains(&project) {
            return true;
        }
        let room = known.projects.len() < self.projects_max;
        if room {
            known.projects.insert(project);
        } else {
            self.full.store(true, Ordering::Relaxed);
        }
        room
    }

    /// Forgets a day whose index is not there any more.
    pub(super) async fn forget(&self, day: Day) {
        self.known.lock().await.days.remove(&day);
    }

    /// Says so when a project has no alias.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if !self.full.load(Ordering::Relaxed) {
            return Ok(());
        }
        let words =
            format!("more than aliases_max = {} projects: some have none", self.projects_max);
        Err(StoreError::new(OPERATION, StoreErrorKind::Refused, words))
    }
}

impl Known {
    fn forget_old_days(&mut self) {
        while DAYS_MAX < self.days.len() {
            self.days.pop_first();
            self.projects = self.days.values().flatten().copied().collect();
        }
    }
}

/// Creates a day's index, from the template, unless it is there.
async fn create_index(server: &Server, day: Day) -> Result<(), StoreError> {
    let path = format!("/{}", day.index());
    let request = Request::new("creating of a log index", Method::Put, &path);
    let answer = server.ask(request).await?;
    // Another indexer, or this one before a restart.
    let there = answer.status == 400
        && answer.error_type().is_some_and(|name| name == "resource_already_exists_exception");
    if there { Ok(()) } else { answer.done().map(drop) }
}

/// Adds aliases in one request: each request is a change of the cluster state, and at midnight all
/// projects need one.
async fn add_all(server: &Server, pairs: &BTreeSet<(Day, ProjectId)>) -> Result<(), StoreError> {
    if pairs.is_empty() {
        return Ok(());
    }
    let all = pairs.iter().map(|(day, project)| action(*day, *project)).collect();
    match add(server, all).await {
        Err(error) if error.kind() == StoreErrorKind::Refused => {}
        outcome => return outcome,
    }
    // One that cannot be, an index with the alias's name say, refuses them all.
    for (day, project) in pairs {
        match add(server, vec![action(*day, *project)]).await {
            // The records matter more than the alias: they are stored without.
            Err(error) if error.kind() == StoreErrorKind::Refused => {
                let error = &error as &dyn std::error::Error;
                let reason = error.source();
                warn!(alias = %alias(*project), error, reason, "alias cannot be added");
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

async fn add(server: &Server, actions: Vec<Value>) -> Result<(), StoreError> {
    let body = json!({"actions": actions}).to_string();
    let request = Request::new(OPERATION, Method::Post, "/_aliases").body(body);
    server.ask(request).await?.done().map(drop)
}

fn action(day: Day, project: ProjectId) -> Value {
    json!({"add": {
        "index": day.index(),
        "alias": alias(project),
        "filter": {"term": {"observer.project": project.as_str()}},
    }})
}

fn alias(project: ProjectId) -> String {
    format!("logs-{project}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_days_are_forgotten_past_the_bound_with_projects_of_theirs_alone() {
        let old = "0123456789ab".parse::<ProjectId>().unwrap();
        let new = "ba9876543210".parse::<ProjectId>().unwrap();
        let mut known = Known::default();
        let days: Vec<_> = std::iter::successors(Some(Day::of(0)), |day| Some(day.before()))
            .take(DAYS_MAX + 1)
            .collect();
        for day in &days {
            known.days.insert(*day, HashSet::from([new]));
        }
        known.days.insert(days[DAYS_MAX], HashSet::from([old]));
        known.projects = HashSet::from([old, new]);

        known.forget_old_days();

        assert_eq!(known.days.len(), DAYS_MAX);
        assert_eq!(known.projects, HashSet::from([new]));
    }

    #[test]
    fn projects_get_an_alias_up_to_the_bound_and_keep_it() {
        let aliases = Aliases::new(1);
        let mut known = Known::default();
        let first = "0123456789ab".parse::<ProjectId>().unwrap();
        let second = "ba9876543210".parse::<ProjectId>().unwrap();
        assert!(aliases.admit(&mut known, first));
        assert!(aliases.admit(&mut known, first));
        assert!(aliases.check().is_ok());
        assert!(!aliases.admit(&mut known, second));
        assert!(aliases.check().is_err());
    }
}
