//! The contract of the variables' store, a named test for each clause, held by every adapter.
//!
//! The tests are written once, in [`suite`], over a [`Rig`]; each has a project of its own, so that
//! they share a server. What only one adapter promises stands in its own module.

mod redis;
mod suite;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use observer_store::{StoreConfig, VarStore, connect_vars};

/// Time for one test. It ends a test that would wait for ever.
const TEST_TIMEOUT: Duration = Duration::from_secs(40);

/// One store, as two processes see it; for an adapter of one process both are the same.
struct Rig {
    one: Arc<dyn VarStore>,
    other: Arc<dyn VarStore>,
    /// What must live as long: a server, a folder.
    _world: Box<dyn Any + Send + Sync>,
}

/// A store in a folder of its own. SQLite is of one process.
async fn sqlite_rig() -> Rig {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { data_dir: folder.path().into(), ..StoreConfig::default() };
    let store = connect_vars(&config).await.unwrap();
    Rig { one: Arc::clone(&store), other: store, _world: Box::new(folder) }
}

/// Runs each clause with each adapter.
macro_rules! clauses {
    ($($name:ident,)*) => {
        mod clauses_redis {
            use super::*;
            $(#[tokio::test] async fn $name() {
                within(async { suite::$name(&redis::rig().await).await }).await;
            })*
        }
        mod clauses_sqlite {
            use super::*;
            $(#[tokio::test] async fn $name() {
                within(async { suite::$name(&sqlite_rig().await).await }).await;
            })*
        }
    };
}

clauses! {
    new_project_has_an_empty_document,
    edits_are_applied_in_order_and_each_once,
    edit_behind_a_hole_says_after_which_one_the_hole_is,
    unset_removes_the_wanted_value,
    stored_document_is_what_the_edits_make_in_memory,
    later_edit_of_another_epoch_is_applied_whatever_its_revision,
    edit_applied_by_two_at_once_is_applied_once,
    value_is_replaced_only_by_a_newer_one,
    stamps_too_great_for_a_double_are_compared_exactly,
    values_of_one_line_are_taken_in_their_order,
    line_delivered_again_changes_nothing,
    reports_from_two_connections_end_with_the_newest,
    first_mark_of_a_revision_stays,
    value_keeps_every_field,
    reset_forgets_what_it_does_not_name,
    line_older_than_a_reset_brings_nothing_back,
    withdrawn_value_is_gone_from_the_device_and_the_last_values,
    line_older_than_a_withdrawal_brings_nothing_back,
    values_up_to_the_limit_are_taken_and_one_more_is_counted,
    value_at_the_limit_still_changes,
    values_reported_before_the_sign_in_are_there_after_it,
    newest_sign_in_describes_the_device,
    what_a_device_says_about_itself_last_stands,
    how_a_device_went_is_kept,
    sessions_of_a_device_that_live_are_entries_of_their_own,
    older_sign_in_does_not_replace_a_newer_one,
    sign_out_ends_only_its_own_sign_in,
    sign_in_delivered_again_after_its_end_stays_gone,
    sign_in_that_comes_after_its_end_stays_gone,
    unnamed_gone_devices_are_kept_up_to_the_limit,
    of_unnamed_gone_devices_past_the_limit_the_longest_gone_go,
    named_gone_devices_are_not_among_them,
    devices_that_leave_all_at_once_are_trimmed_all_the_same,
    past_the_devices_limit_the_longest_gone_goes,
    past_the_devices_limit_of_online_devices_the_new_one_stays,
    pages_hold_each_device_once_in_the_order_of_ids,
    devices_by_id_leave_out_unknown_ones,
    types_are_those_last_declared,
    last_values_are_of_whoever_reported_last,
    odd_names_stay_what_they_are,
    odd_devices_stay_what_they_are,
    projects_never_mix,
    store_says_that_it_can_be_used,
}

async fn within(test: impl Future<Output = ()>) {
    tokio::time::timeout(TEST_TIMEOUT, test).await.expect("the test ends in time");
}
