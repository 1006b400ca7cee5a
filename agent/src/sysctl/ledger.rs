//! The record of original values, written before a key is first changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::catalogue;
use super::key::Key;
pub use super::record::Record;
use crate::kernel::errno::FileError;
use crate::kernel::state_dir;

/// The format this version writes. A later one is left alone.
const VERSION: u32 = 1;
/// More than 100 keys with the longest values; more than this is not ours.
const LONGEST: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    boot_id: String,
    /// The inode of the network namespace whose keys the records of `net.*` are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<u64>,
    keys: BTreeMap<String, Record>,
}

/// Something about the ledger that the operator should know. Tuning goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// The file makes no sense.
    #[error("the ledger {} made no sense ({why}) and was put aside: originals changed before now are not known", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Written by a later version.
    #[error("the ledger {} was written by a later version ({version}): it is left alone, and originals are kept in memory only", path.display())]
    Future {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It is about the keys of another network namespace.
    #[error("the ledger {} is of another network namespace (net:[{recorded}], this is net:[{here}]): its net.* originals are left alone; run the command in that namespace, with nsenter --net", path.display())]
    Elsewhere {
        /// The file.
        path: PathBuf,
        /// The namespace's inode.
        recorded: u64,
        /// That of this one.
        here: u64,
    },
    /// It cannot be read or written.
    #[error("the ledger cannot be kept: {0}; originals are kept in memory only")]
    File(#[from] FileError),
}

/// The ledger of this boot.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    boot_id: String,
    netns: Option<u64>,
    records: BTreeMap<String, Record>,
    /// Whether the file is ours to write: not where it could not be read, since the originals in
    /// it would be lost.
    writable: bool,
    dirty: bool,
}

impl Ledger {
    /// Opens the ledger in `directory`. One of another boot is forgotten: the values it knows
    /// died with that boot.
    #[must_use]
    pub fn open(directory: &Path, boot_id: &str) -> (Self, Option<Notice>) {
        Self::at(directory.join("ledger.json"), boot_id)
    }

    /// The same at a path.
    #[must_use]
    pub fn at(path: PathBuf, boot_id: &str) -> (Self, Option<Notice>) {
        let mut ledger = Self {
            path,
            boot_id: boot_id.to_owned(),
            netns: None,
            records: BTreeMap::new(),
            writable: true,
            dirty: false,
        };
        let notice = ledger.load().err();
        ledger.writable = !matches!(notice, Some(Notice::Future { .. } | Notice::File(_)));
        (ledger, notice)
    }

    fn load(&mut self) -> Result<(), Notice> {
        #[derive(Deserialize)]
        struct VersionOnly {
            version: u32,
        }
        let Some(bytes) = state_dir::read(&self.path, LONGEST)? else { return Ok(()) };
        match serde_json::from_slice(&bytes) {
            Ok(VersionOnly { version }) if version > VERSION => {
                return Err(Notice::Future { path: self.path.clone(), version });
            }
            _ => {}
        }
        match serde_json::from_slice::<Document>(&bytes) {
            Ok(document) if document.boot_id == self.boot_id => {
                self.records = document.keys;
                self.netns = document.netns;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                state_dir::set_aside(&self.path)?;
                Err(Notice::Corrupt { path: self.path.clone(), why: error.to_string() })
            }
        }
    }

    /// Says in which network namespace `net.*` is looked at. What is on record of another one is
    /// none of this one's: the file is left alone, or, with `adopt`, begun anew for this one, as a
    /// node does that is itself a container and was started again.
    pub fn bind(&mut self, here: u64, adopt: bool) -> Option<Notice> {
        let is_net = |key: &String| key.starts_with("net.");
        let recorded = self.netns.filter(|_| self.records.keys().any(is_net));
        let recorded = recorded.filter(|recorded| *recorded != here);
        if adopt || recorded.is_none() {
            self.netns = Some(here);
        }
        let recorded = recorded?;
        self.records.retain(|key, _| !is_net(key));
        if adopt {
            self.dirty = true;
            return None;
        }
        self.writable = false;
        Some(Notice::Elsewhere { path: self.path.clone(), recorded, here })
    }

    /// Notes what a key was before another writer changed it, where nothing is on record yet: the
    /// agent is about to write because of that change, which is not what was there before.
    pub fn originate(&mut self, key: &Key, original: &str) {
        let record = || Record { original: original.to_owned(), ..Record::default() };
        self.records.entry(key.as_str().to_owned()).or_insert_with(record);
    }

