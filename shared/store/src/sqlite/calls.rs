//! Writes as closures, for databases whose writes are few and of many kinds.

use std::fmt;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::failure::Failure;
use super::writer::{Writer, Writes};

/// What the writer's thread remembers of a database between calls.
pub(super) trait State: Send + 'static {
    /// What was said since the last call is safe.
    fn committed(&mut self);
    /// What was said since the last call is undone.
    fn rolled_back(&mut self);
}

impl State for () {
    fn committed(&mut self) {}
    fn rolled_back(&mut self) {}
}

/// A write that waits for its turn.
pub(super) type Call<S> = Box<dyn AnyCall<S>>;

/// A write whose answer can have any type.
pub(super) trait AnyCall<S>: Send {
    fn run(&mut self, db: &Connection, state: &mut S) -> Result<(), Failure>;
    fn answer(self: Box<Self>, result: Result<(), Failure>);
}

struct OneCall<F, A> {
    run: F,
    answer: Option<A>,
    caller: oneshot::Sender<Result<A, Failure>>,
}

impl<S, F, A> AnyCall<S> for OneCall<F, A>
where
    F: FnMut(&Connection, &mut S) -> Result<A, Failure> + Send,
    A: Send,
{
    fn run(&mut self, db: &Connection, state: &mut S) -> Result<(), Failure> {
        self.answer = Some((self.run)(db, state)?);
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<(), Failure>) {
        let Self { answer, caller, .. } = *self;
        let answer = result.map(|()| answer.expect("what succeeded has run"));
        // A caller that gave up does not want to know.
        drop(caller.send(answer));
    }
}

/// [`Writes`] of closures over `S`.
pub(super) struct Calls<S>(pub(super) S);

impl<S> fmt::Debug for dyn AnyCall<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnyCall")
    }
}

impl<S: State> Writes for Calls<S> {
    type Work = Call<S>;

    fn weight(_: &Call<S>) -> usize {
        // A report of a device is a line, an edit a document: the queue's length is bound enough.
        1
    }

    fn run(&mut self, db: &Connection, group: &mut [Call<S>]) -> Result<(), Failure> {
        group.iter_mut().try_for_each(|call| call.run(db, &mut self.0))
    }

    fn committed(&mut self) {
        self.0.committed();
    }

    fn rolled_back(&mut self) {
        self.0.rolled_back();
    }

    fn answer(work: Call<S>, result: Result<(), Failure>) {
        work.answer(result);
    }
}

impl<S: State> Writer<Call<S>> {
    /// Runs `run` inside a transaction on the writer's thread; returns when that is safe. `run` is
    /// called again when a neighbour in its transaction failed.
    pub(super) async fn call<A: Send + 'static>(
        &self,
        run: impl FnMut(&Connection, &mut S) -> Result<A, Failure> + Send + 'static,
    ) -> Result<A, Failure> {
        let (caller, answer) = oneshot::channel();
        self.write(Box::new(OneCall { run, answer: None, caller }), answer).await
    }

    /// Whether the file can be read and written.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        if self.failure().is_none() {
            return Ok(());
        }
        // A real write: only a commit shows that a disk is well again.
        self.call(|db, _| {
            let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            Ok(db.pragma_update(None, "user_version", version)?)
        })
        .await
    }
}
