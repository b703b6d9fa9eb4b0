//! The clauses of [`VarStore`]'s contract. They use the port alone.

use std::collections::BTreeSet;

use futures_util::future::{join_all, try_join_all};
use observer_store::VarStore;
use observer_store::vars::{
    AppliedMark, Device, EditApplied, Ended, GONE_DEVICES_MAX, LastValue, Report, ReportedValue,
    Stamp, StoredDocument,
};
use observer_wire::edit::{Change, Document, EDIT_VERSION, Edit, Scope, TypedValue};
use observer_wire::event::GoneState;
use observer_wire::hello::About;
use observer_wire::{ApiKey, ProjectId};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::Rig;

/// More than any test here stores, where a limit is not what it is about.
const PLENTY: usize = 1_000;

/// When everything happens, in Unix milliseconds.
const AT: i64 = 1_750_000_000_000;

pub(super) fn project() -> ProjectId {
    let mut random = [0; 6];
    getrandom::fill(&mut random).unwrap();
    ApiKey::from_random(random).founds()
}

pub(super) fn edit(project: ProjectId, rev: u64, changes: &[(&str, Option<&str>)]) -> Edit {
    let changes = changes.iter().map(|(name, value)| Change {
        name: (*name).into(),
        scope: Scope::All,
        set: value.map(|value| TypedValue { kind: "string".into(), value: value.into() }),
    });
    Edit {
        v: EDIT_VERSION,
        project,
        epoch: "epochone".into(),
        rev,
        edit_id: format!("edit-{rev}"),
        actor: "anna".into(),
        at: AT,
        note: None,
        changes: changes.collect(),
        raw: None,
    }
}

