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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StoreErrorKind;
    use crate::sqlite::file::{self, Opened, Schema};

    const SCHEMA: Schema = Schema {
        name: "test",
        version: 1,
        create: "CREATE TABLE x (y INTEGER UNIQUE) STRICT;",
        upgrades: &[],
    };

    fn insert(number: i64) -> impl FnMut(&Connection, &mut ()) -> Result<usize, Failure> {
        move |db, ()| Ok(db.execute("INSERT INTO x VALUES (?1)", [number])?)
    }

    #[tokio::test]
    async fn a_write_that_cannot_succeed_fails_alone() {
        let folder = tempfile::tempdir().unwrap();
        let Opened { db, lock, inspection, .. } = file::open(folder.path(), &SCHEMA).await.unwrap();
        let lock = (lock, inspection.soundness().clone());
        let writer = Writer::start(SCHEMA.name, db, lock, Calls(())).unwrap();
        // The first holds the thread up until the others wait behind it: they are one group.
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let first = writer.call(move |_, ()| Ok(gone.recv().is_err()));
        let (a, b, c) = (writer.call(insert(1)), writer.call(insert(1)), writer.call(insert(2)));
        let let_go = async move { drop(go) };
        let (first, a, b, c, ()) = tokio::join!(first, a, b, c, let_go);
        assert!(first.unwrap());
        assert_eq!((a.unwrap(), c.unwrap()), (1, 1));
        assert_eq!(b.unwrap_err().kind, StoreErrorKind::Refused);
        assert!(writer.check().await.is_ok());
    }
}
