//! Real pods on a node of the test's own, without an agent: what the tests of pods rest on.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use headroom_tests::cri::{Burst, Containerd, PodSpec, Settings};
use headroom_tests::{HostLock, root_or_skip};

/// What a runtime makes that the whole machine would see.
#[derive(Debug, PartialEq)]
struct Machine {
    mounts: Vec<String>,
    cgroups: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    processes: Vec<String>,
    paths: Vec<(&'static str, bool)>,
    forwards: String,
    interfaces: BTreeSet<String>,
}

impl Machine {
    fn now() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let interfaces = fs::read_to_string("/proc/self/net/dev").unwrap();
        let interfaces = interfaces.lines().filter_map(|line| line.split_once(':'));
        let names = ["containerd", "containerd-shim", "runc", "pod", "unshare"];
        let (mut processes, mut namespaces) = (Vec::new(), BTreeSet::new());
        for process in entries("/proc").filter(|name| name.parse::<u32>().is_ok()) {
            let file = |name: &str| format!("/proc/{process}/{name}");
            let name = fs::read_to_string(file("comm")).unwrap_or_default();
            if names.iter().any(|one| name.trim_end().starts_with(one)) {
                processes.push(name);
            }
            for kind in ["net", "mnt", "pid"] {
                let link = fs::read_link(file(&format!("ns/{kind}")));
                namespaces.extend(link.into_iter().map(|link| link.display().to_string()));
            }
        }
        let paths = ["/opt/containerd", "/run/containerd", "/var/lib/containerd", "/var/lib/cni"];
        Self {
            mounts: mounts.lines().map(str::to_owned).collect(),
            cgroups: kubepods(Path::new("/sys/fs/cgroup")),
            namespaces: entries("/run/netns").chain(namespaces).collect(),
            processes,
            paths: paths.map(|path| (path, Path::new(path).exists())).to_vec(),
            forwards: fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
            interfaces: interfaces.map(|(name, _)| name.trim().to_owned()).collect(),
        }
    }
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

/// What others on the machine do meanwhile is not this test's: new processes may be there, but
/// none of a runtime, and no namespace that was not there before is left.
fn nothing_left(before: &Machine) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        // Namespaces end a moment after the last that holds them.
        let now = Machine::now();
        if now == *before {
            return;
        }
        assert!(Instant::now() < deadline, "before: {before:#?}\nnow: {now:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_pod_runs_is_named_by_cni_and_leaves_nothing() {
    let Some(host) = root_or_skip() else { return };
    let before = Machine::now();
    let runtime = Containerd::start(&host);
    eprintln!("{}", runtime.version().unwrap());
    let pod = runtime.run_pod(PodSpec::new("shop", "web-0"));
    assert_eq!(pod.run(&["print", "net/core/somaxconn", "kernel/ostype"]), "4096\nLinux\n");
    assert_eq!(pod.read("net/core/somaxconn"), "4096");
    assert!(pod.ip().starts_with("10.87."), "{}", pod.ip());

    let results = runtime.cni_results();
    let ours = results.iter().find(|result| result["ifName"] == "eth0").unwrap();
    assert_eq!(ours["containerId"], pod.id());
    assert_eq!(ours["netns"], pod.netns().unwrap().to_str().unwrap());
    let args = serde_json::json!([
        ["IgnoreUnknown", "1"],
        ["K8S_POD_NAMESPACE", "shop"],
        ["K8S_POD_NAME", "web-0"],
        ["K8S_POD_INFRA_CONTAINER_ID", pod.id()],
        ["K8S_POD_UID", pod.spec().uid],
    ]);
    assert_eq!(ours["cniArgs"], args);

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
    let server = pod.start(&["serve", "80", "16"]);
    server.wait_for("listening");
    std::mem::forget(pod);
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

fn many(host: &HostLock, count: usize) -> Duration {
    let runtime = Containerd::start(host);
    let started = Instant::now();
    let pod = |number: usize| {
        let pod = runtime.run_pod(PodSpec::new("default", &format!("pod-{number}")));
        assert_eq!(pod.run(&["print", "net/core/somaxconn"]), "4096\n");
        pod
    };
    let pods: Vec<_> = std::thread::scope(|scope| {
        let half = |first: usize| move || (first..count).step_by(2).map(pod).collect::<Vec<_>>();
        let halves = [0, 1].map(|first| scope.spawn(half(first)));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    let took = started.elapsed();
    let results = runtime.cni_results();
    let named = results.iter().filter(|result| result["ifName"] == "eth0");
    assert_eq!(named.count(), pods.len());
    // Quicker than one by one, and as much is left.
    pods.into_iter().for_each(std::mem::forget);
    took
}

#[test]
fn two_at_a_time_are_made_and_killed() {
    let Some(host) = root_or_skip() else { return };
    let before = Machine::now();
    let count = std::env::var("PODS").map_or(6, |pods| pods.parse().unwrap());
    let took = many(&host, count);
    let killed = Instant::now();
    nothing_left(&before);
    eprintln!("{count} pods: {took:?}, gone {:?} after", killed.elapsed());
}

#[test]
fn a_burst_overflows_the_backlog_that_somaxconn_cuts() {
    let Some(host) = root_or_skip() else { return };
    let runtime = Containerd::start(&host);
    for (somaxconn, overflows) in [("4096", true), ("8192", false)] {
        let spec = PodSpec::new("default", somaxconn).sysctl("net.core.somaxconn", somaxconn);
        let pod = runtime.run_pod(spec);
        pod.start(&["serve", "80", "65535"]).wait_for("listening");
        assert_eq!(pod.tcp_ext("ListenOverflows"), 0);
        let burst = Burst::new(&pod, 80, 6000);
        assert_eq!(burst.overflows(&pod) > 0, overflows, "{somaxconn}");
        assert_eq!(pod.tcp_ext("ListenDrops") > 0, overflows, "{somaxconn}");
    }
}
