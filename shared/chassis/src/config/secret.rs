//! A setting that must not be seen.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};

/// What is shown in place of a secret.
pub(super) const REDACTED: &str = "***";

/// Name under which [`Secret`] asks the loader for its value, so that errors do not show it.
pub(super) const SECRET_NAME: &str = "observer.Secret";

/// A setting that must not be seen: a password, or an address that may hold one.
///
/// `Debug` and `Serialize` hide it. Error texts of the loader hide it. Code that passes it on says
/// [`expose`](Self::expose), which is easy to look for.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename = "observer.Secret")]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}
