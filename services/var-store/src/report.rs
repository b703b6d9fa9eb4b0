//! What devices say becomes what is stored: values, sign-ins and ends of sockets.
//!
//! Lines of one device are taken in their order, different devices at once: a store that commits in
//! groups is only fast when it is given groups. Everything here may happen twice without harm; the
//! store takes what is newer and leaves what is not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use observer_bus::{BusError, Consumer, Delivery, in_hand};
use observer_chassis::{Backoff, BoxError, Shutdown, reason};
use observer_store::StoreError;
use observer_store::vars::{Device, Report, ReportedValue, Stamp};
use observer_wire::ProjectId;
use observer_wire::ask::LiveDevices;
use observer_wire::declare::{self, Declaration, Declared};
use observer_wire::edit::Document;
use observer_wire::event::{Event, Line, LineKind, SignIn};
use tracing::warn;

use crate::view::{self, Names};
use crate::{Context, receipts};

/// Deliveries taken at once, at most; each holds about 16 KiB.
const DELIVERIES_MAX: usize = 128;

/// Devices whose lines are stored at once. More do not make a group commit faster.
const DEVICES_AT_ONCE: usize = 64;

/// First pause before lines are given to the store again, and the longest.
const STORE_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Pause before a delivery comes again that shutdown took from us: another process may have it now.
const HANDED_BACK_DELAY: Duration = Duration::from_millis(100);

/// Takes deliveries until shutdown is requested.
pub(crate) async fn take(
    context: Arc<Context>,
    mut consumer: Box<dyn Consumer>,
    shutdown: Shutdown,
) -> Result<(), BoxError> {
    loop {
        let first = tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            delivery = consumer.next() => delivery,
        };
        let mut deliveries = vec![first];
        while deliveries.len() < DELIVERIES_MAX {
            let Some(delivery) = consumer.try_next() else { break };
            deliveries.push(delivery);
        }
        settle(&context, deliveries, &shutdown).await;
    }
}

/// Stores what the deliveries carry and settles each exactly once, on every path.
async fn settle(context: &Context, deliveries: Vec<Box<dyn Delivery>>, shutdown: &Shutdown) {
    let payloads: Vec<Bytes> =
        deliveries.iter().map(|delivery| delivery.payload().clone()).collect();
    let mut readable = Vec::new();
    let mut events = Vec::new();
    for (delivery, payload) in deliveries.into_iter().zip(&payloads) {
        match Event::parse(payload) {
            Ok(event) => {
                events.push(event);
                readable.push(delivery);
            }
            Err(error) => {
                metrics::counter!("observer_events_buried_total").increment(1);
                note(delivery.bury(&error.to_string()).await);
            }
        }
    }
    let mut pauses = Backoff::new(STORE_PAUSES.0, STORE_PAUSES.1);
    while let Err(error) =
        in_hand(readable.iter().map(AsRef::as_ref), store(context, &events)).await
    {
        warn!(error = %reason(&error), "variables' store took no reports");
        for delivery in &readable {
            note(delivery.in_progress().await);
        }
        tokio::select! {
            () = tokio::time::sleep(pauses.next_delay()) => {}
            () = shutdown.requested() => {
                for delivery in readable {
                    note(delivery.retry(HANDED_BACK_DELAY).await);
                }
                return;
            }
        }
    }
    for delivery in readable {
        note(delivery.ack().await);
    }
}

