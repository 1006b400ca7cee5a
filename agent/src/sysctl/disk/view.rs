//! What one program makes of all lines: which of them it sets, and which wins.

use std::collections::{BTreeMap, HashMap};

use super::Disk;
use super::glob::Pattern;
use super::parse::Target;
use crate::sysctl::key::Key;

/// A line that is in force for its key or pattern.
#[derive(Clone, Copy, Debug)]
pub struct Won {
    /// Which of the assignments.
    pub index: usize,
    /// Whether it does not matter if it cannot be set.
    pub ignore_failure: bool,
}

/// The lines in force.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// For each key that a line names: that line, which may be an exclusion.
    pub exact: BTreeMap<Key, Won>,
    /// For each key that lines name: all of them, in order.
    pub named: HashMap<Key, Vec<usize>>,
    /// Patterns, in the order in which they are set.
    pub patterns: Vec<Won>,
}

impl View {
    /// systemd-sysctl keeps one assignment for each spelling (`parse_file`): a later one takes its
    /// place, an exclusion too, and goes to the end; one of the same value leaves the order as it
    /// is, and with a `-` adds that.
    pub fn systemd(disk: &Disk) -> Self {
        let mut view = Self::default();
        let mut order: BTreeMap<usize, Won> = BTreeMap::new();
        let mut places: HashMap<&Pattern, usize> = HashMap::new();
        for (index, one) in disk.assignments.iter().enumerate() {
            if !disk.files.get(one.file).is_some_and(|file| file.systemd) {
                continue;
            }
            let same = |won: &Won| {
                disk.assignments.get(won.index).is_some_and(|before| before.value == one.value)
            };
            let mut won = Won { index, ignore_failure: one.ignore_failure };
            match &one.target {
                Target::Key(key) => {
                    view.named.entry(key.clone()).or_default().push(index);
                    if let Some(before) = view.exact.get(key).filter(|won| same(won)) {
                        won.ignore_failure |= before.ignore_failure;
                    }
                    view.exact.insert(key.clone(), won);
                }
                Target::Pattern(pattern) => {
                    let before = places.get(pattern).and_then(|place| order.remove(place));
                    let place = match before {
                        Some(before) if same(&before) => {
                            won.ignore_failure |= before.ignore_failure;
                            places.get(pattern).copied().unwrap_or(index)
                        }
                        _ => index,
                    };
                    places.insert(pattern, place);
                    order.insert(place, won);
                }
            }
        }
        view.patterns = order.into_values().collect();
        view
    }

    /// `sysctl --system` sets one line after the other (procps 4.0, measured): an exclusion takes
    /// nothing back, and a pattern may come twice.
    pub fn procps(disk: &Disk) -> Self {
        let mut view = Self::default();
        for (index, one) in disk.assignments.iter().enumerate() {
            if !disk.files.get(one.file).is_some_and(|file| file.procps) {
                continue;
            }
            let won = Won { index, ignore_failure: one.ignore_failure };
            match &one.target {
                Target::Key(key) if one.value.is_some() => {
                    view.exact.insert(key.clone(), won);
                }
                Target::Key(key) => {
                    view.exact.entry(key.clone()).or_insert(won);
                }
                Target::Pattern(_) => view.patterns.push(won),
            }
        }
        view
    }

    /// The line that sets a key: one that names it, wherever it stands, before any pattern.
    pub fn winner(&self, disk: &Disk, key: &Key) -> Option<Won> {
        match self.exact.get(key) {
            Some(won) => disk.assignments.get(won.index)?.value.is_some().then_some(*won),
            None => self.pattern(disk, key),
        }
    }

    /// The last pattern that matches a key.
    pub fn pattern(&self, disk: &Disk, key: &Key) -> Option<Won> {
        let sets = |won: &&Won| {
            let one = disk.assignments.get(won.index);
            one.is_some_and(|one| one.value.is_some() && one.target.covers(key))
        };
        self.patterns.iter().rev().find(sets).copied()
    }
}
