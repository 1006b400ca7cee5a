//! Facts 3.1, 3.2 and 1.1: what a new network namespace has.

use std::path::Path;

use headroom::kernel::errno::Access::Open;
use headroom_tests::{SavedSysctls, root_or_skip};
use nix::errno::Errno;

use super::support::{
    exists, fresh, has_conntrack, has_ipv6, kernel, mode, number, on_host, read, set, text, write,
};

/// A dead key that is copied, a dead key that is reset, and a key of IPv6 that only counts when
/// somebody adds addresses: changing them for a moment on the host changes nothing there, but that
/// the kernel remembers that the first was written, until the next boot.
const COPIED: &str = "net/ipv4/conf/default/tag";
const RESET: &str = "net/ipv4/tcp_fack";
const IPV6: &str = "net/ipv6/conf/default/max_desync_factor";

/// Facts 3.1: `conf.all` and `conf.default` of IPv4 are copied from the host's namespace, once, when
/// the namespace is made. Other keys are the kernel's defaults, whatever the host's are.
#[test]
fn ipv4_conf_is_copied_once_and_the_rest_is_reset() {
    let Some(host) = root_or_skip() else { return };
    let inherit = "net/core/devconf_inherit_init_net";
    let _saved = SavedSysctls::new(&host, [inherit, COPIED, RESET]);
    set(inherit, 0);
    let (tag, default) = (number(COPIED), fresh(|| number(RESET)));
    set(COPIED, tag + 41);
    set(RESET, 1 - default);
    fresh(|| {
        assert_eq!((number(COPIED), number(RESET)), (tag + 41, default));
        // From the host's, not from the namespace of who makes it.
        set(COPIED, tag + 42);
        set(RESET, 1 - default);
        assert_eq!(fresh(|| (number(COPIED), number(RESET))), (tag + 41, default));
        // The host changes: who is there already keeps what it has.
        on_host(|| set(COPIED, tag + 43));
        assert_eq!(number(COPIED), tag + 42);
        assert_eq!(fresh(|| number(COPIED)), tag + 43);
    });
}

/// Facts 3.1: `devconf_inherit_init_net`: 0 copies the host's IPv4 conf, 1 that of both families,
/// 2 none, 3 copies both from the namespace of who makes it.
#[test]
fn devconf_inherit_init_net_decides_what_is_copied() {
    let Some(host) = root_or_skip() else { return };
    let switch = "net/core/devconf_inherit_init_net";
    let ipv6 = has_ipv6();
    let _saved = SavedSysctls::new(&host, [switch, COPIED]);
    let _saved_ipv6 = ipv6.then(|| SavedSysctls::new(&host, [IPV6]));
    set(COPIED, 41);
    if ipv6 {
        set(IPV6, 641);
    }
    let look = || (number(COPIED), if ipv6 { number(IPV6) } else { 0 });
    let both = |ipv4, value| (ipv4, if ipv6 { value } else { 0 });
    for (inherit, expected) in
        [(0, both(41, 600)), (1, both(41, 641)), (2, both(0, 600)), (3, both(42, 642))]
    {
        set(switch, 0);
        let seen = fresh(|| {
            set(COPIED, 42);
            if ipv6 {
                set(IPV6, 642);
            }
            on_host(|| set(switch, inherit));
            fresh(look)
        });
        assert_eq!(seen, expected, "{switch} = {inherit}");
    }
}

