//! Accepted edits, from the bus to every socket of their project. One listener a process; each
//! worker gets what it heard and pushes it to its own sockets.
//!
//! Nothing depends on a broadcast having arrived: a socket gets an edit as such only if that is the
//! very next after what it was sent, else the whole document; and every
//! [`RECONCILE_EVERY`] all documents are asked for and all sockets compared with them. What the
//! documents say is kept in [`crate::documents`].

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use observer_bus::{Heard, Listener, Topic};
use observer_chassis::{Backoff, Check};
use observer_wire::ask::Control;
use observer_wire::edit::{EDIT_VERSION, Edit, write_wanted};
use observer_wire::hello::Encoding;
use observer_wire::{ApiKey, ProjectId};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};
use tracing::{debug, warn};

use crate::documents::{Applied, NoDocument, Project, Stamp, Wanted, encode};
use crate::level2::{self, take_control};
use crate::shared::Shared;
use crate::socket::Socket;
use crate::worker::Worker;

/// How often all documents are compared with var-store, whatever was heard.
pub(crate) const RECONCILE_EVERY: Duration = Duration::from_secs(15);

/// Documents asked for at once while reconciling.
const RECONCILE_AT_ONCE: usize = 16;

/// Tries to get a document that has a committed edit; then the next reconciliation gets it.
const REFRESH_TRIES: u32 = 6;

/// Pauses between those tries: an edit is applied within milliseconds, or somebody is down.
const REFRESH_PAUSE: (Duration, Duration) = (Duration::from_millis(40), Duration::from_secs(2));

/// Pauses between tries to listen.
const LISTEN_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Edits that a worker may be behind; past it, it compares all its sockets with the documents.
pub(crate) const PUSHES_MAX: usize = 1024;

/// What a worker is to push.
#[derive(Clone, Debug)]
pub(crate) enum Push {
    /// An edit, to the sockets that have everything before it.
    Edit { project: ProjectId, stamp: Stamp, frame: Frame },
    /// The document, to the sockets that are behind it.
    Document { project: ProjectId },
    /// What all gateways were told.
    Control(Arc<Control>),
}

/// What sockets of each kind get.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    /// Level 1, in base64.
    level_1: Bytes,
    /// Level 2, in base64.
    payload: Bytes,
    /// Level 2, in plain JSON.
    json: Bytes,
}

/// Listens to edits until it is dropped.
pub(crate) async fn follow(shared: Arc<Shared>, check: Check) {
    let mut backoff = Backoff::new(LISTEN_PAUSE.0, LISTEN_PAUSE.1);
    loop {
        match shared.bus.listen(Topic::Edits).await {
            Ok(mut listener) => {
                check.ok();
                hear(&shared, listener.as_mut()).await;
            }
            Err(error) => check.not_ok(error.to_string()),
        }
        sleep(backoff.next_delay()).await;
    }
}

async fn hear(shared: &Arc<Shared>, listener: &mut dyn Listener) {
    // What was committed before the subscription was in force was not heard.
    shared.reconcile.notify_one();
    loop {
        match listener.next().await {
            Heard::Message(bytes) => take_edit(shared, &bytes),
            Heard::Resync => shared.reconcile.notify_one(),
        }
    }
}

fn take_edit(shared: &Arc<Shared>, bytes: &[u8]) {
    let edit: Edit = match serde_json::from_slice(bytes) {
        Ok(edit) => edit,
        Err(error) => return warn!(%error, "edit cannot be read"),
    };
    if edit.v != EDIT_VERSION {
        return warn!(version = edit.v, "edit has a version that this process does not read");
    }
    let Some(project) = shared.projects.get(edit.project) else { return };
    let stamp = Stamp { epoch: edit.epoch.as_str().into(), rev: edit.rev };
    match project.apply(&edit, &stamp) {
        // Applied first, told second: so a worker never hears of more than the document has.
        Applied::Yes => {
            let json = edit.changes_json();
            let payload = encode(&json);
            // Only what the original's page sent differs.
            let level_1 =
                edit.raw.as_ref().map_or_else(|| payload.clone(), |_| encode(&edit.device_json()));
            let frame = Frame { level_1, payload, json: json.into() };
            shared.push(Push::Edit { project: project.id, stamp, frame });
        }
        Applied::Gap => refresh_soon(shared, project),
    }
}

/// Gets the project's document again, unless somebody is at it.
pub(crate) fn refresh_soon(shared: &Arc<Shared>, project: Arc<Project>) {
    if project.refreshing.swap(true, Ordering::AcqRel) {
        return;
    }
    let shared_again = Arc::clone(shared);
    shared.refreshes.spawn(shared.ended.clone().run_until_cancelled_owned(async move {
        let mut backoff = Backoff::new(REFRESH_PAUSE.0, REFRESH_PAUSE.1);
        for _ in 0..REFRESH_TRIES {
            let refreshed = refresh(&shared_again, &project).await;
            project.refreshing.store(false, Ordering::Release);
            if refreshed.is_ok() && !project.is_behind() {
                return;
            }
            // An edit that was heard in between found somebody at it, so this one goes on.
            if project.refreshing.swap(true, Ordering::AcqRel) {
                return;
            }
            sleep(backoff.next_delay()).await;
        }
        project.stop_waiting();
        project.refreshing.store(false, Ordering::Release);
    }));
}

