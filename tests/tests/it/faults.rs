//! What was acknowledged survives faults under load, in few cycles. At full size: `make test-faults`.

use std::time::Duration;

use observer_tests::faults::{
    Hangs, acknowledgement_pending_at_the_end, acknowledgements_are_lost, all_are_killed,
    broken_broker_link, broken_connections, broker_is_full, broker_link_flaps,
    broker_link_is_a_black_hole, embedded_is_killed, embedded_is_killed_on_every_transport,
    embedded_is_terminated, gateway_is_killed, half_a_line_at_the_end,
    half_of_the_items_are_refused, line_without_an_end, log_indexer_is_killed, nats_is_killed,
    nats_stands_still, rolling_restart, servers_are_gone, sliced_network, soak,
    start_with_a_backlog, tiny_lines, unbelievable_answers, var_store_is_killed,
};

mod midnight;
mod poison;
mod published;

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_embedded_form_is_killed() {
    embedded_is_killed(2).await.must_hold();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_lines_come_again_on_another_transport() {
    embedded_is_killed_on_every_transport(2).await.must_hold();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_a_gateway_is_killed() {
    gateway_is_killed(2).await.must_hold();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_nats_is_killed() {
    nats_is_killed(1).await.must_hold();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_log_indexer_is_killed() {
    log_indexer_is_killed(2).await.must_hold();
}

#[tokio::test]
async fn no_report_and_no_edit_is_lost_when_var_store_is_killed() {
    var_store_is_killed(2).await.must_hold();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_all_services_and_nats_are_killed_at_once() {
    all_are_killed(2).await.must_hold();
}

#[tokio::test]
async fn nothing_is_acknowledged_while_nats_stands_still_and_nothing_lost() {
    let row = nats_stands_still(1, Duration::from_secs(9)).await.row;
    row.must_hold();
    assert!(row.answered("timeout") + row.answered("busy") > 0, "{:?}", row.answers);
}

#[tokio::test]
async fn nothing_is_acknowledged_in_a_black_hole_and_its_gateway_says_so() {
    let silence = broker_link_is_a_black_hole(1, Duration::from_secs(20)).await;
    silence.row.must_hold();
    assert!(silence.row.answered("timeout") + silence.row.answered("busy") > 0);
    assert!(silence.noticed.is_some());
}

#[tokio::test]
async fn lines_whose_acknowledgement_is_lost_are_stored_once() {
    acknowledgements_are_lost(2).await.must_hold();
}

#[tokio::test]
async fn nothing_is_lost_nor_left_over_when_the_network_to_the_broker_flaps() {
    broker_link_flaps(3).await.must_hold();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_gateways_are_cut_off_from_the_broker() {
    broken_broker_link(3).await.must_hold();
}

#[tokio::test]
async fn a_line_whose_acknowledgement_is_pending_at_the_end_is_answered() {
    let line = acknowledgement_pending_at_the_end(true).await;
    let accepted = line.answers.iter().any(|answer| answer == "OK pending");
    let unknown = line.answers.iter().any(|answer| answer.starts_with("ERR timeout pending "));
    assert!(accepted != unknown, "one answer: {line:?}");
    assert!(line.stored == 1 || unknown && line.stored == 0, "{line:?}");
    let last = line.answers.last().expect("not closed without a word");
    assert!(last.starts_with("ERR draining "), "{line:?}");
    assert_eq!(line.code, Some(0));
}

#[tokio::test]
async fn a_line_that_the_broker_never_acknowledges_is_answered_at_the_end_as_unknown() {
    let line = acknowledgement_pending_at_the_end(false).await;
    let [answer, last] = &line.answers[..] else { panic!("{line:?}") };
    assert!(answer.starts_with("ERR timeout pending "), "{line:?}");
    assert!(last.starts_with("ERR draining "), "{line:?}");
    assert!(line.code == Some(0) && line.stored <= 1, "{line:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_storm_of_unanswered_publishes_costs_no_memory() {
    let storm = observer_tests::faults::acknowledgements_time_out(Duration::from_secs(25)).await;
    storm.row.must_hold();
    assert!(storm.after_kib < storm.before_kib + 10 * 1024, "{storm:?}");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_connections_are_reset_and_cut() {
    broken_connections(3).await.must_hold();
}

#[tokio::test]
async fn lines_in_slices_of_a_few_bytes_are_read_right() {
    sliced_network(2).await.must_hold();
}

#[tokio::test]
async fn gateways_are_restarted_in_turn_without_a_timeout() {
    let row = rolling_restart(1, 8).await.row;
    row.must_hold();
    assert_eq!(row.answered("timeout"), 0, "{:?}", row.answers);
}

#[tokio::test]
async fn half_a_line_at_the_end_is_refused_and_not_stored() {
    let half = half_a_line_at_the_end(false).await;
    assert_eq!((half.code, half.stored), (Some(0), 0));
    let [answer] = &half.answers[..] else { panic!("{half:?}") };
    assert!(answer.starts_with("ERR draining "), "{answer}");
}

#[tokio::test]
async fn a_line_that_becomes_whole_at_the_end_is_stored_or_refused() {
    let half = half_a_line_at_the_end(true).await;
    let accepted = half.answers.iter().any(|answer| answer == "OK half");
    assert_eq!((half.code, half.stored), (Some(0), usize::from(accepted)), "{half:?}");
    let last = half.answers.last().expect("not closed without a word");
    assert!(last.starts_with("ERR draining "), "{last}");
}

#[tokio::test]
async fn nothing_in_flight_is_lost_when_the_embedded_form_is_told_to_end() {
    let row = embedded_is_terminated(2).await;
    row.must_hold();
    assert_eq!(row.answered("timeout"), 0, "{:?}", row.answers);
}

#[tokio::test]
async fn a_full_broker_is_busy_debug_goes_first_and_nothing_acknowledged_is_lost() {
    broker_is_full(1).await.must_hold();
}

/// What the longest line may take in the process, in KiB: its own buffer as it grows, the shared one it
/// is read into, and what an allocator keeps.
const LONGEST_LINE_KIB: u64 = 8 * 1024;

#[tokio::test]
async fn a_line_without_an_end_is_told_so_closed_and_never_kept() {
    for signed_in in [true, false] {
        let flood = line_without_an_end(256 * 1024 * 1024, signed_in).await;
        assert!(flood.growth_kib() < LONGEST_LINE_KIB, "{flood}");
        // The reset that follows may take the words back.
        assert!(flood.answers.keys().all(|code| code == "line_too_long"), "{flood}");
        assert!(flood.sent.1 < flood.sent.0, "{flood}");
    }
}

#[tokio::test]
async fn tiny_lines_are_answered_one_by_one() {
    let flood = tiny_lines(20_000).await;
    assert_eq!(flood.answers, [("unknown_line".to_owned(), 20_000)].into(), "{flood}");
    assert!(flood.growth_kib() < LONGEST_LINE_KIB, "{flood}");
}

#[tokio::test]
async fn games_that_come_and_go_leave_nothing_behind() {
    let soak = soak(Duration::from_secs(6), 20).await;
    soak.row.must_hold();
    assert!(soak.came_and_went > 40, "more than may be left open: {}", soak.came_and_went);
}

#[tokio::test]
async fn servers_may_go_and_come_back_at_any_time_also_at_the_start() {
    servers_are_gone(1).await.must_hold();
}

#[tokio::test]
async fn only_refused_items_are_sent_again_when_elasticsearch_asks_for_less() {
    half_of_the_items_are_refused(1).await.must_hold();
}

#[tokio::test]
async fn nothing_is_lost_or_stored_twice_by_answers_that_cannot_be_believed() {
    unbelievable_answers(1, Hangs::Not).await.must_hold();
}

#[tokio::test]
async fn poison_costs_no_neighbour_and_is_stored_or_buried_with_its_reason() {
    let told = poison::poison_beside_good_records(1).await;
    assert!(0 < told.buried, "{told}");
}

#[tokio::test]
async fn a_line_that_was_sent_again_over_midnight_is_stored_once() {
    let told = midnight::sent_again_over_midnight(60, 0).await;
    assert_eq!((told.stored, told.lost, told.duplicates), (600, 0, 0), "{told}");
}

#[tokio::test]
async fn a_start_with_a_backlog_makes_progress() {
    start_with_a_backlog(50).await;
}

#[cfg(target_os = "linux")]
mod power_cut {
    use observer_tests::faults::{power_is_cut, power_is_cut_on_a_lying_disk};

    #[tokio::test]
    async fn a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged() {
        let cuts = power_is_cut(60, 4).await;
        assert!(cuts.lost.is_empty(), "{cuts:#?}");
    }

    #[tokio::test]
    async fn a_disk_that_does_not_sync_commits_loses_what_was_acknowledged() {
        // What was folded into the database in between is safe there too.
        let cuts = power_is_cut_on_a_lying_disk(30, 4).await;
        assert!(!cuts.lost.is_empty(), "the test above could not fail: {cuts:#?}");
    }
}
