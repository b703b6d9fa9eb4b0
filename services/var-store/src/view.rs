//! Devices, values and receipts as viewers get them: pages of a snapshot, and news as it happens.

use std::collections::BTreeMap;

use bytes::Bytes;
use observer_bus::{PAYLOAD_BYTES_MAX, Topic};
use observer_chassis::{now_ms, reason};
use observer_store::vars::{Device, DeviceValues, ReportedValue};
use observer_wire::ProjectId;
use observer_wire::ask::{DeviceState, DeviceView, LiveDevices, LiveVars, ReportedView};
use observer_wire::edit::Document;
use observer_wire::event::GoneState;
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
    let mut reported: Vec<_> = shown.filter_map(value).collect();
    reported.sort_by(|left, right| left.name.cmp(&right.name));
    DeviceView {
        device: stored.device.device.clone(),
        about: stored.device.about.clone(),
        online,
        state: state(&stored.device, online),
        since: stored.device.since,
        session: stored.device.session.clone(),
        rev: 0,
        reported,
        states,
    }
}

/// What is known of a device, `online` being whether anybody still vouches for its socket.
fn state(device: &Device, online: bool) -> DeviceState {
    match (online, device.online, device.gone) {
        (true, ..) if device.background => DeviceState::Background,
        (true, ..) => DeviceState::Online,
        // Its gateway is silent, so how it goes is not known yet.
        (false, true, _) if device.background => DeviceState::Suspended,
        (false, true, _) | (false, false, GoneState::Lost) => DeviceState::Lost,
        (false, false, GoneState::Suspended) => DeviceState::Suspended,
        (false, false, GoneState::Ended) => DeviceState::Ended,
    }
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
    for device in devices.into_iter().flat_map(parts) {
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

/// Cuts a device with many values into parts that each fit into a message. The first has the receipts;
/// the others only add values.
pub(crate) fn parts(mut device: DeviceView) -> Vec<DeviceView> {
    let mut values = std::mem::take(&mut device.reported).into_iter().peekable();
    let mut parts = Vec::new();
    loop {
        let mut bytes = 0;
        while let Some(value) = values.next_if(|_| bytes < PAGE_BYTES_TARGET) {
            bytes += value_size(&value);
            device.reported.push(value);
        }
        let part = device.clone();
        (device.reported, device.states) = (Vec::new(), BTreeMap::new());
        parts.push(part);
        if values.peek().is_none() {
            return parts;
        }
    }
}

fn value_size(value: &ReportedView) -> usize {
    value.json.get().len() + value.value.len() + value.name.len() + 80
}

/// Bytes of a device as JSON, nearly.
pub(crate) fn size(device: &DeviceView) -> usize {
    let values: usize = device.reported.iter().map(value_size).sum();
    let states: usize = device.states.keys().map(|name| name.len() + 60).sum();
    // A hello's texts are bounded; their sum is far below a page.
    let about = serde_json::to_string(&device.about).map_or(0, |about| about.len());
    values + states + about + device.device.len() + device.session.len() + 120
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_values(count: usize, bytes: usize) -> DeviceView {
        let value = |n: usize| ReportedView {
            name: format!("{n:04}"),
            kind: "string".into(),
            value: String::new(),
            at: 0,
            json: RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).unwrap(),
        };
        DeviceView { reported: (0..count).map(value).collect(), ..DeviceView::default() }
    }

    #[test]
    fn a_device_with_many_values_is_cut_into_parts_that_fit() {
        let whole = with_values(1000, 2000);
        let parts = parts(whole.clone());
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| size(part) < PAYLOAD_BYTES_MAX / 2));
        let names = |devices: &[DeviceView]| -> Vec<String> {
            devices.iter().flat_map(|d| d.reported.iter().map(|v| v.name.clone())).collect()
        };
        assert_eq!(names(&parts), names(&[whole]));
    }

    #[test]
    fn a_device_without_values_is_one_part() {
        assert_eq!(parts(with_values(0, 0)).len(), 1);
    }
}
