//! What one write changes beside its own key, and what decides whether it is accepted.

use super::catalogue;
use super::key::Key;
use super::ledger::{Ledger, Record};
use super::managed::Managed;
use super::plan;
use crate::kernel::sysctl_file::{OpenMode, SysctlTree, list};

/// Keys and their values, as far as they can be read.
pub(super) type Values = Vec<(Key, Option<String>)>;

/// The values that decide whether a refused write is worth another attempt: the key's own, its
/// siblings', those of keys that the kernel checks it against.
pub(super) fn circumstances(tree: &SysctlTree, managed: &Managed) -> String {
    let related = plan::related(managed.key.as_str()).iter().filter_map(|key| Key::parse(key).ok());
    let others = sibling_keys(&managed.key).into_iter().chain(related);
    let values = others.map(|key| value_of(tree, &key).unwrap_or_default());
    let own = managed.text().unwrap_or_default().to_owned();
    std::iter::once(own).chain(values).collect::<Vec<_>>().join("\n")
}

/// The value of a key now, if it can be read.
pub(super) fn value_of(tree: &SysctlTree, key: &Key) -> Option<String> {
    let file = tree.open_key(key.as_str(), &key.path(), OpenMode::ReadOnly).ok()?;
    let mut buffer = Vec::new();
    file.read(&mut buffer).ok().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A sibling's key, with the interface of the key that is written in the place of `*`.
fn concrete(sibling: &str, interface: Option<&str>) -> Option<Key> {
    match (sibling.contains(".*."), interface) {
        (true, Some(interface)) => Key::parse(&catalogue::with_interface(sibling, interface)?).ok(),
        (true, None) => None,
        (false, _) => Key::parse(sibling).ok(),
    }
}

/// The values of everything that a write to `key` changes too.
fn sibling_values(tree: &SysctlTree, key: &Key, now: &str) -> Vec<(Key, String)> {
    let value = |key: Key| value_of(tree, &key).map(|value| (key, value));
    let mut values: Vec<_> = sibling_keys(key).into_iter().filter_map(value).collect();
    if let Some((_, family, leaf)) = SWITCHES.iter().find(|(switch, ..)| *switch == key.as_str()) {
        // The kernel sets every interface's value. Putting the switch back sets them all to its
        // original, so only those that differed need a record.
        let interfaces = every_interface(tree, family, "conf", leaf).into_iter().filter_map(value);
        let differed = interfaces.filter(|(_, value)| value != now);
        values.extend(differed.collect::<Vec<_>>());
    }
    // Which interfaces follow their default is seen when it is written.
    let followers = inheritors(tree, key).into_iter().filter_map(value);
    values.extend(followers.filter(|(_, value)| value == now));
    values
}

/// The interfaces that a write to `default` may reach: devinet_copy_dflt_conf,
/// neigh_copy_dflt_parms. IPv6's `conf` has no such thing.
fn inheritors(tree: &SysctlTree, default: &Key) -> Vec<Key> {
    let ["net", family, kind, "default", leaf] =
        default.as_str().split('.').collect::<Vec<_>>()[..]
    else {
        return Vec::new();
    };
    if (family, kind) == ("ipv6", "conf") {
        return Vec::new();
    }
    let mut keys = every_interface(tree, family, kind, leaf);
    keys.retain(|key| !matches!(catalogue::interface(key.as_str()), Some("all" | "default")));
    keys
}

/// The switches on record, written by the agent, that change this key too.
fn switches_over<'a>(ledger: &'a Ledger, key: &Key) -> impl Iterator<Item = (Key, &'a Record)> {
    let redirects = key.as_str() == REDIRECTS;
    let over = SWITCHES.iter().filter(move |(switch, family, leaf)| {
        is_leaf(key, family, leaf) || redirects && FORWARDS.contains(switch)
    });
    let switches: Vec<Key> = over.filter_map(|(switch, ..)| Key::parse(switch).ok()).collect();
    let others = switches.into_iter().filter(move |switch| switch != key);
    others.filter_map(|switch| {
        let record = ledger.get(&switch)?;
        // Not where another writer took it over.
        let written = record.stored.is_some() || record.intended.is_some();
        (written && record.sibling_of.is_none()).then_some((switch, record))
    })
}

