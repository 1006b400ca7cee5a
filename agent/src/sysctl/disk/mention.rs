//! All lines about one key, and what came of each.

use schemars::JsonSchema;
use serde::Serialize;

use super::parse::Target;
use super::{Assignment, Disk, shown};
use crate::kernel::sysctl_d::SYSCTL_CONF;
use crate::sysctl::key::Key;

/// A line that concerns a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Mention {
    /// The file on the host, escaped.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The value, escaped; absent where the line excludes the key from patterns.
    pub value: Option<String>,
    /// Whether this is what systemd-sysctl sets at boot.
    pub wins: bool,
    /// Whether it was written with a `-`, so that it does not matter if it cannot be set.
    pub ignore_failure: bool,
    /// The pattern, if it is one.
    pub glob: Option<String>,
    /// What else there is to know about it.
    pub note: Option<String>,
}

impl Disk {
    /// Every line that concerns a key, in the order of the files.
    #[must_use]
    pub fn mentions(&self, key: &Key) -> Vec<Mention> {
        let systemd = self.systemd.winner(self, key).map(|won| won.index);
        let procps = self.procps.winner(self, key).map(|won| won.index);
        let concerns =
            self.assignments.iter().enumerate().filter(|(_, one)| one.target.covers(key));
        concerns
            .map(|(index, one)| Mention {
                file: self.path(one).to_owned(),
                line: one.line,
                value: one.value.as_deref().map(shown),
                wins: systemd == Some(index),
                ignore_failure: one.ignore_failure,
                glob: match &one.target {
                    Target::Key(_) => None,
                    Target::Pattern(pattern) => Some(pattern.to_string()),
                },
                note: self.note(key, one, procps == Some(index) && procps != systemd),
            })
            .collect()
    }

    fn note(&self, key: &Key, one: &Assignment, wins_under_procps: bool) -> Option<String> {
        let file = self.files.get(one.file)?;
        if let Some(masker) = &file.masked_by {
            return Some(format!("not read: {masker} masks the file"));
        }
        let mut notes = Vec::new();
        if !file.systemd {
            let order = if file.path == SYSCTL_CONF { ", after all others" } else { "" };
            notes.push(format!("read only by `sysctl --system`{order}"));
        }
        if let Some(target) = &file.link {
            notes.push(format!("a link to {target}"));
        }
        if one.value.is_none() {
            notes.push("keeps patterns from setting it".to_owned());
        } else if matches!(one.target, Target::Pattern(_)) {
            let exact = self.systemd.exact.get(key).and_then(|won| self.assignments.get(won.index));
            match exact {
                Some(exact) if exact.value.is_none() => {
                    notes.push(format!("excluded by {}", self.place(exact)));
                }
                Some(exact) => {
                    let place = self.place(exact);
                    notes.push(format!("{place} names the key, which goes before a pattern"));
                }
                None => {}
            }
        }
        if wins_under_procps {
            notes.push("wins under `sysctl --system`".to_owned());
        }
        Some(notes.join("; ")).filter(|note| !note.is_empty())
    }
}
