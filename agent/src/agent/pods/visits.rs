//! Visits to namespaces: begun, a few at a time, and what comes of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tracing::{info, warn};

use super::Run;
use super::publish::shown;
use crate::kernel::netns::NsId;
use crate::kernel::state_dir;
use crate::pods::apply::{Applied, Plan};
use crate::pods::register::{Last, Purpose, Slot, Space};
use crate::pods::state::{PodKey, PodState, RESTART};
use crate::pods::visit::{Outcome, Visit, Visited, named};
use crate::sysctl::effect::takes_effect;
use crate::sysctl::key::Key;
use crate::sysctl::state::State;

/// Threads at work at the same time: writes of some keys wait for RTNL, and others need not.
const MOST_AT_ONCE: usize = 4;
/// Runtimes set what the pod asks for after the namespace was found: looked at again this late.
const SETTLED_AFTER: Duration = Duration::from_secs(10);
/// A visit that failed, or a name that could not be proven yet, is tried again after this, then
/// after twice as long.
const FIRST_RETRY: Duration = Duration::from_millis(20);
/// Sweeps take this part of the time at the most.
const SWEEP_SHARE: u32 = 2000;
/// A pod's first process begins at the earliest when the network is there, and soon after.
const STARTS_WITHIN: Duration = Duration::from_secs(2);
/// Outcomes that are remembered to be shared.
const OUTCOMES: usize = 16;

/// Begins as many visits as may be under way.
pub(super) fn start(run: &mut Run) {
    while run.running < MOST_AT_ONCE {
        let Some((id, purpose, number)) = run.register.next_visit() else { return };
        let Some(space) = run.register.space(id) else { continue };
        let results = if space.is_named() { Vec::new() } else { run.sources.results(&space.paths) };
        let visit = Visit {
            number,
            id,
            cookie: space.cookie,
            paths: space.paths.clone(),
            hosts: run.hosts.clone(),
            proc_root: run.context.roots.proc.clone(),
            leaving: run.leaving.contains(&id),
            plan: match run.leaving.contains(&id) {
                true => Arc::new(Plan { policies: Vec::new(), ..(*run.plan).clone() }),
                false => run.plan.clone(),
            },
            fresh: run.fresh.clone(),
            sure: purpose == Purpose::ApplySurely,
            pod: space.pod.as_deref().cloned(),
            results,
            sweep: match (purpose, &space.last) {
                (Purpose::Sweep | Purpose::Settle, Some(last)) => Some(last.keys.clone()),
                _ => None,
            },
        };
        let unmeasured = run.unmeasured.as_ref().map(|(why, _)| why.clone());
        let failed = match unmeasured {
            None => visit.start(run.done.0.clone()).err().map(|error| error.to_string()),
            why => why,
        };
        match failed {
            None => run.running += 1,
            Some(why) => {
                run.register.visited(id, number);
                run.failed(id, why);
            }
        }
    }
}

impl Run {
    /// Takes in what came of a visit.
    pub(super) fn visited(&mut self, visited: Visited) {
        self.running = self.running.saturating_sub(1);
        self.visits = self.visits.saturating_add(1);
        let id = visited.id;
        let swept = Instant::now() + visited.cost * SWEEP_SHARE;
        self.rested_at = self.rested_at.min(swept).max(Instant::now());
        if !self.register.visited(id, visited.number) {
            // It went away meanwhile, and left what it had on record just now.
            let known = self.register.space(id).and_then(|space| space.cookie);
            if known.is_none() || known != visited.cookie {
                remove_ledger(&self.plan, id, visited.cookie);
            }
            return;
        }
        if visited.leaving {
            self.left(id, &visited.outcome);
            return;
        }
        let here = !matches!(visited.outcome, Outcome::Gone | Outcome::Replaced | Outcome::Host);
        if let Some(space) = self.register.space_mut(id).filter(|_| here) {
            space.cookie = visited.cookie.or(space.cookie);
        }
        match visited.outcome {
            Outcome::Gone => {
                // Each path is forgotten by itself where it is something else now.
                for path in self.paths_of(id) {
                    self.look(&path, Instant::now(), false);
                }
                self.register.want(id, Purpose::Apply, false);
            }
            Outcome::Replaced => {
                // All of them first: what is found again belongs to the new one.
                let paths = self.paths_of(id);
                paths.iter().for_each(|path| self.forget(path));
                paths.iter().for_each(|path| self.look(path, Instant::now(), false));
            }
            Outcome::Host => {
                let paths = self.paths_of(id);
                self.hosts = self.hosts.iter().copied().chain([id]).collect();
                for path in paths {
                    self.look(&path, Instant::now(), false);
                }
            }
            Outcome::Stale => self.stale.push(id),
            Outcome::Failed(why) => self.failed(id, why),
            Outcome::Unchanged => self.look_later(id),
            Outcome::Applied(applied) => {
                if let Some(space) = self.register.space_mut(id) {
                    match visited.pod {
                        Ok(pod) => {
                            space.pod = Some(pod.into());
                            space.unnamed = None;
                        }
                        Err(why) => {
                            space.unnamed = Some(why);
                            self.naming.want();
                        }
                    }
                }
                self.applied(id, applied);
            }
        }
    }

