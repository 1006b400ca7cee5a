//! Pids in the kubelet's cgroups: of all pods together, and of the fullest pod.

use std::path::{Path, PathBuf};

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots, typical};
use crate::kernel::errno::FileError;
use crate::kernel::kubepods::{self, Pids, PodCgroup};
use crate::kernel::netns::{self, Kind};

const HITS: &str = "how often it was hit is told since 6.11 on cgroup v2; a pod's refused forks, for \
                    whichever limit, everywhere";

/// Pids of all pods.
pub static ABOUT: About = About {
    name: "kubepods_pids",
    title: "pids of",
    unit: "pids",
    scope: "the cgroup of all pods",
    read: "pids.current of the cgroup kubepods",
    raised_by: Some("the kubelet's systemReserved and kubeReserved `pid`"),
    cost: Cost::Learned { prior: 20.0, floor: 2.0 },
    cost_why: "prior: 20 processes and threads a pod; never fewer than its pause and its program",
    when_hit: "fork(2) and pthread_create(3) fail with EAGAIN in every pod",
    exactness: &[("all", Exactness::Exact, HITS)],
    cadence: Cadence::Slow,
};

/// Pids of one pod.
pub static POD: About = About {
    name: "pod_pids",
    title: "pids of",
    unit: "pids",
    scope: "each pod; the fullest is shown",
    read: "pids.current of the pod's cgroup",
    raised_by: Some("the kubelet's podPidsLimit"),
    cost: Cost::NotByPods,
    cost_why: "each pod has its own",
    when_hit: "fork(2) and pthread_create(3) fail with EAGAIN in that pod",
    exactness: &[("all", Exactness::Exact, HITS)],
    cadence: Cadence::Slow,
};

/// Reads both.
#[derive(Debug)]
pub struct Kubepods {
    proc: PathBuf,
    hierarchy: PathBuf,
    mounted: bool,
    found: Option<PathBuf>,
}

impl Kubepods {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            mounted: !roots.cgroup.starts_with(&roots.sys),
            ..Self::at(roots, kubepods::hierarchy(&roots.cgroup))
        }
    }

    /// The same in one hierarchy, or a part of it.
    #[must_use]
    pub fn at(roots: &Roots, hierarchy: PathBuf) -> Self {
        Self { proc: roots.proc.clone(), hierarchy, mounted: true, found: None }
    }

    fn kubepods(&mut self) -> Option<PathBuf> {
        self.found = self.found.take().filter(|path| path.is_dir());
        if self.found.is_none() {
            self.found = kubepods::find(&self.hierarchy);
        }
        self.found.clone()
    }
}

impl Reader for Kubepods {
    fn name(&self) -> &'static str {
        "kubepods"
    }

    fn read(&mut self) -> Vec<Limit> {
        let Some(kubepods) = self.kubepods() else {
            // A container's own /sys/fs/cgroup begins at its own cgroup.
            let hidden = !self.mounted && !netns::is_initial(&self.proc, Kind::Cgroup);
            let why = "pods' cgroups are not seen: mount the host's /sys/fs/cgroup read-only at \
                       /host/sys/fs/cgroup";
            return match hidden {
                true => vec![Limit::unknown(&ABOUT, "kubepods", why)],
                false => Vec::new(),
            };
        };
        let all = match kubepods::pids(&kubepods) {
            Ok(None) => None,
            Ok(Some(pids)) => Some(all(&kubepods, pids)),
            Err(error) => Some(Limit::unknown(&ABOUT, "kubepods", error.to_string())),
        };
        let fullest = match fullest(&kubepods) {
            Ok(None) => None,
            Ok(Some((pod, pids))) => Some(fullest_pod(&pod, pids)),
            Err(error) => Some(Limit::unknown(&POD, "pods", error.to_string())),
        };
        all.into_iter().chain(fullest).collect()
    }
}

fn all(kubepods: &Path, pids: Pids) -> Limit {
    let pods = kubepods::pods(kubepods).unwrap_or_default();
    let parts = pods.iter().filter_map(|pod| kubepods::current(&pod.path).ok().flatten());
    Limit {
        a_pod: typical(parts.collect(), pods.len()),
        hits: kubepods::refused(kubepods).ok().flatten(),
        ..Limit::of(&ABOUT, "kubepods").with(pids.current, pids.max)
    }
}

fn fullest_pod(pod: &PodCgroup, pids: Pids) -> Limit {
    let hits = kubepods::refused(&pod.path);
    let hits = match hits {
        Ok(Some(own)) => Some(own),
        _ => kubepods::refused_below(&pod.path).ok(),
    };
    Limit { hits, ..Limit::of(&POD, format!("pod {}", pod.uid)).with(pids.current, pids.max) }
}

/// The pod nearest to its limit, if one has a limit. One that cannot be read is passed over if another
/// can.
fn fullest(kubepods: &Path) -> Result<Option<(PodCgroup, Pids)>, FileError> {
    let (mut fullest, mut failure): (Option<(PodCgroup, Pids)>, _) = (None, None);
    for pod in kubepods::pods(kubepods)? {
        match kubepods::pids(&pod.path) {
            Ok(Some(pids)) if fullest.as_ref().is_none_or(|(_, most)| is_fuller(pids, *most)) => {
                fullest = Some((pod, pids));
            }
            Ok(_) => {}
            Err(error) => failure = Some(error),
        }
    }
    match (fullest, failure) {
        (None, Some(error)) => Err(error),
        (fullest, _) => Ok(fullest),
    }
}

fn is_fuller(pids: Pids, than: Pids) -> bool {
    u128::from(pids.current) * u128::from(than.max)
        > u128::from(than.current) * u128::from(pids.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fullest_is_the_one_nearest_to_its_own_limit() {
        let pids = |current, max| Pids { current, max };
        assert!(is_fuller(pids(9, 10), pids(80, 100)));
        assert!(!is_fuller(pids(8, 10), pids(80, 100)));
        assert!(is_fuller(pids(u64::MAX, 1), pids(1, u64::MAX)));
        assert!(is_fuller(pids(1, 0), pids(9, 10)), "none may be made at all");
    }
}
