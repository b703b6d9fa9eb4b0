//! News that one viewer has not read yet: bounded by bytes, and what does not fit is counted.
//!
//! The shared subscription pushes into it, the viewer's task takes from it, everything at once. A
//! viewer that continues from a cursor gets its logs from a subscription of its own at first; the
//! shared ones are held meanwhile, until both stand at the same event.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::counter;
use observer_bus::Cursor;
use observer_wire::ask::{LiveDevices, LiveVars};
use tokio::sync::Notify;

use crate::feed::Batch;
use crate::filter::Filter;

/// What a piece of news costs beside its text, in bytes: nearly what it takes in memory.
const OVERHEAD_BYTES: usize = 128;

/// One thing for a viewer to learn.
#[derive(Clone, Debug)]
pub(crate) enum News {
    /// Records that passed the viewer's filter.
    Logs(Picked),
    /// Records were lost.
    Gap {
        /// How many, when known.
        count: Option<u64>,
        /// Why.
        reason: GapReason,
        /// Behind them.
        cursor: Option<Cursor>,
    },
    /// Values, receipts or the document changed.
    Vars(Arc<LiveVars>),
    /// Devices came or went.
    Devices(Arc<LiveDevices>),
    /// Nobody knows what changed: everything is to be fetched anew.
    Reset,
}

/// Some records of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Picked {
    pub(crate) batch: Arc<Batch>,
    /// Their indices; all of them when `None`.
    pub(crate) indices: Option<Vec<usize>>,
}

impl Picked {
    /// The records, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = &crate::feed::Record> {
        let all = self.indices.is_none().then_some(0..self.batch.records.len());
        let some = self.indices.iter().flatten().copied();
        all.into_iter().flatten().chain(some).map(|index| &self.batch.records[index])
    }
}

/// Why records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GapReason {
    /// The viewer did not read fast enough.
    SlowViewer,
    /// They were lost on their way to this process.
    Lost,
}

impl GapReason {
    /// Its name in frames.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::SlowViewer => "slow_viewer",
            Self::Lost => "lost",
        }
    }
}

/// The queue of one viewer.
pub(crate) struct Queue {
    filter: Filter,
    bytes_max: usize,
    state: Mutex<State>,
    filled: Notify,
}

#[derive(Default)]
struct State {
    news: VecDeque<News>,
    bytes: usize,
    /// Position of the last log event that was taken into account, whether or not it passed.
    cursor: Option<Cursor>,
    /// Where the shared subscription stood when this viewer joined it.
    joined: Option<Cursor>,
    /// Shared batches that wait until the viewer's own subscription has caught up.
    held: Option<Held>,
}

#[derive(Default)]
struct Held {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// The oldest were dropped.
    dropped: bool,
}

impl Queue {
    pub(crate) fn new(filter: Filter, bytes_max: usize) -> Self {
        Self { filter, bytes_max, state: Mutex::default(), filled: Notify::new() }
    }

    /// The shared subscription stands at `cursor`; what it pushes from now on follows.
    pub(crate) fn join_at(&self, cursor: &Cursor) {
        let mut state = self.lock();
        if state.joined.is_none() {
            state.joined = Some(cursor.clone());
            state.cursor = Some(cursor.clone());
        }
    }

    /// Where this viewer joined the shared subscription.
    pub(crate) fn joined(&self) -> Option<Cursor> {
        self.lock().joined.clone()
    }

    /// From now on logs come from a subscription of the viewer's own, which stands at `cursor`.
    pub(crate) fn hold_shared(&self, cursor: &Cursor) {
        let mut state = self.lock();
        let mut held = Held::default();
        // What was shared since the viewer joined waits with the rest.
        for news in std::mem::take(&mut state.news) {
            match &news {
                News::Logs(picked) => held.push(Arc::clone(&picked.batch), self.bytes_max),
                News::Gap { .. } => held = Held { dropped: true, ..Held::default() },
                News::Vars(_) | News::Devices(_) | News::Reset => state.news.push_back(news),
            }
        }
        state.bytes = 0;
        state.cursor = Some(cursor.clone());
        state.held = Some(held);
    }

    /// Records from the shared subscription.
    pub(crate) fn push_shared(&self, batch: &Arc<Batch>) {
        let mut state = self.lock();
        match &mut state.held {
            Some(held) => held.push(Arc::clone(batch), self.bytes_max),
            None => self.push_logs(&mut state, batch),
        }
    }

    /// The shared subscription lost events.
    pub(crate) fn push_shared_loss(&self, count: Option<u64>) {
        let mut state = self.lock();
        if let Some(held) = &mut state.held {
            // The viewer's own subscription may have them: it must get past this place.
            *held = Held::default();
            state.joined = None;
        } else {
            self.push_loss(&mut state, count);
        }
    }

