#![allow(clippy::unwrap_used)]

use super::*;

const NEW: (u32, u32) = (6, 18);

fn key(name: &str) -> Key {
    Key::parse(name).unwrap()
}

fn gets(name: &str, devconf: i64) -> Gets {
    expected(&key(name), NEW, Devconf::from_value(devconf))
}

fn of(name: &str, measured: &InNew, host: Option<&str>) -> InPods {
    let devconf = Devconf::default();
    let measured = Some(measured);
    InPods::of(&Known { key: &key(name), kernel: NEW, devconf, measured, host })
}

fn own(value: &str) -> InNew {
    InNew::Own { value: value.to_owned() }
}

#[test]
fn each_kind_of_key_gets_what_kernels_do() {
    for (name, expected) in [
        ("net.core.somaxconn", Gets::Own),
        ("net.ipv4.tcp_rmem", Gets::Copied),
        ("net.ipv4.tcp_max_syn_backlog", Gets::Computed),
        ("net.core.rmem_max", Gets::ReadOnly),
        ("net.netfilter.nf_hooks_lwtunnel", Gets::Shared),
        ("net.core.netdev_max_backlog", Gets::Absent),
        ("net.ipv4.neigh.default.gc_thresh3", Gets::Absent),
        ("net.ipv4.neigh.default.gc_stale_time", Gets::Absent),
        ("net.ipv4.neigh.eth0.gc_stale_time", Gets::Copied),
        ("net.core.nothing", Gets::Unknown),
        ("vm.swappiness", Gets::Shared),
        ("kernel.shmmax", Gets::Own),
        ("kernel.pid_max", Gets::Own),
        ("user.max_inotify_watches", Gets::Shared),
    ] {
        assert_eq!(gets(name, 0), expected, "{name}");
    }
    let before = |name: &str, kernel| expected(&key(name), kernel, Devconf::Ipv4);
    assert_eq!(before("net.core.rmem_max", (6, 10)), Gets::Absent);
    assert_eq!(before("net.core.optmem_max", (6, 7)), Gets::Absent);
    assert_eq!(before("kernel.pid_max", (6, 13)), Gets::Shared);
}

#[test]
fn settings_of_interfaces_follow_devconf_inherit_init_net() {
    for (value, ipv4, ipv6) in [
        (0, Gets::Copied, Gets::Own),
        (1, Gets::Copied, Gets::Copied),
        (2, Gets::Own, Gets::Own),
        (3, Gets::Copied, Gets::Copied),
    ] {
        assert_eq!(gets("net.ipv4.conf.all.rp_filter", value), ipv4, "{value}");
        assert_eq!(gets("net.ipv4.ip_forward", value), ipv4, "{value}");
        assert_eq!(gets("net.ipv6.conf.default.accept_ra", value), ipv6, "{value}");
        assert_eq!(gets("net.ipv6.conf.all.disable_ipv6", value), ipv6, "{value}");
        assert_eq!(gets("net.ipv6.conf.default.disable_ipv6", value), Gets::Own, "{value}");
        assert_eq!(gets("net.ipv4.tcp_wmem", value), Gets::Copied, "not an interface's");
        assert_eq!(gets("net.ipv4.neigh.lo.gc_stale_time", value), Gets::Copied, "{value}");
    }
}

#[test]
fn what_was_measured_wins_and_the_difference_is_said() {
    let same = of("net.core.somaxconn", &own("4096"), Some("10000"));
    assert_eq!((same.gets, same.value.as_deref()), (Gets::Own, Some("4096")));
    assert_eq!(same.contradicts, None);
    let copy = of("net.ipv4.ip_forward", &own("1"), Some("1"));
    assert_eq!((copy.gets, copy.contradicts), (Gets::Copied, None));
    for (name, measured, host, gets) in [
        ("net.core.somaxconn", InNew::Absent, None, Gets::Absent),
        ("net.core.netdev_max_backlog", own("1000"), None, Gets::Own),
        ("net.ipv4.tcp_fin_timeout", InNew::ReadOnly { value: "60".into() }, None, Gets::ReadOnly),
        ("net.ipv4.ip_forward", own("0"), Some("1"), Gets::Own),
    ] {
        let found = of(name, &measured, host);
        assert_eq!(found.gets, gets, "{name}");
        assert!(found.contradicts.is_some(), "{name}");
    }
    // What the catalogue does not know cannot be contradicted.
    let new = of("net.core.nothing", &own("7"), None);
    assert_eq!((new.gets, new.contradicts), (Gets::Own, None));
    let count =
        of("net.netfilter.nf_conntrack_count", &InNew::ReadOnly { value: "0".into() }, None);
    assert_eq!((count.gets, count.contradicts), (Gets::Computed, None));
}

#[test]
fn an_interface_begins_with_conf_default() {
    let found = of("net.ipv4.conf.eth0.rp_filter", &own("2"), Some("1"));
    assert_eq!((found.gets, &found.contradicts), (Gets::Copied, &None));
    assert_eq!(found.from.as_deref(), Some("net.ipv4.conf.default.rp_filter"));
    assert!(found.words.contains("net.ipv4.conf.default.rp_filter"), "{}", found.words);
    assert!(found.to_change.contains("net.ipv4.conf.default.rp_filter"), "{}", found.to_change);
    let all = of("net.ipv4.conf.all.rp_filter", &own("0"), Some("0"));
    assert_eq!(all.from, None);
}

#[test]
fn every_key_of_the_catalogue_has_words() {
    for entry in catalogue::all() {
        for interface in ["all", "default", "eth0"] {
            let Ok(key) = Key::parse(&entry.key().replace('*', interface)) else { continue };
            for devconf in 0..4 {
                let devconf = Devconf::from_value(devconf);
                let known = Known { key: &key, kernel: NEW, devconf, measured: None, host: None };
                let found = InPods::of(&known);
                assert_ne!(found.gets, Gets::Unknown, "{key}");
                assert!(!found.words.is_empty() && !found.to_change.is_empty(), "{key}");
            }
        }
    }
}
