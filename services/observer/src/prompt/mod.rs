//! `observer device`: a prompt that plays a device, for people without `nc` and for those who do not
//! want to type base64. What is typed goes out as lines; what the server says is shown decoded.

mod command;
mod input;
mod show;

use anyhow::{anyhow, bail};
use observer_chassis::{Shutdown, now_ms, reason};
use observer_wire::ApiKey;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use self::command::Command;
use crate::demo::command::target;
use crate::device::Device;
use crate::device::heard::Heard;
use crate::device::play::{Next, Player, play};
use crate::device::socket::{Lost, Target};
use crate::device::values::{Variable, Variables};
use crate::terminal;

/// Plays a device, as you type.
#[derive(clap::Args)]
pub(crate) struct DeviceArgs {
    /// Key to sign in with [default: that of the `observer serve` that runs here]
    key: Option<ApiKey>,
    /// Game port [default: that of the `observer serve` that runs here]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
}

/// Game port when only a key is known and no server runs here.
const ADDRESS_DEFAULT: &str = "127.0.0.1:6667";

/// Plays until the input ends, `quit`, or shutdown is requested.
pub(crate) async fn run(args: &DeviceArgs, shutdown: &Shutdown) -> anyhow::Result<()> {
    let target = match (args.key, &args.address) {
        (Some(key), None) => {
            let ready = crate::ready::Ready::find()?;
            let address = ready.map_or(ADDRESS_DEFAULT.to_owned(), |ready| ready.game);
            Target { address, key }
        }
        (key, address) => target(address.as_deref(), key)?,
    };
    let device =
        Device::new(target.key, Variables::default()).map_err(anyhow::Error::from_boxed)?;
    let lines = input::lines()?;
    let mut prompt =
        Prompt { device, lines, typed: terminal::is_typed(), target: target.clone(), away: false };
    play(&mut prompt, &target, shutdown).await?;
    if !prompt.device.outbox.is_empty() && !shutdown.is_requested() {
        bail!("not everything was answered in time; it may or may not be stored");
    }
    Ok(())
}

struct Prompt {
    device: Device,
    lines: mpsc::Receiver<String>,
    typed: bool,
    target: Target,
    /// Whether the loss of the connection has been told: one sentence is enough.
    away: bool,
}

impl Prompt {
    fn obey(&mut self, line: &str) -> anyhow::Result<Next> {
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(words) => {
                self.say(&words)?;
                return Ok(Next::Play);
            }
        };
        match command {
            Command::Nothing => self.say("")?,
            Command::Quit => return Ok(Next::Leave),
            Command::Help => self.say(command::HELP)?,
            Command::Vars => self.say(&show::variables(&self.device.variables))?,
            Command::Raw(line) => {
                self.device.outbox.push_raw(&line);
                self.say("")?;
            }
            Command::Log { level, text } => {
                self.device.log(&[record(level, &text)]);
                self.say("")?;
            }
            Command::Records(records) => {
                self.device.log(&records);
                self.say("")?;
            }
            Command::Var { name, value } => self.change(&name, &value)?,
        }
        Ok(Next::Play)
    }

    fn change(&mut self, name: &str, value: &str) -> anyhow::Result<()> {
        let mut words = String::new();
        if self.device.variables.get(name).is_some() {
            if let Err(wrong) = self.device.variables.change(name, value) {
                return self.say(&wrong);
            }
        } else {
            let variable = Variable::new(name, command::type_of(value), value);
            if let Some(outcome) = self.device.variables.declare(variable) {
                words = outcome.describe();
            }
        }
        self.device.report(&[name.to_owned()]);
        self.say(&words)
    }

    /// Shows words, if any, and asks for the next command.
    fn say(&self, words: &str) -> anyhow::Result<()> {
        // What was asked already stands in the line when the server speaks first.
        let (back, ask) = if self.typed { ("\r", "> ") } else { ("", "") };
        if words.is_empty() {
            return Ok(terminal::text(ask)?);
        }
        Ok(terminal::text(&format!("{back}{words}\n{ask}"))?)
    }
}

fn record(level: &str, text: &str) -> Value {
    json!({ "level": level, "message": text, "timestamp": now_ms() })
}

impl Player for Prompt {
    type Error = anyhow::Error;

    fn device(&mut self) -> &mut Device {
        &mut self.device
    }

    async fn act(&mut self) -> anyhow::Result<Next> {
        match self.lines.recv().await {
            Some(line) => self.obey(&line),
            None => Ok(Next::Leave),
        }
    }

    fn connected(&mut self) -> anyhow::Result<()> {
        self.away = false;
        let Target { address, key } = &self.target;
        let help = if self.typed { "; `help` says what to type" } else { "" };
        self.say(&format!("signed in at {address} with key {}{help}", key.as_str()))
    }

    fn lost(&mut self, why: Lost) -> anyhow::Result<()> {
        match &why {
            Lost::Refused { words } => {
                let words = terminal::clean(words);
                Err(anyhow!("the server refused the key: {words}").context(register(&self.target)))
            }
            Lost::Unreachable { .. } | Lost::Broken(_) => {
                if std::mem::replace(&mut self.away, true) {
                    return Ok(());
                }
                self.say(&format!("{}; trying again", terminal::clean(&reason(&why))))
            }
        }
    }

    fn heard(&mut self, heard: Heard) -> anyhow::Result<()> {
        let outcomes =
            if let Heard::Edits(edits) = &heard { self.device.obey(edits) } else { Vec::new() };
        match show::heard(&heard, &outcomes) {
            Some(words) => self.say(&words),
            None => Ok(()),
        }
    }
}

fn register(target: &Target) -> String {
    format!(
        "{} is no registered key; the page makes one, or: curl -d '{{\"token\":\"{}\"}}' -H \
         'content-type: application/json' http://127.0.0.1:8080/users/tokens",
        target.key.as_str(),
        target.key.as_str()
    )
}
