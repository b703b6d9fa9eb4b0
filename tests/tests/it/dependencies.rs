//! Who may use whom: the table of ARCHITECTURE.md, held against the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Our crates, and which of our crates each may use.
const OURS: &[(&str, &[&str])] = &[
    ("observer-wire", &[]),
    ("observer-chassis", &[]),
    ("observer-bus", &["observer-wire", "observer-chassis"]),
    ("observer-store", &["observer-wire", "observer-chassis"]),
    ("observer-gateway", &["observer-wire", "observer-chassis", "observer-bus"]),
    ("observer-log-indexer", SHARED),
    ("observer-var-store", SHARED),
    ("observer-api", SHARED),
    (
        "observer",
        &[
            "observer-wire",
            "observer-chassis",
            "observer-bus",
            "observer-store",
            "observer-gateway",
            "observer-log-indexer",
            "observer-var-store",
            "observer-api",
        ],
    ),
];

const SHARED: &[&str] = &["observer-wire", "observer-chassis", "observer-bus", "observer-store"];

/// Libraries that belong to one place, and the crates that may use them.
const CONFINED: &[(&str, &[&str])] = &[
    ("async-nats", &["observer-bus"]),
    ("redis", &["observer-store"]),
    ("elasticsearch", &["observer-store"]),
    ("rusqlite", &["observer-store"]),
    ("argon2", &["observer-api"]),
    ("axum", &["observer-api", "observer-chassis"]),
];

/// Libraries that the wire crate must do without: it has no I/O, no clock and no runtime.
const NOT_IN_WIRE: &[&str] = &["tokio", "tokio-util", "tracing", "metrics", "getrandom"];

/// Dependencies of each crate of ours, those of tests left out.
fn manifests() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo runs, as it built this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let dependencies = |package: &Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages.map(|p| (p["name"].as_str().unwrap().to_owned(), dependencies(p))).collect()
}

#[test]
fn crates_use_only_the_crates_that_they_may() {
    let manifests = manifests();
    let ours: BTreeSet<&str> = manifests.keys().map(String::as_str).collect();
    for (name, uses) in &manifests {
        if name == "observer-tests" {
            continue;
        }
        let (_, allowed) = OURS
            .iter()
            .find(|(known, _)| known == name)
            .unwrap_or_else(|| panic!("{name} is new: say in this table what it may use"));
        for used in uses.iter().filter(|used| ours.contains(used.as_str())) {
            assert!(allowed.contains(&used.as_str()), "{name} must not use {used}");
        }
    }
    for (name, _) in OURS {
        assert!(ours.contains(name), "{name} is gone: take it out of this table");
    }
}

#[test]
fn libraries_of_one_place_stay_there() {
    for (name, uses) in manifests() {
        if name == "observer-tests" {
            continue;
        }
        for (library, allowed) in CONFINED {
            let allowed = allowed.contains(&name.as_str());
            assert!(allowed || !uses.contains(*library), "{name} must not use {library}");
        }
    }
}

#[test]
fn the_wire_crate_has_no_runtime() {
    let manifests = manifests();
    for library in NOT_IN_WIRE {
        assert!(!manifests["observer-wire"].contains(*library), "observer-wire uses {library}");
    }
}
