//! Pods' network namespaces, made as container runtimes make them, and an agent that finds, names
//! and tunes them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;

use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::pods::{key, shown, wait_for_state};
use headroom_tests::{Named, Namespace, Pods, private_mounts, root_or_skip};
use serde_json::Value;

const SOMAXCONN: &str = "net/core/somaxconn";
const PORTS: &str = "net/ipv4/ip_local_port_range";
const EVERY_POD: &str = "pods: [{ name: all, sysctls: { net.core.somaxconn: 10000, net.ipv4.ip_local_port_range: \
     \"1024 65535\" } }]\n";
const WEB: Named<'_> =
    Named { namespace: "web-1", name: "shop-0", uid: "0f6c1c5e-1111-4222-8333-123456789abc" };
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);

fn namespaces(agent: &Agent<'_>) -> usize {
    agent.status()["pods"]["namespaces"].as_array().map_or(0, Vec::len)
}

#[test]
fn a_namespace_is_tuned_as_it_appears_and_forgotten_as_it_goes() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    let mut agent = home.start();
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "tuned");
    assert_eq!(pods.read("a", SOMAXCONN), "10000");
    assert_eq!(pods.read("a", PORTS), "1024\t65535");
    assert_eq!(netns.read(SOMAXCONN), "4096", "the node's own is untouched");
    let a = shown(&agent, &pods, "a");
    assert_eq!(a["late"], false);
    assert_eq!(key(&a, "net.core.somaxconn")["policy"], "all");
    let ledgers = home.state().join("pods");
    assert_eq!(fs::read_dir(&ledgers).unwrap().count(), 1);
    let metrics = agent.metrics();
    let count = |state, reason| {
        metrics.value("headroom_pod_namespaces", &[("state", state), ("reason", reason)])
    };
    assert_eq!((count("tuned", ""), count("skipped", "host")), (Some(1.0), Some(0.0)));
    let applied =
        metrics.value("headroom_pod_apply_duration_seconds_count", &[("from", "namespace")]);
    assert_eq!(applied, Some(1.0));
    assert_eq!(metrics.value("headroom_pod_late_total", &[]), Some(0.0));

    pods.remove("a");
    agent.wait_until("forgotten", |agent| namespaces(agent) == 0);
    assert_eq!(fs::read_dir(&ledgers).unwrap().count(), 0, "its originals are forgotten with it");
}

