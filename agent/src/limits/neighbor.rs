//! The neighbor tables' limit: `gc_thresh3`, shared by all pods of the node.

pub mod round;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use nix::errno::Errno;
use schemars::JsonSchema;
use serde::Serialize;

use super::{About, Cadence, Cost, Exactness, Limit};
use crate::kernel::neighbor::{EntryCounts, Family, StatError, StatFile, Table, TableStat};
use crate::kernel::sysctl_file::{OpenMode, SysctlFile, SysctlTree};

/// What is known of one table.
#[derive(Clone, Debug, Default)]
pub struct Neighbor {
    /// `/proc/net/stat`, read at the scrape.
    pub stat: Option<TableStat>,
    /// `gc_thresh1..3`, read at the scrape.
    pub thresholds: Option<[u64; 3]>,
    /// Netlink's word, every few seconds; the source where the files are not there.
    pub table: Option<Table>,
    /// Most entries seen, sampled every second.
    pub peak: Option<u64>,
    /// The last scan of entries.
    pub scan: Option<Scan>,
}

/// What one round of scanning namespaces found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Entries of the scanned namespaces.
    pub counts: EntryCounts,
    /// The pinned ones that are there because of pods: in their namespaces, and in the host's on
    /// bridges and on its ends of pods' links. `None`: not every pod's namespace could be scanned.
    pub of_pods: Option<u64>,
    /// How many of the scanned namespaces are pods'.
    pub pods: u64,
    /// How many namespaces were scanned.
    pub scanned: u64,
    /// How many known ones were not.
    pub skipped: u64,
    /// Whether the scan saw every entry that the table held: then `pinned` is the whole truth.
    pub complete: bool,
    /// When.
    pub at: SystemTime,
    /// The same, for ages.
    pub read_at: Instant,
}

/// Entries that come between two scans are few up to this part of `gc_thresh3`.
const A_FEW: u64 = 64;

/// What a fullness ratio is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Pinned entries: what really fills the table.
    Pinned,
    /// All entries less the known exempt ones: an upper bound.
    Entries,
}

impl Basis {
    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Entries => "entries",
        }
    }
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fullness {
    /// Of `gc_thresh3`; an upper bound may pass 1.
    pub ratio: f64,
    /// The entries it was computed from.
    pub used: u64,
    /// What it is made of.
    pub basis: Basis,
}

impl Neighbor {
    /// Entries of all namespaces.
    #[must_use]
    pub fn entries(&self) -> Option<u64> {
        self.stat.and_then(|stat| stat.entries).or(self.table.map(|table| table.entries.into()))
    }

    /// `gc_thresh1..3`.
    #[must_use]
    pub fn gc_thresholds(&self) -> Option<[u64; 3]> {
        self.thresholds.or(self
            .table
            .map(|table| [table.gc_thresh1, table.gc_thresh2, table.gc_thresh3].map(u64::from)))
    }

    /// Allocations that failed because the table was full.
    #[must_use]
    pub fn table_fulls(&self) -> Option<u64> {
        self.stat.and_then(|stat| stat.table_fulls).or(self.table.map(|table| table.table_fulls))
    }

    /// Forced garbage collections.
    #[must_use]
    pub fn forced_gc_runs(&self) -> Option<u64> {
        let stat = self.stat.and_then(|stat| stat.forced_gc_runs);
        stat.or(self.table.map(|table| table.forced_gc_runs))
    }

    /// Failed resolutions.
    #[must_use]
    pub fn resolution_failures(&self) -> Option<u64> {
        self.stat.and_then(|stat| stat.res_failed).or(self.table.map(|table| table.res_failed))
    }

    /// How full the table is; `None` where that cannot be said, also where `gc_thresh3` is 0.
    #[must_use]
    pub fn fullness(&self) -> Option<Fullness> {
        let [_, _, max] = self.gc_thresholds()?;
        let (used, basis) = match self.scan.filter(|scan| scan.complete).zip(self.entries()) {
            // What came since was not classified: a few count as pinned, with many the scan is
            // not the truth any more.
            Some((scan, entries)) if entries.saturating_sub(scan.counts.entries) <= max / A_FEW => {
                let since = entries.saturating_sub(scan.counts.entries);
                (scan.counts.pinned + since, Basis::Pinned)
            }
            _ => {
                let exempt = self.scan.map_or(0, |scan| scan.counts.exempt);
                (self.entries()?.saturating_sub(exempt), Basis::Entries)
            }
        };
        (max > 0).then(|| Fullness { ratio: used as f64 / max as f64, used, basis })
    }

    /// Takes note of the entries that there are now.
    pub fn sample_peak(&mut self) {
        self.peak = self.peak.max(self.entries());
    }
}

