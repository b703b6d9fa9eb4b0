//! The payload of an `h:` line: who signs in, and what that game can do; and the answer to it.
//!
//! Every field is optional, bounded and of one type. A field of another type is an error that names
//! it, an unknown field is ignored: later levels add some.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::answer::{Code, Refusal};
use crate::json;
use crate::limits::Limits;
use crate::payload;

/// Longest text of a hello, in bytes: an id, a name or a path, and no more.
pub const FIELD_BYTES_MAX: usize = 256;

/// Labels, and capabilities, of a hello at most. They are for people to filter by.
pub const LIST_MAX: usize = 16;

/// Longest hello, in bytes of its JSON: all fields at their bound fit, unknown ones beside them.
///
/// Anybody may send one, so it is looked at only as far as somebody could mean it.
pub const HELLO_BYTES_MAX: usize = 16 * 1024;

/// Shortest heartbeat, in milliseconds. Faster ones wake phones for nothing.
pub const HEARTBEAT_MS_MIN: u32 = 5_000;

/// Longest heartbeat, in milliseconds. Slower ones are forgotten by the routers on the way.
pub const HEARTBEAT_MS_MAX: u32 = 120_000;

/// Heartbeat of a game that asks for none.
pub const HEARTBEAT_MS_DEFAULT: u32 = 30_000;

/// What a game says about itself. What it does not give is as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Id of the installation, random, kept by the game across starts.
    pub device: Option<Box<str>>,
    /// One run of the game.
    pub session: Option<Box<str>>,
    /// What people know the device by.
    pub about: About,
    /// The device's clock, in Unix milliseconds.
    pub now: Option<i64>,
    /// Last revision of the wanted variables that the game applied.
    pub rev: Option<u64>,
    /// Epoch of `rev`.
    pub epoch: Option<Box<str>>,
    /// The heartbeat that it asks for, within the range.
    pub heartbeat_ms: Option<u32>,
    /// What this game's SDK can do.
    pub caps: Option<Caps>,
    /// These are lines of an earlier session, which were saved.
    pub replay: Option<Replay>,
}

/// What people know a device by: filters and columns, each at most [`FIELD_BYTES_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// What people call the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
    /// Who plays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Box<str>>,
    /// Words to find it by.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<Box<str>>,
    /// Version of the game.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub build: Option<Box<str>>,
    /// The commit that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<Box<str>>,
    /// The branch that it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<Box<str>>,
    /// `editor`, `debug` or `release`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<Box<str>>,
    /// `ios`, `windows`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Box<str>>,
    /// Name and version of the operating system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<Box<str>>,
    /// Model of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<Box<str>>,
    /// Engine and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Box<str>>,
    /// SDK and its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sdk: Option<Box<str>>,
    /// Language of the game.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lang: Option<Box<str>>,
    /// Scene or level at hand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scene: Option<Box<str>>,
}

/// How an earlier session ended, as its game found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// It did not say.
    Unknown,
    /// The game ended as it should.
    Clean,
    /// The system ended it in the background.
    Background,
    /// It crashed, or was killed.
    Abrupt,
}

/// What an SDK can do; nothing else is offered to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps(u8);

/// The letters of capabilities, each a line that the SDK understands or sends.
const CAPS: [&str; 5] = ["a", "c", "d", "g", "s"];

impl Caps {
    /// Whether the SDK named this letter.
    #[must_use]
    pub fn has(self, letter: &str) -> bool {
        CAPS.iter().position(|cap| *cap == letter).is_some_and(|at| self.0 & (1 << at) != 0)
    }

    fn add(&mut self, letter: &str) {
        if let Some(at) = CAPS.iter().position(|cap| *cap == letter) {
            self.0 |= 1 << at;
        }
    }
}

