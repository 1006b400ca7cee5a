//! What the ledger knows of one key, and whether a value is the agent's own.

use serde::{Deserialize, Serialize};

use super::catalogue;
use super::key::Key;
use super::value::{Shape, Value};

/// What is recorded of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The value before the agent first changed it.
    pub original: String,
    /// What was about to be written last; beside `stored`, what that came of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intended: Option<String>,
    /// What was read back after the last write. Absent after a crash in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<String>,
    /// What was there before the last write, if that was ours, until the write was read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What the write of another key makes of it, until that is read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub along: Option<String>,
    /// Whether `stored` is what the kernel made of `intended`, which it rounds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rounded: bool,
    /// The index of the interface in the key: its name may be another one's later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<u32>,
    /// Whether the last write was to let a table grow, and not what the configuration says.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grown: bool,
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
        let same = |text: &Option<String>| text.as_ref().is_some_and(|it| shape.read(it) == now);
        if self.stored.is_some() {
            return same(&self.stored);
        }
        // The agent died between the record and the read-back: what was about to be written is
        // there, or what the kernel made of it, or still what was there before.
        let possible = [&self.intended, &self.before, &self.along].into_iter().any(same)
            || self.half(shape, &now);
        match (&self.intended, &self.along) {
            (Some(_), _) => rounds || possible,
            (None, Some(_)) => possible,
            // What its sibling's write makes of it is not known.
            (None, None) => possible || self.sibling_of.is_some(),
        }
    }

    /// Whether it is a vector of which the kernel applied only the fields before one that it
    /// refused (`do_proc_dointvec`), and the agent died before it could put them back.
    fn half(&self, shape: Shape, now: &Value) -> bool {
        let old = self.before.as_ref().unwrap_or(&self.original);
        let (old, new) = (shape.read(old), self.intended.as_ref().map(|text| shape.read(text)));
        let (Some(now), Some(old)) = (now.ints(), old.ints()) else { return false };
        let Some(new) = new.as_ref().and_then(Value::ints) else { return false };
        let applied = now.iter().zip(new).take_while(|(now, new)| now == new).count();
        let same_length = now.len() == old.len() && now.len() == new.len();
        same_length && applied > 0 && now.get(applied..) == old.get(applied..)
    }

    /// The same by what the catalogue knows of the key, else by what its original looks like.
    #[must_use]
    pub fn is_ours(&self, key: &Key, now: &str) -> bool {
        let entry = catalogue::lookup(key);
        let shape =
            entry.and_then(|entry| entry.shape()).unwrap_or_else(|| Shape::learn(&self.original));
        let rounds = entry.is_some_and(|entry| entry.has("rounds"));
        self.still_ours(shape, rounds, now)
    }

    /// What was ours before the write still is: nothing came of it.
    pub(super) fn fall_back(&mut self) {
        self.along = None;
        if self.stored.is_none() && self.before.is_some() {
            self.stored = self.before.take();
            if self.intended.is_some() {
                self.intended.clone_from(&self.stored);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_that_was_applied_half_way_is_ours() {
        let record = Record {
            original: "4096\t131072\t6291456".into(),
            intended: Some("5000 6000 -1".into()),
            ..Record::default()
        };
        let ours = |now: &str| record.still_ours(Shape::Ints(3), false, now);
        assert!(ours("5000 6000 6291456") && ours("5000 131072 6291456"));
        for others in ["4096 131072 6291456", "5000 6000 7", "4096 6000 6291456", "5000 6000"] {
            assert!(!ours(others), "{others}");
        }
    }
}
