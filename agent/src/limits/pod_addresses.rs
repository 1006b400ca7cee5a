//! Addresses for pods: what the node's CNI plugin has to give.

pub mod flannel;
pub mod host_local;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::{About, Cadence, Cost, Exactness, Limit, Reader};
use crate::kernel::name::escape;
use crate::kernel::node_file;
use crate::node::NodeState;
use flannel::Flannel;
use host_local::{HostLocal, Ipam, Network, Range, Set};

/// Where the container runtime looks for the pod network.
pub const CONFIGURATIONS: &str = "/etc/cni/net.d";
/// Why nothing is known where pods run.
const UNSEEN: &str = "no configuration of a pod network is in /etc/cni/net.d: mount it read-only, or set \
                      limits.podRange";
/// More files than any node has.
const MOST_FILES: usize = 1000;
/// More leases than any node has: IPv6 ranges have no end.
const MOST_LEASES: usize = 1_000_000;

/// Addresses for pods.
pub static ABOUT: About = About {
    name: "pod_addresses",
    title: "pod addresses",
    unit: "addresses",
    scope: "each range set of the pod network, or each family of `limits.podRange`",
    read: "/etc/cni/net.d, /var/lib/cni/networks",
    raised_by: Some("a larger range in the CNI configuration"),
    cost: Cost::Fixed(1.0),
    cost_why: "host-local gives each pod one address of each of its range sets",
    when_hit: "the pod hangs in ContainerCreating: `no IP addresses available in range set`",
    exactness: &[
        ("host-local", Exactness::Exact, "its leases are files, also those that nobody gave back"),
        ("`limits.podRange`", Exactness::Estimate, "pods with a network namespace, not leases"),
    ],
    cadence: Cadence::Slow,
};

/// Reads the pod network's configuration, and its leases where host-local keeps them.
#[derive(Debug)]
pub struct PodAddresses {
    root: PathBuf,
}

impl PodAddresses {
    /// `root`: where the node's files are, usually `/`.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path of the node.
    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn limits(&self, network: &Network) -> Vec<Limit> {
        let host_local = match &network.ipam {
            Ipam::HostLocal(host_local) => Ok(host_local.clone()),
            Ipam::Flannel(flannel) => self.flannel(flannel),
            Ipam::Other(plugin) => Err(format!(
                "{plugin} gives addresses, and only it knows how many: set limits.podRange"
            )),
        };
        let host_local = match host_local {
            Ok(host_local) => host_local,
            Err(why) => return vec![Limit::unknown(&ABOUT, network.name.clone(), why)],
        };
        let objects = objects(&network.name, &host_local.sets);
        let leases = match self.leases(&host_local.leases, &host_local.sets) {
            Ok(leases) => leases,
            Err(why) => {
                let unknown = |object| Limit::unknown(&ABOUT, object, why.as_str());
                return objects.into_iter().map(unknown).collect();
            }
        };
        let used = objects.into_iter().zip(&host_local.sets).zip(leases);
        used.map(|((object, set), used)| Limit::of(&ABOUT, object).with(used, set.size())).collect()
    }

    fn flannel(&self, flannel: &Flannel) -> Result<HostLocal, String> {
        let path = escape(flannel.subnet_file.to_string_lossy().as_bytes());
        match node_file::read(&self.path(&flannel.subnet_file), host_local::LONGEST) {
            Ok(Some(bytes)) => flannel.with(&bytes).map_err(|error| format!("{path}: {error}")),
            Ok(None) => Err(format!(
                "flannel has the range in {path}, which is not here: mount its directory read-only"
            )),
            Err(error) => Err(error.to_string()),
        }
    }

