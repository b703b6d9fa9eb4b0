//! Broadcasts and listening: plain publish and subscribe, lossy; whatever may have cost messages
//! becomes a resync.

use std::sync::Arc;

use async_nats::{Message, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use observer_wire::subject;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::broker::{Broker, CALL_TIMEOUT};
use super::{streams, unavailable};
use crate::mailbox::{Mail, Mailbox};
use crate::{BusError, Heard, Listener, Topic};

/// The subject of a topic.
fn subject_of(topic: Topic) -> String {
    match topic {
        Topic::Edits => format!("{}.*", streams::LIVE_EDITS),
        Topic::LiveVars(project) => subject::of_project(subject::LIVE_VARS, project),
        Topic::LiveDevices(project) => subject::of_project(subject::LIVE_DEVICES, project),
        Topic::Gateways => subject::GATEWAYS.to_owned(),
        Topic::Control => subject::CONTROL.to_owned(),
    }
}

/// Tells whoever listens.
pub(super) async fn broadcast(
    broker: &Broker,
    topic: Topic,
    payload: Bytes,
) -> Result<(), BusError> {
    let operation = "broadcasting";
    broker.check_link(operation)?;
    match timeout(CALL_TIMEOUT, broker.client.publish(subject_of(topic), payload)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unavailable(operation, error)),
        Err(elapsed) => Err(unavailable(operation, elapsed)),
    }
}

/// Listens to a topic.
pub(super) async fn listen(
    broker: &Arc<Broker>,
    topic: Topic,
) -> Result<Box<dyn Listener>, BusError> {
    let subscription =
        Subscription::start(broker, subject_of(topic), |message| Some(message.payload));
    Ok(Box::new(TopicListener(subscription.await?)))
}

struct TopicListener(Subscription<Bytes>);

#[async_trait]
impl Listener for TopicListener {
    async fn next(&mut self) -> Heard {
        match self.0.mailbox.next().await {
            Mail::Item(payload) => Heard::Message(payload),
            Mail::Lost(_) => Heard::Resync,
        }
    }
}

/// A subscription that is emptied into a mailbox, so that it is bounded by bytes and never runs
/// over in the client library, where loss is silent. Dropped, it ends.
pub(super) struct Subscription<T> {
    pub(super) mailbox: Arc<Mailbox<T>>,
    _ends: DropGuard,
}

impl<T: Send + 'static> Subscription<T> {
    /// Subscribes; returns when the subscription is in force at the server. `read` makes an item of
    /// a message.
    pub(super) async fn start(
        broker: &Arc<Broker>,
        subject: String,
        read: fn(Message) -> Option<T>,
    ) -> Result<Self, BusError> {
        let subscriber = subscribe(broker, subject).await?;
        let mailbox = Arc::<Mailbox<T>>::default();
        let ended = broker.closed.child_token();
        let ends = ended.clone().drop_guard();
        let pump = Pump { subscriber, mailbox: Arc::clone(&mailbox), read, ended };
        broker.spawn(pump.run(broker.link.clone()));
        Ok(Self { mailbox, _ends: ends })
    }
}

async fn subscribe(broker: &Broker, subject: String) -> Result<Subscriber, BusError> {
    let operation = "subscribing";
    broker.check_link(operation)?;
    let subscriber = match timeout(CALL_TIMEOUT, broker.client.subscribe(subject)).await {
        Ok(Ok(subscriber)) => subscriber,
        Ok(Err(error)) => return Err(unavailable(operation, error)),
        Err(elapsed) => return Err(unavailable(operation, elapsed)),
    };
    broker.round_trip(operation).await?;
    Ok(subscriber)
}

struct Pump<T> {
    subscriber: Subscriber,
    mailbox: Arc<Mailbox<T>>,
    read: fn(Message) -> Option<T>,
    ended: CancellationToken,
}

impl<T> Pump<T> {
    async fn run(mut self, mut link: tokio::sync::watch::Receiver<super::broker::Link>) {
        let mut losses = link.borrow_and_update().losses;
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return,
                changed = link.changed() => {
                    let now = link.borrow_and_update().losses;
                    if changed.is_err() {
                        return; // The client is gone.
                    }
                    if now != losses {
                        losses = now;
                        self.mailbox.lose();
                    }
                }
                message = self.subscriber.next() => {
                    let Some(message) = message else { return };
                    let bytes = message.length;
                    if let Some(item) = (self.read)(message) {
                        self.mailbox.put(item, bytes);
                    }
                }
            }
        }
    }
}
