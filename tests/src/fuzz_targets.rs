//! Fuzz targets: everything that reads bytes from the kernel, the network or the cluster.
//!
//! Each takes any bytes, never panics, and asserts what must hold of the answer. cargo-fuzz runs
//! them by hand (`tests/fuzz`), `tests/fuzz_corpus.rs` replays the corpus in CI.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Shutdown};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Component, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use headroom::config::import;
use headroom::config::load::{Origin, judge};
use headroom::config::problem::{Problems, Severity};
use headroom::config::{Config, Watch};
use headroom::kernel::fanotify::{self, Malformed, Pidfd};
use headroom::kernel::listeners::{self, Listening};
use headroom::kernel::name::Name;
use headroom::kernel::neighbor::{classify, parse_stat, parse_table};
use headroom::kernel::netfilter::legacy::{self, Info};
use headroom::kernel::netfilter::{ipvs, nftables};
use headroom::kernel::notify_groups::Watches;
use headroom::kernel::sysctl_d::{Content, Files, Found};
use headroom::kernel::uevents::{self, ModuleEvent};
use headroom::kernel::{
    cgroup, conntrack_stat, counters, kubelet, links, mounts, netlink, processes,
};
use headroom::limits::pod_addresses::host_local::{self, Ipam};
use headroom::limits::{conntrack, keys, max_pods};
use headroom::node::{Check, Node};
use headroom::pods::{cni, naming};
use headroom::serve::http::{Limits, Listener, harden, serve};
use headroom::serve::metrics::Metrics;
use headroom::serve::router::{Side, router};
use headroom::serve::status::Status;
use headroom::serve::{client, health};
use headroom::sysctl::catalogue::{self, Refusal};
use headroom::sysctl::disk::Disk;
use headroom::sysctl::disk::parse::Target;
use headroom::sysctl::glob::Subject;
use headroom::sysctl::key::Key;
use headroom::sysctl::ledger::{Ledger, Notice};
use headroom::sysctl::policy::{Goal, Want};
use headroom::sysctl::value::{Shape, Value};

/// A target's body.
pub type Body = fn(&[u8]);

/// All targets, by the name of their binary and of their corpus.
pub const ALL: [(&str, Body); 26] = [
    ("bridge_pattern", bridge_pattern),
    ("catalogue_lookup", catalogue_lookup),
    ("cgroup_path", cgroup_path),
    ("cni_config", cni_config),
    ("cni_result", cni_result),
    ("config", config),
    ("fanotify_events", fanotify_events),
    ("fdinfo", fdinfo),
    ("health_query", health_query),
    ("http_client_response", http_client_response),
    ("http_request", http_request),
    ("ip_vs", ip_vs),
    ("iptables_entries", iptables_entries),
    ("kubelet_config", kubelet_config),
    ("ledger", ledger),
    ("limits", limits),
    ("neighbor_stat", neighbor_stat),
    ("netlink_datagram", netlink_datagram),
    ("nftables_message", nftables_message),
    ("policy_bounds", policy_bounds),
    ("proc_net_tcp", proc_net_tcp),
    ("status_json", status_json),
    ("sysctl_d", sysctl_d),
    ("sysctl_key", sysctl_key),
    ("sysctl_value", sysctl_value),
    ("uevent", uevent),
];

const SHAPES: [Shape; 7] = [
    Shape::Ints(1),
    Shape::Ints(2),
    Shape::Ints(3),
    Shape::AnyInts,
    Shape::Text,
    Shape::Ports,
    Shape::Mask,
];