#[test]
fn a_pod_is_named_by_its_result_and_an_address_that_is_there() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(
        &(pods.configuration()
            + "pods:
  - { name: web, match: { namespaces: [\"web-*\"], pods: [\"shop-?\"] }, sysctls: { net.core.somaxconn: 20000, net.ipv4.conf.eth0.rp_filter: 2 } }
  - { name: all, sysctls: { net.core.somaxconn: 10000 } }
"),
    );
    let mut agent = home.start();
    for name in ["a", "b", "c"] {
        pods.create(name);
        wait_for_state(&mut agent, &pods, name, "tuned");
        assert_eq!(pods.read(name, SOMAXCONN), "10000", "for every pod, at once");
    }
    pods.connect("a", ADDRESS);
    pods.result("a", WEB, ADDRESS);
    // A result that names the path, left over from another namespace.
    pods.connect("b", Ipv4Addr::new(10, 99, 0, 8));
    pods.result("b", WEB, Ipv4Addr::new(10, 99, 0, 9));
    let other = Named { namespace: "db", name: "shop-1", uid: "x" };
    pods.connect("c", Ipv4Addr::new(10, 99, 0, 10));
    pods.result("c", other, Ipv4Addr::new(10, 99, 0, 10));
    agent.wait_until("named", |agent| {
        key(&shown(agent, &pods, "a"), "net.ipv4.conf.eth0.rp_filter")["state"] == "in-sync"
    });
    assert_eq!(pods.read("a", SOMAXCONN), "20000");
    assert_eq!(pods.read("a", "net/ipv4/conf/eth0/rp_filter"), "2");
    let a = shown(&agent, &pods, "a");
    assert_eq!(a["pod"]["namespace"], "web-1");
    assert_eq!(a["pod"]["name"], "shop-0");
    assert_eq!(a["pod"]["uid"], WEB.uid);
    assert_eq!(a["pod"]["from"], "cni-cache");
    assert_eq!(key(&a, "net.core.somaxconn")["policy"], "web");
    agent
        .wait_until("the other named", |agent| shown(agent, &pods, "c")["pod"]["name"] == "shop-1");
    assert_eq!(pods.read("c", SOMAXCONN), "10000");
    let b = shown(&agent, &pods, "b");
    assert_eq!(b["pod"], Value::Null);
    assert!(b["unnamed"].as_str().unwrap().contains("address"), "{b}");
    assert_eq!(pods.read("b", SOMAXCONN), "10000");
    let text = home.run(["status", "--pods"]).stdout;
    assert!(text.contains("web-1/shop-0") && text.contains("20000"), "{text}");
    let from = [("from", "identity")];
    let named = agent.metrics().value("headroom_pod_apply_duration_seconds_count", &from);
    assert_eq!(named, Some(2.0));
}

#[test]
fn the_first_pod_of_a_node_finds_its_directory_watched() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    fs::remove_dir(pods.netns()).unwrap();
    fs::remove_dir(pods.cache()).unwrap();
    let mut agent = home.start();
    agent.wait_until("said", |agent| {
        agent.status()["notices"].to_string().contains("does not exist")
    });
    fs::create_dir_all(pods.netns()).unwrap();
    fs::create_dir_all(pods.cache()).unwrap();
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "tuned");
    pods.connect("a", ADDRESS);
    pods.result("a", WEB, ADDRESS);
    agent.wait_until("named", |agent| shown(agent, &pods, "a")["pod"]["name"] == WEB.name);
    agent.wait_until("cleared", |agent| {
        !agent.status()["notices"].to_string().contains("does not exist")
    });
}

#[test]
fn fault_24_what_is_no_pods_namespace_is_left_alone() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    let mut agent = home.start();
    pods.mount(netns.path(), "host");
    pods.mount("/proc/self/ns/uts", "another-kind");
    nix::unistd::mkfifo(&pods.path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(pods.path("socket")).unwrap();
    std::os::unix::fs::symlink(netns.path(), pods.path("link")).unwrap();
    std::os::unix::fs::symlink("/proc/1/ns/net", pods.path("link-to-proc")).unwrap();
    fs::create_dir(pods.path("directory")).unwrap();
    File::create_new(pods.path("empty")).unwrap();
    fs::write(pods.path("file"), "text").unwrap();
    for name in ["another-kind", "fifo", "socket", "link", "link-to-proc", "directory"] {
        wait_for_state(&mut agent, &pods, name, "skipped-not-netns");
    }
    wait_for_state(&mut agent, &pods, "host", "skipped-host");
    for name in ["empty", "file"] {
        // Which of them depends on how the machine mounts its directories.
        agent.wait_until("skipped", |agent| {
            let state = shown(agent, &pods, name)["state"].clone();
            state == "skipped-not-mounted" || state == "skipped-not-netns"
        });
    }
    let empty = shown(&agent, &pods, "empty");
    assert!(empty["detail"].as_str().unwrap().contains("left over"), "{empty}");
    assert_eq!(netns.read(SOMAXCONN), "4096");
    // What was left over can still become a namespace.
    pods.create("later");
    fs::remove_file(pods.path("empty")).unwrap();
    wait_for_state(&mut agent, &pods, "later", "tuned");
    for name in ["fifo", "socket", "link", "link-to-proc", "file"] {
        fs::remove_file(pods.path(name)).unwrap();
    }
    agent.wait_until("forgotten", |agent| namespaces(agent) == 4);
}

#[test]
fn a_namespace_mounted_twice_is_one_and_names_may_have_any_bytes() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    let mut agent = home.start();
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "tuned");
    let a = pods.path("a");
    pods.mount(&a, "twice");
    agent.wait_until("one", |agent| shown(agent, &pods, "a")["also"].is_array());
    assert_eq!(namespaces(&agent), 1);
    pods.remove("a");
    agent.wait_until("still there", |agent| shown(agent, &pods, "twice")["state"] == "tuned");
    let hostile = OsStr::from_bytes(b"\x1b[31m\xff<b>\"\\\n");
    pods.create(hostile);
    agent.wait_until("tuned", |agent| namespaces(agent) == 2);
    agent.wait_until("tuned", |_| pods.read(hostile, SOMAXCONN) == "10000");
    let text = home.run(["status", "--pods"]).stdout;
    assert!(!text.contains('\x1b') && text.contains("\\x1b[31m"), "{text}");
    assert!(agent.log().iter().all(|line| !line.contains('\x1b')));
    pods.remove("twice");
    pods.remove(hostile);
    agent.wait_until("forgotten", |agent| namespaces(agent) == 0);
}

