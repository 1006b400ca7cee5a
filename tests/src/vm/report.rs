//! The document: how the tests went on each kernel, and where the kernels differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::kernels::Kernel;
use crate::results::{Results, Tests};

const INTRODUCTION: &str = "\
# Kernel versions compared

Written by `make vm-test`. Each test binary gets a virtual machine of its own on each of Debian's kernels (qemu, \
emulated in software, 2 processors, 1 GiB, no disk, no network). It boots from an archive in memory: the usual \
programs, the kernel's own modules, the agent built statically as the image's is, and the test binary, static too. A \
test that fails there is a finding about that kernel; nothing here depends on time.

";

/// One kernel and what came of it.
type One = (Kernel, Results);

/// The whole document.
pub fn document(all: &[One]) -> String {
    let mut text = INTRODUCTION.to_owned();
    text += "| kernel | Debian package |\n| --- | --- |\n";
    for (kernel, _) in all {
        let _ = writeln!(text, "| {} | `{} |", kernel.release, kernel.package.replace(" ", "` "));
    }
    text += "\n## Tests\n\nPassed / failed / ignored (processes that other tests start).\n\n";
    tests(&mut text, all);
    let facts = Facts(all);
    text += "\n## What a write, an interface or a new namespace does\n\n";
    facts.table(&mut text, facts.names(|name| group(name).is_empty()));
    text += "\n## Defaults that differ\n\n\
        The host's value; after a comma what a new network namespace begins with, where that is something else. \
        Numbers within 5 % of each other are alike: they come from the memory that a kernel leaves. *none*: the key \
        is not there. Everything else in `/proc/sys` is the same on all.\n\n";
    facts.table(&mut text, facts.names(|name| group(name) == "default"));
    text += "\n## What a new network namespace copies from the host\n\n\
        Measured key by key: changed on the host, read in a namespace made after that (*copied*) and in one made \
        before (*shared*). All other keys start from the kernel's default.\n\n";
    facts.inherited(&mut text);
    text
}

fn heading(text: &mut String, first: &str, all: &[One]) {
    let names = all.iter().map(|(kernel, _)| kernel.release.as_str());
    let _ = writeln!(text, "| {first} | {} |", names.collect::<Vec<_>>().join(" | "));
    let _ = writeln!(text, "| --- |{}", " --- |".repeat(all.len()));
}

fn tests(text: &mut String, all: &[One]) {
    heading(text, "test binary", all);
    let mut names: Vec<&str> = Vec::new();
    for tests in all.iter().flat_map(|(_, results)| &results.tests) {
        if !names.contains(&tests.name.as_str()) {
            names.push(&tests.name);
        }
    }
    for name in names {
        let cell = |(_, results): &One| {
            let tests = results.tests.iter().find(|tests| tests.name == name);
            tests.map_or("did not run".to_owned(), how)
        };
        let cells: Vec<String> = all.iter().map(cell).collect();
        let _ = writeln!(text, "| `{name}` | {} |", cells.join(" | "));
    }
    text.push('\n');
    for (kernel, results) in all {
        for tests in &results.tests {
            for failed in &tests.failed {
                let _ = writeln!(text, "- {}: `{}` `{failed}` failed", kernel.release, tests.name);
            }
        }
    }
}

fn how(tests: &Tests) -> String {
    let [passed, failed, ignored] = tests.counts;
    tests.fault.clone().unwrap_or(format!("{passed} / {failed} / {ignored}"))
}

/// What the first word of a fact says it is about; empty for what stands by itself.
fn group(name: &str) -> &str {
    let first = name.split(' ').next().unwrap_or_default();
    if ["default", "child", "inherit"].contains(&first) { first } else { "" }
}

/// The fact about the same key in a new network namespace.
fn inside(name: &str) -> String {
    name.replacen("default", "child", 1)
}

struct Facts<'a>(&'a [One]);

