//! What a configuration needs of the node: which mounts, capabilities and namespaces, and why.
//!
//! Pure: the same answer on every machine, so that a chart can be made from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Config, Mode};
use crate::kernel::name::escape;
use crate::limits::autogrow::keys;
use crate::limits::max_pods;
use crate::limits::pod_addresses::{self, flannel, host_local};
use crate::sysctl::catalogue::{self, Entry, Scope};
use crate::sysctl::key::Key;
use crate::sysctl::policy::{OnConflict, Policy};

/// Where the host's files are in the agent's container.
const HOST: &str = "/host";

/// Something that the agent is given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Grant {
    /// The user that it runs as.
    User {
        /// Its number.
        uid: u32,
    },
    /// A namespace that it shares with the host.
    HostNamespace {
        /// The pod's field: `hostNetwork`, `hostPID`, `hostIPC`.
        name: &'static str,
    },
    /// A capability.
    Capability {
        /// Without `CAP_`, as a securityContext has it.
        name: &'static str,
    },
    /// A file or directory.
    Mount(Mount),
}

/// A mount in the agent's container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// Where it is in the container, escaped.
    pub mount_path: String,
    /// Where it is on the host, escaped; null: anything writable will do, such as an emptyDir.
    pub host_path: Option<String>,
    /// What is there: the type of a hostPath volume.
    #[serde(rename = "type")]
    pub of: PathType,
    /// Whether it is only read.
    pub read_only: bool,
    /// Whether what is mounted on the host later must appear in the container.
    pub propagation: Propagation,
}

/// What is at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum PathType {
    /// A file.
    File,
    /// A directory.
    Directory,
    /// A directory, to be made where there is none.
    DirectoryOrCreate,
}

/// Whether mounts arrive later: `mountPropagation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum Propagation {
    /// They do not.
    None,
    /// Those of the host do.
    HostToContainer,
}

/// Something that is needed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// What.
    #[serde(flatten)]
    pub grant: Grant,
    /// What it is for.
    pub why: Vec<Reason>,
}

/// What something is needed for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// In words.
    pub reason: String,
    /// Whether the configuration asks for it, or it would be given as well.
    pub asked: bool,
    /// The keys that it is about.
    pub keys: Vec<String>,
}

/// What a configuration needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Privileges {
    /// Without these, something that the configuration asks for is not done.
    pub required: Vec<Need>,
    /// These would give more than it asks for.
    pub optional: Vec<Need>,
}

/// What a configuration needs.
#[must_use]
pub fn privileges(config: &Config) -> Privileges {
    let mut table = Table::default();
    table.watching(config);
    for (key, policy) in &config.policies {
        table.host_key(key, key.as_str(), writes(config, policy));
    }
    for (glob, policy) in &config.globs {
        if let Some(key) = glob.example() {
            table.host_key(&key, glob.as_str(), writes(config, policy));
        }
    }
    if config.autogrow.is_some() {
        let more = keys().into_iter().filter(|key| config.policy_of(key).is_none());
        more.for_each(|key| table.host_key(&key, key.as_str(), config.mode == Mode::Enforce));
    }
    if !config.pods.is_empty() {
        table.pods(config);
    }
    table.extras(config);
    table.finish()
}

fn writes(config: &Config, policy: &Policy) -> bool {
    config.mode == Mode::Enforce && policy.on_conflict != OnConflict::Report
}

#[derive(Default)]
struct Table(BTreeMap<Grant, Vec<Reason>>);

impl Table {
    fn note(&mut self, grant: Grant, asked: bool, why: &str, key: Option<&str>) {
        let reasons = self.0.entry(grant).or_default();
        let keys: Vec<String> = key.map(str::to_owned).into_iter().collect();
        match reasons.iter_mut().find(|known| known.reason == why) {
            Some(known) => known.keys.extend(keys),
            None => reasons.push(Reason { reason: why.to_owned(), asked, keys }),
        }
    }

    fn need(&mut self, grant: Grant, why: &str) {
        self.note(grant, true, why, None);
    }

    fn need_for(&mut self, grant: Grant, key: &str, why: &str) {
        self.note(grant, true, why, Some(key));
    }

    fn may(&mut self, grant: Grant, why: &str) {
        self.note(grant, false, why, None);
    }

    /// What every agent needs.
    fn watching(&mut self, config: &Config) {
        self.need(
            Grant::User { uid: 0 },
            "the files of /proc/sys, and counters of the host, are root's",
        );
        let why =
            "the host's neighbor tables, bridges and net.* keys are those of its network namespace";
        self.need(Grant::HostNamespace { name: "hostNetwork" }, why);
        let enforces = config.mode == Mode::Enforce;
        let (host, why) = match enforces {
            true => (
                Some(config.state.as_path()),
                "the originals of what is changed, which outlive the agent; its lock and socket",
            ),
            false => (None, "the agent's lock and socket"),
        };
        let of = PathType::DirectoryOrCreate;
        self.need(mount(host, &config.state, of, false), why);
        if let Some(directory) = config.socket.parent().filter(|it| !it.starts_with(&config.state))
        {
            self.need(mount(None, directory, of, false), "the agent's socket");
        }
    }

