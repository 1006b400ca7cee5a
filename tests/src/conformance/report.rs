//! The table, for a terminal and as a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use super::tool::Tool;
use super::verdict::{Cell, Row, Verdict};

impl Verdict {
    fn word(&self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::OtherRule(..) => "other rule",
            Self::NoRule(_) => "no rule",
            Self::Fail(_) => "FAIL",
            Self::NotApplicable(_) => "n/a",
        }
    }

    /// What the tool did, where it is not what the case's rule says.
    fn did(&self) -> Option<&str> {
        match self {
            Self::OtherRule(did, _) | Self::NoRule(did) | Self::Fail(did) => Some(did),
            Self::Pass | Self::NotApplicable(_) => None,
        }
    }
}

const WORDS: [&str; 5] = ["pass", "other rule", "no rule", "FAIL", "n/a"];

/// How often a tool got each word, in the order of [`WORDS`].
fn counts(rows: &[Row], tool: Tool) -> [usize; 5] {
    let cells = || rows.iter().flat_map(|row| &row.cells).filter(|cell| cell.tool == tool);
    WORDS.map(|word| cells().filter(|cell| cell.verdict.word() == word).count())
}

fn tools(rows: &[Row]) -> Vec<Tool> {
    rows.first().map(|row| row.cells.iter().map(|cell| cell.tool).collect()).unwrap_or_default()
}

/// The table for a terminal.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    let tools = tools(rows);
    let name = rows.iter().map(|row| row.case.name.chars().count()).max().unwrap_or_default();
    let source = 24;
    let mut line = |first: &str, second: &str, cells: Vec<String>| {
        let second: String = second.chars().take(source).collect();
        let cells: String = cells.iter().map(|cell| format!("  {cell:<14}")).collect();
        let _ = writeln!(out, "{}", format!("{first:<name$}  {second:<source$}{cells}").trim_end());
    };
    line("CASE", "RULE", tools.iter().map(|tool| tool.name().to_uppercase()).collect());
    let mut group = "";
    for row in rows {
        if row.case.group != group {
            group = row.case.group;
            line("", "", Vec::new());
            line(group, "", Vec::new());
        }
        let cell = |cell: &Cell| match &cell.verdict {
            Verdict::Fail(did) => format!("FAIL ({did})"),
            verdict => verdict.word().to_owned(),
        };
        line(row.case.name, row.case.source, row.cells.iter().map(cell).collect());
    }
    line("", "", Vec::new());
    for (at, word) in WORDS.iter().enumerate() {
        let sums = tools.iter().map(|&tool| counts(rows, tool)[at].to_string()).collect();
        line(&format!("sum: {word}"), "", sums);
    }
    out
}

/// The page of the documentation.
#[must_use]
pub fn markdown(rows: &[Row], headroom: &Path, machine: &str) -> String {
    let tools = tools(rows);
    let mut out = String::from(HEAD);
    let _ = writeln!(out, "Run on {machine}, with\n");
    for &tool in &tools {
        let version = tool.version(headroom).unwrap_or_else(|| "not installed".to_owned());
        let _ = writeln!(out, "- {}: {}", tool.name(), escaped(&version));
    }
    out.push_str(HOW);
    table(&mut out, &["", "pass", "other rule", "no rule", "fail", "n/a"], |out| {
        for &tool in &tools {
            let counts = counts(rows, tool).map(|count| count.to_string());
            let _ = writeln!(out, "| {} | {} |", tool.name(), counts.join(" | "));
        }
    });
    for rows in rows.chunk_by(|row, next| row.case.group == next.case.group) {
        group(&mut out, rows, &tools);
    }
    disagreements(&mut out, rows);
    absent(&mut out, rows);
    out
}

/// The cases of one group, with each rule where it begins to hold.
fn group(out: &mut String, rows: &[Row], tools: &[Tool]) {
    let _ = writeln!(out, "\n### {}\n", rows.first().map_or("", |row| row.case.group));
    let heads = ["case", "rule"].into_iter().chain(tools.iter().map(|tool| tool.name()));
    table(out, &heads.collect::<Vec<_>>(), |out| {
        let mut last = ("", "");
        for row in rows {
            let case = &row.case;
            let rule = match (case.rule, case.source) {
                same if same == last => "as above".to_owned(),
                (rule, source) => format!("{} ({})", escaped(rule), escaped(source)),
            };
            last = (case.rule, case.source);
            let word = |cell: &Cell| match &cell.verdict {
                Verdict::Fail(_) => "**FAIL**",
                verdict => verdict.word(),
            };
            let words: Vec<_> = row.cells.iter().map(word).collect();
            let _ = writeln!(out, "| {} | {rule} | {} |", escaped(case.name), words.join(" | "));
        }
    });
}