/// Entries of the neighbor tables.
pub static ABOUT: About = About {
    name: "neighbor_table",
    title: "neighbor table",
    unit: "pinned entries",
    scope: "each address family, for all network namespaces together",
    read: "RTM_GETNEIGH in every namespace, else /proc/net/stat",
    raised_by: Some("net.ipv4.neigh.default.gc_thresh3"),
    cost: Cost::Learned { prior: 2.0, floor: 2.0 },
    cost_why: "one entry for the pod in the node's namespace, one for the gateway in the pod's; two more \
               for every pair of pods that talk on one bridge",
    when_hit: "`neighbor table overflow!`; connections time out, datagrams vanish (ENOBUFS)",
    exactness: &[
        ("all", Exactness::Exact, "pinned entries, where a scan saw every entry of the table"),
        ("all", Exactness::UpperBound, "all entries less the known exempt ones, where it did not"),
    ],
    cadence: Cadence::Slow,
};

/// Both tables as limits. What an upper bound of IPv6's says is nothing: multicast alone makes six
/// entries a pod, which are collected as soon as room is needed.
#[must_use]
pub fn limits(tables: &[Neighbor; 2]) -> Vec<Limit> {
    let known = Family::ALL.into_iter().zip(tables).filter(|(_, table)| table.entries().is_some());
    known.map(|(family, table)| limit(family, table)).collect()
}

fn limit(family: Family, table: &Neighbor) -> Limit {
    let fullness = table.fullness();
    let exact = fullness.is_some_and(|fullness| fullness.basis == Basis::Pinned);
    let used = fullness.map(|fullness| fullness.used).or(table.entries());
    let max = table.gc_thresholds().map(|[_, _, max]| max);
    // A bound above the maximum proves that it counts what the kernel does not: nothing is known.
    let vacuous = used.zip(max).is_some_and(|(used, max)| used > max);
    let (used, unknown) = match (family, exact) {
        (Family::Ipv6, false) => (None, Some(why_unknown(table).to_owned())),
        (Family::Ipv4, false) if vacuous => (None, Some(why_unknown(table).to_owned())),
        _ if max.is_none() => (used, Some("gc_thresh3 cannot be read".to_owned())),
        _ => (used, None),
    };
    Limit {
        used,
        of_pods: table.scan.and_then(|scan| scan.of_pods),
        a_pod: table.scan.and_then(a_pod),
        pods_then: table.scan.filter(|_| exact).map(|scan| scan.pods),
        read_at: table.scan.filter(|_| exact).map(|scan| scan.read_at),
        unit: if exact { ABOUT.unit } else { "entries" },
        max,
        hits: table.table_fulls(),
        exactness: if exact { Exactness::Exact } else { Exactness::UpperBound },
        read_from: match (exact, table.stat.is_some()) {
            (true, _) => "RTM_GETNEIGH",
            (false, true) => "/proc/net/stat",
            (false, false) => "RTM_GETNEIGHTBL",
        },
        raised_by: Some(match family {
            Family::Ipv4 => "net.ipv4.neigh.default.gc_thresh3",
            Family::Ipv6 => "net.ipv6.neigh.default.gc_thresh3",
        }),
        cost: match family {
            Family::Ipv4 => ABOUT.cost,
            // Pods without IPv6 traffic have none that is pinned.
            Family::Ipv6 => Cost::Learned { prior: 0.0, floor: 0.0 },
        },
        unknown,
        ..Limit::of(&ABOUT, family.label())
    }
}

/// What a pod had in the last scan, where there were enough of them.
fn a_pod(scan: Scan) -> Option<f64> {
    let enough = scan.pods >= crate::capacity::ENOUGH_PODS;
    scan.of_pods.filter(|_| enough).map(|of_pods| of_pods as f64 / scan.pods as f64)
}

/// Why nothing is said of a table.
fn why_unknown(table: &Neighbor) -> &'static str {
    match table.scan {
        Some(scan) if scan.complete => {
            "more entries came since the last scan, and many may be collected when room is needed"
        }
        Some(scan) if scan.skipped == 0 => {
            "entries are in namespaces that the agent does not know, and may be permanent or collected when \
             room is needed: name their directories under podNamespaces"
        }
        _ => {
            "not every namespace could be scanned (that takes SYS_ADMIN and the mount), and many entries \
             may be permanent or collected when room is needed"
        }
    }
}

/// Reads what a scrape needs, without a lock that pod creation holds: kept descriptors on the
/// statistics and the thresholds, nothing else.
#[derive(Debug)]
pub struct Sampler {
    proc_root: PathBuf,
    families: [FamilySampler; 2],
}

#[derive(Debug)]
struct FamilySampler {
    family: Family,
    stat: Option<StatFile>,
    thresholds: Vec<SysctlFile>,
    buffer: Vec<u8>,
}

impl Sampler {
    /// A sampler that opens its files when it first reads.
    #[must_use]
    pub fn new(proc_root: &Path) -> Self {
        let families = Family::ALL.map(|family| FamilySampler {
            family,
            stat: None,
            thresholds: Vec::new(),
            buffer: Vec::new(),
        });
        Self { proc_root: proc_root.to_owned(), families }
    }

