//! `observer set`: an edit from the command line, and what became of it on each device.

use anyhow::anyhow;
use observer_chassis::WrongUsage;
use observer_wire::ApiKey;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use crate::client::{Client, RequestFailed};
use crate::terminal;

/// Pause between two looks at what the devices say.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Longest time that devices are waited for, in seconds.
const WAIT_SECS_MAX: f64 = 3_600.0;

/// Sets variables, and says which device applied them.
#[derive(clap::Args)]
pub(crate) struct SetArgs {
    /// Key of the project
    key: ApiKey,
    /// What to set: name=value; with --unset names alone
    #[arg(required = true, value_name = "NAME=VALUE")]
    edits: Vec<String>,
    /// Give the variables back to the game's own defaults
    #[arg(long)]
    unset: bool,
    /// Type of the values [default: as the game declared them]
    #[arg(long = "type", value_name = "TYPE", conflicts_with = "unset")]
    kind: Option<String>,
    /// Why, for those who read the history
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Only if nobody changed anything since this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
    /// Time that devices have to apply it, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    wait: f64,
    /// Address of the api [default: that of the `observer serve` that runs here, else
    /// <http://127.0.0.1:8080>]
    #[arg(long, value_name = "URL")]
    api: Option<String>,
}

/// Makes the edit, prints its revision, and then what became of it device by device.
pub(crate) async fn run(args: &SetArgs) -> anyhow::Result<()> {
    let edits = read_edits(args)?;
    let client = Client::of_api(args.api.as_deref())?;
    let url = client.project_url(args.key.as_str(), "vars");
    // An unset variable has no state: that it was reported anew is the receipt.
    let before = if args.unset { client.get(url.clone()).await? } else { Value::Null };
    let answer = match client.patch(url.clone(), &body(args, &edits)).await {
        Ok(answer) => answer,
        Err(RequestFailed::Refused(problem)) if problem.code == "conflict" => {
            for change in &problem.changed {
                terminal::line(&terminal::clean(&format!("  meanwhile: {}", wanted(change))))?;
            }
            let revision = problem.revision.unwrap_or_default();
            return Err(anyhow!("{problem}; the revision is {revision} now"));
        }
        Err(failed) => return Err(failed.into()),
    };
    let revision = answer["revision"].as_u64().unwrap_or_default();
    terminal::line(&format!("revision {revision}"))?;

    let until = Instant::now() + Duration::from_secs_f64(args.wait.clamp(0.0, WAIT_SECS_MAX));
    let names: Vec<&str> = edits.iter().map(|edit| edit.name.as_str()).collect();
    let vars = loop {
        let vars = client.get(url.clone()).await?;
        if is_settled(&vars, &before, &names, revision) || until <= Instant::now() {
            break vars;
        }
        sleep(LOOK_EVERY).await;
    };
    for line in describe(&vars, &names) {
        terminal::line(&terminal::clean(&line))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Edit {
    name: String,
    value: Option<String>,
}

fn read_edits(args: &SetArgs) -> Result<Vec<Edit>, WrongUsage> {
    let read = |text: &String| match (text.split_once('='), args.unset) {
        (None, true) => Ok(Edit { name: text.clone(), value: None }),
        (Some((name, value)), false) if !name.is_empty() => {
            Ok(Edit { name: name.to_owned(), value: Some(value.to_owned()) })
        }
        (_, true) => Err(WrongUsage(format!("{text:?}: --unset takes names without a value"))),
        (_, false) => Err(WrongUsage(format!("{text:?} is not of the form name=value"))),
    };
    args.edits.iter().map(read).collect()
}

fn body(args: &SetArgs, edits: &[Edit]) -> Value {
    let edits: Vec<Value> = edits
        .iter()
        .map(|edit| {
            let mut json = json!({ "name": edit.name, "scope": "all" });
            match &edit.value {
                Some(value) => json["value"] = value.as_str().into(),
                None => json["unset"] = true.into(),
            }
            if let Some(kind) = &args.kind {
                json["type"] = kind.as_str().into();
            }
            json
        })
        .collect();
    let mut body = json!({ "edits": edits });
    if let Some(note) = &args.note {
        body["note"] = note.as_str().into();
    }
    if let Some(revision) = args.if_revision {
        body["if_revision"] = revision.into();
    }
    body
}

fn devices(vars: &Value) -> &[Value] {
    vars["devices"].as_array().map_or(&[], Vec::as_slice)
}

/// Whether no device has anything more to say about the variables.
fn is_settled(vars: &Value, before: &Value, names: &[&str], revision: u64) -> bool {
    let online = devices(vars).iter().filter(|device| device["online"] == true);
    let settled = |device: &Value| {
        names.iter().all(|name| match device["states"][name]["state"].as_str() {
            Some(state) => !["pending", "sent"].contains(&state),
            None => is_reported_anew(device, before, name),
        })
    };
    revision <= vars["revision"].as_u64().unwrap_or_default() && online.into_iter().all(settled)
}

/// Whether the device, if it has the variable, has reported it since `before`.
fn is_reported_anew(device: &Value, before: &Value, name: &str) -> bool {
    let same = |other: &&Value| other["device"] == device["device"];
    let Some(before) = devices(before).iter().find(same) else { return true };
    match (reported(before, name), reported(device, name)) {
        (Some(before), Some(now)) => before["at"] != now["at"],
        (None, _) | (_, None) => true,
    }
}

fn reported<'a>(device: &'a Value, name: &str) -> Option<&'a Value> {
    let reported = device["reported"].as_array()?;
    reported.iter().find(|reported| reported["name"] == name)
}

