//! Connections tracked in pods' namespaces: the maximum is for each namespace by itself.

use std::time::Instant;

use super::{Cost, Limit, conntrack};

/// What the last round through pods' namespaces found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodConntrack {
    /// Connections of the fullest pod.
    pub entries: u64,
    /// Connections refused or given up because a pod's table was full. Of pods that are there; what was
    /// seen stays counted when they go.
    pub drops: u64,
    /// The drops of the pods that the last whole round saw; `None` before there was one.
    pub drops_seen: Option<u64>,
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
        let seen = before.and_then(|before| before.drops_seen);
        let told = before.map_or(0, |before| before.drops);
        let drops = match (seen, now.drops_seen) {
            (Some(before), Some(now)) => told.saturating_add(now.saturating_sub(before)),
            (None, Some(now)) => now,
            // What a round misses, the next would take for new.
            (_, None) => told,
        };
        Some(Self { drops, drops_seen: now.drops_seen.or(seen), ..now })
    }
}

/// The fullest pod. No pod more makes that one fuller.
#[must_use]
pub fn limit(found: Option<&PodConntrack>) -> Option<Limit> {
    let found = found?;
    Some(Limit {
        hits: found.drops_seen.map(|_| found.drops),
        read_from: "/proc/net/stat/nf_conntrack in every pod's namespace",
        cost: Cost::NotByPods,
        read_at: Some(found.at),
        ..Limit::of(&conntrack::ABOUT, "fullest pod").with(found.entries, found.max)
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
            drops_seen: Some(drops),
            max: 8,
            at: Instant::now(),
        };
        let mut known = None;
        for (seen, told) in [(5, 5), (7, 7), (2, 7), (4, 9)] {
            known = PodConntrack::after(known, Some(round(seen)));
            assert_eq!(known.map(|known| known.drops), Some(told));
        }
        let limit = limit(known.as_ref());
        assert_eq!(limit.and_then(|limit| limit.hits), Some(9));
        assert_eq!(PodConntrack::after(known, None), None);
    }
}
