//! What is known of pods' network namespaces: a part of the picture of this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sysctl::state::State;

/// Pods' network namespaces.
#[derive(Clone, Debug, Default)]
pub struct Pods {
    /// By the path they were first found at, escaped.
    pub namespaces: BTreeMap<Arc<str>, PodNamespace>,
    /// Values that were in force and were changed by others later.
    pub drift: u64,
    /// Namespaces that were there before the agent was, so that processes in them may have started
    /// without the values.
    pub late: u64,
    /// Time from the namespace's appearance until policies that match every pod were applied.
    pub since_namespace: Latency,
    /// Time from the CNI result's appearance until policies by name were applied.
    pub since_identity: Latency,
    /// For how many pods there are metrics of their own.
    pub per_pod_series: usize,
    /// The task that looks for them failed: nothing is known of them now.
    pub unknown: bool,
}

impl Pods {
    /// How many there are in each state, also where there are none.
    #[must_use]
    pub fn counts(&self) -> [(PodState, u64); 7] {
        let mut counts = PodState::ALL.map(|state| (state, 0));
        for namespace in self.namespaces.values() {
            let slot = counts.iter_mut().find(|(state, _)| *state == namespace.state);
            if let Some((_, count)) = slot {
                *count += 1;
            }
        }
        counts
    }
}

impl Pods {
    /// How many network namespaces of pods there are; `None` while nothing is known of them.
    #[must_use]
    pub fn count(&self) -> Option<u64> {
        let known = !self.unknown;
        known.then(|| self.namespaces.values().filter(|one| one.is_of_pod()).count() as u64)
    }
}

impl Pods {
    /// How many keys there are in each state, over all namespaces.
    #[must_use]
    pub fn keys(&self) -> Vec<(State, u64)> {
        // At each scrape: a search in a few entries, of which the first nearly always is the one.
        let mut counts: Vec<(State, u64)> = Vec::new();
        for key in self.namespaces.values().flat_map(|namespace| namespace.keys.iter()) {
            match counts.iter_mut().find(|(state, _)| *state == key.state) {
                Some((_, count)) => *count += 1,
                None => counts.push((key.state, 1)),
            }
        }
        counts
    }
}

/// One namespace, or a file that was taken for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodNamespace {
    /// The path it was found at, escaped.
    pub path: Arc<str>,
    /// Further paths of the same namespace, escaped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// Its inode, as `net:[inode]` shows it.
    pub inode: Option<u64>,
    /// What became of it.
    pub state: PodState,
    /// Why, where that needs saying, and what to do.
    pub detail: Option<String>,
    /// Whose it is, as far as that is known.
    pub pod: Option<Arc<Identity>>,
    /// Why the pod is not known, where a name was looked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unnamed: Option<String>,
    /// Whether it was there before the agent was.
    pub late: bool,
    /// Every key that a policy wants there. Shared by the pods of which the same is to be said.
    pub keys: Arc<[PodKey]>,
}

impl PodNamespace {
    /// Whether it is a network namespace, and not the host's.
    #[must_use]
    pub fn is_of_pod(&self) -> bool {
        match self.state {
            PodState::Found | PodState::Tuned | PodState::Unmatched | PodState::Failed => {
                self.inode.is_some()
            }
            PodState::SkippedHost | PodState::SkippedNotNetns | PodState::SkippedNotMounted => {
                false
            }
        }
    }

    /// Whether it needs no look: every key is as wanted, or somebody's on purpose.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let failing = matches!(self.state, PodState::Failed | PodState::SkippedNotMounted);
        !failing && self.keys.iter().all(PodKey::is_well)
    }
}

impl PodKey {
    /// Whether it is as wanted, or somebody's on purpose, or none that a pod has.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.in_sync || matches!(self.state, State::Yielded | State::Unsupported | State::Pending)
    }
}

