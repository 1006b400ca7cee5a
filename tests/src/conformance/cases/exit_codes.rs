//! What a tool ends with, and that one failure stops nothing else.

use super::super::case::{Case, Ends, Want, file, sets};
use super::super::tool::Tool::{Headroom, Procps, Systemd};
use super::{FILES, FIN_TIMEOUT, SOMAXCONN, SYSCTL_D};

const QUIET: &str = "access permission errors and keys that do not exist do not cause failure";
const LOUD: &str = "other errors cause failure at the end, after processing other variables";
const IGNORED: &str = "with a single - before the assignment, failure for any reason is ignored";
const STRICT: &str =
    "--strict: non-zero on failure, including permissions, but not for keys with -";
const REQUIRED: &str = "docs/configuration.md, exit codes: 3, a required key is not met";
const PAGE: &str = "sysctl.d(5)";
const STRICT_PAGE: &str = "systemd-sysctl(8)";

/// A case with one key that works before and one behind, so that what fails stands between.
fn between(name: &'static str, line: &str, policy: &str) -> Case {
    file(name, format!("net.core.somaxconn = 5000\n{line}\nnet.ipv4.tcp_fin_timeout = 33\n"))
        .policy(format!(
            "sysctls:\n  net.core.somaxconn: 5000\n  {policy}\n  net.ipv4.tcp_fin_timeout: 33\n"
        ))
}

fn both(ends: Ends) -> Want {
    sets(&[(SOMAXCONN, "5000"), (FIN_TIMEOUT, "33")]).and_ends(ends)
}

pub fn cases() -> Vec<Case> {
    let mut cases = missing();
    cases.extend(refused());
    cases.extend(forbidden());
    cases
}

fn missing() -> Vec<Case> {
    let (line, policy) = ("net.ipv4.no_such_key = 1", "net.ipv4.no_such_key: 1");
    vec![
        between("everything in force", "", "net.ipv4.tcp_keepalive_time: 7200")
            .wants(both(Ends::Well))
            .rule("systemd-sysctl(8), sysctl(8), docs/configuration.md", "0: done")
            .claimed_by(FILES),
        between("a key that does not exist", line, policy)
            .wants(both(Ends::Well))
            .rule(PAGE, QUIET)
            .claimed_by(&[Systemd])
            .other(Headroom, both(Ends::With(3)), REQUIRED),
        between(
            "a key that does not exist, with -",
            "-net.ipv4.no_such_key = 1",
            "net.ipv4.no_such_key: { value: 1, required: false }",
        )
        .wants(both(Ends::Well))
        .rule("sysctl.d(5), sysctl.conf(5); docs/configuration.md: required: false", IGNORED)
        .claimed_by(FILES),
        between("a key that does not exist, strict", line, policy)
            .argument(Systemd, "--strict")
            .wants(both(Ends::Badly))
            .rule(STRICT_PAGE, STRICT)
            .claimed_by(SYSCTL_D)
            .without(Procps, "has no such argument"),
        between(
            "a key that does not exist, with -, strict",
            "-net.ipv4.no_such_key = 1",
            "net.ipv4.no_such_key: { value: 1, required: false }",
        )
        .argument(Systemd, "--strict")
        .wants(both(Ends::Well))
        .rule(STRICT_PAGE, STRICT)
        .claimed_by(SYSCTL_D)
        .without(Procps, "has no such argument"),
        between(
            "an interface that does not exist",
            "net.ipv4.conf.nosuch0.tag = 1",
            "net.ipv4.conf.nosuch0.tag: 1",
        )
        .wants(both(Ends::Well))
        .rule(PAGE, QUIET)
        .claimed_by(&[Systemd])
        .other(Headroom, both(Ends::With(3)), REQUIRED),
    ]
}

