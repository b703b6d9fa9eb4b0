//! The TCP connection of a device: lines out, lines in. It never connects again by itself.

use std::collections::VecDeque;
use std::io;

use observer_wire::ApiKey;
use observer_wire::line::LineSplitter;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Duration, timeout};

use super::heard::Heard;

/// Time to connect, and then again time for the answer to the sign-in.
const SIGN_IN_WITHIN: Duration = Duration::from_secs(10);

/// Time the server has to take a line off the socket.
const SEND_WITHIN: Duration = Duration::from_secs(10);

/// Longest line from the server, in bytes: a whole document of wanted values, with room to spare.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// Bytes read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Where a device connects, and with which key.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Host and port.
    pub(crate) address: String,
    /// The key.
    pub(crate) key: ApiKey,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    /// Nobody answers there, now. Try again.
    #[error("cannot reach a game port at {address}")]
    Unreachable {
        /// Where.
        address: String,
        #[source]
        source: io::Error,
    },
    /// The server does not take the key. Trying again helps once it is registered.
    #[error("the server refused the key: {words}")]
    Refused {
        /// Code and words of the server.
        words: String,
    },
    /// The connection broke. Try again.
    #[error("connection lost")]
    Broken(#[source] io::Error),
}

/// A connection that is signed in.
pub(crate) struct Socket {
    stream: TcpStream,
    splitter: LineSplitter,
    chunk: Box<[u8]>,
    lines: VecDeque<String>,
}

impl Socket {
    /// Connects and signs in.
    ///
    /// # Errors
    ///
    /// [`Lost`] says whether trying again helps.
    pub(crate) async fn sign_in(target: &Target) -> Result<Self, Lost> {
        let connecting = timeout(SIGN_IN_WITHIN, TcpStream::connect(&target.address));
        let connected = async {
            let stream = connecting.await??;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connected.await.map_err(|source| {
            let address = target.address.clone();
            Lost::Unreachable { address, source }
        })?;
        let mut socket = Self {
            stream,
            splitter: LineSplitter::new(LINE_BYTES_MAX),
            chunk: vec![0; CHUNK_BYTES].into_boxed_slice(),
            lines: VecDeque::new(),
        };
        socket.send(&format!("v:{}\n", target.key.as_str())).await.map_err(Lost::Broken)?;
        let answer = timeout(SIGN_IN_WITHIN, socket.next_line()).await;
        let answer = answer.map_err(io::Error::from).flatten().map_err(Lost::Broken)?;
        if Heard::parse(&answer, target.key) == Heard::Fine {
            Ok(socket)
        } else {
            Err(Lost::Refused { words: answer })
        }
    }

    /// Sends a line that has its end.
    ///
    /// # Errors
    ///
    /// When the connection is broken, or the server does not read.
    pub(crate) async fn send(&mut self, line: &str) -> io::Result<()> {
        timeout(SEND_WITHIN, self.stream.write_all(line.as_bytes())).await?
    }

    /// Waits for the next line.
    ///
    /// # Errors
    ///
    /// When the connection is broken, or the line is longer than any that a server sends.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was read is kept for the next call.
    pub(crate) async fn next_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(line);
            }
            let length = self.stream.read(&mut self.chunk).await?;
            if length == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed it"));
            }
            let mut chunk = &self.chunk[..length];
            while let Some(line) = self.splitter.next_line(&mut chunk).map_err(io::Error::other)? {
                self.lines.push_back(String::from_utf8_lossy(line).into_owned());
            }
        }
    }
}
