//! Facts 3.1: the catalogue that is compiled in, held against this kernel, line by line.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::Path;

use headroom::kernel::netns::{HostNet, host_net};
use headroom::sysctl::catalogue::{self, Entry, NewNetns, Scope};
use headroom::sysctl::inherit::{Devconf, Gets, expected};
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
    /// The key of the file in a new namespace.
    key: Key,
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
            let key = |name: &str| Key::parse(&entry.key().replace('*', name)).unwrap();
            let path = |name: &str| key(name).path().to_str().unwrap().to_owned();
            lines.push(Line { entry, key: key(name), path: path(name), model: path(model) });
        }
    }
    lines
}

/// A value that no namespace has by itself, where one can be made up.
fn perturbed(file: &File) -> Option<String> {
    let value: i64 = file.value.as_ref().ok()?.parse().ok()?;
    Some(if value > 0 { value - 1 } else { value + 1 }.to_string())
}

/// Facts 3.1: every key of the catalogue that this kernel has: whether a new namespace has it, may
/// write it, and where its value comes from, whatever `devconf_inherit_init_net` says.
#[test]
fn the_catalogue_is_right_about_new_namespaces() {
    let Some(host) = root_or_skip() else { return };
    assert_eq!(host_net(Path::new("/proc")), HostNet::Initial);
    let inherit = "net/core/devconf_inherit_init_net";
    let _saved = SavedSysctls::new(&host, [inherit]);
    let lines = lines();
    let mut wrong = BTreeMap::new();
    for value in 0..4 {
        if number(inherit) != value {
            set(inherit, value);
        }
        for (path, why) in hold(&lines, Devconf::from_value(value)) {
            wrong.insert((value, path), why);
        }
    }
    assert!(wrong.is_empty(), "{} lines are wrong: {wrong:#?}", wrong.len());
}

/// What of the catalogue is wrong here.
fn hold(lines: &[Line], devconf: Devconf) -> Vec<(String, String)> {
    let all = || -> Vec<Seen> { lines.iter().map(|line| look(&line.path)).collect() };
    let host: Vec<Seen> = lines.iter().map(|line| look(&line.model)).collect();
    let first = fresh(all);
    // Made by somebody in a namespace where everything that can be is set to something else.
    let (creator, second) = fresh(|| {
        let begun = all();
        for (line, seen) in lines.iter().zip(&begun) {
            // The next namespace's tables are sized by some, on purpose.
            let kept = line.path.contains("_child_")
                || ["oneway", "shared", "sideeffect"].iter().any(|flag| line.entry.has(flag));
            let value = seen.as_ref().filter(|file| file.writable && !kept);
            if let Some(value) = value.and_then(perturbed) {
                // Some bound each other, and refuse.
                let _ = write(&line.path, &value);
            }
        }
        let creator = all();
        let changed = creator.iter().zip(&begun).filter(|(now, before)| now != before).count();
        assert!(changed > 100, "only {changed} keys could be changed");
        (creator, fresh(all))
    });

    let mut wrong = Vec::new();
    let mut kinds = BTreeMap::<_, usize>::new();
    for (index, line) in lines.iter().enumerate() {
        let after = look(&line.model);
        if after != host[index] {
            let change = format!("a write in a namespace changed the host's to {after:?}");
            wrong.push((line.path.clone(), change));
        }
        let Some(host) = &host[index] else {
            // No such module, option or version here. Nothing of the kernel's is in a namespace alone.
            if first[index].is_some() {
                wrong.push((line.path.clone(), "the host does not have it".to_owned()));
            }
            continue;
        };
        let gets = expected(&line.key, kernel(), devconf);
        *kinds.entry(format!("{gets:?}")).or_default() += 1;
        // Of interfaces the creator's are copied, of the rest the host's.
        let by_creator = devconf == Devconf::Creator
            && (line.path.contains("/conf/") || line.path.ends_with("/ip_forward"));
        let model = if by_creator { creator[index].as_ref().unwrap_or(host) } else { host };
        let seen = [(host, &first[index]), (model, &second[index])];
        for (model, seen) in seen {
            if let Some(mismatch) = mismatch(line, gets, model, seen) {
                wrong.push((line.path.clone(), format!("{gets:?}: {mismatch}")));
            }
        }
        if first[index] != second[index] && !(by_creator && gets == Gets::Copied) {
            let two = format!("{:?}, {:?}", first[index], second[index]);
            wrong.push((line.path.clone(), format!("depends on who makes it: {two}")));
        }
    }
    assert!(kinds["Own"] > 80 && kinds["Copied"] > 20 && kinds["Absent"] > 20, "{kinds:?}");
    wrong
}

fn mismatch(line: &Line, gets: Gets, model: &File, seen: &Seen) -> Option<String> {
    if gets == Gets::Absent {
        return seen.as_ref().map(|file| format!("it is there: {file:?}"));
    }
    let Some(seen) = seen else {
        return Some("it is not there".to_owned());
    };
    let writable = gets != Gets::ReadOnly && !line.entry.has("readonly");
    if seen.writable != writable {
        return Some(format!("writable: {}", seen.writable));
    }
    match gets {
        Gets::Copied | Gets::ReadOnly | Gets::Shared if seen.value != model.value => {
            Some(format!("the model has {:?}, it has {:?}", model.value, seen.value))
        }
        Gets::Own => {
            // Older kernels had other defaults for some; the catalogue has one for each key.
            let default =
                line.entry.default().filter(|text| kernel() >= (6, 1) && is_plain(text))?;
            (seen.value.as_deref() != Ok(default))
                .then(|| format!("the default is {default}, it has {:?}", seen.value))
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
