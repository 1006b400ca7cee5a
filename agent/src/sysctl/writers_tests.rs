#![allow(clippy::unwrap_used)]

use super::*;
use crate::sysctl::catalogue;

fn who(key: &str) -> Vec<&'static str> {
    usual(&Key::parse(key).unwrap()).iter().map(|usual| usual.who).collect()
}

#[test]
fn the_particular_comes_before_the_general() {
    assert_eq!(
        who("net.netfilter.nf_conntrack_max"),
        ["kube-proxy", "k3s", "TuneD", "systemd-sysctl"]
    );
    assert_eq!(who("vm.overcommit_memory"), ["kubelet", "systemd-sysctl"]);
    assert_eq!(who("net.ipv4.vs.conn_reuse_mode"), ["kube-proxy", "systemd-sysctl"]);
    assert_eq!(who("net.core.wmem_max"), ["TuneD", "saptune", "systemd-sysctl"]);
    assert_eq!(who("kernel.domainname"), ["systemd-sysctl"]);
}

#[test]
fn an_interface_is_neither_all_nor_default_nor_lo() {
    for key in ["net.ipv4.conf.eth0.rp_filter", "net.ipv4.conf.eth0/100.rp_filter"] {
        let found = who(key);
        for program in ["Cilium", "Calico", "AWS VPC CNI", "systemd-networkd", "NetworkManager"] {
            assert!(found.contains(&program), "{key}: {program}");
        }
        // Once when the interface appears, once at boot.
        assert_eq!(found.iter().filter(|who| **who == "systemd-sysctl").count(), 2);
    }
    assert_eq!(who("net.ipv4.conf.all.rp_filter"), ["Cilium", "Calico", "systemd-sysctl"]);
    assert_eq!(who("net.ipv4.conf.default.rp_filter"), ["systemd-sysctl"]);
    assert_eq!(who("net.ipv4.conf.lo.rp_filter"), ["systemd-sysctl"]);
}

#[test]
fn side_effects_of_the_kernel_are_said() {
    for key in ["net.ipv4.conf.lo.forwarding", "net.ipv6.conf.eth0.forwarding"] {
        assert!(who(key).contains(&"the kernel"), "{key}");
    }
}

#[test]
fn every_line_is_about_keys_that_exist_and_says_what_to_do() {
    for usual in TABLE {
        assert!(usual.what_to_do.ends_with('.') && !usual.what_to_do.contains("  "));
        assert!(usual.what_to_do.is_ascii());
        for pattern in usual.keys {
            if pattern.ends_with('*') || *pattern == "net.nf_conntrack_max" {
                continue;
            }
            let key = Key::parse(&pattern.replace(INTERFACE, "eth0").replace('*', "eth0")).unwrap();
            assert!(catalogue::lookup(&key).is_some(), "{pattern} is not in the catalogue");
        }
    }
}

#[test]
fn processes_are_recognised_by_name_then_by_unit() {
    let process = |name: &str, unit: Option<&str>| Process {
        name: name.to_owned(),
        unit: unit.map(str::to_owned),
        ..Process::default()
    };
    for (name, unit, program) in [
        ("kube-proxy", None, Some("kube-proxy")),
        // udev runs it
        ("systemd-sysctl", Some("systemd-udevd.service"), Some("systemd-sysctl")),
        ("(udev-worker)", Some("systemd-udevd.service"), Some("udev")),
        ("systemd-network", Some("systemd-networkd.service"), Some("systemd-networkd")),
        ("sysctl", Some("kubelet.service"), Some("kubelet")),
        ("sysctl", Some("cron.service"), Some("sysctl")),
        ("sysctl", None, Some("sysctl")),
        ("sh", Some("tuned.service"), Some("TuneD")),
        ("sh", Some("session-3.scope"), None),
        ("", None, None),
    ] {
        assert_eq!(recognise(&process(name, unit)), program, "{name} {unit:?}");
    }
}

#[test]
fn who_is_recognised_is_in_the_table_or_a_mere_tool() {
    for (name, program) in NAMES {
        assert!(name.len() <= 15, "{name}: the kernel keeps 15 bytes");
        let known = TABLE.iter().any(|usual| usual.who == *program);
        assert!(known || matches!(*program, "containerd" | "udev"), "{program}");
    }
    for (_, program) in UNITS {
        assert!(NAMES.iter().any(|(_, known)| known == program), "{program}");
    }
}