impl Facts<'_> {
    fn names(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<&str> {
        let names = self.0.iter().flat_map(|(_, results)| results.facts.keys());
        names.map(String::as_str).filter(|name| wanted(name)).collect()
    }

    fn get(&self, kernel: usize, name: &str) -> Option<&str> {
        self.0[kernel].1.facts.get(name).map(String::as_str)
    }

    fn is_alike(&self, name: &str) -> bool {
        let values = (0..self.0.len()).map(|kernel| self.get(kernel, name).unwrap_or("none"));
        are_alike(&values.collect::<Vec<_>>())
    }

    /// What a table shows of a fact on one kernel.
    fn cell(&self, kernel: usize, name: &str) -> String {
        let here = self.get(kernel, name);
        if group(name) != "default" {
            return here.unwrap_or("–").to_owned();
        }
        let inside = self.get(kernel, &inside(name));
        match (here, inside) {
            (None, _) => "*none*".to_owned(),
            (Some(here), Some(inside)) if !are_alike(&[here, inside]) => {
                format!("{}, {}", cut(here), cut(inside))
            }
            (Some(here), _) => cut(here),
        }
    }

    /// A row for each fact; of defaults only those that differ.
    fn table(&self, text: &mut String, names: BTreeSet<&str>) {
        heading(text, "", self.0);
        for name in names {
            let cells = (0..self.0.len()).map(|kernel| self.cell(kernel, name));
            let label = name.strip_prefix("default ").map(|key| format!("`{key}`"));
            if label.is_some() && self.is_alike(name) && self.is_alike(&inside(name)) {
                continue;
            }
            let cells: Vec<String> = cells.map(|cell| cell.replace('|', "\\|")).collect();
            let _ =
                writeln!(text, "| {} | {} |", label.unwrap_or(name.to_owned()), cells.join(" | "));
        }
    }

    /// The keys that are copied or shared, and on which kernels if not on all that have them.
    fn inherited(&self, text: &mut String) {
        let mut keys_of = BTreeMap::<String, Vec<String>>::new();
        for name in self.names(|name| group(name) == "inherit") {
            let mut kernels_of = BTreeMap::<&str, Vec<&str>>::new();
            for (kernel, results) in self.0 {
                if let Some(what) = results.facts.get(name) {
                    kernels_of.entry(what).or_default().push(&kernel.release);
                }
            }
            let on = |(what, kernels): (&&str, &Vec<&str>)| {
                format!("{what} on {}", kernels.join(" and "))
            };
            let label = match kernels_of.len() {
                1 => kernels_of.into_keys().collect(),
                _ => kernels_of.iter().map(on).collect::<Vec<_>>().join(", "),
            };
            let key = name.trim_start_matches("inherit ");
            keys_of.entry(label).or_default().push(format!("`{key}`"));
        }
        for (label, keys) in keys_of.iter().filter(|(label, _)| *label != "reset") {
            let _ = writeln!(text, "- {label}: {}.", keys.join(", "));
        }
    }
}

/// Longer values say nothing at a glance.
fn cut(value: &str) -> String {
    match value.char_indices().nth(48) {
        Some((end, _)) => format!("{}…", &value[..end]),
        None => value.to_owned(),
    }
}

/// Equal, or made of numbers that differ by 5 % at most.
fn are_alike(values: &[&str]) -> bool {
    values.windows(2).all(|pair| {
        let words = pair.iter().map(|value| value.split_whitespace().collect::<Vec<_>>());
        let [one, other] = &words.collect::<Vec<_>>()[..] else { return true };
        let close = |(one, other): (&&str, &&str)| {
            let numbers = (one.parse::<f64>(), other.parse::<f64>());
            // Small numbers are chosen, not computed.
            one == other
                || matches!(numbers, (Ok(a), Ok(b)) if a.min(b) > 100.0 && (a - b).abs() <= 0.05 * a.max(b))
        };
        one.len() == other.len() && one.iter().zip(other).all(close)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_machines_memory_are_alike() {
        assert!(are_alike(&["7800 x", "7690 x", "7701 x"]));
        assert!(are_alike(&["", ""]) && are_alike(&[]));
        for [one, other] in [["4096", "8192"], ["20", "21"], ["1 2", "1"], ["a", "b"], ["0", "1"]] {
            assert!(!are_alike(&[one, other]), "{one} {other}");
        }
    }

    fn one(release: &str, facts: &[(&str, &str)]) -> One {
        let kernel = Kernel {
            release: release.to_owned(),
            package: "linux 1-2".to_owned(),
            image: "image".into(),
            modules: "modules".into(),
        };
        let facts = facts.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let tests = vec![Tests { name: "some".to_owned(), counts: [1, 0, 2], ..Tests::default() }];
        (kernel, Results { tests, facts: facts.collect() })
    }

    #[test]
    fn only_what_differs_is_shown_of_defaults() {
        let old = [
            ("default net.a", "1"),
            ("child net.a", "1"),
            ("default net.b", "20480"),
            ("child net.b", "absent"),
            ("write `010`", "8"),
            ("inherit net.a", "copied"),
            ("inherit net.b", "reset"),
            ("inherit net.d", "reset"),
        ];
        let new = [
            ("default net.a", "1"),
            ("child net.a", "1"),
            ("default net.b", "131072"),
            ("child net.b", "131072"),
            ("default net.c", "x"),
            ("child net.c", "x"),
            ("write `010`", "8"),
            ("inherit net.a", "copied"),
            ("inherit net.b", "copied"),
        ];
        let text = document(&[one("6.1", &old), one("7.0", &new)]);
        for line in [
            "| kernel | Debian package |",
            "| 6.1 | `linux` 1-2 |",
            "| `some` | 1 / 0 / 2 | 1 / 0 / 2 |",
            "| write `010` | 8 | 8 |",
            "| `net.b` | 20480, absent | 131072 |",
            "| `net.c` | *none* | x |",
            "- copied: `net.a`.",
            "- copied on 7.0, reset on 6.1: `net.b`.",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(!text.contains("| `net.a` |") && !text.contains("net.d"), "{text}");
    }
}
