#![allow(clippy::unwrap_used)]

use super::super::load::{EMBEDDED, Origin, judge};
use super::*;
use crate::kernel::sysctl_d;

const HEAD: &str = "apiVersion: headroom/v1\nkind: AgentConfig\nstate: /run/headroom\n";

fn of(body: &str) -> Privileges {
    privileges(&judge(Origin::Embedded, format!("{HEAD}{body}").as_bytes()).unwrap().config)
}

/// One word or two for each.
fn short(needs: &[Need]) -> Vec<String> {
    let short = |need: &Need| match &need.grant {
        Grant::User { uid } => format!("uid {uid}"),
        Grant::HostNamespace { name } | Grant::Capability { name } => (*name).to_owned(),
        Grant::Mount(mount) => {
            let access = if mount.read_only { "ro" } else { "rw" };
            let host = mount.host_path.as_deref().unwrap_or("-");
            let later = if mount.propagation == Propagation::None { "" } else { " later" };
            format!("{host}:{} {access}{later}", mount.mount_path)
        }
    };
    needs.iter().map(short).collect()
}

const WATCHING: [&str; 2] = ["uid 0", "hostNetwork"];
const STATE: &str = "/run/headroom:/run/headroom rw";
const NET: &str = "/proc/sys/net:/host/proc/sys/net rw";

#[test]
fn watching_needs_no_capability_and_writes_nothing_of_the_host() {
    let watching = of("mode: observe\n");
    assert_eq!(short(&watching.required), [&WATCHING[..], &["-:/run/headroom rw"]].concat());
    let observed =
        of("mode: observe\nsysctls: { net.core.somaxconn: 1, vm.max_map_count: 70000 }\n");
    assert_eq!(observed.required, watching.required);
    let reported = of("sysctls: { kernel.dmesg_restrict: { value: 1, onConflict: report } }\n");
    assert_eq!(short(&reported.required), [&WATCHING[..], &[STATE]].concat());
    for need in [&watching, &observed, &reported].into_iter().flat_map(|it| &it.optional) {
        assert!(!matches!(&need.grant, Grant::Mount(mount) if !mount.read_only), "{need:?}");
    }
}

#[test]
fn counting_what_has_no_counter_is_offered_and_never_asked_for() {
    let watching = of("mode: observe\n");
    let optional = short(&watching.optional);
    for name in ["hostPID", "SYS_PTRACE", "/sys/fs/cgroup:/host/sys/fs/cgroup ro"] {
        assert!(optional.contains(&name.to_owned()), "{name}: {optional:?}");
    }
}

/// What the DaemonSet mounts, and the one key that it leaves out.
#[test]
fn the_embedded_default() {
    let config = judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap().config;
    let (state, socket) = ("/run/headroom".into(), "/run/headroom/agent.sock".into());
    let needs = privileges(&Config { state, socket, ..config });
    let below = |path: &str| format!("/proc/sys/{path}:/host/proc/sys/{path} rw");
    let keys = [
        "fs/aio-max-nr",
        "fs/file-max",
        "fs/inotify",
        "kernel/keys",
        "kernel/pid_max",
        "kernel/pty",
        "kernel/threads-max",
        "net",
        "vm/max_map_count",
    ];
    let mut expected = ["uid 0", "hostNetwork", "hostPID"].map(str::to_owned).to_vec();
    expected.extend(keys.map(below));
    expected.push(STATE.to_owned());
    assert_eq!(short(&needs.required), expected);
    let shared = |need: &&Need| need.grant == Grant::HostNamespace { name: "hostPID" };
    let why = &needs.required.iter().find(shared).unwrap().why;
    assert_eq!(why[0].keys, ["kernel.pid_max"]);
    assert!(why[0].asked && !why[1].asked, "{why:?}");
}

#[test]
fn each_key_needs_what_the_kernel_asks() {
    let capabilities = |key: &str| {
        let needs = of(&format!("allowDangerous: [vm.mmap_min_addr]\nsysctls: {{ {key}: 1 }}\n"));
        let names = needs.required.iter().filter_map(|need| match need.grant {
            Grant::Capability { name } => Some(name),
            _ => None,
        });
        names.collect::<Vec<_>>().join(" ")
    };
    for (key, expected) in [
        ("net.core.somaxconn", ""),
        ("net.ipv4.ip_forward", "NET_ADMIN"),
        ("net.ipv4.conf.all.forwarding", "NET_ADMIN"),
        ("net/ipv4/conf/eth0.1/forwarding", "NET_ADMIN"),
        ("net.ipv4.conf.*.forwarding", "NET_ADMIN"),
        ("net.ipv4.conf.all.bc_forwarding", ""),
        ("net.ipv6.conf.all.forwarding", ""),
        ("kernel.dmesg_restrict", "SYS_ADMIN"),
        ("vm.mmap_min_addr", "SYS_RAWIO"),
        ("user.max_inotify_watches", "SYS_RESOURCE"),
        ("vm.swappiness", ""),
    ] {
        assert_eq!(capabilities(key), expected, "{key}");
    }
    let ipc = of("sysctls: { kernel.shmmax: 1, fs.mqueue.msg_max: 10 }\n");
    assert!(short(&ipc.required).contains(&"hostIPC".to_owned()));
}