/// A configuration: what is good makes sense, what is bad is told on one printable line each.
pub fn config(data: &[u8]) {
    let (config, problems) = match judge(Origin::Embedded, data) {
        Ok(loaded) => {
            assert_eq!(loaded.hash.len(), 16);
            let warnings: Problems = loaded.warnings.into();
            assert!(!warnings.has_errors(), "good with errors: {warnings}");
            (Some(loaded.config), warnings)
        }
        Err(error) => {
            assert!(error.problems.has_errors(), "bad without an error");
            (None, error.problems)
        }
    };
    for problem in problems.iter() {
        let line = problem.to_string();
        assert!(!line.chars().any(char::is_control), "unprintable: {line:?}");
    }
    let Some(Config { policies, pods, pod_namespaces, watch, socket, state, .. }) = config else {
        return;
    };
    for (key, policy) in pods.iter().flat_map(|policy| &policy.policies) {
        key_is_canonical(key);
        assert!(key.is_net() && !policy.required, "{key} is no pod's or holds the node back");
    }
    assert!((1..=8).contains(&pod_namespaces.directories.len()));
    assert!(pod_namespaces.directories.iter().all(|directory| directory.is_absolute()));
    for (key, policy) in &policies {
        key_is_canonical(key);
        assert!(
            matches!(catalogue::refusal(key), None | Some(Refusal::Dangerous)),
            "{key} stores nothing"
        );
        if let Some(shape) = catalogue::lookup(key).and_then(|entry| entry.shape()) {
            policy.want.compile(shape).expect("a want that was checked against its key");
        }
    }
    let seconds = Duration::from_secs(1)..=Duration::from_secs(3600);
    assert!(seconds.contains(&watch.sysctl_sweep) && seconds.contains(&watch.neighbor_scan));
    assert!((1..=65535).contains(&watch.bridge_port_limit));
    assert!(state.is_absolute() && socket.is_absolute());
    let _ = watch.covers(&Name::from_bytes("cni0"));
}

/// A key: it stays below `/proc/sys`, and both spellings name it.
pub fn sysctl_key(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match Key::parse(&text) {
        Ok(key) => key_is_canonical(&key),
        Err(error) => assert!(!error.to_string().is_empty() && error.code().starts_with("key-")),
    }
}

fn key_is_canonical(key: &Key) {
    let path = key.path();
    assert!(path.is_relative() && path.components().count() >= 2, "{path:?}");
    for component in path.components() {
        assert!(matches!(component, Component::Normal(_)), "{path:?}");
    }
    let components: Vec<String> = key.components().collect();
    assert_eq!(components.iter().collect::<PathBuf>(), path);
    assert_eq!(Key::parse(key.as_str()).as_ref(), Ok(key));
    assert_eq!(Key::parse(path.to_str().unwrap()).as_ref(), Ok(key));
    assert_eq!(key.to_string(), key.as_str());
    let json = serde_json::to_string(key).unwrap();
    assert_eq!(serde_json::from_str::<Key>(&json).unwrap(), *key);
}

