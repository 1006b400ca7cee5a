//! What a value may look like, and what the kernel makes of it.

use super::super::case::{Case, Ends, Want, assignment, file, sets};
use super::super::tool::Tool::{Headroom, Procps, Systemd};
use super::{EVERYONE, SOMAXCONN, TAG_HR0};

const PLAIN: &str = "plain decimal, as many fields as the key has, one line: what the kernel would \
                     misread is refused (exit 2) and nothing is written";
const WRITTEN: &str = "sysctl.d(5), sysctl.conf(5): the value is written as it stands";
const DOCUMENT: &str = "docs/configuration.md";
const IP: &str = "kernel: networking/ip-sysctl";
const RMEM: &str = "net/ipv4/tcp_rmem";
const RMEM_BEFORE: &str = "4096 131072 6291456";
const PORTS: &str = "net/ipv4/ip_local_reserved_ports";
const RANGE: &str = "net/ipv4/ip_local_port_range";
const UNPRIVILEGED: &str = "net/ipv4/ip_unprivileged_port_start";

pub fn cases() -> Vec<Case> {
    let mut cases = taken();
    cases.extend(misread());
    cases.extend(rejected());
    cases.extend(together());
    cases
}

fn taken() -> Vec<Case> {
    let well = |path, value| sets(&[(path, value)]).and_ends(Ends::Well);
    vec![
        assignment("a decimal number", "net.core.somaxconn", "5000")
            .wants(well(SOMAXCONN, "5000"))
            .rule(IP, "somaxconn is a number")
            .claimed_by(EVERYONE),
        assignment("a negative number", "net.ipv4.conf.hr0.tag", "-5")
            .wants(well(TAG_HR0, "-5"))
            .rule(IP, "tag is any integer")
            .claimed_by(EVERYONE),
        assignment("three fields", "net.ipv4.tcp_rmem", "4096 131072 7000000")
            .wants(well(RMEM, "4096 131072 7000000"))
            .rule(IP, "tcp_rmem is a vector of three integers: min, default, max")
            .claimed_by(EVERYONE),
        assignment("fields with tabs between", "net.ipv4.tcp_rmem", "4096\t131072\t7000000")
            .wants(well(RMEM, "4096 131072 7000000"))
            .rule(
                IP,
                "tcp_rmem is a vector of three integers, which the kernel itself shows with tabs",
            )
            .claimed_by(EVERYONE),
        assignment(
            "ports and ranges, out of order",
            "net.ipv4.ip_local_reserved_ports",
            "9148-9150,8080",
        )
        .wants(well(PORTS, "8080,9148-9150"))
        .rule(IP, "a comma-separated list of ranges, shown in the kernel's own order")
        .claimed_by(EVERYONE),
        assignment("an empty list", "net.ipv4.ip_local_reserved_ports", "")
            .before(PORTS, "8080")
            .wants(well(PORTS, ""))
            .rule(IP, "the list may be empty, which is its default")
            .claimed_by(&[Headroom, Systemd]),
        assignment("text", "net.ipv4.tcp_congestion_control", "reno")
            .wants(well("net/ipv4/tcp_congestion_control", "reno"))
            .rule(IP, "the name of an algorithm")
            .claimed_by(EVERYONE),
    ]
}

/// A value that the kernel takes for something else.
fn misread() -> Vec<Case> {
    let case = |name, key, value, path, before, becomes| {
        assignment(name, key, value)
            .before(path, before)
            .wants(sets(&[(path, before)]).and_ends(Ends::With(2)))
            .rule(DOCUMENT, PLAIN)
            .claimed_by(&[Headroom])
            .other(Systemd, sets(&[(path, becomes)]), WRITTEN)
            .other(Procps, sets(&[(path, becomes)]), WRITTEN)
    };
    let number =
        |name, value, becomes| case(name, "net.core.somaxconn", value, SOMAXCONN, "4096", becomes);
    vec![
        number("010: eight to the kernel", "010", "8"),
        number("0x1388: hexadecimal to the kernel", "0x1388", "5000"),
        number("00", "00", "0"),
        number("two fields for one", "5000 6000", "5000"),
        number("text after a number", "5000 connections", "5000"),
        case(
            "two fields for three",
            "net.ipv4.tcp_rmem",
            "8192 100000",
            RMEM,
            RMEM_BEFORE,
            "8192 100000 6291456",
        ),
        case(
            "one field for three",
            "net.ipv4.tcp_rmem",
            "8192",
            RMEM,
            RMEM_BEFORE,
            "8192 131072 6291456",
        ),
        case(
            "one field for a range",
            "net.ipv4.ip_local_port_range",
            "40000",
            RANGE,
            "32768 60999",
            "40000 60999",
        ),
    ]
}

