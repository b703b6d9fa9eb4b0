//! Settings of the stores, and the choice of their adapters.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::elastic::{ElasticConfig, ElasticLogStore};
use crate::redis::{RedisAccountStore, RedisVarStore};
use crate::sqlite::{SqliteAccountStore, SqliteLogStore, SqliteVarStore};
use crate::{AccountStore, LogStore, StoreError, StoreErrorKind, VarStore};

/// Settings of the stores: section `[store]`, or `OBSERVER_STORE__*` in the environment.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// Folder of the embedded stores. Made when it is missing.
    pub data_dir: PathBuf,
    /// Where logs are kept.
    pub logs: LogsConfig,
    /// Where variables and devices are kept.
    pub vars: VarsConfig,
    /// Where accounts and keys are kept.
    pub accounts: AccountsConfig,
    /// Age past which the embedded log store forgets records, in days.
    pub retention_days: u32,
    /// Size past which the embedded log store forgets its oldest records, in bytes.
    pub retention_bytes_max: u64,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./data"),
            logs: LogsConfig::default(),
            vars: VarsConfig::default(),
            accounts: AccountsConfig::default(),
            retention_days: 7,
            retention_bytes_max: 5 * 1024 * 1024 * 1024,
        }
    }
}

impl StoreConfig {
    /// Names the first setting that cannot work, with what would; `None` when all can.
    #[must_use]
    pub fn first_unworkable(&self) -> Option<(&'static str, String)> {
        let missing = |url: &Option<StoreUrl>| url.is_none();
        let needs_url = || Some("must be set, since the store is another process".to_owned());
        if self.logs.kind == LogsType::Elasticsearch && missing(&self.logs.url) {
            return needs_url().map(|what| ("logs.url", what));
        }
        if self.vars.kind == VarsType::Redis && missing(&self.vars.url) {
            return needs_url().map(|what| ("vars.url", what));
        }
        if self.accounts.kind == AccountsType::Redis && missing(&self.accounts.url) {
            return needs_url().map(|what| ("accounts.url", what));
        }
        if self.retention_days == 0 {
            return Some(("retention_days", "must be at least 1".into()));
        }
        if self.retention_bytes_max < RETENTION_BYTES_FLOOR {
            let what = format!("must be at least {RETENTION_BYTES_FLOOR}");
            return Some(("retention_bytes_max", what));
        }
        None
    }
}

/// Least room that logs may have, in bytes: an empty database is about a tenth of it.
const RETENTION_BYTES_FLOOR: u64 = 1024 * 1024;

/// Where logs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogsConfig {
    /// `sqlite` or `elasticsearch`.
    #[serde(rename = "type")]
    pub kind: LogsType,
    /// Address of Elasticsearch; may hold a user and a password.
    pub url: Option<StoreUrl>,
    /// Elasticsearch: most projects that get an alias `logs-<key>`. Each alias of each day is part of
    /// the cluster state, which every node holds; projects beyond are stored and searched all the
    /// same.
    pub aliases_max: usize,
    /// Elasticsearch: copies of each index beside the first. 0 for a single node.
    pub replicas: u8,
}

impl Default for LogsConfig {
    fn default() -> Self {
        let elastic = ElasticConfig::default();
        Self {
            kind: LogsType::default(),
            url: None,
            aliases_max: elastic.aliases_max,
            replicas: elastic.replicas,
        }
    }
}

/// What keeps logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogsType {
    /// A file of this process.
    #[default]
    Sqlite,
    /// Elasticsearch 8 or 9.
    Elasticsearch,
}

/// Where variables and devices are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct VarsConfig {
    /// `sqlite` or `redis`.
    #[serde(rename = "type")]
    pub kind: VarsType,
    /// Address of Redis; may hold a user and a password.
    pub url: Option<StoreUrl>,
}

/// What keeps variables and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VarsType {
    /// A file of this process.
    #[default]
    Sqlite,
    /// Redis 6.2 or later.
    Redis,
}

/// Where accounts and keys are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccountsConfig {
    /// `sqlite` or `redis`.
    #[serde(rename = "type")]
    pub kind: AccountsType,
    /// Address of a Redis of their own; may hold a user and a password.
    pub url: Option<StoreUrl>,
}