pub(super) fn value(name: &str, value: &str) -> ReportedValue {
    ReportedValue {
        name: name.into(),
        kind: "string".into(),
        value: value.into(),
        json: format!(r#"{{"value":"{value}"}}"#),
        at: AT,
        applied: None,
    }
}

/// A line of the device `device`, of its sign-in 7.
pub(super) fn report(project: ProjectId, seq: u64, values: &[(&str, &str)]) -> Report {
    Report {
        project,
        device: "device".into(),
        stamp: Stamp { epoch: 7, seq },
        at: AT,
        reset: false,
        values: values.iter().map(|(name, text)| value(name, text)).collect(),
        withdrawn: Vec::new(),
        vars_max: PLENTY,
    }
}

/// A device that signed in, with an id that outlives its socket.
pub(super) fn device(id: &str, epoch: u64) -> Device {
    Device {
        device: id.into(),
        named: true,
        about: About { name: Some(format!("{id}'s phone").into()), ..About::default() },
        session: format!("run-{epoch}"),
        epoch,
        seq: 1,
        background: false,
        gone: GoneState::Lost,
        gateway: "gateway-1".into(),
        online: true,
        since: AT,
    }
}

fn unnamed(id: &str) -> Device {
    Device { named: false, about: About::default(), ..device(id, 7) }
}

pub(super) async fn sign_in(store: &dyn VarStore, project: ProjectId, device: &Device) {
    assert_eq!(store.sign_in(project, device, PLENTY).await.unwrap(), [""; 0], "nobody goes");
}

/// The device `device` of a new project, signed in.
async fn signed_in(rig: &Rig) -> ProjectId {
    let project = project();
    sign_in(&*rig.one, project, &device("device", 7)).await;
    project
}

/// What the device `device` has.
pub(super) async fn values(store: &dyn VarStore, project: ProjectId) -> Vec<(String, String)> {
    let devices = store.devices_by_id(project, &["device".into()]).await.unwrap();
    let values = devices.into_iter().flat_map(|device| device.values);
    values.map(|value| (value.name, value.value)).collect()
}

fn pairs(values: &[(&str, &str)]) -> Vec<(String, String)> {
    values.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

async fn found(store: &dyn VarStore, project: ProjectId, id: &str) -> Option<Device> {
    let devices = store.devices_by_id(project, &[id.into()]).await.unwrap();
    devices.into_iter().next().map(|device| device.device)
}

async fn all_ids(store: &dyn VarStore, project: ProjectId) -> Vec<String> {
    let devices = store.devices(project, None, PLENTY).await.unwrap();
    devices.into_iter().map(|device| device.device.device).collect()
}

fn last(name: &str, value: &str) -> LastValue {
    LastValue { name: name.into(), kind: "string".into(), value: value.into() }
}

pub(super) async fn new_project_has_an_empty_document(rig: &Rig) {
    let project = project();
    assert_eq!(rig.one.document(project).await.unwrap(), StoredDocument::default());
    assert_eq!(rig.one.last_values(project).await.unwrap(), []);
    assert_eq!(rig.one.devices(project, None, 10).await.unwrap(), []);
}

pub(super) async fn edits_are_applied_in_order_and_each_once(rig: &Rig) {
    let project = project();
    let (first, second) = (edit(project, 1, &[("a", Some("1"))]), edit(project, 2, &[]));
    assert_eq!(rig.one.apply_edit(&first, 40).await.unwrap(), EditApplied::Now);
    assert_eq!(rig.other.apply_edit(&first, 40).await.unwrap(), EditApplied::Before);
    assert_eq!(rig.other.apply_edit(&second, 41).await.unwrap(), EditApplied::Now);
    assert_eq!(rig.one.apply_edit(&first, 40).await.unwrap(), EditApplied::Before);
    let stored = rig.one.document(project).await.unwrap();
    assert_eq!((stored.document.revision, stored.sequence), (2, 41));
}

pub(super) async fn edit_behind_a_hole_says_after_which_one_the_hole_is(rig: &Rig) {
    let project = project();
    let late = edit(project, 2, &[("a", Some("2"))]);
    assert_eq!(rig.one.apply_edit(&late, 9).await.unwrap(), EditApplied::Gap { sequence: 0 });
    rig.one.apply_edit(&edit(project, 1, &[("a", Some("1"))]), 5).await.unwrap();
    let later = edit(project, 3, &[("a", Some("3"))]);
    assert_eq!(rig.one.apply_edit(&later, 10).await.unwrap(), EditApplied::Gap { sequence: 5 });
    let stored = rig.one.document(project).await.unwrap();
    assert_eq!((stored.document.revision, stored.sequence), (1, 5), "nothing was changed");
    assert_eq!(rig.one.apply_edit(&late, 9).await.unwrap(), EditApplied::Now);
}

pub(super) async fn unset_removes_the_wanted_value(rig: &Rig) {
    let project = project();
    let both = edit(project, 1, &[("a", Some("1")), ("b", Some("2"))]);
    rig.one.apply_edit(&both, 1).await.unwrap();
    rig.one.apply_edit(&edit(project, 2, &[("a", None), ("never", None)]), 2).await.unwrap();
    let wanted = rig.one.document(project).await.unwrap().document.wanted;
    assert_eq!(wanted.len(), 1);
    assert_eq!((wanted[0].name.as_str(), wanted[0].rev), ("b", 1));
}

pub(super) async fn stored_document_is_what_the_edits_make_in_memory(rig: &Rig) {
    let project = project();
    let names = prop::sample::select(vec!["a", "b", "a:value", "ü", "\"", "long name, and odd"]);
    let edits = vec(vec((names, prop::option::of(".{0,20}")), 0..5), 60);
    let edits = edits.new_tree(&mut TestRunner::default()).unwrap().current();
    let mut expected = StoredDocument::default();
    for (rev, changes) in (1..).zip(&edits) {
        let changes: Vec<_> =
            changes.iter().map(|(name, value)| (*name, value.as_deref())).collect();
        let edit = edit(project, rev, &changes);
        assert_eq!(rig.one.apply_edit(&edit, rev * 3).await.unwrap(), EditApplied::Now);
        expected.document.apply(&edit);
        expected.sequence = rev * 3;
        assert_eq!(rig.other.document(project).await.unwrap(), expected, "{edits:?}");
    }
}

pub(super) async fn later_edit_of_another_epoch_is_applied_whatever_its_revision(rig: &Rig) {
    let project = project();
    for rev in 1..=3 {
        rig.one.apply_edit(&edit(project, rev, &[("a", Some("1"))]), rev).await.unwrap();
    }
    let restored = Edit { epoch: "epochtwo".into(), ..edit(project, 2, &[("a", Some("2"))]) };
    assert_eq!(rig.one.apply_edit(&restored, 3).await.unwrap(), EditApplied::Before);
    assert_eq!(rig.one.apply_edit(&restored, 8).await.unwrap(), EditApplied::Now);
    let Document { revision, epoch, .. } = rig.one.document(project).await.unwrap().document;
    assert_eq!((revision, epoch.as_str()), (2, "epochtwo"));
}

pub(super) async fn edit_applied_by_two_at_once_is_applied_once(rig: &Rig) {
    let project = project();
    for rev in 1..=20 {
        let edit = edit(project, rev, &[("a", Some("1"))]);
        let (one, other) =
            tokio::join!(rig.one.apply_edit(&edit, rev), rig.other.apply_edit(&edit, rev));
        let outcomes = [one.unwrap(), other.unwrap()];
        assert!(outcomes.contains(&EditApplied::Now), "{outcomes:?}");
        assert!(outcomes.contains(&EditApplied::Before), "{outcomes:?}");
    }
}

pub(super) async fn value_is_replaced_only_by_a_newer_one(rig: &Rig) {
    let project = signed_in(rig).await;
    let mut newer_socket = report(project, 1, &[("a", "3")]);
    newer_socket.stamp.epoch = 8;
    for (line, taken, now) in [
        (report(project, 10, &[("a", "1")]), true, "1"),
        (report(project, 9, &[("a", "0")]), false, "1"),
        (report(project, 11, &[("a", "2")]), true, "2"),
        (newer_socket, true, "3"),
        (report(project, 12, &[("a", "4")]), false, "3"),
    ] {
        let reported = rig.one.report(&line).await.unwrap();
        assert_eq!((reported.taken.len(), reported.too_many), (usize::from(taken), 0), "{line:?}");
        assert_eq!(values(&*rig.one, project).await, pairs(&[("a", now)]), "{line:?}");
        assert_eq!(rig.one.last_values(project).await.unwrap(), [last("a", now)], "{line:?}");
    }
}

pub(super) async fn stamps_too_great_for_a_double_are_compared_exactly(rig: &Rig) {
    let project = signed_in(rig).await;
    let seq = 1 << 53;
    rig.one.report(&report(project, seq + 1, &[("a", "newer")])).await.unwrap();
    rig.one.report(&report(project, seq, &[("a", "older")])).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "newer")]));
    rig.one.report(&report(project, seq + 2, &[("a", "newest")])).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "newest")]));
}

