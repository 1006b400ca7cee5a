//! One key under management: what was read, what is wanted, what came of it.

use std::time::Instant;

use nix::errno::Errno;

use super::catalogue::{self, Entry};
use super::fight::Fight;
use super::key::Key;
use super::ledger::Ledger;
use super::marks::LastWrite;
use super::policy::{Goal, OnConflict, Policy};
use super::value::{Shape, Value};
use crate::kernel::errno::FileError;
use crate::kernel::name::escape;
use crate::kernel::sysctl_file::SysctlFile;
use crate::kernel::touch::FileId;
use crate::kernel::who::Who;

mod look;
mod report;

pub use look::Seen;

/// What stands between a key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Obstacle {
    Unsupported(String),
    /// The same on a node that is itself a container: nothing that a configuration can mend.
    Elsewhere(String),
    Pending(String),
    Denied(String),
    /// The policy does not fit the key, so nothing was written.
    Unfit(String),
}

/// A write that the kernel refused, or stored as something else. Not repeated until something
/// that could change the answer has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    target: Value,
    /// The value in force at the time, and those of related keys.
    circumstances: String,
    message: String,
    /// The kernel's refusal; `None` where it took the write and stored something else.
    errno: Option<Errno>,
}

/// What one write came to, for the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// In force.
    Ok,
    /// The kernel refused the value.
    Rejected,
    /// No right.
    Denied,
    /// Taken, but something else is in force.
    Mismatch,
    /// Another writer was there first, whose value is not to be overwritten.
    Overtaken,
}

/// A key under management.
#[derive(Debug)]
pub struct Managed {
    /// The key.
    pub key: Key,
    /// What the configuration wants.
    pub policy: Policy,
    /// What is known about it.
    pub entry: Option<Entry>,
    /// Which of the engine's patterns found it; `None`: it has a policy of its own.
    pub member_of: Option<usize>,
    pub(super) file: Option<SysctlFile>,
    /// By which the watcher knows the file; `None`: it is not watched.
    pub(super) mark: Option<FileId>,
    /// The last write that was not the agent's.
    pub(super) last_write: Option<LastWrite>,
    /// Whether a notification named that writer since the last look.
    pub(super) named: bool,
    /// The index of the interface in the key, of when the file was opened.
    interface: Option<u32>,
    pub(super) shape: Option<Shape>,
    goal: Option<Goal>,
    /// What the kernel shows, fields separated by single spaces.
    text: Option<String>,
    actual: Option<Value>,
    obstacle: Option<Obstacle>,
    held: Option<Held>,
    /// The kernel's form of a value that it rounds: as good as the value itself.
    rounded: Option<(Value, Value)>,
    yielded: bool,
    drifted: bool,
    ever_met: bool,
    /// The text that last met the policy.
    met_text: Option<String>,
    /// Whether the agent itself just changed it, with another key.
    excused: bool,
    fight: Fight,
}

impl Managed {
    /// A key before it is first looked at.
    #[must_use]
    pub fn new(key: Key, policy: Policy, member_of: Option<usize>) -> Self {
        let entry = catalogue::lookup(&key);
        let shape = entry.and_then(|entry| entry.shape());
        Self {
            key,
            policy,
            entry,
            member_of,
            file: None,
            mark: None,
            last_write: None,
            named: false,
            interface: None,
            shape,
            goal: None,
            text: None,
            actual: None,
            obstacle: None,
            held: None,
            rounded: None,
            yielded: false,
            drifted: false,
            ever_met: false,
            met_text: None,
            excused: false,
            fight: Fight::default(),
        }
    }

    /// The same key under a new policy. Where that asks the same, its history stays, and what was
    /// refused is tried again.
    #[must_use]
    pub fn again(known: Option<Self>, key: Key, policy: Policy, member_of: Option<usize>) -> Self {
        match known.filter(|managed| managed.policy.asks_the_same(&policy)) {
            Some(known) => Self { policy, member_of, held: None, ..known },
            None => Self::new(key, policy, member_of),
        }
    }

