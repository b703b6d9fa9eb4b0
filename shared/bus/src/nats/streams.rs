//! The streams: what each keeps, and that the server really does so. An old or foreign server
//! silently ignores settings it does not know, so what it echoes is compared field by field.

use std::time::Duration;

use async_nats::jetstream::context::{
    CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{
    Compression, Config, DiscardPolicy, Republish, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{Context, ErrorCode};
use observer_wire::subject;
use serde_json::{Map, Value};
use tokio::time::sleep;

use super::broker::Broker;
use super::{refused, unavailable};
use crate::config::BusConfig;
use crate::{BusError, Stream};

/// Log events until the log indexer has settled them.
pub(super) const LOGS: &str = "OBSERVER_LOGS";
/// Log events of the last two minutes, in memory, for viewers that come back.
pub(super) const LIVE: &str = "OBSERVER_LIVE";
/// Reported values of the last day.
pub(super) const VARS: &str = "OBSERVER_VARS";
/// Accepted edits: their commit and their order.
pub(super) const EDITS: &str = "OBSERVER_EDITS";
/// What could never be dealt with.
pub(super) const DEAD: &str = "OBSERVER_DEAD";

/// Accepted edits as listeners get them: republished, since a plain subscription to the stream's
/// own subjects would also hear what the stream refuses.
pub(super) const LIVE_EDITS: &str = "observer.live.edits";

/// Prefix of the subjects of dead letters; stream and project follow.
pub(super) const DEAD_PREFIX: &str = "observer.dead";

/// Time for which ids of events are remembered. Publishers send again within seconds.
const IDS_KEPT: Duration = Duration::from_mins(2);

/// Ids in the memory stream need no time: they were recognised before. The server wants some.
const LIVE_IDS_KEPT: Duration = Duration::from_secs(1);

/// Time for which live log events are kept.
const LIVE_KEPT: Duration = Duration::from_mins(2);

/// Time for which reported values are kept.
pub(super) const VARS_KEPT: Duration = Duration::from_hours(24);

/// Pause before the memory stream is looked at again after that failed.
const KEEP_AGAIN: Duration = Duration::from_millis(500);

/// Edits kept of each project; a store further behind starts from a backup.
const EDITS_OF_PROJECT_MAX: i64 = 10_000;

/// Fields of a stream's configuration that are the server's business or change nothing.
const NOT_COMPARED: [&str; 4] = ["metadata", "placement", "consumer_limits", "description"];

/// Name of a stream on the server.
pub(super) fn name(stream: Stream) -> &'static str {
    match stream {
        Stream::Logs => LOGS,
        Stream::Vars => VARS,
        Stream::Edits => EDITS,
    }
}

/// Prefix of a stream's subjects; the project follows.
pub(super) fn prefix(stream: Stream) -> &'static str {
    match stream {
        Stream::Logs => subject::LOGS,
        Stream::Vars => subject::VARS,
        Stream::Edits => subject::EDITS,
    }
}

/// Creates the streams that are not there, and checks all.
pub(super) async fn prepare(broker: &Broker, config: &BusConfig) -> Result<(), BusError> {
    // The memory stream first: it must not miss what the others republish.
    for wanted in [live(config), logs(config), vars(config), edits(config), dead(config)] {
        prepare_one(&broker.jetstream, &wanted).await?;
    }
    Ok(())
}

/// Checks that the streams on disk are as they were prepared, and makes none.
pub(super) async fn check(jetstream: &Context, config: &BusConfig) -> Result<(), BusError> {
    let operation = "checking a stream";
    for wanted in [logs(config), vars(config), edits(config), dead(config)] {
        match jetstream.get_stream(&wanted.name).await {
            Ok(stream) => compare(&wanted, &stream.cached_info().config)
                .map_err(|error| refused(operation, error))?,
            Err(error) if is_missing(&error) => {
                // Made anew it would be empty, as if nothing had been lost.
                let words = format!(
                    "stream {} is gone from the NATS server, and with it what it held; whoever \
                     restarts this process makes an empty one",
                    wanted.name
                );
                return Err(refused(operation, words));
            }
            Err(error) => return Err(unavailable(operation, error)),
        }
    }
    Ok(())
}

/// Makes the memory stream anew when a server was restarted, and with it forgot the stream, until
/// the bus is dropped. What was published meanwhile is not in it; cursors from before are reset.
pub(super) fn keep_live(broker: &Broker, config: &BusConfig) {
    let (jetstream, wanted) = (broker.jetstream.clone(), live(config));
    let (mut link, closed) = (broker.link.clone(), broker.closed.clone());
    let mut kept = link.borrow().losses;
    broker.spawn(async move {
        loop {
            let lost = link.wait_for(|link| link.connected && link.losses != kept);
            let losses = tokio::select! {
                () = closed.cancelled() => return,
                lost = lost => match lost {
                    Ok(link) => link.losses,
                    Err(_) => return, // The client is gone.
                },
            };
            match prepare_one(&jetstream, &wanted).await {
                Ok(()) => kept = losses,
                Err(error) => {
                    tracing::warn!(error = %error.source, "live stream is not there again yet");
                    sleep(KEEP_AGAIN).await;
                }
            }
        }
    });
}