pub(super) async fn values_of_one_line_are_taken_in_their_order(rig: &Rig) {
    let project = signed_in(rig).await;
    let line = report(project, 1, &[("a", "1"), ("b", "1"), ("a", "2")]);
    let reported = rig.one.report(&line).await.unwrap();
    let taken: BTreeSet<_> = reported.taken.iter().map(String::as_str).collect();
    assert_eq!((taken, reported.too_many), (BTreeSet::from(["a", "b"]), 0));
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "2"), ("b", "1")]));
}

pub(super) async fn line_delivered_again_changes_nothing(rig: &Rig) {
    let project = signed_in(rig).await;
    let mut line = report(project, 1, &[("a", "1"), ("a", "2"), ("b", "1")]);
    line.reset = true;
    line.withdrawn.push("c".into());
    rig.one.report(&line).await.unwrap();
    // Another device, so that the line would show if it reached the last values again.
    let mut other = report(project, 2, &[("a", "3")]);
    other.device = "other".into();
    rig.one.report(&other).await.unwrap();
    let device = rig.one.devices_by_id(project, &["device".into()]).await.unwrap();
    rig.other.report(&line).await.unwrap();
    assert_eq!(rig.one.devices_by_id(project, &["device".into()]).await.unwrap(), device);
    assert_eq!(
        rig.one.last_values(project).await.unwrap(),
        [last("a", "3"), last("b", "1")],
        "the last writer stays"
    );
}

pub(super) async fn reports_from_two_connections_end_with_the_newest(rig: &Rig) {
    let project = signed_in(rig).await;
    // 41 and 100 have no common divisor: each sequence once, in no order.
    let lines: Vec<_> = (0..100)
        .map(|step| step * 41 % 100)
        .map(|seq| report(project, seq, &[("a", &format!("{seq}")), ("b", &format!("{seq}"))]))
        .collect();
    let stores = [&rig.one, &rig.other];
    let calls = lines.iter().enumerate().map(|(index, line)| stores[index % 2].report(line));
    try_join_all(calls).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "99"), ("b", "99")]));
    assert_eq!(rig.one.last_values(project).await.unwrap(), [last("a", "99"), last("b", "99")]);
}

pub(super) async fn first_mark_of_a_revision_stays(rig: &Rig) {
    let project = signed_in(rig).await;
    let mark = |rev, ms| Some(AppliedMark { rev, ms });
    for (seq, said, kept) in [
        (1, mark(4, Some(120)), mark(4, Some(120))),
        (2, mark(4, Some(9_000)), mark(4, Some(120))),
        (3, mark(4, None), mark(4, Some(120))),
        (4, mark(5, None), mark(5, None)),
        (5, mark(5, Some(80)), mark(5, None)),
        (6, mark(45, Some(-3)), mark(45, Some(-3))),
        (7, None, None),
    ] {
        let mut line = report(project, seq, &[("a", "1")]);
        line.values[0].applied = said;
        rig.one.report(&line).await.unwrap();
        let devices = rig.one.devices_by_id(project, &["device".into()]).await.unwrap();
        assert_eq!(devices[0].values[0].applied, kept, "line {seq}");
    }
}

