//! What a process tells of itself: log lines on stdout, and numbers for the admin port to render.
//! Traces are not here.

use std::fmt;
use std::io::IsTerminal as _;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing::info;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// How often the recorder folds new samples of histograms into their buckets, so that they do not
/// pile up when nobody scrapes.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bounds of the buckets of every histogram named `…_seconds`: from a write to a local
/// socket to the longest wait for an outside system.
const SECONDS_BUCKETS: &[f64] =
    &[0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Settings of the log: section `[log]`, or `OBSERVER_LOG__*` in the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// How a log line looks.
    pub format: LogFormat,
    /// What is logged: a level, or a filter such as `info,observer_gateway=debug`.
    pub level: LogLevel,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people: time, level, text, fields; in colours on a terminal.
    #[default]
    Text,
    /// For programs: one JSON object a line, the fields nested under `fields`.
    Json,
}

/// A filter for log lines that is known to parse: `info` by default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogLevel(String);

impl LogLevel {
    /// What the filter names is logged as it says, everything else from `info` up.
    fn filter(&self) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
        EnvFilter::try_new(format!("info,{}", self.0)) // A later level without target replaces it.
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<LogLevel> for String {
    fn from(level: LogLevel) -> Self {
        level.0
    }
}

/// A log level that is neither a level nor a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected off, error, warn, info, debug or trace, or a filter like \
     info,observer_gateway=debug ({reason})"
)]
pub struct BadLogLevel {
    reason: String,
}

impl FromStr for LogLevel {
    type Err = BadLogLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        // A bare word would be taken as the name of a module to trace: a typing error that floods.
        for part in text.split(',').map(str::trim) {
            let is_level = LEVELS.iter().any(|level| part.eq_ignore_ascii_case(level));
            if !is_level && !part.contains('=') && !part.contains('[') {
                return Err(BadLogLevel { reason: format!("{part:?} is no level") });
            }
        }
        let level = Self(text.to_owned());
        match level.filter() {
            Ok(_) => Ok(level),
            Err(error) => Err(BadLogLevel { reason: error.to_string() }),
        }
    }
}

impl TryFrom<String> for LogLevel {
    type Error = BadLogLevel;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// Telemetry could not start: another library took what a process has only once.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// Somebody else installed a subscriber for log lines.
    #[error("the log of this process is taken")]
    LogTaken(#[source] crate::BoxError),
    /// The recorder of metrics could not be installed; usually somebody else installed theirs.
    #[error("cannot record metrics")]
    Metrics(#[source] crate::BoxError),
    /// The thread that keeps the metrics small could not start.
    #[error("cannot start the thread for metrics")]
    Thread(#[source] std::io::Error),
}

/// Telemetry that runs until the process ends.
#[derive(Clone, Debug)]
#[must_use]
pub struct Telemetry {
    metrics: Metrics,
}

impl Telemetry {
    /// The metrics of this process, for the admin port.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }
}

/// The metrics of this process, ready to be rendered.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// All metrics in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Starts the log on stdout and the recorder of metrics; needs no runtime.
///
/// A process has one log and one recorder: a second call returns the same telemetry and changes
/// nothing, so that tests may start several services in one process.
///
/// # Errors
///
/// [`TelemetryError`] when a library took the log or the metrics of this process first.
pub fn start_telemetry(
    service: &'static str,
    config: &LogConfig,
) -> Result<Telemetry, TelemetryError> {
    static STARTED: std::sync::Mutex<Option<Telemetry>> = std::sync::Mutex::new(None);
    let mut started = STARTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(telemetry) = &*started {
        return Ok(telemetry.clone());
    }
    start_log(config)?;
    let metrics = install_metrics()?;
    // observer_build_info: always 1; its labels say which service of which version answers.
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!("observer_build_info", "service" => service, "version" => version).set(1.0);
    info!(service, version, "telemetry started");
    Ok(started.insert(Telemetry { metrics }).clone())
}

fn start_log(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter = config.level.filter().expect("a LogLevel is known to parse");
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    let installed = match config.format {
        LogFormat::Json => builder.json().finish().try_init(),
        // On a terminal the library decides: it honours NO_COLOR.
        LogFormat::Text if std::io::stdout().is_terminal() => builder.compact().finish().try_init(),
        LogFormat::Text => builder.compact().with_ansi(false).finish().try_init(),
    };
    installed.map_err(|error| TelemetryError::LogTaken(error.into()))
}

/// Installs the recorder of metrics alone: for tests that look at metrics without a log.
///
/// # Errors
///
/// [`TelemetryError::Metrics`] when a library took the metrics of this process first.
pub fn install_metrics() -> Result<Metrics, TelemetryError> {
    static INSTALLED: OnceLock<Metrics> = OnceLock::new();
    static INSTALLING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(metrics) = INSTALLED.get() {
        return Ok(metrics.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS_BUCKETS)
        .map_err(|error| TelemetryError::Metrics(error.into()))?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|error| TelemetryError::Metrics(error.to_string().into()))?;
    keep_up(handle.clone())?;
    Ok(INSTALLED.get_or_init(|| Metrics(handle)).clone())
}

/// A thread rather than a task: it must outlive every runtime, as the recorder does.
fn keep_up(handle: PrometheusHandle) -> Result<(), TelemetryError> {
    let upkeep = move || {
        loop {
            std::thread::park_timeout(UPKEEP_INTERVAL);
            handle.run_upkeep();
        }
    };
    let spawned = std::thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(upkeep);
    spawned.map(drop).map_err(TelemetryError::Thread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_accepted() {
        for good in ["info", "DEBUG", "off", "warn,observer_bus=debug", "observer_api=trace"] {
            assert!(good.parse::<LogLevel>().is_ok(), "{good}");
        }
    }

    #[test]
    fn mistyped_level_is_refused_instead_of_traced() {
        for bad in ["inof", "", "info,", "info,debg", "observer_bus=loud"] {
            assert!(bad.parse::<LogLevel>().is_err(), "{bad}");
        }
    }

    #[test]
    fn filter_for_one_module_leaves_the_others_at_info() {
        let filter = "observer_bus=debug".parse::<LogLevel>().unwrap().filter().unwrap();
        assert_eq!(filter.to_string(), "observer_bus=debug,info");
    }

    #[test]
    fn plain_level_replaces_the_default() {
        let filter = "warn".parse::<LogLevel>().unwrap().filter().unwrap();
        assert_eq!(filter.to_string(), "warn");
    }

    #[test]
    fn metrics_are_rendered_with_buckets() {
        let metrics = install_metrics().unwrap();
        metrics::histogram!("chassis_test_seconds").record(0.002);
        let text = metrics.render();
        assert!(text.contains("chassis_test_seconds_bucket{le=\"0.005\"} 1"), "{text}");
    }

    #[test]
    fn metrics_are_installed_once_and_shared() {
        let (first, second) = (install_metrics().unwrap(), install_metrics().unwrap());
        metrics::counter!("chassis_test_shared_total").increment(1);
        assert!(first.render().contains("chassis_test_shared_total 1"));
        assert!(second.render().contains("chassis_test_shared_total 1"));
    }
}
