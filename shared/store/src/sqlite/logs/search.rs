//! Searching: the index proposes, newest first; what it cannot decide is read from the record.

use std::fmt;

use observer_wire::ProjectId;
use observer_wire::ids::short_hash;
use observer_wire::record::{self, Level, TEXT_BYTES_MAX};
use observer_wire::text::{self, Term};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::append::{first_place, received};
use super::field;
use crate::StoreErrorKind;
use crate::logs::{LogHit, LogPage, LogQuery, PAGE_MAX, Position};
use crate::sqlite::failure::Failure;

/// Mildest level that has a mark. Below it most records qualify, and reading them is as good.
const MARKED_LEVEL: Level = Level::Warn;

/// Letters that a prefix needs to be asked of the index: it gathers all words that begin so before
/// the first hit. Shorter ones are looked for in the records, where they are found soon.
const PREFIX_CHARS_MIN: usize = 2;

/// Bytes by which the text of a number can be longer than what the game wrote.
const NUMBER_BYTES_MAX: usize = 400;

/// A word of ours in the search index. Normalised text has no `_`, so no game and no query can say
/// one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mark {
    /// Of this project.
    Project(i64),
    /// At least as severe as [`MARKED_LEVEL`].
    Level(Level),
    /// Of this device, or one with the same hash.
    Device(u64),
    /// The text may not have all words of the record's values.
    Partial,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project(project) => write!(f, "_p{project}"),
            Self::Level(level) => write!(f, "_l{}", *level as u8),
            Self::Device(hash) => write!(f, "_d{hash:x}"),
            Self::Partial => f.write_str("_x"),
        }
    }
}

/// The marks of a record.
pub(super) fn marks(
    project: i64,
    level: Level,
    device: &str,
    text: &str,
    json: &str,
) -> impl Iterator<Item = Mark> {
    // A value that was cut, or a record that no parser reads, whose text is that of its escapes.
    let cut = TEXT_BYTES_MAX < text.len() + json.len() + NUMBER_BYTES_MAX;
    let partial = cut || json.contains("\\ud") || json.contains("\\uD");
    let marks = [
        Some(Mark::Project(project)),
        Some(Mark::Device(short_hash(device.as_bytes()))),
        (MARKED_LEVEL <= level).then_some(Mark::Level(level)),
        partial.then_some(Mark::Partial),
    ];
    marks.into_iter().flatten()
}

/// Number of a project; `None` when it has no records.
pub(super) fn project(db: &Connection, name: ProjectId) -> Result<Option<i64>, Failure> {
    let select = "SELECT project FROM projects WHERE name = ?1";
    let project = db.prepare_cached(select)?.query_row([name.as_str()], |row| row.get(0));
    Ok(project.optional()?)
}

pub(super) fn search(db: &Connection, query: &LogQuery) -> Result<LogPage, Failure> {
    let Some(project) = project(db, query.project)? else {
        return Ok(LogPage::default());
    };
    let since = first_place(query.since.unwrap_or(0));
    let before = query.before.as_ref().map_or(i64::MAX, |before| before.received.saturating_add(1));
    let until = first_place(before.min(query.until.unwrap_or(i64::MAX)));
    let limit = query.limit.min(PAGE_MAX);
    if until <= since || limit == 0 {
        return Ok(LogPage::default());
    }
    let columns = "r.place, r.id, r.seq, r.rev, r.level, r.json, s.key, s.device, s.session";
    if let Some(question) = question(project, query) {
        let select = format!(
            "SELECT {columns} FROM words w
             CROSS JOIN records r ON r.place = w.rowid CROSS JOIN sources s USING (source)
             WHERE words MATCH ?1 AND w.rowid >= ?2 AND w.rowid < ?3 ORDER BY w.rowid DESC"
        );
        let mut select = db.prepare_cached(&select)?;
        collect(select.query(params![question, since, until])?, query, limit)
    } else {
        let select = format!(
            "SELECT {columns} FROM records r CROSS JOIN sources s USING (source)
             WHERE r.project = ?1 AND r.place >= ?2 AND r.place < ?3 ORDER BY r.place DESC"
        );
        let mut select = db.prepare_cached(&select)?;
        collect(select.query(params![project, since, until])?, query, limit)
    }
}

/// What is asked of the search index; `None` when it would propose nearly everything.
fn question(project: i64, query: &LogQuery) -> Option<String> {
    let mut parts = Vec::new();
    if let Some(device) = &query.device {
        parts.push(Mark::Device(short_hash(device.as_bytes())).to_string());
    }
    if let Some(level) = query.level.filter(|level| MARKED_LEVEL <= *level) {
        let levels = Level::ALL.into_iter().filter(|candidate| level <= *candidate);
        let levels: Vec<_> = levels.map(|level| Mark::Level(level).to_string()).collect();
        parts.push(format!("({})", levels.join(" OR ")));
    }
    for term in &query.terms {
        match term {
            Term::Phrase(words) => parts.extend(phrase(words)),
            Term::Prefix(words) => parts.extend(prefix(words)),
            Term::Field { name, value } => parts.extend(field_words(name, value)),
        }
    }
    if parts.is_empty() {
        return None;
    }
    Some(format!("{} AND {}", Mark::Project(project), parts.join(" AND ")))
}

