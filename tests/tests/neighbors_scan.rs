//! The scan of neighbor entries over the host's and pods' namespaces: what is really pinned, and what
//! raises no alarm.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use headroom::config::Watch;
use headroom::config::load::{EMBEDDED, Origin, judge};
use headroom::kernel::neighbor::Family;
use headroom::kernel::system;
use headroom::kernel::tour::{Tour, Work};
use headroom::limits::neighbor::round::{Round, round};
use headroom::limits::neighbor::{Basis, Neighbor, Sampler, Scan, limits};
use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{Namespace, Pods, SavedSysctls, ip, ip_batch, root_or_skip};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::Value;

fn tour(pods: &Pods) -> Tour {
    Tour { proc_root: "/proc".into(), directories: vec![pods.netns()] }
}

fn watch() -> Watch {
    judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap().config.watch
}

fn scanned(pods: &Pods) -> Round {
    let (release, _) = system::uname();
    round(&tour(pods), &watch(), system::kernel_version(&release)).unwrap()
}

fn scans(round: &Round) -> [Scan; 2] {
    [0, 1].map(|family| *round.tables[family].as_ref().unwrap())
}

/// Looks until this holds: the machine has neighbors of its own, and entries take a moment.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) => assert!(Instant::now() < end, "{what}: {seen}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Both tables as the agent has them after a round.
fn tables(round: &Round) -> [Neighbor; 2] {
    let mut tables = <[Neighbor; 2]>::default();
    Sampler::new(Path::new("/proc")).sample(&mut tables, true).unwrap();
    for (table, scan) in tables.iter_mut().zip(scans(round)) {
        table.scan = Some(scan);
    }
    tables
}

fn set_thresholds(host: &headroom_tests::HostLock, to: [u64; 3]) -> SavedSysctls {
    let file =
        |family: Family, level| format!("net/{}/neigh/default/gc_thresh{level}", family.label());
    let all: Vec<_> = Family::ALL
        .into_iter()
        .flat_map(|family| [3, 2, 1].map(|level| (file(family, level), to[level - 1])))
        .collect();
    let saved = SavedSysctls::new(host, all.iter().map(|(file, _)| file.as_str()));
    for (file, value) in &all {
        fs::write(Path::new("/proc/sys").join(file), value.to_string()).unwrap();
    }
    saved
}

/// A second pair of a pod, with one end at the host.
fn join(pods: &Pods, pod: &str, port: &str) {
    ip(["link", "add", port, "type", "veth", "peer", "name", "eth1", "netns"]
        .into_iter()
        .chain([pods.path(pod).to_str().unwrap()]));
}

/// Neighbors that no collection can free.
fn pinned(dev: &str, first: usize, count: usize) -> String {
    (first..first + count).fold(String::new(), |mut batch, number| {
        let (high, low) = (number / 250, number % 250 + 1);
        writeln!(
            batch,
            "neigh add 198.18.{high}.{low} lladdr 02:00:00:00:00:01 dev {dev} nud reachable"
        )
        .unwrap();
        batch
    })
}