/// What keeps accounts and keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AccountsType {
    /// A file of this process.
    #[default]
    Sqlite,
    /// Redis with `appendfsync always`.
    Redis,
}

/// Address of a store. `Debug` hides user and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The address with all that is in it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for StoreUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl Serialize for StoreUrl {
    /// As `Debug` shows it: settings that are printed hide what is secret.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let shown = match rest.rsplit_once('@') {
            Some((_secret, host)) => format!("{scheme}://…@{host}"),
            None => self.0.clone(),
        };
        f.write_str(shown.split('?').next().unwrap_or_default())
    }
}

/// Opens the log store that `config` names.
///
/// # Errors
///
/// [`StoreError`] when it cannot be opened or reached, or is of another version.
pub async fn connect_logs(config: &StoreConfig) -> Result<Arc<dyn LogStore>, StoreError> {
    match config.logs.kind {
        LogsType::Sqlite => Ok(Arc::new(SqliteLogStore::open(config).await?)),
        LogsType::Elasticsearch => {
            let url = address("connect logs", config.logs.url.as_ref())?.to_owned();
            let (aliases_max, replicas) = (config.logs.aliases_max, config.logs.replicas);
            let elastic = ElasticConfig { url, aliases_max, replicas, ..ElasticConfig::default() };
            Ok(Arc::new(ElasticLogStore::connect(&elastic).await?))
        }
    }
}

/// Opens the variable store that `config` names.
///
/// # Errors
///
/// [`StoreError`] when it cannot be opened or reached, or is of another version.
pub async fn connect_vars(config: &StoreConfig) -> Result<Arc<dyn VarStore>, StoreError> {
    match config.vars.kind {
        VarsType::Sqlite => Ok(Arc::new(SqliteVarStore::open(config).await?)),
        VarsType::Redis => {
            let url = address("connect vars", config.vars.url.as_ref())?;
            Ok(Arc::new(RedisVarStore::connect(url).await?))
        }
    }
}

/// Opens the account store that `config` names.
///
/// # Errors
///
/// [`StoreError`] when it cannot be opened or reached, or is of another version.
pub async fn connect_accounts(config: &StoreConfig) -> Result<Arc<dyn AccountStore>, StoreError> {
    match config.accounts.kind {
        AccountsType::Sqlite => Ok(Arc::new(SqliteAccountStore::open(config).await?)),
        AccountsType::Redis => {
            let url = address("connect accounts", config.accounts.url.as_ref())?;
            Ok(Arc::new(RedisAccountStore::connect(url).await?))
        }
    }
}

fn address<'a>(operation: &'static str, url: Option<&'a StoreUrl>) -> Result<&'a str, StoreError> {
    let missing = || StoreError::new(operation, StoreErrorKind::Refused, "the address is missing");
    url.map(StoreUrl::as_str).ok_or_else(missing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_text_of_an_address_hides_what_is_secret() {
        for (url, shown) in [
            ("redis://anna:s3cret@host:6379/0", "redis://…@host:6379/0"),
            ("http://host:9200/?api_key=s3cret", "http://host:9200/"),
            ("http://host:9200", "http://host:9200"),
        ] {
            assert_eq!(format!("{:?}", StoreUrl(url.into())), shown);
        }
    }

    #[test]
    fn unknown_settings_are_errors_and_missing_ones_have_defaults() {
        let read = serde_json::from_str::<StoreConfig>;
        assert_eq!(read("{}").unwrap(), StoreConfig::default());
        let config = read(r#"{"logs":{"type":"elasticsearch","url":"http://es:9200"}}"#).unwrap();
        assert_eq!(config.logs.kind, LogsType::Elasticsearch);
        assert!(read(r#"{"log":{}}"#).is_err());
    }

    #[test]
    fn a_setting_that_cannot_work_is_named() {
        let default = StoreConfig::default();
        assert_eq!(default.first_unworkable(), None);
        let vars = VarsConfig { kind: VarsType::Redis, url: None };
        let config = StoreConfig { vars, ..default };
        assert_eq!(config.first_unworkable().unwrap().0, "vars.url");
    }
}
