//! Holding what happened against the rules.

use std::path::Path;

use super::arena::Arena;
use super::case::{Case, Want};
use super::tool::{Ran, Tool};
use crate::HostLock;

/// One case and what came of it, tool by tool.
#[derive(Debug)]
pub struct Row {
    /// The case.
    pub case: Case,
    /// In the order of the tools.
    pub cells: Vec<Cell>,
}

/// One tool's result.
#[derive(Debug)]
pub struct Cell {
    /// Whose.
    pub tool: Tool,
    /// The result.
    pub verdict: Verdict,
    /// What the tool printed.
    pub said: String,
}

/// What a result is worth. What it did is in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the rule says.
    Pass,
    /// As another rule says, which the tool documents: what it did, and the rule.
    OtherRule(String, &'static str),
    /// Not as the rule says, which the tool never claimed to keep.
    NoRule(String),
    /// Not as the rule says, which is the tool's own.
    Fail(String),
    /// No question for this tool.
    NotApplicable(&'static str),
}

/// Runs a case with a tool and judges it.
pub fn cell(host: &HostLock, case: &Case, tool: Tool, headroom: &Path) -> Cell {
    if let Some(why) = tool.excuse(case) {
        return Cell { tool, verdict: Verdict::NotApplicable(why), said: String::new() };
    }
    let (ran, values) = Arena::with(host, case, headroom, |arena| {
        let ran = tool.run(arena, case);
        let values = case.paths().into_iter().map(|path| (path, arena.value(path))).collect();
        (ran, values)
    });
    Cell { tool, verdict: judge(case, tool, &ran, &values), said: ran.said }
}

type Values = Vec<(&'static str, String)>;

fn judge(case: &Case, tool: Tool, ran: &Ran, values: &Values) -> Verdict {
    let Some(did) = difference(&case.want, tool, ran, values) else { return Verdict::Pass };
    let mut others = case.others.iter().filter(|(other, _, _)| *other == tool).peekable();
    if others.peek().is_none() {
        return match case.claimed_by.contains(&tool) {
            true => Verdict::Fail(did),
            false => Verdict::NoRule(did),
        };
    }
    match others.find(|(_, want, _)| difference(want, tool, ran, values).is_none()) {
        Some((_, _, says)) => Verdict::OtherRule(did, says),
        // Neither the case's rule nor its own.
        None => Verdict::Fail(did),
    }
}

/// What is not as wanted, in words.
fn difference(want: &Want, tool: Tool, ran: &Ran, values: &Values) -> Option<String> {
    let mut found = Vec::new();
    for (path, wanted) in &want.values {
        let value = values.iter().find(|(name, _)| name == path).map(|(_, value)| value.as_str());
        let value = value.unwrap_or_default();
        if value != *wanted {
            let value = if value.is_empty() { "(empty)" } else { value };
            found.push(format!("{} = {value}", short(path)));
        }
    }
    let ends = want.ends.filter(|_| tool.promises_exit_codes());
    if ends.is_some_and(|ends| !ends.fits(ran.code)) {
        found.push(format!("exit {}", ran.code));
    }
    (!found.is_empty()).then(|| found.join(", "))
}

/// A key as it is called where there is little room.
fn short(path: &str) -> &str {
    ["net/ipv4/conf/", "net/ipv4/", "net/core/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::super::case::{Ends, file, sets};
    use super::*;

    #[test]
    fn each_tool_is_held_to_its_own_rule() {
        const KEY: &str = "net/core/somaxconn";
        let case = file("case", "")
            .wants(sets(&[(KEY, "1")]).and_ends(Ends::Well))
            .claimed_by(&[Tool::Headroom, Tool::Systemd])
            .other(Tool::Systemd, sets(&[(KEY, "2")]), "elsewhere");
        let judged = |tool, value: &str, code| {
            let ran = Ran { code, said: String::new() };
            judge(&case, tool, &ran, &vec![(KEY, value.to_owned())])
        };
        let did = |text: &str| text.to_owned();
        assert_eq!(judged(Tool::Headroom, "1", 0), Verdict::Pass);
        assert_eq!(judged(Tool::Headroom, "1", 1), Verdict::Fail(did("exit 1")));
        assert_eq!(judged(Tool::Headroom, "2", 0), Verdict::Fail(did("somaxconn = 2")));
        assert_eq!(judged(Tool::Systemd, "1", 0), Verdict::Pass);
        let other = Verdict::OtherRule(did("somaxconn = 2, exit 1"), "elsewhere");
        assert_eq!(judged(Tool::Systemd, "2", 1), other);
        assert_eq!(judged(Tool::Systemd, "3", 0), Verdict::Fail(did("somaxconn = 3")));
        assert_eq!(judged(Tool::Procps, "", 0), Verdict::NoRule(did("somaxconn = (empty)")));
        assert_eq!(judged(Tool::Tuned, "1", 1), Verdict::Pass, "it promises no exit codes");
    }
}
