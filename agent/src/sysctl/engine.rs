//! The sysctl engine: reads all, plans, writes what differs, reads back, gives each key its state.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::glob::Glob;
use super::key::Key;
use super::ledger::{Ledger, Notice};
use super::managed::{Managed, Seen};
use super::marks::Marks;
use super::members::Pattern;
use super::place::Place;
use super::plan::{self, Change};
use super::policy::{Policy, Source};
use super::siblings::{changes_others, circumstances, note_along, original_under_switch};
use super::state::KeyStatus;
use crate::kernel::links;
use crate::kernel::netns::{Netns, NetnsError};
use crate::kernel::sysctl_file::{OpenMode, SysctlTree};

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
    pub(super) place: Place,
    pub(super) tree: Arc<SysctlTree>,
    pub(super) netns: Netns,
    /// Whether what it sets is worth a line of the log each.
    pub(super) quiet: bool,
    /// Values, as they are shown, that may be overwritten: of these keys no other may.
    pub(super) expected: BTreeMap<Key, Option<String>>,
    /// Whether one of them was found to be another by the time of the write.
    pub(super) overtaken: bool,
    observe: bool,
    /// Keys with a policy of their own, then those that a pattern has found.
    pub(super) keys: Vec<Managed>,
    pub(super) patterns: Vec<Pattern>,
    pub(super) ledger: Ledger,
    pub(super) marks: Marks,
    /// Keys whose file went away, and whose record has not followed yet.
    pub(super) departed: Vec<(Key, Seen)>,
    /// Why the ledger could not be read; stays, since what it knew is not known.
    load_notice: Option<String>,
    /// Whether what is on record from an earlier run was held against the interfaces of today.
    pub(super) followed: bool,
    /// Why it cannot be written now.
    save_notice: Option<String>,
    /// Keys that the last pass put in force.
    pub(super) written: Vec<Key>,
    pub(super) buffer: Vec<u8>,
    pub(super) counters: Counters,
}

/// The keys that a pass is about, by their place in the engine's list.
pub(super) type Chosen = Vec<usize>;

impl Engine {
    /// An engine that has looked at nothing yet. `observe`: it never writes, and opens nothing
    /// for writing.
    #[must_use]
    pub fn new(
        place: Place,
        tree: impl Into<Arc<SysctlTree>>,
        netns: Netns,
        observe: bool,
        ledger: Ledger,
    ) -> Self {
        Self {
            place,
            tree: tree.into(),
            netns,
            quiet: false,
            expected: BTreeMap::new(),
            overtaken: false,
            observe,
            keys: Vec::new(),
            patterns: Vec::new(),
            ledger,
            marks: Marks::default(),
            departed: Vec::new(),
            load_notice: None,
            followed: false,
            save_notice: None,
            written: Vec::new(),
            buffer: Vec::new(),
            counters: Counters::default(),
        }
    }

