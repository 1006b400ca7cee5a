//! The cases. A new one is a few lines in the file of its group; `make conformance` shows the rest.

mod exit_codes;
mod globs;
mod keys;
mod parsing;
mod policies;
mod precedence;
mod values;

use super::case::Case;
use super::tool::Tool::{self, Headroom, Procps, Systemd};

/// Who has the rules of `sysctl.d(5)`: Headroom's `import` says that it reads the files as
/// systemd-sysctl does.
const SYSCTL_D: &[Tool] = &[Headroom, Systemd];

/// Who has what `sysctl.d(5)` and procps' pages say alike.
const FILES: &[Tool] = &[Headroom, Systemd, Procps];

/// What everybody says alike.
const EVERYONE: &[Tool] = &[Headroom, Systemd, Procps, Tool::Tuned];

/// `net.core.somaxconn`: 4096 in a new namespace (128 before 5.4), any number from 0.
const SOMAXCONN: &str = "net/core/somaxconn";
/// `tcp_fin_timeout`: 60 in a new namespace.
const FIN_TIMEOUT: &str = "net/ipv4/tcp_fin_timeout";
/// `conf.*.tag`: a number that the kernel itself never looks at, 0 in a new namespace.
const TAG_ALL: &str = "net/ipv4/conf/all/tag";
const TAG_DEFAULT: &str = "net/ipv4/conf/default/tag";
const TAG_HR0: &str = "net/ipv4/conf/hr0/tag";
const TAG_HR1: &str = "net/ipv4/conf/hr1/tag";
const TAG_DOTTED: &str = "net/ipv4/conf/hr0.100/tag";

/// All cases, group by group.
#[must_use]
pub fn all() -> Vec<Case> {
    let groups: [(&'static str, Vec<Case>); 8] = [
        ("Normalisation of keys", keys::cases()),
        ("Parsing", parsing::cases()),
        ("Precedence and masks", precedence::cases()),
        ("Globs", globs::globs()),
        ("Exclusions", globs::exclusions()),
        ("Exit codes", exit_codes::cases()),
        ("Values", values::cases()),
        ("Policies", policies::cases()),
    ];
    let named = |(group, cases): (&'static str, Vec<Case>)| {
        cases.into_iter().map(move |case| Case { group, ..case })
    };
    groups.into_iter().flat_map(named).collect()
}
