//! Putting originals back.

use std::collections::{BTreeSet, HashSet};

use schemars::JsonSchema;
use serde::Serialize;
use tracing::{info, warn};

use super::catalogue;
use super::engine::Engine;
use super::glob::Glob;
use super::key::Key;
use super::ledger::{Ledger, Record};
use super::managed::{Managed, show};
use super::place::{Net, Place};
use super::plan::{self, Change};
use super::siblings::{Values, keep_under_switch, note_reached, reached, read_back, value_of};
use super::value::{Shape, Value};
use crate::kernel::links;
use crate::kernel::netns::NetnsError;
use crate::kernel::sysctl_file::{OpenMode, SysctlFile, SysctlTree};

/// What came of putting one original back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum Outcome {
    /// The original is in force again.
    Restored,
    /// It was in force already.
    AlreadyThere,
    /// Somebody else has changed it since: theirs stays.
    LeftAlone,
    /// The key is gone, with its module or interface.
    Gone,
    /// It could not be put back, and stays on record.
    Failed {
        /// Why.
        reason: String,
    },
}

/// One original and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Restored {
    /// The key.
    #[schemars(with = "String")]
    pub key: Key,
    /// The value before, escaped.
    pub found: Option<String>,
    /// The original, escaped.
    pub original: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

struct Candidate {
    key: Key,
    record: Record,
    shape: Shape,
    found: Result<(SysctlFile, String), Outcome>,
}

impl Engine {
    /// Puts back the originals of keys that are on record and no longer wanted, where the value
    /// is still ours.
    pub fn restore_unconfigured(&mut self) -> Result<Vec<Restored>, NetnsError> {
        let wanted: HashSet<Key> = self.keys.iter().map(|managed| managed.key.clone()).collect();
        let globs: Vec<Glob> = self.patterns.iter().map(|pattern| pattern.glob.clone()).collect();
        // Before the first pass no pattern has found its keys.
        self.restore(|key| !wanted.contains(key) && !globs.iter().any(|glob| glob.covers(key)))
    }

    /// The record of a key that was written to let a table grow, and the value now, where that is
    /// still ours.
    pub fn grown(&self, key: &Key) -> Result<Option<(Record, String)>, NetnsError> {
        let Some(record) = self.ledger.get(key).filter(|record| record.grown) else {
            return Ok(None);
        };
        let (tree, key) = (&self.tree, key.clone());
        let now = self.netns.clone().run(|| value_of(tree, &key))?;
        let ours = now.filter(|now| record.is_ours(&key, now));
        Ok(ours.map(|now| (record.clone(), now)))
    }

    /// Puts back the originals of the keys that `which` chooses.
    pub fn restore(
        &mut self,
        which: impl Fn(&Key) -> bool + Send,
    ) -> Result<Vec<Restored>, NetnsError> {
        let restored = self.netns.clone().run(|| {
            // What another writer did before is its doing, and what comes back along with the
            // originals is not.
            let gone = follow_interfaces(&self.place, &mut self.ledger);
            let all = self.all();
            self.look_without_following(&all);
            self.note_drift(&all);
            let restored = restore(&self.tree, &self.place, &mut self.ledger, gone, which);
            self.save_ledger();
            self.look(&all);
            if !restored.is_empty() {
                self.keys.iter_mut().for_each(Managed::excuse);
            }
            restored
        })?;
        Ok(restored)
    }
}

