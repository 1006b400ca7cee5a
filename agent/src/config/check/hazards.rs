//! What is allowed and still likely to hurt: warnings.

use std::collections::BTreeMap;

use super::super::problem::{Position, Problem, Problems, push_key};
use crate::sysctl::catalogue::{self, Entry};
use crate::sysctl::key::Key;
use crate::sysctl::policy::{Goal, Policy, Source};
use crate::sysctl::value::{Shape, Value};

/// Ports that programs of a node listen on, beside the NodePorts: a local port taken from among
/// them makes their start fail with EADDRINUSE.
const LISTENERS: [(u16, u16, &str); 8] = [
    (30000, 32767, "NodePorts"),
    (2379, 2380, "etcd"),
    (6443, 6443, "kube-apiserver"),
    (9100, 9100, "node_exporter"),
    (10248, 10250, "kubelet"),
    (10255, 10255, "kubelet"),
    (10256, 10256, "kube-proxy"),
    (19879, 19879, "headroom"),
];

/// Warnings about one key by itself. `hint`: look for a known key of a similar name, which takes
/// a look at the whole catalogue.
pub fn of_key(key: &Key, entry: Option<&Entry>, hint: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(entry) = entry else {
        problems.push(unknown(key, hint));
        return problems;
    };
    if entry.has("kubelet") {
        problems.push(Problem::warning(
            "kubelet-key",
            "the kubelet sets this key itself with protectKernelDefaults: two writers will fight",
        ));
    }
    if entry.has("dead") {
        problems
            .push(Problem::warning("dead-key", "the kernel stores this value and never uses it"));
    }
    problems
}

fn unknown(key: &Key, hint: bool) -> Problem {
    let parts = key.as_str().split('.').count();
    if catalogue::interface(key.as_str()).is_some() && parts > 5 {
        return Problem::warning(
            "dotted-interface",
            "this has more components than a key has: write an interface with a dot in slash form, \
             like net/ipv4/conf/eth0.100/rp_filter",
        );
    }
    let similar = hint.then(|| catalogue::similar(key)).flatten();
    let hint = similar.map(|key| format!(" (did you mean {key}?)"));
    Problem::warning(
        "unknown-key",
        format!(
            "this key is not in the catalogue{}: it is set if the kernel has it, with the shape of the value found there",
            hint.unwrap_or_default()
        ),
    )
}

/// Warnings about keys that go together.
pub fn look(
    policies: &BTreeMap<Key, Policy>,
    places: &BTreeMap<Key, Position>,
    problems: &mut Problems,
) {
    let mut warn = |key: &str, code, message: String| {
        // What only profiles say is not the user's to change.
        let Some((key, place)) = Key::parse(key).ok().and_then(|key| {
            let place = *places.get(&key)?;
            Some((key, place))
        }) else {
            return;
        };
        let mut path = "sysctls".to_owned();
        push_key(&mut path, key.as_str());
        problems.push(Problem::warning(code, message).at(place).path(path));
    };
    port_range(policies, &mut warn);
    thresholds(policies, &mut warn);
    siblings(policies, places, &mut warn);
}

fn goal(policies: &BTreeMap<Key, Policy>, key: &str, shape: Shape) -> Option<Goal> {
    policies.get(&Key::parse(key).ok()?)?.want.compile(shape).ok()
}

/// The smallest value that a policy allows, field by field.
fn floor(policies: &BTreeMap<Key, Policy>, key: &str, shape: Shape) -> Option<Vec<Option<i128>>> {
    match goal(policies, key, shape)? {
        Goal::Exactly(value) => Some(value.ints()?.iter().copied().map(Some).collect()),
        Goal::Bounds { min, .. } => Some(min),
        Goal::OneOf(_) => None,
    }
}