/// Files of a host's sysctl.d, apart at bytes 0xff; the first byte of each says where it is. There
/// is one winner, problems are printable, and what is made of them is a good configuration.
pub fn sysctl_d(data: &[u8]) {
    let data = data.get(..64 << 10).unwrap_or(data);
    let file = |text: &[u8]| {
        let (place, text) = text.split_first().unwrap_or((&b'0', &[]));
        let directory = Some(usize::from(place % 6)).filter(|index| *index < 5);
        let name = Name::from_bytes(format!("{}.conf", place % 4));
        Found { directory, name, link: None, content: Content::Bytes(text.to_vec()) }
    };
    let files = data.split(|byte| *byte == 0xff).map(file).collect();
    let disk = Disk::of(Some(Ok(Files { files, directories: 5, ..Files::default() })));
    for problem in &disk.problems {
        assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
    for one in &disk.assignments {
        let Target::Key(key) = &one.target else { continue };
        key_is_canonical(key);
        let mentions = disk.mentions(key);
        let wins = mentions.iter().filter(|one| one.wins).count();
        assert_eq!(wins, usize::from(disk.winner(key).is_some()), "{key}");
        if mentions.len() > 100 {
            return; // the square of them is only slow
        }
    }
    let entries = import::entries(&disk, &mut |_| vec!["net".to_owned(), "somaxconn".to_owned()]);
    let document = import::render(&disk, &entries);
    assert!(document.lines().all(|line| !line.contains(char::is_control)), "{document:?}");
    let Err(error) = judge(Origin::Embedded, document.as_bytes()) else { return };
    for problem in error.problems.iter() {
        let allowed = ["too-large", "too-many-errors", "too-many-nodes"];
        let good = problem.severity == Severity::Warning || allowed.contains(&problem.code);
        assert!(good, "{problem}\n{document}");
    }
}

/// A value of every shape: what is written reads back as what was meant.
pub fn sysctl_value(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let learned = Shape::learn(&text);
    assert!(matches!(learned, Shape::Text | Shape::Ints(1..)));
    for shape in SHAPES.into_iter().chain([learned]) {
        let _ = shape.parse_bounds(&text);
        let seen = shape.read(&text);
        // What does not fit is text, trimmed of more than what separates fields.
        if shape == Shape::Text || !matches!(seen, Value::Text(_)) {
            assert_eq!(shape.read(&seen.to_string()), seen, "{shape:?}");
        }
        match shape.parse(&text) {
            Ok(value) => {
                let written = value.to_string();
                assert!(!written.contains(['\n', '\0']));
                assert_eq!(shape.parse(&written), Ok(value.clone()), "{shape:?} {written:?}");
                assert_eq!(shape.read(&written), value, "{shape:?} {written:?}");
            }
            Err(error) => assert!(!error.to_string().contains(char::is_control)),
        }
    }
}

/// A policy against a value: lines `shape`, `min`, `max`, `now`; an empty line is an absent one.
pub fn policy_bounds(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let shape = lines.next().and_then(|line| line.trim().parse().ok()).unwrap_or(0);
    let shape = *SHAPES.get::<usize>(shape).unwrap_or(&Shape::AnyInts);
    let [min, max, now] = [(); 3].map(|()| lines.next().unwrap_or_default().to_owned());
    let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    let actual = shape.read(&now);
    for want in [
        Want::Bounds { min: given(&min), max: given(&max) },
        Want::Value(min.clone()),
        Want::OneOf(given(&min).into_iter().chain(given(&max)).collect()),
    ] {
        let _ = want.to_string();
        let Ok(goal) = want.compile(shape) else { continue };
        for zero_unlimited in [false, true] {
            let Some(target) = goal.target(&actual, zero_unlimited) else {
                assert!(matches!(goal, Goal::Bounds { .. }) && actual.ints().is_none());
                continue;
            };
            assert_eq!(goal.met(&actual, zero_unlimited), target == actual);
            // Raised to 0 where 0 is "unlimited": the one case that is no fixed point.
            let opened = zero_unlimited && target.ints().is_some_and(|ints| ints.contains(&0));
            assert!(opened || goal.met(&target, zero_unlimited), "{goal:?} {actual:?} {target:?}");
            if shape.parse(&now).is_ok() {
                let written = shape.parse(&target.to_string());
                assert_eq!(written.as_ref(), Ok(&target), "what would be written is no value");
            }
            if let (Goal::Bounds { min, max }, Value::Ints(ints)) = (&goal, &target)
                && !zero_unlimited
            {
                for (bound, int) in min.iter().zip(ints) {
                    assert!(bound.is_none_or(|bound| *int >= bound));
                }
                for (bound, int) in max.iter().zip(ints) {
                    assert!(bound.is_none_or(|bound| *int <= bound));
                }
            }
        }
    }
}

/// A netlink datagram: its messages lie in it, in order, and one that is malformed is the last.
pub fn netlink_datagram(data: &[u8]) {
    let mut end = data.as_ptr_range().start;
    let mut messages = netlink::messages(data);
    while let Some(message) = messages.next() {
        let Ok(message) = message else {
            assert!(messages.next().is_none(), "goes on after a malformed message");
            break;
        };
        let payload = message.payload.as_ptr_range();
        assert!(payload.start >= end && payload.end <= data.as_ptr_range().end);
        end = payload.end;
        kernel_message(&message);
    }
    // As if the datagram were one payload: what lies beyond the framing is reached at once.
    for kind in [16, 28, 64] {
        kernel_message(&netlink::Message { kind, flags: 0, sequence: 0, payload: data });
    }
}

fn kernel_message(message: &netlink::Message<'_>) {
    if let Some(link) = links::parse_link(message) {
        assert!(link.name.as_bytes().len() <= message.payload.len());
        assert!(link.name.to_string().bytes().all(|byte| matches!(byte, b' '..=b'~')));
    }
    let (all, but_loopback) = (classify(message, false), classify(message, true));
    assert_eq!(all.is_some(), but_loopback.is_some());
    if let (Some(all), Some(but_loopback)) = (all, but_loopback) {
        for counts in [all, but_loopback] {
            assert!(counts.entries == 1 && counts.exempt + counts.pinned <= 1);
        }
        assert!(all.exempt <= but_loopback.exempt);
    }
    if let Some(table) = parse_table(message.payload) {
        assert!(table.hash_buckets >= 1);
    }
}

/// A message of nftables, its type first: what is found is part of it.
pub fn nftables_message(data: &[u8]) {
    let Some((kind, payload)) = data.split_first_chunk() else { return };
    let kind = 10 << 8 | u16::from_le_bytes(*kind) & 0xff;
    let message = netlink::Message { kind, flags: 0, sequence: 0, payload };
    let within = |part: &[u8]| {
        let (part, all) = (part.as_ptr_range(), payload.as_ptr_range());
        assert!(part.start == part.end || part.start >= all.start && part.end <= all.end);
    };
    let chain = nftables::parse_chain(&message);
    let rule = nftables::parse_rule(&message);
    let generation = nftables::parse_generation(&message);
    let found = [chain.is_some(), rule.is_some(), generation.is_some()];
    assert!(found.into_iter().filter(|found| *found).count() <= 1, "{found:?}");
    for part in [chain.map(|it| it.table), chain.map(|it| it.name), rule.map(|it| it.chain)] {
        part.into_iter().for_each(within);
    }
}

/// A table of iptables: one byte for the family, `struct ipt_getinfo`, the entries. Every entry is
/// a rule of one chain at most.
pub fn iptables_entries(data: &[u8]) {
    const INFO: usize = 84;
    let Some((&family, rest)) = data.split_first() else { return };
    let Some(info) = Info::parse(rest) else { return };
    let entries = rest.get(INFO..).unwrap_or_default();
    let (mut chains, mut rules) = (0, 0);
    let whole = legacy::chains(family & 1 == 1, &info, entries, |chain| {
        assert!(chain.name.is_none_or(|name| name.len() < 30 && !name.contains(&0)));
        chains += 1;
        rules += chain.rules;
    });
    let most = entries.len() / 112;
    assert!(chains <= most as u64 + 1 && rules <= most as u64, "{chains} {rules}");
    assert!(whole.is_some() || !entries.is_empty());
    let _ = info.most_rules();
}

/// `/proc/net/ip_vs`: a line is counted once at most.
pub fn ip_vs(data: &[u8]) {
    let lines = data.split(|&byte| byte == b'\n').count() as u64;
    let counted = ipvs::count(data).unwrap();
    let sum: u64 = counted.iter().map(|(_, it)| it.services + it.destinations).sum();
    assert!(sum <= lines, "{sum} {lines}");
}

/// What is read from a fanotify group: one event for each 24 bytes at most, and one that is
/// malformed is the last. No descriptor is opened or closed.
pub fn fanotify_events(data: &[u8]) {
    let found: Vec<_> = fanotify::events(data).collect();
    assert!(found.len() <= data.len().div_ceil(24));
    for (index, event) in found.iter().enumerate() {
        match event {
            Ok(event) => {
                assert!(event.file.is_none_or(|file| file >= 0));
                assert!(!matches!(event.pidfd, Pidfd::Open(fd) if fd < 0));
            }
            Err(Malformed) => assert_eq!(index + 1, found.len(), "goes on after it"),
        }
    }
}

/// `/proc/<pid>/fdinfo/<n>` of an inotify instance, in pieces of the size that the first byte says: as
/// many watches as lines that say so. The same bytes as a `status` and as a line of `mountinfo`.
pub fn fdinfo(data: &[u8]) {
    let Some((size, text)) = data.split_first() else { return };
    let mut watches = Watches::default();
    text.chunks(usize::from(*size).max(1)).for_each(|piece| watches.feed(piece));
    let lines = text.split(|byte| *byte == b'\n');
    let expected = lines.filter(|line| line.starts_with(b"inotify wd:")).count();
    assert_eq!(watches.count(), expected as u64);
    if let Some(uid) = processes::effective_uid_in(text) {
        assert!(String::from_utf8_lossy(text).contains(&uid.to_string()), "{uid}");
    }
    assert!(!mounts::is_of_pod(text) || text.iter().filter(|byte| **byte == b' ').count() >= 4);
}

/// Files that limits are read from: what is made of them is bounded by what is in them.
pub fn limits(data: &[u8]) {
    let data = data.get(..64 << 10).unwrap_or(data);
    let text = String::from_utf8_lossy(data);
    let lines = text.lines().count();
    let _ = (counters::threads(&text), counters::pressure_some(&text));
    let _ = (counters::tcp_sockets(&text), counters::tcp6_inuse(&text));
    let _ = counters::keyed(&text, "nr_descendants");
    let _ = (counters::memory_cgroups(&text), counters::ipv6_dst_entries(&text));
    let _ = counters::netstat(&text, "TcpExt", ["ListenOverflows", "TCPAbortOnMemory"]);
    if let Some([first, second]) = counters::words(&text, [0, 1]) {
        let mut words = text.split_ascii_whitespace();
        assert_eq!(words.next().and_then(|word| word.parse().ok()), Some(first));
        assert_eq!(words.next().and_then(|word| word.parse().ok()), Some(second));
    }
    if let Some(users) = counters::key_users(&text) {
        assert_eq!(users.len(), lines);
        let shown = keys::limits(users);
        assert!(shown.len() <= 10 && shown.iter().all(|limit| limit.object.starts_with("uid ")));
    }
    if let Some([Some(drop), Some(early), failed]) =
        counters::columns(&text, ["drop", "early_drop", "insert_failed"])
    {
        let mut hits = conntrack::Hits::default();
        let total = hits.take(drop, early, failed.unwrap_or(0));
        assert_eq!(hits.take(drop, early, failed.unwrap_or(0)), total, "nothing happened");
    }
    if conntrack_stat::parse(&text).is_some() {
        assert!(lines > 1);
    }
    if counters::softnet_dropped(&text).is_some() {
        assert!(lines > 0);
    }
    if let Some(count) = counters::ports_between(&text, 1, 65535) {
        let in_half = counters::ports_between(&text, 1, 32767).unwrap();
        let in_other = counters::ports_between(&text, 32768, 65535).unwrap();
        assert_eq!(count, in_half + in_other);
    }
}

/// `/proc/<pid>/cgroup`, and a path in it: what is found is bounded, printable and in there.
pub fn cgroup_path(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for found in cgroup::parse(data).into_iter().chain([cgroup::place(data)]) {
        assert!(found.path.len() <= 4 * 512 + 3);
        for shown in found.unit.iter().chain([&found.path]) {
            assert!(shown.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{shown:?}");
        }
        if let Some(pod) = &found.pod {
            assert_eq!(found.unit, None);
            assert!(matches!(pod.uid.len(), 32 | 36) && hex(&pod.uid.replace('-', "")));
            assert!(text.replace('_', "-").contains(&pod.uid));
            if let Some(id) = &pod.container {
                assert!((12..=64).contains(&id.len()) && hex(id) && text.contains(id));
            }
        }
    }
}

/// A CNI configuration: names are printable, leases have a place, and no more addresses are given than
/// are counted.
pub fn cni_config(data: &[u8]) {
    // Behind a NUL, flannel's subnet file.
    let mut parts = data.splitn(2, |&byte| byte == 0);
    let (data, file) = (parts.next().unwrap(), parts.next().unwrap_or_default());
    let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let network = match host_local::parse(data) {
        Ok(network) => network,
        Err(error) => return assert!(!error.to_string().contains(char::is_control), "{error}"),
    };
    assert!(!network.name.is_empty() && printable(&network.name), "{}", network.name);
    let ipam = match network.ipam {
        Ipam::Flannel(flannel) => match flannel.with(file) {
            Ok(host_local) => Ipam::HostLocal(host_local),
            Err(error) => return assert!(!error.to_string().contains(char::is_control), "{error}"),
        },
        ipam => ipam,
    };
    match ipam {
        Ipam::Flannel(_) => {}
        Ipam::Other(plugin) => assert!(!plugin.is_empty() && printable(&plugin), "{plugin}"),
        Ipam::HostLocal(host_local) => {
            let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
            assert!(host_local.leases.is_absolute() && host_local.leases.components().all(plain));
            assert!(!host_local.sets.is_empty());
            let given = |set: &host_local::Set, family: &[IpAddr]| {
                family.iter().filter(|address| set.gives(**address)).count() as u64
            };
            let last = |last: u8| {
                [IpAddr::from([10, 0, 0, last]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, last.into()])]
            };
            let known: Vec<IpAddr> = (0..=255).flat_map(last).collect();
            for set in &host_local.sets {
                assert!(given(set, &known) <= set.size());
                let other = known
                    .iter()
                    .any(|it| set.gives(*it) && it.is_ipv4() != (set.family() == "ipv4"));
                assert!(!other);
            }
        }
    }
}

/// The kubelet's configuration, and a command line: numbers are told, or what is wrong.
pub fn kubelet_config(data: &[u8]) {
    match max_pods::parse(data) {
        Err(why) => assert!(!why.contains(char::is_control), "{why}"),
        Ok(None) => {}
        Ok(Some(settings)) => {
            let most = settings.max_pods.filter(|pods| *pods > 0).unwrap_or(110);
            assert_eq!(settings.pods(0), most);
            assert!(settings.pods(1) <= most && settings.pods(1) > 0);
        }
    }
    let found = kubelet::parse(data);
    assert!(found.config.is_none_or(|path| !path.as_os_str().is_empty()));
}

/// A file of libcni's cache: what is told is of a pod, and names the namespace that it proves, and
/// no other, in printable characters.
pub fn cni_result(data: &[u8]) {
    let Ok(result) = cni::parse(data) else { return };
    assert!(result.sandboxes.iter().all(|path| path.is_absolute()));
    assert!(result.sandboxes.is_sorted());
    assert!(!result.addresses.iter().any(IpAddr::is_loopback));
    let told = [&result.namespace, &result.name, &result.uid].into_iter().flatten();
    assert!(!told.clone().any(String::is_empty));
    let named = naming::by_result(&result.sandboxes, &result.addresses, &[&result]);
    let somebody = result.uid.is_some() || result.namespace.is_some() && result.name.is_some();
    let proves = !result.sandboxes.is_empty() && !result.addresses.is_empty();
    assert_eq!(named.is_ok(), somebody && proves, "{named:?}");
    if let Ok(pod) = named {
        let texts = [pod.namespace, pod.name, pod.uid, pod.container];
        for text in texts.into_iter().flatten() {
            assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
        }
    }
    let [nowhere, elsewhere] = [vec![], vec![PathBuf::from("relative")]];
    for paths in [&nowhere, &elsewhere] {
        assert!(naming::by_result(paths, &result.addresses, &[&result]).is_err());
    }
    assert!(naming::by_result(&result.sandboxes, &[], &[&result]).is_err());
}

/// `/proc/net/stat/{arp_cache,ndisc_cache}`.
pub fn neighbor_stat(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match parse_stat("arp_cache", &text) {
        Ok(stat) => {
            let heading = text.lines().next().unwrap_or_default();
            let named = |name| heading.split_ascii_whitespace().any(|word| word == name);
            assert_eq!(stat.entries.is_some(), named("entries"));
            assert_eq!(stat.table_fulls.is_some(), named("table_fulls"));
            assert_eq!(stat.forced_gc_runs.is_some(), named("forced_gc_runs"));
        }
        Err(error) => assert!(error.line >= 1 && !error.to_string().contains(char::is_control)),
    }
}

/// `/proc/net/tcp` and `tcp6`: what is found is found again in the kernel's own spelling.
pub fn proc_net_tcp(data: &[u8]) {
    let found: Vec<Listening> = listeners::parse_table(data).collect();
    assert!(found.len() <= data.split(|&byte| byte == b'\n').count());
    for socket in found {
        let ip: String = match socket.addr.ip() {
            std::net::IpAddr::V4(ip) => words(&ip.octets()),
            std::net::IpAddr::V6(ip) => words(&ip.octets()),
        };
        let (port, inode) = (socket.addr.port(), socket.inode);
        let line = format!("   0: {ip}:{port:04X} 0:0 0A 0:0 00:0 0 0 0 {inode} 1 0 100 0 0 10 0");
        assert_eq!(listeners::parse_table(line.as_bytes()).collect::<Vec<_>>(), [socket], "{line}");
    }
}

/// Addresses are shown as native-endian words.
fn words(octets: &[u8]) -> String {
    let word = |word: &[u8]| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap()));
    octets.chunks_exact(4).map(word).collect()
}

