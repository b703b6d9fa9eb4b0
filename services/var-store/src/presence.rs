//! Which gateways are alive. A device is online while its socket was not said to have ended and the
//! gateway that holds it announces itself: a gateway that was killed takes its devices with it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use observer_bus::{Heard as Said, Listener};
use observer_chassis::{BoxError, Shutdown, reason};
use observer_store::StoreError;
use observer_store::vars::{Device, Ended};
use observer_wire::ProjectId;
use observer_wire::ask::{GatewayAlive, LiveDevices};
use observer_wire::event::GoneState;
use tracing::warn;

use crate::Context;
use crate::view::{self, DEVICES_PAGE, Names, unix_ms};

/// Silence after which a gateway counts as gone: three announcements, which come every 5 s.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// Silence after which the devices of a gateway are ended for good. Longer than any hiccup of the bus:
/// a device that was ended comes back with its next sign-in only.
const ENDED_AFTER: Duration = Duration::from_mins(1);

/// Pause between two looks for devices whose gateway is gone.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Gateways remembered at most; far more than any deployment has.
const GATEWAYS_MAX: usize = 10_000;

/// Projects that wait for a look at once. The others are found when somebody asks for them.
const SUSPECTS_MAX: usize = 10_000;

/// The gateways that were heard of lately.
pub(crate) struct Presence(Mutex<Heard>);

struct Heard {
    gateways: HashMap<String, Gateway>,
    /// Projects that have, or may have, devices of a gateway that is gone.
    suspects: HashSet<ProjectId>,
    /// Since when announcements were listened to without a break.
    listening_since: Instant,
}

struct Gateway {
    last: Instant,
    /// Projects whose devices signed in there, as far as this process was told.
    projects: HashSet<ProjectId>,
}

impl Default for Presence {
    fn default() -> Self {
        Self(Mutex::new(Heard {
            gateways: HashMap::new(),
            suspects: HashSet::new(),
            listening_since: Instant::now(),
        }))
    }
}

impl Presence {
    /// A gateway gave a sign of life; `project` is one of its devices'.
    pub(crate) fn heard_of(&self, gateway: &str, project: Option<ProjectId>) {
        let now = Instant::now();
        let mut heard = self.lock();
        if !heard.gateways.contains_key(gateway) {
            if GATEWAYS_MAX <= heard.gateways.len() {
                return;
            }
            let new = Gateway { last: now, projects: HashSet::new() };
            heard.gateways.insert(gateway.to_owned(), new);
        }
        if let Some(known) = heard.gateways.get_mut(gateway) {
            known.last = now;
            if known.projects.len() < SUSPECTS_MAX {
                known.projects.extend(project);
            }
        }
    }

    /// Announcements may have been missed: silence counts from now on.
    fn missed_some(&self) {
        let now = Instant::now();
        let mut heard = self.lock();
        heard.listening_since = now;
        heard.gateways.values_mut().for_each(|gateway| gateway.last = now);
    }

    /// Whether the device can be reached, as far as anybody can tell.
    pub(crate) fn is_online(&self, device: &Device) -> bool {
        let heard = self.lock();
        let last = heard.gateways.get(&device.gateway).map(|gateway| gateway.last);
        device.online && last.is_some_and(|last| last.elapsed() < SILENCE_MAX)
    }

    /// Whether the device is said to be online and its gateway is gone for good.
    fn is_lost(&self, device: &Device) -> bool {
        let heard = self.lock();
        let silent_since =
            heard.gateways.get(&device.gateway).map_or(heard.listening_since, |known| known.last);
        device.online && ENDED_AFTER < silent_since.elapsed()
    }

    /// Somebody saw a device that is said to be online and is not: the project is looked at.
    pub(crate) fn suspect(&self, project: ProjectId) {
        let mut heard = self.lock();
        if heard.suspects.len() < SUSPECTS_MAX {
            heard.suspects.insert(project);
        }
    }

