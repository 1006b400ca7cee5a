#![allow(clippy::unwrap_used)]

use super::super::tests::{config, problems};
use super::*;
use crate::config::privileges::privileges;

const KEY: &str = "net.ipv4.neigh.default.gc_thresh3";

fn body(key: &str) -> String {
    format!("autogrow: {{ neighbor: {{}} }}\nsysctls:\n  {key}\n")
}

#[test]
fn it_is_off_unless_the_table_is_named() {
    for off in ["", "autogrow: {}", "autogrow:", "autogrow: { neighbor: }"] {
        assert_eq!(config(off).autogrow, None, "{off}");
    }
    let rule = |body: &str| config(body).autogrow.unwrap();
    assert_eq!(rule("autogrow: { neighbor: {} }"), Rule { at: 750, ceiling: 65_536 });
    let body = "autogrow: { neighbor: { at: 0.9, ceiling: 8192 } }";
    assert_eq!(rule(body), Rule { at: 900, ceiling: 8192 });
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for (neighbor, problem) in [
        ("{ at: 0.49 }", "3:29 value"),
        ("{ at: 1 }", "3:29 value"),
        ("{ at: x }", "3:29 invalid-type"),
        ("{ ceiling: 0 }", "3:34 value"),
        ("{ ceiling: 2000000 }", "3:34 value"),
        ("{ ceilings: 5 }", "3:25 unknown-field"),
    ] {
        assert_eq!(
            problems(&format!("autogrow: {{ neighbor: {neighbor} }}")),
            [problem],
            "{neighbor}"
        );
    }
    for good in ["{ at: 0.5, ceiling: 1 }", "{ at: 0.95, ceiling: 1048576 }"] {
        assert_eq!(problems(&format!("autogrow: {{ neighbor: {good} }}")), [""; 0], "{good}");
    }
}

#[test]
fn a_key_that_cannot_grow_is_refused_once() {
    for key in [
        &format!("{KEY}: 8192"),
        &format!("{KEY}: {{ oneOf: [8192, 9000] }}"),
        &format!("{KEY}: {{ min: 8192, onConflict: report }}"),
        "net.ipv6.neigh.default.gc_thresh2: 512",
    ] {
        assert_eq!(problems(&body(key)), ["5:3 autogrow-conflict"], "{key}");
        assert_eq!(problems(&format!("sysctls:\n  {key}\n")), [""; 0], "{key}");
    }
    let pattern = body("net.ipv4.neigh.*.gc_thresh3: 8192");
    assert!(problems(&pattern).contains(&"3:23 autogrow-conflict".to_owned()), "{pattern}");
    for key in [
        &format!("{KEY}: {{ min: 8192 }}"),
        &format!("{KEY}: {{ max: 8192 }}"),
        "net.ipv4.neigh.default.gc_thresh1: 128",
    ] {
        assert_eq!(problems(&body(key)), [""; 0], "{key}");
    }
}

#[test]
fn a_node_that_is_a_container_is_told() {
    let body = "hostNetns: current\nautogrow: { neighbor: {} }\n";
    assert_eq!(problems(body), ["4:23 ~autogrow-unsupported"]);
}

#[test]
fn it_needs_to_write_its_keys() {
    let needs = |body: &str| serde_json::to_string(&privileges(&config(body)).required).unwrap();
    assert!(!needs("autogrow: {}").contains("gc_thresh"));
    let grows = needs("autogrow: { neighbor: {} }");
    assert!(grows.contains("/host/proc/sys/net"), "{grows}");
    assert_eq!(grows.matches("gc_thresh").count(), 4, "{grows}");
    assert!(!needs("mode: observe\nautogrow: { neighbor: {} }").contains("gc_thresh"));
    let both = needs("profiles: [dense-node]\nautogrow: { neighbor: {} }");
    assert_eq!(both.matches("gc_thresh").count(), 4, "{both}");
}
