//! What one write changes beside its own key, and what decides whether it is accepted.

use super::catalogue;
use super::key::Key;
use super::ledger::Ledger;
use super::managed::Managed;
use super::plan;
use crate::kernel::sysctl_file::{OpenMode, SysctlTree, list};

/// The values that decide whether a refused write is worth another attempt: the key's own, its
/// siblings', those of keys that the kernel checks it against.
pub(super) fn circumstances(tree: &SysctlTree, managed: &Managed) -> String {
    let related = plan::related(managed.key.as_str()).iter().filter_map(|key| Key::parse(key).ok());
    let others = sibling_keys(&managed.key).into_iter().chain(related);
    let values = others.map(|key| read(tree, &key).unwrap_or_default());
    let own = managed.text().unwrap_or_default().to_owned();
    std::iter::once(own).chain(values).collect::<Vec<_>>().join("\n")
}

pub(super) fn read(tree: &SysctlTree, key: &Key) -> Option<String> {
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
pub(super) fn sibling_values(tree: &SysctlTree, key: &Key, now: &str) -> Vec<(Key, String)> {
    let value = |key: Key| read(tree, &key).map(|value| (key, value));
    let mut values: Vec<_> = sibling_keys(key).into_iter().filter_map(value).collect();
    if let Some((_, family, leaf)) = SWITCHES.iter().find(|(switch, ..)| *switch == key.as_str()) {
        // The kernel sets every interface's value. Putting the switch back sets them all to its
        // original, so only those that differed need a record.
        let interfaces = every_interface(tree, family, leaf).into_iter().filter_map(value);
        let differed = interfaces.filter(|(_, value)| value != now);
        values.extend(differed.collect::<Vec<_>>());
    }
    values
}

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

pub(super) fn sibling_keys(key: &Key) -> Vec<Key> {
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

fn every_interface(tree: &SysctlTree, family: &str, leaf: &str) -> Vec<Key> {
    let directory = tree.root().join("net").join(family).join("conf");
    let names = list(&directory).unwrap_or_default();
    let key = |name: std::ffi::OsString| {
        Key::parse(&format!("net/{family}/conf/{}/{leaf}", name.to_str()?)).ok()
    };
    names.into_iter().filter_map(key).collect()
}

/// Of the keys that a write may change too, those that it did change are ours now; the others are
/// as they were before it. An interface's value under a switch is on record even where the write
/// left it, since putting the switch back will not.
pub(super) fn store_siblings(
    tree: &SysctlTree,
    ledger: &mut Ledger,
    written: &Key,
    before: Vec<(Option<String>, Key)>,
) {
    let pairs = sibling_keys(written);
    for (before, key) in before {
        let now = read(tree, &key);
        let untouched = ledger.get(&key).is_some_and(|record| record.stored.is_none());
        let switched = untouched && !pairs.contains(&key);
        match now {
            Some(now) if switched || before.as_ref() != Some(&now) => {
                ledger.stored(&key, &now, false);
            }
            _ if untouched => ledger.forget(&key),
            _ => {}
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
