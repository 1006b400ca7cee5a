//! What the running agent serves and logs, whoever asks and whatever things are called.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use headroom_tests::agent_process::{Agent, Finished, Home, Response, Scrape};
use headroom_tests::{Namespace, Pods, root_or_skip};
use nix::sys::signal::Signal;
use serde_json::Value;

const CONFIG: &str = "hostNetns: current\nwatch: { sysctlSweep: 1s }\n\
    sysctls: { net.core.somaxconn: 10000, net.ipv4.tcp_rmem: { min: \"_ _ 50331648\" }, \
    net.ipv4.tcp_congestion_control: { oneOf: [reno, cubic] }, \
    net/ipv4/conf/a.b/rp_filter: { value: 2, required: false } }\n";

/// Names that the kernel takes: it refuses only `/`, `:` and white space.
const HOSTILE: [&[u8]; 6] =
    [b"br\x1b\"x", b"b\xff\xfe", b"b\\n\\\"", b"<b>&'{}=,", b"..a", b"\xe2\x80\xa8#\x01\x7f"];

fn add_hostile_bridges(netns: &Namespace) {
    for name in HOSTILE {
        let name = OsStr::from_bytes(name);
        netns.ip([OsStr::new("link"), "add".as_ref(), name, "type".as_ref(), "bridge".as_ref()]);
    }
}

/// Bridges with their ports, by label.
fn bridges(agent: &Agent<'_>) -> Vec<(String, f64)> {
    let scrape = agent.metrics();
    let ports = scrape.family("headroom_bridge_ports");
    ports.map(|(labels, ports)| (labels["bridge"].clone(), ports)).collect()
}

fn promtool(text: &str) {
    let mut command = Command::new("promtool");
    let found = command.arg("--version").output();
    assert!(found.is_ok(), "promtool is not installed: run make peers (Debian: prometheus)");
    let done = Finished::of(Command::new("promtool").args(["check", "metrics"]), text.as_bytes());
    assert_eq!((done.code, done.stdout + &done.stderr), (Some(0), String::new()), "{text}");
}

/// The design's bound: 120, 5 a key, 3 a limit's object, and a bridge's own three.
fn most_series(scrape: &Scrape) -> usize {
    let objects: BTreeSet<_> = ["used", "max", "pods_remaining", "hits_total"]
        .iter()
        .flat_map(|of| {
            let family = format!("headroom_limit_{of}");
            scrape.family(&family).map(|(labels, _)| labels.clone()).collect::<Vec<_>>()
        })
        .collect();
    let count = |family| scrape.family(family).count();
    let (keys, bridges) = (count("headroom_sysctl_in_sync"), count("headroom_bridge_ports"));
    120 + 5 * keys + 3 * objects.len() + 3 * bridges
}

#[test]
fn the_number_of_series_is_bounded_with_pods_and_netfilter() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut pods = Pods::new(&host);
    (0..3).for_each(|number| pods.create(format!("pod-{number}")));
    for rules in ["iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"] {
        for chain in ["KUBE-SERVICES", "OTHER"] {
            let done = netns.run(|| Command::new(rules).args(["-t", "nat", "-N", chain]).output());
            assert!(done.unwrap().status.success(), "{rules} -N {chain}: run make peers");
        }
    }
    let home = Home::inside(&netns);
    let policy = "pods: [{ name: all, sysctls: { net.core.somaxconn: 10000 } }]\n";
    home.configure(&(pods.configuration() + "profiles: [dense-node]\nmode: observe\n" + policy));
    let mut agent = home.start();
    let labels = [("backend", "iptables-legacy"), ("family", "ipv6"), ("owner", "other")];
    agent.wait_until("counting", |agent| {
        let scrape = agent.metrics();
        scrape.value("headroom_netfilter_rules", &labels).is_some()
            && scrape.family("headroom_pod_keys").next().is_some()
            && scrape.family("headroom_limit_age_seconds").count() > 5
    });
    let scrape = agent.metrics();
    let most = most_series(&scrape);
    assert!(scrape.len() <= most, "{} of {most} series", scrape.len());
}

