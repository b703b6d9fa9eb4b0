//! `v:<key>`: is the key registered, and what does the game get then. While its key is asked for,
//! the socket is not read.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use observer_chassis::{Backoff, now_us};
use observer_wire::event::LineKind;
use observer_wire::{ApiKey, Code, ProjectId, Refusal, answer};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::accept_line::wrong_key;
use crate::documents::{NoDocument, Project};
use crate::edits::{bring_up_to_date, refresh_soon};
use crate::keys::Verdict;
use crate::level2;
use crate::presence::{self, Presence};
use crate::socket::{SignedIn, Socket};
use crate::worker::Worker;

/// Pauses between tries to get the wanted document of a game that signed in.
const DOCUMENT_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Time for which the answer to a hello waits for the project's revision. A game is better served
/// without it than not at all.
const REVISION_WITHIN: Duration = Duration::from_secs(1);

/// Takes a sign-in line. `key` is `None` when the text can be no key.
pub(crate) fn begin(worker: &Rc<Worker>, socket: &Rc<Socket>, key: Option<ApiKey>) {
    if let Some(signed_in) = socket.signed_in() {
        return sign_in_again(worker, socket, signed_in, key);
    }
    let Some(key) = key else { return socket.refuse(&unknown_key(), None) };
    if let Some(project) = worker.shared.keys.fresh(key) {
        return complete(worker, socket, key, project);
    }
    socket.asking.set(true);
    worker.sessions.spawn_local(ask(Rc::clone(worker), Rc::clone(socket), key));
}

fn sign_in_again(worker: &Worker, socket: &Socket, signed_in: &SignedIn, key: Option<ApiKey>) {
    if key != Some(signed_in.key) {
        return socket.refuse(&wrong_key(), None);
    }
    worker.shared.numbers.lines_accepted.increment(1);
    socket.tell(answer::write_signed_in);
    // After a good sign-in the wanted variables follow, also after a second one.
    *socket.sent.borrow_mut() = None;
    bring_up_to_date(worker, socket, signed_in.project.wanted().as_ref());
}

async fn ask(worker: Rc<Worker>, socket: Rc<Socket>, key: ApiKey) {
    let verdict = tokio::select! {
        verdict = worker.shared.keys.look_up(key) => verdict,
        () = worker.drain_requested.cancelled() => Verdict::Busy,
    };
    socket.asking.set(false);
    match verdict {
        Verdict::Opens(project) => complete(&worker, &socket, key, project),
        Verdict::Unknown => socket.refuse(&unknown_key(), None),
        Verdict::Busy => {
            let words = "nobody can tell now whether the key is good; send this line again";
            socket.refuse(&Refusal::new(Code::Busy, words), None);
        }
    }
    socket.stir(); // It is read again.
}

fn complete(worker: &Rc<Worker>, socket: &Rc<Socket>, key: ApiKey, project: ProjectId) {
    let shared = &worker.shared;
    let rates = match shared.rates.sign_in(key) {
        Ok(rates) => rates,
        Err(too_fast) => {
            shared.numbers.key_connects_refused.increment(1);
            return socket.refuse(&too_fast.refusal(Code::TooManySockets), None);
        }
    };
    let Some(slot) = shared.key_slots.take(key) else {
        let words = "the key has as many sockets as it may (limits.key_sockets_max)";
        return socket.refuse(&Refusal::new(Code::TooManySockets, words), None);
    };
    shared.numbers.lines_accepted.increment(1);
    if socket.has_ended() || socket.is_closing() {
        return; // It went while we asked; nobody was told that it had come.
    }
    let project = shared.projects.enter(project);
    let (epoch, of_project) = (Cell::new(now_us()), Arc::clone(&project));
    let signed_in = SignedIn { key, project: of_project, epoch, rates, _slot: slot };
    socket.sign_in(signed_in);
    // Registered first: an edit of this moment finds the socket, or is in the document already.
    worker.registry.borrow_mut().sign_in(socket, &project);
    if socket.said().is_some() {
        level2::fence(worker, socket);
        return answer_hello(worker, socket);
    }
    socket.tell(answer::write_signed_in);
    if let Some(sign_in) = Presence::of(socket, LineKind::SignIn) {
        presence::tell(worker, sign_in);
    }
    if let Some(wanted) = project.wanted() {
        return bring_up_to_date(worker, socket, Some(&wanted));
    }
    let (worker, socket) = (Rc::clone(worker), Rc::clone(socket));
    worker.sessions.clone().spawn_local(send_document(worker, socket, project));
}

/// Answers a hello of a socket that is signed in: who it is now, and what holds.
pub(crate) fn answer_hello(worker: &Rc<Worker>, socket: &Rc<Socket>) {
    let Some(signed_in) = socket.signed_in() else { return };
    if let Some(sign_in) = Presence::of(socket, LineKind::SignIn) {
        presence::tell(worker, sign_in);
    }
    if signed_in.project.wanted().is_some() {
        return level2::welcome(worker, socket);
    }
    socket.asking.set(true);
    let project = Arc::clone(&signed_in.project);
    let (worker, socket) = (Rc::clone(worker), Rc::clone(socket));
    worker.sessions.clone().spawn_local(async move {
        let known = timeout(REVISION_WITHIN, know_document(&worker, &socket, &project));
        let known = worker.drain_requested.run_until_cancelled(known).await;
        level2::welcome(&worker, &socket);
        socket.asking.set(false);
        socket.stir();
        if !matches!(known, Some(Ok(()))) {
            send_document(worker, socket, project).await;
        }
    });
}

/// Gets the wanted document for a game that was the first of its project.
async fn send_document(worker: Rc<Worker>, socket: Rc<Socket>, project: Arc<Project>) {
    let known = know_document(&worker, &socket, &project);
    worker.drain_requested.run_until_cancelled(known).await;
    // Taken now, not when it was asked for: nothing may come between this and what follows.
    bring_up_to_date(&worker, &socket, project.wanted().as_ref());
}

async fn know_document(worker: &Worker, socket: &Socket, project: &Arc<Project>) {
    let mut backoff = Backoff::new(DOCUMENT_PAUSE.0, DOCUMENT_PAUSE.1);
    while !socket.has_ended() {
        match worker.shared.documents.know(project).await {
            Ok(()) => return,
            Err(NoDocument::Behind) => {
                return refresh_soon(&worker.shared, Arc::clone(project));
            }
            Err(error) => debug!(project = %project.id, %error, "no document for a sign-in"),
        }
        sleep(backoff.next_delay()).await;
    }
}

fn unknown_key() -> Refusal {
    Refusal::new(
        Code::UnknownKey,
        "this key was never registered; look it up, or make one, on the Observer page",
    )
}
