//! Many pods' namespaces, that come and go while they are looked at, and agents that are killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{Cni, HostLock, Named, Namespace, Pods, root_or_skip};
use serde_json::Value;

const SOMAXCONN: &str = "net/core/somaxconn";
const POLICIES: &str = "pods:
  - { name: web, match: { namespaces: [\"web-*\"] }, sysctls: { net.ipv4.conf.eth0.rp_filter: 2 } }
  - { name: all, sysctls: { net.core.somaxconn: 10000, net.ipv4.tcp_syn_retries: 3 } }
";

fn count(agent: &Agent<'_>, state: &str) -> u64 {
    agent.status()["pods"]["counts"][state].as_u64().unwrap_or_default()
}

fn all(agent: &Agent<'_>) -> u64 {
    let counts = agent.status()["pods"]["counts"].clone();
    counts.as_object().unwrap().values().filter_map(Value::as_u64).sum()
}

/// What an agent holds: descriptors, threads, resident memory in kB.
fn holds(agent: &Agent<'_>) -> (usize, usize, u64) {
    let process = Path::new("/proc").join(agent.pid().to_string());
    let count = |directory: &str| fs::read_dir(process.join(directory)).unwrap().count();
    let status = fs::read_to_string(process.join("status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (count("fd"), count("task"), resident)
}

/// No descriptor and no thread of the agent is in another namespace than its own.
fn assert_holds_no_namespace(agent: &Agent<'_>) {
    let process = Path::new("/proc").join(agent.pid().to_string());
    let own = fs::metadata(process.join("ns/net")).unwrap().ino();
    for task in fs::read_dir(process.join("task")).unwrap().flatten() {
        let netns = fs::metadata(task.path().join("ns/net"));
        assert!(netns.is_err() || netns.unwrap().ino() == own, "a thread stayed in a pod");
    }
    for fd in fs::read_dir(process.join("fd")).unwrap().flatten() {
        let link = fs::read_link(fd.path()).unwrap_or_default();
        assert!(!link.to_string_lossy().starts_with("net:"), "{link:?}");
    }
}

/// The kernel frees namespaces a little later, one after another.
fn settle(agent: &mut Agent<'_>, before: (usize, usize, u64)) {
    // Threads of the blocking pool end after 10 s without work.
    agent.wait_until("as before", |agent| {
        let (descriptors, threads, _) = holds(agent);
        descriptors <= before.0 && threads <= before.1.max(4)
    });
    assert_holds_no_namespace(agent);
}

#[test]
fn a_thousand_namespaces_of_the_real_bridge_plugin_twice() {
    let Some(host) = root_or_skip() else { return };
    let node = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let leases = host.directory();
    let cni = Cni::new(&node, leases.path());
    let home = Home::inside(&node);
    // One sweep a second of the shortest; what it may take is bounded all the same.
    home.configure(&(pods.configuration() + POLICIES));
    let mut agent = home.start();
    let before = holds(&agent);
    let mut resident = Vec::new();
    for round in 0..2 {
        let number = 1000;
        for pod in 0..number {
            let name = format!("{round}-{pod}");
            pods.create(&name);
            let result = cni.add(&name, &pods.path(&name));
            let namespace = if pod % 2 == 0 { "web-1" } else { "db" };
            let uid = format!("{round:08}-0000-4000-8000-{pod:012}");
            pods.cache_result(&name, Named { namespace, name: &name, uid: &uid }, &result);
            if pod >= number / 2 {
                remove(&cni, &mut pods, &format!("{round}-{}", pod - number / 2));
            }
        }
        let left = number as u64 / 2;
        agent.wait_until("all tuned", |agent| count(agent, "tuned") == left && all(agent) == left);
        agent.wait_until("all named", |agent| {
            let namespaces = agent.status()["pods"]["namespaces"].clone();
            namespaces.as_array().unwrap().iter().all(|one| one["pod"]["name"].is_string())
        });
        for pod in number / 2..number {
            let name = format!("{round}-{pod}");
            assert_eq!(pods.read(&name, SOMAXCONN), "10000", "{name}");
            let filter = pods.read(&name, "net/ipv4/conf/eth0/rp_filter");
            assert_eq!(filter == "2", pod % 2 == 0, "{name}");
            remove(&cni, &mut pods, &name);
        }
        agent.wait_until("forgotten", |agent| all(agent) == 0);
        resident.push(holds(&agent).2);
    }
    settle(&mut agent, before);
    assert_eq!(fs::read_dir(home.state().join("pods")).unwrap().count(), 0);
    assert!(resident[1] < resident[0] + 2048, "memory grows: {resident:?} kB");
    eprintln!("resident memory after each round: {resident:?} kB, before: {} kB", before.2);
}

fn remove(cni: &Cni<'_>, pods: &mut Pods, name: &str) {
    fs::remove_file(pods.cached(name)).unwrap();
    cni.delete(name, &pods.path(name));
    pods.remove(name);
}

#[test]
fn two_hundred_rounds_of_namespaces_that_go_while_they_are_tuned() {
    let Some(host) = root_or_skip() else { return };
    let node = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&node);
    home.configure(&(pods.configuration() + POLICIES));
    let mut agent = home.start();
    let before = holds(&agent);
    for round in 0..200_u64 {
        pods.create("a");
        let pod = Named { namespace: "web-1", name: "a", uid: "u" };
        match round % 4 {
            0 => {}
            1 => sleep(Duration::from_micros(round * 20)),
            2 => pods.result("a", pod, Ipv4Addr::new(10, 99, 0, 7)),
            _ => {
                pods.remove("a");
                pods.create("a");
            }
        }
        sleep(Duration::from_micros((round * 37) % 3000));
        pods.remove("a");
        let _ = fs::remove_file(pods.cached("a"));
    }
    agent.wait_until("forgotten", |agent| all(agent) == 0);
    // And it still works.
    pods.create("last");
    agent.wait_until("tuned", |agent| count(agent, "tuned") == 1);
    assert_eq!(pods.read("last", SOMAXCONN), "10000");
    pods.remove("last");
    agent.wait_until("forgotten", |agent| all(agent) == 0);
    settle(&mut agent, before);
    assert_eq!(fs::read_dir(home.state().join("pods")).unwrap().count(), 0);
    assert_eq!(
        agent.metrics().value("headroom_task_restarts_total", &[("task", "pods")]),
        Some(0.0)
    );
}

#[test]
fn an_agent_that_is_killed_while_it_tunes_loses_no_original() {
    let Some(host) = root_or_skip() else { return };
    let node = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&node);
    let names: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    for name in &names {
        pods.create(name);
    }
    for round in 0..40_u64 {
        let value = 10_000 + round;
        let policies = POLICIES.replace("10000", &value.to_string());
        home.configure(&(pods.configuration() + &policies));
        let mut agent = home.launch(home.command(["run"]));
        sleep(Duration::from_micros(15_000 + round * 1100 % 40_000));
        agent.kill9();
    }
    home.configure(&(pods.configuration() + POLICIES));
    let mut agent = home.start();
    agent.wait_until("all tuned", |agent| count(agent, "tuned") == 30);
    for name in &names {
        assert_eq!(pods.read(name, SOMAXCONN), "10000");
    }
    home.configure(&pods.configuration());
    agent.wait_until("over", |agent| agent.status()["pods"] == Value::Null);
    for name in &names {
        assert_eq!(pods.read(name, SOMAXCONN), "4096");
        assert_eq!(pods.read(name, "net/ipv4/tcp_syn_retries"), "6");
    }
}

/// A process in a cgroup of its own, which is removed with it.
struct InCgroup {
    process: Child,
    cgroup: std::path::PathBuf,
}

impl InCgroup {
    fn new(host: &HostLock, pod: &str, command: &mut Command) -> Self {
        let _ = host;
        let root = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"];
        let root = root.iter().find(|root| Path::new(root).join("cgroup.procs").exists()).unwrap();
        let cgroup = Path::new(root).join("kubepods/besteffort").join(format!("pod{pod}"));
        fs::create_dir_all(&cgroup).unwrap();
        let process = command.stdin(Stdio::null()).spawn().unwrap();
        fs::write(cgroup.join("cgroup.procs"), process.id().to_string()).unwrap();
        Self { process, cgroup }
    }
}

impl Drop for InCgroup {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Up to what others have made.
        let ours = self.cgroup.ancestors().take(3);
        ours.for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

#[test]
fn fault_20_without_a_result_processes_tell_the_pod_if_they_agree() {
    let Some(host) = root_or_skip() else { return };
    let node = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&node);
    home.configure(&(pods.configuration() + POLICIES));
    let mut agent = home.start();
    let uid = |digit: char| "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx".replace('x', &digit.to_string());
    for name in ["one", "two", "host", "empty"] {
        pods.create(name);
    }
    let sleeping = |name: &str| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", pods.path(name).display())).args(["sleep", "1000"]);
        command
    };
    let _one = InCgroup::new(&host, &uid('1'), &mut sleeping("one"));
    let _first = InCgroup::new(&host, &uid('2'), &mut sleeping("two"));
    // Another pod's process in it, as a debugger's.
    let _other = InCgroup::new(&host, &uid('3'), &mut sleeping("two"));
    // A process of the host in the first pod's cgroup, one of that pod in a namespace of its own, and
    // one of the host in a pod's namespace.
    let _foreign = InCgroup::new(&host, &uid('1'), Command::new("sleep").arg("1000"));
    let mut inner = Command::new("nsenter");
    inner.arg(format!("--net={}", pods.path("one").display()));
    let inner = InCgroup::new(&host, &uid('1'), inner.args(["unshare", "--net", "sleep", "1000"]));
    let mut on_host = sleeping("host").spawn().unwrap();
    let shown = |agent: &Agent<'_>, name: &str| {
        let path = pods.path(name);
        let status = agent.status();
        let all = status["pods"]["namespaces"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["path"] == path.to_str().unwrap()).unwrap_or_default()
    };
    agent.wait_until("named", |agent| shown(agent, "one")["pod"]["uid"] == *uid('1'));
    let one = shown(&agent, "one");
    assert_eq!((&one["pod"]["from"], &one["pod"]["name"]), (&"process".into(), &Value::Null));
    let why = |agent: &Agent<'_>, name: &str| {
        shown(agent, name)["unnamed"].as_str().unwrap_or_default().to_owned()
    };
    agent.wait_until("not named", |agent| why(agent, "two").contains("different pods"));
    agent.wait_until("not named", |agent| {
        why(agent, "host").contains("no pod") || why(agent, "host").contains("in a pod's cgroup")
    });
    agent.wait_until("not named", |agent| why(agent, "empty").contains("no process"));
    assert_eq!(node.read(SOMAXCONN), "4096", "the host's own is never touched");
    assert_eq!(pods.read("one", SOMAXCONN), "10000");
    let nested = fs::File::open(format!("/proc/{}/ns/net", inner.process.id())).unwrap();
    assert_ne!(nested.metadata().unwrap().ino(), fs::metadata(pods.path("one")).unwrap().ino());
    let nested = std::thread::scope(|scope| {
        let read = || {
            nix::sched::setns(&nested, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap()
        };
        scope.spawn(read).join().unwrap()
    });
    assert_eq!(nested, "4096\n", "a namespace within a pod is the pod's business");
    // A name that comes later counts more.
    let address = Ipv4Addr::new(10, 99, 0, 7);
    pods.connect("one", address);
    pods.result("one", Named { namespace: "web-1", name: "shop", uid: &uid('1') }, address);
    agent.wait_until("by name", |agent| shown(agent, "one")["pod"]["name"] == "shop");
    assert_eq!(pods.read("one", "net/ipv4/conf/eth0/rp_filter"), "2");
    on_host.kill().unwrap();
    on_host.wait().unwrap();
}
