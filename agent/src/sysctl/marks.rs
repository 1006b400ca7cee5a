//! Notifications: which keys' files are watched, and what follows when one was written.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use super::engine::Engine;
use crate::kernel::netns::NetnsError;
use crate::kernel::touch::{FileId, Touches, Watcher};
use crate::kernel::who::Who;

/// The last write of a key that was seen and was not the agent's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastWrite {
    /// Who wrote it.
    pub who: Who,
    /// When that was noticed, in seconds since the epoch.
    pub at: u64,
}

impl LastWrite {
    /// A write that was noticed now.
    #[must_use]
    pub fn now(who: Who) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self { who, at: since.map_or(0, |since| since.as_secs()) }
    }
}

impl LastWrite {
    /// How long ago that was, in words.
    #[must_use]
    pub fn ago(&self) -> String {
        let since = Self::now(Who::Unknown).at.saturating_sub(self.at);
        format!("{} ago", humantime::format_duration(Duration::from_secs(since)))
    }
}

/// The files that are watched.
#[derive(Debug, Default)]
pub struct Marks {
    /// Where in the engine's list their keys are.
    keys: BTreeMap<FileId, usize>,
    /// How many files could not be watched, and why the first of them.
    unwatched: Option<(usize, String)>,
}

impl Engine {
    /// One pass over all keys, with the writers that notifications have named meanwhile; the
    /// files that it opened are watched from then on.
    pub fn pass_watching(&mut self, watcher: &mut Watcher, now: Instant) -> Result<(), NetnsError> {
        let touches = watcher.take();
        self.note_writers(&touches);
        self.pass(now)?;
        self.watch(watcher, now)
    }

    /// The same over what a link that came or went can have changed.
    pub fn appeared(&mut self, watcher: &mut Watcher, now: Instant) -> Result<(), NetnsError> {
        self.pass_appeared(now)?;
        self.watch(watcher, now)
    }

    /// What follows when files were written: only their keys are looked at. Notifications that
    /// were lost lead to a pass over all.
    pub fn touched(
        &mut self,
        watcher: &mut Watcher,
        touches: &Touches,
        now: Instant,
    ) -> Result<(), NetnsError> {
        let chosen = self.note_writers(touches);
        if touches.overflow {
            debug!("notifications were lost: every key is looked at");
            self.pass(now)?;
        } else {
            self.pass_over(chosen, now)?;
        }
        self.watch(watcher, now)
    }

    fn note_writers(&mut self, touches: &Touches) -> Vec<usize> {
        let mut chosen = BTreeSet::new();
        for touch in &touches.files {
            let Some(&index) = self.marks.keys.get(&touch.file) else { continue };
            let Some(managed) = self.keys.get_mut(index) else { continue };
            chosen.insert(index);
            if touch.who == Who::Unknown {
                continue;
            }
            // The sweep may have put it right before its notification was read.
            let named_late =
                managed.last_write.as_ref().is_some_and(|last| last.who == Who::Unknown);
            if named_late && managed.met() {
                info!(key = %managed.key, by = %touch.who, "the other writer is known now");
            }
            managed.last_write = Some(LastWrite::now(touch.who.clone()));
            managed.named = true;
        }
        chosen.into_iter().collect()
    }

    /// Brings the watched files in line with those that are open, and looks once more at those
    /// that are new: they can have been written before they were watched.
    fn watch(&mut self, watcher: &mut Watcher, now: Instant) -> Result<(), NetnsError> {
        let mut keys = BTreeMap::new();
        let mut new = Vec::new();
        let mut unwatched: Option<(usize, String)> = None;
        for (index, managed) in self.keys.iter_mut().enumerate() {
            let Some(file) = managed.watchable() else {
                if let Some(id) = managed.mark.take() {
                    self.marks.keys.remove(&id);
                    watcher.remove(id, managed.file.as_ref());
                }
                continue;
            };
            let id = match managed.mark {
                Some(id) if self.marks.keys.contains_key(&id) => id,
                _ => match watcher.add(file) {
                    Ok(id) => {
                        new.push(index);
                        id
                    }
                    Err(error) => {
                        // The sweep looks at it all the same.
                        unwatched.get_or_insert_with(|| (0, error.to_string())).0 += 1;
                        continue;
                    }
                },
            };
            managed.mark = Some(id);
            keys.insert(id, index);
        }
        for id in self.marks.keys.keys().filter(|id| !keys.contains_key(id)) {
            watcher.remove(*id, None);
        }
        self.marks.keys = keys;
        self.marks.unwatched = unwatched;
        if new.is_empty() { Ok(()) } else { self.pass_over(new, now) }
    }

    /// Why some keys are not watched, if so.
    #[must_use]
    pub fn unwatched(&self) -> Option<String> {
        let (count, why) = self.marks.unwatched.as_ref()?;
        Some(format!("{count} keys are not watched, and left to the sweep: {why}"))
    }

    /// The engine's list is another one: files that none of its keys has open are removed from
    /// the watcher when it is there again.
    pub(super) fn renumber_marks(&mut self) {
        let keys = self.keys.iter().enumerate();
        let now: BTreeMap<FileId, usize> =
            keys.filter_map(|(index, managed)| Some((managed.mark?, index))).collect();
        for (id, index) in &mut self.marks.keys {
            *index = now.get(id).copied().unwrap_or(usize::MAX);
        }
    }
}
