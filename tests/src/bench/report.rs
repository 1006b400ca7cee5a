//! The Markdown document.

use std::fmt::Write as _;
use std::time::Duration;

use crate::apply::{Pass, Passes, Tool};
use crate::cost::Cost;
use crate::scrape::{Measured, Program, Scenario, Scrapes};
use crate::upkeep::Upkeep;
use crate::{dense, pods, report_dense, report_pods, report_upkeep};

pub const NA: &str = "n/a";
/// The budgets of the design.
const CPU_BUDGET: Duration = Duration::from_millis(1);
const CHURN_BUDGET: f64 = 3.0;
const MEMORY_BUDGET_MIB: f64 = 8.0;
const PASS_BUDGET: Duration = Duration::from_millis(5);

/// The two programs that are held against each other.
const COMPARED: [Program; 2] = [Program::Headroom, Program::Exporter];

/// The whole document; parts that were not measured are left out.
pub fn document(
    machine: &[(&'static str, String)],
    scrapes: Option<&Scrapes>,
    passes: Option<&Passes>,
    upkeep: &Upkeep,
    pods: Option<&pods::Measured>,
    dense: Option<&dense::Measured>,
) -> String {
    let mut text = String::from(
        "# Benchmarks\n\n\
         Written by `make bench`. Ratios compare programs measured in the same run; absolute\n\
         numbers belong to the machine below.\n\n\
         ## Machine\n\n| what | which |\n| --- | --- |\n",
    );
    for (what, which) in machine {
        _ = writeln!(text, "| {what} | {which} |");
    }
    if let Some(scrapes) = scrapes {
        scrape_part(&mut text, scrapes);
    }
    if let Some(passes) = passes {
        apply_part(&mut text, passes);
    }
    report_upkeep::part(&mut text, upkeep);
    if let Some(pods) = pods {
        report_pods::part(&mut text, pods);
    }
    if let Some(dense) = dense {
        report_dense::part(&mut text, dense);
    }
    budgets(&mut text, scrapes, passes);
    report_upkeep::budgets(&mut text, upkeep);
    if let Some(pods) = pods {
        report_pods::budgets(&mut text, pods);
    }
    if let Some(dense) = dense {
        report_dense::budgets(&mut text, dense);
    }
    text
}

fn scrape_part(text: &mut String, scrapes: &Scrapes) {
    _ = write!(
        text,
        "\n## Scrapes\n\n\
         - One GET of `/metrics` over loopback, new connection, no compression; {} scrapes a program and row, by turns, after 3 that do not count; the last column 5 scrapes, for orientation.\n\
         - Both watch the same host keys. `node_exporter` runs with arp, sysctl, lnstat and conntrack only; *(defaults)* is the same program as a package starts it. Ratio: `node_exporter` / headroom, above 1 headroom needs less.\n\
         - CPU: `schedstat` of all threads around the scrapes, less what the same process used in an equally long window (1 s at least) without scrapes, just before and under the same load.\n\
         - The agent's scan of neighbor entries, off the scrape path and bounded to 0.05 % of a core, runs once an hour here instead of once a minute: it would fall into some row's scrapes by chance.\n\
         - *Without waiting for a CPU*: less the time in which the client or a thread of the server could have run and had no CPU (`schedstat`); what is left of a slow scrape is work and waiting for locks. Of threads that waited at the same time the longest counts.\n\
         - Neighbor entries: permanent, half IPv4 and half IPv6, in 10 namespaces; sizes only grow in a run, as the kernel's tables never shrink. Ports: veth pairs on one bridge, their other ends in namespaces, links down.\n\
         - *churn*: veth pairs come and go on a second bridge all the time, {:.0} a second on average.\n",
        scrapes.scrapes, scrapes.churn_rate
    );
    let background = &scrapes.background;
    _ = writeln!(
        text,
        "- Other work kept the machine {:.0} % busy on average and {:.0} % at worst while it should have been quiet: above a few percent, worst times say little.",
        background.iter().sum::<f64>() / background.len() as f64 * 100.0,
        background.iter().copied().fold(0.0, f64::max) * 100.0
    );
    let all: Vec<&Measured> = scrapes.measured.iter().collect();
    let sizes: Vec<&Measured> = all.iter().copied().filter(|one| one.scenario.churn).collect();
    cost_table(text, "Latency of a scrape, median (ms)", &all, 2, |cost| millis(cost.median()));
    cost_table(text, "Latency of a scrape, worst (ms)", &all, 2, |cost| millis(cost.worst()));
    let question = "The same without waiting for a CPU (ms)";
    cost_table(text, question, &all, 2, |cost| millis(cost.worst_unqueued));
    cost_table(text, "CPU of a scrape (ms)", &all, 3, |cost| millis(cost.cpu));
    cost_table(text, "CPU without scrapes (% of a core)", &all, 2, |cost| cost.idle * 100.0);
    cost_table(text, "Resident memory, VmRSS (MiB)", &sizes, 1, |cost| mib(cost.rss_kib));
    cost_table(text, "Of it private, RssAnon (MiB)", &sizes, 1, |cost| mib(cost.anonymous_kib));
    cost_table(text, "Series, most in an answer", &sizes, 0, |cost| cost.series as f64);
    let question =
        "Series, fewest in an answer (collectors that met a vanishing interface lose theirs)";
    cost_table(text, question, &sizes, 0, |cost| cost.fewest_series as f64);
    cost_table(text, "Size of an answer (KiB)", &sizes, 1, |cost| cost.bytes as f64 / 1024.0);
}

/// One question: a row a scenario, a column a program, and the ratio of the two compared.
fn cost_table(
    text: &mut String,
    question: &str,
    rows: &[&Measured],
    digits: usize,
    value: impl Fn(&Cost) -> f64,
) {
    _ = write!(
        text,
        "\n### {question}\n\n\
         | neighbor entries | bridge ports | load | headroom | node_exporter | ratio | node_exporter (defaults) |\n\
         | ---: | ---: | --- | ---: | ---: | ---: | ---: |\n"
    );
    for row in rows {
        let Scenario { neighbors, ports, churn } = row.scenario;
        let cell = |program| row.cost(program).map(&value);
        let [ours, theirs] = COMPARED.map(cell);
        _ = writeln!(
            text,
            "| {neighbors} | {ports} | {} | {} | {} | {} | {} |",
            if churn { "churn" } else { "quiet" },
            number(ours, digits),
            number(theirs, digits),
            ratio(theirs, ours),
            number(cell(Program::ExporterDefaults), digits)
        );
    }
}

fn apply_part(text: &mut String, passes: &Passes) {
    _ = write!(
        text,
        "\n## First pass over 100 keys\n\n\
         - Whole processes, spawn to exit, median of {} runs by turns (ms), in a namespace made for it; the keys belong to its interfaces.\n\
         - `sysctl -p FILE` and `systemd-sysctl FILE` with the 100 keys stand for `sysctl --system` and the boot service: these would also apply the host's own files.\n\
         - Each run of `headroom apply` starts without a ledger, reads every value back and writes the originals down, to a tmpfs as on a node; its rivals do neither. *The pass itself*: what it reports as `passMicros`, without process start and parsing.\n\
         - Ratio: the rival / headroom, above 1 headroom is faster.\n\n\
         | variant | headroom apply | the pass itself | sysctl -p | ratio | systemd-sysctl | ratio |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        passes.runs
    );
    for pass in &passes.variants {
        let [ours, sysctl, systemd] = [Tool::Headroom, Tool::Sysctl, Tool::SystemdSysctl]
            .map(|tool| median(&pass.times[tool as usize]).map(millis));
        _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            pass.variant,
            number(ours, 2),
            number(median(&pass.inner).map(millis), 2),
            number(sysctl, 2),
            ratio(sysctl, ours),
            number(systemd, 2),
            ratio(systemd, ours)
        );
    }
}

/// The design's budgets against the worst row of each table; the peer beside them.
fn budgets(text: &mut String, scrapes: Option<&Scrapes>, passes: Option<&Passes>) {
    text.push_str(
        "\n## Budgets\n\nThe worst row of each table.\n\n\
         | what | budget | headroom | holds | node_exporter |\n\
         | --- | ---: | ---: | --- | ---: |\n",
    );
    if let Some(scrapes) = scrapes {
        let worst = |value: &dyn Fn(&Cost) -> f64| COMPARED.map(|one| worst(scrapes, one, value));
        let churn = |value: &dyn Fn(&Cost) -> Duration| {
            COMPARED.map(|one| worst_churn(scrapes, one, value))
        };
        let what = "CPU of one scrape (ms)";
        budget(text, what, millis(CPU_BUDGET), worst(&|cost| millis(cost.cpu)), 3);
        let what = "worst scrape under churn / worst quiet one of the same size";
        budget(text, what, CHURN_BUDGET, churn(&Cost::worst), 1);
        let what = "the same without waiting for a CPU";
        budget(text, what, CHURN_BUDGET, churn(&|cost| cost.worst_unqueued), 1);
        let what = "resident memory (MiB)";
        budget(text, what, MEMORY_BUDGET_MIB, worst(&|cost| mib(cost.rss_kib)), 1);
    }
    for pass in passes.iter().flat_map(|passes| &passes.variants) {
        let (measured, basis) = first_pass(pass);
        let what = format!("first pass over 100 keys, {}, {basis} (ms)", pass.variant);
        budget(text, &what, millis(PASS_BUDGET), [measured, None], 2);
    }
}

/// What is compared with the budget: the pass where the agent tells it, else the whole process.
fn first_pass(pass: &Pass) -> (Option<f64>, &'static str) {
    match median(&pass.inner) {
        Some(inner) => (Some(millis(inner)), "the pass itself"),
        None => (median(&pass.times[Tool::Headroom as usize]).map(millis), "whole process"),
    }
}

pub fn budget(
    text: &mut String,
    what: &str,
    budget: f64,
    measured: [Option<f64>; 2],
    digits: usize,
) {
    let holds = match measured[0] {
        Some(ours) if ours < budget => "yes",
        Some(_) => "no",
        None => NA,
    };
    let [ours, theirs] = measured.map(|value| number(value, digits));
    _ = writeln!(text, "| {what} | < {budget} | {ours} | {holds} | {theirs} |");
}

/// The greatest value of any row.
fn worst(scrapes: &Scrapes, program: Program, value: impl Fn(&Cost) -> f64) -> Option<f64> {
    let costs = scrapes.measured.iter().filter_map(|one| one.cost(program));
    costs.map(value).max_by(f64::total_cmp)
}

/// The greatest ratio between a size's times under churn and quiet.
fn worst_churn(
    scrapes: &Scrapes,
    program: Program,
    time: impl Fn(&Cost) -> Duration,
) -> Option<f64> {
    let rows = &scrapes.measured;
    let ratios = rows.iter().filter(|row| row.scenario.churn).filter_map(|row| {
        let quiet = Scenario { churn: false, ..row.scenario };
        let quiet = rows.iter().find(|row| row.scenario == quiet)?;
        let [churn, quiet] = [row, quiet].map(|row| row.cost(program).map(&time));
        Some(millis(churn?) / millis(quiet?))
    });
    ratios.max_by(f64::total_cmp)
}

/// The middle of sorted times.
pub fn median(times: &[Duration]) -> Option<Duration> {
    times.get(times.len() / 2).copied()
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

pub fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or(NA.into(), |value| format!("{value:.digits$}"))
}

/// `theirs / ours`; a zero has no ratio.
pub fn ratio(theirs: Option<f64>, ours: Option<f64>) -> String {
    match (theirs, ours) {
        (Some(theirs), Some(ours)) if ours > 0.0 => format!("{:.1}", theirs / ours),
        _ => NA.into(),
    }
}