/// Facts 3.1: two keys are computed from the size of the namespace's own table of connections.
#[test]
fn connection_limits_are_computed_from_the_tables_size() {
    let Some(_host) = root_or_skip() else { return };
    let key = |name: &str| format!("net/ipv4/{name}");
    let look = || {
        // Negative: the namespace uses the first one's table.
        let size =
            exists(&key("tcp_ehash_entries")).then(|| number(&key("tcp_ehash_entries")).abs());
        (size, number(&key("tcp_max_syn_backlog")), number(&key("tcp_max_tw_buckets")))
    };
    let outside = look();
    let inside = fresh(look);
    let Some(size) = inside.0 else {
        assert!(kernel() < (6, 1), "the table's size is shown since then");
        assert_eq!(inside.1, (inside.2 / 64).max(128));
        return eprintln!("not shown by this kernel: how large the table is");
    };
    assert_eq!(outside.0, Some(size), "one table");
    assert_eq!((inside.1, inside.2), ((size / 128).max(128), size / 2));
    // A namespace with a table of its own.
    let own = fresh(|| {
        set(key("tcp_child_ehash_entries").as_str(), 1000);
        fresh(look)
    });
    assert_eq!(own, (Some(1024), 128, 512), "rounded up to a power of two");
}

/// Facts 3.1, 3.2: the largest socket buffers are the host's; a namespace shows them read-only
/// since 6.11, and had no such file before.
#[test]
fn largest_socket_buffers_are_the_hosts() {
    let Some(_host) = root_or_skip() else { return };
    for name in ["rmem_max", "wmem_max", "rmem_default", "wmem_default"] {
        let path = format!("net/core/{name}");
        let outside = read(&path);
        fresh(|| match kernel() >= (6, 11) {
            true => {
                assert_eq!((read(&path), mode(&path)), (outside, 0o444), "{path}");
                assert_eq!(write(&path, "300000"), Err((Open, Errno::EACCES)), "{path}");
            }
            false => assert_eq!(text(&path), Err((Open, Errno::ENOENT)), "{path}"),
        });
    }
}

/// Facts 3.2: `optmem_max` is the namespace's since 6.8, with a larger default.
#[test]
fn optmem_max_is_the_namespaces_since_6_8() {
    let Some(_host) = root_or_skip() else { return };
    let path = "net/core/optmem_max";
    let outside = number(path);
    fresh(|| match kernel() >= (6, 8) {
        true => {
            assert_eq!(number(path), 131_072);
            set(path, 100_000);
        }
        false => assert_eq!(text(path), Err((Open, Errno::ENOENT))),
    });
    assert_eq!(number(path), outside);
}

/// Facts 3.1: connection tracking counts for each namespace, by limits that are the host's, which
/// it shows read-only.
#[test]
fn limits_of_connection_tracking_are_the_hosts_and_counts_are_not() {
    let Some(_host) = root_or_skip() else { return };
    if !has_conntrack() {
        return;
    }
    let key = |name: &str| format!("net/netfilter/nf_conntrack_{name}");
    for name in ["max", "buckets", "expect_max"] {
        let outside = read(&key(name));
        fresh(|| {
            assert_eq!(read(&key(name)), outside, "{name}");
            assert_eq!(write(&key(name), "1000"), Err((Open, Errno::EACCES)), "{name}");
        });
    }
    fresh(|| {
        assert_eq!(number(&key("count")), 0);
        assert!(!exists("net/nf_conntrack_max"), "the old name is the host's alone");
        let timeout = key("generic_timeout");
        assert_eq!(number(&timeout), 600);
        set(&timeout, 601);
    });
}

/// Facts 3.1: what is the kernel's alone has no file in a namespace.
#[test]
fn what_is_the_kernels_has_no_file() {
    let Some(_host) = root_or_skip() else { return };
    let mut keys = vec![
        "net/core/netdev_max_backlog",
        "net/core/netdev_budget",
        "net/core/netdev_budget_usecs",
        "net/core/devconf_inherit_init_net",
        "net/ipv4/tcp_mem",
        "net/ipv4/udp_mem",
        "net/ipv4/tcp_max_orphans",
        "net/ipv4/inet_peer_threshold",
        "net/ipv4/route/max_size",
        "net/ipv4/route/gc_thresh",
        "net/ipv4/route/error_cost",
    ];
    // These two hang on options of the kernel's.
    keys.extend(["net/core/default_qdisc", "net/core/bpf_jit_enable"].iter().filter(|k| exists(k)));
    for key in keys {
        assert!(exists(key), "{key}");
        assert!(!fresh(|| exists(key)), "{key}");
    }
}

