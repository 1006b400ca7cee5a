//! Limits of the network: the CPUs' queues, connection tracking, TCP.

use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::process::Command;

use headroom::limits::conntrack::Conntrack;
use headroom::limits::cpu_backlog::{Softnet, copies};
use headroom::limits::ephemeral_ports::EphemeralPorts;
use headroom::limits::tcp::Tcp;
use headroom_tests::{HostLock, Namespace, SavedSysctls, root_or_skip};

use super::{limit, number, remaining, roots, roots_of_thread, set};

/// A bridge with so many ports, whose peers are in a second namespace. Nobody there speaks on his
/// own: there is no IPv6.
fn bridge(host: &HostLock, ports: u64) -> (Namespace, Namespace) {
    let (node, pods) = (Namespace::new(host), Namespace::new(host));
    for netns in [&node, &pods] {
        netns.write("net/ipv6/conf/all/disable_ipv6", "1");
        netns.write("net/ipv6/conf/default/disable_ipv6", "1");
    }
    node.ip(["link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
    node.ip(["address", "add", "10.99.0.1/16", "dev", "br0"]);
    let port =
        |n| format!("link add v{n} master br0 type veth peer name p{n} netns {}\n", pods.name());
    node.ip_batch((0..ports).map(port).collect::<String>());
    pods.ip_batch((0..ports).map(|n| format!("link set p{n} up\n")).collect::<String>());
    let up = (0..ports).map(|n| format!("link set v{n} up\n")).collect::<String>();
    node.ip_batch(format!("{up}link set br0 up\n"));
    (node, pods)
}

/// How many of the peers have not received a frame that was dropped on the way.
fn dropped(pods: &Namespace) -> u64 {
    let shown = pods.ip(["-json", "-statistics", "link", "show"]);
    let links: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let one = |link: &serde_json::Value| link["stats64"]["rx"]["dropped"].as_u64().unwrap();
    links.as_array().unwrap().iter().map(one).sum()
}

/// One frame to every port, from the node itself.
fn broadcast(node: &Namespace) {
    node.run(|| {
        let socket = UdpSocket::bind("10.99.0.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(b"x", "10.99.255.255:9").unwrap();
    });
}

/// The queue takes one frame more than its maximum says, and every port above that loses.
#[test]
fn a_broadcast_fits_while_the_ports_are_one_more_than_the_backlog() {
    const PORTS: u64 = 120;
    let Some(host) = root_or_skip() else { return };
    let (node, pods) = bridge(&host, PORTS);
    let _saved = SavedSysctls::new(&host, ["net/core/netdev_max_backlog"]);
    let mut reader = Softnet::new(&roots());
    for (backlog, lost) in [(PORTS, 0), (PORTS - 1, 0), (PORTS - 2, 1), (PORTS - 20, 19)] {
        set("net/core/netdev_max_backlog", backlog);
        let queue = limit(&mut reader, "softnet_backlog", "");
        assert_eq!(queue.max, Some(backlog));
        assert_eq!(PORTS.saturating_sub(copies(backlog)), lost, "what is said");
        let before = dropped(&pods);
        broadcast(&node);
        assert_eq!(dropped(&pods) - before, lost, "ports {PORTS}, backlog {backlog}");
        let after = limit(&mut reader, "softnet_backlog", "");
        assert!(after.hits.unwrap() - queue.hits.unwrap() >= lost);
    }
}

/// A maximum that the host's own table is far from: it is everybody's.
#[test]
fn connections_remain_as_many_as_it_says_and_each_beyond_is_a_hit() {
    const MAX: u64 = 3000;
    const BEYOND: u64 = 25;
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "set", "lo", "up"]);
    // Nothing is tracked before a rule asks for it.
    let rules =
        "table ip t { chain c { type filter hook output priority 0; ct state new accept; }; }";
    let nft = ["netns", "exec", netns.name(), "nft", rules];
    assert!(Command::new("ip").args(nft).status().unwrap().success());
    assert!(number("net/netfilter/nf_conntrack_count") < MAX / 2, "the host tracks connections");
    let _saved = SavedSysctls::new(&host, ["net/netfilter/nf_conntrack_max"]);
    set("net/netfilter/nf_conntrack_max", MAX);
    let directory = host.directory();
    netns.run(|| {
        let mut reader = Conntrack::new(&roots_of_thread(directory.path()));
        let mut send = |port: u64| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = 1024 + u16::try_from(port).unwrap();
            // EPERM where it is refused.
            let _ = socket.send_to(b"x", ("127.0.0.1", port));
        };
        send(0);
        let before = limit(&mut reader, "conntrack", "host");
        assert_eq!((before.used, before.max, before.hits), (Some(1), Some(MAX), Some(0)));
        (1..=remaining(&before)).for_each(&mut send);
        let full = limit(&mut reader, "conntrack", "host");
        assert_eq!((full.used, full.hits), (Some(MAX), Some(0)), "the last one fits");
        (0..BEYOND).for_each(|more| send(MAX + more));
        let hit = limit(&mut reader, "conntrack", "host");
        assert!(hit.hits.unwrap() >= BEYOND, "{hit:?}");
    });
}

#[test]
fn local_ports_are_counted_less_the_reserved_ones() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "set", "lo", "up"]);
    netns.write("net/ipv4/ip_local_port_range", "40000 40999");
    netns.write("net/ipv4/ip_local_reserved_ports", "80,40000-40009,40999");
    let directory = host.directory();
    netns.run(|| {
        let mut reader = EphemeralPorts::new(&roots_of_thread(directory.path()));
        let listener = |n| TcpListener::bind(if n < 12 { "127.0.0.1:0" } else { "[::1]:0" });
        let listeners: Vec<_> = (0..20).map(|n| listener(n).unwrap()).collect();
        let limit = limit(&mut reader, "ephemeral_ports", "host");
        assert_eq!((limit.used, limit.max), (Some(listeners.len() as u64), Some(1000 - 11)));
    });
}

#[test]
fn listeners_that_are_too_slow_are_hits_and_tcp_has_its_maxima() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "set", "lo", "up"]);
    let directory = host.directory();
    netns.run(|| {
        let mut reader = Tcp::new(&roots_of_thread(directory.path()));
        // What only the initial namespace has is left out, and hides nothing else.
        let hits = |reader: &mut Tcp| limit(reader, "listen_queue", "host").hits.unwrap();
        assert_eq!(hits(&mut reader), 0);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        shorten(&listener);
        let address = listener.local_addr().unwrap();
        let patience = std::time::Duration::from_millis(20);
        let mut waiting = Vec::new();
        while hits(&mut reader) == 0 {
            assert!(waiting.len() < 100, "nothing overflows");
            waiting.push(TcpStream::connect_timeout(&address, patience));
        }
    });
    let mut reader = Tcp::new(&roots());
    let memory = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap();
    let most = memory.split_ascii_whitespace().nth(2).unwrap().parse().ok();
    assert_eq!(limit(&mut reader, "tcp_memory", "").max, most);
    let orphans = limit(&mut reader, "tcp_orphans", "");
    assert_eq!(orphans.max, Some(number("net/ipv4/tcp_max_orphans")));
    assert!(orphans.hits.is_some());
}

/// A queue for one connection.
#[allow(unsafe_code)]
fn shorten(listener: &TcpListener) {
    // SAFETY: no pointers; listen(2) may be called again for another length.
    let result = unsafe { nix::libc::listen(listener.as_raw_fd(), 0) };
    assert_eq!(result, 0);
}
