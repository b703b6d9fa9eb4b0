//! What a device knows of its lines. No I/O: the session writes it, the laws read it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::DeviceOptions;

/// What became of a line, as far as its device was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Sent, or about to be; no final answer. It may be stored.
    Unknown,
    /// Answered `OK`: it must be stored.
    Acknowledged,
    /// Refused for good, with this code: it must not be stored.
    Refused(String),
}

/// What one device attempted, and what it was told.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Name of the device.
    pub device: String,
    /// Key it wrote with.
    pub key: String,
    /// Text of its project.
    pub canary: String,
    /// Records of each of its lines.
    pub line_records: usize,
    /// Fate of each line, by its number.
    lines: Vec<Fate>,
    unknown: BTreeSet<usize>,
    /// Answers by what they said: `OK`, or the code of an `ERR`. A line may have several.
    pub answers: BTreeMap<String, u64>,
    /// Answers to lines that were not waiting for one on that socket.
    pub stray: Vec<String>,
    /// When each of its sign-ins succeeded.
    pub sign_ins: Vec<Instant>,
    /// Pauses before it connected again.
    pub pauses: u64,
    /// Sockets that it gave up because an answer did not come.
    pub silences: u64,
    /// Longest time from sending a line to its answer, on one socket.
    pub slowest_answer: Duration,
    /// When the newest line that was answered `OK` had been sent.
    pub newest_sent: Option<Instant>,
}

impl Kept {
    /// Nothing is attempted yet.
    #[must_use]
    pub fn new(options: &DeviceOptions) -> Self {
        Self {
            device: options.name.clone(),
            key: options.project.key.clone(),
            canary: options.project.canary.clone(),
            line_records: options.line_records,
            lines: Vec::new(),
            unknown: BTreeSet::new(),
            answers: BTreeMap::new(),
            stray: Vec::new(),
            sign_ins: Vec::new(),
            pauses: 0,
            silences: 0,
            slowest_answer: Duration::ZERO,
            newest_sent: None,
        }
    }

    /// Makes the next line; returns its number.
    pub fn attempt(&mut self) -> usize {
        self.lines.push(Fate::Unknown);
        let line = self.lines.len() - 1;
        self.unknown.insert(line);
        line
    }

    /// Records of a line: what must be found when it was acknowledged. They depend on nothing else.
    #[must_use]
    pub fn records(&self, line: usize) -> Vec<Value> {
        let record = |record: usize| {
            json!({
                "message": format!("{} says {line}.{record}", self.device),
                "level": "info",
                "canary": self.canary,
                "device": self.device,
                "line": line,
                "record": record,
            })
        };
        (0..self.line_records).map(record).collect()
    }

    /// A line has a final answer. The first one counts.
    pub fn settle(&mut self, line: usize, fate: Fate) {
        if self.unknown.remove(&line) {
            self.lines[line] = fate;
        }
    }

    /// Counts an answer.
    pub fn count(&mut self, answer: &str) {
        *self.answers.entry(answer.to_owned()).or_default() += 1;
    }

    /// How often it was answered so.
    #[must_use]
    pub fn answered(&self, answer: &str) -> u64 {
        self.answers.get(answer).copied().unwrap_or_default()
    }

    /// Fates of all lines, in their order.
    #[must_use]
    pub fn lines(&self) -> &[Fate] {
        &self.lines
    }

    /// Lines without a final answer, in their order.
    #[must_use]
    pub fn unknown(&self) -> &BTreeSet<usize> {
        &self.unknown
    }

    /// Number of acknowledged lines.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.lines.iter().filter(|fate| **fate == Fate::Acknowledged).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{AHEAD_LINES_MAX, Level, Project};

    #[test]
    fn the_first_final_answer_counts() {
        let mut kept = Kept::new(&DeviceOptions {
            name: "d".to_owned(),
            project: Project::new("0123456789ab"),
            level: Level::One,
            line_records: 2,
            pace: None,
            ahead_lines_max: AHEAD_LINES_MAX,
        });
        let line = kept.attempt();
        kept.settle(line, Fate::Acknowledged);
        kept.settle(line, Fate::Refused("shed".to_owned()));
        assert_eq!(kept.lines(), [Fate::Acknowledged]);
        assert_eq!((kept.acknowledged(), kept.unknown().len()), (1, 0));
        assert_eq!(kept.records(0).len(), 2);
        assert_eq!(kept.records(0), kept.records(0));
    }
}
