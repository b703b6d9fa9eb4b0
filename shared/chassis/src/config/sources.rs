//! Where settings are looked for. Here the file is read, and nowhere else the real environment.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::ConfigArgs;
use super::error::ConfigError;
use super::origin::Origin;
use super::read::{self, Reading};
use super::suggest::nearest;
use super::tree::{Node, Scalar};
use super::{InvalidConfig, Settings};

/// Largest file of settings that is read, in bytes: far more than all settings together need.
pub(super) const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What all our variables begin with.
const PREFIX: &str = "OBSERVER_";

/// Variables that name no setting: the file of settings, and where tests find their tools.
const RESERVED: [&str; 2] = ["OBSERVER_CONFIG", "OBSERVER_TOOLS_DIR"];

/// The places settings come from. [`load_config`](super::load_config) uses those of the process.
#[derive(Clone, Default)]
pub struct Sources {
    known_sections: Vec<String>,
    file: Option<(PathBuf, String)>,
    variables: BTreeMap<OsString, OsString>,
    overrides: Vec<(String, String)>,
}

impl fmt::Debug for Sources {
    /// Shows names only: any value may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overrides = self.overrides.iter().map(|(name, _)| name);
        f.debug_struct("Sources")
            .field("file", &self.file)
            .field("variables", &self.variables.keys())
            .field("overrides", &overrides.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Settings, and where each came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The settings; they have passed `validate`.
    pub settings: T,
    pub(super) reading: Reading,
}

impl<T> Loaded<T> {
    /// Where the setting of this dotted name came from.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.reading.origins.get(name).cloned().unwrap_or(Origin::Default)
    }
}

impl Sources {
    /// No source but the defaults. `known_sections` are the sections of all processes.
    #[must_use]
    pub fn new(known_sections: &[&str]) -> Self {
        let known_sections = known_sections.iter().map(|section| (*section).to_owned()).collect();
        Self { known_sections, ..Self::default() }
    }

    /// The command line, and the environment this process was started with.
    #[must_use]
    pub fn of_process(known_sections: &[&str], args: &ConfigArgs) -> Self {
        Self::new(known_sections).environment(std::env::vars_os()).args(args)
    }

    /// Adds variables. Those of others are skipped; `OBSERVER_CONFIG` names the file.
    #[must_use]
    pub fn environment<N, V>(mut self, variables: impl IntoIterator<Item = (N, V)>) -> Self
    where
        N: Into<OsString>,
        V: Into<OsString>,
    {
        let ours = |name: &OsString| name.to_string_lossy().starts_with(PREFIX);
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        self.variables.extend(variables.filter(|(name, _)| ours(name)));
        if let Some(path) = self.variables.get(&OsString::from(RESERVED[0]))
            && !path.is_empty()
        {
            let named_by = Origin::Variable(RESERVED[0].into()).to_string();
            self.file.get_or_insert((path.into(), named_by));
        }
        self
    }

    /// Adds the command line; its file is read in place of the one `OBSERVER_CONFIG` names.
    #[must_use]
    pub fn args(mut self, args: &ConfigArgs) -> Self {
        if let Some(path) = &args.config {
            self.file = Some((path.clone(), Origin::Flag("config".into()).to_string()));
        }
        self.overrides.extend(args.overrides.iter().cloned());
        self
    }

    /// Reads, merges and checks everything.
    ///
    /// # Errors
    ///
    /// As [`load_config`](super::load_config).
    ///
    /// # Panics
    ///
    /// When `T` is not a plain struct: its settings would all be skipped as those of others.
    pub fn load<T: Settings>(&self) -> Result<Loaded<T>, ConfigError> {
        let own_sections = read::field_names::<T>();
        assert!(!own_sections.is_empty(), "settings are a plain struct with a field a section");
        let merging = Merging { sources: self, own_sections, tree: Node::empty() };
        let (settings, reading) = read::read::<T>(&merging.merge()?)?;
        let loaded: Loaded<T> = Loaded { settings, reading };
        match loaded.settings.validate() {
            Ok(()) => Ok(loaded),
            Err(invalid) => Err(loaded.locate(invalid)),
        }
    }
}

impl<T> Loaded<T> {
    fn locate(&self, invalid: InvalidConfig) -> ConfigError {
        let origin = self.reading.origins.get(invalid.field()).cloned();
        ConfigError::Invalid { invalid, origin }
    }
}

/// The layers, being put into one tree.
struct Merging<'a> {
    sources: &'a Sources,
    own_sections: &'static [&'static str],
    tree: Node,
}

