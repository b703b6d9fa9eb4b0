//! Whether the server keeps what the profile promises. Nothing but its monitoring port shows
//! whether it syncs; looked at when the process starts and every minute.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::broker::Broker;
use super::{Cause, refused};
use crate::config::{BusConfig, Profile};
use crate::{BusError, lock};

/// How often the server is asked.
const ASK_EVERY: Duration = Duration::from_mins(1);

/// How soon a server that did not answer, or answered wrongly, is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What is known about the server.
pub(super) struct Watched {
    complaint: Arc<Mutex<Option<String>>>,
}

impl Watched {
    /// Asks once, and goes on asking until the bus is dropped. With `fast` there is nothing to ask.
    pub(super) async fn start(broker: &Arc<Broker>, config: &BusConfig) -> Result<Self, BusError> {
        let watched = Self { complaint: Arc::default() };
        if config.profile == Profile::Fast {
            return Ok(watched);
        }
        let Some(address) = &config.monitor_url else {
            let profile = config.profile;
            *lock(&watched.complaint) = Some(format!(
                "bus.profile is {profile:?}, but without bus.monitor_url nothing shows whether the \
                 server syncs"
            ));
            return Ok(watched);
        };
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).build();
        let client = client.map_err(|error| refused("preparing to watch the server", error))?;
        let server = Server { client, url: format!("{}/jsz", address.trim_end_matches('/')) };
        *lock(&watched.complaint) = server.complaint().await;
        broker.spawn(watch(server, Arc::clone(&watched.complaint), broker.closed.clone()));
        Ok(watched)
    }

    /// Whether the server keeps what the profile promises.
    pub(super) fn check(&self) -> Result<(), String> {
        lock(&self.complaint).clone().map_or(Ok(()), Err)
    }
}

async fn watch(server: Server, complaint: Arc<Mutex<Option<String>>>, closed: CancellationToken) {
    loop {
        let pause = if lock(&complaint).is_some() { ASK_AGAIN } else { ASK_EVERY };
        tokio::select! {
            () = closed.cancelled() => return,
            () = sleep(pause) => {}
        }
        let now = server.complaint().await;
        *lock(&complaint) = now;
    }
}

struct Server {
    client: reqwest::Client,
    url: String,
}

/// What the server says of itself, as far as it matters.
#[derive(Deserialize)]
struct Jsz {
    config: Option<JszConfig>,
}

#[derive(Deserialize)]
struct JszConfig {
    #[serde(default)]
    sync_always: bool,
}

impl Server {
    /// What is wrong with the server.
    async fn complaint(&self) -> Option<String> {
        let url = &self.url;
        match self.syncs().await {
            Ok(true) => None,
            Ok(false) => Some(format!("NATS server does not sync (sync_interval: always): {url}")),
            Err(error) => Some(format!("cannot see whether the NATS server syncs: {error}")),
        }
    }

    async fn syncs(&self) -> Result<bool, Cause> {
        let answer = self.client.get(&self.url).send().await?.error_for_status()?;
        let jsz: Jsz = serde_json::from_slice(&answer.bytes().await?)?;
        Ok(jsz.config.is_some_and(|config| config.sync_always))
    }
}