/// Stores the lines of all events, and tells viewers.
async fn store(context: &Context, events: &[Event<'_>]) -> Result<(), StoreError> {
    let mut projects: HashMap<ProjectId, HashMap<&str, Vec<&Line<'_>>>> = HashMap::new();
    for event in events {
        let devices = projects.entry(event.project).or_default();
        for line in &event.lines {
            devices.entry(line.head.device.as_ref()).or_default().push(line);
        }
    }
    for (project, devices) in projects {
        let document = context.store.document(project).await?.document;
        // A loop rather than a closure: the compiler cannot see that one holds for all lifetimes.
        let mut work = Vec::with_capacity(devices.len());
        for lines in devices.into_values() {
            work.push(device(context, project, &document, lines));
        }
        let mut done = stream::iter(work).buffer_unordered(DEVICES_AT_ONCE);
        let mut news = News::default();
        while let Some(one) = done.next().await {
            news.add(one?);
        }
        news.tell(context, project, &document).await?;
    }
    Ok(())
}

/// What viewers of a project are to be told.
#[derive(Default)]
struct News {
    /// Devices with names whose values were taken.
    values: Vec<(String, Vec<String>)>,
    /// Devices that came or went.
    presence: Vec<String>,
    /// Devices that are kept no more.
    removed: Vec<String>,
}

impl News {
    fn add(&mut self, other: Self) {
        self.values.extend(other.values);
        self.presence.extend(other.presence);
        self.removed.extend(other.removed);
    }

    async fn tell(
        self,
        context: &Context,
        project: ProjectId,
        document: &Document,
    ) -> Result<(), StoreError> {
        if !self.presence.is_empty() || !self.removed.is_empty() {
            let stored = context.store.devices_by_id(project, &self.presence).await?;
            let none = Names::Only(&[]);
            let devices =
                stored.iter().map(|one| view::device(context, document, one, &none)).collect();
            let news = LiveDevices { devices, removed: self.removed };
            view::tell_devices(context, project, &news).await;
        }
        if self.values.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = self.values.iter().map(|(device, _)| device.clone()).collect();
        let names: HashMap<String, Vec<String>> = self.values.into_iter().collect();
        let stored = context.store.devices_by_id(project, &ids).await?;
        let devices = stored
            .iter()
            .filter_map(|one| {
                let names = Names::Only(names.get(&one.device.device)?);
                Some(view::device(context, document, one, &names))
            })
            .collect();
        view::tell_vars(context, project, None, devices).await;
        Ok(())
    }
}

/// Stores the lines of one device, in their order.
async fn device(
    context: &Context,
    project: ProjectId,
    document: &Document,
    lines: Vec<&Line<'_>>,
) -> Result<News, StoreError> {
    let mut news = News::default();
    let mut taken: Vec<String> = Vec::new();
    for line in &lines {
        match line.head.kind {
            LineKind::Reported => {
                let Some(report) = report_of(context, project, document, line) else { continue };
                let reported = context.store.report(&report).await?;
                metrics::counter!("observer_reported_values_total")
                    .increment(reported.taken.len() as u64);
                metrics::counter!("observer_reported_values_too_many_total")
                    .increment(reported.too_many as u64);
                taken.extend(reported.taken);
                taken.extend(report.withdrawn);
            }
            LineKind::SignIn => {
                let Some(device) = device_of(line) else { continue };
                context.presence.heard_of(&device.gateway, Some(project));
                let devices_max = context.limits.project_devices_max;
                let removed = context.store.sign_in(project, &device, devices_max).await?;
                news.presence.push(device.device);
                news.removed.extend(removed);
            }
            LineKind::Gone => {
                let head = &line.head;
                let removed = context
                    .store
                    .sign_out(project, &head.device, head.epoch, head.received)
                    .await?;
                news.presence.push(head.device.to_string());
                news.removed.extend(removed);
            }
            LineKind::Logs => {} // A later release may send more through this stream.
        }
    }
    if let (Some(line), false) = (lines.first(), taken.is_empty()) {
        taken.sort_unstable();
        taken.dedup();
        news.values.push((line.head.device.to_string(), taken));
    }
    Ok(news)
}

fn device_of(line: &Line<'_>) -> Option<Device> {
    let sign_in: SignIn = match serde_json::from_str(line.json) {
        Ok(sign_in) => sign_in,
        Err(error) => {
            warn!(%error, "sign-in event is not readable");
            return None;
        }
    };
    let head = &line.head;
    Some(Device {
        device: head.device.to_string(),
        named: head.named,
        name: sign_in.about.name.map(String::from),
        session: head.session.to_string(),
        epoch: head.epoch,
        gateway: sign_in.gateway,
        online: true,
        since: head.received,
    })
}

/// A reported line as the store takes it; `None` when it says nothing.
fn report_of(
    context: &Context,
    project: ProjectId,
    document: &Document,
    line: &Line<'_>,
) -> Option<Report> {
    let declared = match declare::read(line.json, &context.limits) {
        Ok(declared) => declared,
        Err(refusal) => {
            // The gateway has let it through, so its limits differ from ours.
            warn!(error = %refusal, "reported line was refused: do the limits of gateway and var-store differ?");
            metrics::counter!("observer_events_buried_total").increment(1);
            return None;
        }
    };
    let mut report = Report {
        project,
        device: line.head.device.to_string(),
        stamp: Stamp { epoch: line.head.epoch, seq: line.head.seq },
        at: line.head.received,
        reset: false,
        values: Vec::new(),
        withdrawn: Vec::new(),
        vars_max: context.limits.device_vars_max,
    };
    for one in declared {
        match one {
            Declared::Reset => report.reset = true,
            Declared::Withdrawn { name } => report.withdrawn.push(name.into_owned()),
            Declared::Value(declaration) => {
                report.values.push(value_of(document, &declaration, line));
            }
        }
    }
    let says_nothing = report.values.is_empty() && report.withdrawn.is_empty() && !report.reset;
    (!says_nothing).then_some(report)
}

fn value_of(document: &Document, declaration: &Declaration<'_>, line: &Line<'_>) -> ReportedValue {
    let at = line.head.received;
    let mut value = ReportedValue {
        name: declaration.name.to_string(),
        kind: declaration.kind.to_string(),
        value: declaration.value.to_string(),
        json: declaration.json.to_owned(),
        at,
        applied: None,
    };
    let signed_in = i64::try_from(line.head.epoch / 1000).unwrap_or(i64::MAX);
    value.applied = receipts::mark(document, &value, declaration.bits, signed_in);
    value
}

/// A failed settlement is no loss: the delivery comes again, and changes nothing then.
fn note(settled: Result<(), BusError>) {
    if let Err(error) = settled {
        warn!(error = %reason(&error), "delivery was not settled");
    }
}
