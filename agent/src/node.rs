//! The one picture of this node. Everything below only reads it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::capacity::{Capacity, History};
use crate::config;
use crate::kernel::system::SelfUsage;
use crate::limits::autogrow::Growth;
use crate::limits::bridge::Bridge;
use crate::limits::neighbor::Neighbor;
use crate::limits::netfilter::Netfilter;
use crate::limits::pod_conntrack::PodConntrack;
use crate::limits::{self, Limit};
use crate::pods::state::Pods;
use crate::sysctl::engine::Counters;
use crate::sysctl::place::Net;
use crate::sysctl::state::KeyStatus;

/// How long the main loop's heart may stand still before the agent is not live. Far above what a
/// node without a free CPU delays it, far below what an operator waits.
const HEART_STOPPED: Duration = Duration::from_secs(30);

/// What is known of this node, and of the agent itself.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// The node's name, escaped.
    pub node: String,
    /// The kernel's release, escaped.
    pub kernel: String,
    /// CPUs that are online; `None`: not known.
    pub cpus: Option<u64>,
    /// The configuration in force.
    pub config: ConfigState,
    /// The network namespace the agent finds itself in; `None` before it has looked.
    pub net: Option<Net>,
    /// Every configured key; `None` before the first pass.
    pub keys: Option<Vec<KeyStatus>>,
    /// What was written and what drifted.
    pub counters: Counters,
    /// How writes of other processes are noticed; `None` before the files are watched.
    pub notifications: Option<Notifications>,
    /// What is wrong with the ledger, if anything.
    pub ledger_notice: Option<String>,
    /// The neighbor tables, IPv4 first.
    pub neighbor: [Neighbor; 2],
    /// Connections tracked in pods' namespaces; `None` while they are not known.
    pub pod_conntrack: Option<PodConntrack>,
    /// What the neighbor tables have grown to by themselves; `None`: `autogrow` is off.
    pub autogrow: Option<Growth>,
    /// Every watched bridge, by name; `None` while they are not known.
    pub bridges: Option<Vec<Bridge>>,
    /// What the readers of limits found, by reader.
    pub limits: BTreeMap<&'static str, Vec<Limit>>,
    /// What limits used over the last hour.
    pub history: History,
    /// Netfilter's rules; `None` while they are not known.
    pub netfilter: Option<Netfilter>,
    /// How many pods have a network namespace of their own; `None` while it is not known.
    pub pod_count: Option<u64>,
    /// How long some task was ready and had no CPU, since boot; `None` where the kernel does not say.
    pub cpu_stalled: Option<Duration>,
    /// Pods' network namespaces; `None` where the configuration has no `pods`.
    pub pods: Option<Pods>,
    /// How the reading of each source went last.
    pub collectors: BTreeMap<&'static str, Collector>,
    /// The agent's tasks.
    pub tasks: BTreeMap<&'static str, Task>,
    /// Where the agent listens, or why not.
    pub listeners: BTreeMap<String, Result<(), String>>,
    /// Times the kernel dropped link events.
    pub netlink_overruns: u64,
    /// Times all links were read anew after the first.
    pub netlink_resyncs: u64,
    /// What an operator should know beside that, by subject.
    pub notices: BTreeMap<&'static str, String>,
    /// The agent's own cost, read at the scrape.
    pub process: Option<SelfUsage>,
    /// The last beat of the main loop.
    pub heartbeat: Option<Instant>,
}

/// The configuration in force.
#[derive(Clone, Debug, Default)]
pub struct ConfigState {
    /// `file` or `embedded`.
    pub source: &'static str,
    /// The file's path, escaped.
    pub path: Option<String>,
    /// The first 16 hexadecimal digits of the content's hash.
    pub hash: String,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// The profiles that are in force.
    pub profiles: Vec<String>,
    /// What limits pods beside the kernel.
    pub limits: config::Limits,
    /// Why the last attempt to load it failed, if it did. The last good one stays in force.
    pub error: Option<String>,
    /// When the configuration in force was loaded.
    pub loaded_at: Option<SystemTime>,
}

