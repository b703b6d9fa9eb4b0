//! An operator's edit is checked and committed. The edit log's answer is the commit: whoever reads
//! the log sees the edit from then on, whatever becomes of this process.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{Outgoing, PublishError, Stream};
use observer_chassis::{Backoff, reason};
use observer_store::StoreError;
use observer_store::vars::StoredDocument;
use observer_wire::ask::{EditAsk, VarsAnswer};
use observer_wire::edit::{Change, Document, EDIT_VERSION, Edit, NOTE_BYTES_MAX, TypedValue};
use observer_wire::value::{VarType, canonical};
use observer_wire::{Limits, ProjectId};
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use crate::view::{self, DEVICES_PAGE, Names, unix_ms};
use crate::{Context, applier};

/// Tries to commit an edit while others commit theirs. Each lost race means that another edit won.
const COMMIT_TRIES: usize = 8;

/// First pause after a lost race, and the longest: about what the other edit needs to be applied.
const RACE_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// Projects share this many turns; two that share one wait for each other now and then.
const TURNS: usize = 64;

/// Whose turn it is to commit an edit, by project.
pub(crate) struct Turns(Vec<Mutex<()>>);

impl Default for Turns {
    fn default() -> Self {
        Self(std::iter::repeat_with(Mutex::default).take(TURNS).collect())
    }
}

impl Turns {
    fn of(&self, project: ProjectId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        project.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % (TURNS as u64)).expect("less than TURNS");
        &self.0[at]
    }
}

/// Characters of an epoch.
const EPOCH_BYTES: usize = 8;

/// Checks an edit, commits it, applies it and tells viewers.
pub(crate) async fn edit(context: &Context, ask: EditAsk) -> VarsAnswer {
    let changes = match check(context, &ask).await {
        Ok(Ok(changes)) => changes,
        Ok(Err(refused)) => return refused,
        Err(error) => return busy("variables' store", &reason(&error)),
    };
    let names: Vec<String> = changes.iter().map(|change| change.name.clone()).collect();
    // Edits of this process wait for each other; only those of another one can be first.
    let _turn = context.turns.of(ask.project).lock().await;
    let mut pauses = Backoff::new(RACE_PAUSES.0, RACE_PAUSES.1);
    for _ in 0..COMMIT_TRIES {
        if let Err(error) = applier::repair(context, ask.project).await {
            return busy("repair of variables", &reason(&error));
        }
        let stored = match context.store.document(ask.project).await {
            Ok(stored) => stored,
            Err(error) => return busy("variables' store", &reason(&error)),
        };
        if let Some(conflict) = conflict(&stored.document, ask.if_revision) {
            return conflict;
        }
        let edit = edit_on(&stored.document, &ask, changes.clone());
        let mut document = stored.document.clone();
        document.apply(&edit);
        if let Some(refused) = too_large(&context.limits, &document, &names) {
            return refused;
        }
        match publish(context, &edit, &stored).await {
            Ok(sequence) => {
                finish(context, &edit, sequence, &names).await;
                return VarsAnswer::Edited { revision: edit.rev };
            }
            // Another edit was first, or the store went back: look again.
            Err(PublishError::Unexpected { .. }) => {
                tokio::time::sleep(pauses.next_delay()).await;
            }
            Err(error) => return busy("edit log", &reason(&error)),
        }
    }
    busy("edit log", "too many edits at once")
}

fn busy(what: &'static str, reason: &str) -> VarsAnswer {
    warn!(what, reason, "edit was not taken");
    VarsAnswer::Busy { words: format!("{what}: {reason}") }
}

fn refused(code: &str, field: String, words: impl Into<String>) -> VarsAnswer {
    VarsAnswer::Refused { code: code.into(), field, words: words.into() }
}

