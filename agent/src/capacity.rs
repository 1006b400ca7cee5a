//! Limits in, pods that still fit and the binding limit out. Nothing here reads the kernel.

mod history;
pub mod plan;
mod words;

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::history::{ENOUGH_PODS, History};
use crate::limits::{Cost, Exactness, Limit};

/// Where a cost is known from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CostFrom {
    /// The kernel's own rules.
    Fixed,
    /// What pods that came or went in the last hour added or freed: the median.
    Observed,
    /// What pods have now: the mean, without the tenth of them that has most where each one's part is
    /// seen.
    Share,
    /// What a pod takes at the least: fewer was seen, since pods do nothing, or too little was.
    Floor,
    /// The documented assumption: too few pods run.
    Prior,
}

/// What a pod costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PodCost {
    /// In the limit's unit.
    pub amount: f64,
    /// Where it is known from.
    pub from: CostFrom,
}

/// One limit, and how many more pods it lets in.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The limit.
    pub limit: Limit,
    /// What a pod costs; `None`: nothing that is known of.
    pub cost: Option<PodCost>,
    /// How many more pods fit. `None`: it is not known, or pods do not use it up.
    pub remaining: Option<u64>,
    /// The kernel refused a short time ago because it was reached.
    pub hit_now: bool,
    /// When it will be full, if it goes on as in the last hour.
    pub full_in: Option<Duration>,
}

impl Fit {
    /// How to read `remaining`: as it is, or as at least or at most so many.
    #[must_use]
    pub fn exactness(&self) -> Exactness {
        match self.hit_now {
            // None fit, whatever else is known.
            true => Exactness::Exact,
            false => exactness(self.limit.exactness, self.cost.map(|cost| cost.from)),
        }
    }
}

/// How to read a number of pods that comes from what is used and what a pod costs.
#[must_use]
pub fn exactness(used: Exactness, cost: Option<CostFrom>) -> Exactness {
    match (used, cost) {
        // What is assumed can be wrong either way.
        (_, Some(CostFrom::Prior)) => Exactness::Estimate,
        // More used than there is leaves fewer pods than there are.
        (Exactness::UpperBound, _) => Exactness::LowerBound,
        (Exactness::LowerBound, _) => Exactness::UpperBound,
        (Exactness::Exact, Some(CostFrom::Fixed)) => Exactness::Exact,
        (_, _) => Exactness::Estimate,
    }
}

/// How many more pods fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Capacity {
    /// Pods with a network namespace of their own, now.
    pub pods: Option<u64>,
    /// Every limit.
    pub fits: Vec<Fit>,
    /// Pods that still fit on this node, less the reserve. `None`: no limit says.
    pub remaining: Option<u64>,
    /// Pods that are to be kept free.
    pub reserve: u64,
    /// Which of `fits` is the binding one.
    pub binding: Option<usize>,
}

impl Capacity {
    /// How many pods still fit. `reserve`: pods to keep free.
    #[must_use]
    pub fn of(
        limits: Vec<Limit>,
        pods: Option<u64>,
        history: &History,
        reserve: u64,
        now: Instant,
    ) -> Self {
        let fits: Vec<Fit> =
            limits.into_iter().map(|limit| fit(limit, pods, history, now)).collect();
        let binding = binding(&fits, &[]);
        let left = binding.and_then(|index| fits.get(index)?.remaining);
        let remaining = left.map(|left| left.saturating_sub(reserve));
        Self { pods, fits, remaining, reserve, binding }
    }

    /// The limit that stops the next pods first.
    #[must_use]
    pub fn binding(&self) -> Option<&Fit> {
        self.fits.get(self.binding?)
    }

    /// Limits that pods use up, and of which is not known how far.
    pub fn unknown(&self) -> impl Iterator<Item = &Fit> {
        self.fits.iter().filter(|fit| fit.cost.is_some() && fit.remaining.is_none())
    }

    /// The limit that stops them once the binding one is raised: the next one that is something
    /// else. The same limit of another object is raised by other means, and so is another one.
    #[must_use]
    pub fn next(&self) -> Option<&Fit> {
        self.fits.get(binding(&self.fits, &[self.binding?])?)
    }
}

/// The first of the fewest, and among equal ones that which was hit.
fn binding(fits: &[Fit], except: &[usize]) -> Option<usize> {
    let known = fits.iter().enumerate().filter(|(index, _)| !except.contains(index));
    let counted = known.filter_map(|(index, fit)| Some((index, fit.remaining?, !fit.hit_now)));
    counted.min_by_key(|(_, remaining, calm)| (*remaining, *calm)).map(|(index, _, _)| index)
}

fn fit(limit: Limit, pods: Option<u64>, history: &History, now: Instant) -> Fit {
    let cost = cost(&limit, pods, history);
    let hit_now = history.hit_now(&limit, now);
    let remaining = match (limit.cost, cost) {
        (Cost::NotByPods, _) => None,
        // Whatever was estimated: the kernel says no.
        _ if hit_now => Some(0),
        (_, cost) => cost.and_then(|cost| remaining(&limit, cost)),
    };
    let full_in = history.full_in(&limit);
    Fit { limit, cost, remaining, hit_now, full_in }
}

fn remaining(limit: &Limit, cost: PodCost) -> Option<u64> {
    let left = limit.max?.saturating_sub(limit.used?);
    // The sum of many halves must not come out a hair below the whole.
    let pods = (left as f64 / cost.amount + 1e-9).floor() as u64;
    Some(pods.saturating_sub(limit.pods_since))
}

/// What a pod costs of a limit here.
#[must_use]
pub fn cost(limit: &Limit, pods: Option<u64>, history: &History) -> Option<PodCost> {
    let (prior, floor) = match limit.cost {
        Cost::NotByPods => return None,
        Cost::Fixed(amount) => return Some(PodCost { amount, from: CostFrom::Fixed }),
        Cost::Learned { prior, floor } => (prior, floor),
    };
    let share = || {
        let mean = || {
            let pods = limit.pods_then.or(pods).filter(|pods| *pods >= ENOUGH_PODS)?;
            Some(limit.of_pods? as f64 / pods as f64)
        };
        limit.a_pod.or_else(mean)
    };
    let learned = history.cost(limit).map(|amount| (amount, CostFrom::Observed));
    let (amount, from) = learned
        .or_else(|| share().map(|amount| (amount, CostFrom::Share)))
        .unwrap_or((prior, CostFrom::Prior));
    let (amount, from) = match amount < floor {
        true => (floor, CostFrom::Floor),
        false => (amount, from),
    };
    (amount > 0.0).then_some(PodCost { amount, from })
}

#[cfg(test)]
#[path = "capacity/tests.rs"]
mod tests;