    /// Records from the viewer's own subscription. True when the shared one follows now, without a
    /// hole and without repeating anything: the own one is needed no more.
    pub(crate) fn push_own(&self, batch: &Arc<Batch>) -> bool {
        let mut state = self.lock();
        self.push_logs(&mut state, batch);
        let is_joined = state.joined.as_ref() == Some(&batch.cursor);
        let Some(held) = &mut state.held else { return true };
        let known = held.batches.iter().position(|shared| shared.cursor == batch.cursor);
        let follow = match known {
            Some(index) => held.batches.split_off(index + 1),
            None if is_joined && held.is_whole() => std::mem::take(&mut held.batches),
            None => return false,
        };
        state.held = None;
        for batch in &follow {
            self.push_logs(&mut state, batch);
        }
        true
    }

    /// The viewer's own subscription lost events.
    pub(crate) fn push_own_loss(&self, count: Option<u64>) {
        self.push_loss(&mut self.lock(), count);
    }

    /// Values changed.
    pub(crate) fn push_vars(&self, vars: &Arc<LiveVars>, bytes: usize) {
        self.push_state(News::Vars(Arc::clone(vars)), bytes);
    }

    /// Devices came or went.
    pub(crate) fn push_devices(&self, devices: &Arc<LiveDevices>, bytes: usize) {
        self.push_state(News::Devices(Arc::clone(devices)), bytes);
    }

    /// Everything is to be fetched anew.
    pub(crate) fn push_reset(&self) {
        self.reset(&mut self.lock());
    }

    /// Waits until there is something to take.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is taken.
    pub(crate) async fn filled(&self) {
        loop {
            if !self.lock().news.is_empty() {
                return;
            }
            self.filled.notified().await;
        }
    }

    /// Takes everything, and the position behind it.
    pub(crate) fn take(&self) -> (Vec<News>, Option<Cursor>) {
        let mut state = self.lock();
        state.bytes = 0;
        (state.news.drain(..).collect(), state.cursor.clone())
    }

    /// The position of this viewer when nothing waits for it.
    pub(crate) fn quiet_cursor(&self) -> Option<Cursor> {
        let state = self.lock();
        state.cursor.clone().filter(|_| state.news.is_empty())
    }

    /// `observer_viewer_records_dropped_total`: records that a viewer did not read in time, each
    /// counted for each viewer.
    fn push_logs(&self, state: &mut State, batch: &Arc<Batch>) {
        state.cursor = Some(batch.cursor.clone());
        let indices = self.pick(batch);
        let picked = Picked { batch: Arc::clone(batch), indices };
        let (count, bytes) = picked
            .records()
            .fold((0_u64, OVERHEAD_BYTES), |(count, bytes), one| (count + 1, bytes + one.bytes()));
        if count == 0 {
            return;
        }
        if state.bytes + bytes > self.bytes_max && !state.news.is_empty() {
            counter!("observer_viewer_records_dropped_total").increment(count);
            push_gap(state, Some(count), GapReason::SlowViewer);
        } else {
            state.bytes += bytes;
            state.news.push_back(News::Logs(picked));
        }
        self.filled.notify_one();
    }

    fn pick(&self, batch: &Batch) -> Option<Vec<usize>> {
        if self.filter.is_empty() {
            return None;
        }
        let passes = |(index, record)| self.filter.matches(record).then_some(index);
        Some(batch.records.iter().enumerate().filter_map(passes).collect())
    }

    fn push_loss(&self, state: &mut State, count: Option<u64>) {
        push_gap(state, count, GapReason::Lost);
        self.filled.notify_one();
    }

    /// State that does not fit is fetched anew rather than dropped: each piece builds on the last.
    fn push_state(&self, news: News, bytes: usize) {
        let mut state = self.lock();
        let bytes = bytes + OVERHEAD_BYTES;
        if state.bytes + bytes > self.bytes_max && !state.news.is_empty() {
            return self.reset(&mut state);
        }
        state.bytes += bytes;
        state.news.push_back(news);
        self.filled.notify_one();
    }

    fn reset(&self, state: &mut State) {
        state.news.clear();
        state.bytes = OVERHEAD_BYTES;
        state.news.push_back(News::Reset);
        self.filled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner) // No update is half done.
    }
}

impl Held {
    fn push(&mut self, batch: Arc<Batch>, bytes_max: usize) {
        self.bytes += bytes_of(&batch);
        self.batches.push_back(batch);
        while self.bytes > bytes_max {
            // The oldest go: the viewer's own subscription will bring them.
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes -= bytes_of(&oldest);
            self.dropped = true;
        }
    }

    /// Whether everything since the viewer joined is here.
    fn is_whole(&self) -> bool {
        !self.dropped
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.records.iter().map(crate::feed::Record::bytes).sum::<usize>() + OVERHEAD_BYTES
}

/// One gap grows rather than becoming many.
fn push_gap(state: &mut State, more: Option<u64>, why: GapReason) {
    let at = state.cursor.clone();
    if let Some(News::Gap { count, reason, cursor }) = state.news.back_mut()
        && *reason == why
    {
        *count = count.zip(more).map(|(count, more)| count + more);
        *cursor = at;
        return;
    }
    state.bytes += OVERHEAD_BYTES;
    state.news.push_back(News::Gap { count: more, reason: why, cursor: at });
}

#[cfg(test)]
mod tests {
    use observer_wire::record::Level;

