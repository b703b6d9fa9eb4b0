//! First hop of the path, from the game's side: a device as the demo and the prompt play it.
//!
//! ```text
//! player ──> outbox ──> socket ──> gateway
//! player <── variables <── heard <──┘
//! ```
//!
//! - [`heard`] reads what the server says, [`values`] holds the variables and obeys edits.
//! - [`outbox`] keeps each line until it is answered, and gives it again after a reconnect.
//! - [`socket`] is the TCP connection, [`play`] keeps one open and moves lines both ways.
//!
//! What a device says is the player's business: [`crate::demo`] makes it up, [`crate::prompt`] asks a
//! person.

pub(crate) mod heard;
pub(crate) mod outbox;
pub(crate) mod play;
pub(crate) mod socket;
pub(crate) mod values;

use observer_chassis::BoxError;
use observer_wire::ApiKey;
use serde::Serialize;

use self::heard::{Edit, Heard};
use self::outbox::Outbox;
use self::values::{Outcome, Variables};

/// A device: its variables, and the lines that wait to be sent or answered.
pub(crate) struct Device {
    /// Its variables.
    pub(crate) variables: Variables,
    /// Its lines.
    pub(crate) outbox: Outbox,
}

impl Device {
    /// A device of the project that `key` opens.
    ///
    /// # Errors
    ///
    /// When the system gives no random bytes: message ids would not be unique.
    pub(crate) fn new(key: ApiKey, variables: Variables) -> Result<Self, BoxError> {
        let mut boot = [0; 6];
        getrandom::fill(&mut boot)?;
        let boot = ApiKey::from_random(boot); // Twelve hex digits serve as well here.
        Ok(Self { variables, outbox: Outbox::new(key, boot.as_str()) })
    }

    /// Queues records as one line.
    pub(crate) fn log<T: Serialize>(&mut self, records: &[T]) {
        self.outbox.push_records(records);
    }

    /// Queues what all variables are now: what a device says once it is signed in.
    pub(crate) fn report_all(&mut self) {
        let names = self.variables.names();
        self.report(&names);
    }

    /// Queues what the named variables are now.
    pub(crate) fn report(&mut self, names: &[String]) {
        for names in names.chunks(outbox::LINE_VARIABLES_MAX) {
            let declared: Vec<_> =
                names.iter().filter_map(|name| self.variables.get(name)).collect();
            if !declared.is_empty() {
                self.outbox.push_variables(names, &declared);
            }
        }
    }

    /// Obeys edits and reports at once what each variable is now.
    pub(crate) fn obey(&mut self, edits: &[Edit]) -> Vec<Outcome> {
        let outcomes: Vec<_> = edits.iter().map(|edit| self.variables.obey(edit)).collect();
        let mut names: Vec<String> = outcomes.iter().map(|outcome| outcome.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        self.report(&names);
        outcomes
    }

    /// Takes what the server said as far as it is about lines of this device.
    pub(crate) fn settle(&mut self, heard: &Heard, now: tokio::time::Instant) {
        match heard {
            Heard::Done { mid } => self.outbox.done(mid),
            Heard::Refused { mid: Some(mid), retry_ms, code, .. } => {
                // What was not accepted is said again: of a variable, what it is by then.
                let names = self.outbox.refused(mid, code, *retry_ms, now);
                self.report(&names);
            }
            Heard::Refused { mid: None, .. } | Heard::Fine | Heard::Edits(_) | Heard::Other(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::values::Variable;
    use super::*;

    const KEY: &str = "0123456789ab";

    fn device() -> Device {
        let mut variables = Variables::default();
        variables.declare(Variable::float("gravity", 9.8).range(0.0, 20.0));
        variables.declare(Variable::new("name", "string", "Ada"));
        Device::new(KEY.parse().unwrap(), variables).unwrap()
    }

    /// Lines that the device sends now, without what changes from one run to the next.
    fn sent(device: &mut Device) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = device.outbox.next_to_send(Instant::now()) {
            let end = line.rfind("]:").map_or(line.len(), |end| end + 1);
            lines.push(line[..end].trim_end().to_owned());
        }
        lines
    }

    fn hear(device: &mut Device, json: &str) -> Vec<String> {
        let heard = Heard::parse(&format!("v:{KEY}:{json}"), KEY.parse().unwrap());
        let Heard::Edits(edits) = heard else { panic!("no edits: {heard:?}") };
        device.obey(&edits);
        sent(device)
    }

    #[test]
    fn an_edit_is_answered_with_the_value_in_force() {
        let lines = hear(&mut device(), r#"[{"name":"gravity","type":"float","value":"3.50"}]"#);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].starts_with("i:0123456789ab:[{\"name\":\"gravity\""), "{}", lines[0]);
        assert!(lines[0].contains(r#""value":"3.5""#), "{}", lines[0]);
    }

    #[test]
    fn an_edit_out_of_range_is_clamped_and_the_answer_says_so() {
        let lines = hear(&mut device(), r#"{"name":"gravity","value":99}"#);
        assert!(lines[0].contains(r#""value":"20""#), "{}", lines[0]);
    }

    #[test]
    fn an_unset_variable_goes_back_to_its_default() {
        let mut device = device();
        hear(&mut device, r#"[{"name":"gravity","value":"1"}]"#);
        let lines = hear(&mut device, r#"[{"name":"gravity","unset":true}]"#);
        assert!(lines[0].contains(r#""value":"9.8""#), "{}", lines[0]);
    }

    #[test]
    fn edits_of_one_line_are_answered_in_one_line() {
        let edits = r#"[{"name":"gravity","value":"1"},{"name":"name","value":"Bo"}]"#;
        let lines = hear(&mut device(), edits);
        assert_eq!(lines.len(), 1);
        assert!(lines[0].contains(r#""value":"1""#) && lines[0].contains(r#""value":"Bo""#));
    }

    #[test]
    fn a_variable_that_was_refused_for_now_is_reported_as_it_is_by_then() {
        let mut device = device();
        device.report(&["gravity".to_owned()]);
        let line = device.outbox.next_to_send(Instant::now()).unwrap();
        let mid = line.trim_end().rsplit_once(':').unwrap().1.to_owned();
        device.obey(&[Edit::set("gravity", "2")]);
        let busy = Heard::parse(&format!("ERR busy {mid} 0 wait"), KEY.parse().unwrap());
        device.settle(&busy, Instant::now());
        let lines = sent(&mut device);
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|line| line.contains(r#""value":"2""#)), "{lines:?}");
    }

    #[test]
    fn the_echo_of_a_ping_is_not_echoed() {
        let mut device = device();
        device.settle(&Heard::parse("p:7", KEY.parse().unwrap()), Instant::now());
        assert!(sent(&mut device).is_empty());
    }
}