#[test]
fn fault_31_promtool_finds_nothing_wrong() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    add_hostile_bridges(&netns);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let mut agent = home.start();
    agent.wait_until("seeing all", |agent| bridges(agent).len() == HOSTILE.len());
    let answer = agent.get("/metrics");
    promtool(&answer.body);
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4");
    let scrape = Scrape::parse(&answer.body).unwrap();
    let all: Vec<_> = scrape.names().map(str::to_owned).collect();
    for name in [
        "headroom_build_info",
        "headroom_bridge_ports",
        "headroom_collector_success",
        "headroom_config_info",
        "headroom_host_netns",
        "headroom_neighbor_entries",
        "headroom_neighbor_table_fulls_total",
        "headroom_sysctl_drift_total",
        "headroom_sysctl_state_info",
        "process_resident_memory_bytes",
    ] {
        assert!(scrape.names().any(|known| known == name), "{name}: {all:?}");
    }
    assert!(scrape.len() <= most_series(&scrape), "{} series", scrape.len());
    let rmem = |field| {
        scrape.value("headroom_sysctl_value", &[("key", "net.ipv4.tcp_rmem"), ("field", field)])
    };
    assert_eq!((rmem("2"), rmem("3"), rmem("")), (Some(50_331_648.0), None, None));
    let somaxconn = [("key", "net.core.somaxconn"), ("field", "")];
    assert_eq!(scrape.value("headroom_sysctl_value", &somaxconn), Some(10000.0));
    assert_eq!(scrape.value("headroom_sysctl_desired", &somaxconn), Some(10000.0));
    let text = [("key", "net.ipv4.tcp_congestion_control"), ("field", "")];
    assert_eq!(scrape.value("headroom_sysctl_value", &text), None, "no number");
    let pending = [("key", "net.ipv4.conf.a/b.rp_filter"), ("state", "pending")];
    assert_eq!(scrape.value("headroom_sysctl_state_info", &pending), Some(1.0));

    // A series disappears with its object, and comes back.
    netns.ip(["link", "delete", "..a"]);
    agent.wait_until("seen", |agent| bridges(agent).len() == HOSTILE.len() - 1);
    promtool(&agent.get("/metrics").body);
}

#[test]
fn fault_31_counters_start_anew_with_the_agent_and_only_grow() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let mut agent = home.start();
    let mut last = agent.metrics();
    for _ in 0..50 {
        let now = agent.metrics();
        for name in last.names().filter(|name| name.ends_with("_total")) {
            for (labels, before) in last.family(name) {
                let labels: Vec<_> =
                    labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let after = now.value(name, &labels);
                assert!(after.is_some_and(|after| after >= before), "{name} {labels:?}");
            }
        }
        last = now;
    }
    assert_eq!(agent.terminate(), Some(0));
    let agent = home.start();
    let written = agent.metrics().value("headroom_sysctl_writes_total", &[("result", "ok")]);
    assert_eq!(written, Some(0.0), "everything is in force already");
}

#[test]
fn only_get_and_head_and_only_what_there_is() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let agent = home.start();
    for path in ["/", "/metrics", "/livez", "/readyz", "/healthz", "/readyz/ping", "/livez/ping"] {
        let got = agent.get(path);
        assert_eq!(got.status, 200, "{path}");
        assert_eq!(got.headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(got.headers["cache-control"], "no-store", "{path}");
        let head = Response::to(agent.connect(), "HEAD", path);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.headers["content-type"], got.headers["content-type"], "{path}");
        assert!(head.headers.contains_key("content-length"), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "NONSENSE"] {
            let refused = Response::to(agent.connect(), method, path);
            assert_eq!(refused.status, 405, "{method} {path}");
            assert_eq!(refused.headers["allow"], "GET, HEAD", "{method} {path}");
        }
    }
    for path in ["/nothing", "/metrics/", "/readyz/nothing", "//metrics", "/../metrics", "/%00"] {
        assert_eq!(agent.get(path).status, 404, "{path}");
    }
    assert_eq!(agent.get("/status.json").status, 404, "over the socket alone");
    assert_eq!(agent.ask("/status.json").headers["content-type"], "application/json");
}