/// How writes of other processes are noticed, beside the sweep.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    /// `fanotify`, which names the writer; `inotify`, which does not; or `none`.
    pub by: String,
    /// Why it is nothing better.
    pub reason: Option<String>,
}

/// How reading a source went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collector {
    /// Why it failed; `None`: it did not.
    pub error: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

/// A supervised task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// How often it was started again.
    pub restarts: u64,
    /// Why it is not running; `None`: it runs.
    pub failure: Option<String>,
}

/// Fills in what is read at the moment of a scrape.
type Refresh = Box<dyn FnMut(&mut NodeState) + Send>;

/// The picture, shared.
#[derive(Clone, Default)]
pub struct Node(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<NodeState>,
    refresh: Mutex<Option<Refresh>>,
}

impl Node {
    /// Reads the picture.
    pub fn read<T>(&self, read: impl FnOnce(&NodeState) -> T) -> T {
        read(&lock(&self.0.state))
    }

    /// Changes the picture.
    pub fn update<T>(&self, update: impl FnOnce(&mut NodeState) -> T) -> T {
        update(&mut lock(&self.0.state))
    }

    /// Sets or clears a notice. What it is now, where that is new and so worth a line in the log.
    pub fn notice(&self, subject: &'static str, notice: Option<String>) -> Option<Option<String>> {
        self.update(|state| {
            let before = match notice.clone() {
                Some(notice) => state.notices.insert(subject, notice),
                None => state.notices.remove(subject),
            };
            (before != notice).then_some(notice)
        })
    }

    /// Sets what brings the cheap numbers up to date at a scrape.
    pub fn on_scrape(&self, refresh: impl FnMut(&mut NodeState) + Send + 'static) {
        *lock(&self.0.refresh) = Some(Box::new(refresh));
    }

    /// Brings the cheap numbers up to date, and shows the picture.
    pub fn fresh<T>(&self, show: impl FnOnce(&mut NodeState) -> T) -> T {
        let mut state = lock(&self.0.state);
        if let Some(refresh) = lock(&self.0.refresh).as_mut() {
            // A bug there costs what it reads, not the scrape.
            let panicked = catch_unwind(AssertUnwindSafe(|| refresh(&mut state))).is_err();
            let error = panicked.then(|| "panicked".to_owned());
            state.collected("scrape", error, Duration::ZERO);
        }
        show(&mut state)
    }
}

