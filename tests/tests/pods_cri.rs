//! Real pods on a node of the test's own, without an agent: what the tests of pods rest on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use headroom_tests::agent_process::{Home, PATIENCE};
use headroom_tests::cri::{Burst, Containerd, PodSpec, Settings};
use headroom_tests::root_or_skip;

/// What a runtime makes that the whole machine would see.
fn machine() -> BTreeSet<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
    let forwards = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    let interfaces = interfaces.lines().filter_map(|line| Some(line.split_once(':')?.0));
    let paths = ["/opt/containerd", "/run/containerd", "/var/lib/containerd", "/var/lib/cni"];
    let paths = paths.into_iter().filter(|path| Path::new(path).exists());
    let mut seen: BTreeSet<String> = kubepods(Path::new("/sys/fs/cgroup"));
    seen.extend(mounts.lines().map(str::to_owned));
    seen.extend(interfaces.map(|name| format!("interface {}", name.trim())));
    seen.extend(paths.map(str::to_owned));
    seen.extend(["/run/netns", "/run/headroom-tests"].into_iter().flat_map(entries));
    seen.insert(format!("ip_forward {forwards}"));
    for process in entries("/proc").filter(|name| name.parse::<u32>().is_ok()) {
        let file = |name: &str| format!("/proc/{process}/{name}");
        let name = fs::read_to_string(file("comm")).unwrap_or_default();
        if ["containerd", "runc", "pod\n", "unshare"].iter().any(|one| name.starts_with(one)) {
            seen.insert(format!("process {process} {name}"));
        }
        // Namespaces by those in them, and by this process's descriptors.
        let links = ["net", "mnt", "pid"].map(|kind| fs::read_link(file(&format!("ns/{kind}"))));
        seen.extend(links.into_iter().flatten().map(|link| link.display().to_string()));
    }
    let open = entries("/proc/self/fd").map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")));
    let open = open.flatten().map(|link| link.display().to_string());
    seen.extend(open.filter(|link| ["net:", "mnt:"].iter().any(|kind| link.starts_with(kind))));
    seen
}

fn entries(path: &str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.file_name().into_string().unwrap())
}

/// Control groups of pods, in every hierarchy.
fn kubepods(path: &Path) -> BTreeSet<String> {
    let below = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let here = path.to_str().unwrap().to_owned();
    let here = Some(here).filter(|here| here.contains("/kubepods"));
    here.into_iter().chain(below.flat_map(|entry| kubepods(&entry.path()))).collect()
}

/// Nothing is there that was not before.
fn nothing_left(before: &BTreeSet<String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Namespaces end a moment after the last that holds them.
        let now = machine();
        let left: Vec<&String> = now.difference(before).collect();
        if left.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "{left:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_pod_runs_is_named_by_cni_and_leaves_nothing() {
    let Some(host) = root_or_skip() else { return };
    let before = machine();
    let runtime = Containerd::start(&host);
    eprintln!("{}", runtime.version().unwrap());
    let pod = runtime.run_pod(PodSpec::new("shop", "web-0"));
    assert_eq!(pod.run(&["print", "net/core/somaxconn", "kernel/ostype"]), "4096\nLinux\n");
    assert_eq!(pod.read("net/core/somaxconn"), "4096");
    assert!(pod.ip().starts_with("10.87."), "{}", pod.ip());

    let results = runtime.cni_results();
    let ours = results.iter().find(|result| result["ifName"] == "eth0").unwrap();
    assert_eq!(ours["containerId"], pod.id());
    let interfaces = ours["result"]["interfaces"].as_array().unwrap();
    let inside = interfaces.iter().find(|interface| interface["name"] == "eth0").unwrap();
    assert_eq!(inside["sandbox"], pod.netns().unwrap().to_str().unwrap(), "{ours}");
    assert!(ours["result"]["ips"][0]["address"].as_str().unwrap().starts_with(pod.ip()));
    // Pairs, in an order that differs from pod to pod.
    let args = ours["cniArgs"].as_array().unwrap();
    let args: BTreeMap<_, _> =
        args.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
    let wanted = [
        ("IgnoreUnknown", "1"),
        ("K8S_POD_INFRA_CONTAINER_ID", pod.id()),
        ("K8S_POD_NAME", "web-0"),
        ("K8S_POD_NAMESPACE", "shop"),
        ("K8S_POD_UID", &pod.spec().uid),
    ];
    assert_eq!(args, wanted.into());

    let server = pod.start(&["serve", "80", "16"]);
    server.wait_for("listening");
    let cgroups = pod.processes().into_iter().map(|process| {
        let text = fs::read(format!("/proc/{process}/cgroup")).unwrap();
        headroom::kernel::cgroup::parse(&text).unwrap().pod.unwrap()
    });
    let containers: BTreeSet<String> = cgroups
        .map(|of| {
            assert_eq!(of.uid, pod.spec().uid);
            of.container.unwrap()
        })
        .collect();
    assert_eq!(containers, [pod.id(), server.id()].map(str::to_owned).into());
    server.delete();
    assert_eq!(pod.processes().len(), 1, "the sandbox's is left");

    let netns = pod.netns().unwrap().to_owned();
    let there = || runtime.node().enter(|| netns.exists());
    assert!(there());
    assert!(!netns.exists(), "it is the node's");
    pod.delete();
    assert!(!there());
    assert_eq!(runtime.sandboxes(), []);
    assert!(runtime.cni_results().iter().all(|result| result["ifName"] != "eth0"));

    // As a test leaves it that fails.
    let pod = runtime.run_pod(PodSpec::new("shop", "web-1"));
    pod.start(&["serve", "80", "16"]).wait_for("listening");
    drop(runtime);
    nothing_left(&before);
}

