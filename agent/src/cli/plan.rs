//! `headroom plan`: what a node needs for so many pods, and where it would stop.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use headroom::capacity::plan::{self, Known, Plan, Question, Stop};
use headroom::capacity::{CostFrom, PodCost};
use headroom::limits::{self, Exactness, max_pods};
use headroom::serve::status::Limit;

use super::output::{Output, Tone, or_dash};
use super::{Common, Exit, fail, out, output, status};

#[derive(Args)]
pub struct Asked {
    /// How many pods the node is to run, with those that run now
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    pods: Option<u64>,
    /// Whether pods hang on a bridge. Default: as it is on this node
    #[arg(long, value_name = "KIND")]
    cni: Option<Cni>,
    /// Services of the cluster: what kube-proxy would make of them
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    services: Option<u64>,
    /// A value as it might be, of a key that raises a limit, or maxPods; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    what_if: Vec<(String, u64)>,
    /// Plan for a node of which nothing is known: with the kernel's and Kubernetes' defaults
    #[arg(long)]
    offline: bool,
    /// Cores of the node. Default: those of this one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    cores: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Cni {
    /// The CNI plugin `bridge`, and what is built on it: flannel, kindnet
    Bridge,
    /// Any other: routed veths, ptp, ipvlan, eBPF
    Other,
}

fn assignment(text: &str) -> Result<(String, u64), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let value = value.trim().parse().map_err(|_| format!("`{value}` is no whole number"))?;
    Ok((key.trim().replace('/', "."), value))
}

pub fn run(asked: &Asked, common: &Common) -> Exit {
    let plan = match answer(asked, common) {
        Ok(plan) => plan,
        Err(exit) => return exit,
    };
    let out = out(&common.format);
    if out.is_json() {
        out.document(&plan);
    } else {
        print(&out, &plan);
    }
    match (plan.pods, plan.fits) {
        (_, Some(false)) => Exit::Differs,
        (Some(_), None) => Exit::Failed,
        _ => Exit::Ok,
    }
}

fn answer(asked: &Asked, common: &Common) -> Result<Plan, Exit> {
    let of_node = if asked.offline { None } else { Some(status::ask(common)?) };
    let Some(status) = of_node else {
        let limits = plan::defaults(limits::ABOUT);
        let question = question(asked, &limits)?;
        return Ok(plan::plan(&question, limits, "defaults", None, Vec::new()));
    };
    let Some(pods_now) = status.capacity.pods else {
        return Err(fail(
            "how many pods run is not known, and so not what more of them need: the directories of \
             podNamespaces cannot be read; --offline plans for an empty node",
        ));
    };
    let assumed = |limit: &&Limit| {
        limit.limit == max_pods::ABOUT.name && asked.what_if.iter().any(|(key, _)| key == MAX_PODS)
    };
    let rest = status.limits.iter().filter(|limit| !assumed(limit));
    let not_known = rest.filter_map(not_known).collect();
    let limits: Vec<Known> = status.limits.into_iter().filter_map(known).collect();
    let question = Question {
        pods_now,
        reserve: status.capacity.reserve,
        cores: asked.cores.or(status.cpus),
        ..question(asked, &limits)?
    };
    Ok(plan::plan(&question, limits, &status.from, Some(status.node), not_known))
}

fn question(asked: &Asked, limits: &[Known]) -> Result<Question, Exit> {
    Ok(Question {
        pods: asked.pods,
        bridge: asked.cni.map(|cni| cni == Cni::Bridge),
        services: asked.services,
        what_if: what_if(asked, limits)?,
        cores: asked.cores,
        ..Question::default()
    })
}

/// The word for a limit that is not the kernel's.
const MAX_PODS: &str = "maxPods";

fn what_if(asked: &Asked, limits: &[Known]) -> Result<BTreeMap<String, u64>, Exit> {
    let mut known: Vec<&str> =
        limits.iter().filter_map(|limit| limit.raised_by.as_deref()).collect();
    // Also where no kubelet is seen.
    known.extend(max_pods::ABOUT.raised_by);
    known.sort_unstable();
    known.dedup();
    let mut values = BTreeMap::new();
    for (key, value) in &asked.what_if {
        let max_pods = |known: &&&str| key == MAX_PODS && known.starts_with(MAX_PODS);
        let found = known.iter().find(|known| **known == key).or(known.iter().find(max_pods));
        let Some(found) = found else {
            let keys = known.iter().filter(|known| !known.contains(' '));
            let keys: Vec<&str> = keys.copied().chain([MAX_PODS]).collect();
            output::error(&format_args!(
                "headroom: --what-if {key}: it raises no limit that is known here; these do: {}",
                keys.join(", ")
            ));
            return Err(Exit::Usage);
        };
        values.insert((*found).to_owned(), *value);
    }
    Ok(values)
}

fn known(limit: Limit) -> Option<Known> {
    let max = limit.max?;
    // It refuses, and so it is full, whatever else is known of it.
    let refuses = limit.hit_now && limit.pods_remaining == Some(0);
    let cost = match limit.pod_cost.zip(limit.pod_cost_from) {
        Some((amount, from)) => PodCost { amount, from },
        None if refuses => PodCost { amount: 1.0, from: CostFrom::Prior },
        None => return None,
    };
    // Of pods that came since it was read, their part.
    let since = (limit.pods_since as f64 * cost.amount).ceil() as u64;
    let used = limit.used.map(|used| used.saturating_add(since));
    Some(Known {
        used: used.or(refuses.then_some(max))?,
        max,
        cost,
        limit: limit.limit,
        object: limit.object,
        named: limit.named,
        unit: limit.unit,
        exactness: limit.exactness,
        raised_by: limit.raised_by,
        hit_now: limit.hit_now,
    })
}

