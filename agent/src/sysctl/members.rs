//! The keys that patterns mean: found anew whenever interfaces come, go or are renamed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::ErrorKind;

use tracing::{debug, warn};

use super::engine::Engine;
use super::glob::{Glob, Subject};
use super::key::Key;
use super::ledger::Ledger;
use super::managed::{Managed, show};
use super::policy::{OnConflict, Policy};
use super::state::{KeyStatus, Members, Numbers, State, WrittenMember};
use crate::kernel::errno::of_io;
use crate::kernel::system;

/// Most keys of one pattern.
const MOST: usize = 4096;
/// Descriptors that are left for everything else.
const SPARE: u64 = 256;
/// How many members that are not as wanted, or were written, are named.
const NAMED: usize = 20;

/// A pattern under management.
#[derive(Debug)]
pub struct Pattern {
    /// The pattern.
    pub glob: Glob,
    /// What is wanted of each key.
    pub policy: Policy,
    /// Keys beyond what is managed.
    cut: usize,
    /// Whether that was said.
    said: bool,
    /// Interfaces whose names no key can have.
    nameless: usize,
    /// Why its directory could not be read.
    obstacle: Option<(State, String)>,
}

impl Pattern {
    /// A pattern that has found nothing yet.
    #[must_use]
    pub fn new(glob: Glob, policy: Policy) -> Self {
        Self { glob, policy, cut: 0, said: false, nameless: 0, obstacle: None }
    }

    /// One object for all its keys: in sync when all are.
    pub fn status<'m>(
        &self,
        observe: bool,
        ledger: &Ledger,
        members: impl Iterator<Item = &'m Managed>,
    ) -> KeyStatus {
        // A directory that lacks the file is none that the pattern means.
        let (absent, members): (Vec<_>, Vec<_>) = members.partition(|member| member.is_pending());
        let worst = members.iter().min_by_key(|member| (member.state(observe), member.met()));
        let unmet = members.iter().filter(|member| !member.met());
        let in_sync = members.len() - unmet.clone().count();
        let written = written(&members);
        let counted = Members {
            total: members.len(),
            in_sync,
            cut: self.cut,
            not_in_sync: unmet.take(NAMED).map(|member| member.key.to_string()).collect(),
            written,
        };
        let state = match (&self.obstacle, worst) {
            (Some((state, _)), _) => *state,
            (None, Some(worst)) => worst.state(observe),
            (None, None) if !absent.is_empty() => State::Pending,
            (None, None) if observe || self.policy.on_conflict == OnConflict::Report => {
                State::Observed
            }
            (None, None) => State::InSync,
        };
        // Of thousands of keys one is described: the worst.
        let described = worst.or(absent.first()).map(|member| member.status(observe, ledger));
        KeyStatus {
            key: Subject::Glob(self.glob.clone()),
            state,
            in_sync: self.obstacle.is_none()
                && counted.in_sync == counted.total
                && (counted.total > 0 || absent.is_empty()),
            required: self.policy.required && !observe,
            want: show(&self.policy.want.to_string()),
            desired: None,
            actual: values(&members),
            original: None,
            on_conflict: self.policy.on_conflict,
            source: self.policy.source.to_string(),
            reason: self.policy.reason.clone(),
            detail: self.detail(described.as_ref(), &counted),
            last_write: counted.written.first().map(|member| member.last_write.clone()),
            disk: None,
            pods: None,
            pods_note: None,
            members: Some(counted),
            numbers: Numbers::default(),
        }
    }

    fn detail(&self, described: Option<&KeyStatus>, counted: &Members) -> Option<String> {
        let mut parts = Vec::new();
        if let Some((_, why)) = &self.obstacle {
            parts.push(why.clone());
        }
        match described {
            Some(member) if counted.total > 0 => {
                let unmet = counted.total - counted.in_sync;
                let of = (unmet > 0).then(|| format!("{unmet} of {} not met", counted.total));
                let named = member.detail.as_ref().map(|why| format!("{}: {why}", member.key));
                parts.extend(of.into_iter().chain(named));
            }
            Some(absent) => parts.extend(absent.detail.clone()),
            None if self.obstacle.is_none() => parts.push("no interface matches now".to_owned()),
            None => {}
        }
        let (cut, nameless) = (self.cut, self.nameless);
        if cut > 0 {
            parts.push(format!(
                "{cut} more keys match and are not managed: at most {MOST} a pattern, and no more \
                 than open files allow (RLIMIT_NOFILE)"
            ));
        }
        if nameless > 0 {
            parts.push(format!(
                "{nameless} interfaces have names that no key can have, and are left alone"
            ));
        }
        Some(parts.join("; ")).filter(|text| !text.is_empty())
    }
}

fn written(members: &[&Managed]) -> Vec<WrittenMember> {
    let written = members.iter().filter(|member| member.last_write.is_some());
    let mut written: Vec<_> = written.collect();
    written.sort_by_key(|member| std::cmp::Reverse(member.last_write.as_ref().map(|last| last.at)));
    let write = |member: &&Managed| {
        Some(WrittenMember {
            key: member.key.clone().into(),
            last_write: member.last_write.clone()?,
        })
    };
    written.into_iter().take(NAMED).filter_map(write).collect()
}

