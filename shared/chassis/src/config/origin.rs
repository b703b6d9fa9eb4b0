//! Where a setting came from, for whoever must change it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The TOML file.
    File {
        /// The file, as it was named.
        path: Arc<Path>,
        /// Line of the value, the first is 1.
        line: usize,
    },
    /// A variable of the environment, by its whole name.
    Variable(Arc<str>),
    /// A flag of the command line, by its dotted name.
    Flag(Arc<str>),
    /// A file of its own, which another setting, `…_FILE`, names.
    ValueFile {
        /// Where the name of the file came from.
        named_by: Arc<Origin>,
        /// The file, as it was named.
        path: Arc<Path>,
    },
}

impl Origin {
    /// The higher layer wins.
    pub(super) fn layer(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File { .. } => 1,
            Self::Variable(_) => 2,
            Self::Flag(_) => 3,
            Self::ValueFile { named_by, .. } => named_by.layer(),
        }
    }

    /// The dotted name as one would write it in this layer.
    pub(super) fn spell(&self, name: &str) -> String {
        match self {
            Self::Variable(_) => format!("OBSERVER_{}", name.replace('.', "__").to_uppercase()),
            Self::Flag(_) => format!("--{name}"),
            Self::Default | Self::File { .. } | Self::ValueFile { .. } => name.to_owned(),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{} line {line}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::ValueFile { named_by, path } => {
                write!(f, "file {}, named by {named_by}", path.display())
            }
        }
    }
}
