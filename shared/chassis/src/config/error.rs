//! Why settings cannot work: every text names the setting, where it came from and what would do.

use std::io;
use std::path::PathBuf;

use super::origin::Origin;

/// Why settings could not be loaded. Waiting or restarting will not help: somebody must change
/// them. Exit code 64.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file of settings cannot be read. Correct its name or its permissions.
    #[error("cannot read {}, named by {named_by}", path.display())]
    FileUnreadable {
        /// The file, as it was named.
        path: PathBuf,
        /// Which setting named it.
        named_by: String,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{} is not TOML", path.display())]
    FileMalformed {
        /// The file, as it was named.
        path: PathBuf,
        /// What the parser said, with the line.
        source: Box<toml::de::Error>,
    },
    /// No setting has this name.
    #[error("unknown setting `{name}` from {origin}{hint}")]
    UnknownSetting {
        /// The dotted name.
        name: String,
        /// Where it came from.
        origin: Origin,
        /// What was probably meant; may be empty.
        hint: String,
    },
    /// The value is none that this setting can have.
    #[error("setting `{name}` from {origin}{}: {reason}", shown(value.as_deref()))]
    BadValue {
        /// The dotted name.
        name: String,
        /// Where it came from.
        origin: Origin,
        /// The value, unless it is secret.
        value: Option<String>,
        /// What is expected.
        reason: String,
    },
    /// A setting without a default is not set.
    #[error("setting `{name}` is missing: set {} in the environment", variable(name))]
    Missing {
        /// The dotted name.
        name: String,
    },
    /// Two places of the same rank set the same setting. Remove one.
    #[error("setting `{name}` is set twice: by {first} and by {second}")]
    SetTwice {
        /// The dotted name.
        name: String,
        /// One of them.
        first: Origin,
        /// The other.
        second: Origin,
    },
    /// One place sets a value, another one sets values below it.
    #[error("`{name}` is a value by {first}, but a section by {second}")]
    ValueAndSection {
        /// The dotted name.
        name: String,
        /// Who sets a value.
        first: Origin,
        /// Who sets values below it.
        second: Origin,
    },
    /// Each setting is well, but together they cannot work.
    #[error("{invalid}{}", from(origin.as_ref()))]
    Invalid {
        /// What `validate` said.
        invalid: InvalidConfig,
        /// Where the named field came from; `None` when it is a default.
        origin: Option<Origin>,
    },
}

impl From<InvalidConfig> for ConfigError {
    fn from(invalid: InvalidConfig) -> Self {
        Self::Invalid { invalid, origin: None }
    }
}

/// A field that cannot work, and what would, in the words of [`Settings::validate`](super::Settings).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct InvalidConfig {
    field: String,
    problem: String,
}

impl InvalidConfig {
    /// `field` is the dotted name (`gateway.idle_timeout_secs`); `problem` goes on with the sentence
    /// and says what would work (`is 0, but must be at least 1`).
    #[must_use]
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }

    /// Dotted name of the field.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }
}

fn shown(value: Option<&str>) -> String {
    value.map(|value| format!(" is {value:?}")).unwrap_or_default()
}

fn from(origin: Option<&Origin>) -> String {
    origin.map(|origin| format!(" (from {origin})")).unwrap_or_default()
}

fn variable(name: &str) -> String {
    Origin::Variable("".into()).spell(name)
}
