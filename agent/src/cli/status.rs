//! `headroom status`: this node.

mod limits;
mod netfilter;
mod pods;

use std::collections::BTreeMap;
use std::time::Duration;

use headroom::agent::once;
use headroom::kernel::who::Who;
use headroom::serve::client::{self, ClientError};
use headroom::serve::status::{NeighborTable, Status};
use headroom::sysctl::glob::Subject;
use headroom::sysctl::marks::LastWrite;
use headroom::sysctl::state::{KeyStatus, State};

use super::output::{Output, Tone, or_dash};
use super::{Common, Exit, fail, out, output};

const PATIENCE: Duration = Duration::from_secs(5);

/// Of what everything is listed, not only what matters now.
pub struct All {
    pub pods: bool,
    pub limits: bool,
}

pub fn run(common: &Common, all: &All) -> Exit {
    let status = match ask(common) {
        Ok(status) => status,
        Err(exit) => return exit,
    };
    let out = out(&common.format);
    if out.is_json() {
        out.document(&status);
    } else {
        print(&out, &status, all);
    }
    judge(&status)
}

/// What the running agent says, or what a look at the node shows where none runs.
pub fn ask(common: &Common) -> Result<Status, Exit> {
    let socket = common.socket()?;
    match client::get(&socket, "/status.json", PATIENCE) {
        Ok(response) if response.status != 200 => {
            Err(fail(format_args!("the agent answers {}: try again", response.status)))
        }
        Ok(response) => serde_json::from_slice(&response.body).map_err(|error| {
            fail(format_args!(
                "the agent's answer is not understood: {error}; is it another version?"
            ))
        }),
        Err(ClientError::NoSocket(_) | ClientError::Refused(_)) => look(common),
        Err(error) => Err(fail(error)),
    }
}

fn look(common: &Common) -> Result<Status, Exit> {
    let loaded = common.load()?;
    Ok(Status::of(&once::look(&loaded, &common.roots()), false))
}

fn judge(status: &Status) -> Exit {
    let failing = status.ready == Some(false)
        || status.collectors.iter().any(|collector| !collector.ok)
        || status.host_netns.state == "wrong";
    let failing = failing || pods::failing(status);
    let drifted = pods::differing(status)
        || status.keys.iter().flatten().any(|key| !key.in_sync && !excused(key));
    match (failing, drifted) {
        (true, _) => Exit::Degraded,
        (false, true) => Exit::Differs,
        (false, false) => Exit::Ok,
    }
}

/// An optional key that this kernel does not have, or not yet, is no drift.
fn excused(key: &KeyStatus) -> bool {
    !key.required && matches!(key.state, State::Pending | State::Unsupported)
}

fn print(out: &Output, status: &Status, all: &All) {
    headline(out, status);
    limits::sentence(out, status);
    limits::print(out, status, all.limits);
    keys(out, status);
    written_by_others(out, status);
    at_boot(out, status);
    pods::print(out, status, all.pods);
    neighbors(out, status);
    bridges(out, status);
    netfilter::print(out, status);
    for collector in status.collectors.iter().filter(|collector| !collector.ok) {
        let why = collector.error.as_deref().unwrap_or("failed");
        out.line(format_args!("{} {}: {why}", out.paint(Tone::Bad, "✗"), collector.name));
    }
    // The one about the configuration is above.
    let said = |notice: &&String| notice.starts_with("configuration not reloaded");
    for notice in status.notices.iter().filter(|notice| !said(notice)) {
        output::error(notice);
    }
}

fn headline(out: &Output, status: &Status) {
    let config = match &status.config.path {
        Some(path) => path.clone(),
        None => format!("embedded default, profile {}", status.config.profiles.join(", ")),
    };
    out.heading(&format!(
        "{} · headroom {} · kernel {}",
        status.node, status.version, status.kernel
    ));
    out.line(format_args!("config {config} ({}), mode {}", status.config.hash, status.config.mode));
    if let Some(error) = &status.config.reload_error {
        let bad = out.paint(Tone::Bad, "✗");
        out.line(format_args!("{bad} not reloaded: the last good configuration stays in force"));
        error.split("; ").for_each(|line| out.line(format_args!("  {line}")));
    }
    match (status.ready, status.from.as_str()) {
        (Some(true), _) => out.line(format_args!("{} ready", out.paint(Tone::Good, "✓"))),
        (Some(false), _) => {
            out.line(format_args!("{} not ready", out.paint(Tone::Bad, "✗")));
            for check in status.checks.iter().filter(|check| !check.ok) {
                out.line(format_args!(
                    "  {}: {}",
                    check.name,
                    check.reason.as_deref().unwrap_or("failed")
                ));
            }
        }
        (None, _) => out.line(format_args!(
            "{} no agent answers: this is a look from outside, and nothing keeps the values",
            out.paint(Tone::Notable, "!")
        )),
    }
    if let Some(reason) = status.notifications.as_ref().and_then(|seen| seen.reason.as_ref()) {
        out.line(format_args!("{} {reason}", out.paint(Tone::Notable, "!")));
    }
    if let Some(reason) = &status.host_netns.reason {
        out.line(format_args!("{} wrong network namespace: {reason}", out.paint(Tone::Bad, "✗")));
    }
}

