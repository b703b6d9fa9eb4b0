//! Variables and devices as pages get them. The bus carries the same things for machines: times are
//! numbers there, and text here.

use std::collections::BTreeMap;

use observer_wire::ask::{DeviceState, DeviceView, ReceiptState, ReceiptView, ReportedView};
use observer_wire::edit::{Scope, Wanted};
use observer_wire::event::device_of_entry;
use observer_wire::hello::About;
use observer_wire::time::to_rfc3339;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use crate::object;

/// A wanted value.
#[derive(Serialize)]
pub(crate) struct WantedView<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    value: &'a str,
    scope: &'a Scope,
    rev: u64,
    at: String,
    actor: &'a str,
}

impl<'a> From<&'a Wanted> for WantedView<'a> {
    fn from(wanted: &'a Wanted) -> Self {
        Self {
            name: &wanted.name,
            kind: &wanted.kind,
            value: &wanted.value,
            scope: &wanted.scope,
            rev: wanted.rev,
            at: to_rfc3339(wanted.at),
            actor: &wanted.actor,
        }
    }
}

/// What became of a wanted value on a device.
#[derive(Serialize)]
pub(crate) struct StateView {
    state: ReceiptState,
    #[serde(skip_serializing_if = "Option::is_none")]
    ms: Option<i64>,
    rev: u64,
}

impl From<&ReceiptView> for StateView {
    fn from(receipt: &ReceiptView) -> Self {
        Self { state: receipt.state, ms: receipt.ms, rev: receipt.rev }
    }
}

/// A device without its values, as the `devices` frame has it.
#[derive(Serialize)]
pub(crate) struct PresenceView<'a> {
    id: &'a str,
    device: &'a str,
    name: Option<&'a str>,
    online: bool,
    state: DeviceState,
    since: String,
    session: &'a str,
    about: &'a About,
}

impl<'a> From<&'a DeviceView> for PresenceView<'a> {
    fn from(device: &'a DeviceView) -> Self {
        Self {
            id: &device.device,
            device: device_of_entry(&device.device),
            name: device.about.name.as_deref(),
            online: device.online,
            state: device.state,
            since: to_rfc3339(device.since),
            session: &device.session,
            about: &device.about,
        }
    }
}

/// A device with its values, as `GET /vars` has it.
#[derive(Serialize)]
pub(crate) struct FullView<'a> {
    #[serde(flatten)]
    presence: PresenceView<'a>,
    rev: u64,
    reported: Vec<Declared<'a>>,
    states: BTreeMap<&'a str, StateView>,
}

impl<'a> From<&'a DeviceView> for FullView<'a> {
    fn from(device: &'a DeviceView) -> Self {
        Self {
            presence: device.into(),
            rev: device.rev,
            reported: device.reported.iter().map(Declared).collect(),
            states: states(&device.states),
        }
    }
}

/// What changed of a device, as the `vars` frame has it.
#[derive(Serialize)]
pub(crate) struct ChangedView<'a> {
    id: &'a str,
    device: &'a str,
    reported: Vec<Declared<'a>>,
    states: BTreeMap<&'a str, StateView>,
}

impl<'a> From<&'a DeviceView> for ChangedView<'a> {
    fn from(device: &'a DeviceView) -> Self {
        Self {
            id: &device.device,
            device: device_of_entry(&device.device),
            reported: device.reported.iter().map(Declared).collect(),
            states: states(&device.states),
        }
    }
}

fn states(states: &BTreeMap<String, ReceiptView>) -> BTreeMap<&str, StateView> {
    states.iter().map(|(name, receipt)| (name.as_str(), receipt.into())).collect()
}

/// A value on a device: name, type, value and time as the system understood them, then the other
/// fields of its declaration as the game sent them.
pub(crate) struct Declared<'a>(&'a ReportedView);

/// Fields of a declaration that are not copied: ours stand in their place, or they are commands.
const NOT_COPIED: [&str; 6] = ["name", "type", "value", "at", "gone", "reset"];

impl Serialize for Declared<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &value.name)?;
        map.serialize_entry("type", &value.kind)?;
        map.serialize_entry("value", &value.value)?;
        map.serialize_entry("at", &to_rfc3339(value.at))?;
        // A declaration that cannot be read again has nothing more to show; its value stands above.
        let fields = object::fields(value.json.get()).unwrap_or_default();
        for (index, (name, json)) in fields.iter().enumerate() {
            let repeated = fields[..index].iter().any(|(before, _)| before == name);
            if !repeated && !NOT_COPIED.contains(&name.as_ref()) {
                map.serialize_entry(name, json)?;
            }
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn a_declaration_keeps_its_fields_and_takes_our_reading_of_the_value() {
        let json =
            r#"{"name":"g","type":"float","value":9.80,"min":0.10,"at":1,"options":["a"],"min":7}"#;
        let reported = ReportedView {
            name: "g".into(),
            kind: "float".into(),
            value: "9.80".into(),
            at: 1_700_000_000_000,
            json: RawValue::from_string(json.into()).unwrap(),
        };
        assert_eq!(
            serde_json::to_string(&Declared(&reported)).unwrap(),
            r#"{"name":"g","type":"float","value":"9.80","at":"2023-11-14T22:13:20.000Z","min":0.10,"options":["a"]}"#
        );
    }

    #[test]
    fn a_device_is_shown_with_values_and_states() {
        let device = DeviceView {
            device: "d\ts".into(),
            about: About {
                name: Some("Anna's".into()),
                build: Some("1.2".into()),
                ..About::default()
            },
            online: true,
            state: DeviceState::Online,
            session: "s".into(),
            rev: 3,
            states: [(
                "g".into(),
                ReceiptView { state: ReceiptState::NoReceipt, ms: None, rev: 3 },
            )]
            .into(),
            ..DeviceView::default()
        };
        assert_eq!(
            serde_json::to_string(&FullView::from(&device)).unwrap(),
            r#"{"id":"d\ts","device":"d","name":"Anna's","online":true,"state":"online","since":"1970-01-01T00:00:00.000Z","session":"s","about":{"name":"Anna's","build":"1.2"},"rev":3,"reported":[],"states":{"g":{"state":"no_receipt","rev":3}}}"#
        );
    }
}