pub(super) async fn value_keeps_every_field(rig: &Rig) {
    let project = signed_in(rig).await;
    let odd = ReportedValue {
        name: "a b".into(),
        kind: "my type".into(),
        value: " \"quoted\"\n\u{0}ü ".into(),
        json: r#"{"name":"a b","value":" … ","min":0.10}"#.into(),
        at: AT + 5,
        applied: Some(AppliedMark { rev: u64::MAX >> 1, ms: Some(7) }),
    };
    let line = Report { values: vec![odd.clone()], ..report(project, 1, &[]) };
    rig.one.report(&line).await.unwrap();
    let devices = rig.one.devices_by_id(project, &["device".into()]).await.unwrap();
    assert_eq!(devices[0].values, [odd]);
    assert_eq!(devices[0].device, device("device", 7));
}

pub(super) async fn reset_forgets_what_it_does_not_name(rig: &Rig) {
    let project = signed_in(rig).await;
    rig.one.report(&report(project, 1, &[("a", "1"), ("b", "1")])).await.unwrap();
    rig.one.report(&report(project, 9, &[("late", "1")])).await.unwrap();
    let reset = Report { reset: true, ..report(project, 5, &[("b", "2"), ("c", "2")]) };
    rig.one.report(&reset).await.unwrap();
    // What was said after the reset stays, in whatever order the lines come.
    let expected = pairs(&[("b", "2"), ("c", "2"), ("late", "1")]);
    assert_eq!(values(&*rig.one, project).await, expected);
    let all = Report { reset: true, ..report(project, 10, &[]) };
    rig.one.report(&all).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, []);
}

pub(super) async fn line_older_than_a_reset_brings_nothing_back(rig: &Rig) {
    let project = signed_in(rig).await;
    let old = report(project, 1, &[("a", "1"), ("b", "1")]);
    rig.one.report(&old).await.unwrap();
    let reset = Report { reset: true, ..report(project, 2, &[("b", "2")]) };
    rig.one.report(&reset).await.unwrap();
    assert_eq!(rig.one.report(&old).await.unwrap().taken, [""; 0]);
    assert_eq!(values(&*rig.one, project).await, pairs(&[("b", "2")]));
}

pub(super) async fn withdrawn_value_is_gone_from_the_device_and_the_last_values(rig: &Rig) {
    let project = signed_in(rig).await;
    rig.one.report(&report(project, 1, &[("a", "1"), ("b", "1")])).await.unwrap();
    let withdrawal = Report { withdrawn: vec!["a".into()], ..report(project, 2, &[]) };
    rig.one.report(&withdrawal).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("b", "1")]));
    assert_eq!(rig.one.last_values(project).await.unwrap(), [last("b", "1")]);
    // It may come back, as anything newer.
    rig.one.report(&report(project, 3, &[("a", "3")])).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "3"), ("b", "1")]));
    rig.one.report(&withdrawal).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "3"), ("b", "1")]));
}

pub(super) async fn line_older_than_a_withdrawal_brings_nothing_back(rig: &Rig) {
    let project = signed_in(rig).await;
    let withdrawn = vec!["a".into(), "b".into()];
    // `b` was never heard of: its line comes late.
    rig.one.report(&report(project, 1, &[("a", "1")])).await.unwrap();
    rig.one.report(&Report { withdrawn, ..report(project, 3, &[]) }).await.unwrap();
    rig.one.report(&report(project, 2, &[("a", "2"), ("b", "2"), ("c", "2")])).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("c", "2")]));
}

pub(super) async fn values_up_to_the_limit_are_taken_and_one_more_is_counted(rig: &Rig) {
    let project = signed_in(rig).await;
    let limited = |seq, values| Report { vars_max: 3, ..report(project, seq, values) };
    let three = limited(1, &[("a", "1"), ("b", "1"), ("c", "1")]);
    let reported = rig.one.report(&three).await.unwrap();
    assert_eq!((reported.taken.len(), reported.too_many), (3, 0));
    let reported = rig.one.report(&limited(2, &[("d", "2"), ("a", "2")])).await.unwrap();
    assert_eq!((reported.taken, reported.too_many), (vec!["a".into()], 1));
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "2"), ("b", "1"), ("c", "1")]));
    let names: Vec<_> =
        rig.one.last_values(project).await.unwrap().into_iter().map(|last| last.name).collect();
    assert_eq!(names, ["a", "b", "c"], "what was left out is nowhere");
}