/// The one value that all have, or how many have which.
fn values(members: &[&Managed]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for value in members.iter().filter_map(|member| member.text()) {
        *counts.entry(value).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    match counts.as_slice() {
        [] => None,
        [(value, _)] => Some(show(value)),
        several => {
            let several = several.iter().take(4);
            let shown = several.map(|(value, count)| format!("{} ({count})", show(value)));
            Some(shown.collect::<Vec<_>>().join(", "))
        }
    }
}

impl Engine {
    /// The pattern that decides about a key, if any does: the last that matches.
    pub(super) fn pattern_of(&self, key: &Key) -> Option<usize> {
        self.patterns.iter().rposition(|pattern| pattern.glob.covers(key))
    }

    /// Finds the keys that patterns mean now. Reads directories only, which takes no RTNL.
    pub(super) fn find_members(&mut self) {
        if self.patterns.is_empty() {
            return;
        }
        let mut names = BTreeMap::new();
        for index in 0..self.patterns.len() {
            let directory = self.patterns[index].glob.directory();
            let listed =
                names.entry(directory.clone()).or_insert_with(|| self.tree.list(&directory));
            self.patterns[index].obstacle = match listed {
                Ok(_) => None,
                Err(error) if error.kind() == ErrorKind::NotFound => Some((
                    State::Pending,
                    format!("/proc/sys/{directory} does not exist: its module is not loaded"),
                )),
                Err(error) => Some((
                    State::Denied,
                    format!("cannot read /proc/sys/{directory}: {:?}", of_io(error)),
                )),
            };
        }
        if let Some(why) = self.wrong_netns() {
            for pattern in &mut self.patterns {
                pattern.obstacle = Some((State::Unsupported, why.clone()));
            }
            return self.take_members(&BTreeMap::new());
        }
        let unread = |directory: &str| names.get(directory).is_none_or(Result::is_err);
        if self.patterns.iter().any(|pattern| {
            unread(&pattern.glob.directory())
                && !matches!(pattern.obstacle, Some((State::Pending, _)))
        }) {
            // What is there is not known: what was found before stays.
            return;
        }
        let wanted = self.wanted(&names);
        self.take_members(&wanted);
    }

    fn wrong_netns(&self) -> Option<String> {
        let example = self.patterns.first()?.glob.example()?;
        self.place.unsupported(&example, None)
    }

    fn wanted(
        &mut self,
        names: &BTreeMap<String, std::io::Result<Vec<OsString>>>,
    ) -> BTreeMap<Key, usize> {
        let own: BTreeSet<&Key> =
            self.keys.iter().filter(|it| it.member_of.is_none()).map(|it| &it.key).collect();
        // Before Linux 5.19 each file that is watched takes a second descriptor.
        let room = system::open_files_limit().saturating_sub(SPARE + own.len() as u64) / 2;
        let mut room = usize::try_from(room).unwrap_or(usize::MAX);
        let mut wanted = BTreeMap::new();
        // From the last: it counts before those above it.
        for (index, pattern) in self.patterns.iter_mut().enumerate().rev() {
            let names = names.get(&pattern.glob.directory());
            let Some(names) = names.and_then(|names| names.as_ref().ok()) else { continue };
            let mut names: Vec<&OsString> = names.iter().collect();
            // `all` and `default` first: they are the last to be left out.
            names.sort_by_key(|name| (*name != "all", *name != "default", *name));
            (pattern.cut, pattern.nameless) = (0, 0);
            let mut taken = 0;
            for name in names {
                let Some(key) = pattern.glob.key(name) else {
                    let matches = name.to_str().is_none_or(|name| pattern.glob.matches(name));
                    pattern.nameless += usize::from(matches);
                    continue;
                };
                if own.contains(&key) || wanted.contains_key(&key) {
                    continue;
                }
                if taken == MOST || room == 0 {
                    pattern.cut += 1;
                    continue;
                }
                taken += 1;
                room -= 1;
                wanted.insert(key, index);
            }
        }
        wanted
    }

    /// Keeps the members that are still wanted, with their history, and takes the new ones.
    fn take_members(&mut self, wanted: &BTreeMap<Key, usize>) {
        let mut known = BTreeMap::new();
        let mut own = Vec::with_capacity(self.keys.len());
        for managed in self.keys.drain(..) {
            match managed.member_of {
                None => own.push(managed),
                Some(_) => drop(known.insert(managed.key.clone(), managed)),
            }
        }
        self.keys = own;
        for (key, index) in wanted {
            let policy = &self.patterns[*index].policy;
            let managed = match known.remove(key) {
                Some(known) if known.member_of == Some(*index) => known,
                other => Managed::again(other, key.clone(), policy.clone(), Some(*index)),
            };
            self.keys.push(managed);
        }
        for (key, managed) in known {
            // One that is merely beyond the bound keeps its record.
            if managed.has_left() {
                debug!(%key, "the interface is gone");
                self.departed.push((key, managed.left()));
            }
        }
        for pattern in &mut self.patterns {
            if pattern.cut > 0 && !pattern.said {
                warn!(pattern = %pattern.glob, left_out = pattern.cut, "more keys match than are managed");
            }
            pattern.said = pattern.cut > 0;
        }
    }
}
