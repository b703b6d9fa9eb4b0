//! A log record as lines for people: columns that stand below each other, then everything else.

use std::fmt::Write as _;

use serde_json::Value;

use crate::terminal::clean;

/// Width of the column of devices: enough to tell them apart.
const DEVICE_COLUMNS: usize = 12;

/// Width of the column of tags. A longer one pushes the message aside.
const TAG_COLUMNS: usize = 11;

/// Fields that have a place of their own, or say nothing to people.
const PLACED: [&str; 7] = ["message", "level", "tag", "stack", "timestamp", "observer", "frame"];

/// The record: one line, and one more for each line of its stack.
pub(super) fn record(item: &Value) -> String {
    let ours = &item["observer"];
    let text = |value: &Value| value.as_str().map(|text| clean(text).into_owned());
    let time =
        ours["received"].as_str().and_then(|time| time.get(11..23)).unwrap_or("--:--:--.---");
    let level = text(&ours["level"]).unwrap_or_default();
    let device: String =
        text(&ours["device"]).unwrap_or_default().chars().take(DEVICE_COLUMNS).collect();
    let tag = text(&item["tag"]).unwrap_or_default();
    let mut line =
        format!("{} {level:<5} {device:<DEVICE_COLUMNS$} {tag:<TAG_COLUMNS$}", clean(time));
    if let Some(message) = text(&item["message"]) {
        write!(line, " {message}").expect("a String takes what is written");
    }
    for (name, value) in item.as_object().into_iter().flatten() {
        if PLACED.contains(&name.as_str())
            && (value.is_string() || name == "observer" || value.is_number())
        {
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        write!(line, " {}={}", clean(name), clean(&value)).expect("a String takes what is written");
    }
    let mut line = line.trim_end().to_owned();
    for frame in item["stack"].as_str().unwrap_or_default().lines() {
        write!(line, "\n    | {}", clean(frame)).expect("a String takes what is written");
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(mut fields: Value) -> Value {
        fields["observer"] = json!({
            "id": "r1", "received": "2026-11-23T10:00:00.123Z", "level": "info",
            "device": "s-0123456789abcdef",
        });
        fields
    }

    #[test]
    fn columns_stand_below_each_other() {
        let first =
            record(&item(json!({ "message": "hi", "tag": "net", "ping_ms": 7, "level": "info" })));
        assert_eq!(first, "10:00:00.123 info  s-0123456789 net         hi ping_ms=7");
        let second = record(&item(json!({ "message": "hi" })));
        assert_eq!(first.find("hi"), second.find("hi"));
    }

    #[test]
    fn a_stack_follows_line_by_line() {
        let text = record(&item(json!({ "message": "boom", "stack": "a\nb" })));
        assert_eq!(text.lines().skip(1).collect::<Vec<_>>(), ["    | a", "    | b"]);
    }

    #[test]
    fn a_record_without_message_shows_its_fields() {
        assert!(record(&item(json!({ "x": { "y": 1 }, "z": "t" }))).ends_with(" x={\"y\":1} z=t"));
    }

    #[test]
    fn a_record_cannot_steer_the_terminal_nor_forge_a_line() {
        let text = record(&item(json!({ "message": "a\u{1b}[2J\nb", "n\n": "c" })));
        assert!(!text.contains(['\u{1b}', '\n']), "{text}");
    }
}