fn table(out: &mut String, heads: &[&str], rows: impl FnOnce(&mut String)) {
    let _ = writeln!(out, "| {} |\n|{}", heads.join(" | "), " --- |".repeat(heads.len()));
    rows(out);
}

fn disagreements(out: &mut String, rows: &[Row]) {
    out.push_str("\n## Where they disagree\n\n");
    out.push_str("The rule, and what a tool does instead in which case, with the rule it documents for that.\n");
    let mut last = ("", "", "");
    for row in rows.iter().filter(|row| row.cells.iter().any(|cell| cell.verdict.did().is_some())) {
        let case = &row.case;
        let rule = (case.group, case.rule, case.source);
        if rule != last {
            last = rule;
            let (rule, source) = (escaped(case.rule), escaped(case.source));
            let _ = writeln!(out, "\n**{}**: {rule} ({source})\n", case.group);
        }
        let mut answers: Vec<(String, Vec<&str>)> = Vec::new();
        for cell in &row.cells {
            let Some(did) = cell.verdict.did() else { continue };
            let why = match &cell.verdict {
                Verdict::OtherRule(_, says) => escaped(says),
                Verdict::NoRule(_) => "documents no rule for this".to_owned(),
                _ => "**fails the rule that it documents**".to_owned(),
            };
            let answer = format!("`{did}`; {why}");
            match answers.iter_mut().find(|(known, _)| *known == answer) {
                Some((_, tools)) => tools.push(cell.tool.name()),
                None => answers.push((answer, vec![cell.tool.name()])),
            }
        }
        let _ = writeln!(out, "- {}", escaped(case.name));
        for (answer, tools) in answers {
            let _ = writeln!(out, "  - {}: {answer}", tools.join(", "));
        }
    }
}

fn absent(out: &mut String, rows: &[Row]) {
    let mut reasons: BTreeMap<(Tool, &str), Vec<&str>> = BTreeMap::new();
    for row in rows {
        for cell in &row.cells {
            if let Verdict::NotApplicable(why) = cell.verdict {
                reasons.entry((cell.tool, why)).or_default().push(row.case.name);
            }
        }
    }
    out.push_str("\n## Who takes no part, and why\n\n");
    for ((tool, why), names) in reasons {
        let _ =
            writeln!(out, "- {}: {}: {}", tool.name(), escaped(why), escaped(&names.join("; ")));
    }
}

/// Text that Markdown shows as it is.
fn escaped(text: &str) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        if matches!(c, '|' | '*' | '_' | '<' | '[' | '`' | '~' | '\\') {
            shown.push('\\');
        }
        shown.push(c);
    }
    shown
}

const HEAD: &str = "\
# Conformance

One table of cases about `sysctl.d`, keys, values and exit codes, run against Headroom and against the other programs
that set sysctls. Written by `make conformance`; do not edit.

";

const HOW: &str = "
Each run of each program has a network namespace, a mount namespace and a root directory of its own (an overlay over
the machine's, without its `sysctl.d` files), and finds `hr0`, `hr1`, `hr0.100` and `hub0` there. Afterwards the values
in `/proc/sys` are compared with what the rule says, and the exit code where the rule speaks of it.

- **headroom**: `headroom import --root /`, its output given to `headroom apply`; cases about values and policies give
  the same assignment as a policy.
- **systemd-sysctl**: without arguments; with `--strict` where the case says so.
- **procps**: `sysctl --system`.
- **tuned**: once, without its daemon (`daemon = 0`, `--no-dbus --profile`). Cases about files rely on its re-applying
  of the system's files after a profile (`reapply_sysctl`), cases about values are a `[sysctl]` section.

What the words mean:

- **pass**: as the case's rule says.
- **other rule**: the tool documents another rule, and keeps it.
- **no rule**: the tool does something else, and has never claimed this rule.
- **FAIL**: the tool does not keep its own rule.
- **n/a**: no question for this tool; the reasons are at the end.

## The table

";
