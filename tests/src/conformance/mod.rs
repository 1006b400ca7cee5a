//! `make conformance`: one table of cases about `sysctl.d`, keys, values and exit codes that runs
//! against Headroom and, where they are installed, against procps, systemd and TuneD.
//!
//! Each run of each program happens in a network namespace and under a root directory of its own,
//! so that neither the machine's files nor its keys are touched. A case says what must be in force
//! afterwards, whose rule that is, and who claims to keep it: a program that documents another
//! rule is held to that one, and one that promises nothing cannot fail.

mod arena;
mod case;
mod cases;
mod report;
mod tool;
mod verdict;

use std::path::Path;

pub use case::Case;
pub use cases::all;
pub use report::{markdown, text};
pub use tool::Tool;
pub use verdict::{Cell, Row, Verdict};

use crate::HostLock;

/// Runs the cases with these tools. `headroom` is its binary.
#[must_use]
pub fn run(host: &HostLock, cases: Vec<Case>, tools: &[Tool], headroom: &Path) -> Vec<Row> {
    let cells = |case: &Case| {
        tools.iter().map(|&tool| verdict::cell(host, case, tool, headroom)).collect::<Vec<_>>()
    };
    cases
        .into_iter()
        .map(|case| {
            let cells = cells(&case);
            Row { case, cells }
        })
        .collect()
}
