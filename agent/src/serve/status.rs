//! The whole picture as one document, for `headroom status`.

mod autogrow;
mod limits;
mod netfilter;

use std::collections::BTreeMap;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::autogrow::Autogrow;
pub use self::limits::{Capacity, Limit};
pub use self::netfilter::{Netfilter, RuleCount};
use super::metrics::REVISION;
use crate::kernel::neighbor::Family;
use crate::limits::bridge::Bridge as BridgeLimit;
use crate::limits::neighbor::{Basis, Fullness};
use crate::node::{Checks, NodeState, Notifications};
use crate::pods::state::{PodNamespace, PodState};
use crate::sysctl::place::Net;
use crate::sysctl::state::KeyStatus;

/// The document's version.
pub const SCHEMA: &str = "headroom.status/v1";

/// This node.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Always `headroom.status/v1`.
    pub schema: String,
    /// `agent`: the running agent says so. `cli`: no agent answered, so the command looked itself.
    pub from: String,
    /// The agent's version.
    pub version: String,
    /// The commit it was built from.
    pub revision: String,
    /// The node's name.
    pub node: String,
    /// The kernel's release.
    pub kernel: String,
    /// CPUs that are online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    /// The configuration in force.
    pub config: Config,
    /// The network namespace: `initial`, `given` or `wrong`, and the evidence if wrong.
    pub host_netns: HostNetns,
    /// Whether every readiness check passes. Absent where no agent runs.
    pub ready: Option<bool>,
    /// The readiness checks.
    pub checks: Vec<CheckResult>,
    /// How writes of other processes are noticed; absent where no agent runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
    /// Every configured key; absent while they are not known.
    pub keys: Option<Vec<KeyStatus>>,
    /// Pods' network namespaces; absent where the configuration has no `pods`, or no agent runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Pods>,
    /// The neighbor tables.
    pub neighbor_tables: Vec<NeighborTable>,
    /// How the neighbor tables grow by themselves; null: `autogrow` is off.
    #[serde(default)]
    pub autogrow: Option<Autogrow>,
    /// Every watched bridge; absent while they are not known.
    pub bridges: Option<Vec<Bridge>>,
    /// How many more pods fit.
    pub capacity: Capacity,
    /// Netfilter's rules; absent while they are not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netfilter: Option<Netfilter>,
    /// Every limit.
    pub limits: Vec<Limit>,
    /// How the reading of each source went.
    pub collectors: Vec<Collector>,
    /// What is wrong beside that, in words.
    pub notices: Vec<String>,
}

/// The configuration in force.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// `file` or `embedded`.
    pub source: String,
    /// The file.
    pub path: Option<String>,
    /// Hash of its text.
    pub hash: String,
    /// `enforce` or `observe`.
    pub mode: String,
    /// Profiles in force.
    pub profiles: Vec<String>,
    /// Why the last reload failed; the last good one is in force.
    pub reload_error: Option<String>,
    /// When it was loaded, in seconds since the epoch.
    pub loaded_at: Option<u64>,
}

/// Where the agent is.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostNetns {
    /// `initial`, `given`, `wrong` or `unknown`.
    pub state: String,
    /// The evidence where it is wrong.
    pub reason: Option<String>,
}

/// One readiness check.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckResult {
    /// Its name.
    pub name: String,
    /// Whether it passes.
    pub ok: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// Pods' network namespaces.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pods {
    /// How many files there are in each state.
    pub counts: BTreeMap<PodState, u64>,
    /// Namespaces that had to be tuned though they were there before the agent.
    pub late: u64,
    /// Values that were in force and that another writer changed later.
    pub drift: u64,
    /// Each of them, by path.
    pub namespaces: Vec<PodNamespace>,
}

/// One neighbor table.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NeighborTable {
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Entries of all namespaces.
    pub entries: Option<u64>,
    /// Most entries since the agent started.
    pub peak: Option<u64>,
    /// Entries that the thresholds do not count, where scanned.
    pub exempt: Option<u64>,
    /// Entries that cannot be collected, where scanned.
    pub pinned: Option<u64>,
    /// What was scanned for that; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scan: Option<NeighborScan>,
    /// gc_thresh1, 2 and 3.
    pub gc_thresholds: Option<[u64; 3]>,
    /// Fullness against gc_thresh3.
    pub fullness_ratio: Option<f64>,
    /// What the ratio is made of: `pinned` or `entries`, an upper bound.
    pub basis: Option<String>,
    /// Failed allocations since boot.
    pub table_fulls: Option<u64>,
    /// Forced garbage collections since boot.
    pub forced_gc_runs: Option<u64>,
}

/// The last scan of entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NeighborScan {
    /// Network namespaces that were scanned: the host's, and pods'.
    pub scanned: u64,
    /// Known ones that were not: they cannot be entered, or nothing is mounted on their file.
    pub skipped: u64,
    /// Whether every entry of the table was seen, and so every pinned one.
    pub complete: bool,
    /// Pinned entries that are there because of pods; absent where not every pod was scanned.
    pub of_pods: Option<u64>,
    /// How many seconds ago.
    pub age_seconds: u64,
}

/// One bridge.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bridge {
    /// Interface name, escaped.
    pub name: String,
    /// Its ports.
    pub ports: u64,
    /// How many it can have.
    pub limit: u64,
}