impl Merging<'_> {
    fn merge(mut self) -> Result<Node, ConfigError> {
        if let Some((path, named_by)) = &self.sources.file {
            self.put_file(path, named_by)?;
        }
        for (name, value) in &self.sources.variables {
            self.put_variable(&name.to_string_lossy(), value)?;
        }
        for (name, value) in &self.sources.overrides {
            let path: Vec<_> = name.split('.').map(str::to_owned).collect();
            let origin = Origin::Flag(name.as_str().into());
            self.put(&path, Node::Value(Scalar::Text(value.clone()), origin))?;
        }
        Ok(self.tree)
    }

    fn put_variable(&mut self, name: &str, value: &OsString) -> Result<(), ConfigError> {
        if RESERVED.contains(&name) {
            return Ok(());
        }
        let dotted = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase().replace("__", ".");
        let path: Vec<_> = dotted.split('.').map(str::to_owned).collect();
        let origin = Origin::Variable(name.into());
        let Some(value) = value.to_str() else {
            let reason = "expected UTF-8".to_owned();
            return Err(ConfigError::BadValue { name: dotted, origin, value: None, reason });
        };
        self.put(&path, Node::Value(Scalar::Text(value.to_owned()), origin))
    }

    fn put_file(&mut self, path: &Path, named_by: &str) -> Result<(), ConfigError> {
        let text = read_bounded(path, CONFIG_FILE_BYTES_MAX).map_err(|source| {
            let named_by = named_by.to_owned();
            ConfigError::FileUnreadable { path: path.to_owned(), named_by, source }
        })?;
        let table = DeTable::parse(&text).map_err(|source| ConfigError::FileMalformed {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let file = TomlFile { path: path.into(), text: &text };
        for (name, value) in table.get_ref() {
            let name = name.get_ref().to_string();
            let node = file.node(value).map_err(|(origin, reason)| ConfigError::BadValue {
                name: name.clone(),
                origin,
                value: None,
                reason,
            })?;
            self.put(&[name], node)?;
        }
        Ok(())
    }

    /// Puts a setting in if it is of this process, and skips it if it is of another.
    fn put(&mut self, path: &[String], node: Node) -> Result<(), ConfigError> {
        let section = path[0].as_str();
        let is_own = |section: &str| {
            let value_of = section.strip_suffix("_file").unwrap_or(section);
            self.own_sections.contains(&section) || self.own_sections.contains(&value_of)
        };
        if is_own(section) {
            return self.tree.put(path, node);
        }
        if self.sources.known_sections.iter().any(|known| known == section) {
            return Ok(());
        }
        Err(self.unknown(path, &node))
    }

    fn unknown(&self, path: &[String], node: &Node) -> ConfigError {
        let (name, origin) = (path.join("."), node.origin());
        let known = self.sources.known_sections.iter().map(String::as_str);
        let sections = || self.own_sections.iter().copied().chain(known.clone());
        let section = path[0].as_str();
        // The commonest slip: one underscore between section and name.
        let joined = sections()
            .find_map(|known| Some((known, section.strip_prefix(known)?.strip_prefix('_')?)));
        let meant = match (joined, nearest(section, sections())) {
            (Some((section, name)), _) if path.len() == 1 => Some(format!("{section}.{name}")),
            (_, Some(near)) => Some([&[near.to_owned()], &path[1..]].concat().join(".")),
            _ => None,
        };
        ConfigError::UnknownSetting { hint: hint(&origin, meant.as_deref()), name, origin }
    }
}

/// ", did you mean …?", in the spelling of the place the wrong name came from.
pub(super) fn hint(origin: &Origin, meant: Option<&str>) -> String {
    meant.map(|meant| format!(", did you mean {}?", origin.spell(meant))).unwrap_or_default()
}

/// Reads a text file that must be small.
pub(super) fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    if bytes_max < text.len() as u64 {
        return Err(io::Error::other(format!("longer than {bytes_max} bytes")));
    }
    Ok(text)
}

/// Turns parsed TOML into nodes that know their line.
struct TomlFile<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl TomlFile<'_> {
    fn node(&self, value: &Spanned<DeValue<'_>>) -> Result<Node, (Origin, String)> {
        let origin = self.origin(value.span().start);
        let scalar = match value.get_ref() {
            DeValue::Table(table) => {
                let nodes = table
                    .iter()
                    .map(|(name, value)| Ok((name.get_ref().to_string(), self.node(value)?)));
                return Ok(Node::Section(nodes.collect::<Result<_, _>>()?));
            }
            DeValue::Array(items) => {
                let nodes = items.iter().map(|item| self.node(item));
                return Ok(Node::List(nodes.collect::<Result<_, _>>()?, origin));
            }
            DeValue::String(text) => Scalar::String(text.to_string()),
            DeValue::Datetime(time) => Scalar::String(time.to_string()),
            DeValue::Boolean(bool) => Scalar::Bool(*bool),
            DeValue::Integer(integer) => {
                match i64::from_str_radix(integer.as_str(), integer.radix()) {
                    Ok(integer) => Scalar::Integer(integer),
                    Err(error) => return Err((origin, error.to_string())),
                }
            }
            DeValue::Float(float) => match float.as_str().parse() {
                Ok(float) => Scalar::Float(float),
                Err(_) => return Err((origin, "expected a number".to_owned())),
            },
        };
        Ok(Node::Value(scalar, origin))
    }

    fn origin(&self, offset: usize) -> Origin {
        let before = self.text.get(..offset).unwrap_or_default();
        let line = 1 + before.matches('\n').count();
        Origin::File { path: Arc::clone(&self.path), line }
    }
}