/// The words of a phrase in the index's language; `None` when there are none.
fn phrase(words: &[String]) -> Option<String> {
    let words = words.join(" ").replace('"', " ");
    (!words.trim().is_empty()).then(|| format!("\"{words}\""))
}

fn prefix(words: &[String]) -> Option<String> {
    let (last, whole) = words.split_last()?;
    if last.chars().count() < PREFIX_CHARS_MIN {
        return phrase(whole);
    }
    phrase(words).map(|phrase| format!("{phrase} *"))
}

/// Words that a record has, if its field has that value; `None` when no word can say so.
fn field_words(name: &str, value: &str) -> Option<String> {
    if matches!(name, "level" | "timestamp" | "seq") {
        return None; // These are not in the text.
    }
    let mut ways = vec![phrase(&text::words(value))?];
    // A number's text is that of its value: `1.50` is found as `1.5`.
    if let Ok(number) = value.parse::<f64>() {
        ways.extend(phrase(&text::words(&number.to_string())));
    }
    ways.push(Mark::Partial.to_string());
    Some(format!("({})", ways.join(" OR ")))
}

/// Takes rows, newest arrival first, until the page is full and its last millisecond is whole.
fn collect(
    mut rows: rusqlite::Rows<'_>,
    query: &LogQuery,
    limit: usize,
) -> Result<LogPage, Failure> {
    let mut hits: Vec<LogHit> = Vec::new();
    let mut scratch = String::new();
    while let Some(row) = rows.next()? {
        let arrival = received(row.get(0)?);
        let full = limit < hits.len();
        if full && hits.last().is_some_and(|last| arrival < last.position.received) {
            break;
        }
        if let Some(hit) = hit(row, query, &mut scratch)? {
            hits.push(hit);
        }
        // A millisecond can have any number of records; those that cannot be on the page may go.
        if limit.saturating_mul(4) < hits.len() {
            newest_first(&mut hits);
            hits.truncate(limit + 1);
        }
    }
    newest_first(&mut hits);
    let more = limit < hits.len();
    hits.truncate(limit);
    let next = hits.last().filter(|_| more).map(|last| last.position.clone());
    Ok(LogPage { hits, next })
}

fn newest_first(hits: &mut [LogHit]) {
    hits.sort_unstable_by(|left, right| right.position.cmp(&left.position));
}

/// The row as a hit, if the query's conditions hold.
fn hit(row: &Row<'_>, query: &LogQuery, scratch: &mut String) -> Result<Option<LogHit>, Failure> {
    let level = level(row.get(4)?)?;
    if query.level.is_some_and(|least| level < least) {
        return Ok(None);
    }
    let device = text_of(row, 7)?;
    if query.device.as_ref().is_some_and(|wanted| wanted != device) {
        return Ok(None);
    }
    let position = Position {
        received: received(row.get(0)?),
        seq: row.get::<_, i64>(2)?.cast_unsigned(),
        id: row.get(1)?,
    };
    if query.before.as_ref().is_some_and(|before| *before <= position) {
        return Ok(None);
    }
    let json = text_of(row, 5)?;
    scratch.clear();
    let recognised = record::read(json, scratch);
    if !query.terms.iter().all(|term| holds(term, json, scratch)) {
        return Ok(None);
    }
    Ok(Some(LogHit {
        position,
        key: row.get(6)?,
        device: device.to_owned(),
        session: row.get(8)?,
        rev: row.get::<_, i64>(3)?.cast_unsigned(),
        level,
        message: recognised.message.map(Into::into),
        tag: recognised.tag.map(Into::into),
        time: recognised.time,
        json: json.to_owned(),
    }))
}

/// Whether what the index could not decide is so.
fn holds(term: &Term, json: &str, text: &str) -> bool {
    match term {
        Term::Phrase(_) => true,
        Term::Prefix(words) => {
            let last = words.last().map(String::as_str).unwrap_or_default();
            PREFIX_CHARS_MIN <= last.chars().count() || has_prefix(text, words)
        }
        Term::Field { name, value } => field::has(json, name, value),
    }
}

/// Whether normalised `text` has `words` next to each other, the last of which may go on.
fn has_prefix(text: &str, words: &[String]) -> bool {
    let wanted = words.join(" ");
    text.match_indices(&wanted).any(|(at, _)| at == 0 || text.as_bytes()[at - 1] == b' ')
}

fn text_of<'a>(row: &'a Row<'_>, column: usize) -> Result<&'a str, Failure> {
    let damaged = |_| Failure::new(StoreErrorKind::Refused, "a text in records is damaged");
    row.get_ref(column)?.as_str().map_err(damaged)
}

fn level(number: i64) -> Result<Level, Failure> {
    let level = usize::try_from(number).ok().and_then(|index| Level::ALL.get(index).copied());
    level.ok_or_else(|| Failure::new(StoreErrorKind::Refused, "a level in records is damaged"))
}
