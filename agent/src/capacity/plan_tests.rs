#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::limits;

const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";

fn known(limit: &str, used: u64, max: u64, amount: f64, raised_by: Option<&str>) -> Known {
    Known {
        limit: limit.to_owned(),
        object: "it".to_owned(),
        named: format!("{limit} it"),
        unit: "units".to_owned(),
        used,
        max,
        cost: PodCost { amount, from: CostFrom::Observed },
        raised_by: raised_by.map(str::to_owned),
        exactness: Exactness::Exact,
        hit_now: false,
    }
}

fn node() -> Vec<Known> {
    vec![
        known("neighbor_table", 200, 1024, 2.0, Some(THRESH3)),
        known("bridge_ports", 100, 1023, 1.0, None),
    ]
}

fn ask(question: &Question) -> Plan {
    plan(question, node(), "cli", None, Vec::new())
}

fn question(pods: u64) -> Question {
    Question { pods: Some(pods), pods_now: 100, ..Question::default() }
}

#[test]
fn says_what_to_raise_and_where_it_still_stops() {
    let fits = ask(&question(512));
    assert_eq!((fits.fits, fits.pods_possible), (Some(true), Some(512)));
    assert!(fits.raise.is_empty());
    let plan = ask(&question(1000));
    assert_eq!((plan.fits, plan.pods_possible), (Some(false), Some(512)));
    let raised: Vec<_> =
        plan.raise.iter().map(|raise| (raise.what.as_str(), raise.at_least)).collect();
    let thresh2 = "net.ipv4.neigh.default.gc_thresh2";
    assert_eq!(raised, [(thresh2, 4096), (THRESH3, 8192)], "the profile's floor is more");
    assert_eq!(plan.raise[1].memory_bytes, Some(4 << 20));
    assert_eq!(plan.pods_possible_then, Some(1023));
    let stop = plan.then_stopped_by.unwrap();
    assert_eq!((stop.limit.as_str(), stop.raised_by), ("bridge_ports", None));
    assert!(stop.ways.iter().any(|way| way.contains("a second bridge")));
}

#[test]
fn what_if_replaces_what_is() {
    let what_if = BTreeMap::from([(THRESH3.to_owned(), 1400)]);
    let plan = ask(&Question { what_if, ..question(650) });
    assert_eq!((plan.pods_possible, plan.fits), (Some(700), Some(true)));
    let other = ask(&Question { bridge: Some(false), ..question(3000) });
    assert_eq!(other.pods_possible_then, Some(100 + (16_384 - 200) / 2));
}

#[test]
fn pods_that_are_kept_free_need_room_too() {
    let kept = Question { reserve: 20, ..question(500) };
    let plan = ask(&kept);
    assert_eq!((plan.pods_possible, plan.fits), (Some(492), Some(false)));
    assert!(plan.pods_possible_then.unwrap() >= 500);
}

/// A node that is over a limit runs what it runs: nothing has to be raised for that.
#[test]
fn pods_that_run_already_fit() {
    let limits = vec![known("neighbor_table", 1540, 1024, 2.0, Some(THRESH3))];
    let ask = |pods| plan(&question(pods), limits.clone(), "cli", None, Vec::new());
    assert_eq!((ask(100).fits, ask(100).raise.len()), (Some(true), 0));
    assert_eq!((ask(101).fits, ask(101).raise.len()), (Some(false), 2));
}

#[test]
fn keys_are_told_with_their_own_values() {
    let mut limits = node();
    limits.push(known("cpu_backlog", 100, 1001, 1.0, Some("net.core.netdev_max_backlog")));
    limits.push(known("tcp_memory", 100, 200, 1.0, Some("net.ipv4.tcp_mem")));
    let plan = plan(&question(1020), limits.clone(), "cli", None, Vec::new());
    let raise = |key: &str| plan.raise.iter().find(|raise| raise.what == key).unwrap();
    let backlog = raise("net.core.netdev_max_backlog");
    assert_eq!((backlog.now, backlog.at_least), (Some(1000), 16_384));
    let memory = raise("net.ipv4.tcp_mem");
    assert_eq!(memory.policy.as_deref(), Some("{ min: \"_ _ 2048\" }"));
    let what_if = BTreeMap::from([("net.core.netdev_max_backlog".to_owned(), 500)]);
    let less = super::plan(&Question { what_if, ..question(500) }, limits, "cli", None, Vec::new());
    assert_eq!(less.pods_possible, Some(200));
}

#[test]
fn what_is_refused_now_fits_none_and_is_to_be_raised() {
    let mut limits = node();
    limits[0].hit_now = true;
    let plan = plan(&question(110), limits, "cli", None, Vec::new());
    assert_eq!((plan.pods_possible, plan.fits), (Some(100), Some(false)));
    assert_eq!(plan.raise[1].what, THRESH3);
}

#[test]
fn a_node_of_defaults_stops_where_the_article_did() {
    let limits = defaults(limits::ABOUT);
    let table = limits.iter().find(|limit| limit.limit == "neighbor_table").unwrap();
    assert_eq!((table.max, left(table)), (1024, 512));
    let bridge = limits.iter().find(|limit| limit.limit == "bridge_ports").unwrap();
    assert_eq!(left(bridge), 1023);
    // What pods of root use up, and not what they do not.
    let first = plan(&question(100), limits, "defaults", None, Vec::new()).stopped_by.unwrap();
    assert_eq!((first.limit.as_str(), first.object.as_str()), ("max_pods", ""));
}

proptest! {
    /// What is to be raised is enough, and only what nothing raises stops pods then.
    #[test]
    fn the_plan_is_enough(
        pods in 0u64..5000,
        used in 0u64..3000,
        max in 0u64..3000,
        cost in 0.1f64..40.0,
    ) {
        let limits = vec![
            known("neighbor_table", used, max, cost, Some(THRESH3)),
            known("other", used, max, cost, Some("fs.file-max")),
        ];
        let question = Question { pods: Some(pods), ..Question::default() };
        let plan = plan(&question, limits, "cli", None, Vec::new());
        prop_assert!(plan.pods_possible_then.unwrap() >= pods);
        prop_assert_eq!(plan.raise.is_empty(), plan.fits.unwrap());
    }
}
