//! Facts 3.1: the catalogue that is compiled in, held against this kernel, line by line.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

use headroom::kernel::netns::{HostNet, host_net};
use headroom::sysctl::catalogue::{self, Entry, NewNetns, Scope};
use headroom::sysctl::key::Key;
use headroom_tests::{SavedSysctls, root_or_skip};

use super::support::{Answer, exists, fresh, full, kernel, number, set, words, write};

/// A key's file in one namespace; `None`: not there.
type Seen = Option<File>;

#[derive(Clone, Debug, PartialEq)]
struct File {
    value: Answer<String>,
    writable: bool,
}

fn look(path: &str) -> Seen {
    exists(path).then(|| File {
        value: words(path),
        writable: OpenOptions::new().write(true).open(full(path)).is_ok(),
    })
}

/// One line of the catalogue, and the file that stands for it.
struct Line {
    entry: Entry,
    /// The file in a new namespace.
    path: String,
    /// Where the host has the value that a new namespace may copy.
    model: String,
}

/// The lines about `net`. For an interface stand `all` and `default`; a neighbor table's settings
/// of `lo` come from the table's own, `neigh.default`.
fn lines() -> Vec<Line> {
    let mut lines = Vec::new();
    for entry in catalogue::all().filter(|entry| entry.key().starts_with("net.")) {
        let names: &[[&str; 2]] = match entry.key() {
            key if key.contains(".neigh.*.") => &[["lo", "default"]],
            key if key.contains(".mpls.conf.*.") => &[["lo", "lo"]],
            _ => &[["all", "all"], ["default", "default"]],
        };
        let names = if entry.key().contains('*') { names } else { &names[..1] };
        for [name, model] in names {
            let path = |name: &str| {
                let key = Key::parse(&entry.key().replace('*', name)).unwrap();
                key.path().to_str().unwrap().to_owned()
            };
            lines.push(Line { entry, path: path(name), model: path(model) });
        }
    }
    lines
}

/// What the catalogue says of a new namespace on this kernel.
fn expected(line: &Line) -> NewNetns {
    let version = kernel();
    let entry = &line.entry;
    if entry.namespaced_since().is_some_and(|since| version < since) {
        return NewNetns::Absent;
    }
    let buffers = ["net.core.rmem_", "net.core.wmem_"];
    match entry.new_netns().unwrap() {
        // Shown read-only since 6.11 (19249c0724f2); before that there was no file.
        NewNetns::Global
            if version < (6, 11) && buffers.iter().any(|start| entry.key().starts_with(start)) =>
        {
            NewNetns::Absent
        }
        new => new,
    }
}

/// A value that no namespace has by itself, where one can be made up.
fn perturbed(file: &File) -> Option<String> {
    let value: i64 = file.value.as_ref().ok()?.parse().ok()?;
    Some(if value > 0 { value - 1 } else { value + 1 }.to_string())
}

/// Facts 3.1: every key of the catalogue that this kernel has: whether a new namespace has it, may
/// write it, and where its value comes from.
#[test]
fn the_catalogue_is_right_about_new_namespaces() {
    let Some(host) = root_or_skip() else { return };
    assert_eq!(host_net(Path::new("/proc")), HostNet::Initial);
    // What the catalogue says is said of the kernel's own way of copying interfaces' settings.
    let inherit = "net/core/devconf_inherit_init_net";
    let _saved = SavedSysctls::new(&host, [inherit]);
    if number(inherit) != 0 {
        set(inherit, 0);
    }
    let lines = lines();
    let all = || -> Vec<Seen> { lines.iter().map(|line| look(&line.path)).collect() };
    let host: Vec<Seen> = lines.iter().map(|line| look(&line.model)).collect();
    let first = fresh(all);
    // Made by somebody in a namespace where everything that can be is set to something else.
    let second = fresh(|| {
        for (line, seen) in lines.iter().zip(&first) {
            // The next namespace's tables are sized by some, on purpose.
            let kept = line.path.contains("_child_")
                || ["oneway", "shared", "sideeffect"].iter().any(|flag| line.entry.has(flag));
            let value = seen.as_ref().filter(|file| file.writable && !kept);
            if let Some(value) = value.and_then(perturbed) {
                // Some bound each other, and refuse.
                let _ = write(&line.path, &value);
            }
        }
        let changed = all().iter().zip(&first).filter(|(now, before)| now != before).count();
        assert!(changed > 100, "only {changed} keys could be changed");
        fresh(all)
    });

    let mut wrong = BTreeMap::new();
    for (line, before) in lines.iter().zip(&host) {
        let after = look(&line.model);
        if after != *before {
            let change = format!("a write in a namespace changed the host's to {after:?}");
            wrong.insert(&line.path, change);
        }
    }
    let mut kinds = BTreeMap::<_, usize>::new();
    for (((line, host), first), second) in lines.iter().zip(&host).zip(&first).zip(&second) {
        let Some(host) = host else {
            // No such module, option or version here. Nothing of the kernel's is in a namespace alone.
            if first.is_some() {
                wrong.insert(&line.path, "the host does not have it".to_owned());
            }
            continue;
        };
        let new = expected(line);
        *kinds.entry(format!("{new:?}")).or_default() += 1;
        if let Some(mismatch) = mismatch(line, new, host, first, second) {
            wrong.insert(&line.path, format!("{new:?}: {mismatch}"));
        }
    }
    assert!(wrong.is_empty(), "{} lines are wrong: {wrong:#?}", wrong.len());
    assert!(kinds["Reset"] > 80 && kinds["Copied"] > 50 && kinds["Absent"] > 20, "{kinds:?}");
}

fn mismatch(
    line: &Line,
    new: NewNetns,
    host: &File,
    first: &Seen,
    second: &Seen,
) -> Option<String> {
    if new == NewNetns::Absent {
        return first.as_ref().map(|file| format!("it is there: {file:?}"));
    }
    let (Some(first), Some(second)) = (first, second) else {
        return Some("it is not there".to_owned());
    };
    let writable = match new {
        NewNetns::Global => line.entry.has("shared"),
        _ => !line.entry.has("readonly"),
    };
    if first.writable != writable {
        return Some(format!("writable: {}", first.writable));
    }
    if first != second {
        return Some(format!("depends on who makes it: {:?}, {:?}", first.value, second.value));
    }
    match new {
        NewNetns::Copied | NewNetns::Global if first.value != host.value => {
            Some(format!("the host has {:?}, it has {:?}", host.value, first.value))
        }
        NewNetns::Reset => {
            // Older kernels had other defaults for some; the catalogue has one for each key.
            let default =
                line.entry.default().filter(|text| kernel() >= (6, 1) && is_plain(text))?;
            (first.value.as_deref() != Ok(default))
                .then(|| format!("the default is {default}, it has {:?}", first.value))
        }
        _ => None,
    }
}

/// Whether a default is what the file shows, and not words about it.
fn is_plain(default: &str) -> bool {
    default.split(' ').all(|word| word.parse::<i64>().is_ok())
}

/// Facts 3.1: what is a network namespace's is in every one; what is the kernel's or another kind's
/// is not a namespace's to write.
#[test]
fn every_line_about_net_says_what_a_new_namespace_gets() {
    for line in lines() {
        let new = line.entry.new_netns();
        let consistent = match line.entry.scope() {
            Scope::Netns => {
                matches!(new, Some(NewNetns::Reset | NewNetns::Copied | NewNetns::Computed))
            }
            Scope::Host => matches!(new, Some(NewNetns::Absent | NewNetns::Global)),
            _ => false,
        };
        assert!(consistent, "{}: {new:?}", line.entry.key());
    }
}
