//! The yardstick of the gateway into NATS: a bare JetStream publisher. It has no devices and checks
//! nothing; it writes one line a message into the stream that the gateway publishes to, and counts
//! what the server says it stored.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use observer_wire::event::{self, LineHead, LineKind};
use observer_wire::{ApiKey, subject};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{RECORDS, RUN, WARM_UP, records};

/// Bytes of messages in one write.
const BLOCK_BYTES: usize = 64 * 1024;

/// Messages ahead of their acknowledgements.
const WINDOW: usize = 2_000;

/// Where acknowledgements arrive.
const INBOX: &str = "_INBOX.yardstick";

/// Stored messages a second.
pub(crate) async fn run(server: SocketAddr, key: &str) -> anyhow::Result<f64> {
    let key: ApiKey = key.parse()?;
    let mut socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    let hello = format!("CONNECT {{\"verbose\":false}}\r\nSUB {INBOX} 1\r\n");
    socket.write_all(hello.as_bytes()).await?;
    let message = message(key)?;
    let block = message.repeat(BLOCK_BYTES / message.len());
    let messages = BLOCK_BYTES / message.len();

    let (mut reader, mut writer) = socket.split();
    let mut received = vec![0; BLOCK_BYTES];
    let mut answers = Answers::default();
    let (mut sent, mut measured) = (0, None);
    let begun = Instant::now();
    while begun.elapsed() < WARM_UP + RUN {
        while sent + messages <= answers.stored + WINDOW {
            writer.write_all(&block).await?;
            sent += messages;
        }
        let read = reader.read(&mut received).await?;
        answers.read(&received[..read])?;
        if measured.is_none() && WARM_UP <= begun.elapsed() {
            measured = Some((Instant::now(), answers.stored));
        }
    }
    let (since, before) = measured.ok_or_else(|| anyhow::anyhow!("nothing was measured"))?;
    #[expect(clippy::cast_precision_loss, reason = "a count of a few seconds")]
    let stored = (answers.stored - before) as f64;
    Ok(stored / since.elapsed().as_secs_f64())
}

/// One line as the gateway publishes it, in a message of its own.
fn message(key: ApiKey) -> anyhow::Result<Vec<u8>> {
    let mut payload = Vec::new();
    event::start(&mut payload, key.founds());
    let head = LineHead {
        kind: LineKind::Logs,
        id: "r0123456789abcdef".into(),
        key,
        device: "s-0123456789abcdef".into(),
        named: false,
        session: "s-0123456789abcdef".into(),
        epoch: 1_700_000_000_000_000,
        seq: 1,
        received: 1_700_000_000_000,
        mid: None,
        index: 0,
        count: u32::try_from(RECORDS)?,
        rev: 0,
        again: false,
        odd: [].as_slice().into(),
        len: 0,
    };
    event::push_line(&mut payload, head, &json!(records(1)).to_string());
    let subject = subject::of_project(subject::LOGS, key.founds());
    let mut message = format!("PUB {subject} {INBOX} {}\r\n", payload.len()).into_bytes();
    message.extend_from_slice(&payload);
    message.extend_from_slice(b"\r\n");
    Ok(message)
}

/// What the server wrote, whole lines of it.
#[derive(Default)]
struct Answers {
    rest: Vec<u8>,
    stored: usize,
}

impl Answers {
    fn read(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if bytes.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.rest.extend_from_slice(bytes);
        let Some(end) = memchr::memrchr(b'\n', &self.rest) else { return Ok(()) };
        for line in self.rest[..end].split(|byte| *byte == b'\n') {
            // The payload of an acknowledgement is one line of JSON.
            if line.starts_with(br#"{"stream""#) {
                self.stored += 1;
            } else {
                let is_error = line.starts_with(b"-ERR") || line.starts_with(br#"{"error""#);
                anyhow::ensure!(!is_error, "refused: {}", String::from_utf8_lossy(line));
            }
        }
        self.rest.drain(..=end);
        Ok(())
    }
}
