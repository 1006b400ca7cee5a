//! The part of the document about pods' namespaces.

use std::fmt::Write as _;
use std::time::Duration;

use crate::pods::{Latencies, Measured};
use crate::report::{budget, median, mib, millis, number, ratio};

/// The budgets of the design.
const APPLIED_BUDGET: Duration = Duration::from_millis(10);
const MEMORY_BUDGET_MIB: f64 = 8.0;

/// One section.
pub fn part(text: &mut String, measured: &Measured) {
    let Latencies { pods, rate, busy, resident_kib, .. } = &measured.latencies;
    _ = write!(
        text,
        "\n## Pods' namespaces\n\n\
         - {pods} namespaces, each mounted on a file as containerd does it, connected by Debian's CNI plugin `bridge` with `host-local`, and its result written as libcni does it; {rate:.0} pods a second, one after another, as fast as that goes. The machine was {:.0} % busy, the plugins and this program included.\n\
         - *From the namespace*: from its mount until a key of a policy for every pod had its value. *From the CNI result*: from just before it is written until a key of a policy by name had its value. Seen by a thread that reads the values every 50 µs.\n\
         - The agent's state is in memory, as `/run` is on a node. Its resident memory with all of them there: {:.1} MiB.\n\n\
         | from | p50 (ms) | p99 (ms) | max (ms) |\n| --- | ---: | ---: | ---: |\n",
        busy * 100.0,
        mib(*resident_kib),
    );
    let rows = [
        ("the namespace", &measured.latencies.from_namespace),
        ("the CNI result", &measured.latencies.from_result),
    ];
    for (from, times) in rows {
        let cell = |share| number(quantile(times, share).map(millis), 2);
        _ = writeln!(text, "| {from} | {} | {} | {} |", cell(0.5), cell(0.99), cell(1.0));
    }
    _ = write!(
        text,
        "\nTen keys in a bare namespace: CPU of each namespace (ms). headroom: all of the agent, its \
         threads that have ended included, its record of the originals too; the CNI plugin `tuning` \
         (Debian's): its process, as a runtime starts it, which keeps no originals.\n\n\
         | other pods | headroom | tuning | ratio |\n| ---: | ---: | ---: | ---: |\n",
    );
    for cost in &measured.costs {
        let [ours, theirs] = [cost.headroom, cost.tuning].map(|time| Some(millis(time)));
        _ = writeln!(
            text,
            "| {} | {} | {} | {} |",
            cost.beside,
            number(ours, 2),
            number(theirs, 2),
            ratio(theirs, ours)
        );
    }
}

/// Rows of the table of budgets.
pub fn budgets(text: &mut String, measured: &Measured) {
    let Latencies { pods, from_namespace, from_result, resident_kib, .. } = &measured.latencies;
    for (from, times) in [("namespace", from_namespace), ("CNI result", from_result)] {
        let what = format!("pod policy applied, from the {from}, {pods} pods, p99 (ms)");
        let p99 = quantile(times, 0.99).map(millis);
        budget(text, &what, millis(APPLIED_BUDGET), [p99, None], 2);
    }
    let what = format!("resident memory with {pods} pods (MiB)");
    budget(text, &what, MEMORY_BUDGET_MIB, [Some(mib(*resident_kib)), None], 1);
}

/// Of sorted times.
fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    if (share - 0.5).abs() < f64::EPSILON {
        return median(times);
    }
    let last = times.len().checked_sub(1)?;
    times.get((last as f64 * share).round() as usize).copied()
}
