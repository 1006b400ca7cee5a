//! Connections tracked in pods' namespaces: the maximum is for each namespace by itself.

use std::time::Instant;

use super::{Cost, Limit, conntrack};
use crate::node::NodeState;

/// What the last round through pods' namespaces found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodConntrack {
    /// Connections of the fullest pod.
    pub entries: u64,
    /// Connections refused or given up because a pod's table was full. Of pods that are there; what was
    /// seen stays counted when they go.
    pub drops: u64,
    /// The drops of the pods that the last round saw.
    pub drops_seen: u64,
    /// The most that one namespace may have.
    pub max: u64,
    /// When.
    pub at: Instant,
}

impl PodConntrack {
    /// A round's result after an earlier one's: a counter does not fall when a pod ends.
    #[must_use]
    pub fn after(before: Option<Self>, now: Option<Self>) -> Option<Self> {
        let now = now?;
        let Some(before) = before else { return Some(now) };
        let more = now.drops_seen.saturating_sub(before.drops_seen);
        Some(Self { drops: before.drops.saturating_add(more), ..now })
    }
}

/// The fullest pod's, beside the node's own.
#[must_use]
pub fn limits(node: &NodeState) -> Option<Limit> {
    let fullest = node.pod_conntrack?;
    Some(Limit {
        hits: Some(fullest.drops),
        read_from: "/proc/net/stat/nf_conntrack in every pod's namespace",
        // More pods do not make one pod's connections more.
        cost: Cost::NotByPods,
        read_at: Some(fullest.at),
        ..Limit::of(&conntrack::ABOUT, "fullest pod").with(fullest.entries, fullest.max)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_ends_takes_no_refusal_back_and_adds_none() {
        let round = |drops| PodConntrack {
            entries: 1,
            drops,
            drops_seen: drops,
            max: 8,
            at: Instant::now(),
        };
        let mut known = None;
        for (seen, told) in [(5, 5), (7, 7), (2, 7), (4, 9)] {
            known = PodConntrack::after(known, Some(round(seen)));
            assert_eq!(known.map(|known| known.drops), Some(told));
        }
        let node = NodeState { pod_conntrack: known, ..NodeState::default() };
        assert_eq!(limits(&node).and_then(|limit| limit.hits), Some(9));
        assert_eq!(PodConntrack::after(known, None), None);
    }
}
