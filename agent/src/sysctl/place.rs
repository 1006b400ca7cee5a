//! Where the engine works: which of the host's namespaces it shares.

use std::path::Path;

use super::catalogue::{Entry, NewNetns, Scope};
use super::key::Key;
use crate::kernel::netns::{self, HostNet, Kind};
use crate::kernel::system;

/// The network namespace, as far as the engine must know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Net {
    /// The initial one.
    Initial,
    /// Another one, on purpose: a node that is itself a container, or a test's own.
    Given,
    /// Another one, by mistake: no `net.*` key is read or written. With the evidence.
    Wrong(String),
}

/// The namespaces and the kernel that the engine finds itself in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The network namespace.
    pub net: Net,
    /// Whether the IPC namespace is the host's.
    pub ipc: bool,
    /// Whether the PID namespace is the host's.
    pub pid: bool,
    /// Whether the UTS namespace is the host's.
    pub uts: bool,
    /// The kernel's version.
    pub kernel: (u32, u32),
}

impl Place {
    /// Looks around. `given`: the configuration says that this network namespace is the node's.
    #[must_use]
    pub fn look(proc_root: &Path, given: bool) -> Self {
        let net = match netns::host_net(proc_root) {
            HostNet::Initial => Net::Initial,
            HostNet::Other(_) if given => Net::Given,
            HostNet::Other(evidence) => Net::Wrong(evidence),
        };
        Self {
            net,
            ipc: netns::is_initial(proc_root, Kind::Ipc),
            pid: netns::is_initial(proc_root, Kind::Pid),
            uts: netns::is_initial(proc_root, Kind::Uts),
            kernel: system::kernel_version(&system::uname().0),
        }
    }

    /// Why a key cannot be worked on from here, if so. A write in a namespace of its own would
    /// succeed, and change nothing on the host.
    #[must_use]
    pub fn unsupported(&self, key: &Key, entry: Option<&Entry>) -> Option<String> {
        if key.is_net() {
            return match &self.net {
                Net::Wrong(evidence) => Some(format!(
                    "wrong network namespace ({evidence}): run with hostNetwork, or set \
                     `hostNetns: current` if this node is itself a container"
                )),
                _ => None,
            };
        }
        let entry = entry?;
        let namespaced = entry.namespaced_since().is_none_or(|since| self.kernel >= since);
        let (shared, kind, field) = match entry.scope() {
            Scope::Ipc => (self.ipc, "IPC", "hostIPC: true"),
            Scope::Pid => (self.pid, "PID", "hostPID: true"),
            Scope::Uts => (self.uts, "UTS", "hostNetwork: true"),
            _ => return None,
        };
        (namespaced && !shared).then(|| {
            format!("the host's {kind} namespace is not shared, so a write would change only this container: set {field}")
        })
    }

    /// What it means that a key's file is not there: for good, or perhaps later.
    pub fn absent(&self, key: &Key, entry: Option<&Entry>) -> Absent {
        let Some(entry) = entry else { return Absent::Yet };
        if let Some((major, minor)) = entry.since().filter(|since| self.kernel < *since) {
            let (this_major, this_minor) = self.kernel;
            return Absent::ForGood(format!(
                "needs Linux {major}.{minor}, this is {this_major}.{this_minor}"
            ));
        }
        let initial_only =
            entry.scope() == Scope::Host && entry.new_netns() == Some(NewNetns::Absent);
        if key.is_net() && initial_only && self.net != Net::Initial {
            return Absent::Elsewhere("exists only in the initial network namespace".to_owned());
        }
        Absent::Yet
    }
}

/// Why a file is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Its module or interface may still come.
    Yet,
    /// Not on this kernel.
    ForGood(String),
    /// Not from this network namespace, which is the node's all the same.
    Elsewhere(String),
}