/// Puts back the originals of the keys that `which` chooses, where the value is still ours, and
/// forgets them. What fails or is another writer's now stays on record. A key that was changed
/// only because a sibling was written follows that sibling. `gone`: what was on record of
/// interfaces that are gone.
///
/// Runs in the calling thread's network namespace.
pub fn restore(
    tree: &SysctlTree,
    place: &Place,
    ledger: &mut Ledger,
    gone: Vec<(Key, Record)>,
    which: impl Fn(&Key) -> bool,
) -> Vec<Restored> {
    let mut candidates: Vec<Candidate> = ledger
        .iter()
        .filter(|(key, record)| match &record.sibling_of {
            Some(written) => Key::parse(written).is_ok_and(|written| which(&written)) && which(key),
            None => which(key),
        })
        .map(|(key, record)| candidate(tree, place, key, record.clone()))
        .collect();
    sort(&mut candidates);
    let others = announce(tree, ledger, &candidates);
    let (mut done, mut failed, mut back) = (Vec::new(), BTreeSet::new(), Vec::new());
    for candidate in &candidates {
        let restored = restore_one(tree, &candidates, candidate);
        report(&restored);
        // What will change along when its sibling is put back after all is needed then.
        let waits = candidate.record.sibling_of.as_ref().is_some_and(|it| failed.contains(it));
        match restored.outcome {
            Outcome::Failed { .. } => {
                failed.insert(restored.key.as_str().to_owned());
                ledger.reinstate(&restored.key, candidate.record.clone());
            }
            _ if waits => ledger.reinstate(&restored.key, candidate.record.clone()),
            // The original is still the original, should the agent ever write the key again.
            Outcome::LeftAlone if candidate.record.sibling_of.is_none() => {
                ledger.disown(&restored.key);
            }
            Outcome::Restored | Outcome::AlreadyThere => {
                ledger.forget(&restored.key);
                back.push(candidate);
            }
            _ => ledger.forget(&restored.key),
        }
        // What came back along with another key is no news.
        let quiet = matches!(restored.outcome, Outcome::AlreadyThere | Outcome::Gone);
        if candidate.record.sibling_of.is_none() || !quiet {
            done.push(restored);
        }
    }
    for Candidate { key, record, .. } in back {
        keep_under_switch(ledger, key, record.clone());
    }
    for (written, others) in others {
        read_back(tree, ledger, &written, others);
    }
    let gone = gone.into_iter().filter(|(key, record)| record.sibling_of.is_none() && which(key));
    done.extend(gone.map(|(key, record)| {
        let original = show(&record.original);
        Restored { key, found: None, original, outcome: Outcome::Gone }
    }));
    done
}

/// Holds what is on record against the interfaces there are now. What is returned was of such as
/// are gone.
pub(super) fn follow_interfaces(place: &Place, ledger: &mut Ledger) -> Vec<(Key, Record)> {
    // In another namespace they would all seem to be gone; and where `lo` cannot be asked for,
    // nothing can.
    let right_place = !matches!(place.net, Net::Wrong(_)) && links::name_of(1).is_some();
    if right_place { ledger.follow(links::key_name_of) } else { Vec::new() }
}

/// Puts on record what is about to be put back and what the kernel changes along with it: the
/// agent may die half-way, and what it has done by then is its own doing. Returns what changes
/// along and stays on record, with the values before.
fn announce(
    tree: &SysctlTree,
    ledger: &mut Ledger,
    candidates: &[Candidate],
) -> Vec<(Key, Values)> {
    let mut writes = Vec::new();
    for Candidate { key, record, shape, found } in candidates {
        let Ok((_, now)) = found else { continue };
        let back = shape.read(now) == shape.read(&record.original);
        if record.sibling_of.is_none() && !back && record.is_ours(key, now) {
            ledger.intend(key, now, &record.original);
            writes.push((key, &record.original));
        }
    }
    let mut others = Vec::new();
    for (key, original) in writes {
        let mut reached = reached(tree, ledger, key);
        note_reached(ledger, key, original, &reached);
        reached.retain(|(key, _)| candidates.iter().all(|candidate| candidate.key != *key));
        others.push((key.clone(), reached));
    }
    // If it cannot be saved now, it cannot be saved afterwards either, and that is said.
    let _ = ledger.save();
    others
}

fn candidate(tree: &SysctlTree, place: &Place, key: Key, record: Record) -> Candidate {
    let entry = catalogue::lookup(&key);
    let shape =
        entry.and_then(|entry| entry.shape()).unwrap_or_else(|| Shape::learn(&record.original));
    let found = match place.unsupported(&key, entry.as_ref()) {
        Some(reason) => Err(Outcome::Failed { reason }),
        None => open(tree, &key),
    };
    Candidate { key, record, shape, found }
}

