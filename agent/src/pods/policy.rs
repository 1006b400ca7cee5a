//! What the configuration wants in pods' network namespaces.

use std::collections::BTreeMap;

use super::state::Identity;
use crate::sysctl::key::Key;
use crate::sysctl::policy::Policy;

/// One entry of the configuration's `pods`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPolicy {
    /// Its name, unique in the configuration.
    pub name: String,
    /// Which pods it is for.
    pub matches: Match,
    /// What is wanted for each key there.
    pub policies: BTreeMap<Key, Policy>,
}

/// Which pods a policy is for: all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Patterns of Kubernetes namespaces: `*` any characters, `?` one. Empty: every namespace.
    pub namespaces: Vec<String>,
    /// Patterns of pod names. Empty: every name.
    pub pods: Vec<String>,
    /// Labels, which the agent cannot see yet: a policy that asks for some matches no pod.
    pub labels: BTreeMap<String, String>,
}

impl Match {
    /// Whether it needs to know nothing of a pod.
    #[must_use]
    pub fn is_every_pod(&self) -> bool {
        let every = |patterns: &[String]| {
            patterns.is_empty()
                || patterns
                    .iter()
                    .any(|pattern| pattern.bytes().all(|it| it == b'*') && !pattern.is_empty())
        };
        self.labels.is_empty() && every(&self.namespaces) && every(&self.pods)
    }

    /// Whether a pod matches. One whose namespace and name are not known matches only what every
    /// pod matches.
    #[must_use]
    pub fn covers(&self, pod: Option<&Identity>) -> bool {
        if self.is_every_pod() {
            return true;
        }
        let Some((namespace, name)) = pod.and_then(Identity::names) else { return false };
        let one_of = |patterns: &[String], name: &str| {
            patterns.is_empty()
                || patterns.iter().any(|pattern| wildmatch::WildMatch::new(pattern).matches(name))
        };
        self.labels.is_empty() && one_of(&self.namespaces, namespace) && one_of(&self.pods, name)
    }
}

/// What is wanted for a pod, by key: the first policy that matches and names the key. With the
/// policy's place in the list.
#[must_use]
pub fn wanted<'p>(
    policies: &'p [PodPolicy],
    pod: Option<&Identity>,
) -> BTreeMap<&'p Key, (usize, &'p Policy)> {
    let mut wanted = BTreeMap::new();
    for (index, policy) in policies.iter().enumerate() {
        if policy.matches.covers(pod) {
            for (key, policy) in &policy.policies {
                wanted.entry(key).or_insert((index, policy));
            }
        }
    }
    wanted
}
