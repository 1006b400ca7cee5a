//! Which namespaces there are, by what was found at which path, and when each is to be visited.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{Identity, IdentityFrom, PodKey, PodState};
use crate::kernel::netns::NsId;

/// A file whose namespace is mounted on it a moment later is looked at again after this, then after
/// twice as long, and so on.
const FIRST_WAIT: Duration = Duration::from_millis(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// After this the mount is not late but missing.
pub const MISSING_AFTER: Duration = Duration::from_secs(1);

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Slot {
    /// A file on which a namespace may still be mounted.
    Waiting {
        /// When it appeared.
        since: Instant,
        /// When it is looked at again.
        next: Instant,
        /// Whether it was there before the agent was.
        late: bool,
    },
    /// A namespace.
    Netns(NsId),
    /// Something else, and why it is not looked at.
    Skipped(PodState, String),
}

/// One namespace.
#[derive(Debug)]
pub struct Space {
    /// Where it is mounted, the first found first.
    pub paths: Vec<PathBuf>,
    /// When it appeared.
    pub appeared: Instant,
    /// Whether it was there before the agent was.
    pub late: bool,
    /// The same, whatever became of it: many are found at once then.
    pub from_start: bool,
    /// Its cookie, once it was visited.
    pub cookie: Option<u64>,
    /// Whose it is.
    pub pod: Option<Arc<Identity>>,
    /// Why that is not known.
    pub unnamed: Option<String>,
    /// When the CNI result that names it appeared, until that was acted on.
    pub named_at: Option<Instant>,
    /// What it was found in last: a state and the keys; `None` before the first visit.
    pub last: Option<Last>,
    /// The visit that is under way.
    visiting: Option<u64>,
    /// What the next visit is for, if one is wanted.
    wanted: Option<Purpose>,
    /// When it is due again, and whether for a sweep.
    due: Option<(Instant, Purpose)>,
    /// Visits that failed one after another.
    pub failures: u32,
}

/// What the last visit came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// The state.
    pub state: PodState,
    /// Why.
    pub detail: Option<String>,
    /// The keys.
    pub keys: Arc<[PodKey]>,
}

/// What a visit is for. The greater one includes the lesser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// To see whether all is as it was.
    Sweep,
    /// The same, once the pod has begun.
    Settle,
    /// To apply what is wanted.
    Apply,
    /// The same, now that it is known what new namespaces have.
    ApplySurely,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Register {
    slots: BTreeMap<PathBuf, Slot>,
    spaces: HashMap<NsId, Box<Space>>,
    /// To be visited now, in this order: those that wait for their values, then the others.
    urgent: VecDeque<NsId>,
    queue: VecDeque<NsId>,
    /// Visits that were begun.
    visits: u64,
    /// Due again soon, because something is not settled; and for a sweep.
    soon: BTreeSet<(Instant, NsId)>,
    sweeps: BTreeSet<(Instant, NsId)>,
    waiting: BTreeSet<(Instant, PathBuf)>,
}

impl Register {
    /// What is at a path.
    #[must_use]
    pub fn slot(&self, path: &Path) -> Option<&Slot> {
        self.slots.get(path)
    }