/// Devices of the host that are gone when this is dropped.
struct Device(&'static str);

impl Drop for Device {
    fn drop(&mut self) {
        let _ = headroom_tests::try_ip(["link", "delete", self.0]);
    }
}

#[test]
fn pinned_entries_of_every_namespace_are_counted_and_those_of_pods_are_told_apart() {
    let Some(host) = root_or_skip() else { return };
    let mut pods = Pods::new(&host);
    for pod in ["a", "b"] {
        pods.create(pod);
        pods.connect(pod, Ipv4Addr::new(198, 19, 0, 1));
        pods.write(pod, "net/ipv4/neigh/eth0/base_reachable_time_ms", "36000000");
    }
    let before = until("a complete round", || {
        let [ipv4, _] = scans(&scanned(&pods));
        if ipv4.complete { Ok(ipv4) } else { Err(format!("{ipv4:?}")) }
    });
    assert_eq!((before.pods, before.scanned, before.skipped), (2, 3, 0));

    // Twelve and eight in pods, five on the host's bridge, three on its end of a pod's pair, and one
    // on another device, which is nobody's.
    for device in ["hrtestbr0", "hrtestv0", "hrtestd0"] {
        let _ = headroom_tests::try_ip(["link", "delete", device]);
    }
    let _devices = [Device("hrtestbr0"), Device("hrtestv0"), Device("hrtestd0")];
    ip(["link", "add", "hrtestbr0", "type", "bridge"]);
    join(&pods, "a", "hrtestv0");
    ip(["link", "add", "hrtestd0", "type", "ifb"]);
    let mut batch = String::new();
    for (device, count) in [("hrtestbr0", 5), ("hrtestv0", 3), ("hrtestd0", 1)] {
        fs::write(format!("/proc/sys/net/ipv4/neigh/{device}/base_reachable_time_ms"), "36000000")
            .unwrap();
        batch += &pinned(device, 0, count);
    }
    ip_batch(batch);
    for (pod, count) in [("a", 12), ("b", 8)] {
        pods.run(pod, || ip_batch(pinned("eth0", 0, count)));
    }
    until("29 more pinned, 28 of pods", || {
        let [ipv4, _] = scans(&scanned(&pods));
        let more = (
            ipv4.counts.pinned.checked_sub(before.counts.pinned),
            ipv4.of_pods.unwrap().checked_sub(before.of_pods.unwrap()),
        );
        let right = ipv4.complete && more == (Some(29), Some(28));
        if right { Ok(()) } else { Err(format!("{before:?} {ipv4:?}")) }
    });

    // A pod that the agent does not know of: the entries that are missing tell.
    let mut unknown = Pods::new(&host);
    unknown.create("c");
    unknown.connect("c", Ipv4Addr::new(198, 19, 0, 1));
    unknown.run("c", || ip_batch(pinned("eth0", 0, 40)));
    let round = until("an incomplete round", || {
        let round = scanned(&pods);
        let [ipv4, _] = scans(&round);
        if ipv4.complete { Err(format!("{ipv4:?}")) } else { Ok(round) }
    });
    let tables = tables(&round);
    assert_eq!(tables[0].fullness().unwrap().basis, Basis::Entries);
    assert!(limits(&tables)[0].of_pods.is_some(), "known pods are known");
}

/// 20 000 permanent entries fill nothing, however low the threshold.
#[test]
fn exempt_entries_in_a_pod_raise_no_alarm() {
    let Some(host) = root_or_skip() else { return };
    let _saved = set_thresholds(&host, [128, 512, 1024]);
    let mut pods = Pods::new(&host);
    pods.create("static");
    pods.connect("static", Ipv4Addr::new(198, 19, 0, 1));
    let before = fulls();
    let permanent = pinned("eth0", 0, 20_000).replace("reachable", "permanent");
    pods.run("static", || ip_batch(permanent));
    let round = until("a complete round", || {
        let round = scanned(&pods);
        let [ipv4, _] = scans(&round);
        if ipv4.complete { Ok(round) } else { Err(format!("{ipv4:?}")) }
    });
    let [ipv4, _] = scans(&round);
    assert!(ipv4.counts.exempt >= 20_000, "{ipv4:?}");
    let tables = tables(&round);
    assert!(tables[0].entries().unwrap() >= 20_000);
    let fullness = tables[0].fullness().unwrap();
    assert_eq!(fullness.basis, Basis::Pinned);
    assert!(fullness.ratio < 0.1, "{fullness:?}");
    assert_eq!(fulls(), before);
}

/// IPv6 joins three multicast groups on each end of a pod's pair: entries that go when room is needed.
#[test]
fn three_hundred_idle_pods_with_ipv6_raise_no_alarm() {
    let Some(host) = root_or_skip() else { return };
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return;
    }
    let _saved = set_thresholds(&host, [128, 512, 1024]);
    let _ipv6 = SavedSysctls::new(&host, ["net/ipv6/conf/default/disable_ipv6"]);
    fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "0").unwrap();
    let before = fulls();
    let mut pods = Pods::new(&host);
    let mut batch = String::new();
    for pod in 0..300 {
        let name = pod.to_string();
        pods.create(&name);
        let path = pods.path(&name);
        writeln!(
            batch,
            "link add hrtest-i{pod} type veth peer name eth0 netns {}\nlink set hrtest-i{pod} up",
            path.display()
        )
        .unwrap();
    }
    ip_batch(batch);
    for pod in 0..300 {
        pods.run(pod.to_string(), || ip(["link", "set", "eth0", "up"]));
    }
    // The kernel needs a moment to announce itself on 600 interfaces.
    let (round, entries) = until("multicast entries, none pinned", || {
        let round = scanned(&pods);
        let [_, ipv6] = scans(&round);
        let settled = ipv6.counts.entries >= 300 && ipv6.complete && ipv6.counts.pinned < 50;
        if settled { Ok((round, ipv6.counts.entries)) } else { Err(format!("{ipv6:?}")) }
    });
    let tables = tables(&round);
    let fullness = tables[1].fullness().unwrap();
    assert!(fullness.basis == Basis::Entries || fullness.ratio < 0.1, "{fullness:?} {entries}");
    let limit = &limits(&tables)[1];
    assert!(limit.used.is_none_or(|used| used < 100), "{limit:?}");
    assert_eq!(fulls(), before, "the kernel refused nobody");
    pods.remove_all();
}

