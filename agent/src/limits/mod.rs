//! Limits: kernel resources with a maximum. One file a limit; a new one is listed in [`all`].

pub mod bridge;
pub mod neighbor;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::node::NodeState;

/// How well `used` says what the kernel compares with `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// It is the number that the kernel compares.
    Exact,
    /// The kernel's number is this or less.
    UpperBound,
}

/// One limit of one object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    /// Which limit: a stable name.
    pub limit: &'static str,
    /// Of what: an address family, a bridge.
    pub object: String,
    /// In use. `None`: cannot be read.
    pub used: Option<u64>,
    /// The maximum. `None`: cannot be read.
    pub max: Option<u64>,
    /// How often the kernel refused because it was reached, since boot.
    pub hits: Option<u64>,
    /// How exact `used` is.
    pub exactness: Exactness,
    /// Where `used` was read.
    pub read_from: &'static str,
    /// The key that raises it. `None`: nothing does.
    pub raised_by: Option<&'static str>,
}

/// Every limit of the node.
#[must_use]
pub fn all(node: &NodeState) -> Vec<Limit> {
    let mut limits = neighbor::limits(&node.neighbor);
    limits.extend(bridge::limits(node.bridges.as_deref().unwrap_or_default()));
    limits
}