/// A value that the kernel refuses, so that what differs is who says so and when.
fn rejected() -> Vec<Case> {
    let case = |name, value| {
        assignment(name, "net.core.somaxconn", value)
            .before(SOMAXCONN, "4096")
            .wants(sets(&[(SOMAXCONN, "4096")]).and_ends(Ends::Badly))
            .rule("sysctl.d(5); docs/configuration.md", "a value that is refused is a failure")
            .claimed_by(&[Headroom, Systemd])
    };
    vec![
        case("+5", "+5000"),
        case("1e3", "1e3"),
        case("5k", "5k"),
        case("a fraction", "5000.5"),
        case("words", "many"),
        case("too large for the key", "99999999999"),
        case("too large for any key", "99999999999999999999999999"),
        case("below the key's range", "-1"),
        case("digits of another script", "٥٠٠٠"),
assignment("the last of three fields is bad", "net.ipv4.tcp_rmem", "5000 6000 -1")
            .before(RMEM, RMEM_BEFORE)
            .wants(sets(&[(RMEM, RMEM_BEFORE)]).and_ends(Ends::Badly))
            .rule(DOCUMENT, "rejected: the last good value is in force, although the kernel applies the fields before the bad one")
            .claimed_by(&[Headroom])
            .other(Systemd, sets(&[(RMEM, "5000 6000 6291456")]).and_ends(Ends::Badly), WRITTEN)
            .other(Procps, sets(&[(RMEM, "5000 6000 6291456")]), WRITTEN),
        assignment(
            "a range that ends before it begins",
            "net.ipv4.ip_local_port_range",
            "50000 40000",
        )
        .before(RANGE, "32768 60999")
        .wants(sets(&[(RANGE, "32768 60999")]).and_ends(Ends::Badly))
        .rule("sysctl.d(5); docs/configuration.md", "a value that is refused is a failure")
        .claimed_by(&[Headroom, Systemd]),
        assignment("a port that is none", "net.ipv4.ip_local_reserved_ports", "8080,70000")
            .before(PORTS, "80")
            .wants(sets(&[(PORTS, "80")]).and_ends(Ends::Badly))
            .rule("sysctl.d(5); docs/configuration.md", "a value that is refused is a failure")
            .claimed_by(&[Headroom, Systemd]),
    ]
}

/// Keys that hold each other back.
fn together() -> Vec<Case> {
    let ports = |name, lines: [(&str, &str); 2], before: [(&'static str, &'static str); 2]| {
        let each = |form: fn(&str, &str) -> String| {
            lines.iter().map(|(key, value)| form(key, value)).collect::<String>()
        };
        let case = file(name, each(|key, value| format!("{key} = {value}\n")))
            .profile(each(|key, value| format!("{key}={value}\n")))
            .policy(format!("sysctls:\n{}", each(|key, value| format!("  {key}: \"{value}\"\n"))));
        before.into_iter().fold(case, |case, (path, value)| case.before(path, value))
    };
    let raised: Want =
        sets(&[(UNPRIVILEGED, "40000"), (RANGE, "45000 60000")]).and_ends(Ends::Well);
    let raise = [
        ("net.ipv4.ip_unprivileged_port_start", "40000"),
        ("net.ipv4.ip_local_port_range", "45000 60000"),
    ];
    vec![
        ports(
            "ip_unprivileged_port_start raised over the port range, written first",
            raise,
            [(UNPRIVILEGED, "1024"), (RANGE, "32768 60999")],
        )
        .wants(raised)
        .rule(
            "docs/configuration.md",
            "keys that depend on each other are written in the order that the kernel takes",
        )
        .claimed_by(&[Headroom]),
    ]
}
