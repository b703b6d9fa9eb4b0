use proptest::prelude::*;

use super::*;

fn verdict(item: &str) -> Verdict {
    let item = item.replacen('{', r#"{"_id":"r1","#, 1);
    let answer = format!(r#"{{"items":[{{"create":{item}}}]}}"#);
    read_stored(&answer, &["r1"]).unwrap().remove(0)
}

fn later(item: &str) {
    assert_eq!(verdict(item), Verdict::Later, "{item}");
}

#[test]
fn each_item_is_settled_by_its_own_status() {
    assert_eq!(verdict(r#"{"status":201}"#), Verdict::New);
    assert_eq!(
        verdict(
            r#"{"status":409,"error":{"type":"version_conflict_engine_exception","reason":"[r1]:
                version conflict, document already exists (current version [1])"}}"#
                .replace('\n', " ")
                .as_str()
        ),
        Verdict::Duplicate
    );
    assert_eq!(
        verdict(
            r#"{"status":404,"error":{"type":"index_not_found_exception","reason":"no such index"}}"#
        ),
        Verdict::NoIndex
    );
}

#[test]
fn what_is_the_servers_fault_is_sent_again_later() {
    later(
        r#"{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of coordinating operation"}}"#,
    );
    later(
        r#"{"status":403,"error":{"type":"cluster_block_exception","reason":"index [x] blocked by: [FORBIDDEN/8/index write (api)];"}}"#,
    );
    later(
        r#"{"status":503,"error":{"type":"unavailable_shards_exception","reason":"primary shard is not active"}}"#,
    );
    later(r#"{"status":400,"error":{"type":"index_closed_exception","reason":"closed"}}"#);
    later(
        r#"{"status":400,"error":{"type":"validation_exception","reason":"Validation Failed: 1: this action would add [1] shards, but this cluster currently has [1000]/[1000] maximum normal shards open;"}}"#,
    );
    later(r#"{"status":500}"#);
    later(r#"{"status":401}"#);
    later(r#"{"status":302}"#);
}

#[test]
fn what_is_the_documents_fault_is_refused_with_the_reason() {
    assert_eq!(
        verdict(
            r#"{"status":400,"error":{"type":"document_parsing_exception","reason":"[1:60] failed to parse: field name cannot be an empty string"}}"#
        ),
        Verdict::Refused(
            "document_parsing_exception: [1:60] failed to parse: field name cannot be an empty string"
                .to_owned()
        )
    );
    let long = "é".repeat(REASON_BYTES_MAX);
    let Verdict::Refused(words) = verdict(&format!(
        r#"{{"status":400,"error":{{"type":"mapper_parsing_exception","reason":"{long}"}}}}"#
    )) else {
        panic!("not refused");
    };
    assert!(words.len() < REASON_BYTES_MAX + 64);
}

#[test]
fn of_an_answer_that_cannot_be_read_nothing_is_believed() {
    let whole =
        r#"{"items":[{"create":{"_id":"a","status":201}},{"create":{"_id":"b","status":409}}]}"#;
    assert_eq!(read_stored(whole, &["a", "b"]).unwrap(), [Verdict::New, Verdict::Duplicate]);
    for (text, ids) in [
        (whole, &["a"][..]),
        (whole, &["a", "b", "c"]),
        (whole, &["a", "c"]),
        (whole, &["a", "a"]),
        (&whole[..40], &["a", "b"]),
        ("", &["a"]),
        ("{}", &["a"]),
        ("<html>bad gateway</html>", &["a"]),
        (r#"{"items":[]}"#, &["a"]),
        (r#"{"items":{}}"#, &["a"]),
        (r#"{"items":[{"create":{"status":201}}]}"#, &["a"]),
        (r#"{"items":[{"index":{"_id":"a","status":201}}]}"#, &["a"]),
        (r#"{"items":[{"create":{"_id":"a","status":"201"}}]}"#, &["a"]),
        (r#"{"items":[{"create":{"_id":"a"}}]}"#, &["a"]),
    ] {
        assert!(read_stored(text, ids).is_err(), "{text} {ids:?}");
    }
}

#[test]
fn an_id_that_was_sent_twice_has_two_items_in_their_order() {
    let said = |first: u16, second: u16| {
        let item = |status| format!(r#"{{"create":{{"_id":"a","status":{status}}}}}"#);
        let answer = format!(
            r#"{{"items":[{{"create":{{"_id":"b","status":429}}}},{},{}]}}"#,
            item(first),
            item(second)
        );
        read_stored(&answer, &["a", "b", "a"]).unwrap()
    };
    assert_eq!(said(201, 409), [Verdict::New, Verdict::Later, Verdict::Duplicate]);
    assert_eq!(said(409, 201), [Verdict::Duplicate, Verdict::Later, Verdict::New]);
}

#[test]
fn a_record_of_another_day_is_there_or_not_or_that_is_unknown() {
    let text = r#"{"docs":[{"_id":"a","found":true},{"_id":"b","found":false},
        {"_id":"c","error":{"type":"index_not_found_exception","reason":"no such index [x]"}},
        {"_id":"d","error":{"type":"no_shard_available_action_exception","reason":null}}]}"#;
    let ids = ["d", "c", "b", "a"];
    let there = read_there(text, &ids).unwrap();
    assert_eq!(there, [None, Some(false), Some(false), Some(true)]);
    assert!(read_there(text, &ids[..3]).is_err());
    assert!(read_there(text, &["a", "b", "c", "d", "e"]).is_err());
}

proptest! {
    /// Whatever the order of an answer, each document has the verdict of its own item.
    #[test]
    fn the_order_of_items_does_not_matter(
        statuses in proptest::collection::vec(prop_oneof![Just(201), Just(409), Just(429)], 1..40)
            .prop_flat_map(|statuses| {
                let order: Vec<usize> = (0..statuses.len()).collect();
                (Just(statuses), Just(order).prop_shuffle())
            }),
    ) {
        let (statuses, order) = statuses;
        let ids: Vec<String> = (0..statuses.len()).map(|n| format!("r{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let item = |at: &usize| {
            format!(r#"{{"create":{{"_id":"r{at}","status":{}}}}}"#, statuses[*at])
        };
        let items: Vec<String> = order.iter().map(item).collect();
        let answer = format!(r#"{{"items":[{}]}}"#, items.join(","));
        let verdicts = read_stored(&answer, &ids).unwrap();
        for (verdict, status) in verdicts.iter().zip(statuses) {
            let expected = match status {
                201 => Verdict::New,
                409 => Verdict::Duplicate,
                _ => Verdict::Later,
            };
            prop_assert_eq!(verdict, &expected);
        }
    }
}
