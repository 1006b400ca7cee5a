//! Named sets of policies that ship with the agent.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::de::{RawScalar, Spanned, from_node};
use super::problem::Problem;
use super::yaml;
use crate::sysctl::key::Key;
use crate::sysctl::policy::{OnConflict, Policy, Source, Want};

const ALL: [(&str, &str); 2] = [
    ("dense-node", include_str!("profiles/dense-node.yaml")),
    ("density-article", include_str!("profiles/density-article.yaml")),
];

/// A profile: every policy in it only ever raises.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for, and what it costs.
    pub description: String,
    sysctls: BTreeMap<Spanned<String>, Floor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Floor {
    min: RawScalar,
    reason: String,
}

/// The names, in the order they are documented.
#[must_use]
pub fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}

/// A profile by name. Its text ships with the agent, so a problem in it is a bug that the tests
/// find; it is returned all the same rather than swallowed.
pub fn get(name: &str) -> Option<Result<Profile, Vec<Problem>>> {
    let (_, text) = ALL.iter().find(|(known, _)| *known == name)?;
    let parsed = yaml::parse(text.as_bytes()).and_then(|node| match node.as_ref().map(from_node) {
        Some((Some(profile), problems)) if problems.is_empty() => Ok(profile),
        Some((_, problems)) => Err(problems),
        None => Err(vec![Problem::error("profile", "the profile is empty")]),
    });
    Some(parsed)
}

impl Profile {
    /// What it wants, key by key. Never required: a node that lacks a key is still ready.
    pub fn policies(&self) -> impl Iterator<Item = (Key, Policy)> + '_ {
        self.sysctls.iter().filter_map(|(key, floor)| {
            let policy = Policy {
                want: Want::Bounds { min: Some(floor.min.text.clone()), max: None },
                on_conflict: OnConflict::Enforce,
                required: false,
                source: Source::Profile(self.name.clone()),
                reason: Some(floor.reason.clone()),
            };
            Some((Key::parse(key).ok()?, policy))
        })
    }

    /// How many keys it names, valid or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sysctls.len()
    }

    /// Whether it names none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sysctls.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sysctl::catalogue;

    #[test]
    fn profiles_are_floors_of_known_keys_with_a_reason_each() {
        for name in names() {
            let profile = get(name).unwrap().unwrap();
            assert_eq!(profile.name, name);
            let policies: Vec<_> = profile.policies().collect();
            assert_eq!(policies.len(), profile.len());
            for (key, policy) in policies {
                let entry = catalogue::lookup(&key).unwrap();
                policy.want.compile(entry.shape().unwrap()).unwrap();
                assert!(catalogue::refusal(&key).is_none(), "{key}");
                assert!(!entry.has("kubelet"), "{key} belongs to the kubelet");
                assert!(policy.reason.unwrap().len() > 10, "{key}");
            }
        }
    }

    #[test]
    fn dense_node_leaves_alone_what_would_hurt() {
        let keys: Vec<_> =
            get("dense-node").unwrap().unwrap().policies().map(|(key, _)| key).collect();
        for key in [
            // Below it stale entries live for ever.
            "net.ipv4.neigh.default.gc_thresh1",
            "net.ipv6.neigh.default.gc_thresh1",
            // Down to 1024 it collides with NodePorts and listening ports.
            "net.ipv4.ip_local_port_range",
        ] {
            assert!(!keys.contains(&Key::parse(key).unwrap()), "{key}");
        }
    }
}
