//! The payload of a `g:` line: what a game shall send from now on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Levels of records, the least important first.
pub const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "fatal"];

/// Tags with a level of their own, at most: more than a person keeps in mind.
pub const TAGS_MAX: usize = 64;

/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 128;

/// What a game shall send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// Records of this level and above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Levels of records with these tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Until when, in Unix milliseconds; then as the game does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<i64>,
    /// `false`: nothing at all, until the next `g:` or start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<bool>,
}

/// Why something cannot be asked for: the field, and what would be good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {words}")]
pub struct BadSending {
    /// The field to blame, as `tags.net`.
    pub field: String,
    /// What would be good.
    pub words: String,
}

impl Sending {
    /// Checks what types cannot.
    ///
    /// # Errors
    ///
    /// The first field that cannot be.
    pub fn check(&self) -> Result<(), BadSending> {
        let bad = |field: String, words: &str| Err(BadSending { field, words: words.to_owned() });
        let good = |level: &str| LEVELS.contains(&level);
        let levels = "must be trace, debug, info, warn, error or fatal";
        if self.level.is_none() && self.tags.is_empty() && self.send.is_none() {
            return bad("level".into(), "say at least one of level, tags and send");
        }
        if self.level.as_deref().is_some_and(|level| !good(level)) {
            return bad("level".into(), levels);
        }
        if TAGS_MAX < self.tags.len() {
            return bad("tags".into(), &format!("must name at most {TAGS_MAX} tags"));
        }
        for (tag, level) in &self.tags {
            if !(1..=TAG_BYTES_MAX).contains(&tag.len()) {
                return bad("tags".into(), &format!("a tag has 1 to {TAG_BYTES_MAX} bytes"));
            }
            if !good(level) {
                return bad(format!("tags.{tag}"), levels);
            }
        }
        if self.until.is_some_and(|until| until < 0) {
            return bad("until".into(), "must be Unix milliseconds");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(json: &str) -> Option<String> {
        let sending: Sending = serde_json::from_str(json).unwrap();
        sending.check().err().map(|bad| bad.field)
    }

    #[test]
    fn what_cannot_be_asked_for_is_named_by_its_field() {
        assert_eq!(blamed(r#"{"level":"debug","tags":{"net":"trace"},"until":5}"#), None);
        assert_eq!(blamed(r#"{"send":false}"#), None);
        assert_eq!(blamed("{}").as_deref(), Some("level"));
        assert_eq!(blamed(r#"{"level":"loud"}"#).as_deref(), Some("level"));
        assert_eq!(blamed(r#"{"tags":{"net":"loud"}}"#).as_deref(), Some("tags.net"));
        assert_eq!(blamed(r#"{"tags":{"":"info"}}"#).as_deref(), Some("tags"));
        assert_eq!(blamed(r#"{"send":true,"until":-1}"#).as_deref(), Some("until"));
    }

    #[test]
    fn tags_have_bounds() {
        let tags = |count: usize, bytes: usize| {
            let tags = (0..count).map(|n| (format!("{n:0bytes$}"), "info".to_owned())).collect();
            Sending { tags, ..Sending::default() }.check().is_ok()
        };
        assert!(tags(TAGS_MAX, TAG_BYTES_MAX));
        assert!(!tags(TAGS_MAX + 1, 4));
        assert!(!tags(1, TAG_BYTES_MAX + 1));
    }
}