fn keys(out: &Output, status: &Status) {
    let Some(keys) = &status.keys else {
        return out.line("\nthe keys are not known");
    };
    if keys.is_empty() {
        let of_the_node = if status.pods.is_some() { " of the node" } else { "" };
        return out.line(format_args!("\nno keys{of_the_node} are configured"));
    }
    let met = keys.iter().filter(|key| key.in_sync).count();
    out.line("");
    out.heading(&format!("KEYS  {met} of {} as wanted", keys.len()));
    out.table(&["", "KEY", "VALUE", "WANT", "STATE", ""], &key_rows(keys));
    not_in_pods(out, keys);
}

/// Keys that are set on the host, where pods have values of their own.
fn not_in_pods(out: &Output, keys: &[KeyStatus]) {
    let mut notes = BTreeMap::<&str, Vec<String>>::new();
    for key in keys {
        if let Some(note) = &key.pods_note {
            notes.entry(note).or_default().push(key.key.to_string());
        }
    }
    for (note, keys) in notes {
        out.line(format_args!("{} {}: {note}", out.paint(Tone::Notable, "!"), keys.join(", ")));
    }
}

/// Of a pattern those of its keys.
fn writes_of(key: &KeyStatus) -> Vec<(&Subject, &LastWrite)> {
    match &key.members {
        Some(members) => members.written.iter().map(|it| (&it.key, &it.last_write)).collect(),
        None => key.last_write.iter().map(|last| (&key.key, last)).collect(),
    }
}

/// Most writes by others that are listed, the latest first.
const WRITES: usize = 10;

fn written_by_others(out: &Output, status: &Status) {
    let keys = status.keys.iter().flatten();
    let mut writes: Vec<_> = keys.flat_map(writes_of).collect();
    if writes.is_empty() {
        return;
    }
    writes.sort_by_key(|(_, last)| std::cmp::Reverse(last.at));
    let names = status.notifications.as_ref().is_some_and(|it| it.by == "fanotify");
    let unknown = match names {
        true => "not known: a process on another mount of proc, or the kernel",
        false => "not known: writers are named only where the agent may use fanotify",
    };
    let rows = writes.iter().take(WRITES).map(|(key, last)| {
        let who = match &last.who {
            Who::Unknown => unknown.to_owned(),
            who => who.to_string(),
        };
        (Tone::Plain, vec![key.to_string(), last.ago(), who])
    });
    out.line("");
    out.heading("WRITTEN BY OTHERS  the last time, since the agent started");
    out.table(&["KEY", "WHEN", "BY"], &rows.collect::<Vec<_>>());
}

/// Keys that the host's own files set to something else: what would be in force without the agent
/// after the next boot.
fn at_boot(out: &Output, status: &Status) {
    let row = |key: &KeyStatus| {
        let boot = key.disk.as_ref()?;
        let place = format!("{}:{}", boot.file, boot.line);
        let symbol = Tone::Notable.symbol().to_owned();
        let cells = vec![symbol, key.key.to_string(), boot.value.clone(), key.want.clone(), place];
        Some((Tone::Notable, cells))
    };
    let rows: Vec<_> = status.keys.iter().flatten().filter_map(row).collect();
    if rows.is_empty() {
        return;
    }
    out.line("");
    out.heading("SET TO SOMETHING ELSE AT BOOT  by the host's sysctl.d");
    out.table(&["", "KEY", "AT BOOT", "WANT", "BY"], &rows);
}

/// One row a key: those that need attention first.
pub fn key_rows(keys: &[KeyStatus]) -> Vec<(Tone, Vec<String>)> {
    let mut rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let tone = tone(key);
            let cells = vec![
                tone.symbol().to_owned(),
                key.key.to_string(),
                or_dash(key.actual.as_ref()),
                key.want.clone(),
                key.state.label().to_owned(),
                key.detail.clone().unwrap_or_default(),
            ];
            (tone, cells)
        })
        .collect();
    let rank = |tone: &Tone| match tone {
        Tone::Bad => 0,
        Tone::Notable => 1,
        Tone::Plain | Tone::Good => 2,
    };
    rows.sort_by_key(|(tone, _)| rank(tone));
    rows
}

fn tone(key: &KeyStatus) -> Tone {
    match key.state {
        State::InSync | State::Normalized => Tone::Good,
        State::Observed if key.in_sync => Tone::Good,
        State::Pending | State::Unsupported if !key.required => Tone::Notable,
        State::Observed | State::Yielded => Tone::Notable,
        _ => Tone::Bad,
    }
}

