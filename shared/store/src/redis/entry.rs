//! Rust's values as texts in Redis, and back: what a script must compare stands in front, in digits
//! of equal length, because numbers of a script are doubles; the rest is JSON that no script reads.

use std::borrow::Cow;

use observer_wire::edit::{Scope, Wanted};
use observer_wire::event::GoneState;
use observer_wire::hello::About;
use serde::{Deserialize, Serialize};

use crate::vars::{AppliedMark, Device, ReportedValue, Stamp};

/// A text in Redis that we did not write so.
#[derive(Debug, thiserror::Error)]
#[error("unreadable {what}: {text:?}")]
pub(super) struct Unreadable {
    what: &'static str,
    text: String,
}

impl Unreadable {
    pub(super) fn new(what: &'static str, text: impl Into<String>) -> Self {
        Self { what, text: text.into() }
    }
}

/// Digits that sort as the numbers do.
pub(super) fn padded(number: u64) -> String {
    format!("{number:020}")
}

/// A stamp as 40 digits that sort as the stamps do.
pub(super) fn stamp_digits(stamp: Stamp) -> String {
    format!("{:020}{:020}", stamp.epoch, stamp.seq)
}

/// The mark as one word: `<rev>:<ms>`, `<rev>:`, or `-` for none.
pub(super) fn applied_word(applied: Option<AppliedMark>) -> String {
    match applied {
        None => "-".into(),
        Some(AppliedMark { rev, ms: None }) => format!("{rev}:"),
        Some(AppliedMark { rev, ms: Some(ms) }) => format!("{rev}:{ms}"),
    }
}

/// A reported value as `report.lua` gets it; the script puts stamp and mark before it.
#[derive(Serialize, Deserialize)]
struct ValueJson<'a> {
    #[serde(rename = "type")]
    kind: Cow<'a, str>,
    value: Cow<'a, str>,
    json: Cow<'a, str>,
    at: i64,
}

pub(super) fn value_json(value: &ReportedValue) -> String {
    let ReportedValue { name: _, kind, value, json, at, applied: _ } = value;
    to_json(&ValueJson { kind: kind.into(), value: value.into(), json: json.into(), at: *at })
}

/// Reads `<stamp> <mark> <json>`.
pub(super) fn read_value(name: String, text: &str) -> Result<ReportedValue, Unreadable> {
    let unreadable = || Unreadable::new("reported value", text);
    let mut parts = text.splitn(3, ' ').skip(1);
    let applied = match parts.next().ok_or_else(unreadable)? {
        "-" => None,
        word => Some(read_mark(word).ok_or_else(unreadable)?),
    };
    let json = parts.next().ok_or_else(unreadable)?;
    let ValueJson { kind, value, json, at } =
        serde_json::from_str(json).map_err(|_| unreadable())?;
    let (kind, value, json) = (kind.into_owned(), value.into_owned(), json.into_owned());
    Ok(ReportedValue { name, kind, value, json, at, applied })
}

fn read_mark(word: &str) -> Option<AppliedMark> {
    let (rev, ms) = word.split_once(':')?;
    let ms = if ms.is_empty() { None } else { Some(ms.parse().ok()?) };
    Some(AppliedMark { rev: rev.parse().ok()?, ms })
}

/// A device as `sign_in.lua` gets it; the script puts what it compares before it.
#[derive(Serialize, Deserialize)]
struct DeviceJson<'a> {
    #[serde(default)]
    about: Cow<'a, About>,
    session: Cow<'a, str>,
    gateway: Cow<'a, str>,
    #[serde(default)]
    background: bool,
}

pub(super) fn device_json(device: &Device) -> String {
    to_json(&DeviceJson {
        about: Cow::Borrowed(&device.about),
        session: (&device.session).into(),
        gateway: (&device.gateway).into(),
        background: device.background,
    })
}

/// A device that reports while nobody knows of a sign-in: gone, until that comes.
pub(super) fn unknown_device(at: i64) -> String {
    let (session, gateway) = ("".into(), "".into());
    let about = Cow::Owned(About::default());
    let json = to_json(&DeviceJson { about, session, gateway, background: false });
    format!("{zero} {zero} 0 0 {at} lost {json}", zero = padded(0))
}

/// Reads `<epoch> <seq> <named> <online> <since> <gone> <json>`; `None` for a device of which only the end of its
/// socket was said so far.
pub(super) fn read_device(device: &str, text: &str) -> Result<Option<Device>, Unreadable> {
    let unreadable = || Unreadable::new("device", text);
    let parts: Vec<&str> = text.splitn(7, ' ').collect();
    let [epoch, seq, named, online, since, gone, json] = parts[..] else {
        return Err(unreadable());
    };
    if json.is_empty() {
        return Ok(None);
    }
    let DeviceJson { about, session, gateway, background } =
        serde_json::from_str(json).map_err(|_| unreadable())?;
    Ok(Some(Device {
        device: device.to_owned(),
        named: named == "1",
        about: about.into_owned(),
        session: session.into_owned(),
        epoch: epoch.parse().map_err(|_| unreadable())?,
        seq: seq.parse().map_err(|_| unreadable())?,
        background,
        gone: GoneState::named(gone).ok_or_else(unreadable)?,
        gateway: gateway.into_owned(),
        online: online == "1",
        since: since.parse().map_err(|_| unreadable())?,
    }))
}

/// Field of a wanted value: no two (scope, name) have the same.
pub(super) fn wanted_field(scope: &Scope, name: &str) -> String {
    to_json(&(scope, name))
}

pub(super) fn wanted_json(wanted: &Wanted) -> String {
    to_json(wanted)
}

pub(super) fn read_wanted(text: &str) -> Result<Wanted, Unreadable> {
    serde_json::from_str(text).map_err(|_| Unreadable::new("wanted value", text))
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain structs into memory always serialise")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_reads_back_from_its_text(
            (kind, value, json) in any::<(String, String, String)>(),
            at: i64,
            mark in any::<Option<(u64, Option<i64>)>>(),
            stamp in any::<(u64, u64)>(),
        ) {
            let applied = mark.map(|(rev, ms)| AppliedMark { rev, ms });
            let value = ReportedValue { name: "a".into(), kind, value, json, at, applied };
            let digits = stamp_digits(Stamp { epoch: stamp.0, seq: stamp.1 });
            let text = format!("{digits} {} {}", applied_word(applied), value_json(&value));
            prop_assert_eq!(read_value("a".into(), &text).unwrap(), value);
        }

        #[test]
        fn digits_sort_as_stamps_do(left in any::<(u64, u64)>(), right in any::<(u64, u64)>()) {
            let stamp = |(epoch, seq)| Stamp { epoch, seq };
            let (left, right) = (stamp(left), stamp(right));
            let digits = stamp_digits(left).cmp(&stamp_digits(right));
            prop_assert_eq!(digits, left.cmp(&right));
        }
    }

    #[test]
    fn the_end_of_an_unknown_socket_is_no_device() {
        let end = format!("{} {} 0 0 5 lost ", padded(7), padded(0));
        assert!(read_device("a", &end).unwrap().is_none());
        assert!(read_device("a", "7").is_err());
        let unknown = read_device("a", &unknown_device(5)).unwrap().unwrap();
        assert_eq!((unknown.epoch, unknown.online, unknown.since), (0, false, 5));
    }
}
