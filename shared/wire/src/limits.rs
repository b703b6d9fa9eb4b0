//! What a game may send and what a process may hold. Each bound has a name, a unit and a reason.

use serde::{Deserialize, Serialize};

/// Longest line a game may send by default, in bytes, without its newline.
///
/// Past it we cannot tell where the next frame starts, so the session ends.
pub const LINE_BYTES_MAX: usize = 384 * 1024;

/// Deepest nesting that any setting may allow: the JSON parser's own recursion bound, with room.
pub const JSON_DEPTH_CEILING: u32 = 100;

/// Most records that any setting may allow in a line: a record id has three hex digits for the index.
pub const LINE_RECORDS_CEILING: usize = 4095;

/// Seconds of a rate that may come at once, after a time of silence: every bound of a second (`*_s_max`)
/// is one of two seconds, so that whoever gathers for a second is not refused.
pub const RATE_BURST_SECS: usize = 2;

/// What a waiting line takes besides its own bytes, generously.
const LINE_HEAD_BYTES: usize = 1024;

/// Bounds of a process: section `[limits]`, or `OBSERVER_LIMITS__<NAME>` in the environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest line, in bytes. A longer one loses framing: the socket closes.
    pub line_bytes_max: usize,
    /// Most records in one `l:` line. One batch of the store stays small.
    pub line_records_max: usize,
    /// Most variables in one `i:` line.
    pub line_vars_max: usize,
    /// Deepest nesting of a payload, the outer array counted. Parsers downstream recurse.
    pub json_depth_max: u32,
    /// Longest variable name, in bytes.
    pub name_bytes_max: usize,
    /// Longest variable value, in bytes of its text.
    pub value_bytes_max: usize,
    /// Time from connect to a good sign-in, in seconds.
    pub sign_in_secs_max: u64,
    /// Time that TLS and the upgrade to a WebSocket may take, in seconds. A good one takes
    /// milliseconds.
    pub handshake_secs_max: u64,
    /// Such handshakes under way at once, in one process. Past it the oldest ends.
    pub handshakes_max: usize,
    /// Time from a line's first byte to its newline, in seconds.
    pub started_line_secs_max: u64,
    /// Lines of one socket that wait for their outcome. At the bound the socket is not read.
    pub unsettled_lines_max: usize,
    /// Bytes that wait to be written to one socket. Past it the socket closes (`slow_reader`).
    pub output_bytes_max: usize,
    /// Time in which a game must take something of what waits to be written to it, in seconds. Past it
    /// the socket closes (`slow_reader`): the kernel's own buffers are full before anything waits here.
    pub output_secs_max: u64,
    /// Sockets at once from one address. Loopback too: raise it for load tests.
    pub address_sockets_max: usize,
    /// Sockets at once of one key, on one gateway. Raise it for load tests.
    pub key_sockets_max: usize,
    /// Lines a second of one key, of any kind, on one gateway. Past it a line is refused (`rate`) and
    /// its socket not read for a while. More than two cores take; lower it where many share a gateway.
    pub key_lines_s_max: usize,
    /// Bytes of lines a second of one key, on one gateway. Past it as `key_lines_s_max`.
    pub key_bytes_s_max: usize,
    /// Sign-ins of sockets a second with one key, on one gateway. Past it the socket is told, and closed.
    pub key_connects_s_max: usize,
    /// Connections a second from one address. Past it nothing is done for one but to close it. Loopback
    /// too: raise it for load tests.
    pub address_connects_s_max: usize,
    /// Those of them that want TLS or a WebSocket, which cost a handshake.
    pub address_handshakes_s_max: usize,
    /// Lines a second from one address, over all its sockets that are not signed in.
    pub address_lines_s_max: usize,
    /// Bytes of lines that wait in one process for their outcome or for their end, over all sockets. The
    /// first 16 KiB of each socket lie outside.
    pub waiting_bytes_max: usize,
    /// Part of `waiting_bytes_max` that one project may use, in percent.
    pub project_waiting_percent_max: usize,
    /// Size of the wanted document of a project, in bytes of JSON.
    pub document_bytes_max: usize,
    /// Reported variables of one device.
    pub device_vars_max: usize,
    /// Different variable names of one project, wanted and reported.
    pub project_names_max: usize,
    /// Devices of one project that are kept, online and gone.
    pub project_devices_max: usize,
    /// Edits in one `PATCH`.
    pub edit_changes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line_bytes_max: LINE_BYTES_MAX,
            line_records_max: 500,
            line_vars_max: 200,
            json_depth_max: 32,
            name_bytes_max: 128,
            value_bytes_max: 16 * 1024,
            sign_in_secs_max: 60,
            handshake_secs_max: 10,
            handshakes_max: 1_024,
            started_line_secs_max: 30,
            unsettled_lines_max: 32,
            output_bytes_max: 1024 * 1024,
            output_secs_max: 8,
            address_sockets_max: 200,
            key_sockets_max: 2_000,
            key_lines_s_max: 500_000,
            key_bytes_s_max: 1024 * 1024 * 1024,
            key_connects_s_max: 10_000,
            address_connects_s_max: 10_000,
            address_handshakes_s_max: 2_000,
            address_lines_s_max: 20_000,
            waiting_bytes_max: 256 * 1024 * 1024,
            project_waiting_percent_max: 25,
            document_bytes_max: 128 * 1024,
            device_vars_max: 1_000,
            project_names_max: 10_000,
            project_devices_max: 20_000,
            edit_changes_max: 1_000,
        }
    }
}

