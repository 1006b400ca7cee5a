//! The sysctl engine: reads all, plans, writes what differs, reads back, gives each key its state.

use std::collections::BTreeMap;
use std::time::Instant;

use tracing::{info, warn};

use super::catalogue;
use super::key::Key;
use super::ledger::{Ledger, Notice};
use super::managed::{Managed, WriteResult, show};
use super::place::Place;
use super::plan::{self, Change};
use super::policy::Policy;
use super::restore::{Restored, restore};
use super::state::KeyStatus;
use crate::kernel::netns::{Netns, NetnsError};
use crate::kernel::sysctl_file::{OpenMode, SysctlTree, WriteError, list};

/// How many further passes follow the first, for keys that depend on each other in ways that the
/// order of writes does not know.
const FURTHER_PASSES: usize = 2;

/// What a write's counter says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// In force after the write.
    pub ok: u64,
    /// The kernel refused the value.
    pub rejected: u64,
    /// No right.
    pub denied: u64,
    /// Taken, but something else is in force.
    pub mismatch: u64,
    /// Values that stopped meeting their policy after they had met it.
    pub drift: u64,
}

/// The engine for one network namespace and the keys that are not below `net`.
pub struct Engine {
    place: Place,
    tree: SysctlTree,
    netns: Netns,
    observe: bool,
    keys: Vec<Managed>,
    ledger: Ledger,
    /// Why the ledger could not be read; stays, since what it knew is not known.
    load_notice: Option<String>,
    /// Why it cannot be written now.
    save_notice: Option<String>,
    buffer: Vec<u8>,
    counters: Counters,
}

