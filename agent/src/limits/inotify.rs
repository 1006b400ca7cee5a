//! Inotify instances and watches, and fanotify groups, of each user.
//!
//! The kernel has no counter to read: one pass over the descriptors of all processes.

use nix::errno::Errno;

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots, typical};
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;
use crate::kernel::notify_groups::{self, Held, Part, Scan};
use crate::kernel::{kubepods, node_file, processes, slab};

/// Far more pods than a node can have.
const MOST_PODS: usize = 1 << 16;
/// Users shown of each: root and the fullest.
const SHOWN: usize = 5;
/// Where there may be more watches, they are not read: the kernel renders all of an instance at once,
/// in a buffer that is charged to the reader; with 192 bytes a watch at the most this is 32 MiB.
const MOST_WATCHES: u64 = 160_000;
/// The slab cache of inotify's watches (`fs/notify/inotify/inotify_user.c`).
const WATCHES_SLAB: &str = "inotify_inode_mark";

const WHOSE: &str = "who holds a group now is taken for who made it; a user namespace's counts for \
                     its maker; groups that no descriptor in /proc leads to are not seen";

/// Inotify instances.
pub static INSTANCES: About = About {
    name: "inotify_instances",
    title: "inotify instances of",
    unit: "instances",
    scope: "each user; all pods without a user namespace whose processes are root share that of uid 0",
    read: "/proc/<pid>/fd, each open instance once by kcmp(2)",
    raised_by: Some("fs.inotify.max_user_instances"),
    cost: Cost::Learned { prior: 1.0, floor: 0.0 },
    cost_why: "prior: 1; 1 to 3 a pod whose program watches its configuration or logs",
    when_hit: "inotify_init1(2) fails with EMFILE: `too many open files`",
    exactness: &[("all", Exactness::Estimate, WHOSE)],
    cadence: Cadence::Slow,
};

/// Inotify watches.
pub static WATCHES: About = About {
    name: "inotify_watches",
    title: "inotify watches of",
    unit: "watches",
    scope: "each user; all pods without a user namespace whose processes are root share that of uid 0",
    read: "/proc/<pid>/fdinfo",
    raised_by: Some("fs.inotify.max_user_watches"),
    cost: Cost::Learned { prior: 0.0, floor: 0.0 },
    cost_why: "no prior: from none to some thousands, by program",
    when_hit: "inotify_add_watch(2) fails with ENOSPC: `no space left on device`",
    exactness: &[("all", Exactness::Estimate, WHOSE)],
    cadence: Cadence::Slow,
};

/// Fanotify groups.
pub static FANOTIFY: About = About {
    name: "fanotify_groups",
    title: "fanotify groups of",
    unit: "groups",
    scope: "each user",
    read: "/proc/<pid>/fd, each open group once by kcmp(2)",
    raised_by: Some("fs.fanotify.max_user_groups"),
    cost: Cost::NotByPods,
    cost_why: "agents that guard a node use them, pods do not",
    when_hit: "fanotify_init(2) fails with EMFILE: `too many open files`",
    exactness: &[
        ("before 5.13", Exactness::Estimate, "the maximum is fixed there, 128 a user: not shown"),
        ("5.13 on", Exactness::Estimate, WHOSE),
    ],
    cadence: Cadence::Slow,
};

/// Reads all three.
#[derive(Debug)]
pub struct Inotify {
    roots: Roots,
    instances: Kept,
    watches: Kept,
    fanotify: Kept,
}

impl Inotify {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let key = |key: &str| Kept::new(roots.proc.join("sys/fs").join(key));
        Self {
            roots: roots.clone(),
            instances: key("inotify/max_user_instances"),
            watches: key("inotify/max_user_watches"),
            fanotify: key("fanotify/max_user_groups"),
        }
    }

    /// Whether no instance can be so large that reading it would take the agent's memory.
    fn watches_may_be_read(&self, max: &Result<u64, FileError>) -> bool {
        // More than there are in the kernel, no instance has.
        let all = slab::objects(&self.roots.sys, WATCHES_SLAB);
        all.into_iter().chain(max.clone().ok()).min().is_some_and(|most| most <= MOST_WATCHES)
    }
}