    /// All paths.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.slots.keys()
    }

    /// A namespace.
    #[must_use]
    pub fn space(&self, id: NsId) -> Option<&Space> {
        self.spaces.get(&id).map(AsRef::as_ref)
    }

    /// The same, to be changed.
    pub fn space_mut(&mut self, id: NsId) -> Option<&mut Space> {
        self.spaces.get_mut(&id).map(AsMut::as_mut)
    }

    /// All namespaces.
    pub fn spaces(&self) -> impl Iterator<Item = (&NsId, &Space)> {
        self.spaces.iter().map(|(id, space)| (id, space.as_ref()))
    }

    /// Notes a namespace at a path. Whether the namespace is new; it is then to be visited at once.
    pub fn netns(&mut self, path: &Path, id: NsId, now: Instant, late: bool) -> bool {
        // It appeared when its file did.
        let appeared = match self.slots.get(path) {
            Some(Slot::Waiting { since, .. }) => *since,
            _ => now,
        };
        self.set(path, &Slot::Netns(id));
        if let Some(space) = self.spaces.get_mut(&id) {
            if !space.paths.iter().any(|known| known == path) {
                space.paths.push(path.to_owned());
            }
            return false;
        }
        self.spaces.insert(id, Box::new(Space::new(path.to_owned(), appeared, late)));
        self.want(id, Purpose::Apply, true);
        true
    }

    /// Notes a file without a namespace. When it is to be looked at again.
    pub fn wait(&mut self, path: &Path, now: Instant, late: bool) {
        let (since, late) = match self.slots.get(path) {
            Some(Slot::Waiting { since, late, .. }) => (*since, *late),
            _ => (now, late),
        };
        let waited = now.saturating_duration_since(since);
        let next = now + waited.clamp(FIRST_WAIT, LONGEST_WAIT);
        self.set(path, &Slot::Waiting { since, next, late });
        self.waiting.insert((next, path.to_owned()));
    }

    /// Notes something that is no namespace of a pod.
    pub fn skip(&mut self, path: &Path, state: PodState, why: String) {
        self.set(path, &Slot::Skipped(state, why));
    }

    /// Forgets a path. The namespace is forgotten with its last path, and returned.
    pub fn forget(&mut self, path: &Path) -> Option<(NsId, Space)> {
        let slot = self.slots.remove(path)?;
        self.leave(path, &slot)
    }

    fn set(&mut self, path: &Path, slot: &Slot) {
        if let Some(before) = self.slots.insert(path.to_owned(), slot.clone())
            && before != *slot
        {
            self.leave(path, &before);
        }
    }

    fn leave(&mut self, path: &Path, slot: &Slot) -> Option<(NsId, Space)> {
        match slot {
            Slot::Waiting { next, .. } => {
                self.waiting.remove(&(*next, path.to_owned()));
                None
            }
            Slot::Skipped(..) => None,
            Slot::Netns(id) => {
                let space = self.spaces.get_mut(id)?;
                space.paths.retain(|known| known != path);
                if !space.paths.is_empty() {
                    return None;
                }
                let space = self.spaces.remove(id)?;
                if let Some((at, purpose)) = space.due {
                    self.dues(purpose).remove(&(at, *id));
                }
                Some((*id, *space))
            }
        }
    }

    /// Wants a visit as soon as one can be made. `first`: before the others.
    pub fn want(&mut self, id: NsId, purpose: Purpose, first: bool) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        let queued = space.wanted.is_some() && space.visiting.is_none();
        space.wanted = space.wanted.max(Some(purpose));
        if space.visiting.is_some() || queued && !first {
            return;
        }
        if first {
            self.urgent.push_back(id);
        } else {
            self.queue.push_back(id);
        }
    }

    /// Sets when a namespace is due again, and what for.
    pub fn look_again(&mut self, id: NsId, at: Instant, purpose: Purpose) {
        let Some(space) = self.spaces.get_mut(&id) else { return };
        if let Some((before, purpose)) = space.due.replace((at, purpose)) {
            self.dues(purpose).remove(&(before, id));
        }
        self.dues(purpose).insert((at, id));
    }

    fn dues(&mut self, purpose: Purpose) -> &mut BTreeSet<(Instant, NsId)> {
        match purpose {
            Purpose::Sweep => &mut self.sweeps,
            Purpose::Settle | Purpose::Apply | Purpose::ApplySurely => &mut self.soon,
        }
    }

    /// The next namespace to visit, what for, and the visit's number. It counts as being visited
    /// until [`Register::visited`].
    pub fn next_visit(&mut self) -> Option<(NsId, Purpose, u64)> {
        while let Some(id) = self.urgent.pop_front().or_else(|| self.queue.pop_front()) {
            // One that was forgotten meanwhile, or stands in the queue twice.
            let Some(space) = self.spaces.get_mut(&id).filter(|space| space.visiting.is_none())
            else {
                continue;
            };
            if let Some(purpose) = space.wanted.take() {
                self.visits += 1;
                space.visiting = Some(self.visits);
                return Some((id, purpose, self.visits));
            }
        }
        None
    }

    /// A visit ended; another one follows if one was wanted meanwhile. Whether it was the one that
    /// was waited for: the inode of a namespace that is gone can be another one's by now.
    pub fn visited(&mut self, id: NsId, number: u64) -> bool {
        let Some(space) = self.spaces.get_mut(&id) else { return false };
        if space.visiting != Some(number) {
            return false;
        }
        space.visiting = None;
        if space.wanted.is_some() {
            self.urgent.push_back(id);
        }
        true
    }

    /// Has the first namespace visited that is due for this, if it is by now. Whether one was.
    pub fn start_due(&mut self, purpose: Purpose, now: Instant) -> bool {
        let Some(first) = self.first_due(purpose).filter(|(at, _)| *at <= now) else {
            return false;
        };
        self.dues(purpose).remove(&first);
        // Applying may be meant to be sure.
        let due = self.spaces.get_mut(&first.1).and_then(|space| space.due.take());
        self.want(first.1, due.map_or(purpose, |(_, purpose)| purpose), false);
        true
    }

    /// When the first namespace is due for this, and which.
    #[must_use]
    pub fn first_due(&self, purpose: Purpose) -> Option<(Instant, NsId)> {
        let dues = if purpose == Purpose::Sweep { &self.sweeps } else { &self.soon };
        dues.first().copied()
    }

    /// Files to be looked at again by now.
    pub fn take_waiting(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            paths.extend(self.waiting.pop_first().map(|(_, path)| path));
        }
        paths
    }

    /// Files that wait for a mount which is not missing yet.
    pub fn expecting(&self, now: Instant) -> Vec<PathBuf> {
        let slots = self.waiting.iter().filter_map(|(_, path)| Some((path, self.slots.get(path)?)));
        let fresh = slots.filter(|(_, slot)| {
            matches!(slot, Slot::Waiting { since, .. } if now.saturating_duration_since(*since) < LONGEST_WAIT)
        });
        fresh.map(|(path, _)| path.clone()).collect()
    }

    /// When the first file is to be looked at again.
    #[must_use]
    pub fn first_waiting(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// Whether nothing is to be visited.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.spaces.values().all(|space| space.visiting.is_none() && space.wanted.is_none())
    }
}

impl Space {
    /// Whether a CNI result names it. What its processes tell is less.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.pod.as_ref().is_some_and(|pod| pod.from == IdentityFrom::CniCache)
    }

    fn new(path: PathBuf, appeared: Instant, late: bool) -> Self {
        Self {
            paths: vec![path],
            appeared,
            late,
            from_start: late,
            cookie: None,
            pod: None,
            unnamed: None,
            named_at: None,
            last: None,
            visiting: None,
            wanted: None,
            due: None,
            failures: 0,
        }
    }
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
