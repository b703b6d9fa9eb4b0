//! The bus within one process: publisher to consumer by a bounded queue, without a second copy.
//!
//! An event is safe when its consumer has settled it, so `publish` waits for that; what survives a
//! kill is what the consumer's store survives. Nothing here is on disk but dead letters.

mod ask;
mod dead;
mod dead_file;
mod live;
mod queue;
mod topics;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use observer_wire::ProjectId;
use tokio::time::timeout;

use self::ask::Counter;
use self::dead::DeadLettersFile;
use self::live::Live;
use self::queue::{Queue, QueueConsumer, Taken};
use self::topics::Topics;
use crate::config::BusConfig;
use crate::{
    Bus, BusError, Consumer, Cursor, DeadLetters, Durable, Listener, LiveLogs, Outgoing,
    PUBLISH_TIMEOUT, PublishError, Published, ReplayedEdit, RequestError, Requests, Service,
    Stream, Topic,
};

/// The bus of the embedded form.
pub struct InProcessBus {
    logs: Arc<Queue>,
    vars: Arc<Queue>,
    edits: Arc<Queue>,
    news: Arc<News>,
    keys: Arc<Counter>,
    variables: Arc<Counter>,
}

/// What becomes of events when they are settled.
struct News {
    live: Arc<Live>,
    topics: Arc<Topics>,
    dead: DeadLettersFile,
}

impl News {
    /// Tells listeners of an event that is safe.
    fn settled(&self, stream: Stream, project: ProjectId, payload: &Bytes) {
        match stream {
            Stream::Logs => self.live.push(project, payload.clone()),
            Stream::Edits => self.topics.broadcast(Topic::Edits, payload),
            Stream::Vars => {}
        }
    }
}

impl InProcessBus {
    /// Opens the bus; dead letters are kept in `data_dir`, which is made if need be.
    ///
    /// # Errors
    ///
    /// [`BusError`] when the file of dead letters cannot be opened.
    pub async fn open(config: &BusConfig, data_dir: &Path) -> Result<Self, BusError> {
        let news = Arc::new(News {
            live: Arc::new(Live::new(bytes_bound(config.ring_bytes_max))),
            topics: Arc::default(),
            dead: DeadLettersFile::open(data_dir.to_owned(), config.dead_bytes_max).await?,
        });
        let bytes_max = bytes_bound(config.queue_bytes_max);
        let queue = |stream| Arc::new(Queue::new(stream, bytes_max, Arc::clone(&news)));
        Ok(Self {
            logs: queue(Stream::Logs),
            vars: queue(Stream::Vars),
            edits: queue(Stream::Edits),
            keys: Arc::new(Counter::new(Service::Keys)),
            variables: Arc::new(Counter::new(Service::Vars)),
            news,
        })
    }

    fn queue(&self, stream: Stream) -> &Arc<Queue> {
        match stream {
            Stream::Logs => &self.logs,
            Stream::Vars => &self.vars,
            Stream::Edits => &self.edits,
        }
    }

    fn counter(&self, service: Service) -> &Arc<Counter> {
        match service {
            Service::Keys => &self.keys,
            Service::Vars => &self.variables,
        }
    }
}

#[async_trait]
impl Bus for InProcessBus {
    async fn publish(&self, event: Outgoing) -> Result<Published, PublishError> {
        crate::check_event(&event)?;
        let (entry, known) = match self.queue(event.stream).take(event)? {
            Taken::Settled(sequence) => return Ok(Published { sequence, known: true }),
            Taken::InFlight(entry) => (entry, true),
            Taken::New(entry) => (entry, false),
        };
        match timeout(PUBLISH_TIMEOUT, entry.settled.wait()).await {
            Ok(()) => Ok(Published { sequence: entry.sequence, known }),
            Err(_) => Err(PublishError::Timeout),
        }
    }

    async fn consume(&self, durable: Durable) -> Result<Box<dyn Consumer>, BusError> {
        Ok(Box::new(QueueConsumer::new(Arc::clone(self.queue(durable.stream())))))
    }

    async fn broadcast(&self, topic: Topic, payload: Bytes) -> Result<(), BusError> {
        crate::check_broadcast(topic, &payload)?;
        self.news.topics.broadcast(topic, &payload);
        Ok(())
    }

    async fn listen(&self, topic: Topic) -> Result<Box<dyn Listener>, BusError> {
        Ok(Box::new(self.news.topics.listen(topic)))
    }

    async fn listen_from(
        &self,
        project: ProjectId,
        cursor: Option<&Cursor>,
    ) -> Result<LiveLogs, BusError> {
        Ok(self.news.live.listen(project, cursor))
    }

    async fn replay_edits(
        &self,
        _project: ProjectId,
        _after: u64,
    ) -> Result<Vec<ReplayedEdit>, BusError> {
        Ok(Vec::new())
    }

    async fn request(&self, service: Service, payload: Bytes) -> Result<Bytes, RequestError> {
        self.counter(service).ask(payload).await
    }

    async fn serve(&self, service: Service) -> Result<Box<dyn Requests>, BusError> {
        Ok(Box::new(self.counter(service).serve()))
    }

    fn dead(&self) -> &dyn DeadLetters {
        &self.news.dead
    }

    async fn backlog(&self, durable: Durable) -> Result<u64, BusError> {
        Ok(self.queue(durable.stream()).events())
    }

    fn fullness(&self, stream: Stream, project: ProjectId) -> Option<u8> {
        match stream {
            Stream::Logs => Some(self.logs.fullness(project)),
            Stream::Vars => Some(self.vars.fullness(project)),
            Stream::Edits => None,
        }
    }

    async fn check(&self) -> Result<(), String> {
        self.news.dead.check()
    }
}

/// A bound from the settings. One that memory cannot even count is as good as none.
fn bytes_bound(setting: u64) -> usize {
    usize::try_from(setting).unwrap_or(usize::MAX)
}
