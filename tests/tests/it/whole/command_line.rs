//! The command line against `observer serve`: what a newcomer types in the first minutes.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use observer_tests::process::program;
use observer_tests::stack::Embedded;
use observer_tests::wait::eventually;
use serde_json::Value;

use super::SOON;

/// What `ready.json` says, once it is there.
async fn ready(folder: &Path) -> Value {
    let path = folder.join("data/ready.json");
    eventually(SOON, "ready.json", async || {
        let text = fs::read_to_string(&path).ok()?;
        Some(serde_json::from_str(&text).expect("it is whole whenever it is there"))
    })
    .await
}

/// Runs a command beside the server, as a person in another terminal does.
async fn observer(folder: &Path, args: &[&str], typed: &str) -> Output {
    let mut command = Command::new(program("observer"));
    command.args(args).current_dir(folder).env("OBSERVER_STORE__DATA_DIR", "data");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn words(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[tokio::test]
async fn the_first_minutes_of_a_newcomer_work_as_the_help_says() {
    let mut embedded = Embedded::start_with(&["serve", "--demo"], &[]).await;
    let folder = embedded.process.folder().to_owned();
    let ready = ready(&folder).await;
    let key = ready["key"].as_str().unwrap();
    assert_eq!(ready["page"], format!("{}/#key={key}", ready["api"].as_str().unwrap()));
    let healthy = observer(&folder, &["healthcheck"], "").await;
    assert_eq!(words(&healthy), "ready\n");

    // The games need a moment to sign in.
    let api = embedded.api().await;
    eventually(SOON, "three games are online", async || {
        let vars = api.vars(key).await.ok()?.json;
        let online = vars["devices"].as_array()?.iter().filter(|device| device["online"] == true);
        (online.count() == 3).then_some(())
    })
    .await;
    let set = observer(&folder, &["set", key, "gravity=3.5"], "").await;
    assert!(set.status.success(), "{}", words(&set));
    assert_eq!(words(&set).matches("applied").count(), 3, "{}", words(&set));

    let device = observer(&folder, &["device"], "error oh no\nvar mine 7\n").await;
    assert!(device.status.success(), "{}", words(&device));
    assert_eq!(words(&device).matches("(safe)").count(), 2, "{}", words(&device));
    eventually(SOON, "the typed line is found", async || {
        let logs = api.logs(key, "q=%22oh+no%22&level=error").await.ok()?.json;
        (logs["items"].as_array()?.len() == 1).then_some(())
    })
    .await;

    assert_eq!(embedded.process.terminate(SOON).await, Some(0));
    assert!(!folder.join("data/ready.json").exists(), "a clean end removes it");
}

#[tokio::test]
async fn a_refused_edit_is_told_in_the_words_of_the_api() {
    let mut embedded = Embedded::start().await;
    let folder = embedded.process.folder().to_owned();
    let ready = ready(&folder).await;
    let key = ready["key"].as_str().unwrap();
    let set = observer(&folder, &["set", key, "a=x", "--type", "float"], "").await;
    assert_eq!(set.status.code(), Some(1));
    assert!(words(&set).starts_with("error: expected a number"), "{}", words(&set));
    let set = observer(&folder, &["set", key, "a"], "").await;
    assert_eq!(set.status.code(), Some(2), "{}", words(&set));
    assert_eq!(embedded.process.terminate(SOON).await, Some(0));
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_told_so() {
    let mut embedded = Embedded::start().await;
    let folder = embedded.process.folder().to_owned();
    ready(&folder).await;
    let second = observer(&folder, &["serve"], "").await;
    assert_eq!(second.status.code(), Some(1));
    let words = words(&second);
    assert!(words.contains("another observer works on the folder data"), "{words}");
    assert!(folder.join("data/ready.json").exists(), "the first still runs");
    assert_eq!(embedded.process.terminate(SOON).await, Some(0));
}
