//! `observer tail`: log records of a project on the terminal, as they come.

mod format;

use std::collections::HashSet;

use anyhow::{Context as _, anyhow};
use futures_util::{SinkExt as _, StreamExt as _};
use observer_chassis::{Backoff, Shutdown, WrongUsage};
use observer_wire::ApiKey;
use reqwest::Url;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::{Duration, sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::client::{Client, Problem};
use crate::terminal;

/// Most earlier records that are shown; the api gives no more at once.
const EARLIER_MAX: u64 = 1_000;

/// Time to open the stream.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// Pauses between two tries to come back: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Largest frame of the stream, in bytes: a tenth of a second of a very loud project.
const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Silence after which the server is asked whether it is there. A second one, and the stream counts
/// as lost: a machine that went away never says so.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Follows the log of a project.
#[derive(clap::Args)]
pub(crate) struct TailArgs {
    /// Key of the project
    key: ApiKey,
    /// Show the last N records first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=EARLIER_MAX))]
    lines: u64,
    /// Only this level and above: trace, debug, info, warn, error or fatal
    #[arg(long)]
    level: Option<String>,
    /// Only this device
    #[arg(long)]
    device: Option<String>,
    /// Only what matches: words, "a phrase", name:value
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// Print each record as one line of JSON
    #[arg(long)]
    json: bool,
    /// Address of the api [default: that of the `observer serve` that runs here, else
    /// <http://127.0.0.1:8080>]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
}

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Prints records until shutdown is requested; comes back by itself when the stream is lost.
pub(crate) async fn run(args: &TailArgs, shutdown: &Shutdown) -> anyhow::Result<()> {
    let client = Client::of_api(args.api.as_deref())?;
    let mut tail = Tail { args, cursor: None, shown: HashSet::new() };
    tokio::select! {
        () = shutdown.requested() => Ok(()),
        ended = tail.follow(&client) => ended,
    }
}

struct Tail<'a> {
    args: &'a TailArgs,
    /// Where to go on after a loss.
    cursor: Option<String>,
    /// Ids of the earlier records, which the stream may bring once more.
    shown: HashSet<String>,
}