fn open(tree: &SysctlTree, key: &Key) -> Result<(SysctlFile, String), Outcome> {
    use nix::errno::Errno;
    let failed = |error: crate::kernel::errno::FileError| match error.errno {
        Errno::ENOENT | Errno::ENOTDIR => Outcome::Gone,
        _ => Outcome::Failed { reason: error.to_string() },
    };
    let file = tree.open_key(key.as_str(), &key.path(), OpenMode::ReadWrite).map_err(failed)?;
    let text = read(&file).map_err(failed)?;
    Ok((file, text))
}

fn read(file: &SysctlFile) -> Result<String, crate::kernel::errno::FileError> {
    let mut buffer = Vec::new();
    file.read(&mut buffer).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// Keys that were written come before what changed along with them; among each other they are
/// put back in the order in which they would be written.
fn sort(candidates: &mut [Candidate]) {
    let mut changes: Vec<Change> = candidates
        .iter()
        .enumerate()
        .map(|(index, candidate)| Change {
            index,
            key: candidate.key.clone(),
            from: candidate
                .found
                .as_ref()
                .map_or(Value::Ints(vec![]), |(_, text)| candidate.shape.read(text)),
            to: candidate.shape.read(&candidate.record.original),
        })
        .collect();
    plan::order(&mut changes);
    let order: Vec<Key> = changes.into_iter().map(|change| change.key).collect();
    candidates.sort_by_cached_key(|candidate| {
        (candidate.record.sibling_of.is_some(), order.iter().position(|key| *key == candidate.key))
    });
}

fn restore_one(tree: &SysctlTree, all: &[Candidate], candidate: &Candidate) -> Restored {
    let original = &candidate.record.original;
    let (found, outcome) = match &candidate.found {
        Err(outcome) => (None, outcome.clone()),
        Ok((file, before)) => {
            // The write of a sibling may have changed it since it was looked at.
            let now = read(file).unwrap_or_else(|_| before.clone());
            (Some(show(before)), put_back(tree, all, candidate, file, before, &now))
        }
    };
    Restored { key: candidate.key.clone(), found, original: show(original), outcome }
}

fn put_back(
    tree: &SysctlTree,
    all: &[Candidate],
    candidate: &Candidate,
    file: &SysctlFile,
    before: &str,
    now: &str,
) -> Outcome {
    let Candidate { key, record, shape, .. } = candidate;
    let is_back = |text: &str| shape.read(text) == shape.read(&record.original);
    if is_back(now) {
        return Outcome::AlreadyThere;
    }
    // Putting another key back may just have changed this one: what counts is what was there before
    // anything was put back.
    let rounds = catalogue::lookup(key).is_some_and(|entry| entry.has("rounds"));
    if !is_back(before) && !record.still_ours(*shape, rounds, before) {
        return Outcome::LeftAlone;
    }
    let refused = match file.write(&record.original) {
        Ok(()) => None,
        Err(error) => Some(error.to_string()),
    };
    if refused.is_some() {
        // Some originals cannot be written: vm.dirty_bytes shows 0 while vm.dirty_ratio rules.
        // Writing the sibling's original brings both back.
        restore_through_sibling(tree, all, key);
    }
    match read(file) {
        Ok(text) if is_back(&text) => Outcome::Restored,
        Ok(text) => Outcome::Failed {
            reason: refused
                .unwrap_or_else(|| format!("the kernel shows {} after the write", show(&text))),
        },
        Err(error) => Outcome::Failed { reason: error.to_string() },
    }
}

fn restore_through_sibling(tree: &SysctlTree, all: &[Candidate], key: &Key) {
    let siblings =
        all.iter().filter(|other| other.record.sibling_of.as_deref() == Some(key.as_str()));
    for sibling in siblings {
        if let Ok((file, _)) = open(tree, &sibling.key) {
            // What it came to is seen when both are read back.
            let _ = file.write(&sibling.record.original);
        }
    }
}

fn report(restored: &Restored) {
    let Restored { key, found, original, outcome } = restored;
    let old = found.as_deref().unwrap_or_default();
    match outcome {
        Outcome::Restored => info!(%key, old, new = original, why = "original", "set"),
        Outcome::Failed { reason } => warn!(%key, old, new = original, reason, "not restored"),
        Outcome::LeftAlone => {
            info!(%key, value = old, original, "not restored: changed by another writer since");
        }
        Outcome::AlreadyThere | Outcome::Gone => {}
    }
}