/// A switch that the agent has written gave its value to every interface that was not on record
/// by then: what it was before is what the switch was.
pub(super) fn original_under_switch(ledger: &mut Ledger, key: &Key, now: &str) {
    if ledger.get(key).is_some() || key.as_str() == REDIRECTS {
        return;
    }
    let found = switches_over(ledger, key).find(|(switch, record)| record.is_ours(switch, now));
    if let Some((switch, original)) = found.map(|(switch, it)| (switch, it.original.clone())) {
        ledger.sibling(key, &original, &switch, Some(now));
    }
}

/// A key that has its original again stays on record while a switch over it does: putting that
/// one back will change it.
pub(super) fn keep_under_switch(ledger: &mut Ledger, key: &Key, record: Record) {
    let over = switches_over(ledger, key).find(|(switch, it)| {
        along(switch, it.original.trim(), key).as_deref() != Some(record.original.trim())
    });
    if let Some(switch) = over.map(|(switch, _)| switch) {
        let Record { original, interface, .. } = record;
        let stored = Some(original.clone());
        let sibling_of = Some(switch.as_str().to_owned());
        let record = Record { original, stored, interface, sibling_of, ..Record::default() };
        ledger.reinstate(key, record);
    }
}

/// Whether a key is this one of some interface.
fn is_leaf(key: &Key, family: &str, leaf: &str) -> bool {
    let pattern = catalogue::with_interface(key.as_str(), "*");
    pattern.is_some_and(|pattern| pattern == format!("net.{family}.conf.*.{leaf}"))
}

/// Two names of one switch, which changes more than interfaces.
const FORWARDS: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding"];
const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";

/// Keys whose write changes the same key of every interface: inet_forward_change,
/// addrconf_fixup_forwarding, addrconf_disable_ipv6, addrconf_sysctl_addr_gen_mode,
/// addrconf_fixup_linkdown.
const SWITCHES: [(&str, &str, &str); 6] = [
    ("net.ipv4.ip_forward", "ipv4", "forwarding"),
    ("net.ipv4.conf.all.forwarding", "ipv4", "forwarding"),
    ("net.ipv6.conf.all.forwarding", "ipv6", "forwarding"),
    ("net.ipv6.conf.all.disable_ipv6", "ipv6", "disable_ipv6"),
    ("net.ipv6.conf.all.addr_gen_mode", "ipv6", "addr_gen_mode"),
    ("net.ipv6.conf.all.ignore_routes_with_linkdown", "ipv6", "ignore_routes_with_linkdown"),
];

fn sibling_keys(key: &Key) -> Vec<Key> {
    // conf.all.forwarding is ip_forward under another name; other interfaces' are not.
    let alias = (key.as_str() == "net.ipv4.conf.all.forwarding")
        .then(|| Key::parse("net.ipv4.ip_forward").ok())
        .flatten();
    let interface = catalogue::interface(key.as_str());
    let entry = catalogue::lookup(alias.as_ref().unwrap_or(key));
    let siblings = entry.iter().flat_map(|entry| entry.siblings());
    siblings
        .filter_map(|sibling| concrete(sibling, interface))
        .chain(alias.clone())
        .filter(|sibling| sibling != key)
        .collect()
}

fn every_interface(tree: &SysctlTree, family: &str, kind: &str, leaf: &str) -> Vec<Key> {
    let directory = tree.root().join("net").join(family).join(kind);
    let names = list(&directory).unwrap_or_default();
    let key = |name: std::ffi::OsString| {
        Key::parse(&format!("net/{family}/{kind}/{}/{leaf}", name.to_str()?)).ok()
    };
    names.into_iter().filter_map(key).collect()
}