    /// The record of a key.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Record> {
        self.records.get(key.as_str())
    }

    /// All records. A key that does not parse any more is left out.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &Record)> {
        self.records.iter().filter_map(|(key, record)| Some((Key::parse(key).ok()?, record)))
    }

    /// Whether nothing is on record.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Notes what is about to be written. An original that is on record already stays: the value
    /// now may be our own.
    pub fn intend(&mut self, key: &Key, now: &str, intended: &str) {
        let record = self
            .records
            .entry(key.as_str().to_owned())
            .or_insert_with(|| Record { original: now.to_owned(), ..Record::default() });
        let other = record.intended.as_deref() != Some(intended);
        if other || record.sibling_of.is_some() || record.along.is_some() {
            // Until the write is read back, the value now may still be there. It may be ours also
            // where it was not read back: the agent died before.
            record.before = record.is_ours(key, now).then(|| now.to_owned());
            record.intended = Some(intended.to_owned());
            record.stored = None;
            record.along = None;
            record.sibling_of = None;
            record.rounded = false;
            self.dirty = true;
        }
    }

    /// Notes whether what is about to be written lets a table grow.
    pub fn grows(&mut self, key: &Key, grown: bool) {
        if let Some(record) = self.records.get_mut(key.as_str()) {
            self.dirty |= record.grown != grown;
            record.grown = grown;
        }
    }

    /// Notes a key that the write of another one may change, to `along` where that is known.
    pub fn sibling(&mut self, key: &Key, now: &str, written: &Key, along: Option<&str>) {
        let along = along.map(str::to_owned);
        self.dirty = true;
        let Some(record) = self.records.get_mut(key.as_str()) else {
            let sibling_of = Some(written.as_str().to_owned());
            let record =
                Record { original: now.to_owned(), along, sibling_of, ..Record::default() };
            self.records.insert(key.as_str().to_owned(), record);
            return;
        };
        record.before = record.is_ours(key, now).then(|| now.to_owned());
        record.stored = None;
        record.along = along;
    }

    /// Takes the value now for what was read back, where it is as wanted and the agent died before
    /// it could do so.
    pub fn confirm(&mut self, key: &Key, text: &str, rounded: bool) {
        let Some(record) = self.records.get(key.as_str()) else { return };
        if record.stored.is_none() && record.sibling_of.is_none() && record.is_ours(key, text) {
            let asked = record.intended.clone().filter(|_| rounded);
            self.stored(key, &asked.unwrap_or_else(|| text.to_owned()), text, rounded);
        }
    }

    /// Notes what was read back of a key after the write of another one changed it.
    pub fn came_along(&mut self, key: &Key, text: &str) {
        self.stored(key, text, text, false);
        if let Some(record) = self.records.get_mut(key.as_str())
            && record.sibling_of.is_some()
        {
            record.intended = None;
        }
    }

    /// Notes that the write of another key has left this one as it was.
    pub fn stayed(&mut self, key: &Key) {
        let Some(record) = self.records.get_mut(key.as_str()) else { return };
        self.dirty = true;
        record.fall_back();
        if record.stored.is_none() && record.sibling_of.is_some() {
            self.forget(key);
        }
    }

    /// Notes what was read back after `written` was written and changed something. `rounded`: the
    /// kernel made it of what was written.
    pub fn stored(&mut self, key: &Key, written: &str, text: &str, rounded: bool) {
        let Some(record) = self.records.get_mut(key.as_str()) else { return };
        let now = Record {
            intended: Some(written.to_owned()),
            stored: Some(text.to_owned()),
            before: None,
            along: None,
            rounded,
            ..record.clone()
        };
        self.dirty |= *record != now;
        *record = now;
    }

    /// Notes that the kernel refused a write and nothing changed: what was ours before still is,
    /// and a key that never was ours is none of our business.
    pub fn refused(&mut self, key: &Key) {
        let Some(record) = self.records.get_mut(key.as_str()) else { return };
        if record.stored.is_some() {
            return;
        }
        self.dirty = true;
        record.fall_back();
        if record.stored.is_none() {
            self.forget_with_siblings(key, None);
        }
    }

    /// Puts back what was on record of a key.
    pub fn reinstate(&mut self, key: &Key, record: Record) {
        self.records.insert(key.as_str().to_owned(), record);
        self.dirty = true;
    }

    /// Notes that another writer's value is in force. It is not put back later either, even if it
    /// should come to equal what was ours once.
    pub fn disown(&mut self, key: &Key) {
        if let Some(record) = self.records.get_mut(key.as_str()) {
            let (original, interface) = (record.original.clone(), record.interface);
            *record = Record { original, interface, ..Record::default() };
            self.dirty = true;
        }
    }

    /// Forgets a key that is no longer ours.
    pub fn forget(&mut self, key: &Key) {
        self.dirty |= self.records.remove(key.as_str()).is_some();
    }

    /// Forgets a key whose file is gone, with what its writes changed beside it. `interface`: the
    /// index of the one whose file that was, since another one may have its name by now.
    pub fn forget_with_siblings(&mut self, key: &Key, interface: Option<u32>) {
        let other = |record: &Record| {
            interface.zip(record.interface).is_some_and(|(gone, has)| gone != has)
        };
        if self.get(key).is_some_and(other) {
            return;
        }
        self.forget(key);
        let before = self.records.len();
        self.records.retain(|_, record| record.sibling_of.as_deref() != Some(key.as_str()));
        self.dirty |= self.records.len() != before;
    }

    /// Notes which interfaces the keys on record are of, where that is not known yet.
    pub fn identify(&mut self, index_of: impl Fn(&str) -> Option<u32>) {
        let mut known = BTreeMap::new();
        for (key, record) in &mut self.records {
            if let (None, Some(name)) = (record.interface, interface(key)) {
                record.interface = *known.entry(name.clone()).or_insert_with(|| index_of(&name));
                self.dirty |= record.interface.is_some();
            }
        }
    }

    /// What is on record of an interface goes along with it to another name, be it that of
    /// another one on record. Returns what there was of interfaces that are gone.
    pub fn follow(&mut self, name_of: impl Fn(u32) -> Option<String>) -> Vec<(Key, Record)> {
        let mut names = BTreeMap::new();
        let (mut moved, mut gone) = (Vec::new(), Vec::new());
        self.records.retain(|key, record| {
            let (Some(index), Some(before)) = (record.interface, interface(key)) else {
                return true;
            };
            let now: &Option<String> = names.entry(index).or_insert_with(|| name_of(index));
            match now {
                Some(now) if *now == before => return true,
                Some(now) => moved.push((key.clone(), before, now.clone(), record.clone())),
                None => gone.extend(Key::parse(key).ok().map(|key| (key, record.clone()))),
            }
            false
        });
        self.dirty |= !moved.is_empty() || !gone.is_empty();
        for (key, before, now, record) in moved {
            self.insert_renamed(&key, record, &BTreeMap::from([(before, now)]));
        }
        gone
    }

    /// The same where only the names are known, all at once: `names` from before to now.
    pub fn rename_interfaces(&mut self, names: &BTreeMap<String, String>) {
        let mut moved = Vec::new();
        self.records.retain(|key, record| {
            let moves = record.interface.is_none()
                && interface(key).is_some_and(|before| names.contains_key(&before));
            if moves {
                moved.push((key.clone(), record.clone()));
            }
            !moves
        });
        self.dirty |= !moved.is_empty();
        for (key, record) in moved {
            self.insert_renamed(&key, record, names);
        }
    }

    fn insert_renamed(&mut self, key: &str, record: Record, names: &BTreeMap<String, String>) {
        let renamed = |key: &str| {
            let now = names.get(&interface(key)?)?.replace('.', "/");
            catalogue::with_interface(key, &now)
        };
        let sibling_of = record.sibling_of.map(|key| renamed(&key).unwrap_or(key));
        let key = renamed(key).unwrap_or_else(|| key.to_owned());
        self.records.insert(key, Record { sibling_of, ..record });
    }

    /// Writes what changed. The file is the old one or the new one, whatever happens.
    pub fn save(&mut self) -> Result<(), Notice> {
        if !self.dirty || !self.writable {
            return Ok(());
        }
        let document = Document {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            netns: self.netns,
            keys: std::mem::take(&mut self.records),
        };
        let bytes = serde_json::to_vec_pretty(&document);
        self.records = document.keys;
        let bytes = bytes
            .map_err(|error| Notice::Corrupt { path: self.path.clone(), why: error.to_string() })?;
        if let Some(directory) = self.path.parent() {
            state_dir::create(directory)?;
        }
        state_dir::replace(&self.path, &bytes)?;
        self.dirty = false;
        Ok(())
    }
}

/// The name of the interface in a key, if it is of one.
fn interface(key: &str) -> Option<String> {
    let name = catalogue::interface(key).filter(|name| !matches!(*name, "all" | "default"))?;
    Some(name.replace('/', "."))
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
