//! Looking at keys: what is there, what went away or has another name, what others changed.

use std::collections::BTreeMap;

use tracing::warn;

use super::engine::{Chosen, Engine};
use super::managed::Seen;
use super::marks::LastWrite;
use super::restore::follow_interfaces;
use crate::kernel::links;
use crate::kernel::who::Who;

impl Engine {
    /// Interfaces may have come, gone and changed names while no agent ran.
    pub(super) fn follow_record(&mut self) {
        if !std::mem::replace(&mut self.followed, true) {
            follow_interfaces(&self.place, &mut self.ledger);
        }
    }

    pub(super) fn look(&mut self, chosen: &Chosen) {
        self.look_without_following(chosen);
        if self.departed.iter().any(|(_, seen)| matches!(seen, Seen::Renamed { .. })) {
            // One may have the name that another one had: no record moves before all are known.
            self.look_without_following(&self.rest_of(chosen));
        }
        self.follow();
        for &index in chosen {
            if let Some(managed) = self.keys.get_mut(index) {
                managed.recall(&self.ledger);
            }
        }
    }

    /// Leaves the ledger as it is.
    pub(super) fn look_without_following(&mut self, chosen: &Chosen) {
        let mode = self.mode();
        for &index in chosen {
            let Some(managed) = self.keys.get_mut(index) else { continue };
            match managed.look(&self.place, &self.tree, mode, &mut self.buffer) {
                Seen::Same => {}
                seen => self.departed.push((managed.key.clone(), seen)),
            }
        }
    }

    /// What is on record of a key goes with the file that had it, or along with its interface to
    /// another name.
    fn follow(&mut self) {
        let mut renamed = BTreeMap::new();
        for (key, seen) in std::mem::take(&mut self.departed) {
            match seen {
                Seen::Same => {}
                Seen::Gone { interface } => self.ledger.forget_with_siblings(&key, interface),
                Seen::Renamed { before, now } => drop(renamed.insert(before, now)),
            }
        }
        if !renamed.is_empty() {
            self.ledger.rename_interfaces(&renamed);
            self.ledger.follow(links::key_name_of);
        }
    }

    pub(super) fn note_drift(&mut self, chosen: &Chosen) {
        for &index in chosen {
            let Some(managed) = self.keys.get_mut(index) else { continue };
            if managed.drifted_since(&self.ledger) {
                self.counters.drift += 1;
                if self.quiet {
                    let value = managed.shown().unwrap_or_default();
                    let want = managed.policy.want.to_string();
                    warn!(key = %managed.key, value, want, "drifted: another writer changed it");
                    continue;
                }
                if !managed.has_been_met() {
                    warn!(
                        key = %managed.key,
                        value = managed.shown().unwrap_or_default(),
                        want = managed.policy.want.to_string(),
                        "drifted: another writer changed it while no agent ran, or before this policy"
                    );
                    continue;
                }
                // Without a notification: a writer on another procfs mount, or the kernel itself.
                if !managed.named && !managed.knows_its_rival() {
                    managed.last_write = Some(LastWrite::now(Who::Unknown));
                }
                let by = managed.last_write.as_ref().map(|last| last.who.to_string());
                warn!(
                    key = %managed.key,
                    value = managed.shown().unwrap_or_default(),
                    want = managed.policy.want.to_string(),
                    by,
                    "drifted: another writer changed it"
                );
            }
            managed.named = false;
        }
    }
}
