//! Netfilter's rules in the status document.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernel::system;
use crate::limits::netfilter::{self, Backend, Count, Family, Mode, Owner};

/// Netfilter's rules, and how kube-proxy works.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Netfilter {
    /// How many rules there are.
    pub rules: Vec<RuleCount>,
    /// kube-proxy's modes that rules were found of: one is in force, several are one and what
    /// others left behind. Absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_proxy_modes: Option<Vec<Mode>>,
    /// What to do about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// What could not be counted, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
    /// How many seconds ago they were counted.
    pub age_seconds: u64,
}

/// How many rules there are of one kind.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleCount {
    /// What holds them.
    pub backend: Backend,
    /// The table's family.
    pub family: Family,
    /// Whose they are.
    pub owner: Owner,
    /// Rules; of ipvs destinations.
    pub rules: u64,
    /// Chains; of ipvs virtual services. Null: not known.
    pub chains: Option<u64>,
}

impl Netfilter {
    /// What was found, on a kernel of this release.
    #[must_use]
    pub fn of(found: &netfilter::Netfilter, kernel: &str) -> Self {
        let count = |(&(backend, family, owner), count): (&_, &Count)| RuleCount {
            backend,
            family,
            owner,
            rules: count.rules,
            chains: count.chains,
        };
        let modes = found.modes.as_deref().unwrap_or_default();
        Self {
            rules: found.counts.iter().map(count).collect(),
            advice: netfilter::advice(modes, system::kernel_version(kernel)),
            kube_proxy_modes: found.modes.clone(),
            unknown: found.unknown.clone(),
            age_seconds: found.read_at.elapsed().as_secs(),
        }
    }
}
