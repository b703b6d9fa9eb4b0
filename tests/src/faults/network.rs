//! The network between devices and gateway misbehaves; no process dies, so that all counters are there.

use std::time::Duration;

use super::{Load, Row, random_moment};
use crate::device::below;
use crate::faultproxy::{FaultProxy, Faults, Flow};
use crate::stack::Embedded;

/// Within this time after full service, a fault strikes.
const STRIKES_WITHIN: Duration = Duration::from_millis(500);

/// Bytes after which a connection is cut, at most: within the sign-in, a line, or a later one.
const CUT_BYTES_MAX: usize = 4096;

/// T08: connections are reset, and cut in the middle of a line and of an answer.
///
/// # Panics
///
/// When the devices do not come back to full service.
pub async fn broken_connections(cycles: usize) -> Row {
    let mut rig = Rig::start().await;
    for cycle in 0..cycles {
        let cut = Flow { cut_after: Some(1 + below(CUT_BYTES_MAX) as u64), ..Flow::default() };
        match cycle % 3 {
            0 => {}
            1 => rig.proxy.set(Faults { up: cut, ..Faults::default() }),
            _ => rig.proxy.set(Faults { down: cut, ..Faults::default() }),
        }
        random_moment(STRIKES_WITHIN).await;
        rig.proxy.reset();
        random_moment(STRIKES_WITHIN).await;
        rig.proxy.heal();
        rig.load.healed().await;
    }
    rig.judge("T08 connections reset and cut", cycles).await
}

/// T09: bytes come in pieces of 1 to 7 and at 64 kbit/s, both ways.
///
/// # Panics
///
/// When the devices are not served then.
pub async fn sliced_network(cycles: usize) -> Row {
    let mut rig = Rig::start().await;
    let slow = Flow { sliced: true, bytes_a_second: Some(8_000), ..Flow::default() };
    rig.proxy.set(Faults { up: slow, down: slow, refuses: false });
    for _ in 0..cycles {
        rig.load.healed().await; // Served while it is slow.
    }
    rig.proxy.heal();
    rig.judge("T09 slices of 1-7 bytes, 64 kbit/s", cycles).await
}

/// The embedded form behind a proxy.
struct Rig {
    embedded: Embedded,
    proxy: FaultProxy,
    load: Load,
}

impl Rig {
    async fn start() -> Self {
        let mut embedded = Embedded::start().await;
        let proxy = FaultProxy::start(embedded.game_address().await).await;
        let load = Load::start(&embedded.api().await, &[proxy.address()]).await;
        Self { embedded, proxy, load }
    }

    async fn judge(mut self, name: &'static str, cycles: usize) -> Row {
        let api = self.embedded.api().await;
        let processes = &mut [&mut self.embedded.process];
        let row = self.load.judge_and_count((name, cycles), &api, processes).await;
        let counts = row.counts.expect("they were counted");
        // SQLite answers for every record that it took.
        assert_eq!(counts.stored, (row.verdict.stored + row.verdict.gaps) as u64, "{counts:?}");
        row
    }
}