/// Turns what was asked for into changes, or says which field is wrong.
async fn check(
    context: &Context,
    ask: &EditAsk,
) -> Result<Result<Vec<Change>, VarsAnswer>, StoreError> {
    if let Some(refused) = check_shape(&context.limits, ask) {
        return Ok(Err(refused));
    }
    let names: Vec<String> = ask.edits.iter().map(|edit| edit.name.clone()).collect();
    let declared = context.store.declared_types(ask.project, &names).await?;
    let mut changes = Vec::with_capacity(ask.edits.len());
    for (index, (edit, declared)) in ask.edits.iter().zip(declared).enumerate() {
        let set = match &edit.value {
            _ if edit.unset => None,
            None => {
                let field = format!("edits[{index}].value");
                return Ok(Err(refused("bad_field", field, "expected a value, or unset")));
            }
            Some(value) => {
                let kind = edit.kind.clone().or(declared).unwrap_or_else(|| "string".into());
                let field = || format!("edits[{index}].value");
                match canonical(VarType::named(&kind), value) {
                    Ok(value) if value.len() <= context.limits.value_bytes_max => {
                        Some(TypedValue { kind, value })
                    }
                    Ok(_) => return Ok(Err(value_too_big(&context.limits, field()))),
                    Err(error) => {
                        return Ok(Err(refused("bad_value", field(), error.to_string())));
                    }
                }
            }
        };
        changes.push(Change { name: edit.name.clone(), scope: edit.scope.clone(), set });
    }
    Ok(Ok(changes))
}

/// Checks what needs no store: names, sizes, doubles.
fn check_shape(limits: &Limits, ask: &EditAsk) -> Option<VarsAnswer> {
    if ask.edits.is_empty() || ask.edits.len() > limits.edit_changes_max {
        let words = format!("expected 1 to {} edits", limits.edit_changes_max);
        return Some(refused("bad_field", "edits".into(), words));
    }
    if ask.note.as_ref().is_some_and(|note| note.len() > NOTE_BYTES_MAX) {
        let words = format!("a note has at most {NOTE_BYTES_MAX} bytes");
        return Some(refused("too_big", "note".into(), words));
    }
    let mut seen = HashSet::new();
    for (index, edit) in ask.edits.iter().enumerate() {
        let field = |name: &str| format!("edits[{index}].{name}");
        if edit.name.is_empty() || edit.name.len() > limits.name_bytes_max {
            let words = format!("a name has 1 to {} bytes", limits.name_bytes_max);
            return Some(refused("bad_field", field("name"), words));
        }
        if !seen.insert((&edit.name, &edit.scope)) {
            return Some(refused("bad_field", field("name"), "this variable is edited twice"));
        }
        if edit.value.as_ref().is_some_and(|value| value.len() > limits.value_bytes_max) {
            return Some(value_too_big(limits, field("value")));
        }
        let fits = |kind: &String| (1..=limits.name_bytes_max).contains(&kind.len());
        if !edit.kind.as_ref().is_none_or(fits) {
            let words = format!("a type has 1 to {} bytes", limits.name_bytes_max);
            return Some(refused("bad_field", field("type"), words));
        }
    }
    None
}

fn value_too_big(limits: &Limits, field: String) -> VarsAnswer {
    refused("too_big", field, format!("a value has at most {} bytes", limits.value_bytes_max))
}

fn conflict(document: &Document, if_revision: Option<u64>) -> Option<VarsAnswer> {
    let expected = if_revision.filter(|expected| *expected != document.revision)?;
    let changed = document.wanted.iter().filter(|wanted| wanted.rev > expected).cloned().collect();
    Some(VarsAnswer::Conflict { revision: document.revision, changed })
}

fn too_large(limits: &Limits, document: &Document, names: &[String]) -> Option<VarsAnswer> {
    let bytes = document.device_json().len();
    let field = "edits[0].value".to_owned();
    let name = names.first().map_or("", String::as_str);
    if bytes > limits.document_bytes_max {
        let max = limits.document_bytes_max;
        let words = format!("with {name} the wanted values have {bytes} bytes, {max} are allowed");
        return Some(refused("document_too_large", field, words));
    }
    if document.wanted.len() > limits.project_names_max {
        let words =
            format!("with {name} there are more than {} variables", limits.project_names_max);
        return Some(refused("document_too_large", field, words));
    }
    None
}

fn edit_on(document: &Document, ask: &EditAsk, changes: Vec<Change>) -> Edit {
    Edit {
        v: EDIT_VERSION,
        project: ask.project,
        epoch: if document.epoch.is_empty() { new_epoch() } else { document.epoch.clone() },
        rev: document.revision + 1,
        edit_id: ask.edit_id.clone(),
        actor: ask.actor.clone(),
        at: unix_ms(),
        note: ask.note.clone(),
        changes,
        raw: ask.raw.clone(),
    }
}

