//! How the neighbor tables grow by themselves, as it is shown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::neighbor::Family;
use crate::limits::autogrow::{Bound, Growth};

/// Growth of the neighbor tables.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Autogrow {
    /// At this part of gc_thresh3 a table grows.
    pub at: f64,
    /// gc_thresh3 grows to this at most.
    pub ceiling: u64,
    /// Why nothing grows here, if so.
    pub unavailable: Option<String>,
    /// Each table.
    pub tables: Vec<GrownTable>,
}

/// One table's growth.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GrownTable {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Steps since the agent started.
    pub steps: u64,
    /// What gc_thresh3 has grown to, if it has.
    pub grown_to: Option<u64>,
    /// How far it may grow: the ceiling, or less.
    pub most: Option<u64>,
    /// What sets that.
    pub bound: Option<Bound>,
    /// Whether it can grow no further.
    pub at_most: bool,
    /// Why the last step is not in force, if so.
    pub blocked: Option<String>,
}

impl Autogrow {
    /// What is shown of it.
    #[must_use]
    pub fn of(growth: &Growth) -> Self {
        let tables = Family::ALL.into_iter().zip(&growth.tables);
        Self {
            at: growth.rule.at as f64 / 1000.0,
            ceiling: growth.rule.ceiling,
            unavailable: growth.unavailable.clone(),
            tables: tables
                .map(|(family, grown)| GrownTable {
                    family: family.label().to_owned(),
                    steps: grown.steps,
                    grown_to: grown.floor,
                    most: grown.most.map(|(most, _)| most),
                    bound: grown.most.map(|(_, bound)| bound),
                    at_most: grown.at_most,
                    blocked: grown.blocked.clone(),
                })
                .collect(),
        }
    }
}
