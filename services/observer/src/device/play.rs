//! Keeps a device connected and moves its lines both ways, until its player leaves.

use std::future::{Future, pending};
use std::io;
use std::pin::pin;

use observer_chassis::{Backoff, Shutdown};
use tokio::time::{Duration, Instant, sleep, sleep_until};

use super::Device;
use super::heard::Heard;
use super::socket::{Lost, Socket, Target};

/// Pauses between two tries to connect: the first, and the longest.
const CONNECT_PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Time the last lines have to be sent and answered once the player leaves.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// Pause after which the outbox is looked at again though nothing happened: it may hold lines back.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a player wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Go on.
    Play,
    /// End, once all lines are answered.
    Leave,
}

/// Who decides what a device says: a script, or a person.
pub(crate) trait Player: Send {
    /// What ends the play early.
    type Error: Send;

    /// The device that is played.
    fn device(&mut self) -> &mut Device;

    /// Waits for the next thing to do, and does it. Cancel safe.
    fn act(&mut self) -> impl Future<Output = Result<Next, Self::Error>> + Send;

    /// The device is signed in; its variables are reported next.
    fn connected(&mut self) -> Result<(), Self::Error>;

    /// The connection is gone, or never was. Unless this fails, it is tried again.
    fn lost(&mut self, why: Lost) -> Result<(), Self::Error>;

    /// The server said something. Pings and the outbox are dealt with already.
    fn heard(&mut self, heard: Heard) -> Result<(), Self::Error>;
}

/// Plays until the player leaves or shutdown is requested.
///
/// # Errors
///
/// Only those of the player; a lost connection is made again.
pub(crate) async fn play<P: Player>(
    player: &mut P,
    target: &Target,
    shutdown: &Shutdown,
) -> Result<(), P::Error> {
    let mut pauses = Backoff::new(CONNECT_PAUSES.0, CONNECT_PAUSES.1);
    let mut leaving = Leaving(None);
    let mut pause = Duration::ZERO;
    loop {
        let connecting = async {
            sleep(pause).await;
            Socket::sign_in(target).await
        };
        let connected = tokio::select! {
            connected = beside(player, &mut leaving, connecting) => connected?,
            () = shutdown.requested() => return Ok(()),
        };
        let ended = match connected {
            None => return Ok(()),
            Some(Err(lost)) => Err(lost),
            Some(Ok(mut socket)) => {
                pauses.reset();
                player.device().outbox.reconnected();
                player.device().report_all();
                player.connected()?;
                tokio::select! {
                    ended = converse(player, &mut socket, &mut leaving) => ended?,
                    () = shutdown.requested() => return Ok(()),
                }
            }
        };
        match ended {
            Ok(()) => return Ok(()),
            Err(lost) => player.lost(lost)?,
        }
        pause = pauses.next_delay();
    }
}

/// Until when a player that leaves may wait for answers; `None` while it stays.
struct Leaving(Option<Instant>);

impl Leaving {
    fn note(&mut self, next: Next) {
        if next == Next::Leave {
            self.0.get_or_insert(Instant::now() + LEAVE_WITHIN);
        }
    }

    /// Waits until the time to leave is over.
    async fn over(&self) {
        match self.0 {
            Some(until) => sleep_until(until).await,
            None => pending().await,
        }
    }

    /// Lets the player act while it stays.
    async fn act<P: Player>(&self, player: &mut P) -> Result<Next, P::Error> {
        if self.0.is_some() { pending().await } else { player.act().await }
    }
}

/// Waits for `work` while the player goes on acting. `None` when it left and the time was over.
async fn beside<P: Player, T>(
    player: &mut P,
    leaving: &mut Leaving,
    work: impl Future<Output = T>,
) -> Result<Option<T>, P::Error> {
    let mut work = pin!(work);
    loop {
        let next = tokio::select! {
            done = &mut work => return Ok(Some(done)),
            next = leaving.act(player) => next?,
            () = leaving.over() => return Ok(None),
        };
        leaving.note(next);
    }
}

/// What happened on an open socket.
enum Event {
    Line(io::Result<String>),
    Acted(Next),
    Nothing,
}

/// Moves lines both ways until the connection breaks, or the player left and all is answered.
async fn converse<P: Player>(
    player: &mut P,
    socket: &mut Socket,
    leaving: &mut Leaving,
) -> Result<Result<(), Lost>, P::Error> {
    loop {
        if let Err(broken) = flush(player, socket).await {
            return Ok(Err(Lost::Broken(broken)));
        }
        if leaving.0.is_some() && player.device().outbox.is_empty() {
            return Ok(Ok(()));
        }
        let event = tokio::select! {
            line = socket.next_line() => Event::Line(line),
            next = leaving.act(player) => Event::Acted(next?),
            () = leaving.over() => return Ok(Ok(())),
            () = sleep(LOOK_EVERY) => Event::Nothing,
        };
        match event {
            Event::Line(Ok(line)) if line.is_empty() => {}
            Event::Line(Ok(line)) => hear(player, &line)?,
            Event::Line(Err(broken)) => return Ok(Err(Lost::Broken(broken))),
            Event::Acted(next) => leaving.note(next),
            Event::Nothing => {}
        }
    }
}

fn hear<P: Player>(player: &mut P, line: &str) -> Result<(), P::Error> {
    let device = player.device();
    let heard = Heard::parse(line, device.outbox.key());
    device.settle(&heard, Instant::now());
    player.heard(heard)
}

async fn flush<P: Player>(player: &mut P, socket: &mut Socket) -> io::Result<()> {
    while let Some(line) = player.device().outbox.next_to_send(Instant::now()) {
        socket.send(&line).await?;
    }
    Ok(())
}
