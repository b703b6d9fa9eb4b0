//! The contract of the bus, a named test for each clause, held by both adapters.
//!
//! The tests are written once, in [`suite`], [`dead`] and [`hearing`], over an [`rig::Adapter`]; each runs with two handles to
//! one bus, as two processes would have. What only one adapter promises stands in its own module.

#![expect(clippy::disallowed_methods, reason = "tests abort or join what they spawn")]
#![allow(clippy::large_futures, reason = "a test is made once")]

mod dead;
mod hearing;
mod in_process;
mod nats;
mod rig;
mod suite;

use std::time::Duration;

/// Time for one test. It ends a test that would wait for ever.
const TEST_TIMEOUT: Duration = Duration::from_secs(40);

/// Runs each clause with each adapter.
macro_rules! clauses {
    ($($place:ident: { $($name:ident,)* })*) => {
        mod clauses_in_process {
            use super::*;
            $($(#[tokio::test]
            async fn $name() { within($place::$name(rig::Adapter::InProcess)).await; })*)*
        }
        mod clauses_nats {
            use super::*;
            $($(#[tokio::test]
            async fn $name() { within($place::$name(rig::Adapter::Nats)).await; })*)*
        }
    };
}

clauses! {
    suite: {
        published_event_is_delivered_and_its_publisher_told,
        events_of_a_project_come_in_order,
        settled_event_does_not_come_again,
        event_dropped_unsettled_comes_again,
        retried_event_comes_again_after_its_delay_and_holds_back_no_other_project,
        buried_event_is_kept_with_its_reason_and_does_not_come_again,
        part_of_an_event_is_buried_while_the_event_stays_unsettled,
        same_id_twice_is_one_event,
        same_id_in_another_stream_is_another_event,
        wrong_expectation_is_refused_with_the_last_sequence,
        only_edits_are_published_with_an_expectation,
        accepted_edit_sent_again_is_the_same_edit,
        of_two_edits_with_one_expectation_one_is_taken,
        project_that_fills_its_share_is_refused_and_no_other,
        full_stream_refuses_everybody_until_there_is_room,
        fullness_is_what_waits_of_the_project_or_of_all,
        fullness_of_vars_is_what_var_store_has_not_consumed,
        payload_at_the_limit_passes_and_one_byte_more_does_not,
        two_consumers_share_the_work,
        consumer_that_stops_waiting_loses_nothing,
        further_deliveries_are_taken_without_waiting,
    }
    dead: {
        dead_letters_are_listed_by_project_a_page_at_a_time,
        dead_letter_says_what_it_is_and_is_shown_to_its_project_alone,
        replayed_letter_is_delivered_again_and_is_gone,
        dropped_letter_is_gone_and_leaves_the_others,
        buried_edit_is_not_replayed,
        when_there_is_no_room_among_the_dead_the_event_comes_again,
        backlog_is_what_waits_delivered_or_not,
    }
    hearing: {
        live_listener_hears_each_event_of_its_project_once,
        live_listeners_in_two_processes_hear_the_same,
        resumed_listener_hears_exactly_what_it_missed,
        listener_that_resumes_while_events_arrive_misses_and_repeats_nothing,
        cursor_from_elsewhere_resets,
        cursor_older_than_what_is_kept_resets,
        slow_listener_is_told_that_it_lost_events,
        accepted_edits_reach_listeners_in_two_processes,
        broadcast_reaches_all_who_listen_to_its_topic,
        edits_are_not_broadcast,
        request_is_answered_by_another_process,
        request_that_nobody_serves_says_so,
        request_whose_reply_is_dropped_times_out,
        bus_says_that_it_can_be_used,
    }
}

async fn within(test: impl Future<Output = ()>) {
    tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test ends in time");
}