/// A new epoch: the revision counter of a project begins.
fn new_epoch() -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut random = [0; EPOCH_BYTES];
    getrandom::fill(&mut random).expect("the system's random numbers are there once it is up");
    random.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

async fn publish(
    context: &Context,
    edit: &Edit,
    stored: &StoredDocument,
) -> Result<u64, PublishError> {
    let payload = serde_json::to_vec(edit).map_err(|e| PublishError::Refused(e.to_string()))?;
    let event = Outgoing {
        stream: Stream::Edits,
        project: edit.project,
        // The revision belongs to it: a try that lost its race is another message.
        id: format!("{}-{}", edit.edit_id, edit.rev),
        expected: Some(stored.sequence),
        payload: Bytes::from(payload),
    };
    context.bus.publish(event).await.map(|published| published.sequence)
}

/// The edit is committed: applies it and tells viewers. What fails here is made up for by the
/// applier, and by viewers who ask again.
async fn finish(context: &Context, edit: &Edit, sequence: u64, names: &[String]) {
    info!(project = %edit.project, revision = edit.rev, actor = edit.actor, "edit committed");
    // observer_edits_total: edits committed.
    metrics::counter!("observer_edits_total").increment(1);
    if let Err(error) = applier::apply_one(context, edit, sequence).await {
        error!(error = %reason(&error), revision = edit.rev, "committed edit is not applied yet");
        return;
    }
    if let Err(error) = tell_edit(context, edit.project, names).await {
        warn!(error = %reason(&error), "viewers were not told of an edit");
    }
    context.retells.edited(edit.project, names);
}

/// Tells viewers the new document, and what became of its values on each device so far.
async fn tell_edit(
    context: &Context,
    project: ProjectId,
    names: &[String],
) -> Result<(), StoreError> {
    let document = context.store.document(project).await?.document;
    view::tell_vars(context, project, Some(&document), Vec::new()).await;
    tell_receipts(context, project, names).await
}

/// Tells viewers what became of wanted values on each device so far.
pub(crate) async fn tell_receipts(
    context: &Context,
    project: ProjectId,
    names: &[String],
) -> Result<(), StoreError> {
    let document = context.store.document(project).await?.document;
    let mut after: Option<String> = None;
    loop {
        let page = context.store.devices(project, after.as_deref(), DEVICES_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.device.device.clone());
        let devices = page
            .iter()
            .map(|stored| {
                let mut view = view::device(context, &document, stored, &Names::Only(names));
                view.reported.clear(); // Nothing was reported; only receipts changed.
                view
            })
            .collect();
        view::tell_vars(context, project, None, devices).await;
    }
}

#[cfg(test)]
mod tests {
    use observer_wire::ask::EditInput;

    use super::*;
    use crate::rig::{PROJECT, Rig, ask, set};

    /// What an answer says, in a few words.
    fn words(answer: &VarsAnswer) -> String {
        match answer {
            VarsAnswer::Edited { revision } => format!("revision {revision}"),
            VarsAnswer::Refused { code, field, .. } => format!("{code} {field}"),
            VarsAnswer::Conflict { revision, changed } => {
                let names: Vec<_> = changed.iter().map(|wanted| wanted.name.as_str()).collect();
                format!("conflict {revision} {}", names.join(","))
            }
            VarsAnswer::Document(_) | VarsAnswer::Snapshot(_) | VarsAnswer::Busy { .. } => {
                format!("{answer:?}")
            }
        }
    }

    async fn check(limits: Limits, cases: Vec<(EditAsk, &str)>) {
        let rig = Rig::start(limits).await;
        for (ask, expected) in cases {
            assert_eq!(words(&rig.edit(ask).await), expected);
        }
        rig.stop().await;
    }

    #[tokio::test]
    async fn each_edit_is_the_next_revision_and_is_in_force_when_it_is_answered() {
        let rig = Rig::start(Limits::default()).await;
        for revision in 1..=3_u64 {
            let answer =
                rig.edit(ask(vec![set("a", Some("integer"), &revision.to_string())])).await;
            assert_eq!(words(&answer), format!("revision {revision}"));
            let project = PROJECT.parse().unwrap();
            let stored = rig.context.store.document(project).await.unwrap().document;
            assert_eq!(
                (stored.revision, stored.wanted[0].value.clone()),
                (revision, revision.to_string())
            );
        }
        rig.stop().await;
    }