fn describe(vars: &Value, names: &[&str]) -> Vec<String> {
    let online: Vec<_> = devices(vars).iter().filter(|device| device["online"] == true).collect();
    if online.is_empty() {
        return vec!["no device is online; each gets it when it signs in".to_owned()];
    }
    let line = |device: &Value, name: &str| {
        let who = device["name"].as_str().or(device["device"].as_str()).unwrap_or("?");
        format!("{who}  {name}  {}", state(device, name))
    };
    online.into_iter().flat_map(|device| names.iter().map(move |name| line(device, name))).collect()
}

/// What became of a variable on a device, and what it is there now.
fn state(device: &Value, name: &str) -> String {
    let state = &device["states"][name];
    let mut text = match (state["state"].as_str(), state["ms"].as_u64()) {
        (Some("applied"), Some(ms)) => format!("applied in {ms} ms"),
        (Some("waiting"), _) => "waiting: this device has no such variable".to_owned(),
        (Some("pending" | "sent"), _) => "no receipt yet".to_owned(),
        (Some("no_receipt"), _) => "no receipt".to_owned(),
        (Some("adjusted"), _) => "not applied: the device has another value".to_owned(),
        (Some(state), _) => state.to_owned(),
        (None, _) => "back to the default of the build".to_owned(),
    };
    if let Some(error) = state["error"].as_str() {
        text = format!("{text}: {error}");
    }
    match reported(device, name) {
        Some(reported) => format!("{text}  (is {})", text_of(&reported["value"])),
        None => text,
    }
}

fn wanted(change: &Value) -> String {
    let (name, value) = (text_of(&change["name"]), text_of(&change["value"]));
    format!("{name} = {value} by {}", text_of(&change["actor"]))
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: SetArgs,
    }

    fn args(args: &[&str]) -> SetArgs {
        let args = ["set", "0123456789ab"].iter().chain(args);
        Cli::try_parse_from(args).unwrap_or_else(|error| panic!("{error}")).args
    }

    #[test]
    fn edits_become_one_request() {
        let args = args(&[
            "gravity=3=x",
            "name=",
            "--type",
            "string",
            "--note",
            "why",
            "--if-revision",
            "7",
        ]);
        let edits = read_edits(&args).unwrap();
        let expected = json!({
            "edits": [
                { "name": "gravity", "scope": "all", "type": "string", "value": "3=x" },
                { "name": "name", "scope": "all", "type": "string", "value": "" },
            ],
            "note": "why", "if_revision": 7,
        });
        assert_eq!(body(&args, &edits), expected);
    }

    #[test]
    fn unset_takes_names() {
        let args = args(&["gravity", "--unset"]);
        let edits = read_edits(&args).unwrap();
        let expected = json!({ "edits": [{ "name": "gravity", "scope": "all", "unset": true }] });
        assert_eq!(body(&args, &edits), expected);
    }

    #[test]
    fn what_is_neither_is_wrong_usage() {
        for wrong in [&["gravity"][..], &["=1"], &["gravity=1", "--unset"]] {
            assert!(read_edits(&args(wrong)).is_err(), "{wrong:?}");
        }
    }

    fn vars(state: &Value) -> Value {
        json!({ "revision": 2, "devices": [
            { "device": "s-1", "online": true, "states": { "g": state },
              "reported": [{ "name": "g", "value": "3" }] },
            { "device": "s-2", "online": false, "states": { "g": { "state": "pending" } } },
        ] })
    }

    #[test]
    fn devices_that_are_online_are_waited_for() {
        let settled =
            |state, rev| is_settled(&vars(&json!({ "state": state })), &Value::Null, &["g"], rev);
        assert!(!settled("pending", 2));
        assert!(!settled("applied", 3));
        assert!(settled("applied", 2));
    }

    #[test]
    fn an_unset_variable_is_waited_for_until_it_is_reported_anew() {
        let vars = |at| {
            let reported = json!([{ "name": "g", "value": "1", "at": at }]);
            json!({ "revision": 2, "devices": [
                { "device": "s-1", "online": true, "states": {}, "reported": reported }] })
        };
        assert!(!is_settled(&vars("10:00"), &vars("10:00"), &["g"], 2));
        assert!(is_settled(&vars("10:01"), &vars("10:00"), &["g"], 2));
    }

    #[test]
    fn each_device_says_what_became_of_it() {
        let vars = vars(&json!({ "state": "applied", "ms": 4 }));
        assert_eq!(describe(&vars, &["g"]), ["s-1  g  applied in 4 ms  (is 3)"]);
        let nobody = json!({ "revision": 2, "devices": [] });
        assert_eq!(describe(&nobody, &["g"]).len(), 1);
    }
}
