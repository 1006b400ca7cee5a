//! Limits in `headroom status`: those that matter now, all with `--limits`.

use headroom::capacity::CostFrom;
use headroom::limits::Exactness;
use headroom::serve::status::{Limit, Status};

use crate::cli::output::{Output, Tone, or_dash};

/// Limits that are shown without being asked for: the fullest.
const SHOWN: usize = 8;

/// How many more pods fit, first of all.
pub fn sentence(out: &Output, status: &Status) {
    let tone = match (status.capacity.pods_remaining, status.capacity.binding_limit.as_ref()) {
        (_, None) | (None, _) => Tone::Notable,
        (Some(0), _) => Tone::Bad,
        (Some(..10), _) => Tone::Notable,
        (Some(_), _) => Tone::Good,
    };
    let not_known = &status.capacity.not_known;
    let tone = if tone == Tone::Good && !not_known.is_empty() { Tone::Notable } else { tone };
    out.line("");
    out.line(format_args!("{} {}", out.paint(tone, tone.symbol()), status.capacity.sentence));
    for limit in not_known {
        let notable = out.paint(Tone::Notable, Tone::Notable.symbol());
        out.line(format_args!("{notable} not known, and so not in this number: {limit}"));
    }
}

/// The limits, fullest first.
pub fn print(out: &Output, status: &Status, all: bool) {
    let mut limits: Vec<&Limit> = status.limits.iter().collect();
    if limits.is_empty() {
        return;
    }
    // The binding one and what is being hit come first, what is not known last.
    let binding = status.capacity.binding_limit.as_ref();
    let binds = |limit: &Limit| {
        binding.is_some_and(|it| it.limit == limit.limit && it.object == limit.object)
    };
    let rank = |limit: &&Limit| std::cmp::Reverse((binds(limit), limit.hit_now, fullness(limit)));
    limits.sort_by_key(rank);
    let shown = if all { limits.len() } else { SHOWN };
    let rows: Vec<_> = limits.iter().take(shown).map(|limit| row(limit)).collect();
    out.line("");
    let more = match limits.len().saturating_sub(shown) {
        0 => String::new(),
        more => format!("  {more} more with --limits"),
    };
    out.heading(&format!("LIMITS  what stops the next pod, then the fullest{more}"));
    out.table(&["", "LIMIT", "USED", "OF", "A POD", "MORE PODS", "HITS", "RAISED BY", ""], &rows);
}

/// In millionths.
fn fullness(limit: &Limit) -> Option<u64> {
    Some(limit.used?.saturating_mul(1_000_000) / limit.max.filter(|max| *max > 0)?)
}

fn row(limit: &Limit) -> (Tone, Vec<String>) {
    let tone = match (limit.hit_now, fullness(limit)) {
        (true, _) | (_, Some(950_000..)) => Tone::Bad,
        (false, Some(800_000..)) => Tone::Notable,
        (false, Some(_)) => Tone::Good,
        (false, None) => Tone::Plain,
    };
    let sign = match limit.exactness {
        Exactness::Exact => "",
        Exactness::UpperBound => "≤",
        Exactness::LowerBound => "≥",
        Exactness::Estimate => "~",
    };
    let cost = limit.pod_cost.zip(limit.pod_cost_from).map(|(cost, from)| {
        let prior = limit.pod_cost_prior.map(|prior| format!(" ({} assumed)", number(prior)));
        let from = match from {
            CostFrom::Fixed => String::new(),
            CostFrom::Observed | CostFrom::Share => format!(" seen{}", prior.unwrap_or_default()),
            CostFrom::Floor => " at the least".to_owned(),
            CostFrom::Prior => " assumed".to_owned(),
        };
        format!("{}{from}", number(cost))
    });
    let cells = vec![
        tone.symbol().to_owned(),
        limit.named.clone(),
        or_dash(limit.used.map(|used| format!("{sign}{used}"))),
        or_dash(limit.max),
        or_dash(cost),
        or_dash(limit.pods_remaining),
        or_dash(limit.hits),
        limit.raised_by.clone().unwrap_or_else(|| "nothing".to_owned()),
        note(limit),
    ];
    (tone, cells)
}

fn note(limit: &Limit) -> String {
    let mut notes = Vec::new();
    if limit.hit_now {
        notes.push(format!("hit now: {}", limit.when_hit));
    }
    notes.extend(limit.unknown.clone());
    if let Some(seconds) = limit.full_in_seconds {
        let time = humantime::format_duration(std::time::Duration::from_secs(seconds / 60 * 60));
        notes.push(format!("full in {time} at this rate"));
    }
    notes.join("; ")
}

fn number(cost: f64) -> String {
    let text = format!("{cost:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
