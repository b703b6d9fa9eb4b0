//! The bus over NATS `JetStream`: an event is safe when the broker has acknowledged it.
//!
//! Only an acknowledgement of `JetStream` counts; plain publishing returns `Ok` for messages that
//! never leave the process. What an acknowledged event survives, the profile says.

mod ask;
mod breaker;
mod broker;
mod consume;
mod dead;
mod fullness;
mod listen;
mod live;
mod profile;
mod publish;
mod streams;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;

use self::broker::Broker;
use self::profile::Watched;
use crate::config::BusConfig;
use crate::{
    Bus, BusError, BusErrorKind, Consumer, Cursor, DeadLetters, Durable, Listener, LiveLogs,
    Outgoing, PublishError, Published, ReplayedEdit, RequestError, Requests, Service, Stream,
    Topic,
};

/// The bus of the distributed form.
pub struct NatsBus {
    broker: Arc<Broker>,
    profile: Watched,
}

impl NatsBus {
    /// Connects, and creates or checks the streams.
    ///
    /// # Errors
    ///
    /// [`BusError`]: nobody answers, the server is too old, or a stream has another configuration.
    pub async fn connect(config: &BusConfig) -> Result<Self, BusError> {
        let broker = Broker::connect(config).await?;
        streams::prepare(&broker, config).await?;
        streams::keep_live(&broker, config);
        let broker = Arc::new(broker);
        let profile = Watched::start(&broker, config).await?;
        Ok(Self { broker, profile })
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn publish(&self, event: Outgoing) -> Result<Published, PublishError> {
        publish::publish(&self.broker, &event).await
    }

    async fn consume(&self, durable: Durable) -> Result<Box<dyn Consumer>, BusError> {
        consume::join(&self.broker, durable).await
    }

    async fn broadcast(&self, topic: Topic, payload: Bytes) -> Result<(), BusError> {
        crate::check_broadcast(topic, &payload)?;
        listen::broadcast(&self.broker, topic, payload).await
    }

    async fn listen(&self, topic: Topic) -> Result<Box<dyn Listener>, BusError> {
        listen::listen(&self.broker, topic).await
    }

    async fn listen_from(
        &self,
        project: ProjectId,
        cursor: Option<&Cursor>,
    ) -> Result<LiveLogs, BusError> {
        live::listen_from(&self.broker, project, cursor).await
    }

    async fn replay_edits(
        &self,
        project: ProjectId,
        after: u64,
    ) -> Result<Vec<ReplayedEdit>, BusError> {
        consume::replay_edits(&self.broker, project, after).await
    }

    async fn request(&self, service: Service, payload: Bytes) -> Result<Bytes, RequestError> {
        ask::request(&self.broker, service, payload).await
    }

    async fn serve(&self, service: Service) -> Result<Box<dyn Requests>, BusError> {
        ask::serve(&self.broker, service).await
    }

    fn dead(&self) -> &dyn DeadLetters {
        self
    }

    async fn backlog(&self, durable: Durable) -> Result<u64, BusError> {
        consume::backlog(&self.broker, durable).await
    }

    fn fullness(&self, stream: Stream, project: ProjectId) -> Option<u8> {
        fullness::of(&self.broker, stream, project)
    }

    async fn check(&self) -> Result<(), String> {
        self.broker.check()?;
        self.profile.check()
    }
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn unavailable(operation: &'static str, source: impl Into<Cause>) -> BusError {
    BusError { operation, kind: BusErrorKind::Unavailable, source: source.into() }
}

fn refused(operation: &'static str, source: impl Into<Cause>) -> BusError {
    BusError { operation, kind: BusErrorKind::Refused, source: source.into() }
}
