//! Servers that stand still (`SIGSTOP`) while devices send: sockets stay open, nothing answers.

use std::time::Duration;

use tokio::time::sleep;

use super::killed::{gateway_addresses, small_cluster};
use super::{Load, Row};

/// Time for answers that were under way when the broker stopped to reach their devices.
const ANSWERS_ARRIVE_WITHIN: Duration = Duration::from_secs(2);

/// T05: nats-server stands still for a time, and goes on.
///
/// # Panics
///
/// When a line is acknowledged meanwhile, or the devices do not come back to full service.
pub async fn nats_stands_still(cycles: usize, stands_still: Duration) -> Row {
    let mut cluster = small_cluster().await;
    let api = cluster.api().await;
    let addresses = gateway_addresses(&mut cluster).await;
    let mut load = Load::start(&api, &addresses).await;
    for _ in 0..cycles {
        cluster.nats.stop();
        sleep(ANSWERS_ARRIVE_WITHIN).await;
        let acknowledged = load.fleet.acknowledged();
        sleep(stands_still.saturating_sub(ANSWERS_ARRIVE_WITHIN)).await;
        assert_eq!(load.fleet.acknowledged(), acknowledged, "acknowledged without the broker");
        cluster.nats.cont();
        load.healed().await;
    }
    load.judge("T05 nats-server SIGSTOP", cycles, &api).await
}
