//! Facts 3.3, 1.1, 4.1 and 8: keys that change, bound or mean each other.

use headroom_tests::{HostLock, SavedSysctls, root_or_skip};
use nix::errno::Errno;

use super::support::{
    CAP_SYS_RESOURCE, add_link, fresh, has_conntrack, has_ipv6, is_capable, kernel, number, read,
    refusal, set, write,
};

/// Facts 3.3: of each pair one rules and the other reads 0; that 0 cannot be written back in bytes.
#[test]
fn dirty_bytes_and_dirty_ratio_displace_each_other() {
    let Some(host) = root_or_skip() else { return };
    for (bytes, ratio) in [
        ("vm/dirty_bytes", "vm/dirty_ratio"),
        ("vm/dirty_background_bytes", "vm/dirty_background_ratio"),
    ] {
        let _saved = SavedSysctls::new(&host, [bytes, ratio]);
        set(ratio, 15);
        assert_eq!((number(bytes), number(ratio)), (0, 15));
        assert_eq!(refusal(bytes, "0"), Errno::EINVAL, "its own default");
        assert_eq!((number(bytes), number(ratio)), (0, 15));
        set(bytes, 1 << 29);
        assert_eq!((number(bytes), number(ratio)), (1 << 29, 0));
        set(ratio, 15);
        assert_eq!((number(bytes), number(ratio)), (0, 15), "the way back");
    }
}

/// Facts 3.3: local ports must begin above the unprivileged ones, checked from both sides: which
/// of two good values is written first decides whether the other is taken.
#[test]
fn local_ports_begin_above_the_unprivileged_ones() {
    let Some(_host) = root_or_skip() else { return };
    let (range, start) = ("net/ipv4/ip_local_port_range", "net/ipv4/ip_unprivileged_port_start");
    fresh(|| {
        assert_eq!((read(range).as_str(), number(start)), ("32768 60999", 1024));
        assert_eq!(refusal(range, "1000 60999"), Errno::EINVAL, "low below the unprivileged");
        assert_eq!(refusal(range, "50000 40000"), Errno::EINVAL, "low above high");
        assert_eq!(read(range), "32768 60999", "this vector is taken whole or not at all");
        assert_eq!(refusal(start, "40000"), Errno::EINVAL, "above the local ones");
        assert_eq!(number(start), 1024);
        // Both values are good; this order works.
        set(range, "45000 60999");
        set(start, 40000);
        // And back: the other order.
        assert_eq!(refusal(range, "32768 60999"), Errno::EINVAL);
        set(start, 1024);
        set(range, "32768 60999");
        set(range, "1024 1024");
        assert_eq!(read(range), "1024 1024", "equal is enough");
    });
}

/// Facts 3.3: real-time run time fits into its period, checked from both sides.
#[test]
fn real_time_run_time_fits_into_its_period() {
    let Some(host) = root_or_skip() else { return };
    let (period, runtime) = ("kernel/sched_rt_period_us", "kernel/sched_rt_runtime_us");
    let _saved = SavedSysctls::new(&host, [period, runtime]);
    let (before, running) = (number(period), number(runtime));
    assert_eq!(refusal(runtime, &(before + 1).to_string()), Errno::EINVAL);
    assert_eq!((number(period), number(runtime)), (before, running), "taken back");
    if running > 1 {
        assert_eq!(refusal(period, &(running - 1).to_string()), Errno::EINVAL);
        assert_eq!((number(period), number(runtime)), (before, running), "taken back");
    }
    set(runtime, running);
}

