//! A line becomes a frame: its tag, its key, its payload and its message id, all still borrowed.
//!
//! What the payload says is not looked at here: see [`crate::records`] and [`crate::declare`].

use crate::answer::{Code, Refusal};
use crate::key::ApiKey;
use crate::payload::Payload;

/// Longest message id, in bytes.
pub const MID_BYTES_MAX: usize = 64;

/// A message id: 1 to 64 characters of `[A-Za-z0-9_-]`, made by the game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mid<'a>(&'a str);

impl<'a> Mid<'a> {
    /// Reads a message id.
    ///
    /// # Errors
    ///
    /// [`Code::BadMid`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let good = (1..=MID_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        match std::str::from_utf8(bytes) {
            Ok(text) if good => Ok(Self(text)),
            Ok(_) | Err(_) => Err(Refusal::new(
                Code::BadMid,
                "a message id is 1 to 64 characters of A-Z, a-z, 0-9, _ and -",
            )),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

/// A line that a game may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `v:<key>`: sign in. `None` when the text can be no key; the answer is that of an unknown one.
    SignIn {
        /// The key, if it can be one.
        key: Option<ApiKey>,
    },
    /// `l:<key>:<json>[:<mid>]`: log records.
    Logs(Body<'a>),
    /// `i:<key>:<json>[:<mid>]`: variables as they are on the device.
    Vars(Body<'a>),
    /// `h:<key>:<json>`: sign in, and say who is there: [`crate::hello`].
    Hello(Body<'a>),
    /// `n:<key>:<json>[:<mid>]`: what the game had to drop: [`crate::dropped`].
    Dropped(Body<'a>),
    /// `d:<key>:back`, `front` or `bye`: what becomes of the game.
    State {
        /// The key, if the text can be one.
        key: Option<ApiKey>,
        /// What becomes of it.
        state: GameState,
    },
    /// `p:<n>`: echoed back as it is.
    Ping {
        /// The whole line.
        line: &'a [u8],
    },
    /// `a:`, `r:`, `s:` or `f:`: lines of a later release. They are known so that they are not taken
    /// for something else.
    Later {
        /// The letter.
        tag: char,
    },
}

/// What becomes of the game, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GameState {
    /// It went to the background, and may be silent or gone from now on.
    Back,
    /// It came back.
    Front,
    /// It is ending.
    Bye,
}

/// What `l:`, `i:`, `h:` and `n:` lines carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body<'a> {
    /// The key, if the text can be one.
    pub key: Option<ApiKey>,
    /// The payload, still encoded.
    pub payload: Payload<'a>,
    /// Asks for an acknowledgement.
    pub mid: Option<Mid<'a>>,
}

/// A line was refused while its message id was already known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLine<'a> {
    /// Why.
    pub refusal: Refusal,
    /// The line's message id, for the answer.
    pub mid: Option<Mid<'a>>,
}

impl From<Refusal> for RefusedLine<'_> {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, mid: None }
    }
}

impl<'a> Frame<'a> {
    /// Reads a line that was trimmed and is not empty.
    ///
    /// # Errors
    ///
    /// [`Code::UnknownLine`], [`Code::BadMid`], [`Code::BadShape`], or [`Code::BadJson`] for words
    /// behind plain JSON.
    pub fn parse(line: &'a [u8]) -> Result<Self, RefusedLine<'a>> {
        let Some((tag, rest)) = split_field(line) else {
            return Err(unknown_line().into());
        };
        match tag {
            b"v" => Ok(Self::SignIn { key: ApiKey::parse(rest).ok() }),
            b"l" => parse_body(rest).map(Self::Logs),
            b"i" => parse_body(rest).map(Self::Vars),
            b"h" => parse_body(rest).map(Self::Hello),
            b"n" => parse_body(rest).map(Self::Dropped),
            b"d" => parse_state(rest),
            b"p" => Ok(Self::Ping { line }),
            b"a" | b"r" | b"s" | b"f" => Ok(Self::Later { tag: char::from(tag[0]) }),
            _ => Err(unknown_line().into()),
        }
    }

    /// The line's message id, for an answer.
    #[must_use]
    pub fn mid(&self) -> Option<Mid<'a>> {
        match self {
            Self::Logs(body) | Self::Vars(body) | Self::Hello(body) | Self::Dropped(body) => {
                body.mid
            }
            Self::SignIn { .. } | Self::State { .. } | Self::Ping { .. } | Self::Later { .. } => {
                None
            }
        }
    }
}

fn unknown_line() -> Refusal {
    let words = "lines begin with v:<key>, h:<key>:, l:<key>:, i:<key>:, n:<key>:, d:<key>: or p:";
    Refusal::new(Code::UnknownLine, words)
}

fn parse_state(rest: &[u8]) -> Result<Frame<'_>, RefusedLine<'_>> {
    let (key, word) = split_field(rest).unwrap_or((rest, b""));
    let state = match word {
        b"back" => GameState::Back,
        b"front" => GameState::Front,
        b"bye" => GameState::Bye,
        _ => {
            let words = "after the key comes back, front or bye, as d:<key>:back";
            return Err(Refusal::new(Code::BadShape, words).into());
        }
    };
    Ok(Frame::State { key: ApiKey::parse(key).ok(), state })
}

fn split_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', bytes)?;
    Some((&bytes[..colon], &bytes[colon + 1..]))
}