    use super::*;
    use crate::feed::Record;

    const ROOM: usize = 4096;

    fn cursor(at: u32) -> Cursor {
        Cursor(format!("e.{at}"))
    }

    fn batch(at: u32, bytes: usize) -> Arc<Batch> {
        let record = Record {
            json: "x".repeat(bytes),
            observer: String::new(),
            device: "d".into(),
            level: Level::Info,
            text: String::new(),
        };
        Arc::new(Batch { records: vec![record], cursor: cursor(at) })
    }

    fn queue() -> Queue {
        let queue = Queue::new(Filter::default(), ROOM);
        queue.join_at(&cursor(10));
        queue
    }

    /// What a viewer would see: positions of records, and gaps.
    fn taken(queue: &Queue) -> String {
        let (news, cursor) = queue.take();
        let mut seen: Vec<_> = news
            .iter()
            .map(|news| match news {
                News::Logs(picked) => picked.batch.cursor.0.clone(),
                News::Gap { count, cursor, .. } => {
                    format!("gap {count:?} to {}", cursor.as_ref().unwrap())
                }
                News::Vars(_) => "vars".into(),
                News::Devices(_) => "devices".into(),
                News::Reset => "reset".into(),
            })
            .collect();
        seen.push(format!("at {}", cursor.unwrap()));
        seen.join(", ")
    }

    #[test]
    fn records_that_do_not_fit_become_one_counted_gap() {
        let queue = queue();
        for at in 11..16 {
            queue.push_shared(&batch(at, 1600));
        }
        assert_eq!(taken(&queue), "e.11, e.12, gap Some(3) to e.15, at e.15");
        queue.push_shared(&batch(16, ROOM * 2));
        assert_eq!(taken(&queue), "e.16, at e.16", "one record passes, however large");
    }

    #[test]
    fn state_that_does_not_fit_is_fetched_anew() {
        let queue = queue();
        queue.push_shared(&batch(11, 10));
        queue.push_vars(&Arc::default(), ROOM);
        queue.push_devices(&Arc::default(), 10);
        assert_eq!(taken(&queue), "reset, devices, at e.11");
    }

    #[test]
    fn a_viewer_that_catches_up_sees_each_record_once() {
        let queue = queue();
        queue.push_shared(&batch(11, 10));
        queue.hold_shared(&cursor(7));
        queue.push_shared(&batch(12, 10));
        for at in 8..11 {
            assert_eq!(queue.push_own(&batch(at, 10)), at == 10, "caught up where it joined");
        }
        queue.push_shared(&batch(13, 10));
        assert_eq!(taken(&queue), "e.8, e.9, e.10, e.11, e.12, e.13, at e.13");
    }

    #[test]
    fn a_viewer_may_catch_up_in_the_middle_of_what_is_held() {
        let queue = queue();
        queue.hold_shared(&cursor(11));
        for at in 11..14 {
            queue.push_shared(&batch(at, 10));
        }
        assert!(queue.push_own(&batch(12, 10)));
        assert_eq!(taken(&queue), "e.12, e.13, at e.13");
    }

    #[test]
    fn what_could_not_be_held_comes_from_the_viewers_own_subscription() {
        let queue = queue();
        queue.hold_shared(&cursor(9));
        for at in 11..16 {
            queue.push_shared(&batch(at, 1600));
        }
        for at in 10..15 {
            assert_eq!(queue.push_own(&batch(at, 10)), at == 14, "11, 12 and 13 were not held");
        }
        assert_eq!(taken(&queue), "e.10, e.11, e.12, e.13, e.14, e.15, at e.15");
    }

    #[test]
    fn a_loss_of_the_shared_subscription_does_not_hurt_who_has_another() {
        let queue = queue();
        queue.hold_shared(&cursor(9));
        queue.push_shared(&batch(11, 10));
        queue.push_shared_loss(Some(2));
        queue.push_shared(&batch(14, 10));
        for at in 10..15 {
            assert_eq!(queue.push_own(&batch(at, 10)), at == 14);
        }
        queue.push_shared_loss(Some(2));
        assert_eq!(taken(&queue), "e.10, e.11, e.12, e.13, e.14, gap Some(2) to e.14, at e.14");
    }

    #[test]
    fn a_filter_moves_the_cursor_without_news() {
        let filter = Filter { level: Some(Level::Error), ..Filter::default() };
        let queue = Queue::new(filter, ROOM);
        queue.push_shared(&batch(11, 10));
        assert_eq!(queue.quiet_cursor(), Some(cursor(11)));
        assert_eq!(taken(&queue), "at e.11");
    }
}