    /// A namespace that is found in no directory any more had its originals put back.
    fn left(&mut self, id: NsId, outcome: &Outcome) {
        let why = match outcome {
            Outcome::Failed(why) => Some(why),
            Outcome::Applied(applied) => applied.unrestored.as_ref(),
            _ => None,
        };
        if let Some(reason) = why {
            warn!(pod = named(None, id), reason, "originals not put back");
        }
        if !self.leaving.remove(&id) {
            // Its directory is configured again.
            self.register.want(id, Purpose::Apply, true);
            return;
        }
        for path in self.paths_of(id) {
            // What could not be put back stays on record.
            self.register.forget(&path);
            self.unpublish(&path);
        }
    }

    fn paths_of(&self, id: NsId) -> Vec<std::path::PathBuf> {
        self.register.space(id).map(|space| space.paths.clone()).unwrap_or_default()
    }

    fn failed(&mut self, id: NsId, why: String) {
        let again = self.retry(id);
        let Some(space) = self.register.space_mut(id) else { return };
        let keys = space.last.take().map_or_else(|| [].into(), |last| last.keys);
        let detail = Some(why);
        if space.failures == 1 {
            let path = space.paths.first().map(|path| shown(path));
            warn!(pod = named(space.pod.as_deref(), id), path, reason = detail, "pod not tuned");
        }
        space.last = Some(Last { state: PodState::Failed, detail, keys });
        self.register.look_again(id, again, Purpose::Apply);
        self.publish_space(id);
    }

    /// When to try again what did not work out, counting how often it did not.
    fn retry(&mut self, id: NsId) -> Instant {
        let longest = self.config.pod_namespaces.sweep;
        let Some(space) = self.register.space_mut(id) else { return Instant::now() };
        let wait = FIRST_RETRY.saturating_mul(1 << space.failures.min(20));
        space.failures += 1;
        Instant::now() + wait.min(longest)
    }

    fn applied(&mut self, id: NsId, applied: Applied) {
        let mut applied = applied;
        self.note_running(id, &mut applied);
        let keys = self.shared(applied.keys);
        let has_results = self.register.space(id).is_some_and(|space| {
            !space.is_named() && !self.sources.results(&space.paths).is_empty()
        });
        let Some(space) = self.register.space_mut(id) else { return };
        let now = Instant::now();
        let first = space.last.as_ref().is_none_or(|last| last.state == PodState::Failed);
        let unrestored = applied.unrestored;
        let failed_back = unrestored.is_some();
        let state = if failed_back { PodState::Failed } else { state_of(&keys) };
        let detail = unrestored.or(applied.ledger);
        let before = space.last.replace(Last { state, detail, keys: keys.clone() });
        // What the runtime sets when the pod begins is no drift.
        let settled = now.saturating_duration_since(space.appeared) > SETTLED_AFTER * 2;
        let drifted = applied.drift + if settled { drift(before.as_ref(), &keys) } else { 0 };
        let late = space.late && !applied.known;
        if first {
            space.late = late;
        }
        let since_namespace = now.saturating_duration_since(space.appeared);
        let since_identity = space.named_at.filter(|_| space.is_named());
        let since_identity = since_identity.map(|at| now.saturating_duration_since(at));
        if since_identity.is_some() {
            space.named_at = None;
        }
        let timely = !space.late;
        let named = named(space.pod.as_deref(), id);
        self.context.node.update(|node| {
            let Some(pods) = &mut node.pods else { return };
            pods.drift += drifted;
            if first && late && !applied.set.is_empty() {
                pods.late += 1;
            }
            if before.is_none() && timely && !applied.known && state != PodState::Failed {
                pods.since_namespace.observe(since_namespace);
            }
            if let (true, Some(took)) = (timely, since_identity) {
                pods.since_identity.observe(took);
            }
        });
        let path = space_path(self.register.space(id));
        say(&named, &path, before.as_ref(), &keys, &applied.set);
        if has_results || failed_back {
            // The CNI plugin may not be done with the addresses.
            let again = self.retry(id);
            self.register.look_again(id, again, Purpose::Apply);
        } else {
            if let Some(space) = self.register.space_mut(id) {
                space.failures = 0;
            }
            self.look_later(id);
        }
        if let Some(space) = self.register.space(id).filter(|space| space.is_named()) {
            self.sources.forget_results(&space.paths);
        }
        self.publish_space(id);
    }

    fn look_later(&mut self, id: NsId) {
        let Some(space) = self.register.space(id) else { return };
        let now = Instant::now();
        let settled = space.appeared + SETTLED_AFTER;
        let sweep = now + self.config.pod_namespaces.sweep;
        // Those that are all there from the start take their turns.
        if settled > now && settled < sweep && !space.from_start {
            self.register.look_again(id, settled, Purpose::Settle);
        } else {
            self.register.look_again(id, sweep, Purpose::Sweep);
        }
    }

