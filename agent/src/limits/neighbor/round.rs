//! A round through the known network namespaces, the host's and pods': whose entries fill the
//! neighbor tables, and, with the same visits, which pod tracks the most connections.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::Scan;
use crate::config::Watch;
use crate::kernel::conntrack_stat::{self, Tracked};
use crate::kernel::links;
use crate::kernel::neighbor::{self, EntryCounts, Family, StatFile};
use crate::kernel::netlink::{DumpSocket, NetlinkError};
use crate::kernel::tour::{Tour, Toured, Work};
use crate::limits::pod_conntrack::PodConntrack;

/// What a round found.
#[derive(Debug)]
pub struct Round {
    /// The neighbor tables, IPv4 first.
    pub tables: [Result<Scan, String>; 2],
    /// Pods' connections; `None` where they are not tracked, or no pod's namespace was seen.
    pub conntrack: Option<PodConntrack>,
    /// Why pods' namespaces could not be scanned. Escaped.
    pub trouble: Option<String>,
    /// What it cost of a processor.
    pub cost: Duration,
}

/// Goes through the calling thread's namespace and pods'. `watch` says which bridges are pods'.
pub fn round(tour: &Tour, watch: &Watch, kernel: (u32, u32)) -> Result<Round, String> {
    // Commit eabf425bc6ad.
    let loopback_exempt = kernel >= (6, 10);
    let before = Family::ALL.map(|family| entries(&tour.proc_root, family));
    let max = conntrack_stat::max(&tour.proc_root).ok().flatten();
    let first = || Found {
        tables: Family::ALL.map(|family| hosts(family, watch, loopback_exempt)),
        conntrack: None,
    };
    let work = |found: &mut Found| {
        let tracked = max.and_then(|_| conntrack_stat::tracked(&tour.proc_root).ok());
        found.tracked(tracked);
        match found.pods(loopback_exempt) {
            Ok(()) => Work::Done,
            // RTNL is held for long: each namespace would take as long.
            Err(error @ NetlinkError::TimedOut { .. }) => Work::Stuck(error.to_string()),
            Err(error) => Work::Failed(error.to_string()),
        }
    };
    let (found, toured, cost) = tour.run(first, work).map_err(|error| error.to_string())?;
    let after = Family::ALL.map(|family| entries(&tour.proc_root, family));
    let mut held = before.into_iter().zip(after).map(|(before, after)| {
        // What was freed meanwhile was not there to be seen.
        Some(before?.min(after?))
    });
    let tables = found.tables.map(|table| {
        let held = held.next().flatten();
        table.map(|table| table.scan(held, &toured))
    });
    Ok(Round {
        tables,
        conntrack: found.conntrack.zip(max).map(|((fullest, drops), max)| PodConntrack {
            entries: fullest,
            drops,
            drops_seen: (toured.failed == 0).then_some(drops),
            max,
            at: Instant::now(),
        }),
        trouble: toured.trouble.map(|why| {
            let (failed, all) = (toured.failed, toured.failed + toured.entered);
            format!("{failed} of {all} network namespaces of pods cannot be scanned for neighbor entries: {why}")
        }),
        cost,
    })
}

/// Entries of the whole table, as the kernel counts them.
fn entries(proc_root: &Path, family: Family) -> Option<u64> {
    let by_file = || StatFile::open(proc_root, family).ok()?.read().ok()?.entries;
    let by_netlink = || {
        let table = neighbor::table(&mut DumpSocket::open().ok()?, family).ok()??;
        Some(table.entries.into())
    };
    by_file().or_else(by_netlink)
}

struct Found {
    tables: [Result<Table, String>; 2],
    /// Connections of the fullest pod, and drops of all.
    conntrack: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Default)]
struct Table {
    counts: EntryCounts,
    of_pods: u64,
}

impl Found {
    fn pods(&mut self, loopback_exempt: bool) -> Result<(), NetlinkError> {
        let mut socket = DumpSocket::open()?;
        for (family, table) in Family::ALL.into_iter().zip(&mut self.tables) {
            let counts = neighbor::scan(&mut socket, family, loopback_exempt)?;
            if let Ok(table) = table {
                table.counts += counts;
                table.of_pods += counts.pinned;
            }
        }
        Ok(())
    }

    fn tracked(&mut self, tracked: Option<Tracked>) {
        let Some(tracked) = tracked else { return };
        let (fullest, drops) = self.conntrack.unwrap_or_default();
        self.conntrack = Some((fullest.max(tracked.entries), drops.saturating_add(tracked.drops)));
    }
}

impl Table {
    /// `held`: entries that the table had all the time.
    fn scan(self, held: Option<u64>, toured: &Toured) -> Scan {
        let complete = toured.failed == 0 && held.is_some_and(|held| self.counts.entries >= held);
        // Without any pod in sight, what is on bridges is still somebody's.
        let known = toured.failed == 0 && (complete || toured.entered > 0);
        Scan {
            counts: self.counts,
            of_pods: known.then_some(self.of_pods),
            pods: toured.entered,
            scanned: toured.entered + 1,
            skipped: toured.skipped(),
            complete,
            at: SystemTime::now(),
            read_at: Instant::now(),
        }
    }
}

/// The host's entries. Those on its bridges and its ends of pods' pairs are there because of pods.
fn hosts(family: Family, watch: &Watch, loopback_exempt: bool) -> Result<Table, String> {
    let by_link = || -> Result<Table, NetlinkError> {
        let mut socket = DumpSocket::open()?;
        let by_link = neighbor::scan_by_link(&mut socket, family, loopback_exempt)?;
        let mut table = Table::default();
        by_link.values().for_each(|counts| table.counts += *counts);
        if table.counts.pinned > 0 {
            let links = links::all(&mut socket)?;
            let of_pods =
                |link: &&links::Link| link.is_pair || (link.is_bridge && watch.covers(&link.name));
            let of_pods = links.iter().filter(of_pods).filter_map(|link| by_link.get(&link.index));
            table.of_pods = of_pods.map(|counts| counts.pinned).sum();
        }
        Ok(table)
    };
    by_link().map_err(|error| error.to_string())
}