fn port_range(policies: &BTreeMap<Key, Policy>, warn: &mut impl FnMut(&str, &'static str, String)) {
    const KEY: &str = "net.ipv4.ip_local_port_range";
    let pair = |value: &Value| match value.ints() {
        Some(&[low, high]) => Some((low, high)),
        _ => None,
    };
    let ranges: Vec<(i128, i128)> = match goal(policies, KEY, Shape::Ints(2)) {
        Some(Goal::Exactly(value)) => pair(&value).into_iter().collect(),
        // Any of them is left alone where it is found.
        Some(Goal::OneOf(values)) => values.iter().filter_map(pair).collect(),
        // Only a maximum can lower the low end.
        Some(Goal::Bounds { max, .. }) => {
            max.first().copied().flatten().map(|low| (low, 65535)).into_iter().collect()
        }
        None => return,
    };
    let reserved = match goal(policies, "net.ipv4.ip_local_reserved_ports", Shape::Ports) {
        Some(Goal::Exactly(Value::Ports(ranges))) => ranges,
        _ => Vec::new(),
    };
    let exposed: Vec<String> = LISTENERS
        .iter()
        .filter(|(first, last, _)| {
            ranges.iter().any(|(low, high)| {
                // What of the listener's ports lies in the range must be reserved as a whole.
                let first = i128::from(*first).max(*low);
                let last = i128::from(*last).min(*high);
                let covers =
                    |(a, b): &(u16, u16)| i128::from(*a) <= first && last <= i128::from(*b);
                first <= last && !reserved.iter().any(covers)
            })
        })
        .map(|(first, last, who)| match first == last {
            true => format!("{first} ({who})"),
            false => format!("{first}-{last} ({who})"),
        })
        .collect();
    if !exposed.is_empty() {
        warn(
            KEY,
            "port-collision",
            format!(
                "the host's outgoing connections can take ports that others listen on: {}; reserve \
                 them with net.ipv4.ip_local_reserved_ports, or start the range above 32767",
                exposed.join(", ")
            ),
        );
    }
}

fn thresholds(policies: &BTreeMap<Key, Policy>, warn: &mut impl FnMut(&str, &'static str, String)) {
    let level = |family: &str, level: u8| {
        let key = format!("net.{family}.neigh.default.gc_thresh{level}");
        let floor = floor(policies, &key, Shape::Ints(1))?;
        Some((key, floor.first().copied().flatten()?))
    };
    for family in ["ipv4", "ipv6"] {
        let levels: Vec<_> = (1..=3).filter_map(|number| level(family, number)).collect();
        for pair in levels.windows(2) {
            if let [(lower_key, lower), (higher_key, higher)] = pair
                && lower > higher
            {
                let message = format!(
                    "{lower} is above {higher_key}, {higher}: the kernel does not mind, but collects at the wrong moments"
                );
                warn(lower_key, "threshold-order", message.clone());
                warn(higher_key, "threshold-order", message);
            }
        }
        if let Some((key, value)) = level(family, 1).filter(|(_, value)| *value > 1024) {
            warn(
                &key,
                "stale-entries",
                format!(
                    "below {value} entries nothing is collected: a reused pod address can meet a dead pod's MAC"
                ),
            );
        }
    }
    if let (Some((_, v4)), Some((key, v6))) = (level("ipv4", 3), level("ipv6", 3))
        && v6 < v4
    {
        warn(
            &key,
            "threshold-families",
            format!("below IPv4's {v4}: IPv6 has more entries a pod, so it is reached first"),
        );
    }
}

/// Pairs of keys that are one thing to the kernel: to keep both as configured is a fight of the
/// agent with itself.
pub fn siblings(
    policies: &BTreeMap<Key, Policy>,
    places: &BTreeMap<Key, Position>,
    warn: &mut impl FnMut(&str, &'static str, String),
) {
    // What only profiles say is not the user's to change.
    let configured = |key: &Key| {
        let policy = policies.get(key)?;
        let place = places.get(key)?;
        matches!(policy.source, Source::Config { .. }).then_some((&policy.want, place))
    };
    for key in places.keys() {
        let Some((want, place)) = configured(key) else { continue };
        for other in siblings_of(key) {
            let Some((others, before)) = configured(&other) else { continue };
            if before < place && want != others && siblings_of(&other).contains(key) {
                let message = format!("one write changes both this and {other}: keep one of them");
                warn(key.as_str(), "sibling-keys", message);
            }
        }
    }
}

fn siblings_of(key: &Key) -> Vec<Key> {
    // Two names of one value, which the catalogue cannot say: its line is every interface's. What
    // else ip_forward changes may be set otherwise afterwards, and is no sibling of it in turn.
    if key.as_str() == "net.ipv4.conf.all.forwarding" {
        return Key::parse("net.ipv4.ip_forward").into_iter().collect();
    }
    let interface = catalogue::interface(key.as_str());
    let concrete = |sibling: &str| match interface {
        Some(interface) if sibling.contains('*') => catalogue::with_interface(sibling, interface),
        _ => Some(sibling.to_owned()),
    };
    let entry = catalogue::lookup(key);
    let siblings = entry.iter().flat_map(Entry::siblings);
    siblings.filter_map(concrete).filter_map(|key| Key::parse(&key).ok()).collect()
}