impl Limits {
    /// Part of `waiting_bytes_max` that one project may use, in bytes.
    #[must_use]
    pub fn project_waiting_bytes_max(&self) -> usize {
        self.waiting_bytes_max / 100 * self.project_waiting_percent_max
    }

    /// Names the first limit that cannot work, with what would; `None` when all can.
    #[must_use]
    pub fn first_unworkable(&self) -> Option<(&'static str, String)> {
        let positive = [
            ("line_records_max", self.line_records_max),
            ("line_vars_max", self.line_vars_max),
            ("name_bytes_max", self.name_bytes_max),
            ("value_bytes_max", self.value_bytes_max),
            ("unsettled_lines_max", self.unsettled_lines_max),
            ("address_sockets_max", self.address_sockets_max),
            ("key_sockets_max", self.key_sockets_max),
            ("handshakes_max", self.handshakes_max),
            ("key_lines_s_max", self.key_lines_s_max),
            ("key_connects_s_max", self.key_connects_s_max),
            ("address_connects_s_max", self.address_connects_s_max),
            ("address_handshakes_s_max", self.address_handshakes_s_max),
            ("address_lines_s_max", self.address_lines_s_max),
            ("edit_changes_max", self.edit_changes_max),
            ("project_devices_max", self.project_devices_max),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Some((name, "must be at least 1".into()));
        }
        if self.line_bytes_max < 64 {
            return Some(("line_bytes_max", "must be at least 64".into()));
        }
        if !(1..=LINE_RECORDS_CEILING).contains(&self.line_records_max) {
            return Some(("line_records_max", format!("must be at most {LINE_RECORDS_CEILING}")));
        }
        if !(2..=JSON_DEPTH_CEILING).contains(&self.json_depth_max) {
            return Some(("json_depth_max", format!("must be 2 to {JSON_DEPTH_CEILING}")));
        }
        if !(1..=100).contains(&self.project_waiting_percent_max) {
            return Some(("project_waiting_percent_max", "must be 1 to 100".into()));
        }
        if self.key_bytes_s_max.saturating_mul(RATE_BURST_SECS) < self.line_bytes_max {
            let words = "must let the longest line through (limits.line_bytes_max), in two seconds";
            return Some(("key_bytes_s_max", words.into()));
        }
        let line = self.line_bytes_max.saturating_add(LINE_HEAD_BYTES);
        if self.project_waiting_bytes_max() < line {
            return Some((
                "waiting_bytes_max",
                "must leave a project room for one line (limits.line_bytes_max)".into(),
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_work() {
        assert_eq!(Limits::default().first_unworkable(), None);
    }

    #[test]
    fn a_limit_that_cannot_work_is_named() {
        let limits = Limits { json_depth_max: 101, ..Limits::default() };
        assert_eq!(limits.first_unworkable().unwrap().0, "json_depth_max");
        let limits = Limits { waiting_bytes_max: 1024, ..Limits::default() };
        assert_eq!(limits.first_unworkable().unwrap().0, "waiting_bytes_max");
        let line = LINE_BYTES_MAX + LINE_HEAD_BYTES;
        let waiting = |bytes: usize| Limits {
            waiting_bytes_max: bytes.next_multiple_of(100),
            project_waiting_percent_max: 100,
            ..Limits::default()
        };
        assert_eq!(waiting(line).first_unworkable(), None);
        assert_eq!(waiting(line - 100).first_unworkable().unwrap().0, "waiting_bytes_max");
    }

    #[test]
    fn a_key_may_send_the_longest_line_at_once() {
        let with = |key_bytes_s_max| Limits { key_bytes_s_max, ..Limits::default() };
        let least = LINE_BYTES_MAX / RATE_BURST_SECS;
        assert_eq!(with(least - 1).first_unworkable().unwrap().0, "key_bytes_s_max");
        assert_eq!(with(least).first_unworkable(), None);
    }
}