    /// A key of the host. `shown`: the key, or the pattern that means it.
    fn host_key(&mut self, key: &Key, shown: &str, writes: bool) {
        let entry = catalogue::lookup(key);
        match entry.as_ref().map(Entry::scope) {
            Some(Scope::Pid) => {
                let why = "keys of a PID namespace: those of the host's";
                self.need_for(Grant::HostNamespace { name: "hostPID" }, shown, why);
            }
            Some(Scope::Ipc) => {
                let why = "keys of an IPC namespace: those of the host's";
                self.need_for(Grant::HostNamespace { name: "hostIPC" }, shown, why);
            }
            _ => {}
        }
        // What is only read is read in the container's own /proc/sys.
        if writes {
            self.need_for(tree(key), shown, "keys of the host");
            self.guards(key, shown, "keys of the host that the kernel guards with it");
        }
    }

    fn guards(&mut self, key: &Key, shown: &str, why: &str) {
        for name in capabilities(key) {
            self.need_for(Grant::Capability { name }, shown, why);
        }
    }

    fn pods(&mut self, config: &Config) {
        let admin = Grant::Capability { name: "SYS_ADMIN" };
        self.need(admin, "pods' network namespaces are entered with setns(2)");
        for directory in &config.pod_namespaces.directories {
            let why = "pods' network namespaces are mounted there, also later";
            self.need(namespaces(directory), why);
        }
        let cache = &config.pod_namespaces.cni_cache;
        let cache = mount(Some(cache), cache, PathType::DirectoryOrCreate, true);
        match config.pods.iter().all(|policy| policy.matches.is_every_pod()) {
            true => self.may(cache, "names pods in `status`: no policy asks for a name"),
            false => self.need(cache, "names pods, for policies that match by name"),
        }
        let policies = config.pods.iter().flat_map(|policy| &policy.policies);
        let written = policies.filter(|(_, policy)| writes(config, policy)).map(|(key, _)| key);
        for key in written.collect::<BTreeSet<_>>() {
            let why = "keys in pods: the mount shows the namespace that is entered";
            self.need_for(tree(key), key.as_str(), why);
            self.guards(key, key.as_str(), "keys in pods that the kernel guards with it");
        }
        let why = "names pods by their processes, where the CNI cache does not";
        self.may(Grant::HostNamespace { name: "hostPID" }, why);
        self.may(Grant::Capability { name: "SYS_PTRACE" }, why);
    }

    /// What gives more than the configuration asks for.
    fn extras(&mut self, config: &Config) {
        let admin = Grant::Capability { name: "SYS_ADMIN" };
        self.may(admin.clone(), "names who wrote a key, by fanotify");
        let why = "asks for the neighbor tables' settings in an empty namespace, for less data";
        self.may(admin.clone(), why);
        let why = "scans the neighbor entries of pods' network namespaces: what fills the tables, and \
                   what a pod costs";
        self.may(admin, why);
        for directory in &config.pod_namespaces.directories {
            self.may(namespaces(directory), why);
        }
        let pid = Grant::HostNamespace { name: "hostPID" };
        self.may(pid.clone(), "sees the processes that wrote a key, or hold the agent's port");
        let look = "counts users' inotify instances and network namespaces, by all processes";
        self.may(pid.clone(), look);
        self.may(Grant::Capability { name: "SYS_PTRACE" }, look);
        self.may(pid, "counts the mounts of the host's mount namespace");
        let cgroups = Path::new("/sys/fs/cgroup");
        let inside = format!("{HOST}{}", cgroups.to_string_lossy());
        let grant = mount(Some(cgroups), Path::new(&inside), PathType::Directory, true);
        self.may(grant, "counts pods and their pids, by their cgroups");
        let why = "a buffer for bursts of link events beyond net.core.rmem_max";
        self.may(Grant::Capability { name: "NET_ADMIN" }, why);
        self.limits(config);
        let why = "nftables, iptables and ipvs counts";
        self.may(Grant::Capability { name: "NET_ADMIN" }, why);
        if config.policies.is_empty() && config.globs.is_empty() {
            return;
        }
        for directory in ["/etc/sysctl.d", "/run/sysctl.d", "/usr/lib/sysctl.d"] {
            let inside = format!("{HOST}{directory}");
            let of = PathType::DirectoryOrCreate;
            let grant = mount(Some(Path::new(directory)), Path::new(&inside), of, true);
            self.may(grant, "tells which file sets a key to something else at boot");
        }
    }

