//! Applying pod policies in one namespace, on a thread that is in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::fresh::{Fresh, copies};
use super::policy::{PodPolicy, wanted};
use super::state::{Identity, PodKey};
use crate::kernel::netns::{Netns, NetnsError};
use crate::kernel::state_dir;
use crate::kernel::sysctl_file::SysctlTree;
use crate::sysctl::engine::Engine;
use crate::sysctl::key::Key;
use crate::sysctl::ledger::{Ledger, Record};
use crate::sysctl::managed::show;
use crate::sysctl::measure;
use crate::sysctl::place::{Net, Place};
use crate::sysctl::policy::{OnConflict, Policy};
use crate::sysctl::restore::{Outcome, Restored};
use crate::sysctl::state::State;

/// How often a namespace is judged again because another writer came in between.
const ATTEMPTS: usize = 3;

/// What is the same for all namespaces until the configuration changes.
#[derive(Clone)]
pub struct Plan {
    /// The configuration's pod policies.
    pub policies: Vec<PodPolicy>,
    /// Never writes.
    pub observe: bool,
    /// The keys' files.
    pub tree: Arc<SysctlTree>,
    /// Where the ledgers are, one for each namespace.
    pub ledgers: PathBuf,
    /// This boot.
    pub boot: String,
    /// The kernel's version.
    pub kernel: (u32, u32),
}

impl Plan {
    /// Every key that some policy names.
    #[must_use]
    pub fn keys(&self) -> Vec<Key> {
        let named = self.policies.iter().flat_map(|policy| policy.policies.keys());
        let mut keys: Vec<Key> = named.cloned().collect();
        keys.sort();
        keys.dedup();
        keys
    }