/// What became of a namespace.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum PodState {
    /// Found, and not looked at yet.
    Found,
    /// Its policies were applied; each key says what came of it.
    Tuned,
    /// No policy is for it.
    Unmatched,
    /// It could not be entered, or a key could not be set.
    Failed,
    /// It is the host's own namespace.
    SkippedHost,
    /// It is no network namespace.
    SkippedNotNetns,
    /// No namespace is mounted there, as far as the agent can see.
    SkippedNotMounted,
}

impl PodState {
    /// All, in the order they are shown.
    pub const ALL: [Self; 7] = [
        Self::Found,
        Self::Tuned,
        Self::Unmatched,
        Self::Failed,
        Self::SkippedHost,
        Self::SkippedNotNetns,
        Self::SkippedNotMounted,
    ];

    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Tuned => "tuned",
            Self::Unmatched => "unmatched",
            Self::Failed => "failed",
            Self::SkippedHost => "skipped-host",
            Self::SkippedNotNetns => "skipped-not-netns",
            Self::SkippedNotMounted => "skipped-not-mounted",
        }
    }
}

/// Whose namespace it is. All strings are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// The Kubernetes namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub name: Option<String>,
    /// The pod's uid.
    pub uid: Option<String>,
    /// The id of its sandbox, or of a container.
    pub container: Option<String>,
    /// How it is known.
    pub from: IdentityFrom,
}

/// How a pod is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityFrom {
    /// The CNI result cache names it, and an address of the result is in the namespace.
    #[default]
    CniCache,
    /// The cgroup of the processes in the namespace.
    Process,
}

impl Identity {
    /// Kubernetes namespace and name, where both are known.
    #[must_use]
    pub fn names(&self) -> Option<(&str, &str)> {
        Some((self.namespace.as_deref()?, self.name.as_deref()?))
    }
}

/// What is said of a key that programs take over once, where some may have done so before.
pub const RESTART: &str = "what runs in the pod since before keeps the old value: restart it";

/// A key in a pod's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodKey {
    /// The key.
    pub key: String,
    /// The policy that decides it.
    pub policy: String,
    /// What is wanted.
    pub want: String,
    /// Its state.
    pub state: State,
    /// Whether the value there meets the policy, in whatever state.
    pub in_sync: bool,
    /// The value there, escaped.
    pub value: Option<String>,
    /// Why it is not as wanted, or what else there is to know.
    pub detail: Option<String>,
}

/// Upper bounds of the histogram's buckets, in seconds.
pub const BOUNDS: [f64; 12] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// How long things took: a histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    /// How many took at most as long as the bound of the same place in [`BOUNDS`], and longer than
    /// the bound before it.
    pub counts: [u64; 12],
    /// How many there were, also beyond the last bound.
    pub count: u64,
    /// How long they took together, in seconds.
    pub sum: f64,
}

impl Latency {
    /// Notes one.
    pub fn observe(&mut self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = BOUNDS.iter().position(|bound| seconds <= *bound);
        if let Some(count) = place.and_then(|place| self.counts.get_mut(place)) {
            *count += 1;
        }
        self.count += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_of_pods_are_counted_and_none_while_nothing_is_known() {
        let mut pods = Pods::default();
        assert_eq!(pods.count(), Some(0));
        for (index, state) in PodState::ALL.into_iter().enumerate() {
            for inode in [None, Some(7)] {
                let path: Arc<str> = format!("/run/netns/{index}-{}", inode.is_some()).into();
                let namespace = PodNamespace {
                    path: path.clone(),
                    also: Vec::new(),
                    inode,
                    state,
                    detail: None,
                    pod: None,
                    unnamed: None,
                    late: false,
                    keys: Arc::new([]),
                };
                pods.namespaces.insert(path, namespace);
            }
        }
        assert_eq!(pods.count(), Some(4), "found, tuned, unmatched, failed with an inode");
        pods.unknown = true;
        assert_eq!(pods.count(), None);
    }
}
