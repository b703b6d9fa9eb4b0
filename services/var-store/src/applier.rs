//! Committed edits become what is in force. Each edit is applied by the process that committed it,
//! and here as well, in case that process died: the store takes it once.

use std::sync::Arc;
use std::time::Duration;

use observer_bus::{Consumer, Delivery};
use observer_chassis::{BoxError, Shutdown, reason};
use observer_store::vars::EditApplied;
use observer_wire::ProjectId;
use observer_wire::edit::{EDIT_VERSION, Edit};
use tracing::{error, warn};

use crate::Context;

/// Pause before an edit comes again that the store did not take.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Why a project's edits cannot be brought up to date.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepairError {
    /// The store did not answer. Try again.
    #[error(transparent)]
    Store(#[from] observer_store::StoreError),
    /// The edit log did not answer. Try again.
    #[error(transparent)]
    Bus(#[from] observer_bus::BusError),
    /// The edit log no longer reaches back to what the store has. Somebody must act.
    #[error("the edit log begins after the last edit of the store: edits between them are gone")]
    Hole,
}

/// Applies edits until shutdown is requested.
pub(crate) async fn apply(
    context: Arc<Context>,
    mut edits: Box<dyn Consumer>,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        let delivery = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            delivery = edits.next() => delivery,
        };
        settle(&context, delivery).await;
    }
}

async fn settle(context: &Context, delivery: Box<dyn Delivery>) {
    let settled = match read(delivery.payload()) {
        Err(words) => delivery.bury(&words).await,
        Ok(edit) => match apply_one(context, &edit, delivery.sequence()).await {
            Ok(()) => delivery.ack().await,
            Err(RepairError::Hole) => {
                error!(project = %edit.project, revision = edit.rev, "edit cannot be applied: edits before it are gone");
                delivery.bury("edits before this one are gone").await
            }
            Err(error) => {
                warn!(error = %reason(&error), "edit is not applied yet");
                delivery.retry(STORE_PAUSE).await
            }
        },
    };
    if let Err(error) = settled {
        warn!(error = %reason(&error), "edit was not settled");
    }
}

/// Reads an edit of the log.
pub(crate) fn read(payload: &[u8]) -> Result<Edit, String> {
    let edit: Edit = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    if edit.v != EDIT_VERSION {
        return Err(format!("edit has version {}, this process reads {EDIT_VERSION}", edit.v));
    }
    Ok(edit)
}

/// Applies an edit, and those before it that the store lacks.
pub(crate) async fn apply_one(
    context: &Context,
    edit: &Edit,
    sequence: u64,
) -> Result<(), RepairError> {
    if let EditApplied::Gap { .. } = context.store.apply_edit(edit, sequence).await? {
        repair(context, edit.project).await?;
        if let EditApplied::Gap { .. } = context.store.apply_edit(edit, sequence).await? {
            return Err(RepairError::Hole);
        }
    }
    Ok(())
}

/// Applies the edits that stand in the edit log and not in the store: those of a process that died
/// before it applied them, or that the store lost.
pub(crate) async fn repair(context: &Context, project: ProjectId) -> Result<(), RepairError> {
    loop {
        let after = context.store.document(project).await?.sequence;
        let edits = context.bus.replay_edits(project, after).await?;
        if edits.is_empty() {
            return Ok(());
        }
        for replayed in edits {
            let edit = match read(&replayed.payload) {
                Ok(edit) => edit,
                Err(words) => {
                    error!(%project, sequence = replayed.sequence, words, "edit is not readable");
                    return Err(RepairError::Hole);
                }
            };
            match context.store.apply_edit(&edit, replayed.sequence).await? {
                EditApplied::Now | EditApplied::Before => {}
                EditApplied::Gap { .. } => return Err(RepairError::Hole),
            }
            // observer_edits_repaired_total: edits applied from the edit log after a loss.
            metrics::counter!("observer_edits_repaired_total").increment(1);
        }
    }
}