fn fulls() -> [u64; 2] {
    let mut tables = <[Neighbor; 2]>::default();
    Sampler::new(Path::new("/proc")).sample(&mut tables, false).unwrap();
    [0, 1].map(|family| tables[family].table_fulls().unwrap())
}

/// Connections over loopback to as many ports, each tracked.
fn connect(pods: &Pods, pod: &str, ports: u16) {
    pods.run(pod, || {
        let rules = "add table ip t; add chain ip t c { type filter hook output priority 0; }; \
                     add rule ip t c ct state new accept";
        ip(["link", "set", "lo", "up"]);
        let nft = std::process::Command::new("nft").arg(rules).output().unwrap();
        assert!(nft.status.success(), "{nft:?}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for port in 0..ports {
            // A refused one is lost like a packet: EPERM.
            let _ = socket.send_to(b"x", ("127.0.0.1", 7000 + port));
        }
    });
}

#[test]
fn the_fullest_pod_tells_how_full_connection_tracking_is() {
    let Some(host) = root_or_skip() else { return };
    let max = "net/netfilter/nf_conntrack_max";
    let mut pods = Pods::new(&host);
    ["a", "b", "c"].iter().for_each(|pod| pods.create(pod));
    if !Path::new("/proc/sys").join(max).exists() {
        return;
    }
    let _saved = SavedSysctls::new(&host, [max]);
    connect(&pods, "a", 30);
    connect(&pods, "b", 70);
    let found = scanned(&pods).conntrack.unwrap();
    assert_eq!((found.entries, found.drops), (70, 0));

    fs::write(Path::new("/proc/sys").join(max), "1000").unwrap();
    connect(&pods, "b", 1100);
    let limit = limits_of(&scanned(&pods));
    let used = limit.used.unwrap();
    assert!((1000..1010).contains(&used), "{limit:?}");
    assert_eq!((limit.object.as_str(), limit.max), ("fullest pod", Some(1000)));
    assert!(limit.hits.unwrap() > 0, "{limit:?}");
}

fn limits_of(round: &Round) -> headroom::limits::Limit {
    headroom::limits::pod_conntrack::limit(round.conntrack.as_ref()).unwrap()
}