/// `ledger.json`: whatever is there, originals are kept from now on, and nothing is destroyed.
pub fn ledger(data: &[u8]) {
    const BOOT: &str = "boot";
    let directory = scratch();
    let (file, aside) = (directory.join("ledger.json"), directory.join("ledger.unreadable"));
    let _ = std::fs::remove_file(&aside);
    std::fs::write(&file, data).unwrap();

    let (mut ledger, notice) = Ledger::open(&directory, BOOT);
    let key = Key::parse("net.core.somaxconn").unwrap();
    for (key, record) in ledger.iter() {
        key_is_canonical(&key);
        let _ = SHAPES.map(|shape| record.still_ours(shape, false, "1"));
    }
    let known = ledger.get(&key).map(|record| record.original.clone());
    ledger.intend(&key, "4096", "no value has this text");
    ledger.save().unwrap();
    let record = ledger.get(&key).unwrap();
    assert_eq!(record.original, known.unwrap_or_else(|| "4096".to_owned()), "the first one stays");
    assert_eq!(record.stored, None);

    match notice {
        Some(Notice::Future { .. }) => {
            assert_eq!(std::fs::read(&file).unwrap(), data, "not ours to write");
        }
        other => {
            match other {
                Some(Notice::Corrupt { .. }) => assert_eq!(std::fs::read(&aside).unwrap(), data),
                Some(other) => panic!("{other}"),
                None => assert!(!aside.exists()),
            }
            let (again, notice) = Ledger::open(&directory, BOOT);
            assert_eq!(notice, None);
            assert!(again.iter().eq(ledger.iter()), "what was saved is not what is read");
        }
    }
}

