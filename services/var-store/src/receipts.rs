//! What became of a wanted value on a device. Never a guess: "applied" is what the device says, and
//! nothing else is called so.

use observer_store::vars::{AppliedMark, DeviceValues, ReportedValue};
use observer_wire::Limits;
use observer_wire::ask::{ReceiptState, ReceiptView};
use observer_wire::declare::{self, Declared};
use observer_wire::edit::{Document, Wanted};
use observer_wire::value::{VarType, equal};

/// Time after which an edit without a word of the device is called so, in milliseconds.
pub(crate) const NO_RECEIPT_MS: i64 = 15_000;

/// Time after an edit in which a report of another value proves nothing, in milliseconds: the game may
/// have sent it before the edit reached it.
pub(crate) const IN_FLIGHT_MS: i64 = 2_000;

/// The mark that a report sets when it says that the device has the wanted value. A device that
/// signed in after the edit had the time from then on.
pub(crate) fn mark(
    document: &Document,
    reported: &ReportedValue,
    bits: u32,
    signed_in: i64,
) -> Option<AppliedMark> {
    let wanted = document.wanted.iter().find(|wanted| wanted.name == reported.name)?;
    let from = wanted.at.max(signed_in);
    is_same(wanted, reported, bits).then(|| AppliedMark {
        rev: wanted.rev,
        ms: (wanted.at <= reported.at).then(|| (reported.at - from).max(0)),
    })
}

/// What became of `wanted` on the device, `now` being Unix milliseconds.
pub(crate) fn receipt(
    wanted: &Wanted,
    device: &DeviceValues,
    online: bool,
    now: i64,
) -> ReceiptView {
    let reported = device.values.iter().find(|reported| reported.name == wanted.name);
    let mark = reported.and_then(|reported| reported.applied);
    let mark = mark.filter(|mark| mark.rev == wanted.rev);
    // A value that was reported before the edit proves nothing: another edit may have come between.
    let since = |reported: &ReportedValue| mark.is_some() || wanted.at <= reported.at;
    let state = match reported {
        Some(reported) if since(reported) && is_same(wanted, reported, bits_of(reported)) => {
            ReceiptState::Applied
        }
        _ if !online => ReceiptState::Offline,
        None => ReceiptState::Waiting,
        Some(reported) if wanted.at < reported.at && IN_FLIGHT_MS < now - wanted.at => {
            ReceiptState::Adjusted
        }
        Some(_) if now - wanted.at > NO_RECEIPT_MS => ReceiptState::NoReceipt,
        Some(_) => ReceiptState::Pending,
    };
    let mark = mark.filter(|_| state == ReceiptState::Applied);
    ReceiptView { state, ms: mark.and_then(|mark| mark.ms), rev: wanted.rev }
}

fn is_same(wanted: &Wanted, reported: &ReportedValue, bits: u32) -> bool {
    // The device's own type decides how its text reads; an operator may have guessed another.
    equal(VarType::named(&reported.kind), bits, &wanted.value, &reported.value)
}

/// How the device rounds, from the declaration as it was sent.
fn bits_of(reported: &ReportedValue) -> u32 {
    match declare::read(&reported.json, &Limits::default()).as_deref() {
        Ok([Declared::Value(declaration)]) => declaration.bits,
        _ => 64,
    }
}

#[cfg(test)]
mod tests {
    use observer_store::vars::Device;
    use observer_wire::edit::Scope;
    use observer_wire::event::GoneState;
    use observer_wire::hello::About;

    use super::*;

    const EDITED_AT: i64 = 1_000_000;

    fn wanted(value: &str) -> Wanted {
        Wanted {
            name: "gravity".into(),
            kind: "float".into(),
            value: value.into(),
            scope: Scope::All,
            rev: 7,
            at: EDITED_AT,
            actor: "anna".into(),
        }
    }

    fn reported(value: &str, applied: Option<AppliedMark>) -> ReportedValue {
        ReportedValue {
            name: "gravity".into(),
            kind: "float".into(),
            value: value.into(),
            json: format!(
                "{{\"name\":\"gravity\",\"type\":\"float\",\"value\":\"{value}\",\"bits\":32}}"
            ),
            at: EDITED_AT + 4,
            applied,
        }
    }

