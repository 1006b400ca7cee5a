//! The two stories of dense nodes, in the host's own network namespace: the neighbor table that
//! all pods share, and the bridge that takes 1023 ports. The agent observes; it writes nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use headroom_tests::agent_process::{Agent, Home, Scrape};
use headroom_tests::{HostLock, Namespace, SavedSysctls, ip, ip_batch, root_or_skip, try_ip};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use rtnetlink::packet_route::neighbour::NeighbourState;

const OBSERVE: &str = "mode: observe\nwatch: { neighborScan: 1s }\n";
const FAMILIES: [&str; 2] = ["ipv4", "ipv6"];

fn of_family(scrape: &Scrape, name: &str, family: &str) -> u64 {
    let value = scrape.value(&format!("headroom_neighbor_{name}"), &[("family", family)]);
    value.unwrap_or_else(|| panic!("{name} {family}")) as u64
}

/// The ratio, whatever it is made of.
fn fullness(scrape: &Scrape, family: &str) -> f64 {
    let mut series = scrape.family("headroom_neighbor_fullness_ratio");
    series.find(|(labels, _)| labels["family"] == family).unwrap().1
}

/// The kernel's own count.
fn entries(family: &str) -> u64 {
    let file = if family == "ipv4" { "arp_cache" } else { "ndisc_cache" };
    let text = fs::read_to_string(format!("/proc/net/stat/{file}")).unwrap();
    let first = text.lines().nth(1).unwrap().split_ascii_whitespace().next().unwrap();
    u64::from_str_radix(first, 16).unwrap()
}

/// The machine has neighbors of its own that come and go meanwhile: what is measured must come
/// out exactly in one of a few rounds.
fn exactly<T: PartialEq + std::fmt::Debug>(mut measure: impl FnMut() -> (T, T)) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (found, expected) = measure();
        if found == expected {
            return;
        }
        seen.push((found, expected));
    }
    panic!("never as expected: {seen:?}");
}

/// A pod's namespace with an interface that is down, so that nothing is sent and nothing expires.
fn pod(host: &HostLock) -> Namespace {
    let pod = Namespace::new(host);
    pod.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    pod
}

fn address(family: &str, number: u64) -> String {
    match family {
        "ipv4" => format!("10.1.{}.{}", number / 250, number % 250 + 1),
        _ => format!("fd00::1:{number:x}"),
    }
}

/// Lines that add or delete this many neighbors.
fn neighbors(family: &str, verb: &str, count: u64, how: &str) -> String {
    let lladdr = "02:00:00:00:00:01";
    let line = |n| format!("neigh {verb} {} lladdr {lladdr} dev v0 {how}\n", address(family, n));
    (0..count).map(line).collect()
}

#[test]
fn entries_of_pods_are_in_the_hosts_numbers() {
    let Some(host) = root_or_skip() else { return };
    let home = Home::new();
    home.configure(OBSERVE);
    let agent = home.start();
    for family in FAMILIES {
        exactly(|| {
            let pods = [pod(&host), pod(&host), pod(&host)];
            let before = of_family(&agent.metrics(), "entries", family);
            for pod in &pods {
                pod.ip_batch(neighbors(family, "add", 100, "nud permanent"));
            }
            let full = of_family(&agent.metrics(), "entries", family);
            pods[0].ip_batch(neighbors(family, "del", 100, ""));
            let after = of_family(&agent.metrics(), "entries", family);
            ((full.checked_sub(before), full.checked_sub(after)), (Some(300), Some(100)))
        });
        exactly(|| (of_family(&agent.metrics(), "entries", family), entries(family)));
    }
}

#[test]
fn the_peak_remembers_what_came_and_went() {
    let Some(host) = root_or_skip() else { return };
    let home = Home::new();
    home.configure(OBSERVE);
    let mut agent = home.start();
    let pod = pod(&host);
    let before = of_family(&agent.metrics(), "entries", "ipv4");
    pod.ip_batch(neighbors("ipv4", "add", 300, "nud permanent"));
    agent.wait_until("sampled", |agent| {
        of_family(&agent.metrics(), "entries_peak", "ipv4") >= before + 290
    });
    pod.ip_batch(neighbors("ipv4", "del", 300, ""));
    let scrape = agent.metrics();
    assert!(of_family(&scrape, "entries", "ipv4") < before + 200);
    assert!(of_family(&scrape, "entries_peak", "ipv4") >= before + 290);
}