#[test]
fn fault_26_slow_clients_are_cut_off_and_probes_go_on() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let agent = home.start();
    // As many as there may be, and more: some silent, some in the middle of a head.
    let mut slow: Vec<_> = (0..150).map(|_| agent.connect()).collect();
    for (index, stream) in slow.iter_mut().enumerate().filter(|(index, _)| index % 2 == 0) {
        let _ = write!(stream, "GET /metrics HTTP/1.1\r\nX-{index}: ");
    }
    for which in ["live", "ready"] {
        let done = home.run(["health", which]);
        assert_eq!(done.code, Some(0), "{done:?}");
    }
    assert_eq!(agent.metrics().value("headroom_sysctl_drift_total", &[]), Some(0.0));
    // They are cut off by themselves: nothing more is sent.
    for mut stream in slow {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let reset = ended.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(ended.is_ok() || reset, "{ended:?}");
        assert!(!rest.starts_with(b"HTTP/1.1 2"), "{}", String::from_utf8_lossy(&rest));
    }
    assert_eq!(agent.get("/metrics").status, 200);
    // A client that closes its half still gets its answer.
    let mut half = agent.connect();
    half.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    half.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Response::read(half).unwrap().body, "ok");
}

#[test]
fn fault_27_without_free_descriptors_it_waits_and_recovers() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let mut agent = home.start();
    let open = agent.metrics().value("process_open_fds", &[]).unwrap();
    let limit = format!("--nofile={0}:{0}", open + 20.0);
    let pid = agent.pid().to_string();
    let done = Finished::of(Command::new("prlimit").args(["--pid", &pid, &limit]), b"");
    assert_eq!(done.code, Some(0), "{done:?}");
    let idle: Vec<_> = (0..60).map(|_| agent.connect()).collect();
    agent.wait_until("out of descriptors", |agent| !agent.log_with(&["EMFILE"]).is_empty());
    drop(idle);
    agent.wait_until("answering", |agent| agent.get("/livez").status == 200);
    assert_eq!(home.run(["health", "live"]).code, Some(0));
    let said = agent.log_with(&["EMFILE"]);
    assert!(said.len() < 10, "{} lines", said.len());
    let status = agent.status();
    assert_eq!(status["ready"], true, "{:#}", status["checks"]);
}

#[test]
fn two_hundred_scrapes_at_once_while_pods_come_and_go() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let child = Namespace::new(&host);
    netns.ip(["link", "add", "br0", "type", "bridge"]);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let agent = home.start();
    let done = AtomicBool::new(false);
    let peer = format!("type veth peer name e{{n}} netns {}", child.name());
    let rounds = thread::scope(|scope| {
        let churn = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(Ordering::Relaxed) {
                let lines: String = (0..20)
                    .map(|n| {
                        let peer = peer.replace("{n}", &n.to_string());
                        format!("link add v{n} {peer}\nlink set v{n} master br0\nlink del v{n}\n")
                    })
                    .collect();
                netns.ip_batch(lines);
                rounds += 1;
            }
            rounds
        });
        for _ in 0..3 {
            let ask = || {
                let answer = agent.get("/metrics");
                assert_eq!(answer.status, 200, "{answer:?}");
                let scrape = Scrape::parse(&answer.body);
                scrape.unwrap_or_else(|error| panic!("{error}\n{}", answer.body));
            };
            let asking: Vec<_> = (0..200).map(|_| scope.spawn(ask)).collect();
            let failed = asking.into_iter().filter_map(|one| one.join().err()).count();
            if failed > 0 {
                done.store(true, Ordering::Relaxed);
                panic!("{failed} of 200 failed");
            }
        }
        done.store(true, Ordering::Relaxed);
        churn.join().unwrap()
    });
    assert!(rounds > 0);
    assert_eq!(
        agent.metrics().value("headroom_task_restarts_total", &[("task", "bridges")]),
        Some(0.0)
    );
}

