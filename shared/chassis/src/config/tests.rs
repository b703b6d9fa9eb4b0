//! The loader as a whole: layers, names, values, and the words of its errors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::*;

const SECTIONS: &[&str] = &["gateway", "api", "bus", "store", "log", "limits"];

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    gateway: Gateway,
    store: Store,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Gateway {
    listen: SocketAddr,
    ws_listen: Option<SocketAddr>,
    sessions_max: NonZeroU32,
    port: u16,
    ratio: f64,
    open_keys: bool,
    kind: Kind,
    origins: Vec<String>,
    cert_file: Option<PathBuf>,
    greeting: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    #[default]
    InProcess,
    Nats,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 6667).into(),
            ws_listen: Some(([127, 0, 0, 1], 6669).into()),
            sessions_max: NonZeroU32::MIN,
            port: 0,
            ratio: 0.5,
            open_keys: false,
            kind: Kind::InProcess,
            origins: Vec::new(),
            cert_file: None,
            greeting: String::new(),
            labels: BTreeMap::new(),
        }
    }
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Store {
    vars: Vars,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Vars {
    url: Option<Secret>,
    token: Option<Token>,
}

/// A secret that is parsed into something, as keys and addresses are.
#[derive(Debug, Deserialize, Serialize)]
#[serde(try_from = "Secret")]
struct Token(u32);

impl TryFrom<Secret> for Token {
    type Error = &'static str;

    fn try_from(secret: Secret) -> Result<Self, Self::Error> {
        secret.expose().parse().map(Token).map_err(|_| "expected digits")
    }
}

impl Settings for Config {
    fn validate(&self) -> Result<(), InvalidConfig> {
        if self.gateway.sessions_max.get() == 13 {
            return Err(InvalidConfig::new("gateway.sessions_max", "is 13, but must not be"));
        }
        Ok(())
    }
}

/// A folder for the files of one test.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn load(variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Loaded<Config>, ConfigError> {
    let overrides = flags.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    let args = ConfigArgs { overrides: overrides.collect(), ..ConfigArgs::default() };
    Sources::new(SECTIONS).environment(variables.iter().copied()).args(&args).load()
}

fn load_file(toml: &str, variables: &[(&str, &str)]) -> Result<Loaded<Config>, ConfigError> {
    let files = Files::new();
    let path = files.write("observer.toml", toml);
    let mut variables = variables.to_vec();
    variables.push(("OBSERVER_CONFIG", &path));
    load(&variables, &[])
}

fn gateway(variables: &[(&str, &str)]) -> Gateway {
    load(variables, &[]).unwrap().settings.gateway
}

/// The error that `variables` cause.
fn refused(variables: &[(&str, &str)]) -> String {
    load(variables, &[]).unwrap_err().to_string()
}

