//! Limits driven to the kernel's refusal: what Headroom foretold at a quarter, a half and three
//! quarters of the way is what came. The whole table is `make exhaustion`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;

use headroom_tests::exhaustion::{ALL, Bench, Row};
use headroom_tests::root_or_skip;

/// Drives one limit to its end. `None`: not root, and to be skipped.
fn drive(name: &str) -> Option<Row> {
    let host = root_or_skip()?;
    let program = PathBuf::from(env!("CARGO_BIN_EXE_exhaustion"));
    let (_, drive) = ALL.iter().find(|(known, _)| *known == name).unwrap();
    Some(drive(&Bench { host: &host, program }).unwrap_or_else(|why| panic!("{name}: {why}")))
}

/// What the kernel's own rules say is right to the pod, what is learned from pods within one.
fn foretold(name: &str, refusal: &str, allowed: u64) {
    let Some(row) = drive(name) else { return };
    assert!(row.fact.refusal.contains(refusal), "{row:?}");
    assert_eq!(row.allowed, allowed);
    assert!(row.is_as_foretold(), "{row:?}");
}

#[test]
fn a_bridge_refuses_where_it_was_foretold_at_every_hundred_ports() {
    foretold("bridge", "EXFULL", 0);
}

#[test]
fn one_broadcast_loses_copies_where_it_was_foretold_and_none_with_the_profile() {
    let Some(row) = drive("backlog") else { return };
    assert_eq!(row.difference(), Some(0), "{row:?}");
    let note = row.note.unwrap();
    assert!(note.contains("loses 19 copies") && note.ends_with("it loses 0"), "{note}");
}

#[test]
fn the_pod_range_has_no_address_left_where_it_was_foretold() {
    foretold("addresses", "no IP addresses available", 0);
}

#[test]
fn pids_of_the_pods_group_are_refused_where_it_was_foretold() {
    foretold("pids", "EAGAIN", 1);
}

#[test]
fn inotify_instances_are_refused_where_it_was_foretold() {
    foretold("inotify", "EMFILE", 1);
}

#[test]
fn keys_are_refused_where_it_was_foretold() {
    foretold("keys", "EDQUOT", 1);
}

#[test]
fn connections_are_dropped_where_it_was_foretold() {
    // A kernel without the module: `make vm-test` looks at it.
    if !std::path::Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists() {
        return;
    }
    foretold("conntrack", "drop", 1);
}

#[test]
fn file_handles_are_refused_where_it_was_foretold() {
    foretold("files", "ENFILE", 1);
}

#[test]
fn network_namespaces_are_refused_where_it_was_foretold() {
    foretold("netns", "ENOSPC", 0);
}
