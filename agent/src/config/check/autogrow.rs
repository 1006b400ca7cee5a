//! Judging what the document says about growth.

use std::collections::BTreeMap;

use super::super::de::Spanned;
use super::super::document::{AutogrowSpec, HostNetns, NeighborGrowthSpec};
use super::super::problem::{Position, Problem, Problems, push_key};
use crate::limits::autogrow::{Rule, keys};
use crate::sysctl::glob::Glob;
use crate::sysctl::key::Key;
use crate::sysctl::policy::{OnConflict, Policy, Want};

/// Below half, `gc_thresh2` would be above the point of growth, and nothing tells by then which
/// entries count (`neigh_alloc`); beyond this, seconds may be too long.
const AT: std::ops::RangeInclusive<f64> = 0.5..=0.95;

/// A million entries are half a GiB.
const HIGHEST: u32 = 1 << 20;

/// What is wanted for keys, and where that stands.
pub struct Wanted<'a> {
    pub policies: &'a BTreeMap<Key, Policy>,
    pub globs: &'a [(Glob, Policy)],
    pub places: &'a BTreeMap<Key, Position>,
}

/// When the neighbor tables grow, if they do.
pub fn rule(
    spec: &AutogrowSpec,
    wanted: &Wanted<'_>,
    netns: HostNetns,
    problems: &mut Problems,
) -> Option<Rule> {
    let neighbor = spec.neighbor.as_ref()?;
    let NeighborGrowthSpec { at, ceiling } = &neighbor.value;
    let mut refuse = |at: Position, field: &str, message: &str| {
        let problem = Problem::error("value", message);
        problems.push(problem.at(at).path(format!("autogrow.neighbor.{field}")));
    };
    if !AT.contains(&at.value) {
        refuse(at.at, "at", "a part of gc_thresh3: write 0.5 to 0.95");
    }
    if !(1..=HIGHEST).contains(&ceiling.value) {
        refuse(ceiling.at, "ceiling", "a number of entries: write 1 to 1048576");
    }
    conflicts(neighbor, wanted, problems);
    if netns == HostNetns::Current {
        let message = "with hostNetns: current the neighbor tables are not this node's to set: nothing \
                       will grow";
        let problem = Problem::warning("autogrow-unsupported", message);
        problems.push(problem.at(neighbor.at).path("autogrow.neighbor"));
    }
    Some(Rule { at: (at.value * 1000.0).round() as u64, ceiling: ceiling.value.into() })
}

/// A key that is to be exactly something, or is only looked at, cannot grow.
fn conflicts(neighbor: &Spanned<NeighborGrowthSpec>, wanted: &Wanted<'_>, problems: &mut Problems) {
    for key in keys() {
        let pattern = || wanted.globs.iter().rfind(|(glob, _)| glob.covers(&key));
        let own = wanted.policies.get(&key).or_else(|| pattern().map(|(_, policy)| policy));
        let message = match own {
            Some(Policy { want: Want::Value(_) | Want::OneOf(_), .. }) => format!(
                "autogrow raises {key}, which is to have one value here: write `min` instead, or \
                 remove autogrow"
            ),
            Some(Policy { on_conflict: OnConflict::Report, .. }) => format!(
                "autogrow raises {key}, which is only reported here: remove `onConflict: report`, or \
                 autogrow"
            ),
            _ => continue,
        };
        let (at, path) = match wanted.places.get(&key) {
            Some(at) => {
                let mut path = "sysctls".to_owned();
                push_key(&mut path, key.as_str());
                (*at, path)
            }
            None => (neighbor.at, "autogrow.neighbor".to_owned()),
        };
        problems.push(Problem::error("autogrow-conflict", message).at(at).path(path));
    }
}

#[cfg(test)]
#[path = "autogrow_tests.rs"]
mod tests;