    fn check(
        values: Vec<ReportedValue>,
        online: bool,
        after_ms: i64,
    ) -> (ReceiptState, Option<i64>) {
        let device = Device {
            device: "d".into(),
            named: true,
            about: About::default(),
            session: "s".into(),
            epoch: 1,
            seq: 0,
            background: false,
            gone: GoneState::Lost,
            gateway: "g".into(),
            online,
            since: 0,
        };
        let device = DeviceValues { device, values };
        let view = receipt(&wanted("0.1"), &device, online, EDITED_AT + after_ms);
        (view.state, view.ms)
    }

    #[test]
    fn a_value_is_applied_when_the_device_says_it_has_it() {
        let mark = Some(AppliedMark { rev: 7, ms: Some(4) });
        assert_eq!(check(vec![reported("0.10", mark)], true, 5), (ReceiptState::Applied, Some(4)));
        let rounded = reported("0.10000000149011612", None);
        assert_eq!(check(vec![rounded], false, 5), (ReceiptState::Applied, None));
        let of_another_edit = Some(AppliedMark { rev: 3, ms: Some(9) });
        assert_eq!(
            check(vec![reported("0.1", of_another_edit)], true, 5),
            (ReceiptState::Applied, None)
        );
    }

    #[test]
    fn a_value_that_was_said_before_the_edit_is_not_applied() {
        // It had the value, then another was wanted, then this one again: who knows what it has now?
        let before = ReportedValue { at: EDITED_AT - 1, ..reported("0.1", None) };
        assert_eq!(check(vec![before], true, 5), (ReceiptState::Pending, None));
        let seen_since = Some(AppliedMark { rev: 7, ms: None });
        let before = ReportedValue { at: EDITED_AT - 1, ..reported("0.1", seen_since) };
        assert_eq!(check(vec![before], true, 5), (ReceiptState::Applied, None));
    }

    #[test]
    fn what_the_device_has_not_said_is_never_called_applied() {
        assert_eq!(check(vec![], true, 5).0, ReceiptState::Waiting);
        assert_eq!(check(vec![], false, 5).0, ReceiptState::Offline);
        let before = || vec![ReportedValue { at: EDITED_AT - 1, ..reported("9", None) }];
        assert_eq!(check(before(), true, NO_RECEIPT_MS).0, ReceiptState::Pending);
        assert_eq!(check(before(), true, NO_RECEIPT_MS + 1).0, ReceiptState::NoReceipt);
        assert_eq!(check(vec![reported("9", None)], false, 5).0, ReceiptState::Offline);
    }

    #[test]
    fn a_device_that_says_another_value_after_the_edit_has_adjusted_it() {
        let other = || vec![reported("9", None)];
        assert_eq!(check(other(), true, IN_FLIGHT_MS).0, ReceiptState::Pending);
        assert_eq!(check(other(), true, IN_FLIGHT_MS + 1).0, ReceiptState::Adjusted);
        assert_eq!(check(other(), true, NO_RECEIPT_MS + 1).0, ReceiptState::Adjusted);
    }

    #[test]
    fn a_report_that_has_the_wanted_value_is_marked_with_its_delay() {
        let document = Document { revision: 7, epoch: "e".into(), wanted: vec![wanted("0.1")] };
        assert_eq!(
            mark(&document, &reported("0.1", None), 64, 0),
            Some(AppliedMark { rev: 7, ms: Some(4) })
        );
        assert_eq!(mark(&document, &reported("0.2", None), 64, 0), None);
        let before = ReportedValue { at: EDITED_AT - 1, ..reported("0.1", None) };
        assert_eq!(mark(&document, &before, 64, 0), Some(AppliedMark { rev: 7, ms: None }));
        let late = mark(&document, &reported("0.1", None), 64, EDITED_AT + 3);
        assert_eq!(late, Some(AppliedMark { rev: 7, ms: Some(1) }));
    }
}
