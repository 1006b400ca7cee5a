//! Limits: kernel resources with a maximum. One file a limit; a new one is listed in [`ABOUT`], and
//! in [`cheap`] or [`dear`] where it has a reader of its own.

pub mod aio;
pub mod autogrow;
pub mod bridge;
pub mod cgroups;
pub mod conntrack;
pub mod cpu_backlog;
pub mod ephemeral_ports;
pub mod file_handles;
pub mod inotify;
pub mod ipv6_routes;
pub mod keys;
pub mod kubepods;
pub mod max_pods;
pub mod mounts;
pub mod neighbor;
pub mod net_namespaces;
pub mod netfilter;
pub mod pids;
pub mod pod_addresses;
pub mod pod_conntrack;
pub mod pressure;
pub mod ptys;
mod reference;
pub mod tcp;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::reference::reference;
use crate::kernel::errno::FileError;
use crate::node::NodeState;

/// What is always true of a limit: for the reference, `status` and `plan`.
#[derive(Debug, PartialEq)]
pub struct About {
    /// Stable name, the metrics' label value: `bridge_ports`.
    pub name: &'static str,
    /// In the middle of a sentence, before its object: `bridge`, `neighbor table`.
    pub title: &'static str,
    /// What is counted, in the plural: `ports`.
    pub unit: &'static str,
    /// What the kernel keeps one count for, and so what the objects are.
    pub scope: &'static str,
    /// Where `used` and `max` are read.
    pub read: &'static str,
    /// The key that raises it, or what else does; `None`: nothing does.
    pub raised_by: Option<&'static str>,
    /// What a pod costs.
    pub cost: Cost,
    /// Why that is so: the source, or the documented prior.
    pub cost_why: &'static str,
    /// What is seen when it is hit, and by which errno.
    pub when_hit: &'static str,
    /// How exact `used` is, by kernel: for the table in the documentation.
    pub exactness: &'static [(&'static str, Exactness, &'static str)],
    /// Whether it is read at every scrape, or now and then.
    pub cadence: Cadence,
}

/// When a limit is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// At every scrape.
    Scrape,
    /// Off the scrape's path, on a schedule that its own cost stretches; the age is exported.
    Slow,
}

/// What a pod costs of a limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    /// So much, by the kernel's own rules.
    Fixed(f64),
    /// Learned from what pods use here.
    Learned {
        /// Until enough pods were seen; 0: nothing is foretold until then.
        prior: f64,
        /// A pod never costs less.
        floor: f64,
    },
    /// Pods do not use it up one by one: nothing is foretold.
    NotByPods,
}

/// How well `used` says what the kernel compares with `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// It is the number that the kernel compares.
    Exact,
    /// The kernel's number is this or less.
    UpperBound,
    /// The kernel's number is this or more.
    LowerBound,
    /// Near it, on either side.
    Estimate,
}

/// One limit of one object, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// What is always true of it.
    pub about: &'static About,
    /// Of what: an address family, a bridge, a user. Escaped.
    pub object: String,
    /// What is counted, in the plural.
    pub unit: &'static str,
    /// In use. `None`: not known, and `unknown` says why.
    pub used: Option<u64>,
    /// The part of `used` that pods have, where that is known by itself.
    pub of_pods: Option<u64>,
    /// What a pod has of it as a rule, where each pod's part is known: see [`typical`].
    pub a_pod: Option<f64>,
    /// Pods that came since it was read, of one that is read now and then.
    pub pods_since: u64,
    /// Pods that there were when it was read, where the reading tells: others may have come since.
    pub pods_then: Option<u64>,
    /// The maximum. `None`: there is none, or it cannot be read.
    pub max: Option<u64>,
    /// How often the kernel refused because it was reached, since boot.
    pub hits: Option<u64>,
    /// How exact `used` is.
    pub exactness: Exactness,
    /// Where `used` was read.
    pub read_from: &'static str,
    /// The key that raises it for this object. `None`: none does.
    pub raised_by: Option<&'static str>,
    /// What a pod costs of this object.
    pub cost: Cost,
    /// When it was read, where that was not just now.
    pub read_at: Option<Instant>,
    /// Why a number is missing. Escaped.
    pub unknown: Option<String>,
    /// Whether it is missing because reading failed, and not because a right or a mount is missing.
    pub failed: bool,
}

impl Exactness {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::UpperBound => "upper bound",
            Self::LowerBound => "lower bound",
            Self::Estimate => "estimate",
        }
    }
}