#[test]
fn what_changes_in_the_configuration_changes_in_running_pods() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    let mut agent = home.start();
    for name in ["a", "b"] {
        pods.create(name);
        wait_for_state(&mut agent, &pods, name, "tuned");
    }
    home.configure(&(pods.configuration() + &EVERY_POD.replace("10000", "12000")));
    agent.wait_until("changed", |_| pods.read("b", SOMAXCONN) == "12000");
    agent.wait_until("changed", |_| pods.read("a", SOMAXCONN) == "12000");
    // Somebody else's is not put back.
    pods.write("b", SOMAXCONN, "555");
    home.configure(
        &(pods.configuration() + "pods: [{ name: x, sysctls: { net.ipv4.tcp_syn_retries: 3 } }]\n"),
    );
    agent.wait_until("put back", |_| pods.read("a", SOMAXCONN) == "4096");
    agent.wait_until("changed", |_| pods.read("b", "net/ipv4/tcp_syn_retries") == "3");
    assert_eq!(pods.read("a", PORTS), "32768\t60999");
    assert_eq!(pods.read("b", SOMAXCONN), "555");
    // No policies for pods at all, and the agent was away when they went.
    agent.terminate();
    drop(agent);
    home.configure("hostNetns: current\n");
    // The directories are the configuration's.
    home.configure(&pods.configuration());
    let mut agent = home.start();
    agent.wait_until("put back", |_| pods.read("a", "net/ipv4/tcp_syn_retries") == "6");
    agent.wait_until("put back", |_| pods.read("b", "net/ipv4/tcp_syn_retries") == "6");
    agent.wait_until("gone", |agent| agent.status()["pods"] == Value::Null);
}

