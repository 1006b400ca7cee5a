//! What a configuration needs of the container that the agent runs in: the least that does it.
//! `headroom privileges` prints it, and manifests are made from it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::{Config, HostNetns, Mode};
use crate::kernel::name::escape;
use crate::sysctl::catalogue::{self, Scope};
use crate::sysctl::key::Key;

/// Something that a container is given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Grant {
    /// The user with this id.
    User {
        /// `runAsUser`.
        id: u32,
    },
    /// `hostNetwork`, `hostPID` or `hostIPC` of the pod.
    HostNamespace {
        /// The field.
        field: &'static str,
    },
    /// A capability, without `CAP_`.
    Capability {
        /// Its name.
        name: &'static str,
    },
    /// A file or directory of the host.
    Mount {
        /// On the host.
        host_path: PathBuf,
        /// In the container.
        mount_path: PathBuf,
        /// Whether it may be written.
        read_only: bool,
        /// `HostToContainer`, where what is mounted there later must be seen too.
        mount_propagation: Option<&'static str>,
    },
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { id } => write!(f, "runAsUser: {id}"),
            Self::HostNamespace { field } => write!(f, "{field}: true"),
            Self::Capability { name } => write!(f, "capability {name}"),
            Self::Mount { host_path, mount_path, read_only, mount_propagation } => {
                let mode = if *read_only { "read-only" } else { "read-write" };
                let [host, there] =
                    [host_path, mount_path].map(|path| escape(path.as_os_str().as_bytes()));
                write!(f, "mount {host} at {there}, {mode}")?;
                match mount_propagation {
                    Some(how) => write!(f, ", mountPropagation: {how}"),
                    None => Ok(()),
                }
            }
        }
    }
}

/// What is needed, each with the reasons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Privileges {
    /// Without it something that the configuration asks for does not work.
    pub required: Vec<Need>,
    /// What else would work with more.
    pub optional: Vec<Need>,
}

/// One need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// What is needed.
    pub grant: Grant,
    /// What for.
    pub because: Vec<String>,
}

#[derive(Default)]
struct Needs(BTreeMap<Grant, Vec<String>>);

impl Needs {
    fn add(&mut self, grant: Grant, because: impl Into<String>) {
        let reasons = self.0.entry(grant).or_default();
        let because = because.into();
        if !reasons.contains(&because) {
            reasons.push(because);
        }
    }

    fn capability(&mut self, name: &'static str, because: impl Into<String>) {
        self.add(Grant::Capability { name }, because);
    }

    fn namespace(&mut self, field: &'static str, because: impl Into<String>) {
        self.add(Grant::HostNamespace { field }, because);
    }

    fn list(self) -> Vec<Need> {
        self.0.into_iter().map(|(grant, because)| Need { grant, because }).collect()
    }
}

/// What a configuration needs.
#[must_use]
pub fn of(config: &Config) -> Privileges {
    let mut required = Needs::default();
    let mut optional = Needs::default();
    required.add(Grant::User { id: 0 }, "files below /proc/sys are root's");
    let node = match config.host_netns {
        HostNetns::Initial => "neighbor tables, bridges and net.* keys are the host's there alone",
        HostNetns::Current => "the agent's network namespace is the node's",
    };
    required.namespace("hostNetwork", node);
    let state = mount(&config.state, &config.state, false, None);
    required.add(state, "originals, the lock and the socket, kept until the next boot");
    if config.mode == Mode::Enforce {
        let globs = config.globs.iter().filter_map(|(glob, _)| glob.example());
        for key in config.policies.keys().cloned().chain(globs) {
            host_key(&key, &mut required);
        }
    }
    if !config.pods.is_empty() {
        pods(config, &mut required, &mut optional);
    }
    optional.capability("SYS_ADMIN", "fanotify: other writers of the keys are named");
    optional.namespace("hostPID", "other writers are named, with their pod and container");
    for directory in ["/etc/sysctl.d", "/usr/lib/sysctl.d", "/run/sysctl.d"] {
        let directory = Path::new(directory);
        let there = Path::new("/host").join(directory.strip_prefix("/").unwrap_or(directory));
        let grant = mount(directory, &there, true, None);
        optional.add(grant, "what the host's own files set at boot is told");
    }
    optional.0.retain(|grant, _| !required.0.contains_key(grant));
    Privileges { required: required.list(), optional: optional.list() }
}

fn mount(
    host: &Path,
    container: &Path,
    read_only: bool,
    mount_propagation: Option<&'static str>,
) -> Grant {
    Grant::Mount {
        host_path: host.to_owned(),
        mount_path: container.to_owned(),
        read_only,
        mount_propagation,
    }
}

/// What writing one of the host's keys takes.
fn host_key(key: &Key, needs: &mut Needs) {
    let file = key.path();
    // All of net is one mount: nothing in it opens the host. A directory of its own elsewhere is
    // as good as its files; kernel, fs and vm as a whole are the host.
    let mounted = match file.iter().count() {
        _ if key.is_net() => Path::new("net"),
        0..=2 => file.as_path(),
        _ => file.parent().unwrap_or(&file),
    };
    let host = Path::new("/proc/sys").join(mounted);
    let because = if key.is_net() { "net.* keys".to_owned() } else { key.to_string() };
    needs.add(mount(&host, &Path::new("/host").join(host_relative(&host)), false, None), because);
    match catalogue::lookup(key).map(|entry| entry.scope()) {
        Some(Scope::Pid) => needs.namespace("hostPID", format!("{key} is a PID namespace's")),
        Some(Scope::Ipc) => needs.namespace("hostIPC", format!("{key} is an IPC namespace's")),
        _ => {}
    }
    if let Some(name) = capability(key) {
        needs.capability(name, key.to_string());
    }
}

