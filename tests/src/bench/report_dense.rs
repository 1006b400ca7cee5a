//! The part of the document about a node with everything at once.

use std::fmt::Write as _;
use std::time::Duration;

use crate::cost::Cost;
use crate::dense::Measured;
use crate::report::{NA, budget, mib, millis, number, ratio};
use crate::scrape::Program;

/// The budgets of the design.
const CPU_BUDGET: Duration = Duration::from_millis(1);
const CHEAP_BUDGET: Duration = Duration::from_micros(250);
const IDLE_BUDGET: f64 = 0.5;
const MEMORY_BUDGET_MIB: f64 = 8.0;

/// One section.
pub fn part(text: &mut String, measured: &Measured) {
    let length = measured.length;
    _ = write!(
        text,
        "\n## A dense node with all limits\n\n\
         - {} pods' namespaces, each with a process and a port of one bridge; {} permanent neighbor entries in them, half IPv4 and half IPv6; {} rules of nftables, as many as kube-proxy has there, which hang on no hook. The agent is root with every capability, observes the `dense-node` profile and the keys above, and reads all limits at its default pace.\n\
         - Scrapes as above, by turns: of 5 batches of {} the one with the median CPU, {} for the last column. `node_exporter` has none of the limits.\n\
         - *Without scrapes*: {} s after the first round of each slow reader, threads that have ended included. Other work kept the machine {:.0} % busy.\n\n\
         | what | headroom | node_exporter | ratio | node_exporter (defaults) |\n\
         | --- | ---: | ---: | ---: | ---: |\n",
        length.pods,
        length.neighbors,
        measured.rules,
        length.scrapes,
        3,
        length.idle.as_secs(),
        measured.busy * 100.0,
    );
    row(text, measured, "CPU of a scrape (ms)", 3, |cost| millis(cost.cpu));
    row(text, measured, "latency of a scrape, median (ms)", 2, |cost| millis(cost.median()));
    row(text, measured, "latency of a scrape, worst (ms)", 2, |cost| millis(cost.worst()));
    let unqueued = "the same without waiting for a CPU (ms)";
    row(text, measured, unqueued, 2, |cost| millis(cost.worst_unqueued));
    row(text, measured, "series", 0, |cost| cost.series as f64);
    row(text, measured, "size of an answer (KiB)", 1, |cost| cost.bytes as f64 / 1024.0);
    row(text, measured, "resident memory, VmRSS (MiB)", 1, |cost| mib(cost.rss_kib));
    row(text, measured, "of it private, RssAnon (MiB)", 1, |cost| mib(cost.anonymous_kib));
    _ = writeln!(
        text,
        "| CPU without scrapes (% of a core) | {:.3} | {NA} | {NA} | {NA} |",
        measured.idle * 100.0
    );
    rounds(text, measured);
}

fn row(
    text: &mut String,
    measured: &Measured,
    what: &str,
    digits: usize,
    value: impl Fn(&Cost) -> f64,
) {
    let cell = |program: Program| measured.costs[program as usize].as_ref().map(&value);
    let [ours, theirs, defaults] =
        [Program::Headroom, Program::Exporter, Program::ExporterDefaults].map(cell);
    _ = writeln!(
        text,
        "| {what} | {} | {} | {} | {} |",
        number(ours, digits),
        number(theirs, digits),
        ratio(theirs, ours),
        number(defaults, digits)
    );
}

fn rounds(text: &mut String, measured: &Measured) {
    _ = write!(
        text,
        "\nWhat is read off the scrape's path there, each reader by itself: CPU of a round (ms), and the age \
         that its numbers reach. A reader waits so long that it takes 0.05 % of a core at the most. All \
         readers of a scrape together take {:.3} ms.\n\n\
         | reader | the first round | a later one | read again after (s) |\n\
         | --- | ---: | ---: | ---: |\n",
        millis(measured.cheap)
    );
    for round in &measured.rounds {
        let [first, later] = round.costs.map(|cost| number(Some(millis(cost)), 2));
        let again = round.again.as_secs_f64();
        _ = writeln!(text, "| {} | {first} | {later} | {again:.0} |", round.name);
    }
}

/// Rows of the table of budgets.
pub fn budgets(text: &mut String, measured: &Measured) {
    let value = |value: fn(&Cost) -> f64| {
        let cell = |program: Program| measured.costs[program as usize].as_ref().map(value);
        [Program::Headroom, Program::Exporter].map(cell)
    };
    let cpu = value(|cost| millis(cost.cpu));
    budget(text, "dense node: CPU of one scrape (ms)", millis(CPU_BUDGET), cpu, 3);
    let cheap = [Some(millis(measured.cheap)), None];
    let what = "dense node: CPU of a scrape's readers of limits (ms)";
    budget(text, what, millis(CHEAP_BUDGET), cheap, 3);
    let idle = [Some(measured.idle * 100.0), None];
    budget(text, "dense node: CPU when idle (% of a core)", IDLE_BUDGET, idle, 3);
    let memory = value(|cost| mib(cost.rss_kib));
    budget(text, "dense node: resident memory (MiB)", MEMORY_BUDGET_MIB, memory, 1);
}