/// A directory in memory, this thread's own, as long as the thread lives.
fn scratch() -> PathBuf {
    thread_local! {
        static DIRECTORY: tempfile::TempDir = tempfile::Builder::new()
            .prefix("headroom-fuzz-")
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
    }
    DIRECTORY.with(|directory| directory.path().to_owned())
}

/// A key against the catalogue: both spellings get the same answer, interfaces change places.
pub fn catalogue_lookup(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(key) = Key::parse(&text) else { return };
    let slashed = Key::parse(key.path().to_str().unwrap()).unwrap();
    assert_eq!(catalogue::refusal(&key), catalogue::refusal(&slashed));
    if let Some(entry) = catalogue::lookup(&key) {
        assert!(entry.key() == key.as_str() || entry.key().contains(".*."), "{key}: {entry:?}");
        let _ = (entry.scope(), entry.shape(), entry.range(), entry.since(), entry.new_netns());
        assert!(entry.siblings().all(|sibling| sibling.contains('.')));
    }
    if let Some(interface) = catalogue::interface(key.as_str()) {
        let same = catalogue::with_interface(key.as_str(), interface);
        assert_eq!(same.as_deref(), Some(key.as_str()));
        let other = catalogue::with_interface(key.as_str(), "eth0").unwrap();
        assert_eq!(catalogue::interface(&other), Some("eth0"));
        // Only longer than a key may be, if it is none.
        let _ = Key::parse(&other).map(|key| key_is_canonical(&key));
    }
    // Compares with all of the catalogue, so only where that is quick; `config` does the rest.
    if text.len() <= 4 {
        let _ = catalogue::similar(&key);
    }
}