/// Facts 3.3: `ip_forward` is `conf.all.forwarding`; a change rewrites `forwarding` of `default`
/// and of every interface, also where it was set by hand, and `conf.all.accept_redirects`
/// (`inet_forward_change`). The interfaces keep their own `accept_redirects`.
#[test]
fn ip_forward_rewrites_the_switches_of_all_interfaces() {
    let Some(_host) = root_or_skip() else { return };
    let key = |at: &str, leaf: &str| format!("net/ipv4/conf/{at}/{leaf}");
    fresh(|| {
        let mut links = vec!["lo"];
        if add_link("b0") {
            links.push("b0");
        }
        set("net/ipv4/ip_forward", 0);
        let own: Vec<i64> = links.iter().map(|at| number(&key(at, "accept_redirects"))).collect();
        let default = number(&key("default", "accept_redirects"));
        for (path, on) in [
            ("net/ipv4/ip_forward", 1),
            ("net/ipv4/ip_forward", 0),
            ("net/ipv4/conf/all/forwarding", 1),
            ("net/ipv4/conf/all/forwarding", 0),
        ] {
            set(&key("lo", "forwarding"), 1 - on);
            set(&key("all", "accept_redirects"), on);
            set(path, on);
            assert_eq!(number("net/ipv4/ip_forward"), on);
            for at in links.iter().chain(&["all", "default"]) {
                assert_eq!(number(&key(at, "forwarding")), on, "{at} after {path} = {on}");
            }
            assert_eq!(number(&key("all", "accept_redirects")), 1 - on, "{path} = {on}");
            let now: Vec<i64> =
                links.iter().map(|at| number(&key(at, "accept_redirects"))).collect();
            assert_eq!((&now, number(&key("default", "accept_redirects"))), (&own, default));
        }
        // The value that is there already changes nothing.
        set(&key("lo", "forwarding"), 1);
        set(&key("all", "accept_redirects"), 0);
        set("net/ipv4/ip_forward", 0);
        assert_eq!(number(&key("lo", "forwarding")), 1);
        assert_eq!(number(&key("all", "accept_redirects")), 0);
    });
}

/// Facts 3.3, for IPv6: `conf.all.forwarding` rewrites `default` and every interface as well.
#[test]
fn ipv6_forwarding_rewrites_all_interfaces() {
    let Some(_host) = root_or_skip() else { return };
    if !has_ipv6() {
        return;
    }
    let forwarding = |at: &str| format!("net/ipv6/conf/{at}/forwarding");
    fresh(|| {
        let link = add_link("b0");
        for on in [1, 0] {
            set(&forwarding("all"), on);
            for at in ["default", "lo", "b0"] {
                if link || at != "b0" {
                    assert_eq!(number(&forwarding(at)), on, "{at}");
                }
            }
        }
        // Unlike IPv4, also when the value was there already (addrconf_fixup_forwarding).
        set(&forwarding("lo"), 1);
        set(&forwarding("default"), 1);
        set(&forwarding("all"), 0);
        assert_eq!([number(&forwarding("lo")), number(&forwarding("default"))], [0, 0]);
    });
}

/// Facts 1.1: thresholds take what a positive `int` holds, and nobody compares them.
#[test]
fn neighbor_thresholds_are_not_compared() {
    let Some(host) = root_or_skip() else { return };
    neighbor_thresholds(&host, "net/ipv4/neigh/default");
    if has_ipv6() {
        neighbor_thresholds(&host, "net/ipv6/neigh/default");
    }
}

fn neighbor_thresholds(host: &HostLock, directory: &str) {
    let [first, second, third] = [1, 2, 3].map(|n| format!("{directory}/gc_thresh{n}"));
    let _saved = SavedSysctls::new(host, [first.as_str(), &second, &third]);
    let hard = number(&third);
    // Above the hard limit. No lower hard limit: that would reach the machine's own entries.
    set(&first, hard + 2);
    set(&second, hard + 1);
    assert_eq!((number(&first), number(&second), number(&third)), (hard + 2, hard + 1, hard));
    set(&first, i32::MAX);
    for value in ["-1", "2147483648"] {
        assert_eq!(refusal(&first, value), Errno::EINVAL, "{value}");
    }
    assert_eq!(number(&first), i64::from(i32::MAX));
    set(&first, 0);
}

