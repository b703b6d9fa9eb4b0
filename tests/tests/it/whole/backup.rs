//! `observer backup` beside a running server: what was acknowledged before is in the copy, and the
//! copy is started on as it is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use observer_tests::device::{Addresses, Fleet, FleetOptions, Kept, Project};
use observer_tests::game::Game;
use observer_tests::process::program;
use observer_tests::stack::Embedded;
use observer_tests::wait::eventually;
use tokio::time::Instant;

use super::{SOON, items, one_edit};

/// Lines acknowledged before the backup.
const LINES: usize = 300;

/// Runs `observer backup` beside the server in `folder`; gives its words when it succeeded.
async fn back_up(folder: &Path, target: &str) -> Result<String, String> {
    let mut command = Command::new(program("observer"));
    command.args(["backup", target]).current_dir(folder).env("OBSERVER_STORE__DATA_DIR", "data");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let words = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    if output.status.success() { Ok(words) } else { Err(words) }
}

/// The epoch of a project's variables, as a page is told.
async fn epoch(embedded: &mut Embedded, key: &str) -> String {
    let vars = embedded.api().await.vars(key).await.unwrap();
    vars.json["epoch"].as_str().unwrap_or_else(|| panic!("{}", vars.text)).to_owned()
}

#[tokio::test]
async fn a_backup_under_load_has_what_was_acknowledged_before_and_a_new_epoch_once_it_is_started_on()
 {
    let mut embedded = Embedded::start().await;
    let (api, address) = (embedded.api().await, embedded.game_address().await);
    let key = api.new_key().await;
    let options = FleetOptions {
        pace: Some(Duration::from_millis(5)),
        ..FleetOptions::new(&[Project::new(&key)])
    };
    let fleet = Fleet::start(&options, &Addresses::new(&[address]));
    fleet.full_service(Instant::now(), SOON).await;
    let edited = api.edit(&key, &one_edit("speed", "integer", "7")).await.unwrap();
    assert_eq!(edited.status, 200, "{}", edited.text);
    eventually(SOON, "enough lines", async || (LINES <= fleet.acknowledged()).then_some(())).await;

    let before = fleet.kept();
    let words = back_up(embedded.process.folder(), "copy").await.unwrap();
    assert!(words.contains("OBSERVER_STORE__DATA_DIR=copy observer serve"), "{words}");
    let during = fleet.acknowledged() - before.iter().map(Kept::acknowledged).sum::<usize>();
    assert!(during > 0, "the load went on");
    let refused = back_up(embedded.process.folder(), "copy").await.unwrap_err();
    assert!(refused.contains("copy exists"), "{refused}");
    let old_epoch = epoch(&mut embedded, &key).await;
    drop(fleet);
    let data = embedded.process.folder().join("copy").display().to_string();

    let mut restored =
        Embedded::start_with(&["serve"], &[("OBSERVER_STORE__DATA_DIR", &data)]).await;
    let api = restored.api().await;
    assert_eq!(super::stored::wrong(&api, &before).await, Vec::<String>::new());
    let vars = api.vars(&key).await.unwrap();
    assert_eq!(vars.json["revision"], 1, "{}", vars.text);
    let new_epoch = epoch(&mut restored, &key).await;
    assert_ne!(new_epoch, old_epoch);
    Game::sign_in(restored.game_address().await, &key).await.unwrap();
    let first = |folder: &Path| std::fs::read_to_string(folder.join("first-key")).unwrap();
    assert_eq!(first(Path::new(&data)), first(&embedded.process.folder().join("data")));
    assert!(!items(&api, &key, "").await.is_empty());

    restored.process.kill();
    restored.process.restart();
    restored.up().await;
    assert_eq!(epoch(&mut restored, &key).await, new_epoch, "it is an ordinary folder now");
}