/// Facts 1.1: thresholds of the neighbor tables, and the tables' counters, are the first
/// namespace's; others have directories of their devices alone.
#[test]
fn neighbor_thresholds_and_counters_are_the_first_namespaces() {
    let Some(_host) = root_or_skip() else { return };
    let mut families = vec![("ipv4", "arp_cache")];
    if has_ipv6() {
        families.push(("ipv6", "ndisc_cache"));
    }
    for (family, counters) in families {
        let threshold = format!("net/{family}/neigh/default/gc_thresh3");
        let counters = Path::new("/proc/thread-self/net/stat").join(counters);
        assert!(exists(&threshold) && counters.exists());
        fresh(|| {
            assert!(!exists(&threshold) && !counters.exists());
            assert!(!exists(&format!("net/{family}/neigh/default")));
            assert!(exists(&format!("net/{family}/neigh/lo/retrans_time_ms")));
        });
    }
}

/// Facts 3.2: keys that were the kernel's once, or came later.
#[test]
fn keys_came_and_moved_with_versions() {
    let Some(_host) = root_or_skip() else { return };
    // First version measured that has it in a namespace; the last one measured without.
    for (key, with, without) in [
        ("net/ipv4/icmp_msgs_per_sec", (6, 1), (5, 10)),
        ("net/ipv4/icmp_msgs_burst", (6, 1), (5, 10)),
        ("net/ipv4/route/min_pmtu", (6, 1), (5, 10)),
        ("net/ipv4/route/mtu_expires", (6, 1), (5, 10)),
        ("net/ipv4/route/min_adv_mss", (6, 1), (5, 10)),
        ("net/ipv4/tcp_plb_enabled", (6, 12), (6, 1)),
        ("net/ipv4/tcp_pingpong_thresh", (6, 12), (6, 1)),
        ("net/ipv4/fib_multipath_hash_seed", (6, 12), (6, 1)),
        ("net/ipv4/tcp_rto_max_ms", (6, 18), (6, 12)),
        ("net/ipv4/tcp_tw_reuse_delay", (6, 18), (6, 12)),
        ("net/ipv4/tcp_ecn_option", (6, 18), (6, 12)),
        ("net/ipv4/ip_local_port_step_width", (7, 2), (6, 18)),
        ("net/ipv4/tcp_rcvbuf_low_rtt", (7, 2), (6, 18)),
    ] {
        let there = fresh(|| exists(key));
        match kernel() {
            version if version >= with => assert!(there, "{key}"),
            version if version <= without => assert!(!there, "{key}"),
            between => eprintln!("not measured on {between:?}: {key} is there: {there}"),
        }
    }
}

/// Facts 3.2: defaults that changed with versions, in a namespace that nobody tuned.
#[test]
fn defaults_changed_with_versions() {
    let Some(_host) = root_or_skip() else { return };
    let limit = fresh(|| number("net/ipv4/tcp_limit_output_bytes"));
    match kernel() {
        version if version >= (6, 18) => assert_eq!(limit, 4 << 20),
        version if version <= (6, 12) => assert_eq!(limit, 1 << 20),
        between => eprintln!("not measured on {between:?}: tcp_limit_output_bytes is {limit}"),
    }
    if exists("net/ipv4/icmp_msgs_per_sec") && kernel() >= (6, 1) {
        let rate = fresh(|| number("net/ipv4/icmp_msgs_per_sec"));
        match kernel() {
            version if version >= (7, 2) => assert_eq!(rate, 10_000),
            version if version <= (6, 18) => assert_eq!(rate, 1000),
            between => eprintln!("not measured on {between:?}: icmp_msgs_per_sec is {rate}"),
        }
    }
    if has_ipv6() {
        let most = fresh(|| number("net/ipv6/route/max_size"));
        assert!(most == i64::from(i32::MAX) || (kernel() < (6, 3) && most == 4096), "{most}");
    }
}
