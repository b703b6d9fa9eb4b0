//! What a game is told about a line: `OK`, `OK <mid>`, or `ERR` with a code that is a contract.

use std::borrow::Cow;

use crate::frame::Mid;

/// Why a line was refused. The name is sent to the game and used as a metric label; it is never
/// reworded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Code {
    /// A line before the sign-in. The socket stays.
    NotSignedIn,
    /// A line with another key than the one that signed in. The socket stays.
    WrongKey,
    /// The key was never registered. The socket closes.
    UnknownKey,
    /// The line is no frame that we know. The socket stays.
    UnknownLine,
    /// The payload is no base64, and does not begin like JSON either.
    BadBase64,
    /// The payload is no JSON, or no UTF-8.
    BadJson,
    /// The payload is JSON of another shape than the line needs.
    BadShape,
    /// The payload nests deeper than allowed.
    TooDeep,
    /// More records or variables than one line may carry.
    TooMany,
    /// A name or a value is larger than allowed.
    TooBig,
    /// The message id has another alphabet or length.
    BadMid,
    /// No newline within the limit: framing is lost, the socket closes.
    LineTooLong,
    /// Not accepted. Send it again, with the same mid, after the time given.
    Busy,
    /// Unknown whether accepted. Send it again with the same mid.
    Timeout,
    /// No sign-in, or a started line not ended, in time. The socket closes.
    Idle,
    /// The server stops. The socket closes; come back elsewhere.
    Draining,
    /// The game does not read what it is sent. The socket closes.
    SlowReader,
    /// Too many sockets of this key or this address. The socket closes.
    TooManySockets,
    /// The key was switched off or rotated away. The socket closes.
    Revoked,
    /// More lines or bytes a second than allowed. Send it again after the time given.
    Rate,
    /// The project used what it may use for now. Send it again after the time given.
    Quota,
    /// Dropped for good under pressure, the least important first. Count it, do not send it again.
    Shed,
    /// A newer socket of the same device and session took over. The socket closes.
    Replaced,
}

impl Code {
    /// Every code, for tables and metrics.
    pub const ALL: [Self; 23] = [
        Self::NotSignedIn,
        Self::WrongKey,
        Self::UnknownKey,
        Self::UnknownLine,
        Self::BadBase64,
        Self::BadJson,
        Self::BadShape,
        Self::TooDeep,
        Self::TooMany,
        Self::TooBig,
        Self::BadMid,
        Self::LineTooLong,
        Self::Busy,
        Self::Timeout,
        Self::Idle,
        Self::Draining,
        Self::SlowReader,
        Self::TooManySockets,
        Self::Revoked,
        Self::Rate,
        Self::Quota,
        Self::Shed,
        Self::Replaced,
    ];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSignedIn => "not_signed_in",
            Self::WrongKey => "wrong_key",
            Self::UnknownKey => "unknown_key",
            Self::UnknownLine => "unknown_line",
            Self::BadBase64 => "bad_base64",
            Self::BadJson => "bad_json",
            Self::BadShape => "bad_shape",
            Self::TooDeep => "too_deep",
            Self::TooMany => "too_many",
            Self::TooBig => "too_big",
            Self::BadMid => "bad_mid",
            Self::LineTooLong => "line_too_long",
            Self::Busy => "busy",
            Self::Timeout => "timeout",
            Self::Idle => "idle",
            Self::Draining => "draining",
            Self::SlowReader => "slow_reader",
            Self::TooManySockets => "too_many_sockets",
            Self::Revoked => "revoked",
            Self::Rate => "rate",
            Self::Quota => "quota",
            Self::Shed => "shed",
            Self::Replaced => "replaced",
        }
    }

    /// The code of a name on the wire.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.name() == name)
    }

    /// Whether the socket closes after this answer.
    #[must_use]
    pub fn closes(self) -> bool {
        matches!(
            self,
            Self::UnknownKey
                | Self::LineTooLong
                | Self::Idle
                | Self::Draining
                | Self::SlowReader
                | Self::TooManySockets
                | Self::Revoked
                | Self::Replaced
        )
    }
}