fn parse_body(rest: &[u8]) -> Result<Body<'_>, RefusedLine<'_>> {
    let (key, rest) = split_field(rest).ok_or_else(|| {
        Refusal::new(Code::BadShape, "after the key comes a colon and the payload")
    })?;
    let key = ApiKey::parse(key).ok();
    let (payload, mid) = if matches!(rest.first(), Some(b'[' | b'{')) {
        split_json(rest)?
    } else {
        match split_field(rest) {
            Some((payload, mid)) => (Payload::Base64(payload), Some(mid)),
            None => (Payload::Base64(rest), None),
        }
    };
    let mid = mid.map(Mid::parse).transpose()?;
    Ok(Body { key, payload, mid })
}

/// Plain JSON ends at the line's last bracket: no message id holds one.
fn split_json(rest: &[u8]) -> Result<(Payload<'_>, Option<&[u8]>), RefusedLine<'_>> {
    let Some(end) = memchr::memrchr2(b']', b'}', rest) else {
        return Err(Refusal::new(Code::BadJson, "the JSON has no end").into());
    };
    let (json, tail) = rest.split_at(end + 1);
    match tail.split_first() {
        None => Ok((Payload::Json(json), None)),
        Some((b':', mid)) => Ok((Payload::Json(json), Some(mid))),
        Some(_) => Err(Refusal::new(
            Code::BadJson,
            "after the JSON comes nothing, or a colon and a message id",
        )
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "0123456789ab";

    fn body(line: &str) -> Result<Body<'_>, Code> {
        match Frame::parse(line.as_bytes()) {
            Ok(Frame::Logs(body)) => Ok(body),
            Ok(other) => panic!("not a log line: {other:?}"),
            Err(refused) => Err(refused.refusal.code),
        }
    }

    #[test]
    fn a_sign_in_carries_its_key() {
        let key = ApiKey::parse(KEY.as_bytes()).ok();
        assert_eq!(Frame::parse(b"v:0123456789ab"), Ok(Frame::SignIn { key }));
        assert_eq!(Frame::parse(b"v:short"), Ok(Frame::SignIn { key: None }));
        assert_eq!(Frame::parse(b"v:"), Ok(Frame::SignIn { key: None }));
    }

    #[test]
    fn a_payload_is_base64_unless_it_begins_like_json() {
        let cases = [
            ("l:0123456789ab:W10=", Payload::Base64(b"W10="), None),
            ("l:0123456789ab:W10=:m-1", Payload::Base64(b"W10="), Some("m-1")),
            ("l:0123456789ab:[]", Payload::Json(b"[]"), None),
            (
                "l:0123456789ab:[{\"a\":\":x\"}]:m_1",
                Payload::Json(b"[{\"a\":\":x\"}]"),
                Some("m_1"),
            ),
            ("l:0123456789ab:{\"a\":1}:1", Payload::Json(b"{\"a\":1}"), Some("1")),
            ("l:0123456789ab:", Payload::Base64(b""), None),
        ];
        for (line, payload, mid) in cases {
            let body = body(line).unwrap();
            assert_eq!(body.payload, payload, "{line}");
            assert_eq!(body.mid.map(|mid| mid.as_str()), mid, "{line}");
        }
    }

    #[test]
    fn lines_of_level_2_are_told_apart() {
        let key = ApiKey::parse(KEY.as_bytes()).ok();
        let body = Body { key, payload: Payload::Json(b"{}"), mid: None };
        assert_eq!(Frame::parse(b"h:0123456789ab:{}"), Ok(Frame::Hello(body)));
        assert_eq!(Frame::parse(b"n:0123456789ab:{}"), Ok(Frame::Dropped(body)));
        for (line, state) in [
            ("d:0123456789ab:back", GameState::Back),
            ("d:0123456789ab:front", GameState::Front),
            ("d:0123456789ab:bye", GameState::Bye),
        ] {
            assert_eq!(Frame::parse(line.as_bytes()), Ok(Frame::State { key, state }));
        }
        for line in ["a:0123456789ab:7", "r:x", "s:", "f:0123456789ab:…"] {
            let tag = line.chars().next().unwrap();
            assert_eq!(Frame::parse(line.as_bytes()), Ok(Frame::Later { tag }));
        }
    }

    #[test]
    fn a_line_that_is_no_frame_is_refused_by_name() {
        for (line, code) in [
            ("hello", Code::UnknownLine),
            ("z:0123456789ab:x", Code::UnknownLine),
            ("l:0123456789ab", Code::BadShape),
            ("h:0123456789ab", Code::BadShape),
            ("d:0123456789ab", Code::BadShape),
            ("d:0123456789ab:sleep", Code::BadShape),
            ("l:0123456789ab:[1", Code::BadJson),
            ("l:0123456789ab:[1] x", Code::BadJson),
            ("l:0123456789ab:W10=:", Code::BadMid),
            ("l:0123456789ab:W10=:a b", Code::BadMid),
            ("l:0123456789ab:W10=:a:b", Code::BadMid),
        ] {
            assert_eq!(body(line), Err(code), "{line}");
        }
    }

    #[test]
    fn a_message_id_has_at_most_64_characters() {
        let longest = "x".repeat(MID_BYTES_MAX);
        assert_eq!(Mid::parse(longest.as_bytes()).unwrap().as_str(), longest);
        assert!(Mid::parse("x".repeat(MID_BYTES_MAX + 1).as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_frame_or_refused_without_a_panic(
            tag in prop_oneof![Just("h:"), Just("d:"), Just("n:"), Just("l:"), Just("a:"), Just("")],
            rest in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let line = [tag.as_bytes(), &rest].concat();
            let _parsed = Frame::parse(&line);
        }
    }
}
