//! Reported values: what each device says it has. A value is replaced only by one with a newer
//! stamp, so redelivery and an old socket are harmless.

use std::collections::HashSet;

use observer_wire::ProjectId;
use rusqlite::{Connection, OptionalExtension, params};

use super::{bound, from_sql, to_sql};
use crate::sqlite::failure::Failure;
use crate::vars::{AppliedMark, LastValue, Report, Reported, ReportedValue, Stamp};

/// Names of a project whose last value is kept, over all devices.
const LAST_NAMES_MAX: i64 = 10_000;

pub(super) fn store(db: &Connection, report: &Report) -> Result<Reported, Failure> {
    let row = Row { db, project: report.project.as_str(), device: &report.device };
    row.make_known(report.at)?;
    if report.stamp < row.last_reset()? {
        return Ok(Reported::default());
    }
    if report.reset {
        row.reset(report)?;
    }
    let mut live = row.count(false)?;
    let mut reported = Reported::default();
    for (index, value) in report.values.iter().enumerate() {
        // The last of one name counts.
        if report.values[index + 1..].iter().any(|later| later.name == value.name) {
            continue;
        }
        let before = row.before(&value.name)?;
        match &before {
            Some(before) if report.stamp < before.stamp => continue,
            // The same line again: it says the same, and is no news for others' last values.
            Some(before) if report.stamp == before.stamp && !before.gone => {
                reported.taken.push(value.name.clone());
                continue;
            }
            Some(_) | None => {}
        }
        if before.as_ref().is_none_or(|before| before.gone) {
            if report.vars_max <= live {
                reported.too_many += 1;
                continue;
            }
            live += 1;
        }
        row.set(value, report.stamp, before.as_ref().and_then(|before| before.applied))?;
        // Another device may have said something since this line was first delivered.
        if before.as_ref().is_none_or(|before| before.gone || before.stamp < report.stamp) {
            row.set_last(value)?;
        }
        reported.taken.push(value.name.clone());
    }
    for name in &report.withdrawn {
        row.withdraw(name, report)?;
    }
    row.forget_withdrawn(report.vars_max)?;
    Ok(reported)
}

/// The rows of one device.
struct Row<'a> {
    db: &'a Connection,
    project: &'a str,
    device: &'a str,
}

/// What stands under a name.
struct Before {
    stamp: Stamp,
    gone: bool,
    applied: Option<AppliedMark>,
}

