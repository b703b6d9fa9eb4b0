//! One thread, one current-thread runtime and one set of batches a core. A socket stays with the
//! worker it was handed to, so nothing on a line's way is locked or moved between threads; measured,
//! that costs 1.6 times less than a runtime that steals work.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use observer_wire::event::LineKind;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accept_line::Scratch;
use crate::batch::{Batches, flush_when_idle};
use crate::edits;
use crate::listener::accept::Handed;
use crate::pause::{self, Paused};
use crate::presence::{self, Presence};
use crate::registry::Registry;
use crate::session;
use crate::shared::Shared;
use crate::shed;
use crate::socket::Socket;

/// Bytes that one read may bring: a whole window of a busy socket. One buffer a worker.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// Connections on their way to one worker. When it is full, accepting waits.
const HANDED_MAX: usize = 256;

/// Pause between two complaints about the same trouble, so that the log stays readable.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Time that messages under way have to be settled once the grace is over.
const SETTLE_CUT_WITHIN: Duration = Duration::from_millis(500);

/// Everything that belongs to one thread.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) registry: RefCell<Registry>,
    pub(crate) batches: RefCell<Batches>,
    /// What any of the sockets reads into.
    pub(crate) chunk: RefCell<Box<[u8]>>,
    pub(crate) scratch: RefCell<Scratch>,
    /// Something has gathered that is to be published.
    pub(crate) flush: Notify,
    /// Sockets that are not read until fewer messages wait, longest waiting first; each once.
    pub(crate) waiting: RefCell<Vec<Rc<Socket>>>,
    /// Sockets that are not read until there is room.
    pub(crate) paused: Paused,
    /// Sign-ins and ends that could not be told yet.
    pub(crate) untold: RefCell<VecDeque<Box<Presence>>>,
    /// Sockets, and what is done for one.
    pub(crate) sessions: TaskTracker,
    /// Messages under way.
    pub(crate) publishes: TaskTracker,
    /// Sockets are not read any more.
    pub(crate) draining: Cell<bool>,
    /// Cancelled when `draining` becomes true.
    pub(crate) drain_requested: CancellationToken,
    /// The runtime is about to go: nothing more is begun.
    over: Cell<bool>,
    complained: Cell<Option<Instant>>,
}

impl Worker {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            registry: RefCell::default(),
            batches: RefCell::default(),
            chunk: RefCell::new(vec![0; READ_BYTES].into()),
            scratch: RefCell::default(),
            flush: Notify::new(),
            waiting: RefCell::default(),
            paused: Paused::default(),
            untold: RefCell::default(),
            sessions: TaskTracker::new(),
            publishes: TaskTracker::new(),
            draining: Cell::new(false),
            drain_requested: CancellationToken::new(),
            over: Cell::new(false),
            complained: Cell::new(None),
        }
    }

    /// Forgets a socket that ended, and tells who watches devices.
    pub(crate) fn leave(self: &Rc<Self>, socket: &Rc<Socket>) {
        self.registry.borrow_mut().remove(socket);
        socket.end();
        self.shared.numbers.socket_ended();
        if !self.over.get()
            && let Some(gone) = Presence::of(socket, LineKind::Gone)
        {
            presence::tell(self, gone);
        }
    }

    /// Whether trouble may be logged again.
    pub(crate) fn may_complain(&self) -> bool {
        let may = self.complained.get().is_none_or(|last| COMPLAIN_EVERY <= last.elapsed());
        if may {
            self.complained.set(Some(Instant::now()));
        }
        may
    }

    /// Stops reading: every socket answers what is under way, and closes.
    fn drain(&self) {
        self.draining.set(true);
        self.drain_requested.cancel();
        for socket in self.registry.borrow().all() {
            socket.stir();
        }
    }
}

/// The threads of a gateway.
pub(crate) struct Workers {
    threads: Vec<Thread>,
    next: AtomicUsize,
}

