//! Requests of api and gateways, several at once: documents, snapshots and edits.

use std::sync::Arc;

use bytes::Bytes;
use observer_bus::{PAYLOAD_BYTES_MAX, Request, Requests};
use observer_chassis::{BoxError, Shutdown, reason};
use observer_store::vars::DeviceValues;
use observer_wire::ProjectId;
use observer_wire::ask::{DeviceView, Place, Snapshot, VarsAnswer, VarsAsk};
use observer_wire::edit::Document;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::applier::RepairError;
use crate::view::{self, DEVICES_PAGE, Names, PAGE_BYTES_TARGET};
use crate::{Context, applier, commit};

/// Answers until shutdown is requested, then finishes the answers that were begun.
pub(crate) async fn serve(
    context: Arc<Context>,
    mut requests: Box<dyn Requests>,
    requests_max: usize,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    let slots = Arc::new(Semaphore::new(requests_max));
    let answers = TaskTracker::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await?;
        let request = tokio::select! {
            biased;
            () = shutdown.requested() => break,
            request = requests.next() => request,
        };
        let context = Arc::clone(&context);
        answers.spawn(async move {
            answer(&context, request).await;
            drop(slot);
        });
    }
    answers.close();
    shutdown.drain(answers.wait()).await?;
    Ok(())
}

async fn answer(context: &Context, request: Request) {
    let answer = match serde_json::from_slice::<VarsAsk>(&request.payload) {
        Ok(VarsAsk::Edit(ask)) => commit::edit(context, ask).await,
        Ok(VarsAsk::Document { project }) => document(context, project).await,
        Ok(VarsAsk::Snapshot { project, after }) => {
            snapshot(context, project, after.as_ref()).await
        }
        // Dropped unanswered: another release asks, and its time-out tells it.
        Err(error) => return warn!(%error, "request is not readable"),
    };
    match serde_json::to_vec(&answer) {
        Ok(payload) if payload.len() <= PAYLOAD_BYTES_MAX => {
            request.reply.send(Bytes::from(payload)).await;
        }
        Ok(payload) => error!(bytes = payload.len(), "answer is too large for the bus"),
        Err(error) => error!(%error, "answer cannot be written"),
    }
}

fn busy(error: &RepairError) -> VarsAnswer {
    warn!(error = %reason(error), "request was not answered");
    VarsAnswer::Busy { words: reason(error) }
}

async fn document(context: &Context, project: ProjectId) -> VarsAnswer {
    match current(context, project).await {
        Ok(document) => VarsAnswer::Document(document),
        Err(error) => busy(&error),
    }
}

/// The document with every committed edit in it, also those that this store has not seen.
async fn current(context: &Context, project: ProjectId) -> Result<Document, RepairError> {
    applier::repair(context, project).await?;
    Ok(context.store.document(project).await?.document)
}

async fn snapshot(context: &Context, project: ProjectId, after: Option<&Place>) -> VarsAnswer {
    match page(context, project, after).await {
        Ok(snapshot) => VarsAnswer::Snapshot(snapshot),
        Err(error) => busy(&error),
    }
}

async fn page(
    context: &Context,
    project: ProjectId,
    after: Option<&Place>,
) -> Result<Snapshot, RepairError> {
    let document = match after {
        None => current(context, project).await?,
        Some(_) => context.store.document(project).await?.document,
    };
    let (mut devices, full) = read(context, project, &document, after).await?;
    let mut snapshot = Snapshot::default();
    let mut bytes = 0;
    'page: for device in devices.drain(..) {
        let mut parts = view::parts(device).into_iter().peekable();
        while let Some(part) = parts.next() {
            bytes += view::size(&part);
            snapshot.devices.push(part);
            if bytes >= PAGE_BYTES_TARGET {
                snapshot.next = place(&snapshot, parts.peek().is_some());
                break 'page;
            }
        }
    }
    if snapshot.next.is_none() && full {
        snapshot.next = place(&snapshot, false);
    }
    snapshot.document = after.is_none().then_some(document);
    Ok(snapshot)
}

/// Where the page ends; `cut` when its last device goes on.
fn place(page: &Snapshot, cut: bool) -> Option<Place> {
    let last = page.devices.last()?;
    let name = last.reported.last().filter(|_| cut).map(|value| value.name.clone());
    Some(Place { device: last.device.clone(), name })
}

/// Devices behind a place, the rest of a cut one first, and whether more may follow.
async fn read(
    context: &Context,
    project: ProjectId,
    document: &Document,
    after: Option<&Place>,
) -> Result<(Vec<DeviceView>, bool), RepairError> {
    let show = |stored: &DeviceValues| {
        let device = view::device(context, document, stored, &Names::All);
        if stored.device.online && !device.online {
            context.presence.suspect(project);
        }
        device
    };
    let mut devices = Vec::new();
    if let Some(Place { device, name: Some(name) }) = after {
        let rest = context.store.devices_by_id(project, std::slice::from_ref(device)).await?;
        devices.extend(rest.iter().map(show));
        for device in &mut devices {
            device.reported.retain(|value| name < &value.name);
            device.states.clear(); // They came with the first part.
        }
    }
    let after = after.map(|place| place.device.as_str());
    let stored = context.store.devices(project, after, DEVICES_PAGE).await?;
    devices.extend(stored.iter().map(show));
    Ok((devices, stored.len() == DEVICES_PAGE))
}
