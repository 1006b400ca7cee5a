//! Neighbor tables that grow by themselves: what the engine is asked for, and when that is more.

use std::collections::BTreeMap;
use std::time::Instant;

use tracing::{info, warn};

use super::Context;
use crate::config::{Config, Mode};
use crate::kernel::neighbor::Family;
use crate::kernel::netns::NetnsError;
use crate::kernel::system;
use crate::limits::autogrow::{Demand, Growth, Step, Trail, key, keys, step};
use crate::limits::neighbor::{Basis, Neighbor};
use crate::node::Node;
use crate::sysctl::engine::Engine;
use crate::sysctl::key::Key;
use crate::sysctl::place::Net;
use crate::sysctl::policy::{OnConflict, Policy, Source, Want};
use crate::sysctl::state::KeyStatus;
use crate::sysctl::value::Shape;

/// What the tables have grown to, IPv4 first: `gc_thresh2` and `gc_thresh3` are at least these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors([[Option<u64>; 2]; 2]);

/// The largest value that the configuration allows a key.
fn max_of(config: &Config, key: &Key) -> Option<u64> {
    match &config.policy_of(key)?.want {
        Want::Bounds { max: Some(max), .. } => max.parse().ok(),
        _ => None,
    }
}

impl Floors {
    /// What is on record of an earlier run, or of before a change of the configuration, and is
    /// still ours: a table that has grown stays as it is while `autogrow` is configured.
    #[must_use]
    pub fn on_record(engine: &Engine, config: &Config) -> Self {
        let floor = |family, level| {
            let key = key(family, level)?;
            let (_, now) = engine.grown(&key).ok().flatten()?;
            let now: u64 = now.trim().parse().ok()?;
            Some(max_of(config, &key).map_or(now, |max| now.min(max)))
        };
        if config.autogrow.is_none() {
            return Self::default();
        }
        Self(Family::ALL.map(|family| {
            let thresh3 = floor(family, 3);
            // A run that was killed between the two writes has left it behind.
            [floor(family, 2).or(thresh3.map(|thresh3| thresh3 / 2)), thresh3]
        }))
    }

    /// What the engine is to keep: the configuration's policies, and these floors.
    #[must_use]
    pub fn policies(&self, config: &Config) -> BTreeMap<Key, Policy> {
        let mut policies = config.policies.clone();
        for (key, floor) in keys().into_iter().zip(self.0.into_iter().flatten()) {
            if let Some(policy) = floor.and_then(|floor| raised(config.policy_of(&key), floor)) {
                policies.insert(key, policy);
            }
        }
        policies
    }
}

/// A policy that holds a floor beside what the configuration wants of the key; `None` where that
/// is as high, or leaves no room.
fn raised(own: Option<&Policy>, floor: u64) -> Option<Policy> {
    let (min, max) = match own.map(|own| &own.want) {
        None => (None, None),
        Some(Want::Bounds { min, max }) => (min.as_ref(), max.as_ref()),
        Some(Want::Value(_) | Want::OneOf(_)) => return None,
    };
    let number = |text: &String| text.parse::<u64>().ok();
    let floor = max.and_then(number).map_or(floor, |max| floor.min(max));
    if min.and_then(number).is_some_and(|min| min >= floor) {
        return None;
    }
    Some(Policy {
        want: Want::Bounds { min: Some(floor.to_string()), max: max.cloned() },
        on_conflict: own.map_or(OnConflict::Enforce, |own| own.on_conflict),
        required: own.is_some_and(|own| own.required),
        source: Source::Autogrow,
        reason: Some("the table grew before it was full; put back when autogrow goes".to_owned()),
    })
}

/// Gives back what tables have grown by, once `autogrow` is no longer configured: each threshold
/// becomes what the configuration makes of its original. By a pass of the engine, so that the
/// order is right and no moment has less than both want.
pub fn put_back(engine: &mut Engine, config: &Config) -> Result<(), NetnsError> {
    if config.autogrow.is_some() {
        return Ok(());
    }
    let mut policies = config.policies.clone();
    let mut found = false;
    for key in keys() {
        let Some((record, _)) = engine.grown(&key)? else { continue };
        let own = config.policy_of(&key);
        let original = Shape::Ints(1).read(&record.original);
        let goal = own.and_then(|own| own.want.compile(Shape::Ints(1)).ok());
        let target = goal.and_then(|goal| goal.target(&original, false)).unwrap_or(original);
        let policy = Policy {
            want: Want::Value(target.to_string()),
            on_conflict: own.map_or(OnConflict::Enforce, |own| own.on_conflict),
            required: false,
            source: own.map_or(Source::Autogrow, |own| own.source.clone()),
            reason: None,
        };
        policies.insert(key, policy);
        found = true;
    }
    if found {
        engine.configure(policies, config.globs.clone());
        engine.pass(Instant::now())?;
        engine.configure(config.policies.clone(), config.globs.clone());
    }
    Ok(())
}

/// A step that was decided on.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    index: usize,
    family: Family,
    step: Step,
    demand: Demand,
    entries: u64,
}

/// Watches the tables, and decides.
#[derive(Debug)]
pub struct Grower {
    floors: Floors,
    trails: [Trail; 2],
    memory: u64,
    growth: Growth,
}