impl Engine {
    /// An engine that has looked at nothing yet. `observe`: it never writes, and opens nothing
    /// for writing.
    #[must_use]
    pub fn new(
        place: Place,
        tree: SysctlTree,
        netns: Netns,
        observe: bool,
        ledger: Ledger,
    ) -> Self {
        Self {
            place,
            tree,
            netns,
            observe,
            keys: Vec::new(),
            ledger,
            load_notice: None,
            save_notice: None,
            buffer: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Sets what is wanted. A key of which the same is wanted keeps its history; what the kernel
    /// refused is tried again.
    pub fn configure(&mut self, policies: BTreeMap<Key, Policy>) {
        let mut known: BTreeMap<Key, Managed> =
            self.keys.drain(..).map(|managed| (managed.key.clone(), managed)).collect();
        for (key, policy) in policies {
            let kept = known.remove(&key).filter(|managed| managed.policy.asks_the_same(&policy));
            self.keys.push(match kept {
                Some(managed) => managed.reconfigured(policy),
                None => Managed::new(key, policy),
            });
        }
    }

    /// One pass: read all, plan, write what differs with one `write(2)` a key, read back. The
    /// same when nothing has drifted, and then it only reads.
    pub fn pass(&mut self, now: Instant) -> Result<(), NetnsError> {
        self.netns.clone().run(|| {
            self.look();
            self.note_drift();
            if !self.observe {
                for _ in 0..=FURTHER_PASSES {
                    let changes = self.plan(now);
                    if changes.is_empty() {
                        break;
                    }
                    self.record(&changes);
                    if self.write(changes) == 0 {
                        break;
                    }
                    // What was written may be what a refused key was waiting for.
                    self.keys.iter_mut().for_each(Managed::reconsider);
                }
                self.save_ledger();
            }
            for managed in &mut self.keys {
                managed.settle(now);
            }
        })
    }

    /// Reads everything and plans, without writing: what a pass would change.
    pub fn preview(&mut self, now: Instant) -> Result<Vec<Change>, NetnsError> {
        self.netns.clone().run(|| {
            self.look();
            self.plan(now)
        })
    }

    fn mode(&self) -> OpenMode {
        if self.observe { OpenMode::ReadOnly } else { OpenMode::ReadWrite }
    }

    fn look(&mut self) {
        let mode = self.mode();
        for managed in &mut self.keys {
            if managed.look(&self.place, &self.tree, mode, &mut self.buffer) {
                // The value on record went with the file that had it.
                self.ledger.forget_with_siblings(&managed.key);
            }
            managed.recall(&self.ledger);
        }
    }

    fn note_drift(&mut self) {
        for managed in &mut self.keys {
            if managed.drifted_since(&self.ledger) {
                self.counters.drift += 1;
                warn!(
                    key = %managed.key,
                    value = managed.shown().unwrap_or_default(),
                    want = managed.policy.want.to_string(),
                    "drifted: another writer changed it"
                );
            }
        }
    }

    /// What is to be written, in order.
    pub fn plan(&mut self, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let tree = &self.tree;
        for (index, managed) in self.keys.iter_mut().enumerate() {
            if let Some((from, to)) = managed.wish(now, |managed| circumstances(tree, managed)) {
                changes.push(Change { index, key: managed.key.clone(), from, to });
            }
        }
        plan::order(&mut changes);
        changes
    }

    /// Puts the originals of what is about to change on record, in one write of the ledger.
    pub fn record(&mut self, changes: &[Change]) {
        for change in changes {
            let Some(managed) = self.keys.get(change.index) else { continue };
            let now = managed.text().unwrap_or_default();
            let siblings = sibling_values(&self.tree, &change.key, now);
            self.ledger.intend(&change.key, now, &change.to.to_string());
            for (key, value) in siblings {
                self.ledger.sibling(&key, &value, &change.key);
            }
        }
        self.save_ledger();
    }

    fn save_ledger(&mut self) {
        let notice = self.ledger.save().err().map(|notice| notice.to_string());
        if let Some(reason) = notice.as_ref().filter(|_| self.save_notice != notice) {
            warn!(reason, "ledger");
        }
        self.save_notice = notice;
    }

    /// Says what was wrong when the ledger was opened. Tuning goes on.
    pub fn ledger_trouble(&mut self, notice: &Notice) {
        let reason = notice.to_string();
        warn!(reason, "ledger");
        self.load_notice = Some(reason);
    }

    /// Writes each change with one `write(2)`, and reads back. One key's failure never stops
    /// another's. How many were put in force.
    pub fn write(&mut self, changes: Vec<Change>) -> usize {
        let before = self.counters.ok;
        for change in changes {
            let result = self.write_one(&change);
            let counter = match result {
                WriteResult::Ok => &mut self.counters.ok,
                WriteResult::Rejected => &mut self.counters.rejected,
                WriteResult::Denied => &mut self.counters.denied,
                WriteResult::Mismatch => &mut self.counters.mismatch,
            };
            *counter += 1;
        }
        // A write can change other keys too.
        self.look();
        usize::try_from(self.counters.ok - before).unwrap_or(usize::MAX)
    }

    fn write_one(&mut self, change: &Change) -> WriteResult {
        let mode = self.mode();
        let Some(managed) = self.keys.get_mut(change.index) else { return WriteResult::Denied };
        let Some(file) = &managed.file else { return WriteResult::Denied };
        let text_before = managed.text().map(str::to_owned);
        let siblings = self.ledger.siblings_of(&change.key);
        let siblings: Vec<_> =
            siblings.into_iter().map(|key| (read(&self.tree, &key), key)).collect();
        let written = file.write(&change.to.to_string());
        // Read back whatever the answer was.
        managed.look(&self.place, &self.tree, mode, &mut self.buffer);
        let refused = matches!(written, Err(WriteError::Refused(_)));
        let fields = change.to.ints().map_or(1, <[i128]>::len);
        if refused && fields > 1 && managed.text() != text_before.as_deref() {
            // The kernel applies the fields before the one that it refuses (do_proc_dointvec).
            if let (Some(file), Some(text)) = (&managed.file, &text_before) {
                let _ = file.write(text);
            }
            managed.look(&self.place, &self.tree, mode, &mut self.buffer);
        }
        let (result, trouble) = match written {
            Ok(()) if managed.took(&change.to) => (WriteResult::Ok, None),
            Ok(()) => {
                let around = circumstances(&self.tree, managed);
                (managed.mismatched(&change.to, around, None), None)
            }
            Err(WriteError::Refused(error)) => {
                let around = circumstances(&self.tree, managed);
                let trouble = error.to_string();
                (managed.refused(change.to.clone(), &error, around), Some(trouble))
            }
            Err(error @ WriteError::Short { .. }) => {
                let around = circumstances(&self.tree, managed);
                let trouble = error.to_string();
                (managed.mismatched(&change.to, around, Some(trouble.clone())), Some(trouble))
            }
        };
        match managed.text() {
            Some(text) if !refused || text_before.as_deref() != Some(text) => {
                self.ledger.stored(&change.key, text, managed.is_rounded());
                store_siblings(&self.tree, &mut self.ledger, &change.key, siblings);
            }
            _ => self.ledger.refused(&change.key),
        }
        let (old, new) = (show(&change.from.to_string()), show(&change.to.to_string()));
        let why = format!("{} ({})", managed.policy.want, managed.policy.source);
        if result == WriteResult::Ok {
            let new = managed.shown().unwrap_or(new);
            info!(key = %change.key, old, new, why, "set");
        } else {
            let detail = managed.status(false, &self.ledger).detail;
            let reason = trouble.or(detail);
            warn!(key = %change.key, old, new, why, reason, "not set");
        }
        result
    }

    /// Every key's status, by name.
    #[must_use]
    pub fn status(&self) -> Vec<KeyStatus> {
        self.keys.iter().map(|managed| managed.status(self.observe, &self.ledger)).collect()
    }

    /// What was written and what drifted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What is wrong with the ledger, if anything.
    #[must_use]
    pub fn ledger_notice(&self) -> Option<&str> {
        self.load_notice.as_deref().or(self.save_notice.as_deref())
    }

    /// Whether it only looks from now on.
    pub fn set_observe(&mut self, observe: bool) {
        if self.observe != observe {
            self.observe = observe;
            // Opened for the other purpose.
            self.keys.iter_mut().for_each(|managed| managed.file = None);
        }
    }

    /// Puts back the originals of keys that are on record and no longer wanted, where the value
    /// is still ours.
    pub fn restore_unconfigured(&mut self) -> Result<Vec<Restored>, NetnsError> {
        let wanted: Vec<Key> = self.keys.iter().map(|managed| managed.key.clone()).collect();
        self.restore(|key| !wanted.contains(key))
    }

    /// Puts back the originals of the keys that `which` chooses.
    pub fn restore(
        &mut self,
        which: impl Fn(&Key) -> bool + Send,
    ) -> Result<Vec<Restored>, NetnsError> {
        let restored = self.netns.clone().run(|| {
            let restored = restore(&self.tree, &self.place, &mut self.ledger, which);
            self.save_ledger();
            // What came back along with them is no other writer's doing.
            self.look();
            self.keys.iter_mut().for_each(Managed::excuse);
            restored
        })?;
        Ok(restored)
    }
}

/// The values that decide whether a refused write is worth another attempt: the key's own, its
/// siblings', those of keys that the kernel checks it against.
fn circumstances(tree: &SysctlTree, managed: &Managed) -> String {
    let related = plan::related(managed.key.as_str()).iter().filter_map(|key| Key::parse(key).ok());
    let others = sibling_keys(&managed.key).into_iter().chain(related);
    let values = others.map(|key| read(tree, &key).unwrap_or_default());
    let own = managed.text().unwrap_or_default().to_owned();
    std::iter::once(own).chain(values).collect::<Vec<_>>().join("\n")
}

fn read(tree: &SysctlTree, key: &Key) -> Option<String> {
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
fn store_siblings(
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
