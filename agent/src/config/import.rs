//! What a host's `sysctl.d` sets, as a configuration that wants the same.
//!
//! What Headroom would refuse is left out, as a comment that says why: each line is judged by the
//! code that judges every configuration.

mod render;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::load::{Origin, judge};
use super::problem::Severity;
use crate::sysctl::catalogue;
use crate::sysctl::disk::glob::Pattern;
use crate::sysctl::disk::parse::Target;
use crate::sysctl::disk::{Assignment, Disk, reading, shown};
use crate::sysctl::key::Key;
use crate::sysctl::policy::OnConflict;
pub use render::render;

/// Most keys that one pattern becomes.
const MOST_EXPANDED: usize = 4096;

/// One key or pattern, and what is wanted for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The key or pattern in canonical form.
    pub key: String,
    /// Whether it is a pattern.
    pub glob: bool,
    /// The value, as it is wanted; escaped where it is refused.
    pub value: String,
    /// Whether readiness is to wait for it.
    pub required: bool,
    /// What is to happen when it is changed.
    pub on_conflict: OnConflict,
    /// The file that says so, escaped.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// Why it is left out, and what to do; absent where it is not.
    pub refused: Option<String>,
}

/// Everything that the files set: patterns first, in their order, then keys by name.
pub fn entries(disk: &Disk, list: &mut dyn FnMut(&str) -> Vec<String>) -> Vec<Entry> {
    let mut kept = Vec::new();
    let mut keys: BTreeMap<Key, Entry> = BTreeMap::new();
    for (pattern, one, ignore_failure) in disk.patterns() {
        if pattern.is_for_interfaces() {
            kept.push(of_pattern(disk, pattern, one, ignore_failure));
        } else {
            expand(disk, pattern, one, list, &mut keys, &mut kept);
        }
    }
    for (key, one, ignore_failure) in disk.exact() {
        let entry = match &one.value {
            Some(_) => Some(of_key(disk, key, one, ignore_failure)),
            None => excluded(disk, key, one),
        };
        if let Some(entry) = entry {
            keys.insert(key.clone(), entry);
        }
    }
    procps(disk, &mut keys, &mut kept);
    kept.extend(keys.into_values());
    kept.iter_mut().for_each(judged);
    kept
}

fn entry(disk: &Disk, name: String, example: Option<&Key>, one: &Assignment) -> Entry {
    let (file, line) = disk.origin(one);
    let mut entry = Entry {
        key: name,
        glob: false,
        value: String::new(),
        required: !one.ignore_failure,
        on_conflict: OnConflict::Enforce,
        file: file.to_owned(),
        line,
        notes: Vec::new(),
        refused: None,
    };
    value(&mut entry, example, one.value.as_deref().unwrap_or_default());
    entry
}

/// The value as a configuration may have it: what the kernel would make of it, in plain decimal.
fn value(entry: &mut Entry, key: Option<&Key>, text: &str) {
    let shape = key.and_then(catalogue::lookup).and_then(|entry| entry.shape());
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let words = words.join(" ");
    let Some(shape) = shape else {
        // Numbers or text, nobody knows; what a number must not look like is not certain.
        let doubtful = |word: &str| {
            let digits = word.trim_start_matches('-');
            digits.len() > 1
                && digits.starts_with('0')
                && digits.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, 'x' | 'X'))
        };
        if words.split(' ').any(doubtful) {
            entry.refused = Some(
                "the kernel may read the leading zero as octal or hexadecimal, and the key is not \
                 in the catalogue: write the number in plain decimal"
                    .to_owned(),
            );
        }
        text.trim().clone_into(&mut entry.value);
        return;
    };
    match reading::as_kernel(shape, text) {
        Ok(value) => {
            entry.value = value.to_string();
            let numbers = value.ints().is_some();
            if numbers && entry.value != words {
                entry.notes.push(format!("written as {}", shown(text)));
            }
        }
        Err(why) => {
            entry.value = shown(text);
            entry.refused = Some(why);
        }
    }
}

fn of_key(disk: &Disk, key: &Key, one: &Assignment, ignore_failure: bool) -> Entry {
    let mut entry = entry(disk, key.to_string(), Some(key), one);
    entry.required = !ignore_failure;
    for other in disk.losers(key) {
        let value = other.value.as_deref().map(shown).unwrap_or_default();
        entry.notes.push(format!("before it {} sets {value}", disk.place(other)));
    }
    entry
}

