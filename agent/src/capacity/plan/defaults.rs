//! A node of which nothing is known but the kernel's and Kubernetes' defaults.

use super::Known;
use crate::capacity::{CostFrom, PodCost};
use crate::limits::{self, About, Cost, Exactness, bridge, cpu_backlog};
use crate::sysctl::catalogue;
use crate::sysctl::key::Key;

/// Its limits.
#[must_use]
pub fn defaults(abouts: &[&About]) -> Vec<Known> {
    abouts.iter().filter_map(|about| default(about)).collect()
}

pub(super) fn default(about: &About) -> Option<Known> {
    let (amount, from) = match about.cost {
        Cost::Fixed(amount) => (amount, CostFrom::Fixed),
        Cost::Learned { prior, floor } => (prior.max(floor), CostFrom::Prior),
        Cost::NotByPods => return None,
    };
    // Runtimes join session keyrings as root, which has quotas of its own.
    let raised_by = match about.name {
        "keys" => Some("kernel.keys.root_maxkeys"),
        "key_bytes" => Some("kernel.keys.root_maxbytes"),
        _ => about.raised_by,
    };
    // What is no key of the kernel has the value that Kubernetes or its tools choose.
    let (object, max) = match about.name {
        "bridge_ports" => ("cni0", bridge::PORTS),
        "cpu_backlog" => ("cni0", cpu_backlog::copies(default_of(raised_by?)?)),
        "neighbor_table" => ("ipv4", default_of(raised_by?)?),
        // PID_MAX_DEFAULT, on up to 32 CPUs; systemd raises it to 4194304.
        "pids" => ("pid_max", 32_768),
        "max_pods" => ("", 110),
        // A /24 for each node, as kube-controller-manager has it; one is the bridge's.
        "pod_addresses" => ("", 253),
        "keys" | "key_bytes" | "inotify_instances" => ("uid 0", default_of(raised_by?)?),
        _ => ("", default_of(raised_by?)?),
    };
    let named = limits::named(about, object);
    (amount > 0.0).then(|| Known {
        limit: about.name.to_owned(),
        object: object.to_owned(),
        named,
        unit: about.unit.to_owned(),
        used: 0,
        max,
        cost: PodCost { amount, from },
        raised_by: raised_by.map(str::to_owned),
        exactness: Exactness::Exact,
        hit_now: false,
    })
}

/// The kernel's default of a key, where it is one number on every node.
fn default_of(key: &str) -> Option<u64> {
    catalogue::lookup(&Key::parse(key).ok()?)?.default()?.parse().ok()
}
