//! News become text frames of `/stream`: records of many events in one frame, changes of one variable
//! in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use observer_bus::Cursor;
use observer_wire::ProjectId;
use observer_wire::ask::{DeviceView, LiveDevices, LiveVars, Snapshot};
use observer_wire::edit::Document;
use serde::Serialize;

use crate::item::{push_item, push_json_text};
use crate::queue::{GapReason, News};
use crate::views::{ChangedView, PresenceView, WantedView};

/// Text of a frame, in bytes, past which the next begins. Browsers parse a frame in one go.
const FRAME_BYTES_TARGET: usize = 256 * 1024;

/// The revision that a viewer was last told, if any process knew it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    revision: Option<u64>,
    epoch: Option<String>,
}

impl Head {
    /// Whether the viewer knows something newer: of two var-stores, the slower speaks last.
    fn is_past(&self, document: &Document) -> bool {
        self.epoch.as_ref() == Some(&document.epoch)
            && self.revision.is_some_and(|revision| revision > document.revision)
    }
}

impl From<&Document> for Head {
    fn from(document: &Document) -> Self {
        Self { revision: Some(document.revision), epoch: Some(document.epoch.clone()) }
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Frame<'a> {
    Hello {
        cursor: Option<&'a str>,
        project: &'a str,
        revision: Option<u64>,
        epoch: Option<&'a str>,
    },
    Resumed {
        cursor: Option<&'a str>,
    },
    Reset {
        cursor: Option<&'a str>,
    },
    Gap {
        cursor: Option<&'a str>,
        count: u64,
        reason: &'static str,
    },
    Vars {
        cursor: Option<&'a str>,
        revision: Option<u64>,
        epoch: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        wanted: Option<Vec<WantedView<'a>>>,
        devices: Vec<ChangedView<'a>>,
    },
    Devices {
        cursor: Option<&'a str>,
        devices: Vec<PresenceView<'a>>,
        removed: &'a [String],
    },
}

impl Frame<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain structs into memory always serialise")
    }
}

fn text_of(cursor: Option<&Cursor>) -> Option<&str> {
    cursor.map(|cursor| cursor.0.as_str())
}

/// The first frame.
pub(crate) fn hello(cursor: Option<&Cursor>, project: ProjectId, head: &Head) -> String {
    let (revision, epoch) = (head.revision, head.epoch.as_deref());
    Frame::Hello { cursor: text_of(cursor), project: project.as_str(), revision, epoch }.text()
}

/// Nothing behind the viewer's cursor is missing.
pub(crate) fn resumed(cursor: &Cursor) -> String {
    Frame::Resumed { cursor: Some(&cursor.0) }.text()
}

/// What was before is to be fetched anew.
pub(crate) fn reset(cursor: Option<&Cursor>) -> String {
    Frame::Reset { cursor: text_of(cursor) }.text()
}

/// No records, but a newer place to continue from.
pub(crate) fn nothing(cursor: &Cursor) -> String {
    Logs { current: Some(cursor.clone()), ..Logs::default() }.text(true)
}

/// A page of devices as they are now: who is there, then their values.
pub(crate) fn snapshot(page: &Snapshot, cursor: Option<&Cursor>, head: &mut Head) -> Vec<String> {
    let devices = page.devices.iter().cloned();
    let presence = LiveDevices { devices: devices.clone().collect(), removed: Vec::new() };
    let vars = LiveVars { document: page.document.clone(), devices: devices.collect() };
    let mut state = StateNews::default();
    state.add_devices(&presence);
    state.add_vars(&vars);
    let mut frames = Vec::new();
    state.push_frames(&mut frames, cursor, head);
    frames
}

