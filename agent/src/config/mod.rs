//! The configuration document: its types, loading, validation.

pub mod check;
pub mod cidr;
pub mod de;
pub mod document;
pub mod import;
pub mod load;
pub mod privileges;
pub mod problem;
pub mod profiles;
pub mod watch;
pub mod yaml;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use document::{HostNetns, LogFormat, LogLevel, Mode};

use self::cidr::Cidr;
use crate::limits::autogrow::Rule;
use crate::pods::policy::PodPolicy;
use crate::sysctl::glob::Glob;
use crate::sysctl::key::Key;
use crate::sysctl::policy::Policy;

/// A configuration that was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Whether the agent writes.
    pub mode: Mode,
    /// Which network namespace is the node's.
    pub host_netns: HostNetns,
    /// How much is logged.
    pub log_level: LogLevel,
    /// In which form.
    pub log_format: LogFormat,
    /// The profiles that are in force.
    pub profiles: Vec<String>,
    /// What is wanted for each key.
    pub policies: BTreeMap<Key, Policy>,
    /// What is wanted for the keys that match a pattern and have no policy of their own, in the
    /// order of the document: the last pattern that matches counts.
    pub globs: Vec<(Glob, Policy)>,
    /// What is wanted in pods' network namespaces; for each key the first that matches counts.
    pub pods: Vec<PodPolicy>,
    /// Where pods' network namespaces are, and how they are looked after.
    pub pod_namespaces: PodNamespaces,
    /// Which bridges are watched.
    pub watch: Watch,
    /// What limits pods beside the kernel.
    pub limits: Limits,
    /// When the neighbor tables grow by themselves; `None`: they do not.
    pub autogrow: Option<Rule>,
    /// Where HTTP is answered.
    pub listen: Vec<SocketAddr>,
    /// The unix socket.
    pub socket: PathBuf,
    /// The state directory.
    pub state: PathBuf,
}

impl Config {
    /// What is wanted for a key: its own policy, else that of the last pattern that means it.
    #[must_use]
    pub fn policy_of(&self, key: &Key) -> Option<&Policy> {
        let pattern = || self.globs.iter().rfind(|(glob, _)| glob.covers(key));
        self.policies.get(key).or_else(|| pattern().map(|(_, policy)| policy))
    }
}

/// Where pods' network namespaces are, and how they are looked after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNamespaces {
    /// Directories that hold a file for each namespace.
    pub directories: Vec<PathBuf>,
    /// Directory of libcni's result cache.
    pub cni_cache: PathBuf,
    /// How often each pod's keys are looked at again, at the most.
    pub sweep: Duration,
    /// For how many pods there are metrics of their own.
    pub per_pod_series: usize,
}

impl Default for PodNamespaces {
    fn default() -> Self {
        Self {
            directories: vec![PathBuf::from("/var/run/netns")],
            cni_cache: PathBuf::from("/var/lib/cni/results"),
            sweep: Duration::from_secs(300),
            per_pod_series: 0,
        }
    }
}

/// What limits pods beside the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many pods the kubelet runs; `None`: as its configuration says.
    pub max_pods: Option<u64>,
    /// How many pods are kept free.
    pub reserve: u64,
    /// Which addresses pods are given; `None`: as the CNI's configuration says.
    pub pod_range: Option<Vec<Cidr>>,
}

/// What is watched, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Name patterns of bridges: `*` any characters, `?` one.
    pub bridges: Vec<String>,
    /// Ports that a bridge can have.
    pub bridge_port_limit: u64,
    /// How often all keys are compared with their policies.
    pub sysctl_sweep: Duration,
    /// How often neighbor entries are scanned, at the most.
    pub neighbor_scan: Duration,
}

impl Watch {
    /// Whether a bridge is watched.
    #[must_use]
    pub fn covers(&self, bridge: &crate::kernel::name::Name) -> bool {
        let name = String::from_utf8_lossy(bridge.as_bytes());
        self.bridges.iter().any(|pattern| wildmatch::WildMatch::new(pattern).matches(&name))
    }
}