/// A panic while the lock was held must not end the agent: every field is written whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NodeState {
    /// Notes how reading a source went. Whether it came out another way than last time, which is
    /// when it is worth a line in the log.
    pub fn collected(&mut self, name: &'static str, error: Option<String>, took: Duration) -> bool {
        let now = Collector { error, duration: took };
        let before = self.collectors.get(name).and_then(|last| last.error.clone());
        let changed = before != now.error;
        self.collectors.insert(name, now);
        changed
    }

    /// A task failed: what it last knew is not shown as if it were fresh.
    pub fn lost(&mut self, task: &'static str, failure: String) {
        match task {
            "bridges" => self.bridges = None,
            "neighbor-netlink" => self.neighbor.iter_mut().for_each(|table| table.table = None),
            "neighbor-scan" => {
                self.neighbor.iter_mut().for_each(|table| table.scan = None);
                self.pod_conntrack = None;
            }
            "netfilter" => self.netfilter = None,
            "sysctl" => self.keys = None,
            // Those that are read at every scrape come back with it.
            "limits" => {
                self.limits.clear();
                self.pod_count = None;
            }
            "pods" => {
                if let Some(pods) = &mut self.pods {
                    pods.namespaces.clear();
                    pods.unknown = true;
                }
            }
            // Not a collector: there are no numbers to lose.
            _ => {
                self.tasks.entry(task).or_default().failure = Some(failure);
                return;
            }
        }
        self.collected(task, Some(failure.clone()), Duration::ZERO);
        self.tasks.entry(task).or_default().failure = Some(failure);
    }

    /// How many more pods fit, and what stops the next one.
    #[must_use]
    pub fn capacity(&self, now: Instant) -> Capacity {
        let reserve = self.config.limits.reserve;
        Capacity::of(limits::all(self), self.pod_count, &self.history, reserve, now)
    }

    /// Whether the agent is where it should be.
    #[must_use]
    pub fn in_host_netns(&self) -> bool {
        matches!(self.net, Some(Net::Initial | Net::Given))
    }

    /// The node's checks, in the order they are shown.
    #[must_use]
    pub fn checks(&self, which: Checks, now: Instant) -> Vec<Check> {
        let mut checks = vec![Check::new("ping", self.heart(now))];
        if which == Checks::Live {
            return checks;
        }
        checks.push(Check::new(
            "config",
            self.config.loaded_at.map(drop).ok_or_else(|| "not loaded yet".to_owned()),
        ));
        checks.push(Check::new("host-netns", self.net_check()));
        checks.push(Check::new(
            "first-pass",
            self.keys
                .as_ref()
                .map(drop)
                .ok_or_else(|| "the first pass over the keys is not done".to_owned()),
        ));
        checks.push(Check::new("required-keys", self.keys_check()));
        checks.push(Check::new("watchers", self.watchers_check()));
        checks.push(Check::new("tasks", self.tasks_check()));
        checks.push(Check::new("listeners", self.listeners_check()));
        checks
    }

    fn heart(&self, now: Instant) -> Result<(), String> {
        match self.heartbeat {
            None => Err("the main loop has not started".to_owned()),
            Some(beat) => match now.saturating_duration_since(beat) {
                stood if stood > HEART_STOPPED => {
                    Err(format!("the main loop stands still for {} s", stood.as_secs()))
                }
                _ => Ok(()),
            },
        }
    }

    fn net_check(&self) -> Result<(), String> {
        match &self.net {
            None => Err("not looked yet".to_owned()),
            Some(Net::Wrong(evidence)) => Err(format!(
                "wrong network namespace ({evidence}): run with hostNetwork, or set `hostNetns: current` \
                 if this node is itself a container"
            )),
            Some(_) => Ok(()),
        }
    }

    fn keys_check(&self) -> Result<(), String> {
        let blocking = self.keys.iter().flatten().filter(|key| key.blocks_readiness());
        let blocking: Vec<String> = blocking
            .map(|key| match &key.detail {
                Some(detail) => format!("{} is {}: {detail}", key.key, key.state.label()),
                None => format!("{} is {}", key.key, key.state.label()),
            })
            .collect();
        if blocking.is_empty() { Ok(()) } else { Err(blocking.join("; ")) }
    }

    fn watchers_check(&self) -> Result<(), String> {
        if matches!(self.net, Some(Net::Wrong(_))) {
            return Ok(()); // said by host-netns
        }
        if self.bridges.is_none() {
            return Err("the bridges are not known yet".to_owned());
        }
        if self.neighbor.iter().all(|table| table.entries().is_none()) {
            return Err("the neighbor tables are not known yet".to_owned());
        }
        Ok(())
    }

    fn tasks_check(&self) -> Result<(), String> {
        let failed: Vec<String> = self
            .tasks
            .iter()
            // Nothing about a pod makes the node unready.
            .filter(|(name, _)| **name != "pods")
            .filter_map(|(name, task)| Some(format!("{name}: {}", task.failure.as_ref()?)))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }

    fn listeners_check(&self) -> Result<(), String> {
        let failed: Vec<&str> = self
            .listeners
            .values()
            .filter_map(|result| Some(result.as_ref().err()?.as_str()))
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
    }
}

/// Which checks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checks {
    /// Whether the agent should be restarted.
    Live,
    /// Whether it does its work.
    Ready,
}

/// One named check and how it came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Stable name.
    pub name: &'static str,
    /// The reason where it failed.
    pub result: Result<(), String>,
}

impl Check {
    fn new(name: &'static str, result: Result<(), String>) -> Self {
        Self { name, result }
    }
}