impl Limit {
    /// A limit with everything from its [`About`]; the numbers are still to be filled in.
    #[must_use]
    pub fn of(about: &'static About, object: impl Into<String>) -> Self {
        Self {
            about,
            object: object.into(),
            unit: about.unit,
            used: None,
            of_pods: None,
            a_pod: None,
            pods_since: 0,
            pods_then: None,
            max: None,
            hits: None,
            exactness: about.exactness.first().map_or(Exactness::Exact, |(_, exact, _)| *exact),
            read_from: about.read,
            raised_by: about.raised_by,
            cost: about.cost,
            read_at: None,
            unknown: None,
            failed: false,
        }
    }

    /// A limit that cannot be read, and why; the reason must be escaped.
    #[must_use]
    pub fn unknown(
        about: &'static About,
        object: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { unknown: Some(why.into()), ..Self::of(about, object) }
    }

    /// How it is named in a sentence: `bridge cni0`, `IPv4 neighbor table`.
    #[must_use]
    pub fn named(&self) -> String {
        named(self.about, &self.object)
    }

    /// With `used` and `max` as they were read. `None` where the kernel does not have it, unknown
    /// where it cannot be read.
    #[must_use]
    pub fn read(
        about: &'static About,
        object: impl Into<String>,
        numbers: Result<[u64; 2], FileError>,
    ) -> Option<Self> {
        match numbers {
            Ok([used, max]) => Some(Self::of(about, object).with(used, max)),
            Err(error) if error.errno == Errno::ENOENT => None,
            Err(error) => Some(Self {
                failed: !matches!(error.errno, Errno::EACCES | Errno::EPERM),
                ..Self::unknown(about, object, error.to_string())
            }),
        }
    }

    /// With its numbers.
    #[must_use]
    pub fn with(mut self, used: u64, max: u64) -> Self {
        (self.used, self.max) = (Some(used), Some(max));
        self
    }
}

/// What a pod has as a rule: the mean without the tenth of them that has most, and without one at the
/// least; where that leaves nothing, without one. `parts`: of those that have any; `pods`: how many
/// there are. `None`: too few to tell.
#[must_use]
pub fn typical(mut parts: Vec<u64>, pods: usize) -> Option<f64> {
    let pods = pods.max(parts.len());
    if (pods as u64) < crate::capacity::ENOUGH_PODS {
        return None;
    }
    parts.sort_unstable();
    let without = |most: usize| {
        let rest = parts.iter().take(parts.len().saturating_sub(most));
        rest.sum::<u64>() as f64 / (pods - most) as f64
    };
    let typical = without(pods.div_ceil(10));
    // What few pods have is had all the same; what one has may be an exception.
    Some(if typical > 0.0 { typical } else { without(1) })
}

/// How an object of a limit is named in a sentence.
#[must_use]
pub fn named(about: &About, object: &str) -> String {
    let title = about.title;
    match object {
        "" => title.trim_end_matches(" of").to_owned(),
        "ipv4" => format!("IPv4 {title}"),
        "ipv6" => format!("IPv6 {title}"),
        "host" => format!("{} of the host", title.trim_end_matches(" of")),
        object => format!("{title} {object}"),
    }
}

/// Where readers find the kernel.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Usually `/proc`.
    pub proc: PathBuf,
    /// Usually `/sys`.
    pub sys: PathBuf,
    /// The host's cgroup file systems: `/host/sys/fs/cgroup` in a container, else `/sys/fs/cgroup`.
    pub cgroup: PathBuf,
    /// Where pods' network namespaces are mounted.
    pub netns: Vec<PathBuf>,
}

/// Reads one limit, for all its objects.
pub trait Reader: Send {
    /// The limit's name, or that of the source where one source serves several limits.
    fn name(&self) -> &'static str;

    /// How it is now. A limit that this kernel does not have (no module, no such file) is left out;
    /// one that cannot be read is [`Limit::unknown`].
    fn read(&mut self) -> Vec<Limit>;

