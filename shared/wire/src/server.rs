//! A line to a game, read as the game reads it: for SDKs and test clients.

use crate::answer::Code;
use crate::frame::Mid;
use crate::payload::Payload;

/// A line that a game may get. One that is none of these is to be ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerLine<'a> {
    /// `OK`: signed in with `v:`.
    SignedIn,
    /// `OK <mid>`: the line is safe.
    Ok(&'a str),
    /// `ERR <code> <mid or -> <retry_ms or -> <words>`.
    Error {
        /// The code, as it came: a later release may have more.
        code: &'a str,
        /// The line that was refused, if it had a message id.
        mid: Option<&'a str>,
        /// When to send it again.
        retry_ms: Option<u32>,
        /// For people.
        words: &'a str,
    },
    /// `h:<key>:<json>`: the answer to a hello, or that its epoch changed.
    Welcome(Payload<'a>),
    /// `v:<key>:<json>` and, at level 2, `:<rev>:<base>`.
    Wanted {
        /// Variables.
        payload: Payload<'a>,
        /// Revision and base.
        place: Option<(u64, u64)>,
    },
    /// `g:<key>:<json>`: what to send.
    Sending(Payload<'a>),
    /// `p:<n>`: an echo, or to be echoed.
    Ping,
    /// `x:<code>:<retry_ms>`: the socket is about to close.
    Close {
        /// Why; a later release may have more codes.
        code: &'a str,
        /// When to come back; 0 is not again in this run.
        retry_ms: u32,
    },
}

impl<'a> ServerLine<'a> {
    /// Reads a line without its end; `None` for one that is to be ignored.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        if line == "OK" {
            return Some(Self::SignedIn);
        }
        if let Some(mid) = line.strip_prefix("OK ") {
            return Some(Self::Ok(mid));
        }
        if let Some(rest) = line.strip_prefix("ERR ") {
            return parse_error(rest);
        }
        let (tag, rest) = line.split_once(':')?;
        match tag {
            "p" => Some(Self::Ping),
            "x" => {
                let (code, retry_ms) = rest.split_once(':')?;
                Some(Self::Close { code, retry_ms: retry_ms.parse().ok()? })
            }
            "h" | "g" | "v" => {
                let (_key, rest) = rest.split_once(':')?;
                let (payload, tail) = split_payload(rest)?;
                match tag {
                    "h" => Some(Self::Welcome(payload)),
                    "g" => Some(Self::Sending(payload)),
                    _ => Some(Self::Wanted { payload, place: parse_place(tail)? }),
                }
            }
            _ => None,
        }
    }

    /// The code of a refusal or a close, if this release knows it.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Error { code, .. } | Self::Close { code, .. } => Code::named(code),
            Self::SignedIn
            | Self::Ok(_)
            | Self::Welcome(_)
            | Self::Wanted { .. }
            | Self::Sending(_)
            | Self::Ping => None,
        }
    }
}

fn parse_error(rest: &str) -> Option<ServerLine<'_>> {
    let mut parts = rest.splitn(4, ' ');
    let code = parts.next()?;
    let mid = parts.next().filter(|mid| *mid != "-");
    let retry_ms = parts.next()?;
    let retry_ms = if retry_ms == "-" { None } else { Some(retry_ms.parse().ok()?) };
    if mid.is_some_and(|mid| Mid::parse(mid.as_bytes()).is_err()) {
        return None;
    }
    Some(ServerLine::Error { code, mid, retry_ms, words: parts.next().unwrap_or_default() })
}

/// Plain JSON ends at the last bracket, base64 at a colon.
fn split_payload(rest: &str) -> Option<(Payload<'_>, &str)> {
    if rest.starts_with(['[', '{']) {
        let end = rest.rfind([']', '}'])? + 1;
        return Some((Payload::Json(&rest.as_bytes()[..end]), &rest[end..]));
    }
    let end = rest.find(':').unwrap_or(rest.len());
    Some((Payload::Base64(&rest.as_bytes()[..end]), &rest[end..]))
}

#[expect(clippy::option_option, reason = "none is no place, and the outer one no line")]
fn parse_place(tail: &str) -> Option<Option<(u64, u64)>> {
    if tail.is_empty() {
        return Some(None);
    }
    let (rev, base) = tail.strip_prefix(':')?.split_once(':')?;
    Some(Some((rev.parse().ok()?, base.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::answer::{Refusal, write_close, write_error, write_ok};
    use crate::edit::write_wanted;
    use crate::hello::Encoding;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap().trim_end().to_owned()
    }

    #[test]
    fn lines_to_a_game_are_told_apart() {
        assert_eq!(ServerLine::parse("OK"), Some(ServerLine::SignedIn));
        assert_eq!(ServerLine::parse("p:7"), Some(ServerLine::Ping));
        let plain = Payload::Json(b"{\"a\":1}");
        assert_eq!(ServerLine::parse("h:k:{\"a\":1}"), Some(ServerLine::Welcome(plain)));
        assert_eq!(ServerLine::parse("g:k:{\"a\":1}"), Some(ServerLine::Sending(plain)));
        let payload = Payload::Base64(b"W10=");
        let level_1 = ServerLine::Wanted { payload, place: None };
        assert_eq!(ServerLine::parse("v:k:W10="), Some(level_1));
        for unknown in ["", "hello", "z:1", "v:k:W10=:7", "x:idle", "ERR busy"] {
            assert_eq!(ServerLine::parse(unknown), None, "{unknown}");
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            mid in "[A-Za-z0-9_][A-Za-z0-9_-]{0,63}", retry_ms in any::<Option<u32>>(), words in "[ -~]{1,40}",
            (rev, base) in any::<(u64, u64)>(), plain: bool,
        ) {
            let id = Mid::parse(mid.as_bytes()).ok();
            let mut out = Vec::new();
            write_ok(&mut out, id.unwrap());
            let line = text(out);
            prop_assert_eq!(ServerLine::parse(&line), Some(ServerLine::Ok(&mid)));

            let mut out = Vec::new();
            write_error(&mut out, &Refusal::new(Code::Busy, words.clone()), id, retry_ms);
            let line = String::from_utf8(out).unwrap();
            let error =
                ServerLine::Error { code: "busy", mid: Some(&mid), retry_ms, words: &words };
            prop_assert_eq!(ServerLine::parse(line.strip_suffix('\n').unwrap()), Some(error));

            let mut out = Vec::new();
            write_close(&mut out, Code::Idle, retry_ms.unwrap_or(7));
            let line = text(out);
            let closed = ServerLine::parse(&line).unwrap();
            prop_assert_eq!(closed.code(), Some(Code::Idle));

            let mut out = Vec::new();
            let encoding = if plain { Encoding::Plain } else { Encoding::Base64 };
            let mut payload = Vec::new();
            encoding.write(b"[{\"a\":\"x]\"}]", &mut payload);
            write_wanted(&mut out, "0123456789ab".parse().unwrap(), &payload, (rev, base));
            let line = text(out);
            let Some(ServerLine::Wanted { payload, place }) = ServerLine::parse(&line) else {
                return Err(TestCaseError::fail(line));
            };
            prop_assert_eq!(place, Some((rev, base)));
            let mut scratch = Vec::new();
            prop_assert_eq!(payload.decode(&mut scratch).unwrap(), "[{\"a\":\"x]\"}]");
        }

        #[test]
        fn any_text_is_read_or_ignored_without_a_panic(text in ".{0,80}") {
            let _read = ServerLine::parse(&text);
        }
    }
}