/// The table of one family with room for so many more entries, until it is dropped.
fn lowered(host: &HostLock, family: &str, room: u64) -> (SavedSysctls, u64) {
    let files = [3, 2, 1].map(|level| format!("net/{family}/neigh/default/gc_thresh{level}"));
    let saved = SavedSysctls::new(host, files.iter().map(String::as_str));
    let most = entries(family) + room;
    for file in files {
        fs::write(Path::new("/proc/sys").join(file), most.to_string()).unwrap();
    }
    (saved, most)
}

/// Adds neighbors that no collection can free, until so many were refused; how many were.
///
/// Over one socket: while the table is full, every packet of the machine counts too, and
/// `ip neigh add` ends a whole batch where it fails.
fn overflow(pod: &Namespace, family: &str, refusals: usize) -> u64 {
    let index = pod.run(|| nix::net::if_::if_nametoindex("v0")).unwrap();
    let add = async || {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        let mut refused = 0;
        for number in 0..2000 {
            let address = address(family, number).parse().unwrap();
            let request = handle.neighbours().add(index, address);
            let request = request.state(NeighbourState::Reachable);
            match request.link_layer_address(&[2, 0, 0, 0, 0, 1]).execute().await {
                Ok(()) => {}
                Err(rtnetlink::Error::NetlinkError(error))
                    if error.raw_code() == -(Errno::ENOBUFS as i32) =>
                {
                    refused += 1;
                }
                Err(error) => panic!("{error}"),
            }
            if refused == refusals {
                return refused as u64;
            }
        }
        panic!("the table took 2000 entries more");
    };
    pod.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(add())
    })
}

#[test]
fn an_overflow_moves_the_counter_by_exactly_the_allocations_that_failed() {
    let Some(host) = root_or_skip() else { return };
    let home = Home::new();
    home.configure(OBSERVE);
    let mut agent = home.start();
    for family in FAMILIES {
        let threshold = of_family(&agent.metrics(), "gc_thresh3", family);
        exactly(|| {
            let pod = pod(&host);
            let before = agent.metrics();
            let (_saved, most) = lowered(&host, family, 200);
            let failed = overflow(&pod, family, 50);
            let after = agent.metrics();
            let limit = [("limit", "neighbor_table"), ("object", family)];
            let value = |scrape: &Scrape, name| scrape.value(name, &limit).unwrap() as u64;
            let grown = |read: &dyn Fn(&Scrape) -> u64| read(&after) - read(&before);
            assert!(of_family(&after, "entries", family) >= most * 9 / 10);
            assert!(grown(&|scrape| of_family(scrape, "forced_gc_runs_total", family)) > 0);
            // The scan sees that there are entries which it does not see.
            agent.wait_until("full", |agent| fullness(&agent.metrics(), family) >= 0.9);
            let found = (
                of_family(&after, "gc_thresh3", family),
                value(&after, "headroom_limit_max"),
                grown(&|scrape| of_family(scrape, "table_fulls_total", family)),
                grown(&|scrape| value(scrape, "headroom_limit_hits_total")),
            );
            (found, (most, most, failed, failed))
        });
        let back = |agent: &Agent<'_>| of_family(&agent.metrics(), "gc_thresh3", family);
        assert_eq!(back(&agent), threshold, "{family}: restored");
    }
    let status = agent.status();
    assert_eq!(status["ready"], true, "a full table is the node's trouble, not the agent's");
}

#[test]
fn the_ratio_follows_at_the_next_scrape_whatever_the_last_scan_saw() {
    let Some(host) = root_or_skip() else { return };
    let home = Home::new();
    // One scan, at the start, and no other before the end.
    home.configure("mode: observe\n");
    let mut agent = home.start();
    let saw_all = |agent: &Agent<'_>| {
        let labels = [("family", "ipv4"), ("basis", "pinned")];
        agent.metrics().value("headroom_neighbor_fullness_ratio", &labels).is_some()
    };
    for _ in 0..20 {
        // Namespaces that have been deleted keep their entries for a while.
        if saw_all(&agent) {
            break;
        }
        sleep(Duration::from_millis(200));
        drop(agent);
        agent = home.start();
    }
    let pod = pod(&host);
    let (_saved, _) = lowered(&host, "ipv4", 200);
    assert_eq!(overflow(&pod, "ipv4", 1), 1);
    let ratio = fullness(&agent.metrics(), "ipv4");
    assert!(ratio >= 0.9, "{ratio}");
}

/// What the tests make in the host's namespace is called like this.
const OURS: &str = "hrt-";

/// The host's links that begin with [`OURS`], removed before and after a test.
struct Links;

impl Links {
    fn new(_: &HostLock) -> Self {
        let links = Self;
        links.remove();
        links
    }