fn host_relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// The capability that a write takes beside uid 0 (measured; `proc_dointvec_minmax_sysadmin`,
/// `devinet_sysctl_forward`, `mmap_min_addr_handler`, `set_permissions` of `user.*`).
fn capability(key: &Key) -> Option<&'static str> {
    let name = key.as_str();
    match name {
        "kernel.dmesg_restrict"
        | "kernel.kptr_restrict"
        | "kernel.unprivileged_bpf_disabled"
        | "net.core.bpf_jit_harden" => Some("SYS_ADMIN"),
        "vm.mmap_min_addr" => Some("SYS_RAWIO"),
        "net.ipv4.ip_forward" => Some("NET_ADMIN"),
        _ if name.starts_with("user.") => Some("SYS_RESOURCE"),
        _ if name.starts_with("net.ipv4.conf.") && name.ends_with(".forwarding") => {
            Some("NET_ADMIN")
        }
        _ => None,
    }
}

fn pods(config: &Config, required: &mut Needs, optional: &mut Needs) {
    required.capability("SYS_ADMIN", "pods: their network namespaces are entered");
    let spec = &config.pod_namespaces;
    for directory in &spec.directories {
        let grant = mount(directory, directory, true, Some("HostToContainer"));
        required.add(grant, "pods: their network namespaces appear there");
    }
    let named = config.pods.iter().any(|policy| !policy.matches.is_every_pod());
    let cache = mount(&spec.cni_cache, &spec.cni_cache, true, None);
    match named {
        true => required.add(cache, "pods: policies by namespace or name need pods' names"),
        false => optional.add(cache, "pods: status tells their names"),
    }
    if config.mode == Mode::Enforce {
        let net = mount(Path::new("/proc/sys/net"), Path::new("/host/proc/sys/net"), false, None);
        required.add(net, "pods: the same mount shows the keys of the namespace that is entered");
        for key in config.pods.iter().flat_map(|policy| policy.policies.keys()) {
            if let Some(name) = capability(key) {
                required.capability(name, format!("pods: {key}"));
            }
        }
    }
    let processes = "pods: those without a CNI result are named by their processes";
    optional.namespace("hostPID", processes);
    optional.capability("SYS_PTRACE", processes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::load::{EMBEDDED, Origin, judge};

    fn needs(body: &str) -> Vec<String> {
        let text =
            format!("apiVersion: headroom/v1\nkind: AgentConfig\nstate: /run/headroom\n{body}");
        let config = judge(Origin::Embedded, text.as_bytes()).unwrap().config;
        of(&config).required.iter().map(|need| need.grant.to_string()).collect()
    }

    #[test]
    fn the_least_that_does_it() {
        let always = ["runAsUser: 0", "hostNetwork: true"];
        let state = "mount /run/headroom at /run/headroom, read-write";
        let net = "mount /proc/sys/net at /host/proc/sys/net, read-write";
        assert_eq!(
            needs("mode: observe\nsysctls: { vm.swappiness: 1 }\n"),
            [always[0], always[1], state]
        );
        assert_eq!(
            needs(
                "sysctls: { net.core.somaxconn: 1000, vm.swappiness: 1, fs.inotify.max_user_instances: 1024 }\n"
            ),
            [
                always[0],
                always[1],
                "mount /proc/sys/fs/inotify at /host/proc/sys/fs/inotify, read-write",
                net,
                "mount /proc/sys/vm/swappiness at /host/proc/sys/vm/swappiness, read-write",
                state,
            ]
        );
        assert_eq!(
            needs("sysctls: { kernel.pid_max: 100000, kernel.shmmni: 4096, net.ipv4.ip_forward: 1, user.max_net_namespaces: 1000 }\n")
                .iter()
                .filter(|need| !need.starts_with("mount"))
                .collect::<Vec<_>>(),
            [
                "runAsUser: 0",
                "hostIPC: true",
                "hostNetwork: true",
                "hostPID: true",
                "capability NET_ADMIN",
                "capability SYS_RESOURCE"
            ]
        );
    }

    #[test]
    fn pods_take_a_capability_and_two_mounts() {
        let policy =
            "pods: [{ name: a, match: { pods: [x] }, sysctls: { net.core.somaxconn: 10 } }]\n";
        let needs = needs(policy);
        assert!(needs.contains(&"capability SYS_ADMIN".to_owned()));
        let netns =
            "mount /var/run/netns at /var/run/netns, read-only, mountPropagation: HostToContainer";
        assert!(needs.contains(&netns.to_owned()), "{needs:?}");
        let cache = "mount /var/lib/cni/results at /var/lib/cni/results, read-only";
        assert!(needs.contains(&cache.to_owned()));
        assert!(!needs.iter().any(|need| need.contains("PTRACE") || need.contains("hostPID")));
        let embedded = judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap().config;
        let embedded = of(&embedded).required;
        assert!(!embedded.iter().any(|need| matches!(need.grant, Grant::Capability { .. })));
    }
}
