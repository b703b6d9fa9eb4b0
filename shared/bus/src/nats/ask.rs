//! Requests: a queue group for each service, so that one of those who serve answers.

use std::sync::Arc;

use async_nats::{Client, Message, Request as NatsRequest, RequestErrorKind, Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use observer_wire::subject;
use tokio::time::{sleep, timeout};

use super::broker::{Broker, CALL_TIMEOUT};
use super::unavailable;
use crate::{
    BusError, PAYLOAD_BYTES_MAX, REQUEST_TIMEOUT, Reply, Request, RequestError, Requests, Service,
};

/// Those who serve are one group.
const GROUP: &str = "observer";

/// Pause before a subscription that ended is looked at again.
const ENDED_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

fn subject_of(service: Service) -> &'static str {
    match service {
        Service::Keys => subject::ASK_KEYS,
        Service::Vars => subject::ASK_VARS,
    }
}

/// Asks, and waits for the answer.
pub(super) async fn request(
    broker: &Broker,
    service: Service,
    payload: Bytes,
) -> Result<Bytes, RequestError> {
    if PAYLOAD_BYTES_MAX < payload.len() {
        return Err(RequestError::TooLarge { bytes: payload.len() });
    }
    let connected = broker.link.borrow().connected;
    let Some(_permit) = broker.in_flight.try_acquire().ok().filter(|_| connected) else {
        return Err(RequestError::Unavailable);
    };
    let request = NatsRequest::new().payload(payload).timeout(None);
    let answer = broker.client.send_request(subject_of(service), request);
    match timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer.payload),
        Ok(Err(error)) => Err(match error.kind() {
            RequestErrorKind::NoResponders => RequestError::Nobody(service),
            RequestErrorKind::InvalidSubject | RequestErrorKind::MaxPayloadExceeded => {
                RequestError::Unavailable
            }
            RequestErrorKind::TimedOut | RequestErrorKind::Other => RequestError::Timeout(service),
        }),
        Err(_) => Err(RequestError::Timeout(service)),
    }
}

/// Joins those who serve.
pub(super) async fn serve(
    broker: &Arc<Broker>,
    service: Service,
) -> Result<Box<dyn Requests>, BusError> {
    let operation = "serving requests";
    broker.check_link(operation)?;
    let subscribing = broker.client.queue_subscribe(subject_of(service), GROUP.to_owned());
    let subscriber = match timeout(CALL_TIMEOUT, subscribing).await {
        Ok(Ok(subscriber)) => subscriber,
        Ok(Err(error)) => return Err(unavailable(operation, error)),
        Err(elapsed) => return Err(unavailable(operation, elapsed)),
    };
    broker.round_trip(operation).await?;
    Ok(Box::new(Server { subscriber, client: broker.client.clone() }))
}

struct Server {
    subscriber: Subscriber,
    client: Client,
}

#[async_trait]
impl Requests for Server {
    async fn next(&mut self) -> Request {
        loop {
            match self.subscriber.next().await {
                Some(Message { payload, reply: Some(to), .. }) => {
                    let reply = Box::new(Answer { client: self.client.clone(), to });
                    return Request { payload, reply };
                }
                Some(Message { reply: None, .. }) => {} // Nobody waits for an answer.
                None => sleep(ENDED_PAUSE).await,       // Only when the client is closed.
            }
        }
    }
}

struct Answer {
    client: Client,
    to: Subject,
}

#[async_trait]
impl Reply for Answer {
    async fn send(self: Box<Self>, payload: Bytes) {
        if PAYLOAD_BYTES_MAX < payload.len() {
            tracing::error!(bytes = payload.len(), "answer is too large, who asked gets none");
            return;
        }
        // Who asked waits no longer than this, and asks again.
        match timeout(REQUEST_TIMEOUT, self.client.publish(self.to, payload)).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(error)) => tracing::warn!(%error, "answer not sent"),
        }
    }
}
