//! The settings in effect, for people: what `--check-config` prints.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::secret::REDACTED;
use super::sources::Loaded;

impl<T: Serialize> Loaded<T> {
    /// One line for each setting: its dotted name, its value, and where it came from. Secrets are
    /// not shown.
    ///
    /// # Panics
    ///
    /// When the type of the settings cannot be written as JSON.
    #[must_use]
    pub fn describe(&self) -> String {
        let tree = serde_json::to_value(&self.settings).expect("settings are plain values");
        let mut text = String::new();
        self.describe_node("", &tree, &mut text);
        text
    }

    fn describe_node(&self, name: &str, node: &Value, text: &mut String) {
        if let Value::Object(fields) = node
            && !fields.is_empty()
        {
            for (field, node) in fields {
                let dot = if name.is_empty() { "" } else { "." };
                self.describe_node(&format!("{name}{dot}{field}"), node, text);
            }
            return;
        }
        let value = if node.is_null() {
            "(not set)".to_owned()
        } else if self.reading.secrets.contains(name) {
            REDACTED.to_owned()
        } else {
            node.to_string()
        };
        writeln!(text, "{name} = {value}  # {}", self.origin(name))
            .expect("writing to a String cannot fail");
    }
}

/// Prints to stdout, which is what the command was asked for.
pub(super) fn print(text: &str) {
    // A closed stdout leaves nobody to tell; the exit code still says that the settings are well.
    std::io::stdout().write_all(text.as_bytes()).ok();
}