    /// Between two readings, at the least, of one that is dear.
    fn every(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Readers for every scrape: kept descriptors, microseconds, no lock that pod creation holds.
#[must_use]
pub fn cheap(roots: &Roots) -> Vec<Box<dyn Reader>> {
    vec![
        Box::new(aio::Aio::new(roots)),
        Box::new(conntrack::Conntrack::new(roots)),
        Box::new(cpu_backlog::Softnet::new(roots)),
        Box::new(ephemeral_ports::EphemeralPorts::new(roots)),
        Box::new(file_handles::FileHandles::new(roots)),
        Box::new(ipv6_routes::Ipv6Routes::new(roots)),
        Box::new(keys::Keys::new(roots)),
        Box::new(pids::Pids::new(roots)),
        Box::new(ptys::Ptys::new(roots)),
    ]
}

/// Readers for the slow schedule.
#[must_use]
pub fn dear(roots: &Roots) -> Vec<Box<dyn Reader>> {
    // The CNI's and the kubelet's files have the same paths in the agent's container.
    let files = Path::new("/");
    vec![
        Box::new(cgroups::Cgroups::new(roots)),
        Box::new(inotify::Inotify::new(roots)),
        Box::new(kubepods::Kubepods::new(roots)),
        Box::new(max_pods::MaxPods::new(&roots.proc, &roots.sys, files)),
        Box::new(mounts::Mounts::new(roots)),
        Box::new(net_namespaces::NetNamespaces::new(roots)),
        Box::new(pod_addresses::PodAddresses::new(files)),
        Box::new(tcp::Tcp::new(roots)),
    ]
}

/// Asks one. A panic costs its numbers, and no one else's; then whose it was.
pub fn ask(reader: &mut dyn Reader) -> Result<Vec<Limit>, String> {
    catch_unwind(AssertUnwindSafe(|| reader.read()))
        .map_err(|_| format!("{}: reading it panicked: this is a bug", reader.name()))
}

/// Asks all of them for the picture. What failed, if anything did: a right or a mount that is missing
/// is told with the limit, and is no failure.
pub fn ask_all(readers: &mut [Box<dyn Reader>], state: &mut NodeState) -> Option<String> {
    let mut failed = Vec::new();
    for reader in readers {
        let found = ask(reader.as_mut()).unwrap_or_else(|panicked| {
            failed.push(panicked);
            Vec::new()
        });
        let failures = found.iter().filter(|limit| limit.failed);
        failed.extend(failures.filter_map(|limit| {
            Some(format!("{} {}: {}", limit.about.name, limit.object, limit.unknown.as_ref()?))
        }));
        state.limits.insert(reader.name(), found);
    }
    (!failed.is_empty()).then(|| failed.join("; "))
}

/// What is always true of every limit, in the order they are shown.
pub static ABOUT: &[&About] = &[
    &neighbor::ABOUT,
    &bridge::ABOUT,
    &cpu_backlog::ABOUT,
    &cpu_backlog::QUEUE,
    &pod_addresses::ABOUT,
    &max_pods::ABOUT,
    &conntrack::ABOUT,
    &pids::ABOUT,
    &kubepods::ABOUT,
    &kubepods::POD,
    &file_handles::ABOUT,
    &inotify::INSTANCES,
    &inotify::WATCHES,
    &inotify::FANOTIFY,
    &keys::ABOUT,
    &keys::BYTES,
    &cgroups::ABOUT,
    &net_namespaces::ABOUT,
    &mounts::ABOUT,
    &tcp::MEMORY,
    &tcp::ORPHANS,
    &tcp::LISTEN_QUEUE,
    &ephemeral_ports::ABOUT,
    &ipv6_routes::ABOUT,
    &aio::ABOUT,
    &ptys::ABOUT,
];

/// What their readers found is not all: the configuration and the rest of the picture complete it.
const COMPLETED: [&str; 2] = [max_pods::ABOUT.name, pod_addresses::ABOUT.name];

/// What is not seen where pods run is not known, and none where none run.
fn unless_without_pods(about: &'static About, why: &str, node: &NodeState) -> Vec<Limit> {
    let pods = node.pod_count.is_none_or(|pods| pods > 0);
    pods.then(|| Limit::unknown(about, "", why)).into_iter().collect()
}

/// Used by the pods that run: a limit of what each pod has one of.
fn by_pods(limit: Limit, node: &NodeState) -> Limit {
    match node.pod_count {
        // Of now, whenever the maximum was read.
        Some(pods) => Limit { used: Some(pods), pods_then: None, ..limit },
        None => {
            let why = "how many pods run is not known: `podNamespaces.directories` shows them";
            Limit { unknown: Some(why.to_owned()), ..limit }
        }
    }
}

/// Every limit of the node.
#[must_use]
pub fn all(node: &NodeState) -> Vec<Limit> {
    let mut limits = neighbor::limits(&node.neighbor);
    limits.extend(bridge::limits(node.bridges.as_deref().unwrap_or_default(), node.pod_count));
    limits.extend(pod_conntrack::limit(node.pod_conntrack.as_ref()));
    limits.extend(cpu_backlog::limits(node));
    let found = node.limits.iter().filter(|(name, _)| !COMPLETED.contains(name));
    limits.extend(found.flat_map(|(_, found)| found).cloned());
    limits.extend(max_pods::limits(node));
    limits.extend(pod_addresses::limits(node));
    for limit in limits.iter_mut().filter(|limit| limit.read_at.is_some()) {
        // Of the neighbor tables what came since is counted already.
        if limit.about.name != neighbor::ABOUT.name {
            let since = node.pod_count.zip(limit.pods_then);
            limit.pods_since = since.map_or(0, |(now, then)| now.saturating_sub(then));
        }
    }
    let place = |limit: &Limit| ABOUT.iter().position(|about| about.name == limit.about.name);
    limits.sort_by_key(place);
    limits
}

#[cfg(test)]
mod tests;