    /// Whether a link that came, went, or changed can have made, removed, or replaced its file.
    #[must_use]
    pub fn may_appear(&self) -> bool {
        self.file.is_none() || catalogue::interface(self.key.as_str()).is_some()
    }

    /// Whether the file is not there, yet or any more.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self.obstacle, Some(Obstacle::Pending(_)))
    }

    /// Closes the file; the next look opens it again.
    pub fn close(&mut self) {
        self.file = None;
        self.mark = None;
    }

    /// The file, if writes to it are worth a notification: not where they could not be undone, and
    /// not in a fight, which is slow on purpose.
    #[must_use]
    pub fn watchable(&self) -> Option<&SysctlFile> {
        self.file.as_ref().filter(|file| file.write_error().is_none() && !self.fight.is_on())
    }

    /// Whether it is contested, and by whom is known: it is not watched meanwhile, so what the
    /// other writer does next has no notification.
    #[must_use]
    pub fn knows_its_rival(&self) -> bool {
        let named = self.last_write.as_ref().is_some_and(|last| last.who != Who::Unknown);
        named && self.fight.is_on()
    }

    /// Nothing is written any more, so there is nobody to fight.
    pub fn forget_fight(&mut self) {
        self.fight = Fight::default();
    }

    /// Whether the value in force is what the kernel made of one that it rounds.
    #[must_use]
    pub fn is_rounded(&self) -> bool {
        self.rounded.as_ref().is_some_and(|(_, stored)| Some(stored) == self.actual.as_ref())
    }

    /// What it is now is the agent's own doing: no drift.
    pub fn excuse(&mut self) {
        self.excused = !self.met();
    }

    /// Whether the kernel's value meets the policy.
    #[must_use]
    pub fn met(&self) -> bool {
        let (Some(goal), Some(actual)) = (&self.goal, &self.actual) else { return false };
        let rounded = match (&self.rounded, goal.target(actual, self.zero_unlimited())) {
            (Some((asked, stored)), Some(target)) => *asked == target && stored == actual,
            _ => false,
        };
        rounded || goal.met(actual, self.zero_unlimited())
    }

    fn zero_unlimited(&self) -> bool {
        self.entry.is_some_and(|entry| entry.has("zero-unlimited"))
    }

    /// After a first look in a sweep: did another writer undo what was in force?
    pub fn drifted_since(&mut self, ledger: &Ledger) -> bool {
        let excused = std::mem::take(&mut self.excused);
        if self.met() {
            self.yielded = false;
            return false;
        }
        if excused || self.actual.is_none() {
            return false;
        }
        let ours_before = self.ever_met || self.written_before(ledger);
        let drifted = ours_before && !self.drifted && !self.yielded && self.held.is_none();
        if drifted {
            self.drifted = true;
            self.yielded = self.policy.on_conflict == OnConflict::Yield;
        }
        drifted
    }

    /// Whether an earlier run wrote this key, and somebody else did since.
    fn written_before(&self, ledger: &Ledger) -> bool {
        match (ledger.get(&self.key), self.shape, &self.text) {
            (Some(record), Some(shape), Some(now)) => {
                // What was cut off may never have been written.
                let written = record.stored.is_some()
                    || record.intended.is_some() && shape.read(&record.original) != shape.read(now);
                written && !record.still_ours(shape, false, now)
            }
            _ => false,
        }
    }

    /// What should be written now, if anything.
    pub fn wish(
        &mut self,
        now: Instant,
        circumstances: impl FnOnce(&Self) -> String,
    ) -> Option<(Value, Value)> {
        if self.met() || self.obstacle.is_some() || self.yielded {
            return None;
        }
        if self.policy.on_conflict == OnConflict::Report {
            return None;
        }
        let actual = self.actual.clone()?;
        let target = self.goal.as_ref()?.target(&actual, self.zero_unlimited())?;
        if let Some(held) = &self.held {
            if held.target == target && held.circumstances == circumstances(self) {
                return None;
            }
            self.held = None;
        }
        if self.drifted && !self.fight.may_put_back(now) {
            return None;
        }
        Some((actual, target))
    }

    /// What would be written, were there nothing in the way.
    #[must_use]
    pub fn target(&self) -> Option<Value> {
        self.goal.as_ref()?.target(self.actual.as_ref()?, self.zero_unlimited())
    }

    /// Notes a refusal.
    pub fn refused(
        &mut self,
        target: Value,
        error: &FileError,
        circumstances: String,
    ) -> WriteResult {
        // To a key that holds text ENOENT says that the value is unknown; to others, that the file
        // went away under the write, so that there is nothing to hold against the value.
        let vanished = error.errno == Errno::ENOENT && !matches!(self.shape, Some(Shape::Text));
        if !vanished {
            self.hold(target, circumstances, error.to_string(), Some(error.errno));
        }
        if no_right(error.errno) { WriteResult::Denied } else { WriteResult::Rejected }
    }

    /// Whether a write that the kernel accepted put the policy in force. `self` was looked at
    /// again after it.
    pub fn took(&mut self, target: &Value) -> bool {
        let rounds = self.entry.is_some_and(|entry| entry.has("rounds"));
        if let Some(stored) = self.actual.clone().filter(|stored| rounds && stored != target) {
            self.rounded = Some((target.clone(), stored));
        }
        let met = self.met();
        if met {
            self.held = None;
        }
        met
    }

    /// Notes a write after which something else is in force.
    pub fn mismatched(
        &mut self,
        target: &Value,
        circumstances: String,
        short: Option<String>,
    ) -> WriteResult {
        let shown = self.shown().unwrap_or_else(|| "nothing".to_owned());
        let message = short.unwrap_or_else(|| {
            format!(
                "wrote {}, but the kernel shows {shown}: it clamps or rounds this value",
                escape(target.to_string().as_bytes())
            )
        });
        self.hold(target.clone(), circumstances, message, None);
        self.drifted = true;
        WriteResult::Mismatch
    }

    fn hold(
        &mut self,
        target: Value,
        circumstances: String,
        message: String,
        errno: Option<Errno>,
    ) {
        self.held = Some(Held { target, circumstances, message, errno });
    }

    /// Allows another attempt at a value whose refusal may be due to the order of writes.
    pub fn reconsider(&mut self) {
        self.held.take_if(|held| matches!(held.errno, Some(Errno::EINVAL | Errno::EBUSY)));
    }

    /// The end of a pass.
    pub fn settle(&mut self, now: Instant) {
        if self.met() {
            self.ever_met = true;
            if self.met_text != self.text {
                self.met_text.clone_from(&self.text);
            }
            self.drifted = false;
            self.held = None;
            self.fight.at_peace(now);
        }
    }

    /// What was there before another writer changed it, if that is why it is not as wanted.
    #[must_use]
    pub fn before_drift(&self) -> Option<&str> {
        self.met_text.as_deref().filter(|_| self.drifted)
    }

    /// Whether it was as wanted before, since this policy is in force.
    #[must_use]
    pub fn has_been_met(&self) -> bool {
        self.ever_met
    }

    /// The value now, escaped, with single spaces.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        self.text.as_deref().map(show)
    }

    /// The text as the kernel gave it.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// Whether an errno at `write(2)` says that the right is missing, whatever the value.
fn no_right(errno: Errno) -> bool {
    matches!(errno, Errno::EPERM | Errno::EACCES | Errno::EROFS)
}

/// Single spaces between fields, and nothing that a terminal would act on.
#[must_use]
pub fn show(text: &str) -> String {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    escape(words.join(" ").as_bytes())
}