impl Hello {
    /// Reads a hello.
    ///
    /// # Errors
    ///
    /// [`Code::BadJson`], [`Code::BadShape`] or [`Code::TooBig`]; the words name the field.
    pub fn read(payload: &str, limits: &Limits) -> Result<Self, Refusal> {
        if HELLO_BYTES_MAX < payload.len() {
            let words = format!("a hello has at most {HELLO_BYTES_MAX} bytes of JSON");
            return Err(Refusal::new(Code::TooBig, words));
        }
        json::check_depth(payload, 1, limits)?;
        let value: Value = serde_json::from_str(payload).map_err(|error| json::bad_json(&error))?;
        let Value::Object(fields) = value else {
            let words = "a hello is an object, as {\"device\":\"…\",\"session\":\"…\"}";
            return Err(Refusal::new(Code::BadShape, words));
        };
        let fields = Fields(fields);
        Ok(Self {
            device: fields.id("device")?,
            session: fields.id("session")?,
            about: fields.about()?,
            now: fields.now()?,
            rev: fields.whole_number("rev")?,
            epoch: fields.text("epoch")?,
            heartbeat_ms: fields.heartbeat()?,
            caps: fields.caps()?,
            replay: fields.replay()?,
        })
    }

    /// Takes what a later hello of the same socket gives; what it does not give stays.
    pub fn update(&mut self, later: Self) {
        let Self { device, session, about, now, rev, epoch, heartbeat_ms, caps, replay } = later;
        if device.is_some() || session.is_some() {
            self.replay = None; // What is replayed is one session, not the socket.
        }
        take(&mut self.device, device);
        take(&mut self.session, session);
        self.about.update(about);
        take(&mut self.now, now);
        // They belong together: a revision of another epoch is none.
        if rev.is_some() || epoch.is_some() {
            (self.rev, self.epoch) = (rev, epoch);
        }
        take(&mut self.heartbeat_ms, heartbeat_ms);
        take(&mut self.caps, caps);
        take(&mut self.replay, replay);
    }
}

impl About {
    fn update(&mut self, later: Self) {
        if !later.labels.is_empty() {
            self.labels = later.labels;
        }
        for (ours, theirs) in [
            (&mut self.name, later.name),
            (&mut self.user, later.user),
            (&mut self.build, later.build),
            (&mut self.commit, later.commit),
            (&mut self.branch, later.branch),
            (&mut self.config, later.config),
            (&mut self.platform, later.platform),
            (&mut self.os, later.os),
            (&mut self.model, later.model),
            (&mut self.engine, later.engine),
            (&mut self.sdk, later.sdk),
            (&mut self.lang, later.lang),
            (&mut self.scene, later.scene),
        ] {
            take(ours, theirs);
        }
    }
}

fn take<T>(ours: &mut Option<T>, theirs: Option<T>) {
    if theirs.is_some() {
        *ours = theirs;
    }
}