    /// The ledger of a namespace.
    #[must_use]
    pub fn ledger(&self, inode: u64, cookie: Option<u64>) -> PathBuf {
        self.ledgers.join(format!("{inode}-{}.json", cookie.unwrap_or_default()))
    }
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Applied {
    /// Every key that a policy wants there.
    pub keys: Vec<PodKey>,
    /// Keys that were put in force.
    pub set: Vec<Key>,
    /// Whether the ledger knew the namespace: it was tuned before.
    pub known: bool,
    /// Values that another writer had changed, and that were put back.
    pub drift: u64,
    /// Why originals of keys that no policy names any more could not be put back, if so.
    pub unrestored: Option<String>,
    /// What is wrong with the ledger, if anything.
    pub ledger: Option<String>,
}

/// Why nothing was applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A value looks as if somebody had set it, but what new namespaces have may have changed since
    /// it was looked at: look again, then apply again.
    #[error("what new namespaces have is not known well enough")]
    Stale,
    /// Another writer changes its keys all the time.
    #[error("another writer changed its keys each time they were about to be written")]
    Overtaken,
    /// The namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// What is wanted for a key, and by which policy.
type Wanted<'p> = BTreeMap<&'p Key, (usize, &'p Policy)>;

/// Applies what is wanted for a pod in the calling thread's namespace.
///
/// A value that neither a new namespace has nor the agent wrote was set by somebody on purpose: it
/// is kept unless the policy says `enforce`. So is a value that was changed after the agent wrote
/// it. `sure`: what new namespaces have was looked at after this was asked for.
pub fn apply(
    plan: &Plan,
    pod: Option<&Identity>,
    fresh: &Fresh,
    ledger: &Path,
    sure: bool,
) -> Result<Applied, ApplyError> {
    let (mut set, mut drift, mut first) = (Vec::new(), 0, None);
    // A runtime sets what the pod asks for at the same time: then it is judged again.
    for _ in 0..ATTEMPTS {
        let (mut applied, overtaken) = attempt(plan, pod, fresh, ledger, sure)?;
        set.append(&mut applied.set);
        drift += applied.drift;
        let known = *first.get_or_insert(applied.known);
        if !overtaken {
            return Ok(Applied { set, drift, known, ..applied });
        }
    }
    Err(ApplyError::Overtaken)
}

/// One time. Whether another writer came in between.
fn attempt(
    plan: &Plan,
    pod: Option<&Identity>,
    fresh: &Fresh,
    ledger_path: &Path,
    sure: bool,
) -> Result<(Applied, bool), ApplyError> {
    let wanted = wanted(&plan.policies, pod);
    let (ledger, notice) = Ledger::at(ledger_path.to_owned(), &plan.boot);
    if wanted.is_empty() && ledger.is_empty() {
        let ledger = notice.map(|notice| notice.to_string());
        return Ok((Applied { ledger, ..Applied::default() }, false));
    }
    let known = !ledger.is_empty();
    let place = Place { net: Net::Given, ipc: false, pid: false, uts: false, kernel: plan.kernel };
    let mut engine =
        Engine::new(place, plan.tree.clone(), Netns::Own, plan.observe, ledger).quietly();
    if let Some(notice) = &notice {
        engine.ledger_trouble(notice);
    }
    let mut writable = to_write(&wanted, fresh);
    engine.configure(writable.clone(), Vec::new());
    let now = Instant::now();
    let mut kept = BTreeMap::new();
    for change in engine.preview(now)? {
        let by = wanted.get(&change.key).map(|(_, policy)| policy.on_conflict);
        let Some(status) = engine.status_of(&change.key).filter(|_| by == Some(OnConflict::Yield))
        else {
            continue;
        };
        let shown = status.actual.as_deref().unwrap_or_default();
        match provenance(engine.ledger(), fresh, &change.key, shown) {
            Provenance::OursOrNobodys => {}
            Provenance::Inherited(original) => engine.originate(&change.key, &original),
            Provenance::Unsure if !sure => return Err(ApplyError::Stale),
            Provenance::Unsure | Provenance::OnPurpose => {
                writable.remove(&change.key);
                let why = on_purpose(fresh, &change.key);
                kept.insert(change.key, (status, why));
            }
            Provenance::Changed(ours) => {
                writable.remove(&change.key);
                kept.insert(change.key, (status, changed(&ours)));
            }
        }
    }
    if !kept.is_empty() {
        engine.configure(writable.clone(), Vec::new());
    }
    engine.expect(judged(&engine, &wanted, &writable));
    let gone = |key: &Key| !kept.contains_key(key) && !may_write(&wanted, key);
    let mut unrestored = None;
    // Of what somebody else has changed since only the original is left on record.
    let was_ours = |record: &Record| {
        record.stored.is_some() || record.intended.is_some() || record.sibling_of.is_some()
    };
    if !plan.observe && engine.ledger().iter().any(|(key, it)| was_ours(it) && gone(&key)) {
        let restored = engine.restore(gone)?;
        unrestored = unrestored_of(&restored);
    }
    engine.pass(now)?;
    let mut keys = Vec::with_capacity(wanted.len());
    for (key, (index, policy)) in &wanted {
        let name = plan.policies.get(*index).map(|policy| policy.name.as_str());
        let status = engine.status_of(key);
        let (state, detail, status) = match (kept.remove(*key), fresh.ineligible(key), status) {
            (Some((status, why)), ..) => (State::Yielded, Some(why), Some(status)),
            (_, Some(why), _) => (State::Unsupported, Some(why.to_owned()), None),
            (.., Some(status)) => (status.state, status.detail.clone(), Some(status)),
            (.., None) => (State::Pending, None, None),
        };
        keys.push(PodKey {
            key: key.as_str().to_owned(),
            policy: name.unwrap_or_default().to_owned(),
            want: policy.want.to_string(),
            state,
            in_sync: status.as_ref().is_some_and(|status| status.in_sync),
            value: status.and_then(|status| status.actual),
            detail,
        });
    }
    let ledger = engine.ledger_notice().map(str::to_owned);
    if known && engine.ledger().is_empty() {
        // Nothing is left to put back. One that stays is empty.
        let _ = state_dir::remove(ledger_path);
    }
    let counters = engine.counters();
    let applied = Applied {
        keys,
        set: engine.written().to_vec(),
        known,
        drift: counters.drift,
        unrestored,
        ledger,
    };
    Ok((applied, engine.was_overtaken()))
}

/// What the engine is to keep: it puts right what it is given, so only what may be written.
fn to_write(wanted: &Wanted<'_>, fresh: &Fresh) -> BTreeMap<Key, Policy> {
    let eligible = wanted.iter().filter(|(key, _)| fresh.ineligible(key).is_none());
    let policy = |policy: &Policy| match policy.on_conflict {
        OnConflict::Report => policy.clone(),
        _ => Policy { on_conflict: OnConflict::Enforce, ..policy.clone() },
    };
    eligible.map(|(key, (_, wanted))| ((*key).clone(), policy(wanted))).collect()
}

/// What the keys had that are to be written only as long as nobody else sets them.
fn judged(
    engine: &Engine,
    wanted: &Wanted<'_>,
    writable: &BTreeMap<Key, Policy>,
) -> BTreeMap<Key, Option<String>> {
    let yields = |key: &&Key| {
        wanted.get(key).is_some_and(|(_, policy)| policy.on_conflict == OnConflict::Yield)
    };
    let shown = |key: &Key| engine.status_of(key).and_then(|status| status.actual);
    writable.keys().filter(yields).map(|key| (key.clone(), shown(key))).collect()
}

fn may_write(wanted: &Wanted<'_>, key: &Key) -> bool {
    wanted.get(key).is_some_and(|(_, policy)| policy.on_conflict != OnConflict::Report)
}

/// Whose a value is that is not as wanted.
#[derive(Debug, PartialEq, Eq)]
enum Provenance {
    OursOrNobodys,
    /// Ours: the interface began with what the agent had set for those to come, instead of this.
    Inherited(String),
    /// Somebody's, who changed what was ours: this.
    Changed(String),
    /// Somebody's, who set it before the agent could.
    OnPurpose,
    /// The same, unless what new namespaces have has changed.
    Unsure,
}

fn provenance(ledger: &Ledger, fresh: &Fresh, key: &Key, shown: &str) -> Provenance {
    match ledger.get(key).filter(|record| record.sibling_of.is_none()) {
        Some(record) if record.is_ours(key, shown) => Provenance::OursOrNobodys,
        // It was ours, and somebody changed it since, be it to what a new namespace has.
        Some(Record { stored: Some(ours), .. }) => Provenance::Changed(show(ours)),
        // Not on record, or the agent died before it wrote.
        _ if fresh.has(key, shown) => Provenance::OursOrNobodys,
        _ => match inherited(ledger, key, shown) {
            Some(original) => Provenance::Inherited(original),
            None if copies(key) => Provenance::Unsure,
            None => Provenance::OnPurpose,
        },
    }
}

/// What an interface would have begun with, had the agent not set `conf.default`.
fn inherited(ledger: &Ledger, key: &Key, shown: &str) -> Option<String> {
    let default = measure::everywhere(key);
    let is_conf = key.as_str().contains(".conf.");
    let record = ledger.get(&default).filter(|_| is_conf && default != *key)?;
    record.is_ours(&default, shown).then(|| record.original.clone())
}

fn unrestored_of(restored: &[Restored]) -> Option<String> {
    let failed = restored.iter().filter_map(|one| match &one.outcome {
        Outcome::Failed { reason } => Some(format!("{} was not put back: {reason}", one.key)),
        _ => None,
    });
    let failed: Vec<String> = failed.collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

fn on_purpose(fresh: &Fresh, key: &Key) -> String {
    let fresh = fresh.value(key).unwrap_or("another value");
    format!(
        "kept: somebody set it on purpose, as a new namespace has {fresh}; onConflict: enforce would \
         overwrite it"
    )
}

fn changed(ours: &str) -> String {
    format!(
        "kept: somebody changed it after the agent had set {ours}; onConflict: enforce would put it \
         back"
    )
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