/// How the reading of a source went.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Collector {
    /// Its name.
    pub name: String,
    /// Whether it was read.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
}

impl Status {
    /// The document of a picture. `agent`: a running agent's.
    #[must_use]
    pub fn of(state: &NodeState, agent: bool) -> Self {
        let capacity = state.capacity(Instant::now());
        let checks = if agent { state.checks(Checks::Ready, Instant::now()) } else { Vec::new() };
        Self {
            schema: SCHEMA.to_owned(),
            from: if agent { "agent" } else { "cli" }.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: REVISION.to_owned(),
            node: state.node.clone(),
            kernel: state.kernel.clone(),
            cpus: state.cpus,
            config: config(state),
            host_netns: host_netns(state),
            ready: agent.then(|| checks.iter().all(|check| check.result.is_ok())),
            checks: checks
                .into_iter()
                .map(|check| CheckResult {
                    name: check.name.to_owned(),
                    ok: check.result.is_ok(),
                    reason: check.result.err(),
                })
                .collect(),
            notifications: state.notifications.clone(),
            keys: state.keys.clone(),
            pods: state.pods.as_ref().map(pods),
            neighbor_tables: neighbor_tables(state),
            autogrow: state.autogrow.as_ref().map(Autogrow::of),
            bridges: bridges(state),
            capacity: Capacity::of(&state.node, &capacity),
            netfilter: state.netfilter.as_ref().map(|it| Netfilter::of(it, &state.kernel)),
            limits: capacity.fits.into_iter().map(Limit::of).collect(),
            collectors: collectors(state),
            notices: notices(state),
        }
    }
}

fn config(state: &NodeState) -> Config {
    let config = &state.config;
    let since_epoch =
        |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs());
    Config {
        source: config.source.to_owned(),
        path: config.path.clone(),
        hash: config.hash.clone(),
        mode: config.mode.to_owned(),
        profiles: config.profiles.clone(),
        reload_error: config.error.clone(),
        loaded_at: config.loaded_at.and_then(since_epoch),
    }
}

fn host_netns(state: &NodeState) -> HostNetns {
    let (name, reason) = match &state.net {
        None => ("unknown", None),
        Some(Net::Initial) => ("initial", None),
        Some(Net::Given) => ("given", None),
        Some(Net::Wrong(evidence)) => ("wrong", Some(evidence.clone())),
    };
    HostNetns { state: name.to_owned(), reason }
}

fn pods(pods: &crate::pods::state::Pods) -> Pods {
    Pods {
        // Without the task nothing is known, which is not none.
        counts: pods.counts().into_iter().filter(|_| !pods.unknown).collect(),
        late: pods.late,
        drift: pods.drift,
        namespaces: pods.namespaces.values().cloned().collect(),
    }
}

fn neighbor_tables(state: &NodeState) -> Vec<NeighborTable> {
    let known = Family::ALL.into_iter().zip(&state.neighbor);
    known
        .filter(|(_, neighbor)| neighbor.entries().is_some())
        .map(|(family, neighbor)| {
            let fullness = neighbor.fullness();
            NeighborTable {
                family: family.label().to_owned(),
                entries: neighbor.entries(),
                peak: neighbor.peak,
                exempt: neighbor.scan.map(|scan| scan.counts.exempt),
                pinned: neighbor.scan.map(|scan| scan.counts.pinned),
                scan: neighbor.scan.map(|scan| NeighborScan {
                    scanned: scan.scanned,
                    skipped: scan.skipped,
                    complete: scan.complete,
                    of_pods: scan.of_pods,
                    age_seconds: scan.read_at.elapsed().as_secs(),
                }),
                gc_thresholds: neighbor.gc_thresholds(),
                fullness_ratio: fullness.map(|fullness| fullness.ratio),
                basis: fullness.map(|fullness: Fullness| Basis::label(fullness.basis).to_owned()),
                table_fulls: neighbor.table_fulls(),
                forced_gc_runs: neighbor.forced_gc_runs(),
            }
        })
        .collect()
}

fn bridges(state: &NodeState) -> Option<Vec<Bridge>> {
    let shown = |bridge: &BridgeLimit| Bridge {
        name: bridge.name.to_string(),
        ports: bridge.ports,
        limit: bridge.limit,
    };
    Some(state.bridges.as_ref()?.iter().map(shown).collect())
}

fn collectors(state: &NodeState) -> Vec<Collector> {
    let collectors = state.collectors.iter();
    collectors
        .map(|(name, collector)| Collector {
            name: (*name).to_owned(),
            ok: collector.error.is_none(),
            error: collector.error.clone(),
        })
        .collect()
}

fn notices(state: &NodeState) -> Vec<String> {
    let reload =
        state.config.error.iter().map(|error| format!("configuration not reloaded: {error}"));
    let listeners = state.listeners.values().filter_map(|result| result.as_ref().err().cloned());
    let tasks = state.tasks.iter().filter_map(|(name, task)| {
        task.failure.as_ref().map(|failure| format!("task {name} failed: {failure}"))
    });
    let others = state.notices.values().cloned();
    let ledger = state.ledger_notice.iter().cloned();
    ledger.chain(reload).chain(others).chain(listeners).chain(tasks).collect()
}
