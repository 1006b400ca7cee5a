#![allow(clippy::unwrap_used)]

use super::Provenance::{Changed, OnPurpose, OursOrNobodys, Unsure};
use super::*;
use crate::pods::policy::Match;
use crate::sysctl::measure::InNew;
use crate::sysctl::policy::{Source, Want};

const SOMAXCONN: &str = "net.core.somaxconn";
/// Copied from the node's as a namespace is made.
const RMEM: &str = "net.ipv4.tcp_rmem";

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn own(value: &str) -> InNew {
    InNew::Own { value: value.to_owned() }
}

fn policy(on_conflict: OnConflict) -> Policy {
    Policy {
        want: Want::Value("10000".to_owned()),
        on_conflict,
        required: false,
        source: Source::Config { line: 1 },
        reason: None,
    }
}

fn plan(policies: &[&[(&str, OnConflict)]]) -> Plan {
    let one = |keys: &&[(&str, OnConflict)]| PodPolicy {
        name: String::new(),
        matches: Match::default(),
        policies: keys.iter().map(|(name, conflict)| (key(name), policy(*conflict))).collect(),
    };
    Plan {
        policies: policies.iter().map(one).collect(),
        observe: false,
        tree: SysctlTree::open(Path::new("/"), None).unwrap().into(),
        ledgers: PathBuf::from("/state/pods"),
        boot: "boot".to_owned(),
        kernel: (6, 18),
    }
}

fn measured() -> Fresh {
    Fresh::default().with(SOMAXCONN, own("4096"), &["4096"]).with(
        RMEM,
        own("4096 131072 6291456"),
        &["4096 131072 6291456"],
    )
}

fn ledger() -> Ledger {
    Ledger::at(PathBuf::from("/nonexistent/ledger.json"), "boot").0
}

#[test]
fn a_plan_knows_every_key_once_and_a_ledger_for_each_namespace() {
    let conflict = OnConflict::Yield;
    let plan =
        plan(&[&[(SOMAXCONN, conflict), (RMEM, conflict)], &[(SOMAXCONN, OnConflict::Report)]]);
    assert_eq!(plan.keys(), [key(SOMAXCONN), key(RMEM)]);
    let ledgers = [(1, Some(7)), (1, Some(8)), (2, Some(7)), (1, None)];
    let mut paths: Vec<_> =
        ledgers.iter().map(|(ino, cookie)| plan.ledger(*ino, *cookie)).collect();
    assert_eq!(paths[0], Path::new("/state/pods/1-7.json"));
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), ledgers.len());
}

#[test]
fn what_nobody_touched_may_be_overwritten() {
    let (ledger, fresh) = (ledger(), measured());
    assert_eq!(provenance(&ledger, &fresh, &key(SOMAXCONN), "4096"), OursOrNobodys);
    assert_eq!(provenance(&ledger, &fresh, &key(RMEM), "4096 131072 6291456"), OursOrNobodys);
}

#[test]
fn another_value_than_a_fresh_one_is_somebodys() {
    let (ledger, fresh) = (ledger(), measured());
    assert_eq!(provenance(&ledger, &fresh, &key(SOMAXCONN), "8192"), OnPurpose);
    // The node's may have changed since that was measured.
    assert_eq!(provenance(&ledger, &fresh, &key(RMEM), "4096 131072 1"), Unsure);
    let mut fresh = fresh;
    fresh.remember(&key(RMEM), "4096 131072 1");
    assert_eq!(provenance(&ledger, &fresh, &key(RMEM), "4096 131072 1"), OursOrNobodys);
    // What could not be read.
    assert_eq!(provenance(&ledger, &fresh, &key(SOMAXCONN), ""), OnPurpose);
}

#[test]
fn what_the_agent_wrote_is_its_own_until_somebody_changes_it() {
    let (mut ledger, fresh, somaxconn) = (ledger(), measured(), key(SOMAXCONN));
    ledger.intend(&somaxconn, "4096", "10000");
    // The agent died before the write, or after it.
    for (shown, whose) in [("4096", OursOrNobodys), ("10000", OursOrNobodys), ("1", OnPurpose)] {
        assert_eq!(provenance(&ledger, &fresh, &somaxconn, shown), whose, "{shown}");
    }
    ledger.stored(&somaxconn, "10000", "10000", false);
    assert_eq!(provenance(&ledger, &fresh, &somaxconn, "10000"), OursOrNobodys);
    // Back to what a fresh one has is a change too.
    for shown in ["8192", "4096"] {
        assert_eq!(
            provenance(&ledger, &fresh, &somaxconn, shown),
            Changed("10000".into()),
            "{shown}"
        );
    }
    // What was only noted because another key's write may change it was not set by the agent.
    let rmem = key(RMEM);
    ledger.sibling(&rmem, "1 2 3", &somaxconn, None);
    assert_eq!(provenance(&ledger, &fresh, &rmem, "1 2 3"), Unsure);
    assert_eq!(provenance(&ledger, &fresh, &rmem, "4096 131072 6291456"), OursOrNobodys);
}

#[test]
fn only_a_pods_own_keys_are_given_to_the_engine() {
    let (absent, unknown) = ("net.core.netdev_max_backlog", "net.core.not_in_the_catalogue");
    let fresh = measured()
        .with("net.ipv4.tcp_fin_timeout", own("60"), &["60"])
        .with(absent, InNew::Absent, &[])
        .with(unknown, own("1"), &["1"])
        .with("net.core.rmem_max", InNew::ReadOnly { value: "1".into() }, &[]);
    let plan = plan(&[&[
        (SOMAXCONN, OnConflict::Yield),
        (RMEM, OnConflict::Report),
        ("net.ipv4.tcp_fin_timeout", OnConflict::Enforce),
        (absent, OnConflict::Enforce),
        (unknown, OnConflict::Enforce),
        ("net.core.rmem_max", OnConflict::Yield),
        ("net.ipv4.ip_forward", OnConflict::Enforce),
    ]]);
    let wanted = wanted(&plan.policies, None);
    let given: BTreeMap<Key, OnConflict> = to_write(&wanted, &fresh)
        .into_iter()
        .map(|(key, policy)| (key, policy.on_conflict))
        .collect();
    // The judgement is made here, so that the engine has none of its own to make.
    let expected = [
        (SOMAXCONN, OnConflict::Enforce),
        (RMEM, OnConflict::Report),
        ("net.ipv4.tcp_fin_timeout", OnConflict::Enforce),
    ];
    assert_eq!(given, expected.map(|(name, conflict)| (key(name), conflict)).into());
    assert!(may_write(&wanted, &key(SOMAXCONN)) && !may_write(&wanted, &key(RMEM)));
    assert!(!may_write(&wanted, &key("net.ipv4.tcp_syn_retries")), "nobody wants it any more");
    assert!(on_purpose(&fresh, &key(SOMAXCONN)).contains("has 4096"));
}
