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

    /// The server said something. The outbox is dealt with already.
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::device::values::{Variable, Variables};

    const KEY: &str = "0123456789ab";

    /// Says one thing, then waits to be let go.
    struct Once {
        device: Device,
        lost: Arc<Mutex<Vec<String>>>,
        said: bool,
        edits: usize,
        edits_wanted: usize,
    }

    impl Player for Once {
        type Error = String;

        fn device(&mut self) -> &mut Device {
            &mut self.device
        }

        async fn act(&mut self) -> Result<Next, String> {
            if !std::mem::replace(&mut self.said, true) {
                self.device.log(&["hi"]);
                return Ok(Next::Play);
            }
            if self.edits < self.edits_wanted { pending().await } else { Ok(Next::Leave) }
        }

        fn connected(&mut self) -> Result<(), String> {
            Ok(())
        }

        fn lost(&mut self, why: Lost) -> Result<(), String> {
            self.lost.lock().unwrap().push(why.to_string());
            if matches!(why, Lost::Refused { .. }) { Err(why.to_string()) } else { Ok(()) }
        }

        fn heard(&mut self, heard: Heard) -> Result<(), String> {
            if let Heard::Edits(edits) = heard {
                self.device.obey(&edits);
                self.edits += 1;
            }
            Ok(())
        }
    }

    fn once(edits_wanted: usize) -> Once {
        let mut variables = Variables::default();
        variables.declare(Variable::float("gravity", 9.8));
        let device = Device::new(KEY.parse().unwrap(), variables).unwrap();
        Once { device, lost: Arc::default(), said: false, edits: 0, edits_wanted }
    }

    /// The server's end of a socket.
    struct Peer(BufReader<TcpStream>);

    impl Peer {
        async fn accept(listener: &TcpListener) -> Self {
            let mut peer = Self(BufReader::new(listener.accept().await.unwrap().0));
            assert_eq!(peer.line().await, format!("v:{KEY}"));
            peer
        }

        async fn line(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).await.unwrap();
            line.trim_end().to_owned()
        }

        async fn say(&mut self, line: &str) {
            self.0.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }

        /// Answers lines until one begins with `start`; that one is returned and not answered.
        async fn answer_until(&mut self, start: &str) -> String {
            loop {
                let line = self.line().await;
                if line.starts_with(start) {
                    return line;
                }
                self.say(&format!("OK {}", mid(&line))).await;
            }
        }
    }

    fn mid(line: &str) -> &str {
        line.rsplit_once(':').unwrap().1
    }

    async fn run(player: &mut Once, listener: &TcpListener) -> Result<(), String> {
        let address = listener.local_addr().unwrap().to_string();
        let target = Target { address, key: KEY.parse().unwrap() };
        let shutdown = Shutdown::new(Duration::from_secs(1));
        play(player, &target, &shutdown).await
    }

    #[tokio::test]
    async fn a_line_that_was_not_answered_is_sent_again_on_the_next_socket() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut player = once(0);
        let server = async {
            let mut first = Peer::accept(&listener).await;
            first.say("OK").await;
            let sent = first.answer_until("l:").await;
            drop(first);
            let mut second = Peer::accept(&listener).await;
            second.say("OK").await;
            assert_eq!(second.answer_until("l:").await, sent);
            second.say(&format!("OK {}", mid(&sent))).await;
            second.answer_until("never").await
        };
        tokio::select! {
            ended = run(&mut player, &listener) => assert_eq!(ended, Ok(())),
            _ = server => unreachable!("the device leaves first"),
        }
        assert_eq!(*player.lost.lock().unwrap(), ["connection lost"]);
        assert!(player.device.outbox.is_empty());
    }

    #[tokio::test]
    async fn an_edit_is_answered_at_once_with_the_value_in_force() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut player = once(1);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            peer.say("OK").await;
            let declared = peer.answer_until("i:").await;
            peer.say(&format!("OK {}", mid(&declared))).await;
            peer.say(&format!("v:{KEY}:[{{\"name\":\"gravity\",\"value\":\"3\"}}]")).await;
            let applied = peer.answer_until("i:").await;
            assert!(applied.contains("\"value\":\"3\""), "{applied}");
            peer.say(&format!("OK {}", mid(&applied))).await;
            peer.answer_until("never").await
        };
        tokio::select! {
            ended = run(&mut player, &listener) => assert_eq!(ended, Ok(())),
            _ = server => unreachable!("the device leaves first"),
        }
    }

    #[tokio::test]
    async fn a_refused_key_is_told_in_the_words_of_the_server() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut player = once(0);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            peer.say("ERR unknown_key - - no such key").await;
        };
        let (ended, ()) = tokio::join!(run(&mut player, &listener), server);
        assert!(ended.unwrap_err().contains("unknown_key"));
    }
}
