//! Network namespaces of each user.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::kept::Kept;
use crate::kernel::net_namespaces::{self, Seen};
use crate::kernel::netns::{self, Kind};
use crate::kernel::{processes, slab};

/// Users shown: root and the fullest.
const SHOWN: usize = 5;
/// The slab cache of network namespaces (`net_ns_init`).
const SLAB: &str = "net_namespace";
const BY_SLAB: &str = "/sys/kernel/slab/net_namespace/objects";

/// Network namespaces.
pub static ABOUT: About = About {
    name: "net_namespaces",
    title: "network namespaces of",
    unit: "namespaces",
    scope: "each user; those in a user namespace count for its maker too, so all pods for uid 0",
    read: "/proc/<pid>/ns/net and the pods' namespace directories",
    raised_by: Some("user.max_net_namespaces"),
    cost: Cost::Fixed(1.0),
    cost_why: "a pod has one, unless it has the host's (hostNetwork)",
    when_hit: "the pod hangs in ContainerCreating: unshare(2) fails with ENOSPC",
    exactness: &[
        (
            "all, with hostPID and SYS_PTRACE",
            Exactness::LowerBound,
            "one that only a descriptor, a socket, a thread or a mount elsewhere keeps is not seen",
        ),
        (
            "all, without",
            Exactness::UpperBound,
            "objects of the slab cache net_namespace: of all users, with those that are being taken \
             down and some free ones",
        ),
    ],
    cadence: Cadence::Slow,
};

/// Reads it.
#[derive(Debug)]
pub struct NetNamespaces {
    roots: Roots,
    max: Kept,
}

impl NetNamespaces {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let max = Kept::new(roots.proc.join("sys/user/max_net_namespaces"));
        Self { roots: roots.clone(), max }
    }

    fn seen(&self) -> Result<Seen, String> {
        let seen = net_namespaces::look(&self.roots.proc, &self.roots.netns);
        let seen = seen.map_err(|error| error.to_string())?;
        match seen.refused > 0 && !processes::may_look(&self.roots.proc) {
            true => Err(format!(
                "the network namespaces of {} processes may not be seen: capability SYS_PTRACE is \
                 needed",
                seen.refused
            )),
            false => Ok(seen),
        }
    }
}

impl Reader for NetNamespaces {
    fn name(&self) -> &'static str {
        "net_namespaces"
    }

    fn read(&mut self) -> Vec<Limit> {
        // The file shows the reader's own user namespace's.
        if !netns::is_initial(&self.roots.proc, Kind::User) {
            let why = "the agent is in a user namespace of its own: the host's is needed";
            return vec![Limit::unknown(&ABOUT, "uid 0", why)];
        }
        let max = match self.max.number() {
            Ok(max) => max,
            Err(error) if error.errno == nix::errno::Errno::ENOENT => return Vec::new(),
            Err(error) => return vec![Limit::unknown(&ABOUT, "uid 0", error.to_string())],
        };
        let why = match self.seen() {
            Ok(seen) => return of_users(&seen, max),
            Err(why) => why,
        };
        // As a rule all of them are root's.
        vec![match slab::objects(&self.roots.sys, SLAB) {
            Some(objects) => Limit {
                exactness: Exactness::UpperBound,
                read_from: BY_SLAB,
                ..Limit::of(&ABOUT, "uid 0").with(objects, max)
            },
            None => Limit { max: Some(max), ..Limit::unknown(&ABOUT, "uid 0", why) },
        }]
    }
}

fn of_users(seen: &Seen, max: u64) -> Vec<Limit> {
    let others = seen.users.iter().filter(|(user, _)| **user != 0);
    let mut users: Vec<(u32, u64)> = others.map(|(user, used)| (*user, *used)).collect();
    users.sort_by_key(|(user, used)| (std::cmp::Reverse(*used), *user));
    // The one that pods share, also where there are none.
    users.insert(0, (0, seen.users.get(&0).copied().unwrap_or_default()));
    users.truncate(SHOWN);
    let limit = |(user, used)| Limit {
        cost: if user == 0 { ABOUT.cost } else { Cost::NotByPods },
        ..Limit::of(&ABOUT, format!("uid {user}")).with(used, max)
    };
    users.into_iter().map(limit).collect()
}