/// What the write of a value to one key makes of another one that it changes too, if that is known.
fn along(written: &Key, to: &str, other: &Key) -> Option<String> {
    if other.as_str() == REDIRECTS && FORWARDS.contains(&written.as_str()) {
        // inet_forward_change: no redirects where packets are forwarded.
        return Some(if to.trim() == "0" { "1" } else { "0" }.to_owned());
    }
    (!are_twins(written, other)).then(|| to.to_owned())
}

/// Whether the two are one value to the kernel, be it in another unit: what the write of one
/// leaves as it was, putting that one back leaves too.
fn are_twins(written: &Key, other: &Key) -> bool {
    !FORWARDS.contains(&written.as_str()) && sibling_keys(written).contains(other)
}

/// The keys on record, other than its own, that a write to `written` may change, with their
/// values.
pub(super) fn reached(tree: &SysctlTree, ledger: &Ledger, written: &Key) -> Values {
    if !changes_others(written) {
        return Vec::new();
    }
    let siblings = sibling_keys(written);
    let pattern = catalogue::with_interface(written.as_str(), "*")
        .filter(|_| catalogue::interface(written.as_str()) == Some("default"));
    let reaches = |key: &Key| {
        let switched = SWITCHES.iter().any(|(switch, family, leaf)| {
            *switch == written.as_str() && is_leaf(key, family, leaf)
        });
        let follows = pattern.is_some()
            && catalogue::interface(key.as_str()).is_some_and(|name| name != "all")
            && catalogue::with_interface(key.as_str(), "*") == pattern;
        key != written && (switched || follows || siblings.contains(key))
    };
    let keys: Vec<Key> = ledger.iter().map(|(key, _)| key).filter(reaches).collect();
    keys.into_iter().map(|key| (key.clone(), value_of(tree, &key))).collect()
}

/// Notes what a write to `written` is about to change beside it: what is on record, and what is
/// not yet.
pub(super) fn note_along(
    tree: &SysctlTree,
    ledger: &mut Ledger,
    written: &Key,
    now: &str,
    to: &str,
) {
    let known = reached(tree, ledger, written);
    note_reached(ledger, written, to, &known);
    for (key, value) in sibling_values(tree, written, now) {
        if ledger.get(&key).is_none() {
            ledger.sibling(&key, &value, written, along(written, to, &key).as_deref());
        }
    }
}

/// The same for what is on record, with its values.
pub(super) fn note_reached(ledger: &mut Ledger, written: &Key, to: &str, known: &Values) {
    for (key, value) in known {
        if let Some(value) = value {
            ledger.sibling(key, value, written, along(written, to, key).as_deref());
        }
    }
}

/// Reads back the keys on record that a write may have changed too, which had these values before
/// it. What is under a switch is on record even where the write left it, since putting the switch
/// back will not.
pub(super) fn read_back(tree: &SysctlTree, ledger: &mut Ledger, written: &Key, before: Values) {
    let inherited = catalogue::interface(written.as_str()) == Some("default");
    for (key, before) in before {
        let Some(record) = ledger.get(&key) else { continue };
        let switched = record.sibling_of.is_some() && !inherited && !are_twins(written, &key);
        match value_of(tree, &key) {
            Some(now) if switched || before.as_ref() != Some(&now) => {
                ledger.came_along(&key, &now);
            }
            _ => ledger.stayed(&key),
        }
    }
}

/// Whether a write to this key can change others.
pub(super) fn changes_others(key: &Key) -> bool {
    // A default reaches interfaces that have no value of their own yet (devinet_copy_dflt_conf).
    let inherited = catalogue::interface(key.as_str()) == Some("default");
    let switches = SWITCHES.iter().any(|(switch, ..)| *switch == key.as_str());
    inherited || switches || !sibling_keys(key).is_empty()
}