impl Tail<'_> {
    async fn follow(&mut self, client: &Client) -> anyhow::Result<()> {
        let mut stream = self.open(client).await?;
        // After the stream is open, so that nothing falls between the two.
        self.show_earlier(client).await?;
        let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let lost = self.read(&mut stream).await?;
            self.note(&format!("connection lost ({lost}); trying again"))?;
            stream = loop {
                sleep(pauses.next_delay()).await;
                match self.open(client).await {
                    Ok(stream) => break stream,
                    Err(error) if error.is::<Gone>() => {}
                    Err(refused) => return Err(refused),
                }
            };
            pauses.reset();
        }
    }

    async fn open(&self, client: &Client) -> anyhow::Result<Stream> {
        let mut url = client.project_url(self.args.key.as_str(), "stream");
        self.filter(&mut url);
        if let Some(cursor) = &self.cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let at = url.clone();
        url.set_scheme("ws").map_err(|()| anyhow!("{at} has no WebSocket"))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(FRAME_BYTES_MAX))
            .max_frame_size(Some(FRAME_BYTES_MAX));
        let opening = connect_async_with_config(url.as_str(), Some(config), true);
        match timeout(OPEN_WITHIN, opening).await {
            Ok(Ok((stream, _))) => Ok(stream),
            Ok(Err(Error::Http(response))) => {
                Err(refusal(response.body().as_deref(), response.status().as_u16()))
            }
            Ok(Err(error)) => {
                Err(anyhow::Error::new(error).context(Gone).context(unreachable_words(&at)))
            }
            Err(_) => Err(anyhow::Error::new(Gone).context(unreachable_words(&at))),
        }
    }

    fn filter(&self, url: &mut Url) {
        let args = self.args;
        for (name, value) in [("level", &args.level), ("device", &args.device), ("q", &args.query)]
        {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
    }

    async fn show_earlier(&mut self, client: &Client) -> anyhow::Result<()> {
        if self.args.lines == 0 {
            return Ok(());
        }
        let mut url = client.project_url(self.args.key.as_str(), "logs");
        self.filter(&mut url);
        url.query_pairs_mut().append_pair("limit", &self.args.lines.to_string());
        let mut page = client.get(url).await?;
        let Value::Array(mut items) = page["items"].take() else { return Ok(()) };
        items.reverse();
        self.show(&items)?;
        let ids = items.iter().filter_map(|item| item["observer"]["id"].as_str());
        self.shown.extend(ids.map(str::to_owned));
        Ok(())
    }

    /// Prints what comes until the stream is lost; says why it was.
    async fn read(&mut self, stream: &mut Stream) -> anyhow::Result<String> {
        let mut asked = false;
        loop {
            let message = match timeout(SILENCE_MAX, stream.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Ok(error.to_string()),
                Ok(None) => return Ok("closed".to_owned()),
                Err(_) if asked => return Ok("no answer".to_owned()),
                Err(_) => {
                    asked = true;
                    if let Err(error) = stream.send(Message::Ping(Vec::new().into())).await {
                        return Ok(error.to_string());
                    }
                    continue;
                }
            };
            asked = false;
            match message {
                Message::Text(text) => {
                    let frame = serde_json::from_str(&text);
                    self.take(&frame.context("the stream sent what is no JSON")?)?;
                }
                Message::Close(frame) => {
                    return Ok(frame.map_or("closed".to_owned(), |frame| frame.reason.to_string()));
                }
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    fn take(&mut self, frame: &Value) -> anyhow::Result<()> {
        match frame["type"].as_str() {
            Some("logs") => {
                let items = frame["items"].as_array().map_or(&[][..], Vec::as_slice);
                self.show(items)?;
            }
            Some("gap") => {
                let reason = frame["reason"].as_str().unwrap_or("no reason given");
                let count = frame["count"].as_u64().map_or("some".to_owned(), |n| n.to_string());
                self.gap(frame, &format!("{count} records are missing here ({reason})"))?;
            }
            Some("reset") => {
                self.gap(frame, "back; records of the time between may be missing here")?;
            }
            Some("resumed") => self.note("back, nothing is missing")?,
            _ => {} // What a later release says, and what is not about records.
        }
        if let Some(cursor) = frame["cursor"].as_str() {
            self.cursor = Some(cursor.to_owned());
        }
        Ok(())
    }

    fn show(&mut self, items: &[Value]) -> Result<(), terminal::OutputClosed> {
        let mut lines = Vec::new();
        for item in items {
            let id = item["observer"]["id"].as_str().unwrap_or_default();
            if self.shown.remove(id) {
                continue;
            }
            lines.push(if self.args.json { item.to_string() } else { format::record(item) });
        }
        if lines.is_empty() { Ok(()) } else { terminal::line(&lines.join("\n")) }
    }

    fn gap(&self, frame: &Value, words: &str) -> Result<(), terminal::OutputClosed> {
        if self.args.json { terminal::line(&frame.to_string()) } else { self.note(words) }
    }

    /// A word of our own; programs that read JSON are spared.
    fn note(&self, words: &str) -> Result<(), terminal::OutputClosed> {
        if self.args.json {
            Ok(())
        } else {
            terminal::line(&format!("-- {} --", terminal::clean(words)))
        }
    }
}

/// Marks an error after which trying again helps.
#[derive(Debug, thiserror::Error)]
#[error("nobody answers there")]
struct Gone;

fn unreachable_words(url: &Url) -> String {
    let host = url.origin().ascii_serialization();
    format!("cannot open the stream at {host}; does `observer serve` run, and is this its address?")
}

fn refusal(body: Option<&[u8]>, status: u16) -> anyhow::Error {
    let problem = body.and_then(|body| serde_json::from_slice::<Problem>(body).ok());
    match problem {
        Some(problem) if !problem.code.is_empty() => anyhow!("{problem}"),
        _ if status == 401 => WrongUsage("the api wants a sign-in (unauthenticated)".into()).into(),
        _ => anyhow!("the stream was refused with status {status}"),
    }
}