impl Grower {
    /// A grower for a configuration with `autogrow`; what `before` has seen and counted goes on.
    #[must_use]
    pub fn new(
        before: Option<Self>,
        context: &Context,
        config: &Config,
        floors: Floors,
    ) -> Option<Self> {
        let Some(rule) = config.autogrow else {
            context.node.update(|state| state.autogrow = None);
            return None;
        };
        let shown = context.node.read(|state| state.autogrow.clone());
        let trails = before.map(|before| before.trails).unwrap_or_default();
        let tables = shown.map(|shown| shown.tables).unwrap_or_default();
        let memory = system::memory_bytes(&context.roots.proc);
        let unavailable = match (&context.place.net, &memory) {
            (Net::Initial, Err(error)) => Some(format!("the node's memory is not known: {error}")),
            (Net::Initial, Ok(_)) => None,
            _ => Some(ELSEWHERE.to_owned()),
        };
        let growth = Growth { rule, unavailable, tables };
        let mut grower = Self { floors, trails, memory: memory.unwrap_or(0), growth };
        grower.show(&context.node);
        if let Some(reason) = &grower.growth.unavailable {
            warn!(reason, "autogrow does nothing here");
        }
        Some(grower)
    }

    /// What the engine is to keep.
    #[must_use]
    pub fn policies(&self, config: &Config) -> BTreeMap<Key, Policy> {
        self.floors.policies(config)
    }

    /// A look at both tables, every second. The steps that are due are among the policies from
    /// now on.
    pub fn look(&mut self, node: &Node, config: &Config, now: Instant) -> Vec<Taken> {
        if self.growth.unavailable.is_some() {
            return Vec::new();
        }
        let tables = node.read(|state| state.neighbor.clone());
        let both = Family::ALL.into_iter().zip(&tables).enumerate();
        let due = both
            .filter_map(|(index, (family, table))| self.look_at(index, family, table, config, now));
        let taken = due.collect();
        self.show(node);
        taken
    }

    fn look_at(
        &mut self,
        index: usize,
        family: Family,
        table: &Neighbor,
        config: &Config,
        now: Instant,
    ) -> Option<Taken> {
        let (trail, grown) = (self.trails.get_mut(index)?, self.growth.tables.get_mut(index)?);
        let floors = self.floors.0.get_mut(index)?;
        let at = self.growth.rule.at;
        let mut demand = trail.look(family, table, at)?;
        let mut thresholds = table.gc_thresholds()?;
        let rested = trail.rested(now);
        grown.blocked = None;
        if let [thresh2, Some(thresh3)] = *floors
            && thresholds[2] < thresh3
        {
            if config.mode == Mode::Enforce {
                // Right after a step it is only not seen yet.
                grown.blocked = rested.then(|| NOT_IN_FORCE.to_owned());
                return None;
            }
            // As if it were; what the real table refuses says nothing of that.
            thresholds = [thresholds[0], thresholds[1].max(thresh2.unwrap_or(0)), thresh3];
            demand.full = false;
        }
        let max = key(family, 3).and_then(|key| max_of(config, &key));
        let (most, bound) = self.growth.rule.most(self.memory, max);
        grown.most = Some((most, bound));
        grown.at_most = thresholds[2] >= most;
        let step = step(demand, thresholds, at, most).filter(|_| rested)?;
        *floors = [Some(step.thresh2), Some(step.thresh3)];
        trail.stepped(now);
        Some(Taken { index, family, step, demand, entries: table.entries().unwrap_or(0) })
    }

    fn show(&mut self, node: &Node) {
        for (grown, [_, thresh3]) in self.growth.tables.iter_mut().zip(self.floors.0) {
            grown.floor = thresh3;
        }
        node.update(|state| state.autogrow = Some(self.growth.clone()));
    }

    /// Says what came of steps after the engine's pass, and counts those that are in force.
    pub fn settle(&mut self, node: &Node, taken: &[Taken], keys: &[KeyStatus], mode: Mode) {
        for taken in taken {
            let name = key(taken.family, 3);
            let is_it = |status: &&KeyStatus| name.as_ref().is_some_and(|it| status.key == *it);
            let status = keys.iter().find(is_it);
            let in_force = status.is_some_and(|status| status.in_sync);
            if in_force && let Some(grown) = self.growth.tables.get_mut(taken.index) {
                grown.steps += 1;
            }
            say(taken, mode, status.filter(|_| !in_force));
        }
        self.show(node);
    }
}

const ELSEWHERE: &str = "the neighbor tables' thresholds are keys of the kernel's initial network \
                         namespace, and this is another one";
const NOT_IN_FORCE: &str = "the last step is not in force: see the state of gc_thresh3";

fn say(taken: &Taken, mode: Mode, missed: Option<&KeyStatus>) {
    let Taken { family, step: Step { from, thresh3: to, .. }, demand, entries, .. } = *taken;
    let (family, used) = (family.label(), demand.used.map_or(entries, |(used, _)| used));
    let reason = match (demand.full, demand.used) {
        (true, _) => "the table was full and refused an entry",
        (false, Some((_, Basis::Pinned))) => "so many entries are pinned",
        (false, _) => "so many entries at most, and the kernel collects by force",
    };
    match missed {
        _ if mode == Mode::Observe => {
            info!(family, from, to, used, reason, "the neighbor table would grow");
        }
        None => info!(family, from, to, used, reason, "the neighbor table grows"),
        Some(status) => {
            let (state, why) = (status.state.label(), status.detail.as_deref());
            warn!(family, from, to, used, reason, state, why, "the neighbor table cannot grow");
        }
    }
}

#[cfg(test)]
#[path = "autogrow_tests.rs"]
mod tests;