/// Reconciles at every request, and every [`RECONCILE_EVERY`], until it is dropped.
pub(crate) async fn reconcile_when_asked(shared: Arc<Shared>) {
    let mut every = interval_at(Instant::now() + RECONCILE_EVERY, RECONCILE_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shared.reconcile.notified() => {}
        }
        reconcile(&shared).await;
    }
}

async fn reconcile(shared: &Arc<Shared>) {
    let mut asked = JoinSet::new();
    for project in shared.projects.all() {
        while RECONCILE_AT_ONCE <= asked.len() {
            asked.join_next().await;
        }
        let shared = Arc::clone(shared);
        asked.spawn(async move {
            if let Err(error) = refresh(&shared, &project).await {
                debug!(project = %project.id, %error, "document could not be compared");
            }
        });
    }
    while asked.join_next().await.is_some() {}
}

async fn refresh(shared: &Shared, project: &Project) -> Result<(), NoDocument> {
    let refreshed = shared.documents.refresh(project).await;
    // Also what was known before may be news to a socket.
    shared.push(Push::Document { project: project.id });
    refreshed
}

/// Pushes to this worker's sockets what the process hears, until the process ends.
pub(crate) async fn push_all(worker: Rc<Worker>, mut pushes: broadcast::Receiver<Push>) {
    loop {
        match pushes.recv().await {
            Ok(Push::Edit { project, stamp, frame }) => {
                push_edit(&worker, project, &stamp, &frame);
            }
            Ok(Push::Control(control)) => take_control(&worker, &control),
            Ok(Push::Document { project }) => push_document(&worker, project),
            Err(RecvError::Lagged(_)) => {
                let projects: Vec<_> =
                    worker.registry.borrow().projects().map(|of| of.project.id).collect();
                for project in projects {
                    push_document(&worker, project);
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

fn push_edit(worker: &Worker, project: ProjectId, stamp: &Stamp, frame: &Frame) {
    let registry = worker.registry.borrow();
    let Some(of_project) = registry.of(project) else { return };
    let mut wanted = None;
    for socket in &of_project.sockets {
        let next = socket.sent.borrow().as_ref().is_some_and(|sent| stamp.is_next_after(sent));
        if next {
            send(worker, socket, (stamp, stamp.rev.saturating_sub(1)), frame);
        } else if stamp.is_news_after(socket.sent.borrow().as_ref()) {
            let wanted = wanted.get_or_insert_with(|| of_project.project.wanted());
            bring_up_to_date(worker, socket, wanted.as_ref());
        }
    }
}

fn push_document(worker: &Worker, project: ProjectId) {
    let registry = worker.registry.borrow();
    let Some(of_project) = registry.of(project) else { return };
    let wanted = of_project.project.wanted();
    for socket in &of_project.sockets {
        bring_up_to_date(worker, socket, wanted.as_ref());
    }
}

/// Sends the whole document to a socket that was sent less.
pub(crate) fn bring_up_to_date(worker: &Worker, socket: &Socket, wanted: Option<&Wanted>) {
    let Some(Wanted { stamp, json, payload }) = wanted else { return };
    if !stamp.is_news_after(socket.sent.borrow().as_ref()) {
        return;
    }
    // A game that has values of another epoch must hear that there are none in this one.
    let has_values = socket.sent.borrow().as_ref().is_some_and(|sent| 0 < sent.rev);
    if stamp.rev == 0 && !has_values {
        // Nothing was ever set, so there is nothing to say; but what comes next follows this.
        *socket.sent.borrow_mut() = Some(stamp.clone());
        return;
    }
    let frame = Frame { level_1: payload.clone(), payload: payload.clone(), json: json.clone() };
    send(worker, socket, (stamp, 0), &frame);
}

/// Sends what builds on `base`; 0 for a whole document.
fn send(worker: &Worker, socket: &Socket, (stamp, base): (&Stamp, u64), frame: &Frame) {
    let Some(signed_in) = socket.signed_in() else { return };
    match socket.said() {
        None => socket.tell(|out| write_frame(out, signed_in.key, &frame.level_1)),
        Some(said) if said.is_replay() => {}
        Some(said) => {
            level2::tell_epoch(worker, socket, &said, stamp);
            let payload = match said.encoding {
                Encoding::Base64 => &frame.payload,
                Encoding::Plain => &frame.json,
            };
            socket.tell(|out| write_wanted(out, signed_in.key, payload, (stamp.rev, base)));
        }
    }
    *socket.sent.borrow_mut() = Some(stamp.clone());
    worker.shared.numbers.pushed.increment(1);
}

/// Writes `v:<key>:<base64>`, as [`observer_wire::edit::push_frame`] does, but encoded already: many
/// sockets get the same.
pub(crate) fn write_frame(out: &mut Vec<u8>, key: ApiKey, payload: &[u8]) {
    out.reserve(payload.len() + key.as_str().len() + 4);
    out.extend_from_slice(b"v:");
    out.extend_from_slice(key.as_str().as_bytes());
    out.push(b':');
    out.extend_from_slice(payload);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_the_one_that_wire_describes() {
        let key = "0123456789ab".parse().unwrap();
        let json = br#"[{"name":"a"}]"#;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        write_frame(&mut ours, key, &encode(json));
        observer_wire::edit::push_frame(&mut theirs, key, json);
        assert_eq!(ours, theirs);
    }
}