/// The fields of a hello. One that is `null` is as good as none.
struct Fields(Map<String, Value>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> Result<Option<Box<str>>, Refusal> {
        self.get(name).map(|value| bounded(name, value)).transpose()
    }

    fn id(&self, name: &str) -> Result<Option<Box<str>>, Refusal> {
        let id = self.text(name)?;
        if id.as_deref().is_some_and(|id| id.is_empty() || id.chars().any(char::is_control)) {
            return Err(shape(name, "must be 1 to 256 bytes of text, without control characters"));
        }
        Ok(id)
    }

    fn list(&self, name: &str) -> Result<Option<Vec<Box<str>>>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let Value::Array(items) = value else {
            return Err(shape(name, "must be an array of texts"));
        };
        if LIST_MAX < items.len() {
            let words = format!("`{name}` has at most {LIST_MAX} texts");
            return Err(Refusal::new(Code::TooBig, words));
        }
        items.iter().map(|item| bounded(name, item)).collect::<Result<_, _>>().map(Some)
    }

    fn about(&self) -> Result<About, Refusal> {
        Ok(About {
            name: self.text("name")?,
            user: self.text("user")?,
            labels: self.list("labels")?.unwrap_or_default(),
            build: self.text("build")?,
            commit: self.text("commit")?,
            branch: self.text("branch")?,
            config: self.text("config")?,
            platform: self.text("platform")?,
            os: self.text("os")?,
            model: self.text("model")?,
            engine: self.text("engine")?,
            sdk: self.text("sdk")?,
            lang: self.text("lang")?,
            scene: self.text("scene")?,
        })
    }

    fn whole_number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.get(name) else { return Ok(None) };
        value.as_u64().map(Some).ok_or_else(|| shape(name, "must be a whole number from 0 on"))
    }

    fn now(&self) -> Result<Option<i64>, Refusal> {
        let Some(value) = self.get("now") else { return Ok(None) };
        #[expect(clippy::cast_possible_truncation, reason = "a clock's fraction is not needed")]
        let ms = value.as_i64().or_else(|| value.as_f64().map(|ms| ms as i64));
        ms.map(Some).ok_or_else(|| shape("now", "must be a number: Unix milliseconds"))
    }

    /// What is out of range is brought into it; the answer says what holds.
    fn heartbeat(&self) -> Result<Option<u32>, Refusal> {
        let Some(asked) = self.whole_number("heartbeat_ms")? else { return Ok(None) };
        let asked = u32::try_from(asked).unwrap_or(u32::MAX);
        Ok(Some(asked.clamp(HEARTBEAT_MS_MIN, HEARTBEAT_MS_MAX)))
    }

    /// Letters that we do not know are a later SDK's.
    fn caps(&self) -> Result<Option<Caps>, Refusal> {
        let Some(letters) = self.list("caps")? else { return Ok(None) };
        let mut caps = Caps::default();
        for letter in &letters {
            caps.add(letter);
        }
        Ok(Some(caps))
    }

    fn replay(&self) -> Result<Option<Replay>, Refusal> {
        let replay = match self.get("replay") {
            None => false,
            Some(Value::Bool(replay)) => *replay,
            Some(_) => return Err(shape("replay", "must be true or false")),
        };
        let ended = match self.text("ended")?.as_deref() {
            None => Replay::Unknown,
            Some("clean") => Replay::Clean,
            Some("background") => Replay::Background,
            Some("abrupt") => Replay::Abrupt,
            Some(_) => return Err(shape("ended", "must be clean, background or abrupt")),
        };
        Ok(replay.then_some(ended))
    }
}

fn bounded(name: &str, value: &Value) -> Result<Box<str>, Refusal> {
    let Value::String(text) = value else { return Err(shape(name, "must be text")) };
    if FIELD_BYTES_MAX < text.len() {
        let words = format!("`{name}` has at most {FIELD_BYTES_MAX} bytes");
        return Err(Refusal::new(Code::TooBig, words));
    }
    Ok(text.as_str().into())
}

fn shape(name: &str, words: &str) -> Refusal {
    Refusal::new(Code::BadShape, format!("`{name}` {words}"))
}

/// What a game is told after a good hello.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its device id: as it said, else one for this socket.
    pub device: String,
    /// Its session: as it said, else one for this socket.
    pub session: String,
    /// Epoch of the project's revisions; empty before the first edit, missing while nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// The project's revision; missing while nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<u64>,
    /// The server's clock, in Unix milliseconds.
    pub time: i64,
    /// The heartbeat that holds.
    pub heartbeat_ms: u32,
    /// What one line and one socket may carry.
    pub limits: Bounds,
}

/// The limits that apply to a socket, by the names that games know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Bytes of a line.
    pub line: usize,
    /// Records of an `l:` line.
    pub records: usize,
    /// Variables of an `i:` line.
    pub vars: usize,
    /// Bytes of a variable's name.
    pub name: usize,
    /// Bytes of a variable's value.
    pub value: usize,
    /// Lines that may wait for their answer.
    pub unacked: usize,
    /// Lines a second of the key, over all its sockets.
    pub lines_s: usize,
    /// Bytes of lines a second of the key, over all its sockets.
    pub bytes_s: usize,
}

impl From<&Limits> for Bounds {
    fn from(limits: &Limits) -> Self {
        Self {
            line: limits.line_bytes_max,
            records: limits.line_records_max,
            vars: limits.line_vars_max,
            name: limits.name_bytes_max,
            value: limits.value_bytes_max,
            unacked: limits.unsettled_lines_max,
            lines_s: limits.key_lines_s_max,
            bytes_s: limits.key_bytes_s_max,
        }
    }
}