    fn remove(&self) {
        for entry in fs::read_dir("/sys/class/net").unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap_or_default();
            if name.starts_with(OURS) {
                // A veth goes with its peer, or went with its namespace.
                let _ = try_ip(["link", "delete", &name]);
            }
        }
    }

    fn bridge(&self, name: &str) {
        ip(["link", "add", name, "type", "bridge"]);
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Lines that add veths, their peers in a pod's namespace: with it all of them go.
fn veths(numbers: std::ops::Range<usize>, pod: &Namespace) -> String {
    let line = |n| format!("link add hrt-{n} type veth peer name e{n} netns {}\n", pod.name());
    numbers.map(line).collect()
}

fn set(numbers: std::ops::Range<usize>, what: &str) -> String {
    numbers.map(|n| format!("link set hrt-{n} {what}\n")).collect()
}

/// What the agent says of a bridge: ports, limit, ratio.
fn said(agent: &Agent<'_>, bridge: &str) -> Option<(u64, u64, f64)> {
    let scrape = agent.metrics();
    let value =
        |name: &str| scrape.value(&format!("headroom_bridge_{name}"), &[("bridge", bridge)]);
    let (ports, limit) = (value("ports")? as u64, value("ports_limit")? as u64);
    let object = [("limit", "bridge_ports"), ("object", bridge)];
    assert_eq!(scrape.value("headroom_limit_used", &object), Some(ports as f64));
    assert_eq!(scrape.value("headroom_limit_max", &object), Some(limit as f64));
    Some((ports, limit, value("fullness_ratio")?))
}

fn ports(agent: &Agent<'_>, bridge: &str) -> Option<u64> {
    said(agent, bridge).map(|(ports, _, _)| ports)
}

/// The kernel's own count.
fn brif(bridge: &str) -> u64 {
    fs::read_dir(format!("/sys/class/net/{bridge}/brif")).unwrap().count() as u64
}

#[test]
fn a_bridge_that_is_full_reads_1023_of_1023_and_follows() {
    let Some(host) = root_or_skip() else { return };
    let links = Links::new(&host);
    let pod = Namespace::new(&host);
    let home = Home::new();
    home.configure(OBSERVE);
    let mut agent = home.start();
    links.bridge("hrt-br0");
    agent.wait_until("seen", |agent| said(agent, "hrt-br0") == Some((0, 1023, 0.0)));

    ip_batch(veths(0..1024, &pod) + &set(0..1023, "master hrt-br0"));
    let refused = try_ip(["link", "set", "hrt-1023", "master", "hrt-br0"]).unwrap_err();
    assert!(refused.contains("Exchange full"), "{refused}");
    assert_eq!(brif("hrt-br0"), 1023);
    agent.wait_until("full", |agent| said(agent, "hrt-br0") == Some((1023, 1023, 1.0)));
    assert_eq!(agent.log_with(&["hrt-br0", "full", "EXFULL"]).len(), 1);
    let status = home.run(["status"]);
    assert!(status.stdout.contains("1023 of 1023"), "{status:?}");

    ip_batch(set(0..23, "nomaster"));
    agent.wait_until("1000", |agent| ports(agent, "hrt-br0") == Some(1000));
    ip(["link", "set", "hrt-1023", "master", "hrt-br0"]);
    agent.wait_until("1001", |agent| ports(agent, "hrt-br0") == Some(1001));
    ip(["link", "delete", "hrt-500"]);
    agent.wait_until("1000", |agent| ports(agent, "hrt-br0") == Some(1000));
    drop(pod);
    agent.wait_until("empty", |agent| ports(agent, "hrt-br0") == Some(0));
    ip(["link", "delete", "hrt-br0"]);
    agent.wait_until("gone", |agent| said(agent, "hrt-br0").is_none());
}

#[test]
fn bridges_come_are_renamed_trade_ports_and_go() {
    let Some(host) = root_or_skip() else { return };
    let links = Links::new(&host);
    let pod = Namespace::new(&host);
    let home = Home::new();
    home.configure(OBSERVE);
    let mut agent = home.start();
    links.bridge("hrt-a");
    links.bridge("hrt-b");
    ip_batch(veths(0..8, &pod) + &set(0..8, "master hrt-a"));
    let both = |agent: &Agent<'_>| (ports(agent, "hrt-a"), ports(agent, "hrt-b"));
    agent.wait_until("seen", |agent| both(agent) == (Some(8), Some(0)));
    ip_batch(set(0..3, "master hrt-b"));
    agent.wait_until("moved", |agent| both(agent) == (Some(5), Some(3)));
    ip_batch(set(3..8, "master hrt-b") + &set(0..3, "master hrt-a"));
    agent.wait_until("swapped", |agent| both(agent) == (Some(3), Some(5)));

    ip(["link", "set", "hrt-b", "name", "hrt-c"]);
    agent.wait_until("renamed", |agent| {
        both(agent) == (Some(3), None) && ports(agent, "hrt-c") == Some(5)
    });
    // Gone and back under the same name: another bridge.
    ip_batch("link delete hrt-c\nlink add hrt-c type bridge\n");
    agent.wait_until("another", |agent| ports(agent, "hrt-c") == Some(0));
    ip(["link", "set", "hrt-a", "name", "hrt-b"]);
    agent.wait_until("renamed", |agent| both(agent) == (None, Some(3)));
    ip_batch("link delete hrt-b\nlink delete hrt-c\n");
    agent
        .wait_until("gone", |agent| both(agent) == (None, None) && ports(agent, "hrt-c").is_none());

    home.configure("mode: observe\nwatch: { bridges: [\"hrt-w*\"], bridgePortLimit: 7 }\n");
    links.bridge("hrt-watched");
    links.bridge("hrt-other");
    agent.signal(Signal::SIGHUP);
    let label = "hrt-watched";
    agent.wait_until("configured", |agent| said(agent, label) == Some((0, 7, 0.0)));
    assert_eq!(agent.metrics().family("headroom_bridge_ports").count(), 1);
}

#[test]
fn fault_16_after_a_storm_that_overran_the_buffer_the_count_is_right() {
    let Some(host) = root_or_skip() else { return };
    let links = Links::new(&host);
    let pod = Namespace::new(&host);
    let home = Home::new();
    home.configure(OBSERVE);
    links.bridge("hrt-br0");
    links.bridge("hrt-br1");
    let mut agent = home.launch(home.command(["run", "--event-buffer", "4096"]));
    agent.wait_until("ready", Agent::is_ready);
    let counter = |agent: &Agent<'_>, name: &str| {
        agent.metrics().value(&format!("headroom_netlink_{name}_total"), &[]).unwrap()
    };
    let both = |agent: &Agent<'_>| (ports(agent, "hrt-br0"), ports(agent, "hrt-br1"));
    let right = || (Some(brif("hrt-br0")), Some(brif("hrt-br1")));
    assert_eq!((counter(&agent, "overruns"), counter(&agent, "resyncs")), (0.0, 0.0));

    ip_batch(veths(0..400, &pod) + &set(0..400, "master hrt-br0"));
    agent.wait_until("right", |agent| both(agent) == (Some(400), Some(0)));

    // Nothing is read while it is stopped, so events are lost for sure.
    for round in 0..3 {
        let before = counter(&agent, "overruns");
        agent.signal(Signal::SIGSTOP);
        let (from, to) =
            if round % 2 == 0 { ("hrt-br0", "hrt-br1") } else { ("hrt-br1", "hrt-br0") };
        ip_batch(set(0..300, "nomaster") + &set(0..150, &format!("master {to}")));
        ip_batch(set(300 + round * 10..310 + round * 10, &format!("master {from}")));
        agent.signal(Signal::SIGCONT);
        agent.wait_until("overrun", |agent| counter(agent, "overruns") > before);
        agent.wait_until("right", |agent| both(agent) == right());
    }
    assert!(counter(&agent, "resyncs") > 0.0);
    // Bridges that came and went unseen.
    agent.signal(Signal::SIGSTOP);
    ip_batch(set(0..400, "nomaster") + "link delete hrt-br1\nlink add hrt-br2 type bridge\n");
    ip_batch(set(0..42, "master hrt-br2"));
    agent.signal(Signal::SIGCONT);
    agent.wait_until("right", |agent| {
        both(agent) == (Some(0), None) && ports(agent, "hrt-br2") == Some(42)
    });
    drop(pod);
    agent.wait_until("empty", |agent| ports(agent, "hrt-br2") == Some(0));

    // It stays right, and does not go on reading everything anew.
    let calm = counter(&agent, "resyncs");
    sleep(Duration::from_secs(3));
    assert_eq!(ports(&agent, "hrt-br0"), Some(brif("hrt-br0")));
    assert!(counter(&agent, "resyncs") <= calm + 1.0);
    let restarts = agent.metrics().value("headroom_task_restarts_total", &[("task", "bridges")]);
    assert_eq!(restarts, Some(0.0));
    assert!(agent.is_ready());
}
