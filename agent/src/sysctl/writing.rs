//! The engine's writes: one `write(2)` a key, read back.

use tracing::{debug, info, warn};

use super::engine::{Chosen, Engine};
use super::managed::{Seen, WriteResult, show};
use super::plan::Change;
use super::siblings::{changes_others, circumstances, reached, read_back};
use crate::kernel::sysctl_file::{SysctlFile, WriteError};

impl Engine {
    pub(super) fn write_and_look(&mut self, changes: Vec<Change>, chosen: &Chosen) -> usize {
        let before = self.counters.ok;
        let mut along = false;
        for change in changes {
            // An earlier write may have changed this key along, as that of conf.default does.
            if along && self.is_met_by_now(&change) {
                continue;
            }
            along |= changes_others(&change.key);
            let result = self.write_one(&change);
            let counter = match result {
                WriteResult::Ok => {
                    self.written.push(change.key.clone());
                    &mut self.counters.ok
                }
                WriteResult::Rejected => &mut self.counters.rejected,
                WriteResult::Denied => &mut self.counters.denied,
                WriteResult::Mismatch => &mut self.counters.mismatch,
                WriteResult::Overtaken => {
                    self.overtaken = true;
                    continue;
                }
            };
            *counter += 1;
        }
        // A write can change other keys too.
        self.look(chosen);
        usize::try_from(self.counters.ok - before).unwrap_or(usize::MAX)
    }

    /// Whether there is nothing to write any more: what is there is our doing all the same.
    fn is_met_by_now(&mut self, change: &Change) -> bool {
        self.look_without_following(&vec![change.index]);
        let Some(managed) = self.keys.get(change.index) else { return false };
        let (true, Some(text)) = (managed.met(), managed.text()) else { return false };
        self.ledger.stored(&change.key, &change.to.to_string(), text, managed.is_rounded());
        true
    }

    fn write_one(&mut self, change: &Change) -> WriteResult {
        let mode = self.mode();
        let Some(managed) = self.keys.get_mut(change.index) else { return WriteResult::Denied };
        let Some(file) = &managed.file else { return WriteResult::Denied };
        let text_before = managed.text().map(str::to_owned);
        let expected = self.expected.get(&change.key);
        let others = reached(&self.tree, &self.ledger, &change.key);
        if expected.is_some_and(|expected| !has(file, expected.as_deref(), &mut self.buffer)) {
            others.iter().for_each(|(key, _)| self.ledger.stayed(key));
            self.ledger.refused(&change.key);
            return WriteResult::Overtaken;
        }
        let written = file.write(&change.to.to_string());
        // Read back whatever the answer was.
        match managed.look(&self.place, &self.tree, mode, &mut self.buffer) {
            Seen::Same => {}
            seen => self.departed.push((change.key.clone(), seen)),
        }
        let refused = matches!(written, Err(WriteError::Refused(_)));
        let fields = change.to.ints().map_or(1, <[i128]>::len);
        if refused && fields > 1 && managed.text() != text_before.as_deref() {
            // The kernel applies the fields before the one that it refuses (do_proc_dointvec).
            if let (Some(file), Some(text)) = (&managed.file, &text_before) {
                let _ = file.write(text);
            }
            managed.look(&self.place, &self.tree, mode, &mut self.buffer);
        }
        let (result, trouble) = match written {
            Ok(()) if managed.took(&change.to) => (WriteResult::Ok, None),
            Ok(()) => {
                let around = circumstances(&self.tree, managed);
                (managed.mismatched(&change.to, around, None), None)
            }
            Err(WriteError::Refused(error)) => {
                let around = circumstances(&self.tree, managed);
                let trouble = error.to_string();
                (managed.refused(change.to.clone(), &error, around), Some(trouble))
            }
            Err(error @ WriteError::Short { .. }) => {
                let around = circumstances(&self.tree, managed);
                let trouble = error.to_string();
                (managed.mismatched(&change.to, around, Some(trouble.clone())), Some(trouble))
            }
        };
        if let Some(expected) = self.expected.get_mut(&change.key) {
            *expected = managed.shown().filter(|_| result != WriteResult::Mismatch);
            let changes = |flag: &str| managed.entry.is_some_and(|entry| entry.has(flag));
            let by_kernel = changes("rounds") || changes("clamps");
            if result == WriteResult::Mismatch && trouble.is_none() && !by_kernel {
                // Another writer came between the write and the look: what is there is not ours.
                let written = change.to.to_string();
                self.ledger.stored(&change.key, &written, &written, false);
                read_back(&self.tree, &mut self.ledger, &change.key, others);
                return WriteResult::Overtaken;
            }
        }
        match managed.text() {
            Some(text) if !refused || text_before.as_deref() != Some(text) => {
                let written = change.to.to_string();
                self.ledger.stored(&change.key, &written, text, managed.is_rounded());
                read_back(&self.tree, &mut self.ledger, &change.key, others);
            }
            _ => {
                others.iter().for_each(|(key, _)| self.ledger.stayed(key));
                self.ledger.refused(&change.key);
            }
        }
        let (old, new) = (show(&change.from.to_string()), show(&change.to.to_string()));
        let why = format!("{} ({})", managed.policy.want, managed.policy.source);
        if result == WriteResult::Ok {
            let new = managed.shown().unwrap_or(new);
            match self.quiet {
                false => info!(key = %change.key, old, new, why, "set"),
                true => debug!(key = %change.key, old, new, why, "set"),
            }
        } else {
            let detail = managed.status(false, &self.ledger).detail;
            let reason = trouble.or(detail);
            match self.quiet {
                false => warn!(key = %change.key, old, new, why, reason, "not set"),
                true => debug!(key = %change.key, old, new, why, reason, "not set"),
            }
        }
        result
    }
}

/// Whether a key still has this value, as it is shown.
fn has(file: &SysctlFile, expected: Option<&str>, buffer: &mut Vec<u8>) -> bool {
    let now = file.read(buffer).ok().map(|bytes| show(&String::from_utf8_lossy(bytes)));
    now.as_deref() == expected
}