#[test]
fn what_is_no_namespace_or_goes_meanwhile_holds_nobody_up() {
    let Some(host) = root_or_skip() else { return };
    let mut pods = Pods::new(&host);
    for pod in ["a", "b", "c"] {
        pods.create(pod);
    }
    // The same one again, the host's own, and what is none.
    let again = pods.path("a");
    pods.mount(&again, "again");
    pods.mount("/proc/self/ns/net", "host");
    mkfifo(&pods.path("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
    fs::write(pods.path("plain"), "").unwrap();
    fs::create_dir(pods.path("directory")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", pods.path("link")).unwrap();
    let [ipv4, ipv6] = scans(&scanned(&pods));
    assert_eq!((ipv4.pods, ipv4.scanned, ipv4.skipped), (3, 4, 1), "the plain file");
    assert_eq!((ipv6.pods, ipv6.scanned, ipv6.skipped), (3, 4, 1));

    // While one of them is visited, all go.
    let mut pods = Pods::new(&host);
    ["a", "b", "c"].iter().for_each(|pod| pods.create(pod));
    let tour = tour(&pods);
    let ((in_first, first), (go_on, wait)) = (channel(), channel());
    let (entered, toured) = std::thread::scope(|scope| {
        let work = move |entered: &mut u64| {
            *entered += 1;
            if *entered == 1 {
                in_first.send(()).unwrap();
                wait.recv().unwrap();
            }
            Work::Done
        };
        let round = scope.spawn(move || tour.run(|| 0, work).unwrap());
        first.recv().unwrap();
        pods.remove_all();
        go_on.send(()).unwrap();
        let (entered, toured, _) = round.join().unwrap();
        (entered, toured)
    });
    assert_eq!((entered, toured.entered, toured.failed, toured.absent), (1, 1, 0, 2));
    assert_eq!(toured.trouble, None);
}

/// What the agent says of its scan: namespaces that were scanned and skipped.
fn namespaces(agent: &Agent<'_>) -> Option<(f64, f64)> {
    let metrics = agent.metrics();
    let count = |state| metrics.value("headroom_neighbor_scan_namespaces", &[("state", state)]);
    count("scanned").zip(count("skipped"))
}

#[test]
fn an_agent_says_how_many_namespaces_it_scanned_and_why_not_the_others() {
    let Some(host) = root_or_skip() else { return };
    let node = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    for pod in ["a", "b"] {
        pods.create(pod);
        pods.connect(pod, Ipv4Addr::new(198, 19, 0, 1));
        pods.run(pod, || ip_batch(pinned("eth0", 0, 10)));
    }
    fs::write(pods.path("plain"), "").unwrap();
    let home = Home::inside(&node);
    home.configure(&(pods.configuration() + "watch: { neighborScan: 1s }\n"));
    let mut agent = home.start();
    agent.wait_until("through", |agent| namespaces(agent) == Some((3.0, 1.0)));
    let table = agent.status()["neighborTables"][0].clone();
    assert!(table["scan"]["ofPods"].as_u64().unwrap() >= 20, "{table}");
    assert!(table["pinned"].as_u64().unwrap() >= 20, "{table}");
    let text = home.run(["status"]).stdout;
    assert!(text.contains("* 3 network namespaces scanned "), "{text}");
    assert!(text.contains(" s ago, 1 could not be: "), "{text}");
    pods.create("c");
    agent.wait_until("aware of a new one", |agent| namespaces(agent) == Some((4.0, 1.0)));
    // No agent: a look from outside goes there too.
    agent.terminate();
    let text = home.run(["status"]).stdout;
    assert!(text.contains("* 4 network namespaces scanned 0 s ago, 1 could not be"), "{text}");

    // Without the capability the host's own entries are still known, and the rest is said.
    let without = ["setpriv", "--inh-caps=-sys_admin", "--bounding-set=-sys_admin"];
    let mut agent = home.launch(home.wrapped(&without, ["run"]));
    agent.wait_until_it_answers();
    agent.wait_until("through", |agent| namespaces(agent) == Some((1.0, 4.0)));
    let status = agent.status();
    assert_eq!(status["neighborTables"][0]["scan"]["ofPods"], Value::Null);
    let notices = status["notices"].to_string();
    assert!(notices.contains("3 of 3 network namespaces of pods cannot be scanned"), "{notices}");
    assert!(notices.contains("CAP_SYS_ADMIN is needed"), "{notices}");
}
