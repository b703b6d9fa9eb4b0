//! Gateways ask whether a key may sign in; the account store knows. Who cannot tell stays silent: an
//! answer of "unknown" would close the door to a game that has the right key.

use std::sync::Arc;

use bytes::Bytes;
use metrics::counter;
use observer_bus::{Request, Requests};
use observer_chassis::{BoxError, reason};
use observer_wire::ask::{KeyAnswer, KeyAsk};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::app::App;

/// Questions answered at once. Further ones wait on the bus, and time out there.
const AT_ONCE: usize = 64;

/// Answers until shutdown is requested.
pub(crate) async fn answer(app: Arc<App>, mut requests: Box<dyn Requests>) -> Result<(), BoxError> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let next = async {
            let turn = Arc::clone(&turns).acquire_owned().await;
            (turn.expect("the semaphore is never closed"), requests.next().await)
        };
        let (turn, request) = tokio::select! {
            () = app.shutdown.requested() => return Ok(()),
            next = next => next,
        };
        let accounts = Arc::clone(&app);
        app.open.spawn(async move {
            answer_one(&accounts, request).await;
            drop(turn);
        });
    }
}

/// `observer_key_answers_total{answer}`: known, unknown, or none, when the store could not tell.
async fn answer_one(app: &App, request: Request) {
    let ask: KeyAsk = match serde_json::from_slice(&request.payload) {
        Ok(ask) => ask,
        Err(error) => return warn!(%error, "question for a key is not readable"),
    };
    let project = match app.ports.accounts.project_of(ask.key).await {
        Ok(project) => project,
        Err(error) => {
            counter!("observer_key_answers_total", "answer" => "none").increment(1);
            // The store's check on the admin port warns, once; this may be asked a lot.
            return debug!(error = %reason(&error), "question for a key is not answered");
        }
    };
    let label = if project.is_some() { "known" } else { "unknown" };
    counter!("observer_key_answers_total", "answer" => label).increment(1);
    let answer = serde_json::to_vec(&KeyAnswer { project });
    request.reply.send(Bytes::from(answer.expect("a plain struct always serialises"))).await;
}
