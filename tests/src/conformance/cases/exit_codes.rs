//! What a tool ends with, and that one failure stops nothing else.

use super::super::case::{Case, Ends, Want, file, sets};
use super::super::tool::Tool::{Headroom, Procps, Systemd, Tuned};
use super::{FILES, FIN_TIMEOUT, SOMAXCONN, SYSCTL_D};

const QUIET: &str = "access permission errors and keys that do not exist do not cause failure";
const LOUD: &str = "other errors cause failure at the end, after processing other variables";
const IGNORED: &str = "with a single - before the assignment, failure for any reason is ignored";
const STRICT: &str =
    "--strict: non-zero on failure, including permissions, but not for keys with -";
const REQUIRED: &str = "docs/configuration.md, exit codes: 3, a required key is not met";
const PAGE: &str = "sysctl.d(5)";
const STRICT_PAGE: &str = "systemd-sysctl(8)";
const NO_STRICT: &str = "has no strict mode";
const IGNORED_PAGES: &str = "sysctl.d(5), sysctl.conf(5); docs/configuration.md: required: false";
const READ_ONLY_KEY: &str = "docs/configuration.md: keys that nobody can write are refused, exit 2";

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

/// A key that nobody can write: the kernel has it with mode 0444.
const UNWRITABLE: &str = "net.ipv4.tcp_available_congestion_control";

/// The same for `systemd-sysctl --strict`.
fn strict(case: Case) -> Case {
    case.argument(Systemd, "--strict")
        .rule(STRICT_PAGE, STRICT)
        .claimed_by(SYSCTL_D)
        .without(Procps, NO_STRICT)
        .without(Tuned, NO_STRICT)
}

fn missing() -> Vec<Case> {
    let (line, policy) = ("net.ipv4.no_such_key = 1", "net.ipv4.no_such_key: 1");
    let ignored = |name| {
        between(
            name,
            "-net.ipv4.no_such_key = 1",
            "net.ipv4.no_such_key: { value: 1, required: false }",
        )
        .wants(both(Ends::Well))
        .rule(IGNORED_PAGES, IGNORED)
        .claimed_by(FILES)
    };
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
        ignored("a key that does not exist, with -"),
        strict(between("a key that does not exist, strict", line, policy)).wants(both(Ends::Badly)),
        strict(ignored("a key that does not exist, with -, strict")),
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
    const RMEM: (&str, &str) = ("net/ipv4/tcp_rmem", "4096 131072 6291456");
    let untouched = |ends| {
        let mut want = both(ends);
        want.values.push(RMEM);
        want
    };
    vec![
        between(
            "a value that the kernel refuses",
            "net.ipv4.tcp_rmem = 0 0 0",
            "net.ipv4.tcp_rmem: 0 0 0",
        )
        .before(RMEM.0, RMEM.1)
        .wants(untouched(Ends::Badly))
        .rule(PAGE, LOUD)
        .claimed_by(SYSCTL_D),
        between(
            "a value that the kernel refuses, with -",
            "-net.ipv4.tcp_rmem = 0 0 0",
            "net.ipv4.tcp_rmem: { value: 0 0 0, required: false }",
        )
        .before(RMEM.0, RMEM.1)
        .wants(untouched(Ends::Well))
        .rule(IGNORED_PAGES, IGNORED)
        .claimed_by(FILES),
        between(
            "an algorithm that does not exist",
            "net.ipv4.tcp_congestion_control = nosuch",
            "net.ipv4.tcp_congestion_control: nosuch",
        )
        .wants(both(Ends::Badly))
        .rule(
            "docs/configuration.md",
            "rejected: the kernel refused the value; 3 for a required key",
        )
        .claimed_by(&[Headroom])
        .other(
            Systemd,
            both(Ends::Well),
            "sysctl.d(5): what does not exist does not cause failure; the kernel answers ENOENT",
        ),
        between("a directory", "net.ipv4 = 1", "net.ipv4: 1")
            .wants(both(Ends::Badly))
            .rule(PAGE, LOUD)
            .claimed_by(SYSCTL_D),
    ]
}

fn forbidden() -> Vec<Case> {
    let nothing = |ends| sets(&[(SOMAXCONN, "4096"), (FIN_TIMEOUT, "60")]).and_ends(ends);
    let prepared = |case: Case| case.before(SOMAXCONN, "4096").before(FIN_TIMEOUT, "60");
    let line = format!("{UNWRITABLE} = reno");
    let key = |name, line: &str| {
        let policy = format!("{UNWRITABLE}: {{ value: reno, required: false }}");
        prepared(between(name, line, &policy)).other(
            Headroom,
            nothing(Ends::With(2)),
            READ_ONLY_KEY,
        )
    };
    let read_only =
        |name| prepared(between(name, "", "net.ipv4.tcp_keepalive_time: 7200")).read_only();
    vec![
        key("a key that nobody can write", &line)
            .wants(both(Ends::Well))
            .rule(PAGE, QUIET)
            .claimed_by(&[Systemd]),
        key("a key that nobody can write, with -", &format!("-{line}"))
            .wants(both(Ends::Well))
            .rule("sysctl.d(5), sysctl.conf(5)", IGNORED)
            .claimed_by(&[Systemd, Procps]),
        strict(key("a key that nobody can write, strict", &line)).wants(both(Ends::Badly)),
        read_only("/proc/sys is read-only")
            .wants(nothing(Ends::Badly))
            .rule(
                "docs/configuration.md",
                "denied: the reason names the mount; 3 for a required key",
            )
            .claimed_by(&[Headroom])
            .other(
                Systemd,
                nothing(Ends::Well),
                "sysctl.d(5): access permission errors do not cause failure",
            ),
        strict(read_only("/proc/sys is read-only, strict")).wants(nothing(Ends::Badly)),
    ]
}
