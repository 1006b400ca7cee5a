#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::*;
use crate::config::load::{EMBEDDED, Origin, judge};
use crate::kernel::name::Name;
use crate::kernel::neighbor::{EntryCounts, TableStat};
use crate::limits::neighbor::{Neighbor, Scan};
use crate::limits::netfilter::{self, Backend, Count, Netfilter, Owner};
use crate::limits::{self, bridge::Bridge};
use crate::sysctl::managed::Managed;
use crate::sysctl::place::Net;

fn node() -> Node {
    let node = Node::default();
    node.update(|state| {
        state.net = Some(Net::Initial);
        let scan = Scan {
            counts: EntryCounts { entries: 5, exempt: 1, pinned: 3 },
            of_pods: Some(2),
            pods: 1,
            scanned: 2,
            skipped: 0,
            complete: true,
            at: UNIX_EPOCH + Duration::from_secs(7),
            read_at: Instant::now(),
        };
        let stat = TableStat {
            entries: Some(5),
            table_fulls: Some(2),
            forced_gc_runs: Some(4),
            unresolved_discards: Some(6),
            res_failed: Some(8),
        };
        let neighbor = Neighbor {
            stat: Some(stat),
            thresholds: Some([128, 512, 1024]),
            peak: Some(9),
            scan: Some(scan),
            table: None,
        };
        state.neighbor = [neighbor.clone(), neighbor];
        state.bridges = Some(vec![
            Bridge { name: Name::from_bytes(*b"cni0"), ports: 489, limit: 1023, read_from: "brif" },
            // Fault 12: a name of hostile bytes.
            Bridge {
                name: Name::from_bytes(*b"a\"\\\x1b\xff\n"),
                ports: 1,
                limit: 1023,
                read_from: "brif",
            },
        ]);
        let config = judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap().config;
        let (ledger, _) =
            crate::sysctl::ledger::Ledger::open(std::path::Path::new("/nonexistent"), "b");
        state.keys = Some(
            config
                .policies
                .into_iter()
                .map(|(key, policy)| Managed::new(key, policy, None).status(false, &ledger))
                .collect(),
        );
        state.netfilter = Some(netfilter());
        state.config.loaded_at = Some(UNIX_EPOCH);
        state.collected("neighbor", None, Duration::from_millis(1));
        state.process = Some(Default::default());
        state.tasks.insert("sysctl", Default::default());
    });
    node
}

/// What chains are not known of is of a table too large to be read.
fn netfilter() -> Netfilter {
    let of = |owner| (Backend::IptablesLegacy, netfilter::Family::Ipv4, owner);
    Netfilter {
        counts: [
            (of(Owner::KubeProxy), Count { rules: 12_000, chains: Some(3000) }),
            (of(Owner::Unknown), Count { rules: 90_000, chains: None }),
        ]
        .into(),
        modes: Some(vec![]),
        unknown: vec![],
        read_at: std::time::Instant::now(),
    }
}

