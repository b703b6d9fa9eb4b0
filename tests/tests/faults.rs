//! The faults at full size, one after the other, each with its row for `docs/reliability.md`.

#![cfg(test)] // As in "it".

use std::time::Duration;

#[path = "it/faults/midnight.rs"]
mod midnight;
#[path = "it/faults/poison.rs"]
mod poison;
#[path = "it/faults/published.rs"]
mod published;

use observer_tests::faults::{
    Crowd, Hangs, Outage, RETURN_WITHIN, Rolling, Row, Silence, acknowledgements_are_lost,
    all_are_killed, broken_broker_link, broken_connections, broker_is_full, broker_link_flaps,
    broker_link_is_a_black_hole, crowd_at_twice_the_load, elasticsearch_is_away,
    embedded_is_killed, embedded_is_killed_on_every_transport, embedded_is_terminated,
    gateway_is_killed, half_of_the_items_are_refused, line_without_an_end, log_indexer_is_killed,
    nats_is_killed, nats_stands_still, rolling_restart, servers_are_gone, sliced_network, soak,
    start_with_a_backlog, tiny_lines, unbelievable_answers, var_store_is_killed,
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

#[expect(clippy::print_stdout, reason = "the rows are what this program is run for")]
async fn away(outage: Outage) {
    let drained = elasticsearch_is_away(outage, Duration::from_mins(1)).await;
    println!("{drained}");
    told(&drained.row);
    assert!(3.0 <= drained.ratio(), "{drained}");
}

#[tokio::test]
async fn elasticsearch_stopped_for_a_minute() {
    away(Outage::Stopped).await;
}

#[tokio::test]
async fn elasticsearch_hung_for_a_minute() {
    away(Outage::Hung).await;
}

#[tokio::test]
async fn elasticsearch_with_a_full_disk_for_a_minute() {
    away(Outage::DiskFull).await;
}

#[tokio::test]
async fn half_of_the_items_refused_in_20_storms() {
    told(&half_of_the_items_are_refused(20).await);
}

#[tokio::test]
async fn answers_that_cannot_be_believed_3_times() {
    told(&unbelievable_answers(3, Hangs::Too).await);
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn poison_beside_good_records_in_50_rounds() {
    println!("{}", poison::poison_beside_good_records(50).await);
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn sent_again_over_midnight_with_5_kills() {
    let midnight = midnight::sent_again_over_midnight(10_000, 5).await;
    println!("{midnight}");
    assert_eq!((midnight.lost, midnight.duplicates), (0, 0), "{midnight}");
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

#[tokio::test]
async fn broker_full_5_times() {
    let row = broker_is_full(5).await;
    told(&row);
    assert!(row.full_service < RETURN_WITHIN, "{:?}", row.full_service);
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn a_gigabyte_without_a_newline_and_100_000_tiny_lines() {
    for signed_in in [true, false] {
        let flood = line_without_an_end(1 << 30, signed_in).await;
        println!("{flood}");
        assert!(flood.growth_kib() < 8 * 1024 && flood.sent.1 < 1 << 30, "{flood}");
    }
    let flood = tiny_lines(100_000).await;
    println!("{flood}");
    assert!(flood.growth_kib() < 8 * 1024, "{flood}");
    assert_eq!(flood.answers.get("unknown_line"), Some(&100_000), "{flood}");
}

/// M0 with a byte budget of 128 MiB: the gateway may have 64 MiB, 40 KiB a socket, and the budget.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the figures are what this program is run for")]
async fn a_crowd_of_10_000_at_twice_what_the_store_takes_for_5_minutes() {
    let crowd = crowd_at_twice_the_load(Crowd {
        sockets: 10_000,
        lasts: Duration::from_mins(5),
        store_bytes_s: 256 * 1024,
        record_bytes: 400,
        overload: 2.0,
        budget_bytes: 128 * 1024 * 1024,
    })
    .await;
    println!("{crowd}");
    println!("{:?}", crowd.counts);
    assert!(crowd.answers.contains_key("shed"), "{crowd}");
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

#[cfg(target_os = "linux")]
#[tokio::test]
async fn power_of_a_broker_that_syncs_cut_10_times() {
    told(&observer_tests::faults::nats_power_is_cut(10, true).await);
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the row is what this program is run for")]
async fn power_of_a_broker_that_does_not_sync_cut_loses_what_was_acknowledged() {
    let row = observer_tests::faults::nats_power_is_cut(2, false).await;
    println!("{row}");
    assert!(!row.verdict.lost.is_empty(), "the test above could not fail: {row}");
}

#[cfg(target_os = "linux")]
mod abuse {
    use observer_tests::faults::{
        Abuse, files_run_out, game_does_not_read, noisy_neighbour, slowloris, viewer_does_not_read,
    };

    #[expect(clippy::print_stdout, reason = "the rows are what this program is run for")]
    fn told(row: &Abuse) {
        println!("{row}");
        row.must_hold();
    }

    #[tokio::test]
    async fn a_gateway_with_64_files_and_twice_as_many_games() {
        told(&files_run_out(64).await);
    }

    #[tokio::test]
    async fn slow_sockets_5000() {
        told(&slowloris(5_000).await);
    }

    #[tokio::test]
    async fn a_game_that_does_not_read() {
        told(&game_does_not_read().await);
    }

    #[tokio::test]
    async fn a_viewer_that_does_not_read() {
        told(&viewer_does_not_read().await);
    }

    #[tokio::test]
    async fn a_noisy_neighbour_in_5_rounds() {
        told(&noisy_neighbour(5, 100).await);
    }
}
