//! Wanted documents: applied edit by edit, and remembered, since each sign-in asks for one.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use observer_wire::ProjectId;
use observer_wire::edit::{Document, Edit, Scope, Wanted};
use rusqlite::{Connection, OptionalExtension, params};

use super::{from_sql, to_sql};
use crate::StoreErrorKind;
use crate::sqlite::failure::Failure;
use crate::vars::{EditApplied, StoredDocument};

/// Documents remembered. One is at most 128 KiB of JSON, and most are far smaller.
const DOCUMENTS_MAX: usize = 512;

/// Edits kept of a project: as many as the edit log of the distributed form keeps.
const EDITS_MAX: i64 = 10_000;

/// Revisions between two looks for edits that are too many.
const FORGET_EVERY: u64 = 100;

/// Documents as they are stored; only the writer's thread sets them, after its commits.
#[derive(Debug, Default)]
pub(super) struct Documents(RwLock<HashMap<ProjectId, StoredDocument>>);

impl Documents {
    pub(super) fn get(&self, project: ProjectId) -> Option<StoredDocument> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&project).cloned()
    }

    pub(super) fn set(&self, project: ProjectId, document: StoredDocument) {
        let mut documents = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if documents.len() >= DOCUMENTS_MAX && !documents.contains_key(&project) {
            // Which one goes hardly matters: it is read again in a millisecond.
            let any = documents.keys().next().copied();
            any.and_then(|any| documents.remove(&any));
        }
        documents.insert(project, document);
    }
}

pub(super) fn load(db: &Connection, project: ProjectId) -> Result<StoredDocument, Failure> {
    let head = "SELECT epoch, revision, sequence FROM documents WHERE project = ?1";
    let head = db
        .prepare_cached(head)?
        .query_row([project.as_str()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let Some((epoch, revision, sequence)) = head.optional()? else {
        return Ok(StoredDocument::default());
    };
    let mut select = db.prepare_cached(
        "SELECT name, kind, value, scope, rev, at, actor FROM wanted WHERE project = ?1
         ORDER BY name, scope",
    )?;
    let mut rows = select.query([project.as_str()])?;
    let mut wanted = Vec::new();
    while let Some(row) = rows.next()? {
        wanted.push(Wanted {
            name: row.get(0)?,
            kind: row.get(1)?,
            value: row.get(2)?,
            scope: scope(row.get(3)?)?,
            rev: from_sql(row.get(4)?),
            at: row.get(5)?,
            actor: row.get(6)?,
        });
    }
    let document = Document { revision: from_sql(revision), epoch, wanted };
    Ok(StoredDocument { document, sequence: from_sql(sequence) })
}

fn scope(text: String) -> Result<Scope, Failure> {
    let unknown = |what| Failure::new(StoreErrorKind::Refused, format!("a stored scope: {what}"));
    Scope::try_from(text).map_err(unknown)
}

/// Applies `edit` to `stored` and to the database, if it is the next one.
pub(super) fn apply(
    db: &Connection,
    stored: &mut StoredDocument,
    edit: &Edit,
    sequence: u64,
) -> Result<EditApplied, Failure> {
    if sequence <= stored.sequence {
        return Ok(EditApplied::Before);
    }
    // Revisions of another epoch cannot be compared; that one was made because the counter may have
    // gone back, and its place in the edit log says that it is later.
    let comparable = edit.epoch == stored.document.epoch || stored.document.revision == 0;
    if comparable && edit.rev <= stored.document.revision {
        return Ok(EditApplied::Before);
    }
    if comparable && stored.document.revision + 1 < edit.rev {
        return Ok(EditApplied::Gap { sequence: stored.sequence });
    }
    stored.document.apply(edit);
    stored.sequence = sequence;
    write_changes(db, edit)?;
    let project = edit.project.as_str();
    let upsert =
        "INSERT INTO documents (project, epoch, revision, sequence) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (project) DO UPDATE SET
            epoch = excluded.epoch, revision = excluded.revision, sequence = excluded.sequence";
    let (rev, sequence) = (to_sql(edit.rev), to_sql(sequence));
    db.prepare_cached(upsert)?.execute(params![project, edit.epoch, rev, sequence])?;
    let json = serde_json::to_string(edit).expect("plain structs into memory always serialise");
    db.prepare_cached("INSERT INTO edits (project, sequence, edit) VALUES (?1, ?2, ?3)")?
        .execute(params![project, sequence, json])?;
    if edit.rev.is_multiple_of(FORGET_EVERY) {
        let forget = "DELETE FROM edits WHERE project = ?1 AND sequence <= (
             SELECT sequence FROM edits WHERE project = ?1
             ORDER BY sequence DESC LIMIT 1 OFFSET ?2)";
        db.prepare_cached(forget)?.execute(params![project, EDITS_MAX])?;
    }
    Ok(EditApplied::Now)
}

fn write_changes(db: &Connection, edit: &Edit) -> Result<(), Failure> {
    let project = edit.project.as_str();
    for change in &edit.changes {
        let scope = String::from(change.scope.clone());
        let Some(set) = &change.set else {
            let delete = "DELETE FROM wanted WHERE project = ?1 AND name = ?2 AND scope = ?3";
            db.prepare_cached(delete)?.execute(params![project, change.name, scope])?;
            continue;
        };
        let upsert = "INSERT OR REPLACE INTO wanted
             (project, name, scope, kind, value, rev, at, actor)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        db.prepare_cached(upsert)?.execute(params![
            project,
            change.name,
            scope,
            set.kind,
            set.value,
            to_sql(edit.rev),
            edit.at,
            edit.actor
        ])?;
    }
    Ok(())
}
