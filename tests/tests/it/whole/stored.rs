//! What devices were told, against what is found.

use std::collections::BTreeMap;

use observer_tests::device::{Fate, Kept};
use observer_tests::http::Api;

use super::items;

/// Lines that were acknowledged and are not found, or are found twice.
pub(crate) async fn wrong(api: &Api, kept: &[Kept]) -> Vec<String> {
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for item in items(api, &kept[0].key, "").await {
        *found.entry(item["message"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(found.iter().filter(|(_, count)| **count > 1).map(|(line, _)| line.clone()));
    for one in kept {
        for (line, fate) in one.lines().iter().enumerate() {
            let records = one.records(line);
            let texts = records.iter().map(|record| record["message"].as_str().unwrap_or_default());
            let missing = texts.filter(|text| !found.contains_key(*text));
            if *fate == Fate::Acknowledged {
                wrong.extend(missing.map(|text| format!("lost: {text}")));
            }
        }
    }
    wrong
}
