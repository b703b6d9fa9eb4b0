//! `observer dead-letters`: what could never be dealt with, and what to do about it.

use clap::Subcommand;
use observer_wire::ApiKey;
use serde_json::Value;

use crate::client::Client;
use crate::terminal;

/// Letters asked for at once.
const PAGE: &str = "1000";

/// Looks at what Observer could not store, and replays or drops it.
#[derive(clap::Args)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
    /// Address of the api [default: that of the `observer serve` that runs here, else
    /// <http://127.0.0.1:8080>]
    #[arg(long, value_name = "URL", global = true)]
    api: Option<String>,
}

#[derive(Subcommand)]
enum Action {
    /// List a project's dead letters, oldest first
    List {
        /// Key of the project
        key: ApiKey,
    },
    /// Show a dead letter with all it holds
    Show {
        /// Key of the project
        key: ApiKey,
        /// The letter, as `list` names it
        id: u64,
    },
    /// Publish dead letters again; what was stored meanwhile is not stored twice
    Replay {
        /// Key of the project
        key: ApiKey,
        /// The letters, as `list` names them
        #[arg(required = true)]
        ids: Vec<u64>,
    },
    /// Drop dead letters for good
    Drop {
        /// Key of the project
        key: ApiKey,
        /// The letters, as `list` names them
        #[arg(required = true)]
        ids: Vec<u64>,
    },
}

/// Does what was asked; of several letters, one after the other until one fails.
pub(crate) async fn run(args: &DeadLettersArgs) -> anyhow::Result<()> {
    let client = Client::of_api(args.api.as_deref())?;
    match &args.action {
        Action::List { key } => list(&client, key).await,
        Action::Show { key, id } => {
            let letter = client.get(client.letter_url(key.as_str(), *id)).await?;
            Ok(terminal::text(&shown(&letter))?)
        }
        Action::Replay { key, ids } => {
            for id in ids {
                let mut url = client.letter_url(key.as_str(), *id);
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.push("replay");
                }
                client.post(url).await?;
                terminal::line(&format!("{id} replayed"))?;
            }
            Ok(())
        }
        Action::Drop { key, ids } => {
            for id in ids {
                client.delete(client.letter_url(key.as_str(), *id)).await?;
                terminal::line(&format!("{id} dropped"))?;
            }
            Ok(())
        }
    }
}

async fn list(client: &Client, key: &ApiKey) -> anyhow::Result<()> {
    let mut cursor: Option<String> = None;
    loop {
        let mut url = client.project_url(key.as_str(), "dead-letters");
        url.query_pairs_mut().append_pair("limit", PAGE);
        if let Some(cursor) = &cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let page = client.get(url).await?;
        let letters = page["items"].as_array().map_or(&[][..], Vec::as_slice);
        if letters.is_empty() && cursor.is_none() {
            return Ok(terminal::line("no dead letters")?);
        }
        for letter in letters {
            terminal::line(&terminal::clean(&line(letter)))?;
        }
        match page["next"].as_str() {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

/// A letter in one line.
fn line(letter: &Value) -> String {
    let text = |name: &str| letter[name].as_str().unwrap_or("?");
    let (id, at, size) = (text("id"), text("at"), &letter["size"]);
    format!("{id}  {at}  {} {}  {size} B  {}", text("stream"), text("kind"), text("reason"))
}

/// A letter with what it holds, its payload last.
fn shown(letter: &Value) -> String {
    let mut out = terminal::clean(&line(letter)).into_owned();
    let payload = letter["payload"].as_str().or(letter["payload_base64"].as_str());
    for line in payload.unwrap_or_default().lines() {
        out.push('\n');
        out.push_str(&terminal::clean(line));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: DeadLettersArgs,
    }

    #[test]
    fn several_letters_are_named_at_once_and_at_least_one() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let replay = parse("x replay 0123456789ab 1 2 --api http://host").unwrap();
        assert!(matches!(replay.args.action, Action::Replay { ids, .. } if ids == [1, 2]));
        assert_eq!(replay.args.api.as_deref(), Some("http://host"));
        for wrong in ["x replay 0123456789ab", "x show 0123456789ab", "x drop bad 1", "x list"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_letter_cannot_steer_the_terminal() {
        let letter = json!({ "id": "7", "at": "2026-11-23T10:00:00Z", "stream": "logs",
            "kind": "event", "size": 3, "reason": "a\u{1b}[31m\nb", "payload": "x\u{1b}\ny" });
        assert_eq!(shown(&letter), "7  2026-11-23T10:00:00Z  logs event  3 B  a [31m b\nx \ny\n");
    }
}