#[test]
fn sysctls_of_a_pod_are_set_by_its_spec_or_by_cni() {
    let Some(host) = root_or_skip() else { return };
    let settings = Settings { tuning: &[("net.core.somaxconn", "555")] };
    let runtime = Containerd::start_with(&host, &settings);
    let spec = PodSpec::new("default", "own").sysctl("net.ipv4.ip_local_port_range", "2000 3000");
    let pod = runtime.run_pod(spec);
    let printed = pod.run(&["print", "net/core/somaxconn", "net/ipv4/ip_local_port_range"]);
    assert_eq!(printed, "555\n2000\t3000\n");

    let spec = PodSpec { host_network: true, ..PodSpec::new("default", "on-the-node") };
    let pod = runtime.run_pod(spec);
    assert_eq!(pod.netns(), None);
    runtime.node().network().write("net/core/somaxconn", "777");
    assert_eq!(pod.run(&["print", "net/core/somaxconn"]), "777\n");

    let wrong = PodSpec::new("default", "wrong").sysctl("net.core.no_such_key", "1");
    let error = runtime.try_run_pod(wrong).unwrap_err();
    assert!(error.contains("no_such_key"), "{error}");
}

#[test]
fn two_at_a_time_are_made_and_all_are_gone_with_the_runtime() {
    let Some(host) = root_or_skip() else { return };
    let before = machine();
    let runtime = Containerd::start(&host);
    let pod = |number: usize| {
        let pod = runtime.run_pod(PodSpec::new("default", &format!("pod-{number}")));
        assert_eq!(pod.run(&["print", "net/core/somaxconn"]), "4096\n");
    };
    std::thread::scope(|scope| {
        for first in [0, 1] {
            scope.spawn(move || (first..6).step_by(2).for_each(pod));
        }
    });
    assert_eq!(runtime.sandboxes().len(), 6);
    let results = runtime.cni_results();
    assert_eq!(results.iter().filter(|result| result["ifName"] == "eth0").count(), 6);
    drop(runtime);
    nothing_left(&before);
}

#[test]
fn a_burst_overflows_the_backlog_that_somaxconn_cuts() {
    let Some(host) = root_or_skip() else { return };
    let runtime = Containerd::start(&host);
    let fresh = PodSpec::new("default", "fresh");
    let more = PodSpec::new("default", "more").sysctl("net.core.somaxconn", "8192");
    for (spec, somaxconn, overflows) in [(fresh, "4096", true), (more, "8192", false)] {
        let pod = runtime.run_pod(spec);
        assert_eq!(pod.read("net/core/somaxconn"), somaxconn);
        pod.start(&["serve", "80", "65535"]).wait_for("listening");
        assert_eq!(pod.tcp_ext("ListenOverflows"), 0);
        let burst = Burst::new(&pod, 80, 6000);
        assert_eq!(burst.overflows(&pod) > 0, overflows, "{somaxconn}");
        assert_eq!(pod.tcp_ext("ListenDrops") > 0, overflows, "{somaxconn}");
    }
}

#[test]
fn an_agent_beside_it_has_the_nodes_network_and_mounts_and_the_machines_processes() {
    let Some(host) = root_or_skip() else { return };
    let runtime = Containerd::start(&host);
    let home = Home::on(runtime.node());
    home.configure("hostNetns: current\nsysctls: { net.core.somaxconn: 5000 }\n");
    let agent = home.start();
    assert_eq!(runtime.node().network().read("net/core/somaxconn"), "5000");
    let pod = runtime.run_pod(PodSpec::new("default", "web-0"));
    let (mounts, own) = runtime.node().enter(|| {
        let mounts = fs::read_to_string(format!("/proc/{}/mounts", agent.pid())).unwrap();
        (mounts, fs::read_link(format!("/proc/{}/ns/pid", agent.pid())).unwrap())
    });
    // By its real name: /var/run is a link.
    let name = pod.netns().unwrap().file_name().unwrap().to_str().unwrap();
    assert!(mounts.contains(&format!(" /run/netns/{name} nsfs ")), "{mounts}");
    assert_eq!(own, fs::read_link("/proc/self/ns/pid").unwrap());
}