/// How a socket gets JSON: as the hello came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// In base64, as the original.
    Base64,
    /// As it is, for people who type.
    Plain,
}

impl Encoding {
    /// Appends JSON so.
    pub fn write(self, json: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Base64 => payload::encode(json, out),
            Self::Plain => out.extend_from_slice(json),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Hello, Refusal> {
        Hello::read(json, &Limits::default())
    }

    fn check(json: &str, code: Code, named: &str) {
        let refusal = read(json).unwrap_err();
        assert_eq!(refusal.code, code, "{json}: {refusal}");
        assert!(refusal.words.contains(named), "{json}: {refusal}");
    }

    #[test]
    fn a_hello_may_say_nothing_or_everything() {
        assert_eq!(read("{}"), Ok(Hello::default()));
        let hello = read(
            r#"{"device":"d1","session":"s1","user":"anna","name":"Anna's phone","labels":["qa"],
                "build":"1.2","commit":"c","branch":"b","config":"debug","platform":"ios","os":"17",
                "model":"m","engine":"e","sdk":"k","lang":"de","scene":"menu","now":1700000000000.5,
                "rev":7,"epoch":"abcd1234","heartbeat_ms":10000,"caps":["g","zz"],
                "replay":true,"ended":"abrupt","secret":"later","more":{"a":[1]}}"#,
        )
        .unwrap();
        assert_eq!(hello.device.as_deref(), Some("d1"));
        assert_eq!(hello.about.labels, ["qa".into()]);
        assert_eq!(hello.about.scene.as_deref(), Some("menu"));
        assert_eq!((hello.now, hello.rev), (Some(1_700_000_000_000), Some(7)));
        assert_eq!(hello.heartbeat_ms, Some(10_000));
        assert_eq!(hello.replay, Some(Replay::Abrupt));
        let caps = hello.caps.unwrap();
        assert!(caps.has("g") && !caps.has("a") && !caps.has("zz"));
    }

    #[test]
    fn a_field_of_another_type_is_an_error_that_names_it() {
        let texts = [
            "device", "session", "user", "name", "build", "commit", "branch", "config", "platform",
            "os", "model", "engine", "sdk", "lang", "scene", "epoch", "ended",
        ];
        for name in texts {
            check(&format!("{{\"{name}\":7}}"), Code::BadShape, &format!("`{name}`"));
            assert!(read(&format!("{{\"{name}\":null}}")).is_ok(), "null is as good as nothing");
        }
        for name in ["labels", "caps"] {
            check(&format!("{{\"{name}\":\"a\"}}"), Code::BadShape, &format!("`{name}`"));
            check(&format!("{{\"{name}\":[1]}}"), Code::BadShape, &format!("`{name}`"));
        }
        for name in ["rev", "heartbeat_ms"] {
            for value in ["-1", "1.5", "\"1\"", "true"] {
                check(&format!("{{\"{name}\":{value}}}"), Code::BadShape, &format!("`{name}`"));
            }
        }
        check("{\"now\":\"noon\"}", Code::BadShape, "`now`");
        check("{\"replay\":1}", Code::BadShape, "`replay`");
        check("{\"ended\":\"well\"}", Code::BadShape, "`ended`");
        check("{\"device\":\"\"}", Code::BadShape, "`device`");
        check("{\"session\":\"a\\tb\"}", Code::BadShape, "`session`");
        check("[]", Code::BadShape, "object");
        check("{", Code::BadJson, "");
    }

    #[test]
    fn a_text_has_256_bytes_and_not_one_more() {
        let text = "x".repeat(FIELD_BYTES_MAX);
        for (start, end, name) in [
            ("{\"device\":\"", "\"}", "device"),
            ("{\"scene\":\"", "\"}", "scene"),
            ("{\"labels\":[\"", "\"]}", "labels"),
            ("{\"caps\":[\"", "\"]}", "caps"),
        ] {
            assert!(read(&format!("{start}{text}{end}")).is_ok(), "{name}");
            check(&format!("{start}{text}x{end}"), Code::TooBig, &format!("`{name}`"));
        }
    }

