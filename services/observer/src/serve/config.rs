//! stub
use observer_chassis::{
    ConfigArgs, ConfigError, InvalidConfig, SECTIONS, Settings,
    config::{Loaded, Sources},
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
#[derive(Deserialize, Serialize, Default)]
#[serde(default)]
pub(crate) struct ServeConfig {
    pub(crate) store: StoreConfig,
}
#[derive(Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct StoreConfig {
    pub(crate) data_dir: PathBuf,
}
impl Default for StoreConfig {
    fn default() -> Self {
        Self { data_dir: "./data".into() }
    }
}
impl Settings for ServeConfig {
    fn validate(&self) -> Result<(), InvalidConfig> {
        Ok(())
    }
}
impl ServeConfig {
    pub(crate) fn load(args: &ConfigArgs) -> Result<Loaded<Self>, ConfigError> {
        Sources::of_process(SECTIONS, args).load()
    }
}
pub(crate) fn check(args: &ConfigArgs) -> anyhow::Result<()> {
    Ok(observer_chassis::check_config::<ServeConfig>(SECTIONS, args)?)
}
