//! Broadcasts: a bounded mailbox for each listener; one that runs over is emptied and says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::lock;
use crate::{Heard, Listener, Topic};

/// Messages that wait for one listener at most.
const MAILBOX_MESSAGES_MAX: usize = 4_096;

/// Bytes that wait for one listener at most.
const MAILBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Who listens to what.
#[derive(Default)]
pub(super) struct Topics {
    listeners: Mutex<HashMap<Topic, Vec<Weak<Mailbox>>>>,
}

#[derive(Default)]
struct Mailbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Bytes>,
    bytes: usize,
    lost: bool,
}

impl Topics {
    /// Puts a message into the mailbox of each listener.
    pub(super) fn broadcast(&self, topic: Topic, payload: &Bytes) {
        let mut all = lock(&self.listeners);
        let Some(listeners) = all.get_mut(&topic) else { return };
        listeners.retain(|listener| match listener.upgrade() {
            Some(mailbox) => {
                mailbox.put(payload.clone());
                true
            }
            None => false,
        });
        if listeners.is_empty() {
            all.remove(&topic);
        }
    }

    /// Listens to a topic from now on.
    pub(super) fn listen(self: &Arc<Self>, topic: Topic) -> TopicListener {
        let mailbox = Arc::<Mailbox>::default();
        let mut all = lock(&self.listeners);
        all.entry(topic).or_default().push(Arc::downgrade(&mailbox));
        drop(all);
        TopicListener { topics: Arc::clone(self), topic, mailbox }
    }
}

impl Mailbox {
    fn put(&self, payload: Bytes) {
        let mut waiting = lock(&self.waiting);
        waiting.bytes += payload.len();
        waiting.messages.push_back(payload);
        if MAILBOX_MESSAGES_MAX < waiting.messages.len() || MAILBOX_BYTES_MAX < waiting.bytes {
            *waiting = Waiting { lost: true, ..Waiting::default() };
        }
        drop(waiting);
        self.arrived.notify_one();
    }

    fn try_next(&self) -> Option<Heard> {
        let mut waiting = lock(&self.waiting);
        if std::mem::take(&mut waiting.lost) {
            return Some(Heard::Resync);
        }
        let message = waiting.messages.pop_front()?;
        waiting.bytes -= message.len();
        Some(Heard::Message(message))
    }
}

/// A subscription to a topic.
pub(super) struct TopicListener {
    topics: Arc<Topics>,
    topic: Topic,
    mailbox: Arc<Mailbox>,
}

#[async_trait]
impl Listener for TopicListener {
    async fn next(&mut self) -> Heard {
        loop {
            if let Some(heard) = self.mailbox.try_next() {
                return heard;
            }
            self.mailbox.arrived.notified().await; // It keeps a permit, and none else takes it.
        }
    }
}

impl Drop for TopicListener {
    fn drop(&mut self) {
        let mine = Arc::downgrade(&self.mailbox);
        let mut all = lock(&self.topics.listeners);
        let Some(listeners) = all.get_mut(&self.topic) else { return };
        listeners.retain(|listener| !listener.ptr_eq(&mine));
        if listeners.is_empty() {
            all.remove(&self.topic);
        }
    }
}
