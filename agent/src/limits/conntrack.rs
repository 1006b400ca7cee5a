//! Tracked connections. The maximum is one number for the whole node, and each network namespace has
//! a count of its own that is compared with it.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// Tracked connections.
pub static ABOUT: About = About {
    name: "conntrack",
    title: "connection tracking",
    unit: "connections",
    scope: "each network namespace; `host` is the node's, through which services and SNAT go, `fullest pod` \
            that of the pod with the most",
    read: "/proc/sys/net/netfilter/nf_conntrack_count",
    raised_by: Some("net.netfilter.nf_conntrack_max"),
    cost: Cost::Learned { prior: 0.0, floor: 0.0 },
    cost_why: "what the pods here make of connections through services, SNAT and the host's ports",
    when_hit: "`nf_conntrack: table full, dropping packet`; connections time out, local ones fail with EPERM",
    exactness: &[
        ("all", Exactness::Exact, "`count`, which `__nf_conntrack_alloc` compares"),
        (
            "all",
            Exactness::LowerBound,
            "hits: `drop` and `early_drop`; `insert_failed` is a clash of two packets and is taken off, \
             since a clash counts as a `drop` too",
        ),
    ],
    cadence: Cadence::Scrape,
};

/// Reads the host's namespace.
#[derive(Debug)]
pub struct Conntrack {
    count: Kept,
    max: Kept,
    stat: Kept,
    hits: Hits,
}

impl Conntrack {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let netfilter = roots.proc.join("sys/net/netfilter");
        Self {
            count: Kept::new(netfilter.join("nf_conntrack_count")),
            max: Kept::new(netfilter.join("nf_conntrack_max")),
            stat: Kept::new(roots.proc.join("net/stat/nf_conntrack")),
            hits: Hits::default(),
        }
    }

    fn numbers(&mut self) -> Result<[u64; 2], FileError> {
        Ok([self.count.number()?, self.max.number()?])
    }

    /// `None` also where the kernel was built without the file (CONFIG_NF_CONNTRACK_PROCFS).
    fn hits(&mut self) -> Option<u64> {
        let names = ["drop", "early_drop", "insert_failed"];
        let read = self.stat.parsed(|text| counters::columns(text, names));
        let [drop, early_drop, insert_failed] = read.ok()?;
        Some(self.hits.take(drop?, early_drop?, insert_failed.unwrap_or(0)))
    }
}

impl Reader for Conntrack {
    fn name(&self) -> &'static str {
        "conntrack"
    }

    fn read(&mut self) -> Vec<Limit> {
        let Some(limit) = Limit::read(&ABOUT, "host", self.numbers()) else { return Vec::new() };
        vec![Limit { hits: self.hits(), ..unless_unlimited(limit) }]
    }
}

/// 0 is no maximum; from 7.x on the kernel refuses that value.
#[must_use]
pub fn unless_unlimited(limit: Limit) -> Limit {
    match limit.max {
        Some(0) => Limit { max: None, cost: Cost::NotByPods, ..limit },
        _ => limit,
    }
}

/// Refusals because a table was full, from counters that count more. A clash of two packets of one
/// connection (`nf_ct_resolve_clash`) counts in `drop` and in `insert_failed`; that is daily bread
/// (two DNS queries from one port), and no full table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    last: [u64; 3],
    total: u64,
}

impl Hits {
    /// With the counters as they are now. It never goes down, even where more insertions failed than
    /// packets were dropped.
    pub fn take(&mut self, drop: u64, early_drop: u64, insert_failed: u64) -> u64 {
        let now = [drop, early_drop, insert_failed];
        // A counter that went down starts anew: its module was loaded again, or it wrapped.
        let anew = now.iter().zip(self.last).any(|(now, last)| *now < last);
        let last = if anew { [0; 3] } else { self.last };
        let [dropped, early, failed] =
            [0, 1, 2].map(|place: usize| match (now.get(place), last.get(place)) {
                (Some(now), Some(last)) => now - last,
                _ => 0,
            });
        let refused = dropped.saturating_sub(failed).saturating_add(early);
        self.total = self.total.saturating_add(refused);
        self.last = now;
        self.total
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clash_is_no_full_table() {
        let mut hits = Hits::default();
        assert_eq!(hits.take(10, 3, 4), 9, "since boot");
        assert_eq!(hits.take(15, 3, 9), 9, "five clashes");
        assert_eq!(hits.take(15, 3, 12), 9, "insertions that failed for another reason");
        assert_eq!(hits.take(17, 4, 12), 12);
        assert_eq!(hits.take(1, 0, 0), 13, "the module was loaded anew");
    }

    #[test]
    fn no_module_is_no_limit_and_zero_is_no_maximum() {
        let proc = tempfile::tempdir().unwrap();
        let roots =
            Roots { proc: proc.path().to_owned(), sys: proc.path().to_owned(), ..Roots::default() };
        let mut reader = Conntrack::new(&roots);
        assert!(reader.read().is_empty());
        let netfilter = proc.path().join("sys/net/netfilter");
        std::fs::create_dir_all(&netfilter).unwrap();
        std::fs::write(netfilter.join("nf_conntrack_count"), "7\n").unwrap();
        for (max, shown) in [("262144\n", Some(262_144)), ("0\n", None)] {
            std::fs::write(netfilter.join("nf_conntrack_max"), max).unwrap();
            let limit = reader.read().remove(0);
            assert_eq!((limit.used, limit.max, limit.hits), (Some(7), shown, None));
        }
    }

    proptest! {
        #[test]
        fn hits_never_go_down(steps in proptest::collection::vec(any::<[u32; 3]>(), 0..20)) {
            let mut hits = Hits::default();
            let mut last = 0;
            for [drop, early, failed] in steps {
                let now = hits.take(drop.into(), early.into(), failed.into());
                prop_assert!(now >= last);
                last = now;
            }
        }
    }
}
