//! Requests within the process: a bounded queue that all who serve take from, an answer each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::{
    PAYLOAD_BYTES_MAX, REQUEST_TIMEOUT, Reply, Request, RequestError, Requests, Service, lock,
};

/// Requests that wait for one service at most; more are answered "not now".
const WAITING_MAX: usize = 1_024;

/// Where requests for one service wait.
pub(super) struct Counter {
    service: Service,
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    servers: usize,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    payload: Bytes,
    answer: oneshot::Sender<Bytes>,
}

impl Counter {
    /// A counter that nobody serves yet.
    pub(super) fn new(service: Service) -> Self {
        Self { service, state: Mutex::default(), arrived: Notify::new() }
    }

    /// Asks, and waits for the answer.
    pub(super) async fn ask(&self, payload: Bytes) -> Result<Bytes, RequestError> {
        if PAYLOAD_BYTES_MAX < payload.len() {
            return Err(RequestError::TooLarge { bytes: payload.len() });
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut state = lock(&self.state);
            if state.servers == 0 {
                return Err(RequestError::Nobody(self.service));
            }
            if WAITING_MAX <= state.waiting.len() {
                state.waiting.retain(|other| !other.answer.is_closed());
            }
            if WAITING_MAX <= state.waiting.len() {
                return Err(RequestError::Unavailable);
            }
            state.waiting.push_back(Waiting { payload, answer });
        }
        self.arrived.notify_one();
        match timeout(REQUEST_TIMEOUT, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            // Whoever had it will not answer any more: as unknown as no answer in time.
            Ok(Err(_)) | Err(_) => Err(RequestError::Timeout(self.service)),
        }
    }

    /// The request that waits longest.
    fn take(&self) -> Option<Waiting> {
        let mut state = lock(&self.state);
        let waiting = state.waiting.pop_front();
        if !state.waiting.is_empty() {
            self.arrived.notify_one(); // One permit may stand for many requests.
        }
        waiting
    }

    /// Joins those who serve.
    pub(super) fn serve(self: &Arc<Self>) -> Server {
        lock(&self.state).servers += 1;
        Server { counter: Arc::clone(self) }
    }
}

/// One who serves.
pub(super) struct Server {
    counter: Arc<Counter>,
}

#[async_trait]
impl Requests for Server {
    async fn next(&mut self) -> Request {
        loop {
            let waiting = self.counter.take();
            match waiting {
                Some(waiting) if waiting.answer.is_closed() => {} // Who asked gave up.
                Some(Waiting { payload, answer }) => {
                    return Request { payload, reply: Box::new(Answer(answer)) };
                }
                None => self.counter.arrived.notified().await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut state = lock(&self.counter.state);
        state.servers -= 1;
        if state.servers == 0 {
            state.waiting.clear(); // Nobody will take them; who asked need not wait for that.
        }
    }
}

struct Answer(oneshot::Sender<Bytes>);

#[async_trait]
impl Reply for Answer {
    async fn send(self: Box<Self>, payload: Bytes) {
        if PAYLOAD_BYTES_MAX < payload.len() {
            tracing::error!(bytes = payload.len(), "answer is too large, who asked gets none");
            return;
        }
        self.0.send(payload).ok(); // Who asked may have given up.
    }
}