impl Row<'_> {
    /// A report can overtake its sign-in; its device is gone until that arrives.
    fn make_known(&self, at: i64) -> Result<(), Failure> {
        let insert = "INSERT INTO devices
                (project, device, known, named, session, epoch, ended, gateway, since,
                 reset_epoch, reset_seq)
             VALUES (?1, ?2, 1, 0, '', 0, 0, '', ?3, 0, 0)
             ON CONFLICT DO UPDATE SET known = 1 WHERE NOT known";
        self.db.prepare_cached(insert)?.execute(params![self.project, self.device, at])?;
        Ok(())
    }

    fn last_reset(&self) -> Result<Stamp, Failure> {
        let select =
            "SELECT reset_epoch, reset_seq FROM devices WHERE project = ?1 AND device = ?2";
        let key = [self.project, self.device];
        let stamp = self.db.prepare_cached(select)?.query_row(key, |row| {
            Ok(Stamp { epoch: from_sql(row.get(0)?), seq: from_sql(row.get(1)?) })
        })?;
        Ok(stamp)
    }

    fn reset(&self, report: &Report) -> Result<(), Failure> {
        let named: HashSet<&str> = report.values.iter().map(|value| value.name.as_str()).collect();
        let (epoch, seq) = (to_sql(report.stamp.epoch), to_sql(report.stamp.seq));
        let older = "SELECT name FROM reported
             WHERE project = ?1 AND device = ?2 AND (epoch, seq) < (?3, ?4)";
        let older: Vec<String> = self
            .db
            .prepare_cached(older)?
            .query_map(params![self.project, self.device, epoch, seq], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let delete = "DELETE FROM reported WHERE project = ?1 AND device = ?2 AND name = ?3";
        for name in older.iter().filter(|name| !named.contains(name.as_str())) {
            self.db.prepare_cached(delete)?.execute([self.project, self.device, name])?;
            self.forget_last(name)?;
        }
        let update = "UPDATE devices SET reset_epoch = ?3, reset_seq = ?4
             WHERE project = ?1 AND device = ?2";
        self.db.prepare_cached(update)?.execute(params![self.project, self.device, epoch, seq])?;
        Ok(())
    }

    fn count(&self, gone: bool) -> Result<usize, Failure> {
        let count =
            "SELECT count(*) FROM reported WHERE project = ?1 AND device = ?2 AND gone = ?3";
        let key = params![self.project, self.device, gone];
        let count: i64 = self.db.prepare_cached(count)?.query_row(key, |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(usize::MAX))
    }

    fn before(&self, name: &str) -> Result<Option<Before>, Failure> {
        let select = "SELECT epoch, seq, gone, applied_rev, applied_ms FROM reported
             WHERE project = ?1 AND device = ?2 AND name = ?3";
        let key = [self.project, self.device, name];
        let before = self.db.prepare_cached(select)?.query_row(key, |row| {
            Ok(Before {
                stamp: Stamp { epoch: from_sql(row.get(0)?), seq: from_sql(row.get(1)?) },
                gone: row.get(2)?,
                applied: applied(row.get(3)?, row.get(4)?),
            })
        });
        Ok(before.optional()?)
    }

    fn set(
        &self,
        value: &ReportedValue,
        stamp: Stamp,
        before: Option<AppliedMark>,
    ) -> Result<(), Failure> {
        let same = |mark: &AppliedMark| before.filter(|before| before.rev == mark.rev);
        let mark = value.applied.map(|mark| same(&mark).unwrap_or(mark));
        let upsert = "INSERT INTO reported
                (project, device, name, gone, kind, value, json, at, applied_rev, applied_ms,
                 epoch, seq)
             VALUES (?1, ?2, ?3, 0, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (project, device, name) DO UPDATE SET
                gone = 0, kind = excluded.kind, value = excluded.value, json = excluded.json,
                at = excluded.at, applied_rev = excluded.applied_rev,
                applied_ms = excluded.applied_ms, epoch = excluded.epoch, seq = excluded.seq";
        self.db.prepare_cached(upsert)?.execute(params![
            self.project,
            self.device,
            value.name,
            value.kind,
            value.value,
            value.json,
            value.at,
            mark.map(|mark| to_sql(mark.rev)),
            mark.and_then(|mark| mark.ms),
            to_sql(stamp.epoch),
            to_sql(stamp.seq)
        ])?;
        Ok(())
    }

    fn withdraw(&self, name: &str, report: &Report) -> Result<(), Failure> {
        let upsert = "INSERT INTO reported
                (project, device, name, gone, kind, value, json, at, epoch, seq)
             VALUES (?1, ?2, ?3, 1, '', '', '', ?4, ?5, ?6)
             ON CONFLICT (project, device, name) DO UPDATE SET
                gone = 1, kind = '', value = '', json = '', at = excluded.at,
                applied_rev = NULL, applied_ms = NULL, epoch = excluded.epoch, seq = excluded.seq
             WHERE (epoch, seq) <= (excluded.epoch, excluded.seq)";
        let (epoch, seq) = (to_sql(report.stamp.epoch), to_sql(report.stamp.seq));
        let row = params![self.project, self.device, name, report.at, epoch, seq];
        if self.db.prepare_cached(upsert)?.execute(row)? == 1 {
            self.forget_last(name)?;
        }
        Ok(())
    }

    /// Withdrawn names are kept as long as values are, the newest first.
    fn forget_withdrawn(&self, names_max: usize) -> Result<(), Failure> {
        if self.count(true)? <= names_max {
            return Ok(());
        }
        let delete = "DELETE FROM reported WHERE rowid IN (
             SELECT rowid FROM reported WHERE project = ?1 AND device = ?2 AND gone = 1
             ORDER BY epoch DESC, seq DESC LIMIT -1 OFFSET ?3)";
        let key = params![self.project, self.device, bound(names_max)];
        self.db.prepare_cached(delete)?.execute(key)?;
        Ok(())
    }

    fn set_last(&self, value: &ReportedValue) -> Result<(), Failure> {
        let update = "UPDATE last_values SET device = ?3, kind = ?4, value = ?5
             WHERE project = ?1 AND name = ?2";
        let row = params![self.project, value.name, self.device, value.kind, value.value];
        if self.db.prepare_cached(update)?.execute(row)? == 1 {
            return Ok(());
        }
        let count = "SELECT count(*) FROM last_values WHERE project = ?1";
        let count: i64 =
            self.db.prepare_cached(count)?.query_row([self.project], |row| row.get(0))?;
        if count < LAST_NAMES_MAX {
            let insert = "INSERT INTO last_values (project, name, device, kind, value)
                 VALUES (?1, ?2, ?3, ?4, ?5)";
            self.db.prepare_cached(insert)?.execute(row)?;
        }
        Ok(())
    }

    /// What another device said last stays.
    fn forget_last(&self, name: &str) -> Result<(), Failure> {
        let delete = "DELETE FROM last_values WHERE project = ?1 AND name = ?2 AND device = ?3";
        self.db.prepare_cached(delete)?.execute([self.project, name, self.device])?;
        Ok(())
    }
}

fn applied(rev: Option<i64>, ms: Option<i64>) -> Option<AppliedMark> {
    rev.map(|rev| AppliedMark { rev: from_sql(rev), ms })
}

pub(super) fn values(
    db: &Connection,
    project: ProjectId,
    device: &str,
) -> Result<Vec<ReportedValue>, Failure> {
    let select = "SELECT name, kind, value, json, at, applied_rev, applied_ms FROM reported
         WHERE project = ?1 AND device = ?2 AND gone = 0 ORDER BY name";
    let values = db
        .prepare_cached(select)?
        .query_map([project.as_str(), device], |row| {
            Ok(ReportedValue {
                name: row.get(0)?,
                kind: row.get(1)?,
                value: row.get(2)?,
                json: row.get(3)?,
                at: row.get(4)?,
                applied: applied(row.get(5)?, row.get(6)?),
            })
        })?
        .collect::<Result<_, _>>()?;
    Ok(values)
}

pub(super) fn kinds(
    db: &Connection,
    project: ProjectId,
    names: &[String],
) -> Result<Vec<Option<String>>, Failure> {
    let mut select =
        db.prepare_cached("SELECT kind FROM last_values WHERE project = ?1 AND name = ?2")?;
    let mut kinds = Vec::with_capacity(names.len());
    for name in names {
        kinds.push(select.query_row([project.as_str(), name], |row| row.get(0)).optional()?);
    }
    Ok(kinds)
}

pub(super) fn last_values(db: &Connection, project: ProjectId) -> Result<Vec<LastValue>, Failure> {
    let select = "SELECT name, kind, value FROM last_values WHERE project = ?1 ORDER BY name";
    let values = db
        .prepare_cached(select)?
        .query_map([project.as_str()], |row| {
            Ok(LastValue { name: row.get(0)?, kind: row.get(1)?, value: row.get(2)? })
        })?
        .collect::<Result<_, _>>()?;
    Ok(values)
}