/// Everything that a viewer has not read, as frames: records and gaps in their order, then devices,
/// then values. `from` is before all of it, `cursor` behind.
pub(crate) fn compose(
    news: &[News],
    from: Option<&Cursor>,
    cursor: Option<&Cursor>,
    head: &mut Head,
) -> Vec<String> {
    let mut frames = Vec::new();
    let mut logs = Logs { current: from.cloned(), ..Logs::default() };
    let mut state = StateNews::default();
    for one in news {
        match one {
            News::Logs(picked) => {
                for record in picked.records() {
                    logs.push(&record.json, &record.observer, &picked.batch.cursor, &mut frames);
                }
            }
            News::Gap { count, reason, cursor } => {
                logs.finish(&mut frames);
                // Not one that is known, but one at least.
                let count = count.unwrap_or(1);
                frames.push(gap(count, *reason, cursor.as_ref()));
            }
            News::Vars(vars) => state.add_vars(vars),
            News::Devices(devices) => state.add_devices(devices),
            News::Reset => {
                logs.finish(&mut frames);
                state = StateNews::default();
                frames.push(reset(cursor));
            }
        }
    }
    logs.finish(&mut frames);
    state.push_frames(&mut frames, cursor, head);
    frames
}

fn gap(count: u64, reason: GapReason, cursor: Option<&Cursor>) -> String {
    Frame::Gap { cursor: text_of(cursor), count, reason: reason.name() }.text()
}

/// A `logs` frame that grows. Written by hand: records are text that is copied, not parsed.
///
/// The cursor is of the last *whole* event: a viewer that continues from a frame in the middle of
/// one gets its records again rather than never, and knows them by their ids.
#[derive(Default)]
struct Logs {
    items: String,
    whole: Option<Cursor>,
    current: Option<Cursor>,
}

impl Logs {
    fn push(&mut self, json: &str, observer: &str, cursor: &Cursor, frames: &mut Vec<String>) {
        if self.current.as_ref() != Some(cursor) {
            self.whole = self.current.replace(cursor.clone());
        }
        if !self.items.is_empty() {
            let room = FRAME_BYTES_TARGET.saturating_sub(self.items.len());
            if room < json.len() + observer.len() {
                frames.push(self.text(false));
                self.items.clear();
            } else {
                self.items.push(',');
            }
        }
        push_item(&mut self.items, json, observer);
    }

    fn finish(&mut self, frames: &mut Vec<String>) {
        if !self.items.is_empty() {
            frames.push(self.text(true));
            self.items.clear();
        }
    }

    fn text(&self, is_whole: bool) -> String {
        let cursor = if is_whole { &self.current } else { &self.whole };
        let mut out = String::with_capacity(self.items.len() + 96);
        out.push_str("{\"type\":\"logs\",\"cursor\":");
        match cursor {
            Some(cursor) => push_json_text(&mut out, &cursor.0),
            None => out.push_str("null"),
        }
        write!(out, ",\"items\":[{}]}}", self.items).expect("a String takes what is written");
        out
    }
}

/// Changes of devices and values, gathered: the last word on each counts.
#[derive(Default)]
struct StateNews {
    document: Option<Document>,
    values: BTreeMap<String, DeviceView>,
    presence: BTreeMap<String, DeviceView>,
    removed: BTreeSet<String>,
}

impl StateNews {
    fn add_vars(&mut self, vars: &LiveVars) {
        let known = self.document.as_ref().map(Head::from).unwrap_or_default();
        if let Some(document) = vars.document.as_ref().filter(|document| !known.is_past(document)) {
            self.document = Some(document.clone());
        }
        for device in &vars.devices {
            let known = self.values.entry(device.device.clone()).or_insert_with(|| DeviceView {
                device: device.device.clone(),
                ..DeviceView::default()
            });
            for value in &device.reported {
                known.reported.retain(|before| before.name != value.name);
                known.reported.push(value.clone());
            }
            known.states.extend(device.states.iter().map(|(name, state)| (name.clone(), *state)));
        }
    }

    fn add_devices(&mut self, devices: &LiveDevices) {
        for device in &devices.removed {
            self.presence.remove(device);
            self.values.remove(device);
            self.removed.insert(device.clone());
        }
        for device in &devices.devices {
            self.removed.remove(&device.device);
            let news =
                DeviceView { reported: Vec::new(), states: BTreeMap::new(), ..device.clone() };
            self.presence.insert(device.device.clone(), news);
        }
    }

