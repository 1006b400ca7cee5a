//! Headroom passes all that it claims: its column of `make conformance`.

#![allow(clippy::unwrap_used, clippy::panic)]

use headroom_tests::agent_process::binary;
use headroom_tests::conformance::{self, Tool, Verdict};
use headroom_tests::root_or_skip;

#[test]
fn headroom_keeps_the_rules_that_it_claims() {
    let Some(host) = root_or_skip() else { return };
    let cases = conformance::all();
    assert!(cases.iter().all(|case| !case.source.is_empty()), "a case without a rule");
    let rows = conformance::run(&host, cases, &[Tool::Headroom], &binary());
    let mut failures = Vec::new();
    for row in &rows {
        for cell in &row.cells {
            if let Verdict::Fail(did) | Verdict::NoRule(did) = &cell.verdict {
                let case = &row.case;
                failures.push(format!("{}: {}: {did}\n{}", case.group, case.name, cell.said));
            }
        }
    }
    assert!(failures.is_empty(), "{} fail\n\n{}", failures.len(), failures.join("\n\n"));
}