/// Facts 3.3: one time in two units is one value; so are a queue's bytes and packets.
#[test]
fn neighbor_times_in_two_units_are_one_value() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        let mut families = vec!["ipv4"];
        if has_ipv6() {
            families.push("ipv6");
        }
        for family in families {
            let key = |leaf: &str| format!("net/{family}/neigh/lo/{leaf}");
            set(&key("base_reachable_time"), 40);
            assert_eq!(number(&key("base_reachable_time_ms")), 40_000);
            set(&key("base_reachable_time_ms"), 50_000);
            assert_eq!(number(&key("base_reachable_time")), 50);
            let before = number(&key("retrans_time"));
            set(&key("retrans_time_ms"), 2000);
            assert_eq!(number(&key("retrans_time")), 2 * before, "ticks, or 1/100 s");
            set(&key("unres_qlen_bytes"), 0);
            assert_eq!(number(&key("unres_qlen")), 0);
            set(&key("unres_qlen"), 3);
            assert!(number(&key("unres_qlen_bytes")) > 3 * 1500, "packets, in bytes");
        }
    });
}

/// Facts 3.1, 4: one value under two names.
#[test]
fn conntrack_max_has_two_names() {
    let Some(host) = root_or_skip() else { return };
    if !has_conntrack() {
        return;
    }
    let (old, new) = ("net/nf_conntrack_max", "net/netfilter/nf_conntrack_max");
    let _saved = SavedSysctls::new(&host, [old, new]);
    let before = number(new);
    assert_eq!(number(old), before);
    set(new, before + 1);
    assert_eq!(number(old), before + 1);
    set(old, before + 2);
    assert_eq!(number(new), before + 2);
}

/// Facts 3.2: 0 for `nf_conntrack_max` is "no limit" up to 6.18 and refused on 7.2.
#[test]
fn conntrack_max_of_0_is_taken_or_refused_by_version() {
    let Some(host) = root_or_skip() else { return };
    if !has_conntrack() {
        return;
    }
    let key = "net/netfilter/nf_conntrack_max";
    let _saved = SavedSysctls::new(&host, [key]);
    let before = number(key);
    let taken = write(key, "0").is_ok();
    assert_eq!(number(key), if taken { 0 } else { before });
    match kernel() {
        version if version <= (6, 18) => assert!(taken),
        version if version >= (7, 2) => assert!(!taken),
        between => eprintln!("not measured on {between:?}: 0 is taken: {taken}"),
    }
    assert_eq!(refusal(key, "-1"), Errno::EINVAL);
}

/// Facts 4.1: limits of inotify under `fs` and under `user` are the same variables, and so are
/// those of fanotify.
#[test]
fn user_limits_have_two_names() {
    let Some(host) = root_or_skip() else { return };
    let mut pairs = vec![
        ("fs/inotify/max_user_instances", "user/max_inotify_instances"),
        ("fs/inotify/max_user_watches", "user/max_inotify_watches"),
    ];
    if kernel() >= (5, 13) {
        pairs.push(("fs/fanotify/max_user_groups", "user/max_fanotify_groups"));
        pairs.push(("fs/fanotify/max_user_marks", "user/max_fanotify_marks"));
    }
    for (fs, user) in pairs {
        let _saved = SavedSysctls::new(&host, [fs]);
        let before = number(fs);
        assert_eq!(number(user), before, "{fs}");
        set(fs, before + 1);
        assert_eq!(number(user), before + 1, "{fs}");
        if is_capable(CAP_SYS_RESOURCE) {
            set(user, before + 2);
            assert_eq!(number(fs), before + 2, "{fs}");
        }
    }
}

/// Facts 4: the last number of `file-nr` is `file-max`.
#[test]
fn file_nr_ends_with_file_max() {
    let Some(_host) = root_or_skip() else { return };
    let numbers = read("fs/file-nr");
    assert_eq!(numbers.split(' ').count(), 3, "{numbers}");
    assert_eq!(numbers.split(' ').nth(2), Some(read("fs/file-max").as_str()));
    assert_eq!(numbers.split(' ').nth(1), Some("0"), "always");
}
