//! Whose a value in a pod's namespace is: kept if somebody set it, put back if the agent did.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use headroom_tests::agent_process::Home;
use headroom_tests::pods::{key, shown, wait_for_state};
use headroom_tests::{Named, Namespace, Pods, SavedSysctls, root_or_skip};

const SOMAXCONN: &str = "net/core/somaxconn";
const RMEM: &str = "net/ipv4/tcp_rmem";
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 7);
const WEB: Named<'_> =
    Named { namespace: "web-1", name: "shop-0", uid: "0f6c1c5e-1111-4222-8333-123456789abc" };

/// CRI-O sets what a pod asks for before it mounts the namespace; CRI-O does not run here, so the
/// test does what it does.
#[test]
fn what_somebody_set_on_purpose_is_kept_unless_the_policy_enforces() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(
        &(pods.configuration()
            + "pods:
  - name: all
    sysctls:
      net.core.somaxconn: 10000
      net.ipv4.tcp_syn_retries: { value: 3, onConflict: enforce }
      net.ipv4.tcp_fin_timeout: { value: 20, onConflict: report }
"),
    );
    let mut agent = home.start();
    let set =
        |file: &str, value: &str| fs::write(Path::new("/proc/sys").join(file), value).unwrap();
    let _ = pods.create_after("own", || {
        set(SOMAXCONN, "777");
        set("net/ipv4/tcp_syn_retries", "9");
        set("net/ipv4/tcp_fin_timeout", "33");
    });
    pods.create("plain");
    for name in ["own", "plain"] {
        wait_for_state(&mut agent, &pods, name, "tuned");
    }
    let read = |name: &str, file: &str| pods.read(name, &format!("net/{file}"));
    assert_eq!(read("own", "core/somaxconn"), "777");
    assert_eq!(read("own", "ipv4/tcp_syn_retries"), "3");
    assert_eq!(read("own", "ipv4/tcp_fin_timeout"), "33");
    assert_eq!(read("plain", "core/somaxconn"), "10000");
    assert_eq!(read("plain", "ipv4/tcp_syn_retries"), "3");
    assert_eq!(read("plain", "ipv4/tcp_fin_timeout"), "60");
    let own = shown(&agent, &pods, "own");
    let kept = key(&own, "net.core.somaxconn");
    assert_eq!((&kept["state"], &kept["value"]), (&"yielded".into(), &"777".into()));
    assert!(kept["detail"].as_str().unwrap().contains("4096"), "{kept}");
    assert_eq!(key(&own, "net.ipv4.tcp_fin_timeout")["state"], "observed");
    // containerd sets what a pod asks for after the namespace was tuned.
    pods.write("plain", SOMAXCONN, "555");
    pods.write("plain", "net/ipv4/tcp_syn_retries", "5");
    agent.wait_until("seen", |agent| {
        key(&shown(agent, &pods, "plain"), "net.core.somaxconn")["state"] == "yielded"
    });
    assert_eq!(read("plain", "core/somaxconn"), "555");
    agent.wait_until("put back", |_| read("plain", "ipv4/tcp_syn_retries") == "3");
    agent.wait_until("counted", |agent| {
        agent.metrics().value("headroom_pod_drift_total", &[]) == Some(1.0)
    });
    assert_eq!(
        home.run(["status"]).code,
        Some(3),
        "tcp_fin_timeout is reported, as a key of the node would be"
    );
}