fn of_pattern(disk: &Disk, pattern: &Pattern, one: &Assignment, ignore_failure: bool) -> Entry {
    // All interfaces have the same shape.
    let example = catalogue::with_interface(&pattern.to_string(), "all")
        .and_then(|example| Key::parse(&example).ok());
    let mut entry = entry(disk, pattern.to_string(), example.as_ref(), one);
    entry.glob = true;
    entry.required = !ignore_failure;
    entry
}

/// Patterns that a configuration may not have become the keys that they match now.
fn expand(
    disk: &Disk,
    pattern: &Pattern,
    one: &Assignment,
    list: &mut dyn FnMut(&str) -> Vec<String>,
    keys: &mut BTreeMap<Key, Entry>,
    kept: &mut Vec<Entry>,
) {
    let (found, cut) = pattern.expand(list, MOST_EXPANDED);
    let none = found.is_empty();
    for key in found {
        let wins = disk.winner(&key).is_some_and(|(winner, _)| winner == one);
        if wins {
            let mut entry = of_key(disk, &key, one, one.ignore_failure);
            entry.notes.push(format!("matches {pattern} now; what appears later is not set"));
            keys.insert(key, entry);
        }
    }
    let refused = match (none, cut) {
        (true, _) => "no key matches it now, and a configuration has patterns of interfaces only",
        (_, true) => "it matches more than 4096 keys: those beyond are left out",
        _ => return,
    };
    let mut entry = of_pattern(disk, pattern, one, one.ignore_failure);
    entry.refused = Some(refused.to_owned());
    kept.push(entry);
}

/// A key that patterns are not to set: wanted as they say, and never written.
fn excluded(disk: &Disk, key: &Key, one: &Assignment) -> Option<Entry> {
    let pattern = disk.pattern_for(key)?;
    let Target::Pattern(glob) = &pattern.target else { return None };
    if !glob.is_for_interfaces() {
        return None;
    }
    let mut entry = entry(disk, key.to_string(), Some(key), pattern);
    let (file, line) = disk.origin(one);
    (entry.file, entry.line) = (file.to_owned(), line);
    entry.required = false;
    entry.on_conflict = OnConflict::Report;
    entry.notes.push(format!("excluded from {glob}: looked at, never written"));
    Some(entry)
}

/// What only `sysctl --system` would set is said, and left out.
fn procps(disk: &Disk, keys: &mut BTreeMap<Key, Entry>, kept: &mut Vec<Entry>) {
    for one in disk.only_procps().filter(|one| one.value.is_some()) {
        let only = "only `sysctl --system` reads this file, systemd-sysctl does not: uncomment it \
                    if it is wanted";
        match &one.target {
            Target::Key(key) => {
                if disk.winner_of_procps(key) != Some(one) {
                    continue;
                }
                let value = one.value.as_deref().map(shown).unwrap_or_default();
                match keys.get_mut(key) {
                    Some(entry) if entry.value == value => {}
                    Some(entry) => {
                        let place = disk.place(one);
                        entry.notes.push(format!("`sysctl --system` sets {value}, of {place}"));
                    }
                    None => {
                        let mut entry = of_key(disk, key, one, one.ignore_failure);
                        entry.refused.get_or_insert_with(|| only.to_owned());
                        keys.insert(key.clone(), entry);
                    }
                }
            }
            Target::Pattern(pattern) => {
                let mut entry = of_pattern(disk, pattern, one, one.ignore_failure);
                entry.refused = Some(only.to_owned());
                kept.push(entry);
            }
        }
    }
}

/// Has the entry judged as a configuration of its own.
fn judged(entry: &mut Entry) {
    let alone = render::head() + &render::policy(entry);
    let Err(error) = judge(Origin::Embedded, alone.as_bytes()) else { return };
    let errors = || error.problems.iter().filter(|problem| problem.severity == Severity::Error);
    // That a key is refused says more than what is wrong with its value.
    let refused = errors().find(|problem| problem.code == "key-refused");
    let found = match &entry.refused {
        Some(_) => refused,
        None => refused.or_else(|| errors().next()),
    };
    if let Some(found) = found {
        entry.refused = Some(found.message.clone());
        entry.value = shown(&entry.value);
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
