//! Mounts of the host's mount namespace.

use std::path::PathBuf;

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;
use crate::kernel::mounts::{self, Mounts as Counted};
use crate::kernel::netns::{self, Kind};

/// Mounts.
pub static ABOUT: About = About {
    name: "mounts",
    title: "mount namespace",
    unit: "mounts",
    scope: "each mount namespace; the host's has those of all pods",
    read: "/proc/1/mountinfo",
    raised_by: Some("fs.mount-max"),
    cost: Cost::Learned { prior: 6.0, floor: 0.0 },
    cost_why: "prior: about 5 a pod (namespace, shm, root file systems) and one a volume",
    when_hit: "mount(2) fails with ENOSPC: volumes and containers are not set up",
    exactness: &[(
        "all",
        Exactness::LowerBound,
        "mounts that init's root does not lead to are not seen: as a rule one, the first root",
    )],
    cadence: Cadence::Slow,
};

/// Reads it.
#[derive(Debug)]
pub struct Mounts {
    proc: PathBuf,
    max: Kept,
}

impl Mounts {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { proc: roots.proc.clone(), max: Kept::new(roots.proc.join("sys/fs/mount-max")) }
    }
}

impl Reader for Mounts {
    fn name(&self) -> &'static str {
        "mounts"
    }

    fn read(&mut self) -> Vec<Limit> {
        let max = self.max.number();
        if !netns::is_initial(&self.proc, Kind::Pid) {
            let why = "the host's init is not seen, and so not its mounts: hostPID: true is needed";
            return vec![Limit { max: max.ok(), ..Limit::unknown(&ABOUT, "host", why) }];
        }
        vec![limit(mounts::count(&self.proc.join("1/mountinfo")), max)]
    }
}

fn limit(counted: Result<Counted, FileError>, max: Result<u64, FileError>) -> Limit {
    match (counted, max) {
        (Ok(counted), Ok(max)) => Limit {
            of_pods: Some(counted.of_pods),
            ..Limit::of(&ABOUT, "host").with(counted.all, max)
        },
        (Err(error), _) | (_, Err(error)) => Limit::unknown(&ABOUT, "host", error.to_string()),
    }
}