/// The status document, as the command line reads it from whoever has the socket.
pub fn status_json(data: &[u8]) {
    let Ok(mut status) = serde_json::from_slice::<Status>(data) else { return };
    for key in status.keys.iter().flatten() {
        let text = key.key.as_str();
        assert_eq!(Subject::parse(text).as_ref(), Ok(&key.key));
        if let Subject::Key(key) = &key.key {
            key_is_canonical(key);
        }
        let _ = key.blocks_readiness();
    }
    // serde_json reads a fraction to the last bit but one, and the last bit is nothing to people.
    for table in &mut status.neighbor_tables {
        assert!(table.fullness_ratio.take().is_none_or(f64::is_finite));
    }
    let json = serde_json::to_string(&status).unwrap();
    let again: Status = serde_json::from_str(&json).expect("what was written is read");
    assert_eq!(serde_json::to_string(&again).unwrap(), json);
}

/// A query of a health endpoint, `name=value&…` after decoding: no line can be forged, and over
/// the network no reason is told.
pub fn health_query(data: &[u8]) {
    const REASON: &str = "the-reason";
    let text = String::from_utf8_lossy(data);
    let pairs: Vec<(String, String)> = text
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let checks = [
        Check { name: "ping", result: Ok(()) },
        Check { name: "config", result: Err(REASON.to_owned()) },
    ];
    let excluded = pairs.iter().any(|(name, value)| name == "exclude" && value == "config");
    for reveal in [false, true] {
        let query = health::Query::parse(pairs.clone());
        let answer = health::answer("readyz", &checks, &query, reveal);
        assert_eq!(answer.status, if excluded { 200 } else { 500 });
        let lines = answer.body.lines();
        assert!(answer.body == "ok" || lines.clone().count() <= checks.len() + 2);
        for line in lines {
            let ours = ["[+]", "[-]", "warn: ", "readyz check "];
            assert!(line == "ok" || ours.iter().any(|start| line.starts_with(start)), "{line:?}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
        if !reveal && !text.contains(REASON) {
            assert!(!answer.body.contains(REASON));
        }
    }
    for (name, _) in &pairs {
        let one = health::answer_one(&checks, name, false);
        assert_eq!(one.is_some(), checks.iter().any(|check| check.name == name));
    }
}

/// Longest input of the targets that go through a socket: fits its buffer.
const LONGEST_SENT: usize = 64 << 10;

/// How long an exchange may take before something hangs.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer as `headroom health` and `headroom status` read it, from a server that says `data`.
pub fn http_client_response(data: &[u8]) {
    let data = data.get(..LONGEST_SENT).unwrap_or(data);
    let path = scratch().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let response = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            // An unread request would reset the connection.
            let _ = stream.read(&mut [0; 512]);
            // The client may hang up as soon as it knows enough.
            let _ = stream.write_all(data);
        });
        client::get(&path, "/status.json", PATIENCE)
    });
    std::fs::remove_file(&path).unwrap();
    match response {
        Ok(response) => {
            assert!((200..=999).contains(&response.status));
            assert!(response.body.len() <= data.len());
            status_json(&response.body);
        }
        Err(
            client::ClientError::Closed
            | client::ClientError::TooLarge
            | client::ClientError::Malformed(_),
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Requests as the agent's HTTP server reads them: never a 500 of a handler that failed, never a
/// connection that stays.
pub fn http_request(data: &[u8]) {
    static SERVER: LazyLock<SocketAddr> = LazyLock::new(server);
    let mut stream = UnixStream::connect_addr(&SERVER).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The server may refuse before it has read it all.
    let _ = stream.write_all(data.get(..LONGEST_SENT).unwrap_or(data));
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    if let Err(error) = ended {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the server hangs");
    }
    if answer.is_empty() {
        return;
    }
    assert!(answer.starts_with(b"HTTP/1."), "{}", answer.escape_ascii());
    let caught = b"\r\n\r\ninternal error\n";
    assert!(!answer.windows(caught.len()).any(|window| window == caught), "a handler panicked");
}

/// Starts the agent's server for the network, on a socket without a file.
fn server() -> SocketAddr {
    let name = format!("headroom-fuzz-{}", std::process::id());
    let addr = SocketAddr::from_abstract_name(name).unwrap();
    let listener = UnixListener::bind_addr(&addr).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let node = Node::default();
            let metrics = Metrics::new(node.clone()).unwrap();
            let limits = Limits::default();
            let app = harden(router(node, metrics.into(), Side::Network), &limits);
            let (_sender, shutdown) = tokio::sync::watch::channel(false);
            serve(Listener::Unix(listener), app, limits, shutdown).await;
        });
    });
    addr
}