pub(super) async fn value_at_the_limit_still_changes(rig: &Rig) {
    let project = signed_in(rig).await;
    let limited = |seq, values| Report { vars_max: 2, ..report(project, seq, values) };
    rig.one.report(&limited(1, &[("a", "1"), ("b", "1")])).await.unwrap();
    let withdrawal = Report { withdrawn: vec!["a".into()], ..limited(2, &[]) };
    rig.one.report(&withdrawal).await.unwrap();
    rig.one.report(&limited(3, &[("b", "3"), ("c", "3")])).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&[("b", "3"), ("c", "3")]));
    // A reset makes room before its own values are taken.
    let reset = Report { reset: true, ..limited(4, &[("d", "4"), ("e", "4")]) };
    assert_eq!(rig.one.report(&reset).await.unwrap().too_many, 0);
    assert_eq!(values(&*rig.one, project).await, pairs(&[("d", "4"), ("e", "4")]));
}

pub(super) async fn values_reported_before_the_sign_in_are_there_after_it(rig: &Rig) {
    let project = project();
    rig.one.report(&report(project, 1, &[("a", "1")])).await.unwrap();
    sign_in(&*rig.one, project, &device("device", 7)).await;
    assert_eq!(values(&*rig.one, project).await, pairs(&[("a", "1")]));
    assert_eq!(found(&*rig.one, project, "device").await, Some(device("device", 7)));
}

pub(super) async fn newest_sign_in_describes_the_device(rig: &Rig) {
    let project = signed_in(rig).await;
    let newer = Device {
        about: About::default(),
        gateway: "gateway-2".into(),
        since: AT + 1_000,
        ..device("device", 8)
    };
    sign_in(&*rig.other, project, &newer).await;
    assert_eq!(found(&*rig.one, project, "device").await, Some(newer));
    assert_eq!(all_ids(&*rig.one, project).await, ["device"]);
}

pub(super) async fn older_sign_in_does_not_replace_a_newer_one(rig: &Rig) {
    let project = signed_in(rig).await;
    sign_in(&*rig.one, project, &device("device", 6)).await;
    assert_eq!(found(&*rig.one, project, "device").await, Some(device("device", 7)));
}

pub(super) async fn sign_out_ends_only_its_own_sign_in(rig: &Rig) {
    let project = signed_in(rig).await;
    rig.one.sign_out(project, "device", &Ended::lost(6, AT + 1)).await.unwrap();
    assert_eq!(found(&*rig.one, project, "device").await, Some(device("device", 7)));
    rig.one.sign_out(project, "device", &Ended::lost(7, AT + 2)).await.unwrap();
    let gone = Device { online: false, since: AT + 2, ..device("device", 7) };
    assert_eq!(found(&*rig.one, project, "device").await, Some(gone.clone()));
    rig.one.sign_out(project, "device", &Ended::lost(7, AT + 3)).await.unwrap();
    assert_eq!(found(&*rig.one, project, "device").await, Some(gone), "it went only once");
    let back = Device { since: AT + 4, ..device("device", 8) };
    sign_in(&*rig.one, project, &back).await;
    assert_eq!(found(&*rig.one, project, "device").await, Some(back));
}

pub(super) async fn sign_in_delivered_again_after_its_end_stays_gone(rig: &Rig) {
    let project = signed_in(rig).await;
    rig.one.sign_out(project, "device", &Ended::lost(7, AT + 2)).await.unwrap();
    sign_in(&*rig.one, project, &device("device", 7)).await;
    let now = found(&*rig.one, project, "device").await.unwrap();
    assert_eq!((now.online, now.since), (false, AT + 2));
}

pub(super) async fn sign_in_that_comes_after_its_end_stays_gone(rig: &Rig) {
    let project = signed_in(rig).await;
    rig.one.sign_out(project, "device", &Ended::lost(8, AT + 2)).await.unwrap();
    sign_in(&*rig.one, project, &device("device", 8)).await;
    let now = found(&*rig.one, project, "device").await.unwrap();
    assert_eq!((now.online, now.session.as_str()), (false, "run-8"));
}

pub(super) async fn what_a_device_says_about_itself_last_stands(rig: &Rig) {
    let project = signed_in(rig).await;
    let about = About { scene: Some("menu".into()), labels: vec!["qa".into()], ..About::default() };
    let later = Device { about, seq: 5, background: true, since: AT + 9, ..device("device", 7) };
    sign_in(&*rig.one, project, &later).await;
    let earlier = Device { seq: 4, ..device("device", 7) };
    sign_in(&*rig.other, project, &earlier).await;
    let stands = Device { since: AT, ..later };
    assert_eq!(found(&*rig.one, project, "device").await, Some(stands), "there since it came");
}

