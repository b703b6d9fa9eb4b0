//! Settings, before anything else of a process: defaults, then a TOML file, then the environment,
//! then the command line, each over the one before. Whatever leaves here is valid; nothing inside
//! checks it again. Nothing is bound or opened here but the files that hold settings.
//!
//! | layer | spelling of `gateway.listen` |
//! | --- | --- |
//! | default | `#[serde(default)]` of the settings' type |
//! | TOML file (`--config`, else `OBSERVER_CONFIG`) | `[gateway]` `listen = "…"` |
//! | environment | `OBSERVER_GATEWAY__LISTEN=…` |
//! | command line | `--gateway.listen …` |
//!
//! In every layer `NAME_FILE` names a file whose text is the value of `NAME`, without the newline
//! at its end. Unknown names are errors, except below sections of other processes: several
//! processes share one environment and one file.
//!
//! Types of settings are plain structs, one field for each section, of plain values. An empty
//! variable unsets an `Option`; a comma separates the items of a list. `#[serde(flatten)]` and
//! enums with `#[serde(tag)]` do not work: they hide from the loader which names exist.

mod args;
mod error;
mod origin;
mod read;
mod report;
mod secret;
mod sources;
mod suggest;
mod tree;

#[cfg(test)]
mod tests;

pub use args::{ConfigArgs, dotted_flags};
pub use error::{ConfigError, InvalidConfig};
pub use origin::Origin;
pub use secret::Secret;
pub use sources::{Loaded, Sources};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Settings of one process. What [`load_config`] returns has passed `validate`.
pub trait Settings: DeserializeOwned {
    /// Checks what types cannot: relations between fields. Binds and opens nothing.
    ///
    /// # Errors
    ///
    /// Names the first field that cannot work, and what would.
    fn validate(&self) -> Result<(), InvalidConfig>;
}

/// Reads the settings of this process from every layer, the real environment included.
///
/// `known_sections` are the sections of all processes; those that `T` has no field for are skipped.
///
/// # Errors
///
/// [`ConfigError`] names the first setting that cannot work, where it came from and what would.
/// The process then ends with exit code 64 (see [`exit_code`](crate::exit_code)).
///
/// # Panics
///
/// When `T` is not a plain struct: its settings would all be skipped as those of others.
pub fn load_config<T: Settings>(
    known_sections: &[&str],
    args: &ConfigArgs,
) -> Result<T, ConfigError> {
    Ok(Sources::of_process(known_sections, args).load::<T>()?.settings)
}

/// Does what [`load_config`] does and prints the settings in effect, each with its source: the
/// answer to `--check-config`. Secrets are not shown.
///
/// # Errors
///
/// As [`load_config`].
///
/// # Panics
///
/// As [`load_config`].
pub fn check_config<T: Settings + Serialize>(
    known_sections: &[&str],
    args: &ConfigArgs,
) -> Result<(), ConfigError> {
    let loaded = Sources::of_process(known_sections, args).load::<T>()?;
    report::print(&loaded.describe());
    Ok(())
}