#[test]
fn what_an_interface_began_with_because_of_the_agent_is_the_agents() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    home.configure(
        &(pods.configuration()
            + "pods:
  - { name: web, match: { pods: [\"shop-*\"] }, sysctls: { net.ipv4.conf.eth0.rp_filter: 2 } }
  - { name: all, sysctls: { net.ipv4.conf.default.rp_filter: 1 } }
"),
    );
    let mut agent = home.start();
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "tuned");
    pods.connect("a", ADDRESS);
    let before = pods.read("a", "net/ipv4/conf/eth0/rp_filter");
    assert_eq!(before, "1", "it began with the default that the agent set");
    pods.result("a", WEB, ADDRESS);
    agent.wait_until("set", |_| pods.read("a", "net/ipv4/conf/eth0/rp_filter") == "2");
    home.configure(&pods.configuration());
    agent.wait_until("put back", |_| pods.read("a", "net/ipv4/conf/default/rp_filter") == "0");
    agent.wait_until("put back", |_| pods.read("a", "net/ipv4/conf/eth0/rp_filter") == "0");
}

/// A new namespace copies `tcp_rmem` from the initial one, at the moment it is made.
#[test]
fn what_a_pod_copied_from_the_host_is_nobodys() {
    let Some(host) = root_or_skip() else { return };
    let saved = SavedSysctls::new(&host, [RMEM]);
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    let policy =
        "pods: [{ name: all, sysctls: { net.ipv4.tcp_rmem: { min: \"_ _ 40000000\" } } }]\n";
    home.configure(&(pods.configuration() + policy));
    let mut agent = home.start();
    pods.create("before");
    wait_for_state(&mut agent, &pods, "before", "tuned");
    fs::write(Path::new("/proc/sys").join(RMEM), "4096 100000 30000000").unwrap();
    pods.create("after");
    pods.create_after("own", || {
        fs::write(Path::new("/proc/sys").join(RMEM), "4096 100000 20000000").unwrap();
    });
    for name in ["after", "own"] {
        wait_for_state(&mut agent, &pods, name, "tuned");
    }
    assert_eq!(pods.read("after", RMEM), "4096\t100000\t40000000");
    assert_eq!(pods.read("own", RMEM), "4096\t100000\t20000000");
    assert_eq!(key(&shown(&agent, &pods, "own"), "net.ipv4.tcp_rmem")["state"], "yielded");
    drop(saved);
}

#[test]
fn the_initial_namespace_is_never_a_pods_whatever_the_node_is() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    let before = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    home.configure(
        &(pods.configuration() + "pods: [{ name: a, sysctls: { net.core.somaxconn: 7777 } }]\n"),
    );
    let mut agent = home.start();
    // This thread is in it; the agent is not, and its init may not be looked at.
    pods.mount("/proc/thread-self/ns/net", "initial");
    wait_for_state(&mut agent, &pods, "initial", "skipped-host");
    assert_eq!(fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap(), before);
}

#[test]
fn a_directory_that_is_no_longer_configured_has_its_originals_back() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    let policy = "pods: [{ name: a, sysctls: { net.core.somaxconn: 10000 } }]\n";
    home.configure(&(pods.configuration() + policy));
    let mut agent = home.start();
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "tuned");
    let elsewhere = host.directory();
    let namespaces =
        format!("podNamespaces: {{ directories: [{}] }}\n", elsewhere.path().display());
    home.configure(&format!("hostNetns: current\n{namespaces}{policy}"));
    agent.wait_until("put back", |_| pods.read("a", SOMAXCONN) == "4096");
    agent.wait_until("gone", |agent| shown(agent, &pods, "a").is_null());
    assert_eq!(fs::read_dir(home.state().join("pods")).unwrap().count(), 0);
}

#[test]
fn who_only_observes_writes_nothing_and_says_what_differs() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    let policy = "mode: observe\npods: [{ name: a, sysctls: { net.core.somaxconn: 10000 } }]\n";
    home.configure(&(pods.configuration() + policy));
    let mut agent = home.start();
    pods.create("a");
    wait_for_state(&mut agent, &pods, "a", "tuned");
    let somaxconn = key(&shown(&agent, &pods, "a"), "net.core.somaxconn");
    assert_eq!((&somaxconn["state"], &somaxconn["inSync"]), (&"observed".into(), &false.into()));
    assert_eq!(pods.read("a", SOMAXCONN), "4096");
    assert!(!home.state().join("pods").exists());
}

/// `listen(2)` reads it once: what runs already is said to need a restart.
#[test]
fn what_runs_already_is_said_to_need_a_restart_and_series_are_bounded() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    let home = Home::inside(&netns);
    let policy = |value: u32| {
        let series = pods.configuration().replace("sweep: 1s", "sweep: 1s, perPodSeries: 1");
        let keys =
            format!("net.core.somaxconn: {value}, net.ipv4.tcp_fin_timeout: {}", value / 1000);
        series + &format!("pods: [{{ name: all, sysctls: {{ {keys} }} }}]\n")
    };
    let (first, second) = (policy(10_000), policy(12_000));
    pods.create("late");
    home.configure(&first);
    let mut agent = home.start();
    wait_for_state(&mut agent, &pods, "late", "tuned");
    let restart = |namespace: &serde_json::Value, name: &str| {
        key(namespace, name)["detail"].as_str().is_some_and(|why| why.contains("restart"))
    };
    let late = shown(&agent, &pods, "late");
    assert!(restart(&late, "net.core.somaxconn"), "{late}");
    assert!(!restart(&late, "net.ipv4.tcp_fin_timeout"), "read at every use: {late}");
    for (index, name) in ["a", "b"].into_iter().enumerate() {
        pods.create(name);
        wait_for_state(&mut agent, &pods, name, "tuned");
        assert!(!restart(&shown(&agent, &pods, name), "net.core.somaxconn"), "nothing ran in it");
        let address = Ipv4Addr::new(10, 99, 0, 7 + u8::try_from(index).unwrap());
        pods.connect(name, address);
        pods.result(name, Named { name, ..WEB }, address);
        agent.wait_until("named", |agent| shown(agent, &pods, name)["pod"]["name"] == name);
    }
    let metrics = agent.metrics();
    let of = |name| metrics.value("headroom_pod_in_sync", &[("namespace", "web-1"), ("pod", name)]);
    assert_eq!((of("a"), of("b")), (Some(1.0), None));
    assert_eq!(metrics.value("headroom_pod_series_omitted", &[]), Some(1.0));
    assert_eq!(metrics.value("headroom_pod_keys", &[("state", "in-sync")]), Some(6.0));
    std::thread::sleep(std::time::Duration::from_secs(3));
    home.configure(&second);
    agent.wait_until("said", |agent| restart(&shown(agent, &pods, "a"), "net.core.somaxconn"));
    assert!(home.run(["status"]).stdout.contains("restart what runs in 3"));
}