    /// For each set, how many of its addresses are given. Leases of what is no longer in a range are
    /// nobody's.
    fn leases(&self, directory: &Path, sets: &[Set]) -> Result<Vec<u64>, String> {
        let mut counts = vec![0; sets.len()];
        let count = |name: &OsStr| {
            let address: Option<IpAddr> = name.to_str().and_then(|name| name.parse().ok());
            let Some(address) = address else { return };
            for (count, set) in counts.iter_mut().zip(sets) {
                *count += u64::from(set.gives(address));
            }
        };
        let path = self.path(directory);
        match node_file::each(&path, MOST_LEASES, count) {
            Ok(()) => Ok(counts),
            // The plugin makes its directory with the first lease. That of all networks is there
            // before, or the agent does not see it.
            Err(error) if error.errno == Errno::ENOENT => match path.parent() {
                Some(parent) if node_file::is_directory(parent) => Ok(counts),
                _ => Err(format!(
                    "the leases are in {}, which is not here: mount its directory read-only",
                    escape(directory.to_string_lossy().as_bytes())
                )),
            },
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A name for each set: the network's with the family, and the set's number where a pod gets several
/// addresses of one family.
fn objects(network: &str, sets: &[Set]) -> Vec<String> {
    let alone = |family| sets.iter().filter(|set| set.family() == family).count() == 1;
    let named = sets.iter().enumerate().map(|(index, set)| match set.family() {
        family if alone(family) => format!("{network} {family}"),
        family => format!("{network} {family} {index}"),
    });
    named.collect()
}

/// The configuration that counts for pods: the first by name, as containerd takes it
/// (`max_conf_num` 1) and CRI-O unless it is told a network's name. `None`: there is none.
fn configuration(directory: &Path) -> Result<Option<PathBuf>, String> {
    let mut first: Option<OsString> = None;
    let look = |name: &OsStr| {
        let ends = Path::new(name).extension();
        let ends = ends.is_some_and(|it| it == "conflist" || it == "conf" || it == "json");
        if ends && first.as_deref().is_none_or(|first| name < first) {
            first = Some(name.to_owned());
        }
    };
    match node_file::each(directory, MOST_FILES, look) {
        Ok(()) => Ok(first.map(|name| directory.join(name))),
        Err(error) if error.errno == Errno::ENOENT => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

impl Reader for PodAddresses {
    fn name(&self) -> &'static str {
        ABOUT.name
    }

    fn read(&mut self) -> Vec<Limit> {
        let directory = self.path(Path::new(CONFIGURATIONS));
        let unknown = |why: String| vec![Limit::unknown(&ABOUT, "", why)];
        let path = match configuration(&directory) {
            Ok(Some(path)) => path,
            Ok(None) => return Vec::new(),
            Err(why) => return unknown(why),
        };
        match node_file::read(&path, host_local::LONGEST) {
            Ok(Some(bytes)) => match host_local::parse(&bytes) {
                Ok(network) => self.limits(&network),
                Err(why) => {
                    let path = escape(path.to_string_lossy().as_bytes());
                    unknown(format!("{path}: {why}: set limits.podRange, or correct it"))
                }
            },
            Ok(None) => Vec::new(),
            Err(error) => unknown(error.to_string()),
        }
    }

    fn every(&self) -> Duration {
        Duration::from_secs(10)
    }
}

/// As the configuration says, else as the reader found.
#[must_use]
pub fn limits(node: &NodeState) -> Vec<Limit> {
    let Some(ranges) = &node.config.limits.pod_range else {
        let found = node.limits.get(ABOUT.name).cloned().unwrap_or_default();
        return match found.is_empty() {
            true => super::unless_without_pods(&ABOUT, UNSEEN, node),
            false => found,
        };
    };
    let mut sizes: BTreeMap<&str, u64> = BTreeMap::new();
    for range in ranges {
        let family = if range.first().is_ipv4() { "ipv4" } else { "ipv6" };
        let size = sizes.entry(family).or_default();
        *size = size.saturating_add(Range::of(*range).size());
    }
    let limit = |(family, max)| {
        let limit = Limit {
            max: Some(max),
            exactness: Exactness::Estimate,
            read_from: "pods' network namespaces, of limits.podRange",
            ..Limit::of(&ABOUT, family)
        };
        super::by_pods(limit, node)
    };
    sizes.into_iter().map(limit).collect()
}

#[cfg(test)]
#[path = "pod_addresses/tests.rs"]
mod tests;