pub(super) async fn how_a_device_went_is_kept(rig: &Rig) {
    for state in [GoneState::Suspended, GoneState::Ended, GoneState::Lost] {
        let project = signed_in(rig).await;
        let ended = Ended { state, ..Ended::lost(7, AT + 2) };
        rig.one.sign_out(project, "device", &ended).await.unwrap();
        rig.one.sign_out(project, "device", &Ended::lost(7, AT + 3)).await.unwrap();
        assert_eq!(found(&*rig.one, project, "device").await.unwrap().gone, state);
        // Its sign-in comes late.
        let ended = Ended { state, ..Ended::lost(8, AT + 2) };
        rig.one.sign_out(project, "late", &ended).await.unwrap();
        sign_in(&*rig.one, project, &device("late", 8)).await;
        assert_eq!(found(&*rig.one, project, "late").await.unwrap().gone, state);
    }
}

pub(super) async fn sessions_of_a_device_that_live_are_entries_of_their_own(rig: &Rig) {
    let project = project();
    for (id, epoch) in [("d\tone", 1), ("d\ttwo", 2), ("d2\tone", 3), ("d", 4)] {
        sign_in(&*rig.one, project, &device(id, epoch)).await;
    }
    assert_eq!(all_ids(&*rig.one, project).await, ["d", "d\tone", "d\ttwo", "d2\tone"]);
    // The older one goes while the newer one lives.
    let went = rig.one.sign_out(project, "d\tone", &Ended::lost(1, AT + 1)).await.unwrap();
    assert_eq!(went, ["d\tone"]);
    assert_eq!(all_ids(&*rig.one, project).await, ["d", "d\ttwo", "d2\tone"]);
    sign_in(&*rig.other, project, &device("d\tone", 1)).await;
    assert!(!found(&*rig.one, project, "d\tone").await.is_some_and(|device| device.online));
    // The last one stays when it goes, until the next one comes.
    assert_eq!(
        rig.one.sign_out(project, "d\ttwo", &Ended::lost(2, AT + 2)).await.unwrap(),
        [""; 0]
    );
    let next = rig.other.sign_in(project, &device("d\tthree", 5), PLENTY).await.unwrap();
    assert!(next.contains(&"d\ttwo".to_owned()), "{next:?}");
    let ids = all_ids(&*rig.one, project).await;
    assert_eq!(ids, ["d", "d\tthree", "d2\tone"]);
}

/// Unnamed devices of one value each that came and went, in the order of their numbers; what went
/// with the last.
async fn come_and_go(store: &dyn VarStore, project: ProjectId, count: usize) -> Vec<String> {
    let mut removed = Vec::new();
    for (index, at) in (0..count).zip(AT..) {
        let id = format!("socket-{index:03}");
        sign_in(store, project, &unnamed(&id)).await;
        let line = Report { device: id.clone(), ..report(project, 1, &[("a", "1")]) };
        store.report(&line).await.unwrap();
        assert_eq!(removed, [""; 0], "before the last, nobody goes");
        removed = store.sign_out(project, &id, &Ended::lost(7, at)).await.unwrap();
    }
    removed
}

pub(super) async fn unnamed_gone_devices_are_kept_up_to_the_limit(rig: &Rig) {
    let project = project();
    assert_eq!(come_and_go(&*rig.one, project, GONE_DEVICES_MAX).await, [""; 0]);
    let devices = rig.one.devices(project, None, PLENTY).await.unwrap();
    assert_eq!(devices.len(), GONE_DEVICES_MAX);
    assert!(devices.iter().all(|device| device.values.len() == 1 && !device.device.online));
}

pub(super) async fn of_unnamed_gone_devices_past_the_limit_the_longest_gone_go(rig: &Rig) {
    let project = project();
    let removed = come_and_go(&*rig.one, project, GONE_DEVICES_MAX + 1).await;
    assert_eq!(removed, ["socket-000"]);
    assert_eq!(all_ids(&*rig.one, project).await.len(), GONE_DEVICES_MAX);
    assert_eq!(found(&*rig.one, project, "socket-000").await, None);
    // Its values went too: they are not there when it comes back.
    sign_in(&*rig.one, project, &Device { epoch: 8, ..unnamed("socket-000") }).await;
    let devices = rig.one.devices_by_id(project, &["socket-000".into()]).await.unwrap();
    assert_eq!(devices[0].values, []);
}

pub(super) async fn named_gone_devices_are_not_among_them(rig: &Rig) {
    let project = signed_in(rig).await;
    rig.one.sign_out(project, "device", &Ended::lost(7, AT - 1)).await.unwrap();
    let removed = come_and_go(&*rig.one, project, GONE_DEVICES_MAX + 1).await;
    assert_eq!(removed, ["socket-000"]);
    assert!(found(&*rig.one, project, "device").await.is_some());
}