/// `kernel`, `fs` and `vm` whole are root on the host.
#[test]
fn no_directory_that_opens_the_host_is_asked_for() {
    for entry in catalogue::all() {
        let key = Key::parse(&entry.key().replace('*', "all")).unwrap();
        let Grant::Mount(mount) = tree(&key) else { unreachable!() };
        let inside = mount.mount_path.strip_prefix("/host/proc/sys/").unwrap();
        if mount.of == PathType::Directory && inside != "net" {
            assert!(inside.contains('/'), "{key}: {inside}");
            assert!(!entry.has("dangerous"), "{key}: {inside}");
        } else if mount.of == PathType::File {
            assert_eq!(Path::new(inside), key.path());
        }
    }
    let unknown = tree(&Key::parse("kernel.sched_domain.cpu0.x").unwrap());
    assert!(matches!(unknown, Grant::Mount(mount) if mount.of == PathType::File));
}

#[test]
fn pods_need_what_the_table_says() {
    let body = "\
pods:
- { name: a, match: { pods: [a] }, sysctls: { net.core.somaxconn: 1 } }
podNamespaces: { directories: [/var/run/netns, /other] }
";
    let needs = of(body);
    let rest = [
        "SYS_ADMIN",
        NET,
        "/other:/other ro later",
        STATE,
        "/var/lib/cni/results:/var/lib/cni/results ro",
        "/var/run/netns:/var/run/netns ro later",
    ];
    assert_eq!(short(&needs.required), [&WATCHING[..], &rest].concat());
    let optional = short(&needs.optional);
    assert!(optional.contains(&"hostPID".into()) && optional.contains(&"SYS_PTRACE".into()));
    // Nothing asks for a name, and one key is guarded.
    let every = of("pods: [{ name: a, sysctls: { net.ipv4.ip_forward: 0 } }]\n");
    assert!(short(&every.required).contains(&"NET_ADMIN".into()));
    assert!(short(&every.optional).iter().any(|need| need.contains("cni/results")));
    // Looking takes the same way in, and no right to write.
    let observed = of(&format!("mode: observe\n{body}"));
    assert!(short(&observed.required).contains(&"SYS_ADMIN".into()));
    assert!(!short(&observed.required).contains(&NET.into()));
    let none = of("podNamespaces: { directories: [/other] }\n");
    assert_eq!(short(&none.required), [&WATCHING[..], &[STATE]].concat());
}

#[test]
fn a_socket_elsewhere_needs_its_directory() {
    let needs = of("server: { socket: /tmp/x/agent.sock }\n");
    assert!(short(&needs.required).contains(&"-:/tmp/x rw".into()), "{needs:?}");
}

#[test]
fn the_files_of_the_host_are_where_the_agent_looks() {
    let needs =
        of("sysctls: { vm.swappiness: 1 }\nlimits: { maxPods: 9, podRange: 10.0.0.0/24 }\n");
    let files = needs.optional.iter().filter_map(|need| match &need.grant {
        Grant::Mount(mount) if mount.mount_path.starts_with(HOST) => mount.host_path.clone(),
        _ => None,
    });
    let known = |path: String| sysctl_d::DIRECTORIES.contains(&path.as_str());
    assert_eq!(files.map(known).collect::<Vec<_>>(), [true; 3]);
}

#[test]
fn the_scan_of_pods_neighbors_takes_what_nobody_has_to_give() {
    let needs = of("mode: observe\n");
    let optional = short(&needs.optional);
    assert!(optional.contains(&"SYS_ADMIN".to_owned()), "{optional:?}");
    let mount = "/var/run/netns:/var/run/netns ro later".to_owned();
    assert!(optional.contains(&mount), "{optional:?}");
}

/// All are read-only, and none is needed: what is configured is not looked for.
#[test]
fn limits_are_told_by_files_of_the_node() {
    let limits = |body: &str| -> Vec<String> {
        let needs = of(body);
        assert_eq!(short(&needs.required), [&WATCHING[..], &[STATE]].concat());
        let optional = short(&needs.optional).into_iter();
        optional
            .filter(|need| ["cni", "kubelet", "flannel"].iter().any(|word| need.contains(word)))
            .collect()
    };
    let both = |path: &str| format!("{path}:{path} ro");
    let [cni, flannel, leases] =
        ["/etc/cni/net.d", "/run/flannel", "/var/lib/cni/networks"].map(both);
    let kubelet = both("/var/lib/kubelet/config.yaml");
    assert_eq!(limits(""), [cni.clone(), flannel.clone(), leases.clone(), kubelet.clone()]);
    assert_eq!(limits("limits: { maxPods: 250 }\n"), [cni, flannel, leases]);
    assert_eq!(limits("limits: { podRange: 10.0.0.0/24 }\n"), [kubelet]);
    assert_eq!(limits("limits: { maxPods: 250, podRange: 10.0.0.0/24 }\n"), [""; 0]);
}
