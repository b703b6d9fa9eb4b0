//! The faults at full size, one after the other, each with its row for `docs/reliability.md`.

#![cfg(test)] // As in "it".

use std::time::Duration;

use observer_tests::faults::{
    RETURN_WITHIN, Rolling, Row, Silence, acknowledgements_are_lost, all_are_killed,
    broken_broker_link, broken_connections, broker_link_flaps, broker_link_is_a_black_hole,
    embedded_is_killed, embedded_is_killed_on_every_transport, embedded_is_terminated,
    gateway_is_killed, log_indexer_is_killed, nats_is_killed, nats_stands_still, rolling_restart,
    servers_are_gone, sliced_network, soak, start_with_a_backlog, var_store_is_killed,
};

#[expect(clippy::print_stdout, reason = "the rows are what this program is run for")]
fn told(row: &Row) {
    println!("{row} {:?}", row.answers);
    println!("slowest answer {:?}, {:?}", row.slowest_answer, row.counts);
    row.must_hold();
}

#[tokio::test]
async fn embedded_form_killed_50_times() {
    told(&embedded_is_killed(50).await);
}

#[tokio::test]
async fn embedded_form_killed_50_times_on_every_transport() {
    told(&embedded_is_killed_on_every_transport(50).await);
}

#[tokio::test]
async fn gateway_killed_50_times() {
    told(&gateway_is_killed(50).await);
}

#[tokio::test]
async fn nats_killed_30_times() {
    told(&nats_is_killed(30).await);
}

#[tokio::test]
async fn log_indexer_killed_50_times() {
    told(&log_indexer_is_killed(50).await);
}

#[tokio::test]
async fn var_store_killed_50_times() {
    told(&var_store_is_killed(50).await);
}

#[tokio::test]
async fn all_services_and_nats_killed_50_times() {
    told(&all_are_killed(50).await);
}

#[tokio::test]
async fn nats_stands_still_for_20_seconds_3_times() {
    in_time(&nats_stands_still(3, Duration::from_secs(20)).await);
}

#[tokio::test]
async fn broker_in_a_black_hole_for_20_seconds_3_times() {
    in_time(&broker_link_is_a_black_hole(3, Duration::from_secs(20)).await);
}

/// Every line is answered within 8 s, and the gateway says within 15 s what is wrong.
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
fn in_time(silence: &Silence) {
    told(&silence.row);
    println!("noticed after {:?}", silence.noticed);
    let slowest = silence.row.slowest_answer;
    assert!(slowest < Duration::from_secs(8), "{slowest:?}");
    assert!(silence.noticed.is_some_and(|noticed| noticed < Duration::from_secs(15)));
}

#[tokio::test]
async fn acknowledgements_lost_for_4_seconds_12_times() {
    told(&acknowledgements_are_lost(12).await);
}

#[tokio::test]
async fn network_to_the_broker_flaps_for_a_minute() {
    told(&broker_link_flaps(30).await);
}

#[tokio::test]
async fn gateways_cut_off_from_the_broker_100_times() {
    told(&broken_broker_link(100).await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn acknowledgements_time_out_for_10_minutes() {
    let storm = observer_tests::faults::acknowledgements_time_out(Duration::from_mins(10)).await;
    told(&storm.row);
    println!("resident {} KiB, then {} KiB", storm.before_kib, storm.after_kib);
    assert!(storm.after_kib < storm.before_kib + 10 * 1024, "{storm:?}");
}

#[tokio::test]
async fn connections_reset_and_cut_100_times() {
    told(&broken_connections(100).await);
}

#[tokio::test]
async fn slices_of_a_few_bytes() {
    told(&sliced_network(20).await);
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn gateways_restarted_in_turn_10_rounds() {
    let Rolling { row, burst_percent } = rolling_restart(10, 100).await;
    told(&row);
    println!("{burst_percent} % came back in one second");
    assert!(burst_percent <= 20);
    assert_eq!(row.answered("timeout"), 0, "{:?}", row.answers);
}

#[tokio::test]
async fn embedded_form_told_to_end_20_times() {
    told(&embedded_is_terminated(20).await);
}

#[tokio::test]
async fn each_server_and_all_of_them_gone_5_times() {
    let row = servers_are_gone(5).await;
    told(&row);
    assert!(row.full_service < RETURN_WITHIN, "{:?}", row.full_service);
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn start_with_100_000_records_waiting() {
    let start = start_with_a_backlog(1_000).await;
    println!("{start:?}");
    assert!(start.ready < Duration::from_secs(20), "{start:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn power_cut_at_100_moments() {
    let (mut disks, mut acknowledged) = (0, 0);
    for _ in 0..10 {
        let cuts = observer_tests::faults::power_is_cut(150, 10).await;
        assert!(cuts.lost.is_empty(), "{cuts:#?}");
        disks += cuts.disks;
        acknowledged += cuts.acknowledged;
    }
    println!("power cut: {disks} disks, {acknowledged} lines acknowledged, lost 0");
}

/// Two hours are asked of a release; this is the part of it that fits into a run of all faults.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn soak_of_15_minutes() {
    let soak = soak(Duration::from_mins(15), 200).await;
    told(&soak.row);
    println!("{} came and went, {:?}", soak.came_and_went, soak.counts);
    for held in &soak.held {
        let (rss, files) = (held.growth(), held.files_growth());
        let last = held.rss_kib.last().copied().unwrap_or_default();
        println!("{}: {last:.0} KiB, memory x {rss:.3}, files x {files:.3}", held.program);
        assert!(rss < 1.05 && files < 1.05, "{held:?}");
    }
}

/// Needs root, for mounts.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn power_of_a_broker_that_syncs_cut_20_times() {
    use observer_tests::faults::{Syncs, power_of_the_broker_is_cut};
    told(&power_of_the_broker_is_cut(20, Syncs::Always).await);
}

/// Needs root, for mounts. The test above could fail.
#[cfg(target_os = "linux")]
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn power_of_a_broker_that_does_not_sync_cut_3_times() {
    use observer_tests::faults::{Syncs, power_of_the_broker_is_cut};
    let row = power_of_the_broker_is_cut(3, Syncs::Seldom).await;
    println!("{row}");
    assert!(!row.verdict.lost.is_empty());
}
