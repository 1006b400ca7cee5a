//! The document's section about what grows by itself, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::de::Spanned;

/// What grows by itself before it is full.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Autogrow")]
pub struct AutogrowSpec {
    /// The neighbor tables of both families: gc_thresh3, with gc_thresh2 at half of it. Absent: they
    /// do not grow.
    pub neighbor: Option<Spanned<NeighborGrowthSpec>>,
}

/// When the neighbor tables grow, and how far.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "NeighborGrowth")]
pub struct NeighborGrowthSpec {
    /// At this part of gc_thresh3 it is doubled, from 0.5 to 0.95.
    #[schemars(range(min = 0.5, max = 0.95))]
    pub at: Spanned<f64>,
    /// gc_thresh3 grows to this at most, and to no more than what 1 % of the node's memory holds.
    #[schemars(range(min = 1, max = 1048576))]
    pub ceiling: Spanned<u32>,
}

impl Default for NeighborGrowthSpec {
    fn default() -> Self {
        Self { at: Spanned::nowhere(0.75), ceiling: Spanned::nowhere(65_536) }
    }
}
