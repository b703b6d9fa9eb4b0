//! Whether the servers keep what the profile promises: each syncs, and the streams have their copies.
//! Nothing but a server's monitoring port shows whether it syncs. Looked at when the process starts,
//! every minute, and whenever the connection was made anew.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::Context;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;

use super::broker::{Broker, Link};
use super::{Cause, refused, streams};
use crate::config::{BusConfig, Profile};
use crate::{BusError, BusErrorKind, lock};

/// How often the servers are asked.
const ASK_EVERY: Duration = Duration::from_mins(1);

/// How soon servers that did not answer, or answered wrongly, are asked again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Time for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// What is known about the servers.
pub(super) struct Watched {
    complaint: Arc<Mutex<Option<String>>>,
}

impl Watched {
    /// Asks once, and goes on asking until the bus is dropped.
    pub(super) async fn start(broker: &Arc<Broker>, config: &BusConfig) -> Result<Self, BusError> {
        let client = reqwest::Client::builder().timeout(ANSWER_TIMEOUT).no_proxy().build();
        let client = client.map_err(|error| refused("preparing to watch the servers", error))?;
        let asked = Asked {
            nats: broker.client.clone(),
            jetstream: broker.jetstream.clone(),
            monitors: config.monitor_url.as_deref().map(monitors).unwrap_or_default(),
            client,
            config: config.clone(),
        };
        let watched = Self { complaint: Arc::new(Mutex::new(asked.complaint().await)) };
        let (link, closed) = (broker.link.clone(), broker.closed.clone());
        let complaint = Arc::clone(&watched.complaint);
        broker.spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {}
                () = watch(asked, link, complaint) => {}
            }
        });
        Ok(watched)
    }

    /// Whether the servers keep what the profile promises.
    pub(super) fn check(&self) -> Result<(), String> {
        lock(&self.complaint).clone().map_or(Ok(()), Err)
    }
}

async fn watch(
    asked: Asked,
    mut link: watch::Receiver<Link>,
    complaint: Arc<Mutex<Option<String>>>,
) {
    loop {
        let pause = if lock(&complaint).is_some() { ASK_AGAIN } else { ASK_EVERY };
        let before = link.borrow_and_update().losses;
        tokio::select! {
            () = sleep(pause) => {}
            // A server that was restarted may have been given another configuration.
            made = link.wait_for(|link| link.connected && link.losses != before) => {
                if made.is_err() {
                    return; // The client is gone.
                }
            }
        }
        let now = asked.complaint().await;
        *lock(&complaint) = now;
    }
}

/// Monitoring addresses, as the setting lists them.
fn monitors(setting: &str) -> Vec<String> {
    let url = |address: &str| format!("{}/jsz", address.trim().trim_end_matches('/'));
    setting.split(',').map(url).collect()
}

/// Whom to ask, and what for.
struct Asked {
    nats: Client,
    jetstream: Context,
    client: reqwest::Client,
    monitors: Vec<String>,
    config: BusConfig,
}

/// What a server says of itself, as far as it matters.
#[derive(Debug, Deserialize)]
struct Jsz {
    server_id: String,
    config: Option<JszConfig>,
    meta_cluster: Option<MetaCluster>,
}

#[derive(Debug, Deserialize)]
struct JszConfig {
    #[serde(default)]
    sync_always: bool,
}

#[derive(Debug, Deserialize)]
struct MetaCluster {
    #[serde(default)]
    cluster_size: usize,
}

impl Asked {
    /// What is wrong.
    async fn complaint(&self) -> Option<String> {
        match streams::check(&self.jetstream, &self.config).await {
            // Whether there is a server at all, others watch.
            Ok(()) => {}
            Err(error) if error.kind == BusErrorKind::Unavailable => {}
            Err(error) => return Some(error.source.to_string()),
        }
        let profile = self.config.profile;
        if profile == Profile::Fast {
            return None;
        }
        if self.monitors.is_empty() {
            return Some(format!(
                "bus.profile is {}, but without bus.monitor_url nothing shows whether the server \
                 syncs",
                profile.name()
            ));
        }
        let mut seen = Vec::new();
        let mut unseen = Vec::new();
        for url in &self.monitors {
            match self.read(url).await {
                Ok(jsz) => seen.push((url.as_str(), jsz)),
                Err(error) => unseen.push(format!("{url}: {error}")),
            }
        }
        let connected_to = self.nats.server_info().server_id;
        judge(profile, &seen, &unseen, &connected_to).err()
    }