fn neighbors(out: &Output, status: &Status) {
    if status.neighbor_tables.is_empty() {
        return;
    }
    out.line("");
    let rows: Vec<_> = status
        .neighbor_tables
        .iter()
        .map(|table| {
            // A bound above the whole says nothing.
            let says = |ratio: &f64| *ratio <= 1.0 || table.basis.as_deref() == Some("pinned");
            let full = table.fullness_ratio.filter(says);
            let full = full.map(|ratio| format!("{:.1} %", ratio * 100.0));
            let basis = match table.basis.as_deref() {
                Some("pinned") => "pinned entries",
                Some(_) => "at most: entries that can be collected are counted too",
                None => "",
            };
            let tone = match (table.fullness_ratio, table.basis.as_deref()) {
                (Some(ratio), Some("pinned")) if ratio >= 0.9 => Tone::Bad,
                (Some(ratio), _) if ratio >= 0.75 => Tone::Notable,
                _ => Tone::Good,
            };
            let thresholds = table.gc_thresholds.map(|[a, b, c]| format!("{a}/{b}/{c}"));
            let cells = vec![
                tone.symbol().to_owned(),
                table.family.clone(),
                or_dash(table.entries),
                or_dash(table.peak),
                or_dash(table.pinned),
                or_dash(table.exempt),
                or_dash(thresholds),
                or_dash(full),
                or_dash(table.table_fulls),
                basis.to_owned(),
            ];
            (tone, cells)
        })
        .collect();
    out.heading("NEIGHBOR TABLES  shared by all pods");
    let header = [
        "",
        "FAMILY",
        "ENTRIES",
        "PEAK",
        "PINNED*",
        "EXEMPT*",
        "GC_THRESH1/2/3",
        "FULL",
        "OVERFLOWS",
        "OF",
    ];
    out.table(&header, &rows);
    if let Some(scanned) = scanned(&status.neighbor_tables) {
        out.line(format_args!("* {scanned}"));
    }
    growth(out, status);
}

/// Whether the tables grow by themselves, and why no further.
fn growth(out: &Output, status: &Status) {
    let Some(growth) = &status.autogrow else {
        return out.line("autogrow is off");
    };
    let at = growth.at * 100.0;
    if let Some(reason) = &growth.unavailable {
        let notable = out.paint(Tone::Notable, "!");
        return out.line(format_args!("{notable} autogrow at {at} % does nothing: {reason}"));
    }
    out.line(format_args!("autogrow at {at} % of gc_thresh3, up to {}", growth.ceiling));
    for table in &growth.tables {
        let family = &table.family;
        let grown = match (table.steps, table.grown_to) {
            (0, None) => "has not grown".to_owned(),
            (0, Some(to)) => format!("has grown to {to} before the agent started"),
            (1, Some(to)) => format!("has grown once, to {to}"),
            (steps, to) => format!("has grown {steps} times, to {}", or_dash(to)),
        };
        let end = match (table.at_most, table.most.zip(table.bound)) {
            (true, Some((most, bound))) => format!("; no further than {most}: {bound}"),
            _ => String::new(),
        };
        out.line(format_args!("  {family} {grown}{end}"));
        if let Some(reason) = &table.blocked {
            out.line(format_args!("  {} {family}: {reason}", out.paint(Tone::Bad, "✗")));
        }
    }
}

/// What was scanned, and whether that is all.
fn scanned(tables: &[NeighborTable]) -> Option<String> {
    let scan = tables.iter().find_map(|table| table.scan.as_ref())?;
    let skipped = match scan.skipped {
        0 => String::new(),
        skipped => format!(", {skipped} could not be"),
    };
    let partly: Vec<&str> = tables
        .iter()
        .filter(|table| table.scan.as_ref().is_some_and(|scan| !scan.complete))
        .map(|table| table.family.as_str())
        .collect();
    let all = match partly.as_slice() {
        [] => "every entry was seen".to_owned(),
        partly => {
            format!("of {} not every entry was seen, more may be pinned", partly.join(" and "))
        }
    };
    let (scanned, age) = (scan.scanned, scan.age_seconds);
    let namespaces = if scanned == 1 { "namespace" } else { "namespaces" };
    Some(format!("{scanned} network {namespaces} scanned {age} s ago{skipped}: {all}"))
}

fn bridges(out: &Output, status: &Status) {
    out.line("");
    let Some(bridges) = &status.bridges else {
        return out.line("the bridges are not known");
    };
    if bridges.is_empty() {
        return out.line("no bridges");
    }
    let rows: Vec<_> = bridges
        .iter()
        .map(|bridge| {
            let tone = match bridge.ports * 100 / bridge.limit.max(1) {
                95.. => Tone::Bad,
                80.. => Tone::Notable,
                _ => Tone::Good,
            };
            let left = bridge.limit.saturating_sub(bridge.ports);
            let ports = format!("{} of {}", bridge.ports, bridge.limit);
            (tone, vec![tone.symbol().to_owned(), bridge.name.clone(), ports, left.to_string()])
        })
        .collect();
    out.heading("BRIDGES");
    out.table(&["", "BRIDGE", "PORTS", "FREE"], &rows);
}
