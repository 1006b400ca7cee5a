//! The part of the document about values that stay.

use std::fmt::Write as _;
use std::time::Duration;

use crate::report::{budget, mib, millis, number, ratio};
use crate::upkeep::Upkeep;
use crate::{drift, idle, sweep};

/// The budgets of the design.
const PUT_RIGHT_BUDGET: Duration = Duration::from_millis(10);
const SWEEP_BUDGET: Duration = Duration::from_millis(1);
const IDLE_BUDGET: f64 = 0.1;
const IDLE_BUDGET_WITH_PODS: f64 = 0.5;

/// One section a question; those that were not asked are left out.
pub fn part(text: &mut String, upkeep: &Upkeep) {
    if !upkeep.drifts.is_empty() {
        drifts(text, &upkeep.drifts);
    }
    if !upkeep.sweeps.is_empty() {
        sweeps(text, &upkeep.sweeps);
    }
    if !upkeep.idle.is_empty() {
        idle_part(text, &upkeep.idle);
    }
}

fn drifts(text: &mut String, rows: &[drift::Row]) {
    _ = write!(
        text,
        "\n## Drift put right\n\n\
         - From just before another process writes one of 200 keys until the file shows the right value again, which that process reads over and over; {} drifts a row, 30 to 70 ms apart (the agent makes 50 passes a second at the most), each key at most 5 times: a sixth time within a minute would be a fight.\n\
         - *fanotify*: the agent as installed, which names the writer; *inotify*: without CAP_SYS_ADMIN. Pods: network namespaces, each with a port of one bridge, whose keys were looked at: opening a file below `/proc/sys/net` takes longer with each of them. The agent's state is in memory, as `/run` is on a node.\n\
         - The reader keeps one CPU busy all the time. *Without waiting for a CPU* as for scrapes. *Busy*: share of the machine, that reader included; above a few percent, the greatest times say little.\n\
         - No rival notices a write. Cilium looks at its own keys every 10 s (`FullReconcilationInterval` in `pkg/datapath/linux/sysctl/cell.go`); TuneD, systemd-sysctl, the kubelet and the Node Tuning Operator write once and look again when they are told to, so there is nothing to measure them by.\n\n\
         | pods | by | p50 (ms) | p99 (ms) | max (ms) | p99 without waiting for a CPU | max without | busy |\n\
         | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        rows.iter().map(|row| row.times.len()).max().unwrap_or_default()
    );
    for row in rows {
        let cell = |times, share| number(quantile(times, share).map(millis), 2);
        let (times, unqueued) = (&row.times, &row.unqueued);
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {:.0} % |",
            row.pods,
            row.by,
            cell(times, 0.5),
            cell(times, 0.99),
            cell(times, 1.0),
            cell(unqueued, 0.99),
            cell(unqueued, 1.0),
            row.busy * 100.0
        );
    }
}

fn sweeps(text: &mut String, rows: &[sweep::Row]) {
    let keys = rows.iter().map(|row| row.all_keys).max().unwrap_or_default();
    _ = write!(
        text,
        "\n## Looking at 100 keys that are as they should be\n\n\
         - CPU of one round (ms). headroom: a sweep each second, less what an agent without keys uses in the same time beside it (`schedstat` of all threads). The others: whole processes, as a loop or a timer would start them (`getrusage`).\n\
         - `sysctl KEY…` reads the same 100 keys and compares nothing; `sysctl -a` reads all {keys} of the namespace. TuneD's daemon has a profile of the 100 keys; `tuned-adm verify` asks it to compare them, on a message bus of their own without polkit: client and daemon together, then the daemon alone.\n\
         - *Writes*: to the 100 keys during all sweeps, as the kernel tells them (inotify); the count is checked with a write at the end.\n\
         - Ratio: the other / headroom.\n\n\
         | pods | writes | headroom | sysctl KEY… | ratio | sysctl -a | ratio | tuned-adm verify | ratio | its daemon | ratio | busy |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for row in rows {
        let ours = row.headroom.as_ref().map(|sweeps| millis(sweeps.each));
        let writes = row.headroom.as_ref().map(|sweeps| sweeps.writes as f64);
        let verify = row.verify.as_ref();
        let rivals = [
            Some(row.named),
            Some(row.all),
            verify.map(|verify| verify.client + verify.daemon),
            verify.map(|verify| verify.daemon),
        ];
        _ = write!(text, "| {} | {} | {} ", row.pods, number(writes, 0), number(ours, 3));
        for rival in rivals.map(|rival| rival.map(millis)) {
            _ = write!(text, "| {} | {} ", number(rival, 2), ratio(rival, ours));
        }
        _ = writeln!(text, "| {:.0} % |", row.busy * 100.0);
    }
}

fn idle_part(text: &mut String, rows: &[idle::Row]) {
    let seconds = rows.iter().map(|row| row.length.as_secs()).max().unwrap_or_default();
    _ = write!(
        text,
        "\n## Idle\n\n\
         - The agent with the `dense-node` profile and its defaults, in observe mode in the initial namespace; nothing changes and nobody asks it anything. {seconds} s, of which an hour is a multiple.\n\n\
         | pods | CPU of an hour (s) | share of a core | VmRSS (MiB) | RssAnon (MiB) | busy |\n\
         | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    );
    for row in rows {
        _ = writeln!(
            text,
            "| {} | {:.2} | {:.3} % | {:.1} | {:.1} | {:.0} % |",
            row.pods,
            row.share() * 3600.0,
            row.share() * 100.0,
            mib(row.rss_kib),
            mib(row.anonymous_kib),
            row.busy * 100.0
        );
    }
}

/// More lines of the table of budgets.
pub fn budgets(text: &mut String, upkeep: &Upkeep) {
    for by in ["fanotify", "inotify"] {
        for row in upkeep.drifts.iter().filter(|row| row.by == by) {
            let p99 = quantile(&row.times, 0.99).map(millis);
            let what = format!("drift put right, {by}, {} pods, p99 (ms)", row.pods);
            budget(text, &what, millis(PUT_RIGHT_BUDGET), [p99, None], 2);
        }
    }
    for row in &upkeep.sweeps {
        let sweeps = row.headroom.as_ref();
        let what = format!("CPU of a sweep over 100 keys, {} pods (ms)", row.pods);
        let each = sweeps.map(|sweeps| millis(sweeps.each));
        budget(text, &what, millis(SWEEP_BUDGET), [each, None], 3);
        let what = format!("writes of all sweeps without drift, {} pods", row.pods);
        budget(text, &what, 1.0, [sweeps.map(|sweeps| sweeps.writes as f64), None], 0);
    }
    for row in &upkeep.idle {
        let limit = if row.pods == 0 { IDLE_BUDGET } else { IDLE_BUDGET_WITH_PODS };
        let what = format!("CPU when idle, {} pods (% of a core)", row.pods);
        budget(text, &what, limit, [Some(row.share() * 100.0), None], 3);
    }
}

/// Of sorted times, the one that this share of all does not exceed.
fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    let last = times.len().checked_sub(1)?;
    times.get((last as f64 * share).ceil() as usize).copied()
}
