//! Devices, values and receipts as viewers get them: pages of a snapshot, and news as it happens.

use std::collections::BTreeMap;

use bytes::Bytes;
use observer_bus::{PAYLOAD_BYTES_MAX, Topic};
use observer_chassis::{now_ms, reason};
use observer_store::vars::{DeviceValues, ReportedValue};
use observer_wire::ProjectId;
use observer_wire::ask::{DeviceView, LiveDevices, LiveVars, ReportedView};
use observer_wire::edit::Document;
use serde::Serialize;
use serde_json::value::RawValue;
use tracing::warn;

use crate::Context;
use crate::receipts::receipt;

/// Devices read from the store at once.
pub(crate) const DEVICES_PAGE: usize = 200;

/// Bytes of a page or of a live message, past which the next begins: half of what the bus carries,
/// as one device can add a lot.
pub(crate) const PAGE_BYTES_TARGET: usize = PAYLOAD_BYTES_MAX / 4;

/// Bytes of one device's values that are shown: what fits into a message beside a full page.
const DEVICE_BYTES_MAX: usize = PAYLOAD_BYTES_MAX / 2;

/// Which names of a device are shown.
pub(crate) enum Names<'a> {
    /// All of them.
    All,
    /// These.
    Only(&'a [String]),
}

impl Names<'_> {
    fn has(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|one| one == name),
        }
    }
}

/// A device as people see it.
pub(crate) fn device(
    context: &Context,
    document: &Document,
    stored: &DeviceValues,
    names: &Names<'_>,
) -> DeviceView {
    let online = context.presence.is_online(&stored.device);
    let now = unix_ms();
    let states: BTreeMap<_, _> = document
        .wanted
        .iter()
        .filter(|wanted| names.has(&wanted.name))
        .map(|wanted| (wanted.name.clone(), receipt(wanted, stored, online, now)))
        .collect();
    let shown = stored.values.iter().filter(|value| names.has(&value.name));
    let reported = within_bounds(shown).filter_map(value).collect();
    DeviceView {
        device: stored.device.device.clone(),
        name: stored.device.name.clone(),
        online,
        since: stored.device.since,
        session: stored.device.session.clone(),
        rev: 0,
        reported,
        states,
    }
}

/// Values up to what one message can carry: a device may have more, and the rest is counted.
fn within_bounds<'a>(
    values: impl Iterator<Item = &'a ReportedValue>,
) -> impl Iterator<Item = &'a ReportedValue> {
    let mut bytes = 0;
    values.filter(move |value| {
        bytes += value.json.len() + value.value.len() + value.name.len();
        let shown = bytes <= DEVICE_BYTES_MAX;
        if !shown {
            // observer_values_not_shown_total: values of devices with more than one message carries.
            metrics::counter!("observer_values_not_shown_total").increment(1);
        }
        shown
    })
}

fn value(stored: &ReportedValue) -> Option<ReportedView> {
    Some(ReportedView {
        name: stored.name.clone(),
        kind: stored.kind.clone(),
        value: stored.value.clone(),
        at: stored.at,
        json: RawValue::from_string(stored.json.clone()).ok()?,
    })
}

/// Now, in Unix milliseconds.
pub(crate) fn unix_ms() -> i64 {
    i64::try_from(now_ms()).unwrap_or(i64::MAX)
}

/// Tells viewers about values, receipts and the document, in as many messages as it takes.
pub(crate) async fn tell_vars(
    context: &Context,
    project: ProjectId,
    document: Option<&Document>,
    devices: Vec<DeviceView>,
) {
    let mut live = LiveVars { document: document.cloned(), devices: Vec::new() };
    let mut bytes = 0;
    for device in devices {
        bytes += size(&device);
        live.devices.push(device);
        if bytes >= PAGE_BYTES_TARGET {
            tell(context, Topic::LiveVars(project), &std::mem::take(&mut live)).await;
            bytes = 0;
        }
    }
    if live.document.is_some() || !live.devices.is_empty() {
        tell(context, Topic::LiveVars(project), &live).await;
    }
}

/// Tells viewers who came and went.
pub(crate) async fn tell_devices(context: &Context, project: ProjectId, news: &LiveDevices) {
    if !news.devices.is_empty() || !news.removed.is_empty() {
        tell(context, Topic::LiveDevices(project), news).await;
    }
}

async fn tell(context: &Context, topic: Topic, news: &impl Serialize) {
    let payload = match serde_json::to_vec(news) {
        Ok(payload) => Bytes::from(payload),
        Err(error) => return warn!(%error, "news for viewers cannot be written"),
    };
    if let Err(error) = context.bus.broadcast(topic, payload).await {
        // Viewers ask for the whole state when their own connection is back.
        warn!(error = %reason(&error), "viewers were not told");
    }
}

/// Bytes of a device as JSON, nearly.
pub(crate) fn size(device: &DeviceView) -> usize {
    let values: usize = device
        .reported
        .iter()
        .map(|value| value.json.get().len() + value.value.len() + value.name.len() + 80)
        .sum();
    let states: usize = device.states.keys().map(|name| name.len() + 60).sum();
    values + states + device.device.len() + device.session.len() + 120
}