/// A line, or a payload, was refused: the code for programs, the words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {words}", code.name())]
pub struct Refusal {
    /// What kind of refusal; decides whether the socket stays.
    pub code: Code,
    /// A sentence that teaches, without line ends.
    pub words: Cow<'static, str>,
    /// When to come back, in milliseconds, where this refusal knows better than its code.
    pub retry_ms: Option<u32>,
}

impl Refusal {
    /// A refusal with words that teach.
    #[must_use]
    pub fn new(code: Code, words: impl Into<Cow<'static, str>>) -> Self {
        Self { code, words: words.into(), retry_ms: None }
    }

    /// The same; it helps to come back after `ms`.
    #[must_use]
    pub fn retry_after(mut self, ms: u32) -> Self {
        self.retry_ms = Some(ms);
        self
    }
}

/// Writes the answer to a good sign-in.
pub fn write_signed_in(out: &mut Vec<u8>) {
    out.extend_from_slice(b"OK\n");
}

/// Writes the answer to a line that is safe.
pub fn write_ok(out: &mut Vec<u8>, mid: Mid<'_>) {
    out.extend_from_slice(b"OK ");
    out.extend_from_slice(mid.as_str().as_bytes());
    out.push(b'\n');
}

/// Writes a refusal: `ERR <code> <mid or -> <retry_ms or -> <words>`.
pub fn write_error(
    out: &mut Vec<u8>,
    refusal: &Refusal,
    mid: Option<Mid<'_>>,
    retry_ms: Option<u32>,
) {
    out.extend_from_slice(b"ERR ");
    out.extend_from_slice(refusal.code.name().as_bytes());
    out.push(b' ');
    out.extend_from_slice(mid.map_or("-", |mid| mid.as_str()).as_bytes());
    out.push(b' ');
    match retry_ms {
        Some(ms) => out.extend_from_slice(ms.to_string().as_bytes()),
        None => out.push(b'-'),
    }
    out.push(b' ');
    // Words may quote what the game sent; a line end in them would forge an answer.
    let clean = refusal.words.chars().map(|char| if char.is_control() { ' ' } else { char });
    let mut utf8 = [0; 4];
    for char in clean {
        out.extend_from_slice(char.encode_utf8(&mut utf8).as_bytes());
    }
    out.push(b'\n');
}

/// Writes the last words to a game that said hello: `x:<code>:<retry_ms>`; 0 is "not again in this
/// run".
pub fn write_close(out: &mut Vec<u8>, code: Code, retry_ms: u32) {
    out.extend_from_slice(format!("x:{}:{retry_ms}\n", code.name()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(words: &'static str, mid: Option<Mid<'_>>, retry_ms: Option<u32>) -> String {
        let mut out = Vec::new();
        write_error(&mut out, &Refusal::new(Code::Busy, words), mid, retry_ms);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_error_is_one_line_whatever_its_words() {
        assert_eq!(error("wait\nOK 7", None, None), "ERR busy - - wait OK 7\n");
        let mid = Mid::parse(b"a-1").unwrap();
        assert_eq!(error("wait", Some(mid), Some(500)), "ERR busy a-1 500 wait\n");
    }

    #[test]
    fn no_two_codes_share_a_name() {
        let mut names: Vec<_> = Code::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Code::ALL.len());
        for code in Code::ALL {
            assert_eq!(Code::named(code.name()), Some(code));
        }
        assert_eq!(Code::named("well"), None);
    }

    #[test]
    fn last_words_are_a_code_and_a_time() {
        let mut out = Vec::new();
        write_close(&mut out, Code::Draining, 1500);
        assert_eq!(out, b"x:draining:1500\n");
    }
}