    /// Projects to look at: those of gateways that are gone, and those that somebody pointed at.
    fn take_suspects(&self) -> Vec<ProjectId> {
        let mut heard = self.lock();
        let Heard { gateways, suspects, listening_since } = &mut *heard;
        gateways.retain(|_, gateway| {
            let gone = ENDED_AFTER < gateway.last.elapsed();
            if gone {
                suspects.extend(gateway.projects.drain());
            }
            !gone
        });
        if listening_since.elapsed() < ENDED_AFTER {
            return Vec::new(); // Too early to call anybody silent.
        }
        suspects.drain().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the devices of gateways that are gone, until shutdown is requested.
pub(crate) async fn sweep(context: Arc<Context>, shutdown: Shutdown) -> Result<(), BoxError> {
    loop {
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            () = tokio::time::sleep(SWEEP_EVERY) => {}
        }
        for project in context.presence.take_suspects() {
            if let Err(error) = end_lost(&context, project).await {
                warn!(error = %reason(&error), "devices of a lost gateway are still there");
                context.presence.suspect(project);
            }
        }
    }
}

/// Ends the devices of a project whose gateway is gone, and tells viewers.
async fn end_lost(context: &Context, project: ProjectId) -> Result<(), StoreError> {
    let document = context.store.document(project).await?.document;
    let mut after: Option<String> = None;
    loop {
        let page = context.store.devices(project, after.as_deref(), DEVICES_PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.device.device.clone());
        let mut news = LiveDevices::default();
        let mut ended = Vec::new();
        for stored in page.iter().filter(|stored| context.presence.is_lost(&stored.device)) {
            let Device { device, epoch, background, .. } = &stored.device;
            let state = if *background { GoneState::Suspended } else { GoneState::Lost };
            let end = Ended { epoch: *epoch, at: unix_ms(), state };
            let removed = context.store.sign_out(project, device, &end).await?;
            news.removed.extend(removed);
            ended.push(device.clone());
        }
        let none = Names::Only(&[]);
        let stored = context.store.devices_by_id(project, &ended).await?;
        news.devices =
            stored.iter().map(|one| view::device(context, &document, one, &none)).collect();
        view::tell_devices(context, project, &news).await;
    }
}

/// Listens to announcements until shutdown is requested.
pub(crate) async fn keep(
    context: Arc<Context>,
    mut gateways: Box<dyn Listener>,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        let heard = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            heard = gateways.next() => heard,
        };
        match heard {
            Said::Resync => context.presence.missed_some(),
            Said::Message(payload) => match serde_json::from_slice::<GatewayAlive>(&payload) {
                Ok(alive) => context.presence.heard_of(&alive.gateway, None),
                Err(error) => warn!(%error, "announcement of a gateway is not readable"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::PROJECT;
    use observer_wire::hello::About;

    fn device(gateway: &str) -> Device {
        Device {
            device: "d".into(),
            named: false,
            about: About::default(),
            session: "s".into(),
            epoch: 1,
            seq: 0,
            background: false,
            gone: GoneState::Lost,
            gateway: gateway.into(),
            online: true,
            since: 0,
        }
    }

    #[test]
    fn a_device_is_online_while_its_gateway_is_heard_of() {
        let presence = Presence::default();
        assert!(!presence.is_online(&device("g")));
        presence.heard_of("g", None);
        assert!(presence.is_online(&device("g")));
        assert!(!presence.is_online(&Device { online: false, ..device("g") }));
    }

    #[test]
    fn nobody_is_lost_before_the_silence_was_long_enough_to_tell() {
        let presence = Presence::default();
        presence.suspect(PROJECT.parse().unwrap());
        assert!(!presence.is_lost(&device("never heard of")));
        assert_eq!(presence.take_suspects(), []);
    }

    #[test]
    fn devices_of_a_gateway_that_is_silent_for_long_are_lost() {
        let long_ago = Instant::now().checked_sub(ENDED_AFTER + SWEEP_EVERY);
        let long_ago = long_ago.expect("this machine started more than a minute ago");
        let presence = Presence::default();
        presence.heard_of("g", PROJECT.parse().ok());
        presence.lock().listening_since = long_ago;
        presence.lock().gateways.get_mut("g").unwrap().last = long_ago;
        assert!(presence.is_lost(&device("g")) && presence.is_lost(&device("unheard")));
        assert_eq!(presence.take_suspects(), [PROJECT.parse().unwrap()]);
        presence.missed_some();
        assert!(!presence.is_lost(&device("g")), "who missed announcements cannot tell");
    }
}