/// Parses an exposition, refusing duplicates and series without HELP or TYPE.
fn parse(text: &str) -> BTreeMap<String, f64> {
    let mut series = BTreeMap::new();
    let (mut helps, mut types) = (BTreeSet::new(), BTreeSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(helps.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(types.insert(rest.split(' ').next().unwrap().to_owned()), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let family = name.split('{').next().unwrap();
            assert!(helps.contains(family) && types.contains(family), "{line}");
            assert!(
                series.insert(name.to_owned(), value.parse().unwrap()).is_none(),
                "twice: {line}"
            );
        }
    }
    series
}

#[test]
fn a_scrape_has_every_series_once_with_help_and_type() {
    let text = Metrics::new(node()).unwrap().render().unwrap();
    let series = parse(&text);
    for (name, value) in [
        ("headroom_neighbor_entries{family=\"ipv4\"}", 5.0),
        ("headroom_neighbor_fullness_ratio{basis=\"pinned\",family=\"ipv6\"}", 3.0 / 1024.0),
        ("headroom_neighbor_table_fulls_total{family=\"ipv4\"}", 2.0),
        ("headroom_bridge_ports{bridge=\"cni0\"}", 489.0),
        ("headroom_bridge_ports{bridge=\"a\\\"\\\\\\\\\\\\x1b\\\\xff\\\\x0a\"}", 1.0),
        ("headroom_limit_used{limit=\"bridge_ports\",object=\"cni0\"}", 489.0),
        ("headroom_limit_hits_total{limit=\"neighbor_table\",object=\"ipv4\"}", 2.0),
        ("headroom_sysctl_in_sync{key=\"net.core.somaxconn\"}", 0.0),
        ("headroom_sysctl_writes_total{result=\"denied\"}", 0.0),
        (&format!("headroom_netfilter_rules{{{LEGACY},owner=\"kube-proxy\"}}"), 12_000.0),
        (&format!("headroom_netfilter_rules{{{LEGACY},owner=\"unknown\"}}"), 90_000.0),
        (&format!("headroom_netfilter_chains{{{LEGACY},owner=\"kube-proxy\"}}"), 3000.0),
        ("headroom_host_netns", 1.0),
        ("headroom_collector_success{collector=\"neighbor\"}", 1.0),
    ] {
        let found = series.get(name).or_else(|| series.get(&reordered(name)));
        assert_eq!(found, Some(&value), "{name}\n{text}");
    }
}

/// With what this machine's kernel has: [`parse`] refuses a series that is there twice.
#[test]
fn the_limits_of_a_real_kernel_have_every_series_once() {
    let node = node();
    node.update(|state| {
        let roots = limits::Roots {
            proc: "/proc".into(),
            sys: "/sys".into(),
            cgroup: "/sys/fs/cgroup".into(),
            ..limits::Roots::default()
        };
        limits::ask_all(&mut limits::cheap(&roots), state);
        limits::ask_all(&mut limits::dear(&roots), state);
        state.cpu_stalled = Some(Duration::from_millis(1500));
    });
    let series = parse(&Metrics::new(node.clone()).unwrap().render().unwrap());
    let mut used = 0;
    for limit in node.read(limits::all) {
        let name = format!("{{limit=\"{}\",object=\"{}\"}}", limit.about.name, limit.object);
        if limit.used.is_some() && !limit.object.contains('\\') {
            let name = format!("headroom_limit_used{name}");
            assert!(series.contains_key(&name), "{name} is missing");
            used += 1;
        }
    }
    assert!(used > 5, "{used}");
    let stalled = "headroom_pressure_stalled_seconds_total{resource=\"cpu\"}";
    assert_eq!(series.get(stalled), Some(&1.5));
}

#[test]
fn the_names_of_limits_are_theirs_alone() {
    let names: BTreeSet<_> = limits::ABOUT.iter().map(|about| about.name).collect();
    assert_eq!(names.len(), limits::ABOUT.len());
}

const LEGACY: &str = "backend=\"iptables-legacy\",family=\"ipv4\"";

#[test]
fn what_is_not_known_of_netfilter_is_absent_and_its_age_is_there() {
    let series = parse(&Metrics::new(node()).unwrap().render().unwrap());
    let chains = series.keys().filter(|name| name.starts_with("headroom_netfilter_chains"));
    assert_eq!(chains.count(), 1);
    assert!(series.contains_key("headroom_limit_age_seconds{limit=\"netfilter_rules\"}"));
}

/// Labels come in the order of the table.
fn reordered(name: &str) -> String {
    let Some((family, labels)) = name.strip_suffix('}').and_then(|name| name.split_once('{'))
    else {
        return name.to_owned();
    };
    let mut labels: Vec<&str> = labels.split(',').collect();
    labels.reverse();
    format!("{family}{{{}}}", labels.join(","))
}

#[test]
fn what_is_not_known_is_absent() {
    let series = parse(&Metrics::new(Node::default()).unwrap().render().unwrap());
    for prefix in [
        "headroom_neighbor",
        "headroom_bridge",
        "headroom_netfilter",
        "headroom_sysctl_in_sync",
        "headroom_host_netns",
        "process_",
    ] {
        assert!(!series.keys().any(|name| name.starts_with(prefix)), "{prefix}");
    }
}

/// Fault 30: a collector that panics costs its own numbers.
#[test]
fn fault_30_a_panic_while_reading_costs_that_source_only() {
    let node = node();
    node.on_scrape(|_| panic!("a bug"));
    let metrics = Metrics::new(node.clone()).unwrap();
    let series = parse(&metrics.render().unwrap());
    assert_eq!(series["headroom_collector_success{collector=\"scrape\"}"], 0.0);
    assert!(series.contains_key("headroom_bridge_ports{bridge=\"cni0\"}"));
    assert!(metrics.render().is_ok(), "and again");
}

#[test]
fn names_follow_the_conventions() {
    let mut names = BTreeSet::new();
    for spec in table::ALL {
        assert!(names.insert(spec.name), "{}", spec.name);
        assert_eq!(spec.name.ends_with("_total"), spec.kind == Kind::Counter, "{}", spec.name);
        assert!(spec.help.ends_with('.') && spec.help.len() > 20, "{}", spec.name);
    }
}