fn not_known(limit: &Limit) -> Option<String> {
    Some(format!("{}: {}", limit.named, limit.unknown.as_ref()?))
}

fn print(out: &Output, plan: &Plan) {
    headline(out, plan);
    raises(out, plan);
    then(out, plan);
    notes(out, plan);
}

fn headline(out: &Output, plan: &Plan) {
    let node = match (&plan.node, plan.from.as_str()) {
        (Some(node), _) => format!("{node}, which runs {} pods now", plan.pods_now),
        (None, _) => "a node with the kernel's and Kubernetes' defaults".to_owned(),
    };
    let kept = match plan.reserve {
        0 => String::new(),
        reserve => format!(", and {reserve} kept free,"),
    };
    match plan.pods {
        Some(pods) => out.heading(&format!("PLAN  {pods} pods{kept} on {node}")),
        None => out.heading(&format!("PLAN  {node}")),
    }
    if plan.from == "cli" {
        out.line(format_args!(
            "{} no agent answers: this starts from a look of its own, which has seen no pod come",
            out.paint(Tone::Notable, Tone::Notable.symbol())
        ));
    }
    for (key, value) in &plan.what_if {
        out.line(format_args!("with {key} at {value}"));
    }
    let assumed = if plan.what_if.is_empty() { "as it is" } else { "with that" };
    let (tone, text) = match (plan.fits, plan.pods_possible, &plan.stopped_by) {
        (fits, Some(possible), Some(stop)) => {
            let tone = if fits == Some(false) { Tone::Bad } else { Tone::Good };
            let about = match plan.exactness {
                Some(Exactness::LowerBound) => "at least ",
                Some(Exactness::UpperBound) => "at most ",
                Some(Exactness::Estimate) => "about ",
                Some(Exactness::Exact) | None => "",
            };
            let why = &stop.why;
            (tone, format!("{assumed}, {about}{possible} pods fit; what stops the next one: {why}"))
        }
        _ => (Tone::Notable, "how many pods fit is not known".to_owned()),
    };
    out.line(format_args!("{} {text}", out.paint(tone, tone.symbol())));
}

fn raises(out: &Output, plan: &Plan) {
    if plan.raise.is_empty() {
        return;
    }
    let rows: Vec<_> = plan
        .raise
        .iter()
        .map(|raise| {
            let cells = vec![
                raise.what.clone(),
                or_dash(raise.now),
                raise.at_least.to_string(),
                or_dash(raise.memory_bytes.map(size)),
                raise.why.clone(),
            ];
            (Tone::Plain, cells)
        })
        .collect();
    out.line("");
    out.heading("RAISE FIRST  memory: when all of it is in use");
    out.table(&["WHAT", "NOW", "AT LEAST", "MEMORY", "WHY"], &rows);
    let keys: Vec<_> = plan.raise.iter().filter(|raise| raise.is_key).collect();
    if !keys.is_empty() {
        out.line("\nas configuration (the profile dense-node has most of them):");
        out.line("sysctls:");
        keys.iter().for_each(|raise| {
            out.line(format_args!("  {}: {}", raise.what, raise.policy.as_deref().unwrap_or("-")));
        });
    }
}

fn then(out: &Output, plan: &Plan) {
    let (Some(possible), Some(stop)) = (plan.pods_possible_then, &plan.then_stopped_by) else {
        return;
    };
    if !plan.raise.is_empty() {
        let enough = plan.pods.is_none_or(|pods| possible >= pods);
        let tone = if enough { Tone::Good } else { Tone::Bad };
        let verdict = if enough { "then" } else { "even then only" };
        let symbol = out.paint(tone, tone.symbol());
        out.line("");
        out.line(format_args!(
            "{symbol} {verdict} {possible} pods fit; what stops the next one: {}",
            stop.why
        ));
    }
    ways(out, stop);
}

fn ways(out: &Output, stop: &Stop) {
    if stop.raised_by.is_none() {
        out.line("  nothing raises it; what people do:");
    }
    stop.ways.iter().for_each(|way| out.line(format_args!("  - {way}")));
}

fn notes(out: &Output, plan: &Plan) {
    if plan.guidance.is_none() && plan.rules.is_none() && plan.not_known.is_empty() {
        return;
    }
    out.line("");
    if let Some(guidance) = &plan.guidance {
        out.line(format_args!(
            "Kubernetes' guidance for {} cores: {} pods (110, or 10 a core where that is less)",
            guidance.cores, guidance.pods
        ));
    }
    if let Some(rules) = &plan.rules {
        out.line(format_args!(
            "kube-proxy in iptables mode: {} to {} rules with {} Services; {}",
            rules.least, rules.most, rules.services, rules.advice
        ));
    }
    for limit in &plan.not_known {
        out.line(format_args!("{} not known: {limit}", out.paint(Tone::Notable, "!")));
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
