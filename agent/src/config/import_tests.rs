#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::kernel::name::Name;
use crate::kernel::sysctl_d::{Content, Files, Found};

/// The document of one file in /etc/sysctl.d, on a host with two interfaces.
fn import(text: &str) -> String {
    imported(&[(Some(0), text)])
}

fn imported(files: &[(Option<usize>, &str)]) -> String {
    let found = files.iter().enumerate().map(|(index, (directory, text))| Found {
        directory: *directory,
        name: Name::from_bytes(format!("{index}.conf").into_bytes()),
        link: None,
        content: Content::Bytes(text.as_bytes().to_vec()),
    });
    let disk = Disk::of(Some(Ok(Files { files: found.collect(), ..Files::default() })));
    render(&disk, &entries(&disk, &mut tree))
}

fn tree(directory: &str) -> Vec<String> {
    let names: &[&str] = match directory {
        "" => &["net", "vm", "kernel"],
        "net" => &["ipv4", "ipv6"],
        "net/ipv4" | "net/ipv6" => &["conf"],
        "net/ipv4/conf" | "net/ipv6/conf" => &["all", "eth0.1", "lo"],
        "net/ipv4/conf/all" | "net/ipv4/conf/lo" => &["rp_filter", "arp_filter"],
        "net/ipv6/conf/eth0.1" => &["forwarding"],
        "vm" => &["swappiness", "drop_caches"],
        _ => &[],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What stands below `sysctls`.
fn lines(document: &str) -> Vec<&str> {
    document.lines().skip_while(|line| !line.starts_with("sysctls:")).map(str::trim).collect()
}

#[test]
fn values_are_what_the_kernel_would_make_of_them() {
    for (text, expected) in [
        (
            "net.core.somaxconn = 4096",
            &["net.core.somaxconn: \"4096\" # /etc/sysctl.d/0.conf:1"][..],
        ),
        (
            "\n-net/core/somaxconn=4096",
            &["net.core.somaxconn: { value: \"4096\", required: false } # /etc/sysctl.d/0.conf:2"],
        ),
        (
            "net.core.somaxconn = 0200",
            &["# written as 0200", "net.core.somaxconn: \"128\" # /etc/sysctl.d/0.conf:1"],
        ),
        (
            "net.ipv4.tcp_rmem = 1\t 0x10  3",
            &["# written as 1 0x10 3", "net.ipv4.tcp_rmem: \"1 16 3\" # /etc/sysctl.d/0.conf:1"],
        ),
        ("net.ipv4.tcp_rmem = 1\t2\t3", &["net.ipv4.tcp_rmem: \"1 2 3\" # /etc/sysctl.d/0.conf:1"]),
        (
            "net.core.somaxconn = 1\nnet.core.somaxconn = 1\nnet.core.somaxconn = 2",
            &[
                "# before it /etc/sysctl.d/0.conf:1 sets 1",
                "# before it /etc/sysctl.d/0.conf:2 sets 1",
                "net.core.somaxconn: \"2\" # /etc/sysctl.d/0.conf:3",
            ],
        ),
        ("a.unknown = yes", &["a.unknown: \"yes\" # /etc/sysctl.d/0.conf:1"]),
        (
            "kernel.domainname = \"a\\b\"",
            &["kernel.domainname: \"\\\"a\\\\b\\\"\" # /etc/sysctl.d/0.conf:1"],
        ),
    ] {
        let document = import(text);
        assert_eq!(lines(&document)[1..], *expected, "{document}");
        assert!(judge(Origin::Embedded, document.as_bytes()).is_ok(), "{document}");
    }
}

#[test]
fn what_is_refused_is_a_comment_that_says_why() {
    for (text, why) in [
        ("kernel.core_pattern = |/bin/false", "allowDangerous"),
        ("vm.drop_caches = 3", "stores nothing"),
        ("fs.file-nr = 3", "does not let this key be written"),
        ("net.ipv4.tcp_rmem = 4096", "leave the others as they are"),
        ("net.core.somaxconn = 12 13", "leave out the rest"),
        ("net.core.somaxconn = 5 # five", "a line of its own"),
        ("net.core.somaxconn =", "empty"),
        ("a.unknown = 0200", "plain decimal"),
        ("vm.no*such = 1", "no key matches"),
    ] {
        let document = import(text);
        let lines = lines(&document);
        assert_eq!(lines[0], "sysctls: {}", "{document}");
        assert!(lines[1].starts_with("# left out: ") && lines[1].contains(why), "{document}");
        assert!(lines[2].starts_with("# ") && lines[2].ends_with(":1"), "{document}");
        assert!(judge(Origin::Embedded, document.as_bytes()).is_ok(), "{document}");
    }
}

#[test]
fn patterns_of_interfaces_stay_and_others_become_keys() {
    let document = import(
        "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.lo.rp_filter\nnet.ipv4.conf.all.rp_filter = 1\n\
         net.ipv4.conf.l?.rp_filter = 0\n",
    );
    assert_eq!(
        lines(&document)[1..],
        [
            "net.ipv4.conf.*.rp_filter: \"2\" # /etc/sysctl.d/0.conf:1",
            "net.ipv4.conf.l?.rp_filter: \"0\" # /etc/sysctl.d/0.conf:4",
            "net.ipv4.conf.all.rp_filter: \"1\" # /etc/sysctl.d/0.conf:3",
            "# excluded from net.ipv4.conf.l?.rp_filter: looked at, never written",
            "net.ipv4.conf.lo.rp_filter: { value: \"0\", onConflict: report, required: false } # /etc/sysctl.d/0.conf:2",
        ],
        "{document}"
    );
    let document = import(
        "net.ipv?.conf.*.*ing = 1\nnet.ipv4.conf.[al]*.rp_* = 1\n-net.ipv4.conf.lo.rp_filter\n",
    );
    assert_eq!(
        lines(&document)[1..],
        [
            "# matches net.ipv4.conf.[al]*.rp_* now; what appears later is not set",
            "net.ipv4.conf.all.rp_filter: \"1\" # /etc/sysctl.d/0.conf:2",
            "# matches net.ipv?.conf.*.*ing now; what appears later is not set",
            "net.ipv6.conf.eth0/1.forwarding: \"1\" # /etc/sysctl.d/0.conf:1",
        ],
        "{document}"
    );
}

#[test]
fn what_only_procps_reads_is_told() {
    let document = imported(&[
        (Some(0), "net.core.somaxconn = 1\nvm.swappiness = 5"),
        (None, "net.core.somaxconn = 2\nvm.swappiness = 5\nvm.max_map_count = 3"),
    ]);
    let lines = lines(&document);
    assert_eq!(
        lines[1..3],
        [
            "# `sysctl --system` sets 2, of /etc/sysctl.conf:1",
            "net.core.somaxconn: \"1\" # /etc/sysctl.d/0.conf:1",
        ]
    );
    assert!(lines[3].starts_with("# left out: only `sysctl --system`"), "{document}");
    assert_eq!(lines[4], "# vm.max_map_count: \"3\" # /etc/sysctl.conf:3");
    assert_eq!(lines[5], "vm.swappiness: \"5\" # /etc/sysctl.d/0.conf:2");
}

#[test]
fn nothing_is_an_empty_document() {
    let disk = Disk::of(None);
    let document = render(&disk, &entries(&disk, &mut tree));
    assert!(document.contains("not visible") && document.ends_with("sysctls: {}\n"), "{document}");
    assert!(judge(Origin::Embedded, document.as_bytes()).is_ok());
}

proptest! {
    #[test]
    fn every_document_is_accepted(
        text in "([-]?(net.core.somaxconn|vm/swappiness|net.ipv4.tcp_rmem|kernel.core_pattern|a.b|net.ipv4.(conf|neigh).[a-z?*/\\[]{1,4}.[a-z*]{1,3}|vm.\\PC{1,6})( = ?\\PC{0,12}| = 0?[0-9]{1,4})?\n){0,8}",
    ) {
        let document = import(&text);
        let lines = document.lines().all(|line| !line.contains(char::is_control));
        prop_assert!(lines, "{document}");
        let judged = judge(Origin::Embedded, document.as_bytes());
        prop_assert!(judged.is_ok(), "{judged:?}\n{document}");
    }
}
