//! A sysctl engine with a ledger of its own and a clock that a test moves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headroom::kernel::netns::Netns;
use headroom::kernel::sysctl_file::SysctlTree;
use headroom::kernel::system;
use headroom::kernel::touch::{Touches, Watcher};
use headroom::sysctl::engine::{Counters, Engine};
use headroom::sysctl::glob::{Glob, Subject};
use headroom::sysctl::key::Key;
use headroom::sysctl::ledger::{Ledger, Notice};
use headroom::sysctl::place::{Net, Place};
use headroom::sysctl::policy::{OnConflict, Policy, Source, Want};
use headroom::sysctl::restore::{Outcome, Restored};
use headroom::sysctl::state::{KeyStatus, State};

use super::namespace::Namespace;

/// An engine to be driven pass by pass. Time stands still but for [`Rig::wait`].
pub struct Rig {
    /// The engine itself.
    pub engine: Engine,
    /// What was wrong with the ledger when it was opened.
    pub notice: Option<Notice>,
    state: PathBuf,
    now: Instant,
}

impl Rig {
    /// An engine that works on `netns` through `tree`, with its ledger in `state`.
    #[must_use]
    pub fn new(place: Place, tree: SysctlTree, netns: Netns, observe: bool, state: &Path) -> Self {
        let (ledger, notice) = Ledger::open(state, &boot_id());
        let engine = Engine::new(place, tree, netns, observe, ledger);
        Self { engine, notice, state: state.to_owned(), now: Instant::now() }
    }

    /// An enforcing engine for a namespace of the test's own.
    #[must_use]
    pub fn at(netns: &Namespace, state: &Path) -> Self {
        Self::new(in_netns(), proc_sys(), Netns::At(netns.fd()), false, state)
    }

    /// The same in observe mode.
    #[must_use]
    pub fn observing(netns: &Namespace, state: &Path) -> Self {
        Self::new(in_netns(), proc_sys(), Netns::At(netns.fd()), true, state)
    }

    /// An enforcing engine for whatever the calling thread shares, looked at as the agent does.
    #[must_use]
    pub fn here(state: &Path) -> Self {
        let place = Place::look(Path::new("/proc"), false);
        Self::new(place, proc_sys(), Netns::Own, false, state)
    }

    /// Configures these policies, and nothing else.
    pub fn want(&mut self, policies: impl IntoIterator<Item = (Key, Policy)>) {
        self.engine.configure(policies.into_iter().collect::<BTreeMap<_, _>>(), Vec::new());
    }

    /// Configures these policies, and these patterns in this order.
    pub fn want_patterns(
        &mut self,
        policies: impl IntoIterator<Item = (Key, Policy)>,
        patterns: impl IntoIterator<Item = (Glob, Policy)>,
    ) {
        self.engine.configure(policies.into_iter().collect(), patterns.into_iter().collect());
    }

    /// One pass.
    pub fn pass(&mut self) {
        self.engine.pass(self.now).unwrap();
    }

    /// What a link event leads to.
    pub fn appeared(&mut self) {
        self.engine.pass_appeared(self.now).unwrap();
    }

    /// One pass, with what a watcher has seen, after which it watches what is open.
    pub fn sweep(&mut self, watcher: &mut Watcher) {
        self.engine.pass_watching(watcher, self.now).unwrap();
    }

    /// What follows when a watcher has seen something.
    pub fn touched(&mut self, watcher: &mut Watcher, touches: &Touches) {
        self.engine.touched(watcher, touches, self.now).unwrap();
    }

    /// Lets time go by.
    pub fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// A key's status.
    #[must_use]
    pub fn status(&self, text: &str) -> KeyStatus {
        let wanted = Subject::parse(text).unwrap();
        let status = self.engine.status().into_iter().find(|status| status.key == wanted);
        status.or_else(|| self.engine.status_of(&key(text))).unwrap()
    }

    /// A key's state.
    #[must_use]
    pub fn state(&self, text: &str) -> State {
        self.status(text).state
    }

    /// What is said about a key; empty if nothing is.
    #[must_use]
    pub fn detail(&self, text: &str) -> String {
        self.status(text).detail.unwrap_or_default()
    }

    /// The counters.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.engine.counters()
    }

    /// Required keys that hold readiness back, with their states.
    #[must_use]
    pub fn unmet(&self) -> Vec<(Subject, State)> {
        let status = self.engine.status();
        let unmet = status.into_iter().filter(KeyStatus::blocks_readiness);
        unmet.map(|status| (status.key, status.state)).collect()
    }

    /// The original on record, in the file.
    #[must_use]
    pub fn original(&self, text: &str) -> Option<String> {
        let (ledger, _) = Ledger::open(&self.state, &boot_id());
        ledger.get(&key(text)).map(|record| record.original.clone())
    }

    /// Puts every original back; what came of each key.
    pub fn restore(&mut self) -> BTreeMap<String, Outcome> {
        by_key(self.engine.restore(|_| true).unwrap())
    }

    /// Puts back what is no longer wanted; what came of each key.
    pub fn restore_unconfigured(&mut self) -> BTreeMap<String, Outcome> {
        by_key(self.engine.restore_unconfigured().unwrap())
    }
}

fn by_key(restored: Vec<Restored>) -> BTreeMap<String, Outcome> {
    restored.into_iter().map(|one| (one.key.to_string(), one.outcome)).collect()
}

fn boot_id() -> String {
    system::boot_id(Path::new("/proc")).unwrap()
}

/// What the agent would find in a namespace that was given to it on purpose.
#[must_use]
pub fn in_netns() -> Place {
    let kernel = system::kernel_version(&system::uname().0);
    Place { net: Net::Given, ipc: true, pid: true, uts: true, kernel }
}

fn proc_sys() -> SysctlTree {
    SysctlTree::open(Path::new("/proc/sys"), None).unwrap()
}

/// A key, in either form.
#[must_use]
pub fn key(text: &str) -> Key {
    Key::parse(text).unwrap()
}

/// A required policy that wants this value.
#[must_use]
pub fn value(key: &str, value: &str) -> (Key, Policy) {
    policy(key, Want::Value(value.to_owned()))
}

/// A required policy with a lower bound.
#[must_use]
pub fn min(key: &str, min: &str) -> (Key, Policy) {
    policy(key, Want::Bounds { min: Some(min.to_owned()), max: None })
}

/// A required policy with an upper bound.
#[must_use]
pub fn max(key: &str, max: &str) -> (Key, Policy) {
    policy(key, Want::Bounds { min: None, max: Some(max.to_owned()) })
}

/// A required policy with a choice.
#[must_use]
pub fn one_of<'a>(key: &str, values: impl IntoIterator<Item = &'a str>) -> (Key, Policy) {
    policy(key, Want::OneOf(values.into_iter().map(str::to_owned).collect()))
}

fn policy(name: &str, want: Want) -> (Key, Policy) {
    let source = Source::Config { line: 1 };
    let policy =
        Policy { want, on_conflict: OnConflict::Enforce, required: true, source, reason: None };
    (key(name), policy)
}

/// A required pattern that wants this value.
#[must_use]
pub fn pattern(text: &str, value: &str) -> (Glob, Policy) {
    (Glob::parse(text).unwrap(), policy("a.b", Want::Value(value.to_owned())).1)
}

/// The same policy with another answer to other writers.
#[must_use]
pub fn with_conflict(policy: (Key, Policy), on_conflict: OnConflict) -> (Key, Policy) {
    (policy.0, Policy { on_conflict, ..policy.1 })
}