pub(super) async fn devices_that_leave_all_at_once_are_trimmed_all_the_same(rig: &Rig) {
    let project = project();
    let ids: Vec<_> = (0..GONE_DEVICES_MAX * 3).map(|index| format!("socket-{index:03}")).collect();
    for id in &ids {
        sign_in(&*rig.one, project, &unnamed(id)).await;
    }
    let stores = [&rig.one, &rig.other];
    let ends: Vec<_> = ids.iter().zip(AT..).map(|(id, at)| (id, Ended::lost(7, at))).collect();
    let calls = ends.iter().enumerate();
    let calls = calls.map(|(index, (id, ended))| stores[index % 2].sign_out(project, id, ended));
    let removed: Vec<_> = join_all(calls).await.into_iter().flat_map(Result::unwrap).collect();
    let kept = all_ids(&*rig.one, project).await;
    assert_eq!(kept.len(), GONE_DEVICES_MAX);
    let mut all = [removed, kept].concat();
    all.sort();
    assert_eq!(all, ids, "each was kept or said to be removed, once");
}

pub(super) async fn past_the_devices_limit_the_longest_gone_goes(rig: &Rig) {
    let project = project();
    for (id, gone_at) in [("a", AT + 2), ("b", AT + 1), ("c", AT + 3)] {
        assert_eq!(rig.one.sign_in(project, &device(id, 7), 4).await.unwrap(), [""; 0]);
        rig.one.sign_out(project, id, &Ended::lost(7, gone_at)).await.unwrap();
    }
    let fourth = Device { since: AT - 5, ..device("d", 7) };
    assert_eq!(rig.one.sign_in(project, &fourth, 4).await.unwrap(), [""; 0]);
    assert_eq!(all_ids(&*rig.one, project).await, ["a", "b", "c", "d"]);
    assert_eq!(rig.one.sign_in(project, &device("e", 7), 4).await.unwrap(), ["b"]);
    assert_eq!(all_ids(&*rig.one, project).await, ["a", "c", "d", "e"]);
    // Who is there already makes nobody go.
    assert_eq!(rig.one.sign_in(project, &device("a", 8), 4).await.unwrap(), [""; 0]);
}

pub(super) async fn past_the_devices_limit_of_online_devices_the_new_one_stays(rig: &Rig) {
    let project = project();
    for (id, since) in [("a", AT + 1), ("b", AT), ("c", AT + 2)] {
        let device = Device { since, ..device(id, 7) };
        let removed = rig.one.sign_in(project, &device, 2).await.unwrap();
        assert_eq!(removed.len(), usize::from(id == "c"), "{removed:?}");
    }
    assert_eq!(all_ids(&*rig.one, project).await, ["a", "c"]);
}

pub(super) async fn pages_hold_each_device_once_in_the_order_of_ids(rig: &Rig) {
    let project = project();
    let mut ids: Vec<_> = (0..70).map(|index| format!("d{:02}", index * 37 % 70)).collect();
    ids.extend(["D".into(), "[".into(), "(d".into(), "+".into(), "-".into(), "ü".into()]);
    for id in &ids {
        sign_in(&*rig.one, project, &device(id, 7)).await;
        let line = Report { device: id.clone(), ..report(project, 1, &[("own id", id)]) };
        rig.one.report(&line).await.unwrap();
    }
    ids.sort();
    for limit in [1, 7, 33, ids.len(), PLENTY] {
        let (mut seen, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = rig.one.devices(project, after.as_deref(), limit).await.unwrap();
            assert!(page.len() <= limit, "{} of {limit}", page.len());
            for device in &page {
                assert_eq!(device.values[0].value, device.device.device, "its own values");
            }
            seen.extend(page.iter().map(|device| device.device.device.clone()));
            if page.len() < limit {
                break;
            }
            after = seen.last().cloned();
        }
        assert_eq!(seen, ids, "pages of {limit}");
    }
    assert_eq!(rig.one.devices(project, None, 0).await.unwrap(), []);
}

pub(super) async fn devices_by_id_leave_out_unknown_ones(rig: &Rig) {
    let project = signed_in(rig).await;
    sign_in(&*rig.one, project, &device("other", 7)).await;
    let asked = ["nobody".to_owned(), "other".into(), "device".into()];
    let devices = rig.one.devices_by_id(project, &asked).await.unwrap();
    let ids: BTreeSet<_> = devices.iter().map(|device| device.device.device.as_str()).collect();
    assert_eq!(ids, BTreeSet::from(["device", "other"]));
    assert_eq!(rig.one.devices_by_id(project, &[]).await.unwrap(), []);
}

