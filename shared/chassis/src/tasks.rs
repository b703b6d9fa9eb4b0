//! Watches the tasks a process cannot live without: when one ends early, the process ends with
//! failure instead of limping. It restarts nothing; the system that started the process does.

use std::any::Any;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinError;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use crate::BoxError;
use crate::shutdown::{DrainTimeout, Shutdown};

/// Why the tasks of a process did not end in order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskFailed {
    /// The task panicked: a bug of ours.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Name of the task.
        task: &'static str,
        /// What the panic said.
        message: String,
    },
    /// The task returned an error.
    #[error("task {task} failed")]
    Failed {
        /// Name of the task.
        task: &'static str,
        /// What it returned.
        source: BoxError,
    },
    /// The task ended without an error though nobody had asked it to.
    #[error("task {task} ended though shutdown was not requested")]
    EndedEarly {
        /// Name of the task.
        task: &'static str,
    },
    /// All tasks did well but some were cut off at the end.
    #[error(transparent)]
    Drain(#[from] DrainTimeout),
}

/// The essential tasks of a process. Clones watch the same tasks.
#[derive(Clone, Debug)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: Shutdown,
    first_failure: Arc<Mutex<Option<TaskFailed>>>,
}

impl Tasks {
    /// No tasks yet. A failing one will request `shutdown`.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, first_failure: Arc::default() }
    }

    /// Starts a task that must run until shutdown is requested.
    ///
    /// If it panics, returns an error, or returns early, shutdown is requested and
    /// [`Tasks::finish`] returns the reason.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        self.spawn_until(name, self.shutdown.clone(), task);
    }

    /// As [`Tasks::spawn`], for a task of a [later stage](Shutdown::later_stage): it may end once
    /// `stage` is requested.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn spawn_until<F, E>(&self, name: &'static str, stage: Shutdown, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError> + Send + 'static,
    {
        let running = self.tracker.spawn(task);
        let tasks = self.clone();
        self.tracker.spawn(async move {
            let failure = match running.await {
                Ok(Ok(())) if stage.is_requested() => return,
                Ok(Ok(())) => TaskFailed::EndedEarly { task: name },
                Ok(Err(error)) => TaskFailed::Failed { task: name, source: error.into() },
                Err(error) => match panic_message(error) {
                    Some(message) => TaskFailed::Panicked { task: name, message },
                    None => return, // Cancelled: the runtime itself is ending.
                },
            };
            tasks.fail(failure);
        });
    }

    /// Waits for the request to end, then for all tasks, within the grace.
    ///
    /// # Errors
    ///
    /// What the first task failed of; else [`TaskFailed::Drain`] when tasks were cut off.
    pub async fn finish(self) -> Result<(), TaskFailed> {
        self.shutdown.requested().await;
        self.tracker.close();
        let drained = self.shutdown.drain(self.tracker.wait()).await;
        match self.first_failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(failure) => Err(failure),
            None => Ok(drained?),
        }
    }

    /// Keeps the first failure to return it; later ones are only logged.
    fn fail(&self, failure: TaskFailed) {
        let mut first = self.first_failure.lock().unwrap_or_else(PoisonError::into_inner);
        if first.is_some() {
            error!(error = &failure as &dyn std::error::Error, "another task failed");
        } else {
            info!("shutdown requested by a failed task");
            *first = Some(failure);
        }
        self.shutdown.request();
    }
}

/// What the panic said, or `None` when the task did not panic.
fn panic_message(error: JoinError) -> Option<String> {
    let panic: Box<dyn Any + Send> = error.try_into_panic().ok()?;
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    Some(text.unwrap_or_else(|| "without a message".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::io;
    use std::time::Duration;

    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    async fn until(shutdown: Shutdown) -> Result<(), BoxError> {
        shutdown.requested().await;
        Ok(())
    }

    /// Runs `task` beside one that does well, and says how it all ended.
    async fn outcome<F>(task: F) -> String
    where
        F: Future<Output = Result<(), BoxError>> + Send + 'static,
    {
        let shutdown = Shutdown::new(GRACE);
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn("good", until(shutdown.clone()));
        tasks.spawn("tested", task);
        let failure = tasks.finish().await.unwrap_err();
        assert!(shutdown.is_requested());
        failure.to_string()
    }

    #[tokio::test]
    async fn task_that_panics_ends_the_process_with_its_message() {
        let text = outcome(async { panic!("slot {} is empty", 3) }).await;
        assert_eq!(text, "task tested panicked: slot 3 is empty");
    }

    #[tokio::test]
    async fn task_that_fails_ends_the_process() {
        let text = outcome(async { Err(io::Error::other("disk full").into()) }).await;
        assert_eq!(text, "task tested failed");
    }

    #[tokio::test]
    async fn task_that_ends_early_ends_the_process() {
        let text = outcome(async { Ok(()) }).await;
        assert_eq!(text, "task tested ended though shutdown was not requested");
    }

    #[tokio::test]
    async fn tasks_that_end_when_asked_are_a_success() {
        let shutdown = Shutdown::new(GRACE);
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn("good", until(shutdown.clone()));
        shutdown.request();
        tasks.finish().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn task_that_does_not_end_in_time_is_cut_off() {
        let shutdown = Shutdown::new(GRACE);
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn("stuck", pending::<Result<(), BoxError>>());
        shutdown.request();
        assert!(matches!(tasks.finish().await, Err(TaskFailed::Drain(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_is_reported_even_when_other_tasks_are_cut_off() {
        let tasks = Tasks::new(Shutdown::new(GRACE));
        tasks.spawn("stuck", pending::<Result<(), BoxError>>());
        tasks.spawn("short", async { Ok::<(), BoxError>(()) });
        assert!(matches!(tasks.finish().await, Err(TaskFailed::EndedEarly { task: "short" })));
    }

    #[tokio::test]
    async fn task_of_a_later_stage_may_not_end_with_the_first() {
        let shutdown = Shutdown::new(GRACE);
        let stage = shutdown.later_stage();
        let tasks = Tasks::new(shutdown.clone());
        tasks.spawn_until("consumer", stage, until(shutdown.clone()));
        shutdown.request();
        assert!(matches!(tasks.finish().await, Err(TaskFailed::EndedEarly { task: "consumer" })));
    }
}