    /// Notes which values programs that listen already do not have.
    fn note_running(&self, id: NsId, applied: &mut Applied) {
        let Some(space) = self.register.space(id) else { return };
        let before = space.last.as_ref().filter(|last| last.state != PodState::Failed);
        // A pod's first process comes after its CNI result.
        let just_named = space.named_at.is_some_and(|at| at.elapsed() < STARTS_WITHIN);
        let runs = before.map_or(space.late, |_| !just_named);
        for key in applied.keys.iter_mut().filter(|key| in_force(key)) {
            let last = space.last.as_ref();
            let known = last.and_then(|last| last.keys.iter().find(|one| one.key == key.key));
            let same = known.is_some_and(|known| known.value == key.value);
            let noted = known.is_some_and(|known| known.detail.as_deref() == Some(RESTART));
            let changed = runs && applied.set.iter().any(|set| set.as_str() == key.key);
            let effect = Key::parse(&key.key).ok().and_then(|key| takes_effect(&key));
            if (changed || same && noted) && effect.is_some_and(|effect| effect.restart) {
                key.detail.get_or_insert_with(|| RESTART.to_owned());
            }
        }
    }

    /// The same keys, from an earlier pod if one had them.
    fn shared(&mut self, keys: Vec<PodKey>) -> Arc<[PodKey]> {
        if let Some(known) = self.outcomes.iter().position(|known| **known == *keys)
            && let Some(known) = self.outcomes.remove(known)
        {
            self.outcomes.push_front(known.clone());
            return known;
        }
        let keys: Arc<[PodKey]> = keys.into();
        self.outcomes.push_front(keys.clone());
        self.outcomes.truncate(OUTCOMES);
        keys
    }

    /// Removes ledgers of namespaces that went away while nobody looked.
    pub(super) fn tidy(&mut self) {
        let unclear =
            |slot: &Slot| matches!(slot, Slot::Waiting { .. } | Slot::Skipped(PodState::Failed, _));
        let mut slots = self.register.paths().filter_map(|path| self.register.slot(path));
        if self.tidied || !self.sources.all_read() || slots.any(unclear) {
            return;
        }
        self.tidied = true;
        for file in state_dir::files(&self.plan.ledgers) {
            let name = file.file_name().unwrap_or_default();
            let kept = self.register.spaces().any(|(id, space)| {
                let ledger = self.plan.ledger(id.ino, space.cookie);
                let unknown = space.cookie.is_none()
                    && name.to_string_lossy().starts_with(&format!("{}-", id.ino));
                unknown || ledger.file_name() == Some(name)
            });
            if !kept {
                let _ = state_dir::remove(&file);
            }
        }
    }
}

/// Forgets the originals of a namespace that is gone.
pub(super) fn remove_ledger(plan: &Plan, id: NsId, cookie: Option<u64>) {
    let path = plan.ledger(id.ino, cookie);
    match state_dir::remove(&path) {
        Err(error) if error.errno != Errno::ENOENT => warn!(reason = %error, "ledger"),
        _ => {}
    }
}

fn state_of(keys: &[PodKey]) -> PodState {
    let failed = |key: &PodKey| matches!(key.state, State::Denied | State::Rejected);
    if keys.is_empty() {
        PodState::Unmatched
    } else if keys.iter().any(failed) {
        PodState::Failed
    } else {
        PodState::Tuned
    }
}

fn in_force(key: &PodKey) -> bool {
    matches!(key.state, State::InSync | State::Normalized)
}

/// How many values were in force and have been changed to something that is kept.
fn drift(before: Option<&Last>, now: &[PodKey]) -> u64 {
    let before = before.map(|last| &*last.keys).unwrap_or_default();
    let drifted = now.iter().filter(|key| {
        key.state == State::Yielded
            && before
                .iter()
                .any(|known| known.key == key.key && known.policy == key.policy && in_force(known))
    });
    drifted.count() as u64
}

fn space_path(space: Option<&Space>) -> String {
    space.and_then(|space| space.paths.first()).map(|path| shown(path)).unwrap_or_default()
}

fn say(pod: &str, path: &str, before: Option<&Last>, keys: &[PodKey], set: &[Key]) {
    if !set.is_empty() {
        let values = keys.iter().filter(|key| set.iter().any(|set| set.as_str() == key.key));
        let values =
            values.map(|key| format!("{}={}", key.key, key.value.as_deref().unwrap_or_default()));
        let set = values.collect::<Vec<_>>().join(", ");
        info!(pod, path, set, "pod tuned");
    }
    for key in keys {
        let known = before.and_then(|last| last.keys.iter().find(|known| known.key == key.key));
        if known.is_some_and(|known| known.state == key.state) {
            continue;
        }
        let (name, value, want) = (&key.key, key.value.as_deref(), &key.want);
        let (state, reason) = (key.state.label(), key.detail.as_deref());
        match key.state {
            State::InSync | State::Normalized | State::Pending | State::Observed => {}
            State::Yielded => info!(pod, key = name, state, value, want, reason, "left alone"),
            _ => warn!(pod, key = name, state, value, want, reason, "not as wanted"),
        }
    }
}
