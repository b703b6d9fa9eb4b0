//! Names that cannot be mixed up or leaked: the key a game signs in with, and the project it opens.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Length of a key and of a project id, in bytes.
pub const KEY_BYTES: usize = 12;

/// A text that is not twelve characters of `[A-Za-z0-9_-]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key is {KEY_BYTES} characters of A-Z, a-z, 0-9, _ and -")]
pub struct InvalidKey;

/// The key a game signs in with: twelve characters of `[A-Za-z0-9_-]`. `Debug` hides all but four.
///
/// Such a text is safe in a bus subject, an index alias and a Redis key; nothing else is ever put
/// there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApiKey([u8; KEY_BYTES]);

/// The id of a project: the text of its first key, but never a right to anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId([u8; KEY_BYTES]);

impl ApiKey {
    /// Reads a key from the bytes of a line.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] when length or alphabet are wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKey> {
        check(bytes).map(Self)
    }

    /// Makes a key from six random bytes: twelve lower-case hex digits.
    #[must_use]
    pub fn from_random(random: [u8; 6]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut key = [0; KEY_BYTES];
        for (pair, byte) in key.chunks_exact_mut(2).zip(random) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(key)
    }

    /// The key as text, for lines to the game.
    #[must_use]
    pub fn as_str(&self) -> &str {
        as_text(&self.0)
    }

    /// The project that this key founds when it is registered as a project's first key.
    #[must_use]
    pub fn founds(&self) -> ProjectId {
        ProjectId(self.0)
    }
}

impl ProjectId {
    /// Reads a project id.
    ///
    /// # Errors
    ///
    /// [`InvalidKey`] when length or alphabet are wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidKey> {
        check(bytes).map(Self)
    }

    /// The project's first key: what [`ApiKey::founds`] was asked of. It may have been revoked since.
    #[must_use]
    pub fn first_key(&self) -> ApiKey {
        ApiKey(self.0)
    }

    /// The id as text, for subjects, aliases and store keys.
    #[must_use]
    pub fn as_str(&self) -> &str {
        as_text(&self.0)
    }
}

fn check(bytes: &[u8]) -> Result<[u8; KEY_BYTES], InvalidKey> {
    let key: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| InvalidKey)?;
    let good = key.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    if good { Ok(key) } else { Err(InvalidKey) }
}

fn as_text(bytes: &[u8; KEY_BYTES]) -> &str {
    std::str::from_utf8(bytes).expect("checked to be ASCII when it was made")
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({}…)", &self.as_str()[..4])
    }
}

impl fmt::Debug for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProjectId({}…)", &self.as_str()[..4])
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

macro_rules! text_conversions {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = InvalidKey;
            fn from_str(text: &str) -> Result<Self, InvalidKey> {
                Self::parse(text.as_bytes())
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidKey;
            fn try_from(text: String) -> Result<Self, InvalidKey> {
                Self::parse(text.as_bytes())
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}
text_conversions!(ApiKey);
text_conversions!(ProjectId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_exactly_twelve_characters_of_its_alphabet() {
        assert!(ApiKey::parse(b"aZ09_-aZ09_-").is_ok());
        for bad in [&b""[..], b"12345678901", b"1234567890123", b"12345678901.", b"12345678901*"] {
            assert_eq!(ApiKey::parse(bad), Err(InvalidKey), "{}", bad.escape_ascii());
        }
        assert_eq!("üüüüüü".parse::<ProjectId>(), Err(InvalidKey));
    }

    #[test]
    fn debug_text_hides_most_of_a_key() {
        let key = ApiKey::from_random([0xab, 0xcd, 0xef, 1, 2, 3]);
        assert_eq!(key.as_str(), "abcdef010203");
        assert_eq!(format!("{key:?}"), "ApiKey(abcd…)");
    }
}