fn refused() -> Vec<Case> {
    // The kernel knows at write time only: an algorithm's name is text to everyone else.
    let (line, policy) = ("net.ipv4.tcp_rmem = 0 0 0", "net.ipv4.tcp_rmem: 0 0 0");
    let untouched = |want: Want| Want {
        values: [&want.values[..], &[("net/ipv4/tcp_rmem", "4096 131072 6291456")]].concat(),
        ..want
    };
    let before = |case: Case| case.before("net/ipv4/tcp_rmem", "4096 131072 6291456");
    vec![
        before(between("a value that the kernel refuses (EINVAL)", line, policy))
            .wants(untouched(both(Ends::Badly)))
            .rule(PAGE, LOUD)
            .claimed_by(&[Systemd])
            .other(
                Headroom,
                Want {
                    values: vec![("net/ipv4/tcp_rmem", "4096 131072 6291456")],
                    ends: Some(Ends::With(2)),
                },
                "docs/configuration.md, exit codes: 2, a value out of the key's range is an error of the configuration, and nothing is written",
            ),
        before(between("a value that the kernel refuses, with -", "-net.ipv4.tcp_rmem = 0 0 0", ""))
            .wants(untouched(both(Ends::Well)))
            .rule("sysctl.d(5), sysctl.conf(5)", IGNORED)
            .claimed_by(&[Systemd, Procps])
            .without(Headroom, "a value out of the key's range is refused as a configuration, with or without -"),
        between("an algorithm that does not exist (ENOENT)", "net.ipv4.tcp_congestion_control = nosuch", "net.ipv4.tcp_congestion_control: nosuch")
            .wants(both(Ends::Badly))
            .rule("docs/configuration.md", "rejected: the kernel refused the value; exit code 3 for a required key")
            .claimed_by(&[Headroom])
            .other(Systemd, both(Ends::Well), "sysctl.d(5): keys that do not exist do not cause failure, and the kernel's answer is the same"),
        between("a directory", "net.ipv4 = 1", "net.ipv4: 1")
            .wants(both(Ends::Badly))
            .rule(PAGE, LOUD)
            .claimed_by(SYSCTL_D),
    ]
}

fn forbidden() -> Vec<Case> {
    let line = "net.ipv4.tcp_available_congestion_control = reno";
    let policy = "net.ipv4.tcp_available_congestion_control: reno";
    let nothing = |ends| sets(&[(SOMAXCONN, "4096"), (FIN_TIMEOUT, "60")]).and_ends(ends);
    let read_only = |name| {
        between(name, "", "net.ipv4.tcp_keepalive_time: 7200")
            .before(SOMAXCONN, "4096")
            .before(FIN_TIMEOUT, "60")
            .read_only()
    };
    vec![
        between("a key that cannot be written (EACCES)", line, policy)
            .wants(both(Ends::Well))
            .rule(PAGE, QUIET)
            .claimed_by(&[Systemd])
            .other(Headroom, both(Ends::With(3)), REQUIRED),
        between(
            "a key that cannot be written, with -",
            &format!("-{line}"),
            "net.ipv4.tcp_available_congestion_control: { value: reno, required: false }",
        )
        .wants(both(Ends::Well))
        .rule("sysctl.d(5), sysctl.conf(5); docs/configuration.md: required: false", IGNORED)
        .claimed_by(FILES),
        between("a key that cannot be written, strict", line, policy)
            .argument(Systemd, "--strict")
            .wants(both(Ends::Badly))
            .rule(STRICT_PAGE, STRICT)
            .claimed_by(SYSCTL_D)
            .without(Procps, "has no such argument"),
        read_only("/proc/sys is read-only (EROFS)")
            .wants(nothing(Ends::With(3)))
            .rule(
                "docs/configuration.md",
                "denied: the reason names the mount; exit code 3 for a required key",
            )
            .claimed_by(&[Headroom])
            .other(
                Systemd,
                nothing(Ends::Well),
                "sysctl.d(5): access permission errors do not cause failure",
            ),
        read_only("/proc/sys is read-only, strict")
            .argument(Systemd, "--strict")
            .wants(nothing(Ends::Badly))
            .rule(STRICT_PAGE, STRICT)
            .claimed_by(SYSCTL_D)
            .without(Procps, "has no such argument"),
    ]
}
