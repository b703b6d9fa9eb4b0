//! As much of HTTP/1.1 as one client needs: bodies with their length, connections that are kept.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longest request, in bytes: twice what the store sends.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

pub(super) struct Request {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// Requests of one connection.
#[derive(Default)]
pub(super) struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    /// The next request; `None` at the end of the connection, or at what is no request.
    pub(super) async fn next(&mut self, socket: &mut TcpStream) -> Option<Request> {
        let mut part = vec![0; 64 * 1024];
        loop {
            if let Some((request, bytes)) = parse(&self.buffer) {
                self.buffer.drain(..bytes);
                return Some(request);
            }
            let read = socket.read(&mut part).await.ok()?;
            if read == 0 || REQUEST_BYTES_MAX < self.buffer.len() {
                return None;
            }
            self.buffer.extend_from_slice(&part[..read]);
        }
    }
}

/// The request at the front, and its bytes; `None` when it is not whole.
fn parse(buffer: &[u8]) -> Option<(Request, usize)> {
    let end = memchr::memmem::find(buffer, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&buffer[..end]);
    let mut lines = head.lines();
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?);
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (start, length) = (end + 4, length.unwrap_or_default());
    let body = buffer.get(start..start.checked_add(length)?)?.to_vec();
    let path = target.split('?').next()?.to_owned();
    Some((Request { method, path, body }, start + length))
}

/// How an answer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    Whole,
    /// Half of the body, and then the connection ends.
    Half,
    After(Duration),
    Never,
}

pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) delivery: Delivery,
}

impl Reply {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self::text(status, &body.to_string())
    }

    pub(super) fn text(status: u16, body: &str) -> Self {
        Self { status, body: body.as_bytes().to_vec(), delivery: Delivery::Whole }
    }

    /// Sends it; `None` when the connection is over.
    pub(super) async fn send(self, socket: &mut TcpStream) -> Option<()> {
        match self.delivery {
            Delivery::Never => {
                let mut rest = [0; 1024];
                while socket.read(&mut rest).await.is_ok_and(|read| 0 < read) {}
                return None;
            }
            Delivery::After(pause) => tokio::time::sleep(pause).await,
            Delivery::Whole | Delivery::Half => {}
        }
        self.write(socket).await.ok()?;
        (self.delivery != Delivery::Half).then_some(())
    }

    async fn write(&self, socket: &mut TcpStream) -> io::Result<()> {
        let Self { status, body, delivery } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await?;
        let sent = if *delivery == Delivery::Half { length / 2 } else { length };
        socket.write_all(&body[..sent]).await
    }
}