    /// What tells limits that are not the kernel's, unless the configuration does.
    fn limits(&mut self, config: &Config) {
        if config.limits.pod_range.is_none() {
            for (directory, why) in [
                (pod_addresses::CONFIGURATIONS, "tells which addresses the node's pods are given"),
                (host_local::DATA_DIR, "counts the addresses that host-local has given"),
                (flannel::DIRECTORY, "tells which addresses flannel's pods are given"),
            ] {
                let directory = Path::new(directory);
                self.may(mount(Some(directory), directory, PathType::DirectoryOrCreate, true), why);
            }
        }
        if config.limits.max_pods.is_none() {
            let file = Path::new(max_pods::KUBEADM);
            let why = "tells maxPods: the kubelet's configuration, where kubeadm has it";
            self.may(mount(Some(file), file, PathType::File, true), why);
            let why = "sees the kubelet's command line: --max-pods, and where its configuration is";
            self.may(Grant::HostNamespace { name: "hostPID" }, why);
        }
    }

    /// What is needed anyway gives the rest as well.
    fn finish(self) -> Privileges {
        let needs = self.0.into_iter().map(|(grant, why)| Need { grant, why });
        let (required, optional) = needs.partition(|need| need.why.iter().any(|why| why.asked));
        Privileges { required, optional }
    }
}

fn mount(host: Option<&Path>, inside: &Path, of: PathType, read_only: bool) -> Grant {
    let shown = |path: &Path| escape(path.to_string_lossy().as_bytes());
    Grant::Mount(Mount {
        mount_path: shown(inside),
        host_path: host.map(shown),
        of,
        read_only,
        propagation: Propagation::None,
    })
}

/// Where pods' network namespaces are mounted.
fn namespaces(directory: &Path) -> Grant {
    let mut grant = mount(Some(directory), directory, PathType::DirectoryOrCreate, true);
    if let Grant::Mount(mount) = &mut grant {
        mount.propagation = Propagation::HostToContainer;
    }
    grant
}

/// The part of the host's `/proc/sys` through which a key is written: `net` whole, which is safe;
/// of the rest the file alone, or its directory where that holds nothing that opens the host.
fn tree(key: &Key) -> Grant {
    let path = key.path();
    let parent = path.parent().unwrap_or(Path::new(""));
    let (path, of) = if key.is_net() {
        (PathBuf::from("net"), PathType::Directory)
    } else if is_harmless(parent) {
        (parent.to_owned(), PathType::Directory)
    } else {
        (path, PathType::File)
    };
    let host = Path::new("/proc/sys").join(path);
    let inside = format!("{HOST}{}", host.to_string_lossy());
    mount(Some(&host), Path::new(&inside), of, false)
}

/// A directory below `kernel`, `fs` and the like that the catalogue knows, without a key that can
/// run code or open the host.
fn is_harmless(directory: &Path) -> bool {
    let deep =
        directory.components().filter(|part| matches!(part, Component::Normal(_))).count() > 1;
    let prefix = format!("{}.", directory.to_string_lossy().replace('/', "."));
    let mut inside = catalogue::all().filter(|entry| entry.key().starts_with(&prefix)).peekable();
    deep && inside.peek().is_some() && inside.all(|entry| !entry.has("dangerous"))
}

/// The capabilities without which root may not write a key. Measured on Linux 6.18 as uid 0 with
/// one capability at a time; of what that kernel did not have from its source:
/// `sysctl_schedstats`, `sched_energy_aware_handler`, `yama_dointvec_minmax`, `proc_cap_handler`.
fn capabilities(key: &Key) -> Vec<&'static str> {
    match key.as_str() {
        "net.ipv4.ip_forward" => vec!["NET_ADMIN"],
        forwarding
            if forwarding.starts_with("net.ipv4.conf.") && forwarding.ends_with(".forwarding") =>
        {
            vec!["NET_ADMIN"]
        }
        user if user.starts_with("user.") => vec!["SYS_RESOURCE"],
        helper if helper.starts_with("kernel.usermodehelper.") => vec!["SETPCAP", "SYS_MODULE"],
        "vm.mmap_min_addr" => vec!["SYS_RAWIO"],
        "kernel.yama.ptrace_scope" => vec!["SYS_PTRACE"],
        "kernel.bpf_stats_enabled"
        | "kernel.dmesg_restrict"
        | "kernel.kptr_restrict"
        | "kernel.numa_balancing"
        | "kernel.sched_energy_aware"
        | "kernel.sched_schedstats"
        | "kernel.tainted"
        | "kernel.task_delayacct"
        | "kernel.unprivileged_bpf_disabled"
        | "net.core.bpf_jit_enable"
        | "net.core.bpf_jit_harden"
        | "net.core.bpf_jit_kallsyms"
        | "net.core.bpf_jit_limit"
        | "net.core.high_order_alloc_disable"
        | "vm.memfd_noexec" => vec!["SYS_ADMIN"],
        _ => Vec::new(),
    }
}

#[cfg(test)]
#[path = "privileges_tests.rs"]
mod tests;