pub(super) async fn types_are_those_last_declared(rig: &Rig) {
    let project = signed_in(rig).await;
    let mut line = report(project, 1, &[("a", "1"), ("b", "1")]);
    line.values[0].kind = "integer".into();
    rig.one.report(&line).await.unwrap();
    let mut other = report(project, 1, &[("a", "1.5")]);
    (other.device, other.values[0].kind) = ("other".into(), "float".into());
    rig.one.report(&other).await.unwrap();
    let names = ["b", "never", "a"].map(String::from);
    let types = rig.one.declared_types(project, &names).await.unwrap();
    assert_eq!(types, [Some("string".into()), None, Some("float".into())]);
    assert_eq!(rig.one.declared_types(project, &[]).await.unwrap(), []);
}

pub(super) async fn last_values_are_of_whoever_reported_last(rig: &Rig) {
    let project = signed_in(rig).await;
    for (device, seq, value) in [("device", 5, "1"), ("other", 1, "2"), ("device", 4, "0")] {
        let line = Report { device: device.into(), ..report(project, seq, &[("a", value)]) };
        rig.one.report(&line).await.unwrap();
    }
    assert_eq!(rig.one.last_values(project).await.unwrap(), [last("a", "2")]);
}

pub(super) async fn odd_names_stay_what_they_are(rig: &Rig) {
    let project = signed_in(rig).await;
    let long = "ü".repeat(64);
    let mut names =
        ["a", "a:type", "a:value", ":type", ":", "a b", "\"", "\n", "{x}", "r", "nr", "*", &long];
    names.sort_unstable();
    let said: Vec<_> = names.iter().map(|name| (*name, *name)).collect();
    rig.one.report(&report(project, 1, &said)).await.unwrap();
    assert_eq!(values(&*rig.one, project).await, pairs(&said));
    let expected: Vec<_> = names.iter().map(|name| last(name, name)).collect();
    assert_eq!(rig.one.last_values(project).await.unwrap(), expected);
    let owned = names.map(String::from);
    let types = rig.one.declared_types(project, &owned).await.unwrap();
    assert!(types.iter().all(|kind| kind.as_deref() == Some("string")), "{types:?}");

    let changes: Vec<_> = names.iter().map(|name| (*name, Some(*name))).collect();
    rig.one.apply_edit(&edit(project, 1, &changes), 1).await.unwrap();
    let wanted = rig.one.document(project).await.unwrap().document.wanted;
    assert_eq!(wanted.iter().map(|wanted| wanted.name.as_str()).collect::<Vec<_>>(), names);

    let withdrawn = vec!["a".into(), "r".into()];
    rig.one.report(&Report { withdrawn, ..report(project, 2, &[]) }).await.unwrap();
    assert_eq!(values(&*rig.one, project).await.len(), names.len() - 2);
    assert_eq!(rig.one.last_values(project).await.unwrap().len(), names.len() - 2);
}

pub(super) async fn odd_devices_stay_what_they_are(rig: &Rig) {
    let project = project();
    let long = "ü".repeat(128);
    let ids = ["a", "a:b", "a b", "}", "{", "\n", "\"", "-", "(", "[", "state", "A", &long];
    for id in ids {
        sign_in(&*rig.one, project, &device(id, 7)).await;
        let line = Report { device: id.into(), ..report(project, 1, &[("own id", id)]) };
        rig.one.report(&line).await.unwrap();
    }
    for id in ids {
        let found = rig.one.devices_by_id(project, &[id.into()]).await.unwrap();
        assert_eq!(found[0].device, device(id, 7));
        assert_eq!(found[0].values, [value("own id", id)]);
    }
    assert_eq!(all_ids(&*rig.one, project).await.len(), ids.len());
}

pub(super) async fn projects_never_mix(rig: &Rig) {
    let (here, there) = (signed_in(rig).await, signed_in(rig).await);
    rig.one.report(&report(here, 1, &[("a", "here")])).await.unwrap();
    rig.one.report(&report(there, 9, &[("a", "there")])).await.unwrap();
    rig.one.apply_edit(&edit(here, 1, &[("a", Some("here"))]), 1).await.unwrap();
    rig.one.sign_out(there, "device", &Ended::lost(7, AT + 1)).await.unwrap();
    assert_eq!(values(&*rig.one, here).await, pairs(&[("a", "here")]));
    assert_eq!(values(&*rig.one, there).await, pairs(&[("a", "there")]));
    assert_eq!(rig.one.last_values(here).await.unwrap(), [last("a", "here")]);
    assert_eq!(rig.one.document(there).await.unwrap(), StoredDocument::default());
    assert!(found(&*rig.one, here, "device").await.unwrap().online);
    assert!(!found(&*rig.one, there, "device").await.unwrap().online);
}

pub(super) async fn store_says_that_it_can_be_used(rig: &Rig) {
    rig.one.check().await.unwrap();
}