    #[tokio::test]
    async fn edits_at_the_same_time_make_revisions_without_gaps() {
        let rig = Rig::start(Limits::default()).await;
        let edits = (0..6).map(|n| rig.edit(ask(vec![set(&format!("v{n}"), None, "x")])));
        let mut answers: Vec<_> =
            futures_util::future::join_all(edits).await.iter().map(words).collect();
        answers.sort_unstable();
        let expected: Vec<_> = (1..=6).map(|revision| format!("revision {revision}")).collect();
        assert_eq!(answers, expected);
        rig.stop().await;
    }

    #[tokio::test]
    async fn an_edit_on_another_revision_is_a_conflict_that_names_what_changed() {
        let on = |revision, name: &str| EditAsk {
            if_revision: Some(revision),
            ..ask(vec![set(name, None, "x")])
        };
        check(
            Limits::default(),
            vec![
                (on(0, "a"), "revision 1"),
                (on(1, "b"), "revision 2"),
                (on(1, "c"), "conflict 2 b"),
                (on(9, "c"), "conflict 2 "),
                (on(2, "c"), "revision 3"),
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn what_cannot_be_accepted_names_its_field() {
        let mut with_note = ask(vec![set("a", None, "x")]);
        with_note.note = Some("n".repeat(NOTE_BYTES_MAX + 1));
        let neither = EditInput { value: None, ..set("a", None, "") };
        check(
            Limits::default(),
            vec![
                (ask(vec![]), "bad_field edits"),
                (ask(vec![set("", None, "x")]), "bad_field edits[0].name"),
                (ask(vec![set("a", None, "x"), set("a", None, "y")]), "bad_field edits[1].name"),
                (ask(vec![neither]), "bad_field edits[0].value"),
                (ask(vec![set("a", Some("float"), "x")]), "bad_value edits[0].value"),
                (ask(vec![set("a", Some(""), "x")]), "bad_field edits[0].type"),
                // Its text grows past the limit when it is written out.
                (
                    ask(vec![set(
                        "a",
                        Some("vector"),
                        &format!("[1e300,{}1]", " ".repeat(16_300)),
                    )]),
                    "revision 1",
                ),
                (with_note, "too_big note"),
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn bounds_hold_at_the_limit_and_one_past_it() {
        let limits = Limits::default();
        let names = |count: usize| ask((0..count).map(|n| set(&n.to_string(), None, "")).collect());
        let name = |bytes: usize| ask(vec![set(&"n".repeat(bytes), None, "")]);
        let value = |bytes: usize| ask(vec![set("v", None, &"x".repeat(bytes))]);
        check(
            limits.clone(),
            vec![
                (names(limits.edit_changes_max), "revision 1"),
                (names(limits.edit_changes_max + 1), "bad_field edits"),
                (name(limits.name_bytes_max), "revision 2"),
                (name(limits.name_bytes_max + 1), "bad_field edits[0].name"),
                (value(limits.value_bytes_max), "revision 3"),
                (value(limits.value_bytes_max + 1), "too_big edits[0].value"),
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn a_project_has_its_number_of_wanted_names_and_not_one_more() {
        let limits = Limits { project_names_max: 2, ..Limits::default() };
        let one = |name: &str| ask(vec![set(name, None, "1")]);
        check(
            limits,
            vec![
                (one("a"), "revision 1"),
                (one("b"), "revision 2"),
                (one("c"), "document_too_large edits[0].value"),
                (one("b"), "revision 3"),
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn a_document_has_its_largest_size_and_not_a_byte_more() {
        let empty = r#"[{"name":"a","type":"string","value":""}]"#.len();
        let limits = Limits { document_bytes_max: 1000, ..Limits::default() };
        let fill = |bytes: usize| ask(vec![set("a", None, &"x".repeat(bytes - empty))]);
        check(
            limits,
            vec![(fill(1001), "document_too_large edits[0].value"), (fill(1000), "revision 1")],
        )
        .await;
    }
}