#[test]
fn fault_12_hostile_names_are_shown_safely_everywhere() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    add_hostile_bridges(&netns);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let mut agent = home.start();
    agent.wait_until("seeing all", |agent| bridges(agent).len() == HOSTILE.len());
    let mut shown: Vec<_> = bridges(&agent).into_iter().map(|(name, _)| name).collect();
    let mut expected = [
        "br\\x1b\"x",
        "b\\xff\\xfe",
        "b\\\\n\\\\\"",
        "<b>&'{}=,",
        "..a",
        "\\xe2\\x80\\xa8#\\x01\\x7f",
    ];
    shown.sort();
    expected.sort_unstable();
    assert_eq!(shown, expected);

    // Ports and renames by such names are seen like any other.
    netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    let bridge = OsStr::from_bytes(HOSTILE[1]);
    netns.ip(["link", "set", "v0", "master"].map(OsStr::new).into_iter().chain([bridge]));
    agent.wait_until("seen", |agent| bridges(agent).contains(&("b\\xff\\xfe".into(), 1.0)));
    let renamed = OsStr::from_bytes(b"b\xff\xfd");
    let words = [OsStr::new("link"), "set".as_ref(), bridge, "name".as_ref(), renamed];
    netns.ip(words);
    agent.wait_until("renamed", |agent| bridges(agent).contains(&("b\\xff\\xfd".into(), 1.0)));

    let status = home.run(["status"]);
    let clean =
        |text: &str| !text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{2028}');
    assert!(status.stdout.contains("br\\x1b\"x") && clean(&status.stdout), "{status:?}");
    drop(agent);
    let status = home.run(["status"]);
    assert!(status.stdout.contains("br\\x1b\"x") && clean(&status.stdout), "{status:?}");
}

#[test]
fn fault_13_no_name_forges_a_line_of_the_log() {
    let Some(host) = root_or_skip() else { return };
    for json in [false, true] {
        let netns = Namespace::new(&host);
        add_hostile_bridges(&netns);
        let home = Home::inside(&netns);
        let format = if json { "json" } else { "text" };
        home.configure(&format!("{CONFIG}log: {{ level: debug, format: {format} }}\n"));
        let mut agent = home.start();
        agent.wait_until("seeing all", |agent| bridges(agent).len() == HOSTILE.len());
        // What a document says reaches the log too.
        let forged = "\"net.core.\\e[31m\\n\\u2028 ERROR forged\": 1";
        home.configure(&format!("{CONFIG}\"a\\r\\nb\": 1\n\"\\x1b[2J\": {{ {forged} }}\n"));
        agent.signal(Signal::SIGHUP);
        agent.wait_until("told", |agent| agent.status()["config"]["reloadError"].is_string());
        for method in ["GET", "\x1b[31m"] {
            let mut stream = agent.connect();
            let _ = write!(stream, "{method} /\x1b[31m\n2026 ERROR forged HTTP/1.1\r\n\r\n");
            let _ = Response::read(stream);
        }
        assert_eq!(agent.terminate(), Some(0));
        let log = agent.log();
        let found = log.iter().filter(|line| line.contains("bridge found")).count();
        assert_eq!(found, HOSTILE.len(), "{log:#?}");
        for line in &log {
            assert!(!line.contains(|c: char| c.is_control() || c == '\u{2028}'), "{line:?}");
            if json {
                let record: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
                assert!(record.is_object(), "{line:?}");
                assert!(record["level"].is_string() && record["timestamp"].is_string(), "{line:?}");
            } else {
                assert!(line.starts_with("20") && line.contains('Z'), "{line:?}");
            }
        }
    }
}