    #[test]
    fn a_list_has_16_texts_and_not_one_more() {
        let list = |count| format!("{{\"labels\":[{}]}}", vec!["\"a\""; count].join(","));
        assert_eq!(read(&list(LIST_MAX)).unwrap().about.labels.len(), LIST_MAX);
        check(&list(LIST_MAX + 1), Code::TooBig, "`labels`");
    }

    #[test]
    fn a_hello_has_16_kib_and_not_a_byte_more() {
        let hello = |bytes: usize| format!("{{\"x\":\"{}\"}}", "x".repeat(bytes - 8));
        assert_eq!(hello(HELLO_BYTES_MAX).len(), HELLO_BYTES_MAX);
        assert!(read(&hello(HELLO_BYTES_MAX)).is_ok());
        check(&hello(HELLO_BYTES_MAX + 1), Code::TooBig, "hello");
    }

    #[test]
    fn a_heartbeat_is_brought_into_its_range() {
        for (asked, holds) in [
            (0, HEARTBEAT_MS_MIN),
            (u64::from(HEARTBEAT_MS_MIN), HEARTBEAT_MS_MIN),
            (u64::from(HEARTBEAT_MS_MAX), HEARTBEAT_MS_MAX),
            (u64::from(HEARTBEAT_MS_MAX) + 1, HEARTBEAT_MS_MAX),
            (u64::MAX, HEARTBEAT_MS_MAX),
        ] {
            let hello = read(&format!("{{\"heartbeat_ms\":{asked}}}")).unwrap();
            assert_eq!(hello.heartbeat_ms, Some(holds), "{asked}");
        }
    }

    #[test]
    fn a_later_hello_changes_what_it_gives_and_leaves_the_rest() {
        let mut hello = read(
            r#"{"device":"d","session":"1","name":"n","scene":"a","rev":3,"epoch":"e","replay":true}"#,
        )
        .unwrap();
        hello.update(read(r#"{"scene":"b"}"#).unwrap());
        assert_eq!(hello.about.scene.as_deref(), Some("b"));
        assert_eq!(hello.about.name.as_deref(), Some("n"));
        assert_eq!((hello.rev, hello.replay), (Some(3), Some(Replay::Unknown)));
        hello.update(read(r#"{"session":"2","rev":4}"#).unwrap());
        assert_eq!(hello.session.as_deref(), Some("2"));
        assert_eq!((hello.rev, hello.epoch.as_deref(), hello.replay), (Some(4), None, None));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in ".{0,300}") {
            let _read = read(&text);
        }

        #[test]
        fn what_was_read_is_within_its_bounds(
            names in proptest::collection::vec(
                prop_oneof![Just("device"), Just("name"), Just("labels"), Just("rev"), Just("now"),
                    Just("heartbeat_ms"), Just("caps"), Just("replay"), Just("epoch")], 0..6),
            values in proptest::collection::vec(
                prop_oneof![
                    any::<i64>().prop_map(Value::from),
                    any::<bool>().prop_map(Value::from),
                    ".{0,300}".prop_map(Value::from),
                    proptest::collection::vec(".{0,20}", 0..20).prop_map(Value::from),
                    Just(Value::Null),
                ], 6),
        ) {
            let fields: Map<String, Value> =
                names.into_iter().map(str::to_owned).zip(values).collect();
            if let Ok(hello) = read(&Value::from(fields).to_string()) {
                let short = |text: &Option<Box<str>>| {
                    text.as_ref().is_none_or(|text| text.len() <= FIELD_BYTES_MAX)
                };
                prop_assert!(short(&hello.device) && short(&hello.about.name));
                prop_assert!(hello.about.labels.len() <= LIST_MAX);
                prop_assert!(hello.heartbeat_ms.is_none_or(
                    |ms| (HEARTBEAT_MS_MIN..=HEARTBEAT_MS_MAX).contains(&ms)));
            }
        }
    }
}