    fn push_frames(&self, frames: &mut Vec<String>, cursor: Option<&Cursor>, head: &mut Head) {
        let cursor = text_of(cursor);
        if !self.presence.is_empty() || !self.removed.is_empty() {
            let removed: Vec<_> = self.removed.iter().cloned().collect();
            let devices = self.presence.values().map(PresenceView::from).collect();
            frames.push(Frame::Devices { cursor, devices, removed: &removed }.text());
        }
        let mut wanted = self.document.as_ref().filter(|document| !head.is_past(document));
        if let Some(document) = wanted {
            *head = document.into();
        }
        let mut devices = self.values.values().peekable();
        while wanted.is_some() || devices.peek().is_some() {
            let mut part = Vec::new();
            let mut bytes = 0;
            while let Some(device) = devices.next_if(|_| bytes < FRAME_BYTES_TARGET) {
                bytes +=
                    device.reported.iter().map(|value| value.json.get().len() + 96).sum::<usize>();
                bytes += device.states.keys().map(|name| name.len() + 48).sum::<usize>();
                part.push(device.into());
            }
            let wanted = wanted.take();
            let frame = Frame::Vars {
                cursor,
                revision: head.revision,
                epoch: head.epoch.as_deref(),
                wanted: wanted.map(|document| document.wanted.iter().map(Into::into).collect()),
                devices: part,
            };
            frames.push(frame.text());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::feed::{Batch, Record};
    use crate::queue::Picked;

    fn logs(at: u32, sizes: &[usize]) -> News {
        let record = |bytes: &usize| Record {
            json: format!("{{\"m\":\"{}\"}}", "x".repeat(*bytes)),
            observer: "{}".into(),
            device: "d".into(),
            level: observer_wire::record::Level::Info,
            text: String::new(),
        };
        let records = sizes.iter().map(record).collect();
        let batch = Arc::new(Batch { records, cursor: Cursor(format!("e.{at}")) });
        News::Logs(Picked { batch, indices: None })
    }

    fn vars(revision: u64) -> News {
        let document = Document { revision, epoch: "e".into(), wanted: vec![] };
        News::Vars(Arc::new(LiveVars { document: Some(document), devices: vec![] }))
    }

    fn composed(news: &[News], head: &mut Head) -> Vec<Value> {
        let (from, to) = (Cursor("e.0".into()), Cursor("e.9".into()));
        let frames = compose(news, Some(&from), Some(&to), head);
        frames.iter().map(|frame| serde_json::from_str(frame).unwrap()).collect()
    }

    #[test]
    fn records_of_many_events_share_a_frame() {
        let frames = composed(&[logs(1, &[1, 1]), logs(2, &[1])], &mut Head::default());
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0]["items"].as_array().unwrap().len(), 3);
        assert_eq!(frames[0]["cursor"], "e.2");
    }

    #[test]
    fn a_frame_in_the_middle_of_an_event_has_the_cursor_before_it() {
        let large = FRAME_BYTES_TARGET / 2;
        let news = [logs(1, &[large, large]), logs(2, &[large])];
        let frames = composed(&news, &mut Head::default());
        let cursors: Vec<_> = frames.iter().map(|frame| frame["cursor"].clone()).collect();
        assert_eq!(cursors, [json!("e.0"), json!("e.1"), json!("e.2")]);
    }

    #[test]
    fn a_gap_keeps_its_place_among_records() {
        let gap = News::Gap {
            count: Some(7),
            reason: GapReason::SlowViewer,
            cursor: Some(Cursor("e.4".into())),
        };
        let frames = composed(&[logs(1, &[1]), gap, logs(5, &[1])], &mut Head::default());
        let kinds: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["logs", "gap", "logs"]);
        let gap = json!({ "type": "gap", "cursor": "e.4", "count": 7, "reason": "slow_viewer" });
        assert_eq!(frames[1], gap);
    }

    #[test]
    fn a_document_never_goes_back() {
        let mut head = Head::default();
        let frames = composed(&[vars(3), vars(2)], &mut head);
        assert_eq!((frames.len(), &frames[0]["revision"]), (1, &json!(3)));
        assert!(composed(&[vars(1)], &mut head).is_empty());
        assert_eq!(composed(&[vars(4)], &mut head)[0]["revision"], 4);
    }

    #[test]
    fn after_a_reset_nothing_older_is_told() {
        let frames = composed(&[vars(3), News::Reset], &mut Head::default());
        assert_eq!(frames, [json!({ "type": "reset", "cursor": "e.9" })]);
    }
}