    /// Logs what it sets for those alone who want every detail: of a thousand pods, each key's line
    /// would be most of the log.
    #[must_use]
    pub fn quietly(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Says which value each of some keys may have for it to be overwritten. Right before the write
    /// it is looked at again.
    pub fn expect(&mut self, expected: BTreeMap<Key, Option<String>>) {
        self.expected = expected;
        self.overtaken = false;
    }

    /// The keys that the last pass put in force.
    #[must_use]
    pub fn written(&self) -> &[Key] {
        &self.written
    }

    /// Whether another writer changed such a key meanwhile, which was left alone then.
    #[must_use]
    pub fn was_overtaken(&self) -> bool {
        self.overtaken
    }

    /// Sets what is wanted. A key of which the same is wanted keeps its history; what the kernel
    /// refused is tried again. Of the patterns the last that matches counts, and a key's own
    /// policy before any.
    pub fn configure(&mut self, policies: BTreeMap<Key, Policy>, globs: Vec<(Glob, Policy)>) {
        let mut known: BTreeMap<Key, Managed> =
            self.keys.drain(..).map(|managed| (managed.key.clone(), managed)).collect();
        self.patterns =
            globs.into_iter().map(|(glob, policy)| Pattern::new(glob, policy)).collect();
        for (key, policy) in policies {
            let kept = known.remove(&key);
            self.keys.push(Managed::again(kept, key, policy, None));
        }
        // Those that a pattern still means are found again in the next pass, with their history.
        for (key, managed) in known {
            if let Some(index) = self.pattern_of(&key) {
                let policy = self.patterns[index].policy.clone();
                self.keys.push(Managed::again(Some(managed), key, policy, Some(index)));
            }
        }
        self.renumber_marks();
    }

    /// One pass: read all, plan, write what differs with one `write(2)` a key, read back. The
    /// same when nothing has drifted, and then it only reads.
    pub fn pass(&mut self, now: Instant) -> Result<(), NetnsError> {
        self.netns.clone().run(|| {
            self.follow_record();
            self.find_members();
            self.work(self.all(), now);
        })
    }

    /// A pass over what links have to do with: interfaces came, went, or were renamed.
    pub fn pass_appeared(&mut self, now: Instant) -> Result<(), NetnsError> {
        self.netns.clone().run(|| {
            self.follow_record();
            self.find_members();
            let chosen = (0..self.keys.len()).filter(|&index| self.keys[index].may_appear());
            self.work(chosen.collect(), now);
        })
    }

    /// A pass over some keys alone.
    pub(super) fn pass_over(&mut self, chosen: Vec<usize>, now: Instant) -> Result<(), NetnsError> {
        if chosen.is_empty() {
            return Ok(());
        }
        self.netns.clone().run(|| self.work(chosen, now))
    }

    fn work(&mut self, mut chosen: Chosen, now: Instant) {
        self.written.clear();
        self.look(&chosen);
        self.note_drift(&chosen);
        if !self.observe {
            for _ in 0..=FURTHER_PASSES {
                let mut changes = self.plan_of(&chosen, now);
                if changes.is_empty() {
                    break;
                }
                if changes.iter().any(|change| changes_others(&change.key)) {
                    // What others did to the rest is theirs only as long as nothing is written.
                    let rest = self.rest_of(&chosen);
                    self.look(&rest);
                    self.note_drift(&rest);
                    changes.extend(self.plan_of(&rest, now));
                    plan::order(&mut changes);
                    chosen = self.all();
                }
                self.record(&changes);
                if self.write_and_look(changes, &chosen) == 0 {
                    break;
                }
                // What was written may be what a refused key was waiting for.
                self.keys.iter_mut().for_each(Managed::reconsider);
            }
            for &index in &chosen {
                let Some(managed) = self.keys.get(index) else { continue };
                if let (true, Some(text)) = (managed.met(), managed.text()) {
                    self.ledger.confirm(&managed.key, text, managed.is_rounded());
                }
            }
            self.save_ledger();
        }
        for index in chosen {
            self.keys[index].settle(now);
        }
    }

    pub(super) fn all(&self) -> Chosen {
        (0..self.keys.len()).collect()
    }

    /// The others. Chosen keys are in order.
    pub(super) fn rest_of(&self, chosen: &Chosen) -> Chosen {
        (0..self.keys.len()).filter(|index| chosen.binary_search(index).is_err()).collect()
    }

    /// Reads everything and plans, without writing: what a pass would change.
    pub fn preview(&mut self, now: Instant) -> Result<Vec<Change>, NetnsError> {
        self.netns.clone().run(|| {
            self.follow_record();
            self.find_members();
            self.look(&self.all());
            self.plan(now)
        })
    }

    pub(super) fn mode(&self) -> OpenMode {
        if self.observe { OpenMode::ReadOnly } else { OpenMode::ReadWrite }
    }

    /// What is to be written, in order.
    pub fn plan(&mut self, now: Instant) -> Vec<Change> {
        self.plan_of(&self.all(), now)
    }

    fn plan_of(&mut self, chosen: &Chosen, now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        let tree = &self.tree;
        for &index in chosen {
            let Some(managed) = self.keys.get_mut(index) else { continue };
            if let Some((from, to)) = managed.wish(now, |managed| circumstances(tree, managed)) {
                changes.push(Change { index, key: managed.key.clone(), from, to });
            }
        }
        plan::order(&mut changes);
        changes
    }

    /// Puts the originals of what is about to change on record, in one write of the ledger.
    pub fn record(&mut self, changes: &[Change]) {
        let texts: Vec<(&Change, &str)> = changes
            .iter()
            .filter_map(|change| {
                Some((change, self.keys.get(change.index)?.text().unwrap_or_default()))
            })
            .collect();
        // Before this pass's own switches are on record.
        for (change, now) in &texts {
            original_under_switch(&mut self.ledger, &change.key, now);
        }
        for (change, now) in &texts {
            if let Some(before) = self.keys.get(change.index).and_then(Managed::before_drift) {
                self.ledger.originate(&change.key, before);
            }
            self.ledger.intend(&change.key, now, &change.to.to_string());
            let grows = |managed: &Managed| managed.policy.source == Source::Autogrow;
            self.ledger.grows(&change.key, self.keys.get(change.index).is_some_and(grows));
        }
        // Then what is changed along, be it about to be written itself.
        for (change, now) in &texts {
            note_along(&self.tree, &mut self.ledger, &change.key, now, &change.to.to_string());
        }
        self.ledger.identify(links::index_of);
        self.save_ledger();
    }

    pub(super) fn save_ledger(&mut self) {
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
        self.write_and_look(changes, &self.all())
    }

    /// The status of every key with a policy of its own, by name, then of every pattern.
    #[must_use]
    pub fn status(&self) -> Vec<KeyStatus> {
        let own = self.keys.iter().filter(|managed| managed.member_of.is_none());
        let mut status: Vec<_> =
            own.map(|managed| managed.status(self.observe, &self.ledger)).collect();
        for (index, pattern) in self.patterns.iter().enumerate() {
            let members = self.keys.iter().filter(|managed| managed.member_of == Some(index));
            status.push(pattern.status(self.observe, &self.ledger, members));
        }
        status
    }

    /// The status of one key, also of one that a pattern has found.
    #[must_use]
    pub fn status_of(&self, key: &Key) -> Option<KeyStatus> {
        let managed = self.keys.iter().find(|managed| managed.key == *key)?;
        Some(managed.status(self.observe, &self.ledger))
    }

    /// What was written and what drifted since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Notes what a key was before the agent had to do with it, where nothing is on record of it.
    pub fn originate(&mut self, key: &Key, original: &str) {
        self.ledger.originate(key, original);
    }

    /// What is on record.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
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
            for managed in &mut self.keys {
                // Opened for the other purpose.
                managed.close();
                managed.forget_fight();
            }
        }
    }
}
