//! The record of original values, written before a key is first changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::catalogue;
use super::key::Key;
use super::value::Shape;
use crate::kernel::errno::FileError;
use crate::kernel::state_dir;

/// The format this version writes. A later one is left alone.
const VERSION: u32 = 1;
/// More than 100 keys with the longest values; more than this is not ours.
const LONGEST: u64 = 16 << 20;

/// What is recorded of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The value before the agent first changed it.
    pub original: String,
    /// What was about to be written last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intended: Option<String>,
    /// What was read back after the last write. Absent after a crash in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// What was read back after the write before, until the last one was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Whether `stored` is what the kernel made of `intended`, which it rounds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rounded: bool,
    /// The key whose write changes this one too, for a record that is only a sibling's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sibling_of: Option<String>,
}

impl Record {
    /// Whether the value now is what the agent last wrote, by meaning: then it may be put back.
    /// `rounds`: the kernel may have stored something near what was written.
    #[must_use]
    pub fn still_ours(&self, shape: Shape, rounds: bool, now: &str) -> bool {
        let now = shape.read(now);
        let same = |text: &str| shape.read(text) == now;
        match (&self.stored, &self.intended) {
            (Some(stored), _) => same(stored),
            // The agent died between the record and the read-back: what was about to be written
            // is there, or what the kernel made of it, or still what was written before.
            (None, Some(intended)) => {
                rounds || same(intended) || self.before.as_deref().is_some_and(same)
            }
            (None, None) => self.sibling_of.is_some(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    version: u32,
    boot_id: String,
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
    /// It cannot be read or written.
    #[error("the ledger cannot be kept: {0}; originals are kept in memory only")]
    File(#[from] FileError),
}

/// The ledger of this boot.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    boot_id: String,
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
        let path = directory.join("ledger.json");
        let mut ledger = Self {
            path,
            boot_id: boot_id.to_owned(),
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
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(error) => {
                state_dir::set_aside(&self.path)?;
                Err(Notice::Corrupt { path: self.path.clone(), why: error.to_string() })
            }
        }
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

    /// Keys on record only because the write of this one changes them.
    #[must_use]
    pub fn siblings_of(&self, written: &Key) -> Vec<Key> {
        let records = self.records.iter();
        let siblings =
            records.filter(|(_, record)| record.sibling_of.as_deref() == Some(written.as_str()));
        siblings.filter_map(|(key, _)| Key::parse(key).ok()).collect()
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
        if record.intended.as_deref() != Some(intended) || record.sibling_of.is_some() {
            record.intended = Some(intended.to_owned());
            record.sibling_of = None;
            record.rounded = false;
            // Until the write is read back, the value before may still be there, and is ours too.
            if record.stored.is_some() {
                record.before = record.stored.take();
            }
            self.dirty = true;
        }
    }

    /// Notes a key that the write of another one will change.
    pub fn sibling(&mut self, key: &Key, now: &str, written: &Key) {
        self.records.entry(key.as_str().to_owned()).or_insert_with(|| {
            self.dirty = true;
            Record {
                original: now.to_owned(),
                sibling_of: Some(written.as_str().to_owned()),
                ..Record::default()
            }
        });
    }

    /// Notes what was read back after a write that changed something. `rounded`: the kernel made
    /// it of what was written.
    pub fn stored(&mut self, key: &Key, text: &str, rounded: bool) {
        if let Some(record) = self.records.get_mut(key.as_str())
            && (record.stored.as_deref(), record.rounded) != (Some(text), rounded)
        {
            record.stored = Some(text.to_owned());
            record.before = None;
            record.rounded = rounded;
            self.dirty = true;
        }
    }

    /// Notes that the kernel refused a write and nothing changed: what was ours before still is,
    /// and a key that never was ours is none of our business.
    pub fn refused(&mut self, key: &Key) {
        let Some(record) = self.records.get_mut(key.as_str()) else { return };
        if record.stored.is_some() {
            return;
        }
        self.dirty = true;
        record.stored = record.before.take();
        if record.stored.is_none() {
            self.forget_with_siblings(key);
        }
    }

    /// Notes that another writer's value is in force. It is not put back later either, even if it
    /// should come to equal what was ours once.
    pub fn disown(&mut self, key: &Key) {
        if let Some(record) = self.records.get_mut(key.as_str()) {
            *record = Record { original: record.original.clone(), ..Record::default() };
            self.dirty = true;
        }
    }

    /// Forgets a key that is no longer ours.
    pub fn forget(&mut self, key: &Key) {
        self.dirty |= self.records.remove(key.as_str()).is_some();
    }

    /// Forgets a key whose file is gone, with what its writes changed beside it.
    pub fn forget_with_siblings(&mut self, key: &Key) {
        self.forget(key);
        let before = self.records.len();
        self.records.retain(|_, record| record.sibling_of.as_deref() != Some(key.as_str()));
        self.dirty |= self.records.len() != before;
    }

    /// Interfaces have other names now, all at once: their values went along.
    pub fn rename_interfaces(&mut self, names: &BTreeMap<String, String>) {
        let moved = |key: &str| {
            let before = catalogue::interface(key)?.replace('/', ".");
            let now = names.get(&before)?.replace('.', "/");
            catalogue::with_interface(key, &now)
        };
        let records = std::mem::take(&mut self.records);
        let (moving, staying): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|(key, _)| moved(key).is_some());
        self.dirty |= !moving.is_empty();
        self.records = staying.into_iter().collect();
        for (key, mut record) in moving {
            record.sibling_of = record.sibling_of.map(|key| moved(&key).unwrap_or(key));
            self.records.insert(moved(&key).unwrap_or(key), record);
        }
    }

    /// Writes what changed. The file is the old one or the new one, whatever happens.
    pub fn save(&mut self) -> Result<(), Notice> {
        if !self.dirty || !self.writable {
            return Ok(());
        }
        let document = Document {
            version: VERSION,
            boot_id: self.boot_id.clone(),
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

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