/// The error that a file causes, without the folder of the file.
fn refused_file(toml: &str) -> String {
    let text = load_file(toml, &[]).unwrap_err().to_string();
    let words = text.split(' ').map(|word| match word.rfind("/observer.toml") {
        Some(at) => &word[at + 1..],
        None => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

// Layers.

#[test]
fn defaults_hold_where_nothing_is_said() {
    let loaded = load(&[], &[]).unwrap();
    assert_eq!(loaded.settings.gateway.listen.port(), 6667);
    assert_eq!(loaded.origin("gateway.listen"), Origin::Default);
}

#[test]
fn file_beats_default() {
    let loaded = load_file("[gateway]\nport = 1\n", &[]).unwrap();
    assert_eq!(loaded.settings.gateway.port, 1);
    assert!(matches!(loaded.origin("gateway.port"), Origin::File { line: 2, .. }));
}

#[test]
fn environment_beats_file() {
    let loaded = load_file("gateway.port = 1", &[("OBSERVER_GATEWAY__PORT", "2")]).unwrap();
    assert_eq!(loaded.settings.gateway.port, 2);
    assert_eq!(loaded.origin("gateway.port"), Origin::Variable("OBSERVER_GATEWAY__PORT".into()));
}

#[test]
fn flag_beats_environment() {
    let loaded = load(&[("OBSERVER_GATEWAY__PORT", "2")], &[("gateway.port", "3")]).unwrap();
    assert_eq!(loaded.settings.gateway.port, 3);
    assert_eq!(loaded.origin("gateway.port"), Origin::Flag("gateway.port".into()));
}

#[test]
fn layers_are_merged_name_by_name() {
    let variables = [("OBSERVER_GATEWAY__PORT", "2")];
    let loaded = load_file("[gateway]\nport = 1\ngreeting = \"hi\"", &variables).unwrap();
    assert_eq!(loaded.settings.gateway.port, 2);
    assert_eq!(loaded.settings.gateway.greeting, "hi");
}

#[test]
fn file_of_the_command_line_is_read_instead_of_that_of_the_environment() {
    let files = Files::new();
    let named = files.write("flag.toml", "gateway.port = 7");
    let args = ConfigArgs { config: Some(named.into()), ..ConfigArgs::default() };
    let sources = Sources::new(SECTIONS).environment([("OBSERVER_CONFIG", "/missing")]).args(&args);
    assert_eq!(sources.load::<Config>().unwrap().settings.gateway.port, 7);
    let sources = Sources::new(SECTIONS).args(&args).environment([("OBSERVER_CONFIG", "/missing")]);
    assert_eq!(sources.load::<Config>().unwrap().settings.gateway.port, 7);
}

// Names.

#[test]
fn unknown_setting_is_named_in_the_error() {
    assert_eq!(
        refused(&[("OBSERVER_GATEWAY__LISTN", "x")]),
        "unknown setting `gateway.listn` from environment variable OBSERVER_GATEWAY__LISTN, \
         did you mean OBSERVER_GATEWAY__LISTEN?"
    );
    assert_eq!(
        load(&[], &[("gateway.prot", "1")]).unwrap_err().to_string(),
        "unknown setting `gateway.prot` from flag --gateway.prot, did you mean --gateway.port?"
    );
    assert_eq!(
        refused_file("[store.vars]\n\nurll = 1"),
        "unknown setting `store.vars.urll` from observer.toml line 3, did you mean store.vars.url?"
    );
}

#[test]
fn unknown_setting_without_likeness_gets_no_suggestion() {
    assert_eq!(
        refused(&[("OBSERVER_GATEWAY__COLOUR", "red")]),
        "unknown setting `gateway.colour` from environment variable OBSERVER_GATEWAY__COLOUR"
    );
}

#[test]
fn unknown_section_is_named_in_the_error() {
    assert_eq!(
        refused(&[("OBSERVER_GATWAY__LISTEN", "x")]),
        "unknown setting `gatway.listen` from environment variable OBSERVER_GATWAY__LISTEN, \
         did you mean OBSERVER_GATEWAY__LISTEN?"
    );
    assert_eq!(
        refused_file("[gateways]\nport = 1"),
        "unknown setting `gateways` from observer.toml line 2, did you mean gateway?"
    );
    assert!(refused(&[("OBSERVER_", "x")]).starts_with("unknown setting ``"));
}

#[test]
fn single_underscore_between_section_and_name_is_understood() {
    assert_eq!(
        refused(&[("OBSERVER_GATEWAY_LISTEN", "x")]),
        "unknown setting `gateway_listen` from environment variable OBSERVER_GATEWAY_LISTEN, \
         did you mean OBSERVER_GATEWAY__LISTEN?"
    );
}

#[test]
fn port_of_another_service_is_ignored() {
    load(&[("OBSERVER_API__LISTEN", "nonsense")], &[("bus.url", "x")]).unwrap();
    load_file("[api]\nanything = [1, { a = 2 }]", &[]).unwrap();
}

#[test]
fn reserved_and_foreign_variables_are_ignored() {
    let foreign = [("OBSERVER_TOOLS_DIR", "/x"), ("PATH", "/bin"), ("OBSERVERS", "two")];
    load(&foreign, &[]).unwrap();
}

#[test]
fn name_below_a_value_is_refused() {
    assert_eq!(
        refused(&[("OBSERVER_GATEWAY__PORT__X", "1")]),
        "setting `gateway.port` from environment variable OBSERVER_GATEWAY__PORT__X: \
         expected a whole number from 0 to 65535"
    );
}

#[test]
fn value_in_place_of_a_section_is_refused() {
    assert_eq!(
        refused(&[("OBSERVER_GATEWAY", "1")]),
        "setting `gateway` from environment variable OBSERVER_GATEWAY is \"1\": \
         expected a section, not a value"
    );
    let mixed = [("OBSERVER_GATEWAY", "1"), ("OBSERVER_GATEWAY__PORT", "1")];
    assert_eq!(
        refused(&mixed),
        "`gateway` is a value by environment variable OBSERVER_GATEWAY, \
         but a section by environment variable OBSERVER_GATEWAY__PORT"
    );
}

#[test]
fn setting_given_twice_in_one_layer_is_refused() {
    assert_eq!(
        load(&[], &[("gateway.port", "1"), ("gateway.port", "2")]).unwrap_err().to_string(),
        "setting `gateway.port` is set twice: by flag --gateway.port and by flag --gateway.port"
    );
}

#[test]
#[should_panic(expected = "a plain struct")]
fn settings_whose_names_are_hidden_are_a_bug() {
    #[derive(Debug, Deserialize)]
    struct Hidden {
        #[serde(flatten)]
        config: Config,
    }
    impl Settings for Hidden {
        fn validate(&self) -> Result<(), InvalidConfig> {
            self.config.validate()
        }
    }
    Sources::new(SECTIONS).load::<Hidden>().map(drop).unwrap();
}

// Values.

#[test]
fn text_becomes_what_the_field_wants() {
    let gateway = gateway(&[
        ("OBSERVER_GATEWAY__LISTEN", "127.0.0.1:0"),
        ("OBSERVER_GATEWAY__SESSIONS_MAX", "4294967295"),
        ("OBSERVER_GATEWAY__PORT", " 8080 "),
        ("OBSERVER_GATEWAY__RATIO", "2"),
        ("OBSERVER_GATEWAY__OPEN_KEYS", "true"),
        ("OBSERVER_GATEWAY__KIND", "nats"),
        ("OBSERVER_GATEWAY__GREETING", "123"),
        ("OBSERVER_GATEWAY__ORIGINS", "a, b,"),
        ("OBSERVER_GATEWAY__LABELS__REALM", "north"),
    ]);
    assert_eq!(gateway.listen.port(), 0);
    assert_eq!(gateway.sessions_max, NonZeroU32::MAX);
    assert_eq!(gateway.port, 8080);
    assert!((gateway.ratio - 2.0).abs() < f64::EPSILON);
    assert!(gateway.open_keys);
    assert_eq!(gateway.kind, Kind::Nats);
    assert_eq!(gateway.greeting, "123");
    assert_eq!(gateway.origins, ["a", "b"]);
    assert_eq!(gateway.labels["realm"], "north");
}

#[test]
fn toml_keeps_its_types() {
    let toml = r#"
        [gateway]
        listen = "127.0.0.1:0"
        port = 0x10
        ratio = 2
        open_keys = true
        kind = "nats"
        origins = ["a", "b"]
        labels = { realm = "north" }
    "#;
    let gateway = load_file(toml, &[]).unwrap().settings.gateway;
    assert_eq!((gateway.listen.port(), gateway.port, gateway.open_keys), (0, 16, true));
    assert_eq!(gateway.kind, Kind::Nats);
    assert_eq!(gateway.origins, ["a", "b"]);
    assert_eq!(gateway.labels["realm"], "north");
    assert_eq!(
        refused_file("[gateway]\nport = \"80\""),
        "setting `gateway.port` from observer.toml line 2 is \"80\": \
         expected a whole number from 0 to 65535"
    );
}

#[test]
fn empty_variable_unsets_an_option() {
    assert_eq!(gateway(&[]).ws_listen.map(|address| address.port()), Some(6669));
    assert_eq!(gateway(&[("OBSERVER_GATEWAY__WS_LISTEN", "")]).ws_listen, None);
}

#[test]
fn bad_value_is_named_with_its_source_and_what_is_expected() {
    let cases = [
        ("LISTEN", "localhost", "expected an address with its port, like 127.0.0.1:8080"),
        ("WS_LISTEN", "6669", "expected an address with its port, like 127.0.0.1:8080"),
        ("PORT", "65536", "expected a whole number from 0 to 65535"),
        ("PORT", "-1", "expected a whole number from 0 to 65535"),
        ("PORT", "", "expected a whole number from 0 to 65535"),
        ("SESSIONS_MAX", "0", "expected a whole number from 1 to 4294967295"),
        ("RATIO", "half", "expected a number"),
        ("OPEN_KEYS", "yes", "expected true or false"),
        ("KIND", "kafka", "expected in_process or nats"),
    ];
    for (name, value, expected) in cases {
        let variable = format!("OBSERVER_GATEWAY__{name}");
        let setting = format!("gateway.{}", name.to_lowercase());
        assert_eq!(
            refused(&[(&variable, value)]),
            format!(
                "setting `{setting}` from environment variable {variable} is {value:?}: {expected}"
            )
        );
    }
}

#[test]
fn setting_that_fails_validate_is_named_with_its_source() {
    assert_eq!(
        refused(&[("OBSERVER_GATEWAY__SESSIONS_MAX", "13")]),
        "`gateway.sessions_max` is 13, but must not be \
         (from environment variable OBSERVER_GATEWAY__SESSIONS_MAX)"
    );
}

#[test]
fn setting_without_default_must_be_set() {
    #[derive(Debug, Deserialize)]
    struct Strict {
        bus: Bus,
    }
    #[derive(Debug, Deserialize)]
    struct Bus {
        url: String,
    }
    impl Settings for Strict {
        fn validate(&self) -> Result<(), InvalidConfig> {
            assert_eq!(self.bus.url, "never");
            Ok(())
        }
    }
    let refused = |variables: &[(&str, &str)]| {
        let sources = Sources::new(SECTIONS).environment(variables.iter().copied());
        sources.load::<Strict>().unwrap_err().to_string()
    };
    let of_section = "setting `bus` is missing: set OBSERVER_BUS in the environment";
    assert_eq!(refused(&[]), of_section);
    let files = Files::new();
    let path = files.write("observer.toml", "[bus]");
    assert_eq!(
        refused(&[("OBSERVER_CONFIG", &path)]),
        "setting `bus.url` is missing: set OBSERVER_BUS__URL in the environment"
    );
}

// Files.

#[test]
fn missing_file_is_named_with_who_named_it() {
    assert_eq!(
        refused(&[("OBSERVER_CONFIG", "/missing/observer.toml")]),
        "cannot read /missing/observer.toml, named by environment variable OBSERVER_CONFIG"
    );
}

#[test]
fn file_that_is_not_toml_is_refused_with_its_line() {
    let error = load_file("[gateway]\nport = = 1", &[]).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 2"), "{source}");
}

#[test]
fn file_of_settings_past_the_limit_is_refused() {
    let limit = usize::try_from(sources::CONFIG_FILE_BYTES_MAX).unwrap();
    load_file(&"#".repeat(limit), &[]).unwrap();
    let error = load_file(&"#".repeat(limit + 1), &[]).unwrap_err();
    assert!(matches!(error, ConfigError::FileUnreadable { .. }));
}

#[test]
fn value_is_read_from_the_file_that_a_variable_names() {
    let files = Files::new();
    let path = files.write("url", "redis://:geheim@localhost\r\n");
    let loaded = load(&[("OBSERVER_STORE__VARS__URL_FILE", &path)], &[]).unwrap();
    let url = loaded.settings.store.vars.url.as_ref().unwrap();
    assert_eq!(url.expose(), "redis://:geheim@localhost");
    assert!(matches!(loaded.origin("store.vars.url"), Origin::ValueFile { .. }));
}

#[test]
fn only_one_newline_at_the_end_of_a_value_is_cut() {
    let files = Files::new();
    let path = files.write("greeting", " two\n\n");
    assert_eq!(gateway(&[("OBSERVER_GATEWAY__GREETING_FILE", &path)]).greeting, " two\n");
}

#[test]
fn value_file_past_the_limit_is_refused() {
    let files = Files::new();
    let limit = usize::try_from(read::VALUE_FILE_BYTES_MAX).unwrap();
    let full = files.write("full", &"x".repeat(limit));
    assert_eq!(gateway(&[("OBSERVER_GATEWAY__GREETING_FILE", &full)]).greeting.len(), limit);
    let over = files.write("over", &"x".repeat(limit + 1));
    assert!(refused(&[("OBSERVER_GATEWAY__GREETING_FILE", &over)]).starts_with("cannot read"));
}

#[test]
fn setting_whose_own_name_ends_with_file_is_not_read() {
    let gateway = gateway(&[("OBSERVER_GATEWAY__CERT_FILE", "/missing/cert.pem")]);
    assert_eq!(gateway.cert_file, Some("/missing/cert.pem".into()));
}

#[test]
fn value_and_its_file_in_one_layer_are_refused() {
    let both = [("OBSERVER_STORE__VARS__URL", "x"), ("OBSERVER_STORE__VARS__URL_FILE", "/x")];
    assert_eq!(
        refused(&both),
        "setting `store.vars.url` is set twice: by environment variable OBSERVER_STORE__VARS__URL \
         and by environment variable OBSERVER_STORE__VARS__URL_FILE"
    );
}

#[test]
fn value_file_of_a_lower_layer_is_not_even_opened() {
    let variables = [("OBSERVER_STORE__VARS__URL", "redis://b")];
    let loaded = load_file("store.vars.url_file = \"/missing\"", &variables).unwrap();
    assert_eq!(loaded.settings.store.vars.url.unwrap().expose(), "redis://b");
}

// Secrets.

#[test]
fn secret_is_not_shown_by_debug_error_or_report() {
    let files = Files::new();
    let path = files.write("token", "geheim");
    let variables: [&[(&str, &str)]; 2] = [
        &[("OBSERVER_STORE__VARS__TOKEN", "geheim")],
        &[("OBSERVER_STORE__VARS__TOKEN_FILE", &path)],
    ];
    for variables in variables {
        let error = load(variables, &[]).unwrap_err();
        assert!(error.to_string().ends_with("expected digits"), "{error}");
        assert!(!format!("{error} {error:?}").contains("geheim"), "{error:?}");
    }
    let variables =
        [("OBSERVER_STORE__VARS__URL", "geheim"), ("OBSERVER_STORE__VARS__TOKEN", "31337")];
    let loaded = load(&variables, &[]).unwrap();
    let shown = format!("{:?} {}", loaded.settings.store.vars.url, loaded.describe());
    assert!(!shown.contains("geheim") && !shown.contains("31337"), "{shown}");
}

#[test]
fn sources_do_not_show_their_values() {
    let sources = Sources::new(SECTIONS).environment([("OBSERVER_STORE__VARS__URL", "geheim")]);
    assert!(!format!("{sources:?}").contains("geheim"));
}

#[test]
fn effective_settings_are_shown_with_their_sources() {
    let variables = [("OBSERVER_STORE__VARS__URL", "x"), ("OBSERVER_GATEWAY__WS_LISTEN", "")];
    let text = load(&variables, &[("gateway.port", "1")]).unwrap().describe();
    for line in [
        "gateway.listen = \"127.0.0.1:6667\"  # default",
        "gateway.ws_listen = (not set)  # environment variable OBSERVER_GATEWAY__WS_LISTEN",
        "gateway.port = 1  # flag --gateway.port",
        "store.vars.url = ***  # environment variable OBSERVER_STORE__VARS__URL",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
}

#[test]
fn empty_lists_and_maps_are_shown() {
    let text = load(&[], &[]).unwrap().describe();
    assert!(text.contains("gateway.origins = []  # default"), "{text}");
    assert!(text.contains("gateway.labels = {}  # default"), "{text}");
}

#[cfg(unix)]
#[test]
fn variable_that_is_not_utf8_is_refused_by_name() {
    use std::os::unix::ffi::OsStringExt as _;

    let value = std::ffi::OsString::from_vec(vec![0xff]);
    let sources = Sources::new(SECTIONS).environment([("OBSERVER_GATEWAY__GREETING", value)]);
    assert_eq!(
        sources.load::<Config>().unwrap_err().to_string(),
        "setting `gateway.greeting` from environment variable OBSERVER_GATEWAY__GREETING: \
         expected UTF-8"
    );
}