/// `watch.bridges`, lines `pattern` and `name`: agrees with a matcher that is slow and obvious.
pub fn bridge_pattern(data: &[u8]) {
    let data = data.get(..512).unwrap_or(data);
    let mut parts = data.splitn(2, |&byte| byte == b'\n');
    let pattern = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let name = parts.next().unwrap_or_default();
    let (letters, shown) = (pattern.chars().collect::<Vec<_>>(), String::from_utf8_lossy(name));
    let expected = matches(&letters, &shown.chars().collect::<Vec<_>>());
    let watch = Watch {
        bridges: vec![pattern],
        bridge_port_limit: 1023,
        sysctl_sweep: Duration::from_secs(10),
        neighbor_scan: Duration::from_secs(60),
    };
    assert_eq!(watch.covers(&Name::from_bytes(name)), expected, "{:?} {shown:?}", watch.bridges);
}

/// Which beginnings of `name` the pattern so far matches, letter by letter.
fn matches(pattern: &[char], name: &[char]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for letter in pattern {
        let before = reached.clone();
        for end in 0..=name.len() {
            reached[end] = match letter {
                '*' => before[end] || (end > 0 && reached[end - 1]),
                letter => {
                    end > 0
                        && before[end - 1]
                        && matches!(letter, l if *l == '?' || *l == name[end - 1])
                }
            };
        }
    }
    reached[name.len()]
}

/// A kernel event: a module's name is part of what came.
pub fn uevent(data: &[u8]) {
    let (name, action) = match uevents::parse(data) {
        None => return,
        Some(ModuleEvent::Appeared(name)) => (name, "add"),
        Some(ModuleEvent::Gone(name)) => (name, "remove"),
        Some(ModuleEvent::Overrun) => panic!("no message says so"),
    };
    let bytes = name.as_bytes();
    assert!((1..=64).contains(&bytes.len()), "{name}");
    assert!(!bytes.iter().any(|byte| matches!(byte, b'/' | 0)), "{name}");
    let begin = [format!("{action}@/module/").as_bytes(), bytes, b"\0"].concat();
    assert!(data.starts_with(&begin), "{name}");
}