    /// Reads the tables' statistics, and with `thresholds` their thresholds too. A family that
    /// cannot be read loses its numbers; the first error is returned.
    pub fn sample(
        &mut self,
        tables: &mut [Neighbor; 2],
        thresholds: bool,
    ) -> Result<(), StatError> {
        let mut result = Ok(());
        for (sampler, table) in self.families.iter_mut().zip(tables) {
            let stat = sampler.stat(&self.proc_root);
            if stat.as_ref().is_err_and(|error| sampler.no_such_family(error)) {
                (table.stat, table.thresholds) = (None, None);
                continue;
            }
            table.stat = stat.as_ref().ok().copied();
            result = result.and(stat.map(drop));
            if thresholds {
                let limits = sampler.thresholds(&self.proc_root);
                table.thresholds = limits.as_ref().ok().copied();
                result = result.and(limits.map(drop));
            }
        }
        result
    }
}

impl FamilySampler {
    /// A kernel started with `ipv6.disable=1` has no IPv6 table: nothing failed.
    fn no_such_family(&self, error: &StatError) -> bool {
        let absent = matches!(error, StatError::File(error) if error.errno == Errno::ENOENT);
        self.family == Family::Ipv6 && absent
    }

    fn stat(&mut self, proc_root: &Path) -> Result<TableStat, StatError> {
        let mut file = match self.stat.take() {
            Some(file) => file,
            None => StatFile::open(proc_root, self.family)?,
        };
        let stat = file.read()?;
        self.stat = Some(file);
        Ok(stat)
    }

    fn thresholds(&mut self, proc_root: &Path) -> Result<[u64; 3], StatError> {
        let mut files = std::mem::take(&mut self.thresholds);
        if files.len() != 3 {
            files = self.open_thresholds(proc_root)?;
        }
        let mut values = [0; 3];
        for (value, file) in values.iter_mut().zip(&files) {
            let text = file.read(&mut self.buffer)?;
            *value = std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(0);
        }
        self.thresholds = files;
        Ok(values)
    }

    fn open_thresholds(&self, proc_root: &Path) -> Result<Vec<SysctlFile>, StatError> {
        let tree = SysctlTree::open(&proc_root.join("sys"), None)?;
        let open = |level: u8| {
            let family = self.family.label();
            let path = format!("net/{family}/neigh/default/gc_thresh{level}");
            tree.open_key(&path.replace('/', "."), Path::new(&path), OpenMode::ReadOnly)
        };
        Ok((1..=3).map(open).collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn table(entries: u64, max: u64, scan: Option<(u64, u64, bool)>) -> Neighbor {
        Neighbor {
            stat: Some(TableStat { entries: Some(entries), ..TableStat::default() }),
            thresholds: Some([128, 512, max]),
            scan: scan.map(|(exempt, pinned, complete)| Scan {
                counts: EntryCounts { entries, exempt, pinned },
                of_pods: None,
                pods: 0,
                scanned: 1,
                skipped: 0,
                complete,
                at: SystemTime::UNIX_EPOCH,
                read_at: Instant::now(),
            }),
            ..Neighbor::default()
        }
    }

    /// The table after the scan.
    fn grown(mut table: Neighbor, entries: u64) -> Neighbor {
        table.stat = Some(TableStat { entries: Some(entries), ..TableStat::default() });
        table
    }

    #[test]
    fn pinned_entries_fill_a_table_and_all_entries_are_an_upper_bound() {
        for (neighbor, used, ratio, basis) in [
            (table(512, 1024, None), 512, 0.5, Basis::Entries),
            (table(20_001, 1024, Some((20_000, 0, false))), 1, 1.0 / 1024.0, Basis::Entries),
            (table(600, 1024, Some((0, 256, true))), 256, 0.25, Basis::Pinned),
            (
                grown(table(600, 1024, Some((0, 256, true))), 616),
                272,
                272.0 / 1024.0,
                Basis::Pinned,
            ),
            (grown(table(600, 1024, Some((0, 256, true))), 1024), 1024, 1.0, Basis::Entries),
        ] {
            assert_eq!(neighbor.fullness(), Some(Fullness { ratio, used, basis }));
        }
        assert_eq!(table(1, 0, None).fullness(), None, "no ratio of nothing");
    }

    #[test]
    fn a_bound_above_the_maximum_says_nothing_and_no_alarm() {
        let unscanned = table(20_001, 1024, None);
        let limit = limit(Family::Ipv4, &unscanned);
        assert_eq!((limit.used, limit.max), (None, Some(1024)));
        assert!(limit.unknown.is_some());
        let below = super::limit(Family::Ipv4, &table(600, 1024, None));
        assert_eq!((below.used, below.exactness), (Some(600), Exactness::UpperBound));
        let scanned = super::limit(Family::Ipv4, &table(1024, 1024, Some((0, 1024, true))));
        assert_eq!(scanned.used, Some(1024), "full it is");
    }
}