async fn prepare_one(jetstream: &Context, wanted: &Config) -> Result<(), BusError> {
    let found = match jetstream.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_missing(&error) => create(jetstream, wanted).await?,
        Err(error) => return Err(unavailable("looking for a stream", error)),
    };
    let differs = |error: String| refused("checking a stream", error);
    compare(wanted, &found).map_err(differs)
}

fn is_missing(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Creates a stream. When another process was faster, that one's is returned, whatever it is.
async fn create(jetstream: &Context, wanted: &Config) -> Result<Config, BusError> {
    let operation = "creating a stream";
    match jetstream.create_stream(wanted).await {
        Ok(stream) => Ok(stream.cached_info().config.clone()),
        Err(error) if is_there(&error) => {
            let stream = jetstream.get_stream(&wanted.name).await;
            let stream = stream.map_err(|error| unavailable(operation, error))?;
            Ok(stream.cached_info().config.clone())
        }
        Err(error) if matches!(error.kind(), CreateStreamErrorKind::TimedOut) => {
            Err(unavailable(operation, error))
        }
        Err(error) => Err(refused(operation, format!("{}: {error}", wanted.name))),
    }
}

fn is_there(error: &CreateStreamError) -> bool {
    matches!(error.kind(), CreateStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NAME_EXIST)
}

/// Names the first field that is not as wanted.
fn compare(wanted: &Config, found: &Config) -> Result<(), String> {
    let (wanted_fields, found_fields) = (fields(wanted), fields(found));
    for field in wanted_fields.keys().chain(found_fields.keys()) {
        let (wanted_value, found_value) = (wanted_fields.get(field), found_fields.get(field));
        if wanted_value != found_value && !NOT_COMPARED.contains(&field.as_str()) {
            let text = |value: Option<&Value>| value.map_or("not set".to_owned(), Value::to_string);
            let (wanted_text, found_text) = (text(wanted_value), text(found_value));
            return Err(format!(
                "stream {} has another configuration than the settings ask for: {field} is \
                 {found_text}, not {wanted_text}",
                wanted.name
            ));
        }
    }
    Ok(())
}

fn fields(config: &Config) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(), // A struct with text keys becomes an object.
    }
}

/// What all streams have in common; -1 is "no bound of this kind" and what the server echoes.
fn stream(name: &str, subjects: &str, bytes_max: u64, config: &BusConfig) -> Config {
    Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        max_bytes: i64::try_from(bytes_max).unwrap_or(i64::MAX),
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        storage: StorageType::File,
        num_replicas: config.profile.replicas(),
        duplicate_window: IDS_KEPT,
        compression: Some(Compression::None),
        ..Config::default()
    }
}

fn republish(from: &str, to: &str) -> Republish {
    let destination = format!("{to}.{{{{wildcard(1)}}}}");
    Republish { source: format!("{from}.*"), destination, headers_only: false }
}

fn logs(config: &BusConfig) -> Config {
    let of_project = i64::try_from(config.logs_project_messages_max).unwrap_or(i64::MAX);
    Config {
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        max_messages_per_subject: of_project,
        republish: Some(republish(subject::LOGS, subject::LIVE_LOGS)),
        ..stream(LOGS, "observer.logs.*", config.logs_bytes_max, config)
    }
}

/// One copy whatever the profile: what it loses, live listeners are told.
fn live(config: &BusConfig) -> Config {
    Config {
        storage: StorageType::Memory,
        num_replicas: 1,
        discard: DiscardPolicy::Old,
        max_age: LIVE_KEPT,
        duplicate_window: LIVE_IDS_KEPT,
        allow_direct: true,
        ..stream(LIVE, "observer.live.logs.*", config.live_bytes_max, config)
    }
}

fn vars(config: &BusConfig) -> Config {
    Config {
        discard: DiscardPolicy::Old,
        max_age: VARS_KEPT,
        ..stream(VARS, "observer.vars.*", config.vars_bytes_max, config)
    }
}

/// A full stream refuses edits; a project past its bound loses its oldest.
fn edits(config: &BusConfig) -> Config {
    Config {
        discard: DiscardPolicy::New,
        max_messages_per_subject: EDITS_OF_PROJECT_MAX,
        deny_delete: true,
        republish: Some(republish(subject::EDITS, LIVE_EDITS)),
        ..stream(EDITS, "observer.edits.*", config.edits_bytes_max, config)
    }
}

fn dead(config: &BusConfig) -> Config {
    Config {
        discard: DiscardPolicy::New,
        ..stream(DEAD, "observer.dead.*.*", config.dead_bytes_max, config)
    }
}