struct Thread {
    handed: Option<mpsc::Sender<Handed>>,
    /// Cancelled when the thread ends, however it does.
    ended: CancellationToken,
    running: Option<JoinHandle<()>>,
}

/// A worker takes no more sockets: it panicked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerEnded;

impl Workers {
    /// Starts the threads that the settings ask for.
    ///
    /// # Panics
    ///
    /// When the system gives no thread.
    pub(crate) fn start(shared: &Arc<Shared>) -> Self {
        let count = shared.config.worker_count();
        let threads = (0..count).map(|number| Thread::start(number, Arc::clone(shared))).collect();
        Self { threads, next: AtomicUsize::new(0) }
    }

    /// Gives a socket to the worker whose turn it is, waiting while it has no room.
    pub(crate) async fn hand(&self, handed: Handed) -> Result<(), WorkerEnded> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.threads.len();
        let Some(sender) = &self.threads[turn].handed else { return Err(WorkerEnded) };
        sender.send(handed).await.map_err(|_| WorkerEnded)
    }

    /// Asks every worker to answer what is under way, and to end.
    pub(crate) fn drain(&mut self) {
        for thread in &mut self.threads {
            thread.handed = None;
        }
    }

    /// Waits until every worker ended.
    ///
    /// # Panics
    ///
    /// When one of them panicked.
    ///
    /// # Cancel safety
    ///
    /// May be dropped and called again.
    pub(crate) async fn ended(&mut self) {
        for thread in &mut self.threads {
            thread.ended.cancelled().await;
            let running = thread.running.take();
            if let Some(Err(panic)) = running.map(JoinHandle::join) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

impl Thread {
    fn start(number: usize, shared: Arc<Shared>) -> Self {
        let (sender, receiver) = mpsc::channel(HANDED_MAX);
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let running = thread::Builder::new()
            .name(format!("gateway-{number}"))
            .spawn(move || {
                let _guard = guard;
                run(shared, receiver);
            })
            .expect("the system gives a thread for each worker");
        Self { handed: Some(sender), ended, running: Some(running) }
    }
}

fn run(shared: Arc<Shared>, handed: mpsc::Receiver<Handed>) {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("the system gives what a runtime needs");
    runtime.block_on(serve(shared, handed));
}

async fn serve(shared: Arc<Shared>, mut handed: mpsc::Receiver<Handed>) {
    let worker = Rc::new(Worker::new(shared));
    let mut loops = JoinSet::new(); // They end with the worker.
    let pushes = worker.shared.pushes();
    loops.spawn_local(flush_when_idle(Rc::clone(&worker)));
    loops.spawn_local(edits::push_all(Rc::clone(&worker), pushes));
    loops.spawn_local(presence::tell_again(Rc::clone(&worker)));
    loops.spawn_local(shed::tell_gaps(Rc::clone(&worker)));
    loops.spawn_local(pause::resume_paused(Rc::clone(&worker)));

    loop {
        tokio::select! {
            handed = handed.recv() => match handed {
                Some(handed) => {
                    worker.sessions.spawn_local(session::serve(Rc::clone(&worker), handed));
                }
                None => break,
            },
            // Without them lines would wait for ever: the gateway ends, loudly.
            Some(Err(ended)) = loops.join_next() => std::panic::resume_unwind(ended.into_panic()),
        }
    }

    worker.drain();
    let cut = worker.shared.cut.clone();
    cut.run_until_cancelled(drained(&worker)).await;
    worker.cut();
    worker.publishes.close();
    timeout(SETTLE_CUT_WITHIN, worker.publishes.wait()).await.ok();
    worker.cut();
    worker.over.set(true);
}

/// Waits until every socket closed and every message is settled.
async fn drained(worker: &Rc<Worker>) {
    worker.sessions.close();
    worker.sessions.wait().await;
    shed::tell_all(worker);
    worker.publishes.close();
    while !worker.batches.borrow().is_empty() {
        worker.publish_open();
        worker.publishes.wait().await;
    }
}