#[test]
fn restore_puts_back_what_pods_had() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    let mut agent = home.start();
    for name in ["a", "b"] {
        pods.create(name);
        wait_for_state(&mut agent, &pods, name, "tuned");
    }
    pods.write("b", SOMAXCONN, "555");
    assert_eq!(home.run(["restore"]).code, Some(1), "the agent runs");
    agent.terminate();
    let report = home.run(["restore", "-o", "json"]).json();
    assert_eq!(report["pods"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(pods.read("a", SOMAXCONN), "4096");
    assert_eq!(pods.read("a", PORTS), "32768\t60999");
    assert_eq!(pods.read("b", SOMAXCONN), "555", "somebody else's");
    assert!(home.run(["restore"]).stdout.contains("left alone"));
}

#[test]
fn pods_from_before_the_agent_are_tuned_and_counted_as_late_once() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD));
    pods.create("a");
    pods.connect("a", ADDRESS);
    pods.result("a", WEB, ADDRESS);
    let mut agent = home.start();
    wait_for_state(&mut agent, &pods, "a", "tuned");
    let a = shown(&agent, &pods, "a");
    assert_eq!((&a["late"], &a["pod"]["name"]), (&true.into(), &"shop-0".into()));
    assert_eq!(pods.read("a", SOMAXCONN), "10000");
    assert_eq!(agent.metrics().value("headroom_pod_late_total", &[]), Some(1.0));
    assert!(home.run(["status", "--pods"]).stdout.contains("1 late"));
    // Another run knows them, and those that went meanwhile are forgotten.
    pods.create("b");
    wait_for_state(&mut agent, &pods, "b", "tuned");
    agent.kill9();
    drop(agent);
    pods.remove("b");
    let mut agent = home.start();
    wait_for_state(&mut agent, &pods, "a", "tuned");
    assert_eq!(shown(&agent, &pods, "a")["late"], false);
    assert_eq!(agent.metrics().value("headroom_pod_late_total", &[]), Some(0.0));
    let from = [("from", "namespace")];
    let applied = agent.metrics().value("headroom_pod_apply_duration_seconds_count", &from);
    assert_eq!(applied, Some(0.0), "it did not appear while the agent ran");
    agent.wait_until("tidy", |_| fs::read_dir(home.state().join("pods")).unwrap().count() == 1);
}

#[test]
fn without_propagation_the_missing_setting_is_named() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD + "sysctls: { net.core.somaxconn: 5000 }\n"));
    pods.create("before");
    let mut agent = private_mounts(|| home.launch(home.command(["run"])));
    agent.wait_until("ready", Agent::is_ready);
    wait_for_state(&mut agent, &pods, "before", "tuned");
    pods.create("after");
    wait_for_state(&mut agent, &pods, "after", "skipped-not-mounted");
    let after = shown(&agent, &pods, "after");
    let why = after["detail"].as_str().unwrap();
    assert!(why.contains("mountPropagation: HostToContainer is missing"), "{why}");
    assert_eq!(netns.read(SOMAXCONN), "5000", "everything else goes on");
    assert_eq!(home.run(["status"]).code, Some(4));
}

#[test]
fn without_the_capability_it_is_named() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(&(pods.configuration() + EVERY_POD + "sysctls: { net.core.somaxconn: 5000 }\n"));
    let without = ["setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin"];
    let mut agent = home.launch(home.wrapped(&without, ["run"]));
    agent.wait_until("ready", Agent::is_ready);
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "failed");
    let a = shown(&agent, &pods, "a");
    assert!(a["detail"].as_str().unwrap().contains("CAP_SYS_ADMIN"), "{a}");
    assert!(agent.status()["notices"].to_string().contains("CAP_SYS_ADMIN"));
    assert_eq!(netns.read(SOMAXCONN), "5000", "everything else goes on");
    assert_eq!(pods.read("a", SOMAXCONN), "4096");
}

#[test]
fn a_read_only_proc_sys_is_named() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    let watch = "watch: { bridges: [b0] }\n";
    netns.ip(["link", "add", "b0", "type", "bridge"]);
    home.configure(&(pods.configuration() + EVERY_POD + watch));
    pods.create("a");
    let mut agent = private_mounts(|| {
        let mount = headroom_tests::Mount::bind("/proc/sys", "/proc/sys");
        mount.set_read_only(true);
        let agent = home.launch(home.command(["run"]));
        std::mem::forget(mount);
        agent
    });
    agent.wait_until("ready", Agent::is_ready);
    wait_for_state(&mut agent, &pods, "a", "failed");
    let denied = key(&shown(&agent, &pods, "a"), "net.core.somaxconn");
    assert_eq!(denied["state"], "denied");
    assert!(denied["detail"].as_str().unwrap().contains("EROFS"), "{denied}");
    assert_eq!(agent.status()["bridges"][0]["name"], "b0", "everything else goes on");
}
