//! T17: the disk of the embedded form is full. Games are told `busy`, reads go on, and once there is
//! room it goes on by itself; what was acknowledged is there, once.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use observer_tests::device::{Addresses, Fleet, FleetOptions, Project};
use observer_tests::game::{Game, LINE_WITHIN};
use observer_tests::http::Api;
use observer_tests::stack::Embedded;
use observer_tests::wait::eventually;
use serde_json::json;
use tokio::time::Instant;

use super::stored::wrong;
use super::{one_edit, receipts};

/// Size of the disk: what an empty data folder takes, and some room.
const DISK: &str = "24m";

/// Mounts a small disk of its own at `data`, seen by nobody else and gone with the process.
const ON_A_SMALL_DISK: &str = "mkdir data && mount -t tmpfs -o size=$0 tmpfs data && exec \"$@\"";

/// Time for a full disk to show: the last rooms in the databases are used first.
const FULL_WITHIN: Duration = Duration::from_secs(40);

/// Time for full service once there is room.
const WELL_WITHIN: Duration = Duration::from_secs(20);

/// `observer serve` on a small disk.
struct Small {
    embedded: Embedded,
    /// Its data folder, as others may reach it.
    data: PathBuf,
}

impl Small {
    async fn start(settings: &[(&str, &str)]) -> Self {
        let under = ["unshare", "-rm", "sh", "-c", ON_A_SMALL_DISK, DISK];
        let mut embedded = Embedded::start_under(&under, &["serve"], settings).await;
        eventually(WELL_WITHIN, "it is ready", async || ready(&mut embedded).await.ok()).await;
        let data = PathBuf::from(format!("/proc/{}/cwd/data", embedded.process.pid()));
        Self { embedded, data }
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.data.join("filler")).unwrap();
        for size in [1 << 20, 4_096, 1] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.data.join("filler")).unwrap();
    }
}

/// What `/readyz` says is wrong.
async fn ready(embedded: &mut Embedded) -> Result<(), String> {
    let admin = Api::new(embedded.process.address("admin").await);
    let answer = admin.get("/readyz").await.map_err(|error| error.to_string())?;
    if answer.status == 200 { Ok(()) } else { Err(answer.text) }
}

#[tokio::test]
async fn a_full_disk_is_told_as_busy_and_survived_without_a_loss() {
    let mut small = Small::start(&[]).await;
    let (api, address) = (small.embedded.api().await, small.embedded.game_address().await);
    let key = api.new_key().await;
    let options = FleetOptions {
        pace: Some(Duration::from_millis(20)),
        ..FleetOptions::new(&[Project::new(&key)])
    };
    let fleet = Fleet::start(&options, &Addresses::new(&[address]));
    let mut tuned = Game::sign_in(address, &key).await.unwrap();
    tuned.var("speed", "integer", "1").await.unwrap();
    fleet.full_service(Instant::now(), WELL_WITHIN).await;

    small.fill();
    eventually(FULL_WITHIN, "every device was told busy", async || {
        fleet.each(|kept| kept.answered("busy")).iter().all(|busy| *busy > 0).then_some(())
    })
    .await;
    let told =
        eventually(WELL_WITHIN, "it is not ready", async || ready(&mut small.embedded).await.err())
            .await;
    assert!(told.contains("disk is full"), "{told}");
    let acknowledged = fleet.kept();
    assert!(wrong(&api, &acknowledged).await.is_empty(), "reads go on");
    assert!(receipts(&api, &key, "speed").await.iter().any(|(value, _)| value == "1"));
    let edited = api.edit(&key, &one_edit("speed", "integer", "2")).await.unwrap();
    let committed = edited.status == 200;

    small.make_room();
    let room = Instant::now();
    let seconds = fleet.full_service(room, WELL_WITHIN).await;
    eventually(WELL_WITHIN, "it is ready", async || ready(&mut small.embedded).await.ok()).await;
    let kept = fleet.settle(WELL_WITHIN).await;
    assert!(
        wrong(&api, &kept).await.is_empty(),
        "after {seconds:?}: {:?}",
        wrong(&api, &kept).await
    );
    assert!(kept.iter().all(|one| one.unknown().is_empty()));

    if !committed {
        let edited = api.edit(&key, &one_edit("speed", "integer", "2")).await.unwrap();
        assert_eq!(edited.status, 200, "{}", edited.text);
    }
    let wanted = json!([{ "name": "speed", "type": "integer", "value": "2" }]);
    assert_eq!(tuned.callback(LINE_WITHIN).await.unwrap(), wanted);
    tuned.var("speed", "integer", "2").await.unwrap();
    eventually(WELL_WITHIN, "the receipt is stored", async || {
        let receipts = receipts(&api, &key, "speed").await;
        receipts.iter().any(|(_, state)| state == "applied").then_some(())
    })
    .await;
    assert_eq!(small.embedded.process.terminate(WELL_WITHIN).await, Some(0));
}
