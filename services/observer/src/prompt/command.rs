//! What a person types, read. Nothing is done about it here.

use serde_json::Value;
use serde_json::value::RawValue;

/// What can be typed.
pub(super) const HELP: &str = "\
log TEXT           send a log line; also trace, debug, info, warn, error, fatal TEXT
log {JSON}         send a record with fields of your own, or an array of them
var NAME VALUE     declare or change a variable and report it: var gravity 9.8
vars               show the variables of this device
raw LINE           send a line exactly as it is
help, quit";

/// A command.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// An empty line.
    Nothing,
    /// A record with a message.
    Log {
        /// Its level.
        level: &'static str,
        /// Its message.
        text: String,
    },
    /// Records as they are.
    Records(Vec<Value>),
    /// A variable changes.
    Var {
        /// Its name.
        name: String,
        /// What it is now.
        value: String,
    },
    /// Show the variables.
    Vars,
    /// A line as it is.
    Raw(String),
    /// Show what can be typed.
    Help,
    /// End.
    Quit,
}

/// Reads a line; what is wrong with it comes in words.
pub(super) fn parse(line: &str) -> Result<Command, String> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim_start();
    match word {
        "" => Ok(Command::Nothing),
        "vars" => Ok(Command::Vars),
        "help" | "?" => Ok(Command::Help),
        "quit" | "exit" => Ok(Command::Quit),
        "raw" if !rest.is_empty() => Ok(Command::Raw(rest.to_owned())),
        "raw" => Err("raw what? For example: raw p:1".to_owned()),
        "var" | "set" => match rest.split_once(char::is_whitespace) {
            Some((name, value)) => {
                Ok(Command::Var { name: name.to_owned(), value: value.trim_start().to_owned() })
            }
            None => Err("a variable needs a name and a value: var gravity 9.8".to_owned()),
        },
        _ => match level(word) {
            Some(_) if rest.is_empty() => Err(format!("{word} what? For example: {word} hi")),
            Some(_) if rest.starts_with(['{', '[']) => records(rest),
            Some(level) => Ok(Command::Log { level, text: rest.to_owned() }),
            None => Err(format!("there is no command {word:?}; try: log hi, or help")),
        },
    }
}

fn level(word: &str) -> Option<&'static str> {
    match word {
        "log" | "info" => Some("info"),
        "trace" => Some("trace"),
        "debug" => Some("debug"),
        "warn" | "warning" => Some("warn"),
        "error" => Some("error"),
        "fatal" => Some("fatal"),
        _ => None,
    }
}

fn records(json: &str) -> Result<Command, String> {
    let records = match serde_json::from_str(json) {
        Ok(Value::Array(records)) => records,
        Ok(record) => vec![record],
        Err(error) => return Err(format!("no JSON: {error}")),
    };
    if records.iter().all(Value::is_object) {
        Ok(Command::Records(records))
    } else {
        Err("a record is a JSON object, such as {\"message\":\"hi\"}".to_owned())
    }
}

/// The type that a typed value most likely has.
pub(super) fn type_of(value: &str) -> &'static str {
    if value.starts_with('#') {
        return "color";
    }
    let raw = serde_json::from_str::<&RawValue>(value);
    raw.map_or("string", observer_wire::declare::type_of)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn commands_are_read() {
        let log = |level, text: &str| Command::Log { level, text: text.into() };
        let var = |name: &str, value: &str| Command::Var { name: name.into(), value: value.into() };
        for (line, command) in [
            ("", Command::Nothing),
            ("log hi there", log("info", "hi there")),
            ("  warn  low  ammo ", log("warn", "low  ammo")),
            ("error boom", log("error", "boom")),
            ("var gravity 9.8", var("gravity", "9.8")),
            ("var name  Ada Lovelace", var("name", "Ada Lovelace")),
            ("vars", Command::Vars),
            ("raw v:0123456789ab", Command::Raw("v:0123456789ab".into())),
            ("log {\"a\":1}", Command::Records(vec![json!({ "a": 1 })])),
            ("help", Command::Help),
            ("quit", Command::Quit),
        ] {
            assert_eq!(parse(line), Ok(command), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_answered_with_an_example() {
        for line in ["hello", "log", "raw", "var gravity", "log [1]", "log {a}"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn types_are_guessed_from_what_was_typed() {
        for (value, kind) in [
            ("9.8", "float"),
            ("-3", "integer"),
            ("true", "boolean"),
            ("Ada", "string"),
            ("#ffcc00", "color"),
            ("{\"a\":1}", "json"),
        ] {
            assert_eq!(type_of(value), kind, "{value}");
        }
    }
}