    async fn read(&self, url: &str) -> Result<Jsz, Cause> {
        let answer = self.client.get(url).send().await?.error_for_status()?;
        Ok(serde_json::from_slice(&answer.bytes().await?)?)
    }
}

/// Whether what servers say of themselves is what the profile needs.
fn judge(
    profile: Profile,
    seen: &[(&str, Jsz)],
    unseen: &[String],
    connected_to: &str,
) -> Result<(), String> {
    let lax = |jsz: &Jsz| !jsz.config.as_ref().is_some_and(|config| config.sync_always);
    if let Some((url, _)) = seen.iter().find(|(_, jsz)| lax(jsz)) {
        return Err(format!("NATS server does not sync (sync_interval: always): {url}"));
    }
    // One copy is only as safe as its server. Of several, a majority acknowledges: while one server is
    // away, the others keep the promise.
    let minority = (profile.replicas() - 1) / 2;
    if minority < unseen.len() {
        let unseen = unseen.join("; ");
        return Err(format!("cannot see whether the NATS server syncs: {unseen}"));
    }
    let ids: BTreeSet<&str> = seen.iter().map(|(_, jsz)| jsz.server_id.as_str()).collect();
    let known = ids.len() + unseen.len();
    let size = |jsz: &Jsz| jsz.meta_cluster.as_ref().map_or(1, |cluster| cluster.cluster_size);
    let servers = seen.iter().map(|(_, jsz)| size(jsz)).max().unwrap_or(1);
    let needed = profile.replicas().max(servers);
    if known < needed {
        return Err(format!(
            "bus.profile is {}, which takes {needed} NATS servers here, but bus.monitor_url shows \
             {known}",
            profile.name()
        ));
    }
    if !ids.contains(connected_to) {
        return Err("the NATS server that this process uses is none of those that \
                    bus.monitor_url shows"
            .to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jsz(id: &str, sync_always: bool, servers: usize) -> Jsz {
        let meta_cluster = (servers > 1).then_some(MetaCluster { cluster_size: servers });
        Jsz { server_id: id.to_owned(), config: Some(JszConfig { sync_always }), meta_cluster }
    }

    fn check(profile: Profile, seen: Vec<Jsz>, unseen: usize, complaint: &str) {
        let seen: Vec<_> = seen.into_iter().map(|jsz| ("http://monitor/jsz", jsz)).collect();
        let unseen: Vec<_> = (0..unseen).map(|_| "http://gone/jsz: refused".to_owned()).collect();
        match judge(profile, &seen, &unseen, "a") {
            Ok(()) => assert_eq!(complaint, ""),
            Err(found) => assert!(!complaint.is_empty() && found.contains(complaint), "{found}"),
        }
    }

    #[test]
    fn every_server_of_a_durable_profile_must_be_seen_to_sync() {
        let durable = Profile::Durable;
        check(durable, vec![jsz("a", true, 1)], 0, "");
        check(durable, vec![jsz("a", false, 1)], 0, "does not sync");
        check(durable, vec![jsz("a", true, 1)], 1, "cannot see");
        check(durable, vec![], 1, "cannot see");
        check(durable, vec![jsz("b", true, 1)], 0, "none of those");
        check(durable, vec![jsz("a", true, 3)], 0, "takes 3 NATS servers here");
        let three = || vec![jsz("a", true, 3), jsz("b", true, 3), jsz("c", true, 3)];
        check(durable, three(), 0, "");
    }

    #[test]
    fn of_three_servers_one_may_be_away_and_none_may_be_lax() {
        let replicated = Profile::ReplicatedDurable;
        let servers = |ids: &[&str]| ids.iter().map(|id| jsz(id, true, 3)).collect::<Vec<_>>();
        check(replicated, servers(&["a", "b", "c"]), 0, "");
        check(replicated, servers(&["a", "b"]), 1, "");
        check(replicated, servers(&["a"]), 2, "cannot see");
        check(replicated, servers(&["b", "c"]), 1, "none of those");
        check(replicated, servers(&["a", "b"]), 0, "shows 2");
        check(replicated, servers(&["a", "b", "b"]), 0, "shows 2");
        check(replicated, vec![jsz("a", true, 1)], 0, "shows 1");
        let mut lax = servers(&["a", "b"]);
        lax.push(jsz("c", false, 3));
        check(replicated, lax, 0, "does not sync");
    }

    #[test]
    fn monitoring_addresses_are_separated_by_commas() {
        assert_eq!(monitors("http://a:1/, http://b:2"), ["http://a:1/jsz", "http://b:2/jsz"]);
    }
}
