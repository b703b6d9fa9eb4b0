//! Broadcasts: each listener has a mailbox, and a broadcast goes into all of its topic's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use async_trait::async_trait;
use bytes::Bytes;

use crate::mailbox::{Mail, Mailbox};
use crate::{Heard, Listener, Topic, lock};

/// Who listens to what.
#[derive(Default)]
pub(super) struct Topics {
    listeners: Mutex<HashMap<Topic, Vec<Weak<Mailbox<Bytes>>>>>,
}

impl Topics {
    /// Puts a message into the mailbox of each listener.
    pub(super) fn broadcast(&self, topic: Topic, payload: &Bytes) {
        let all = lock(&self.listeners);
        let listeners = all.get(&topic).into_iter().flatten();
        for mailbox in listeners.filter_map(Weak::upgrade) {
            mailbox.put(payload.clone(), payload.len());
        }
    }

    /// Listens to a topic from now on.
    pub(super) fn listen(self: &Arc<Self>, topic: Topic) -> TopicListener {
        let mailbox = Arc::<Mailbox<Bytes>>::default();
        let mut all = lock(&self.listeners);
        all.entry(topic).or_default().push(Arc::downgrade(&mailbox));
        drop(all);
        TopicListener { topics: Arc::clone(self), topic, mailbox }
    }
}

/// A subscription to a topic.
pub(super) struct TopicListener {
    topics: Arc<Topics>,
    topic: Topic,
    mailbox: Arc<Mailbox<Bytes>>,
}

#[async_trait]
impl Listener for TopicListener {
    async fn next(&mut self) -> Heard {
        match self.mailbox.next().await {
            Mail::Item(payload) => Heard::Message(payload),
            Mail::Lost(_) => Heard::Resync,
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
