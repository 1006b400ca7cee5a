//! Limits in the status document, and how many more pods fit.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::{self, CostFrom, Fit};
use crate::limits::{Cost, Exactness};

/// How many more pods fit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Pods with a network namespace of their own, now.
    pub pods: Option<u64>,
    /// Pods that still fit, less the configured reserve. Absent where no limit says.
    pub pods_remaining: Option<u64>,
    /// Pods that are kept free.
    #[serde(default)]
    pub reserve: u64,
    /// How to read that number.
    pub exactness: Option<Exactness>,
    /// The limit that stops the next pods first.
    pub binding_limit: Option<Binding>,
    /// Limits that pods use up and of which is not known how far, and why.
    #[serde(default)]
    pub not_known: Vec<String>,
    /// All that in a sentence, and what would stop them next.
    pub sentence: String,
}

/// The limit that stops the next pods first.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Which limit.
    pub limit: String,
    /// Of what.
    pub object: String,
}

impl Capacity {
    /// Of a node's.
    #[must_use]
    pub fn of(node: &str, capacity: &capacity::Capacity) -> Self {
        let binding = capacity.binding();
        Self {
            pods: capacity.pods,
            pods_remaining: capacity.remaining,
            reserve: capacity.reserve,
            exactness: binding.map(Fit::exactness),
            binding_limit: binding.map(|fit| Binding {
                limit: fit.limit.about.name.to_owned(),
                object: fit.limit.object.clone(),
            }),
            not_known: capacity
                .unknown()
                .map(|fit| {
                    let why = fit.limit.unknown.as_deref().unwrap_or("no maximum");
                    format!("{}: {why}", fit.limit.named())
                })
                .collect(),
            sentence: capacity.sentence(node),
        }
    }
}

/// One limit of one object.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Which limit.
    pub limit: String,
    /// Of what.
    pub object: String,
    /// Both, as a sentence names them.
    pub named: String,
    /// What is counted.
    pub unit: String,
    /// In use.
    pub used: Option<u64>,
    /// The maximum.
    pub max: Option<u64>,
    /// How often it was hit since boot.
    pub hits: Option<u64>,
    /// Whether it was hit a short time ago.
    pub hit_now: bool,
    /// How `used` compares with the number that the kernel compares.
    pub exactness: Exactness,
    /// Where `used` was read.
    pub read_from: String,
    /// The key that raises it.
    pub raised_by: Option<String>,
    /// What is seen when it is hit.
    pub when_hit: String,
    /// How many seconds ago it was read, where that was not just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<u64>,
    /// Why a number is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// What a pod costs, in its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cost: Option<f64>,
    /// Where that is known from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cost_from: Option<CostFrom>,
    /// What is assumed of a pod until enough of them run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cost_prior: Option<f64>,
    /// Pods that came since it was read.
    #[serde(default)]
    pub pods_since: u64,
    /// Pods that still fit before it is full.
    pub pods_remaining: Option<u64>,
    /// How many seconds it takes until it is full if it goes on as in the last hour, where there is
    /// a trend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full_in_seconds: Option<u64>,
}

impl Limit {
    /// Of a limit and the pods that it lets in.
    #[must_use]
    pub fn of(fit: Fit) -> Self {
        let limit = fit.limit;
        let prior = match limit.cost {
            Cost::Learned { prior, .. } => Some(prior).filter(|prior| *prior > 0.0),
            Cost::Fixed(_) | Cost::NotByPods => None,
        };
        Self {
            named: limit.named(),
            limit: limit.about.name.to_owned(),
            object: limit.object,
            unit: limit.unit.to_owned(),
            used: limit.used,
            max: limit.max,
            hits: limit.hits,
            hit_now: fit.hit_now,
            exactness: limit.exactness,
            read_from: limit.read_from.to_owned(),
            raised_by: limit.raised_by.map(str::to_owned),
            when_hit: limit.about.when_hit.to_owned(),
            age_seconds: limit.read_at.map(|at| at.elapsed().as_secs()),
            unknown: limit.unknown,
            pod_cost: fit.cost.map(|cost| cost.amount),
            pod_cost_from: fit.cost.map(|cost| cost.from),
            pod_cost_prior: prior,
            pods_since: limit.pods_since,
            pods_remaining: fit.remaining,
            full_in_seconds: fit.full_in.map(|time| time.as_secs()),
        }
    }
}
