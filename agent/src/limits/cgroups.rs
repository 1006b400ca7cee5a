//! Memory cgroups: each has an id of 16 bits, and keeps it while anything is charged to it.

use std::time::Duration;

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// Ids there are (`MEM_CGROUP_ID_MAX`; 5.10 never gives out the last).
const IDS: u64 = 65_535;

/// Memory cgroups.
pub static ABOUT: About = About {
    name: "cgroups",
    title: "memory cgroups",
    unit: "cgroups",
    scope: "the node",
    read: "/proc/cgroups, or cgroup.stat of the root",
    raised_by: None,
    cost: Cost::Learned { prior: 3.0, floor: 2.0 },
    cost_why: "the pod's own, its sandbox's and one for each container; removed ones stay as long as pages \
               are charged to them, so churn costs more than pods",
    when_hit: "no container starts any more: mkdir in the cgroup tree fails with ENOSPC, on newer kernels with EBUSY",
    exactness: &[
        (
            "all",
            Exactness::UpperBound,
            "cgroups of the controller's hierarchy, dying ones too: an id is free again as soon as no page \
             in swap has it; with cgroup v2 those without the memory controller are in it",
        ),
        (
            "from 6.12, where /proc/cgroups has no memory controller",
            Exactness::UpperBound,
            "those of the memory controller alone, dying ones too",
        ),
    ],
    cadence: Cadence::Slow,
};

/// Why nothing is known.
const NOT_THE_ROOT: &str = "this kernel does not list the memory controller in /proc/cgroups, and the agent's \
                            cgroup tree is not the host's: mount the host's /sys/fs/cgroup at \
                            /host/sys/fs/cgroup, read-only";

/// Reads it. Not at every scrape: on 5.10, /proc/cgroups takes the lock under which cgroups are made.
#[derive(Debug)]
pub struct Cgroups {
    list: Kept,
    stat: Kept,
    kind: Kept,
}

impl Cgroups {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            list: Kept::new(roots.proc.join("cgroups")),
            stat: Kept::new(roots.cgroup.join("cgroup.stat")),
            kind: Kept::new(roots.cgroup.join("cgroup.type")),
        }
    }

    fn limit(&mut self) -> Result<Limit, FileError> {
        if let Some(count) = self.list.parsed(counters::memory_cgroups)? {
            return Ok(Limit::of(&ABOUT, "").with(count, IDS));
        }
        // Every cgroup but the root has a type.
        if self.kind.bytes().is_ok() {
            return Ok(Limit::unknown(&ABOUT, "", NOT_THE_ROOT));
        }
        let count = self.stat.parsed(counted)?;
        Ok(Limit { read_from: "cgroup.stat", ..Limit::of(&ABOUT, "").with(count, IDS) })
    }
}

/// Of the memory controller where the kernel says that (since 6.12), else all below the root and the
/// root itself.
fn counted(stat: &str) -> Option<u64> {
    let sum = |living: &str, dying: &str| {
        Some(counters::keyed(stat, living)?.saturating_add(counters::keyed(stat, dying)?))
    };
    let all = || Some(sum("nr_descendants", "nr_dying_descendants")?.saturating_add(1));
    sum("nr_subsys_memory", "nr_dying_subsys_memory").or_else(all)
}

impl Reader for Cgroups {
    fn name(&self) -> &'static str {
        "cgroups"
    }

    fn read(&mut self) -> Vec<Limit> {
        let limit = self.limit().map_or_else(|error| Limit::read(&ABOUT, "", Err(error)), Some);
        limit.into_iter().collect()
    }

    fn every(&self) -> Duration {
        Duration::from_secs(10)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_of_the_controller_and_never_of_a_container() {
        let proc = tempfile::tempdir().unwrap();
        let cgroup = tempfile::tempdir().unwrap();
        let roots = Roots {
            proc: proc.path().to_owned(),
            cgroup: cgroup.path().to_owned(),
            ..Roots::default()
        };
        let mut reader = Cgroups::new(&roots);
        let mut used = || reader.read().pop().and_then(|limit| limit.used);
        assert_eq!(used(), None, "no cgroups");
        let list = |text| std::fs::write(proc.path().join("cgroups"), text).unwrap();
        list("#subsys_name\thierarchy\tnum_cgroups\tenabled\nmemory\t0\t69\t1\n");
        assert_eq!(used(), Some(69));
        list("#subsys_name\thierarchy\tnum_cgroups\tenabled\n");
        let stat = |text| std::fs::write(cgroup.path().join("cgroup.stat"), text).unwrap();
        stat("nr_descendants 61\nnr_dying_descendants 5\n");
        assert_eq!(used(), Some(67));
        stat(
            "nr_descendants 61\nnr_subsys_memory 50\nnr_dying_descendants 5\nnr_dying_subsys_memory 3\n",
        );
        assert_eq!(used(), Some(53));
        std::fs::write(cgroup.path().join("cgroup.type"), "domain\n").unwrap();
        let limit = reader.read().remove(0);
        assert!(limit.used.is_none() && limit.unknown.is_some());
    }
}
