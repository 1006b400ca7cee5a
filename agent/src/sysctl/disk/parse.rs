//! Lines of `sysctl.d(5)`, as systemd-sysctl reads them.

use super::glob::{Pattern, PatternError};
use crate::kernel::name::escape;
use crate::sysctl::key::{Key, KeyError};

/// Longest piece of a line that is shown.
const MOST_SHOWN: usize = 80;

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// One key.
    Key(Key),
    /// All keys that match.
    Pattern(Pattern),
}

impl Target {
    /// Whether it is about this key.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        match self {
            Self::Key(one) => one == key,
            Self::Pattern(pattern) => pattern.matches(key),
        }
    }
}

/// A line that says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What it is about.
    pub target: Target,
    /// The value, without surrounding white space. `None`: patterns are not to set the key.
    pub value: Option<String>,
    /// Whether it does not matter if the value cannot be set.
    pub ignore_failure: bool,
    /// What is odd about it, though it is understood.
    pub odd: Option<String>,
}

/// Understands a line. `None`: it is empty or a comment. An error says what is wrong and what to
/// do, escaped.
pub fn line(bytes: &[u8]) -> Option<Result<Line, String>> {
    let text = strip(bytes);
    if text.first().is_none_or(|first| matches!(first, b'#' | b';')) {
        return None;
    }
    Some(assignment(text))
}

fn assignment(text: &[u8]) -> Result<Line, String> {
    let (dash, rest) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (name, value) = match rest.iter().position(|&byte| byte == b'=') {
        Some(at) => {
            let (name, value) = rest.split_at(at);
            (name, Some(strip(value.get(1..).unwrap_or_default())))
        }
        None if dash => (rest, None),
        None => {
            return Err(format!("`{}` is no assignment: write key = value", shown(text)));
        }
    };
    let (target, respelled) = target(strip(name))?;
    let value = value.map(|value| text_of(value, &target)).transpose()?;
    let odd = respelled.map(|canonical| {
        format!(
            "`{}` is read as {canonical}: write it so, since not every program reads it alike",
            shown(strip(name))
        )
    });
    Ok(Line { target, ignore_failure: dash && value.is_some(), value, odd })
}

fn text_of(value: &[u8], target: &Target) -> Result<String, String> {
    let bad = |what: &str| {
        let key = match target {
            Target::Key(key) => key.to_string(),
            Target::Pattern(pattern) => pattern.to_string(),
        };
        format!("the value of {key} has {what}: `{}`", shown(value))
    };
    let text = std::str::from_utf8(value).map_err(|_| bad("bytes that are no text"))?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(bad("control characters"));
    }
    Ok(text.to_owned())
}

/// What a name means, and its canonical spelling if it was another one that systemd mends.
fn target(name: &[u8]) -> Result<(Target, Option<String>), String> {
    if name.is_empty() {
        return Err("there is no key: write key = value".to_owned());
    }
    let wrong = |error: PatternError| format!("`{}`: {error}", shown(name));
    let text = std::str::from_utf8(name).map_err(|_| wrong(KeyError::Character.into()))?;
    let (path, respelled) = normalize(text);
    // A key of one component, or one whose first component has a dot: the kernel has none.
    if path.chars().find(|c| matches!(c, '/' | '.')) != Some('/') {
        return Err(wrong(KeyError::TooShort.into()));
    }
    if let Some(below) = path.strip_prefix("proc/sys/") {
        return Err(format!(
            "`{}` is looked for in /proc/sys/proc/sys: write {}",
            shown(name),
            escape(below.as_bytes())
        ));
    }
    let (target, canonical) = if Pattern::is_one(&path) {
        let pattern = Pattern::new(&path).map_err(wrong)?;
        let canonical = pattern.to_string();
        (Target::Pattern(pattern), canonical)
    } else {
        let key = Key::parse(&path).map_err(|error| wrong(error.into()))?;
        let canonical = key.to_string();
        (Target::Key(key), canonical)
    };
    Ok((target, respelled.then_some(canonical)))
}

/// The path below `/proc/sys`: if the first separator is a dot, dots and slashes change places;
/// then empty and `.` components go (systemd's `sysctl_normalize`). Whether any went.
fn normalize(name: &str) -> (String, bool) {
    let swapped: String = match name.chars().find(|c| matches!(c, '.' | '/')) {
        Some('.') => name.chars().map(swap).collect(),
        _ => name.to_owned(),
    };
    let parts = swapped.split('/').filter(|part| !matches!(*part, "" | "."));
    let path = parts.collect::<Vec<_>>().join("/");
    let changed = path.len() != swapped.len();
    (path, changed)
}

fn swap(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        c => c,
    }
}

/// systemd's white space.
fn strip(bytes: &[u8]) -> &[u8] {
    let white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let start = bytes.iter().position(|byte| !white(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !white(byte)).map_or(start, |at| at + 1);
    bytes.get(start..end).unwrap_or_default()
}

/// The beginning of what a file holds, escaped.
pub fn shown(bytes: &[u8]) -> String {
    match bytes.get(..MOST_SHOWN) {
        Some(beginning) if bytes.len() > MOST_SHOWN => format!("{}...", escape(beginning)),
        _ => escape(bytes),
    }
}

/// The lines of a file. systemd's `read_line` ends one at a line feed, a carriage return or a NUL,
/// and takes different ones in a row for one end, so that `\r\n` counts once.
pub fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes).filter(|bytes| !bytes.is_empty());
    std::iter::from_fn(move || {
        let bytes = rest?;
        let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
        let Some(end) = bytes.iter().position(is_end) else {
            rest = None;
            return Some(bytes);
        };
        let (line, ends) = bytes.split_at(end);
        let mut seen: Vec<u8> = Vec::new();
        for byte in ends {
            // After a NUL the next byte is the next line's.
            if !is_end(byte) || seen.contains(byte) || seen.contains(&0) {
                break;
            }
            seen.push(*byte);
        }
        rest = ends.get(seen.len()..).filter(|rest| !rest.is_empty());
        Some(line)
    })
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