impl Inotify {
    /// How many pods there are: those whose processes hold nothing count too.
    fn pods(&self) -> usize {
        let cgroups = kubepods::pod_cgroups(&self.roots.cgroup).ok().flatten();
        if let Some(pods) = cgroups {
            return pods.len();
        }
        let mut count = 0;
        for directory in &self.roots.netns {
            // What cannot be read has none that are known of.
            let _ = node_file::each(directory, MOST_PODS, |_| count += 1);
        }
        count
    }
}

impl Reader for Inotify {
    fn name(&self) -> &'static str {
        "inotify"
    }

    fn read(&mut self) -> Vec<Limit> {
        let watches_max = self.watches.number();
        let watches_read = self.watches_may_be_read(&watches_max);
        let scan = notify_groups::scan(&self.roots.proc, watches_read);
        let scan = scan.map_err(|error| error.to_string());
        let scan = scan.and_then(|scan| match refusal(&scan, &self.roots) {
            Some(why) => Err(why),
            None => Ok(scan),
        });
        let too_many = || {
            format!(
                "there may be more than {MOST_WATCHES} watches, which is more than the agent reads: \
                 the kernel would need too much of its memory for that"
            )
        };
        let watches = match watches_read {
            true => scan.clone(),
            false => scan.clone().and_then(|_| Err(too_many())),
        };
        let pods = self.pods();
        let mut limits =
            of_users(&INSTANCES, &scan, self.instances.number(), |held| held.instances);
        a_pod(&mut limits, &scan, pods, |part| part.instances);
        let mut watches_limits = of_users(&WATCHES, &watches, watches_max, |held| held.watches);
        a_pod(&mut watches_limits, &watches, pods, |part| part.watches);
        limits.extend(watches_limits);
        limits.extend(of_users(&FANOTIFY, &scan, self.fanotify.number(), |held| held.fanotify));
        limits
    }
}

/// What a pod has as a rule, for each user.
fn a_pod(
    limits: &mut [Limit],
    scan: &Result<Scan, String>,
    pods: usize,
    count: impl Fn(&Part) -> u64,
) {
    let Ok(scan) = scan else { return };
    for limit in limits {
        let parts = scan.pods.iter().filter(|((user, _), _)| limit.object == object(*user));
        limit.a_pod = typical(parts.map(|(_, part)| count(part)).collect(), pods);
    }
}

fn object(user: u32) -> String {
    format!("uid {user}")
}

/// Without the capability only a part is seen, and which one is chance. With it, what is still refused
/// is another security module's choice.
fn refusal(scan: &Scan, roots: &Roots) -> Option<String> {
    (scan.refused > 0 && !processes::may_look(&roots.proc)).then(|| {
        format!(
            "the descriptors of {} processes may not be seen: capability SYS_PTRACE is needed",
            scan.refused
        )
    })
}

/// Root and the fullest users. A kernel without the key has no such limit.
fn of_users(
    about: &'static About,
    scan: &Result<Scan, String>,
    max: Result<u64, FileError>,
    count: impl Fn(&Held) -> u64,
) -> Vec<Limit> {
    let max = match max {
        Err(error) if error.errno == Errno::ENOENT => return Vec::new(),
        Ok(max) => Ok(max),
        Err(error) => Err(error.to_string()),
    };
    let scan = match scan {
        Err(why) => {
            return vec![Limit { max: max.ok(), ..Limit::unknown(about, "all uids", why) }];
        }
        Ok(scan) => scan,
    };
    // Root's first, also where there are none: it is the one that pods share.
    let root = scan.users.get(&0).copied().unwrap_or_default();
    let others = scan.users.iter().filter(|(user, _)| **user != 0);
    let others = others.map(|(user, held)| (*user, count(held)));
    let mut users: Vec<(u32, u64)> = others.filter(|(_, count)| *count > 0).collect();
    users.sort_by_key(|(user, count)| (std::cmp::Reverse(*count), *user));
    users.insert(0, (0, count(&root)));
    users.truncate(SHOWN);
    let limit = |(user, count): (u32, u64)| {
        let mut limit = Limit { used: Some(count), ..Limit::of(about, object(user)) };
        (limit.max, limit.unknown) = (max.clone().ok(), max.clone().err());
        if scan.cut || scan.refused > 0 {
            limit.exactness = Exactness::LowerBound;
        }
        if user != 0 && matches!(limit.cost, Cost::Learned { .. }) {
            // The prior is for the one that most pods share.
            limit.cost = Cost::Learned { prior: 0.0, floor: 0.0 };
        }
        limit
    };
    users.into_iter().map(limit).collect()
}
