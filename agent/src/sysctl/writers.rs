//! Who usually writes a key, and how to make them stop or agree.
//!
//! Read from the programs' sources, not from hearsay. Most of it depends on how a program is
//! configured, so the table says who may have written a key, never who has.

use super::key::Key;
use crate::kernel::who::Process;

mod table;

use table::TABLE;

/// One interface: not `all`, not `default`, not `lo`.
const INTERFACE: &str = "<interface>";

/// A program that writes a key on its own account.
#[derive(Debug, PartialEq, Eq)]
pub struct Usual {
    /// The program, as [`recognise`] names it.
    pub who: &'static str,
    /// When it writes, and what to do about it.
    pub what_to_do: &'static str,
    /// Patterns. `*` is one component, at the end all that follow.
    keys: &'static [&'static str],
}

/// Programs by the name of the process, of which the kernel keeps 15 bytes.
static NAMES: &[(&str, &str)] = &[
    ("kube-proxy", "kube-proxy"),
    ("kubelet", "kubelet"),
    ("cilium-agent", "Cilium"),
    ("cilium-cni", "Cilium"),
    ("calico-node", "Calico"),
    ("calico-felix", "Calico"),
    ("calico", "Calico"),
    ("aws-k8s-agent", "AWS VPC CNI"),
    ("aws-vpc-cni", "AWS VPC CNI"),
    ("aws-vpc-cni-ini", "AWS VPC CNI"),
    ("aws-cni", "AWS VPC CNI"),
    ("bridge", "CNI plugins"),
    ("ptp", "CNI plugins"),
    ("portmap", "CNI plugins"),
    ("flanneld", "flannel"),
    ("k3s", "k3s"),
    ("k3s-server", "k3s"),
    ("k3s-agent", "k3s"),
    ("dockerd", "Docker"),
    ("containerd", "containerd"),
    ("systemd-network", "systemd-networkd"),
    ("systemd-sysctl", "systemd-sysctl"),
    ("systemd-udevd", "udev"),
    ("(udev-worker)", "udev"),
    ("NetworkManager", "NetworkManager"),
    ("tuned", "TuneD"),
    ("saptune", "saptune"),
];

/// Programs by their unit: what they do with a shell or a tool is theirs.
static UNITS: &[(&str, &str)] = &[
    ("kubelet.service", "kubelet"),
    ("k3s.service", "k3s"),
    ("k3s-agent.service", "k3s"),
    ("docker.service", "Docker"),
    ("containerd.service", "containerd"),
    ("systemd-networkd.service", "systemd-networkd"),
    ("systemd-sysctl.service", "systemd-sysctl"),
    ("systemd-udevd.service", "udev"),
    ("NetworkManager.service", "NetworkManager"),
    ("tuned.service", "TuneD"),
    ("saptune.service", "saptune"),
];

/// Programs that may write a key, from the particular to the general.
#[must_use]
pub fn usual(key: &Key) -> Vec<&'static Usual> {
    TABLE.iter().filter(|usual| usual.keys.iter().any(|keys| matches(keys, key))).collect()
}

/// The program that a process belongs to: by its name, then by its unit. It is a guess: a process
/// chooses its name.
#[must_use]
pub fn recognise(process: &Process) -> Option<&'static str> {
    let find = |table: &[(&str, &'static str)], text: &str| {
        table.iter().find(|(known, _)| *known == text).map(|(_, program)| *program)
    };
    find(NAMES, &process.name)
        .or_else(|| find(UNITS, process.unit.as_deref()?))
        .or_else(|| (process.name == "sysctl").then_some("sysctl"))
}

fn matches(pattern: &str, key: &Key) -> bool {
    let mut components = key.as_str().split('.');
    let mut patterns = pattern.split('.').peekable();
    while let Some(pattern) = patterns.next() {
        let Some(component) = components.next() else { return false };
        let fits = match pattern {
            "*" if patterns.peek().is_none() => return true,
            "*" => true,
            INTERFACE => !matches!(component, "all" | "default" | "lo"),
            _ => match pattern.strip_suffix('*') {
                Some(start) => component.starts_with(start),
                None => component == pattern,
            },
        };
        if !fits {
            return false;
        }
    }
    components.next().is_none()
}

#[cfg(test)]
#[path = "writers_tests.rs"]
mod tests;
