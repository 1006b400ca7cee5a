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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sysctl::policy::{OnConflict, Source, Want};

    fn pod(namespace: &str, name: &str) -> Identity {
        let known = |text: &str| Some(text.to_owned());
        Identity { namespace: known(namespace), name: known(name), ..Identity::default() }
    }

    fn matches(namespaces: &[&str], pods: &[&str]) -> Match {
        let texts = |patterns: &[&str]| patterns.iter().map(|&text| text.to_owned()).collect();
        Match { namespaces: texts(namespaces), pods: texts(pods), labels: BTreeMap::new() }
    }

    #[test]
    fn all_conditions_must_hold_and_one_pattern_of_each() {
        let servers = matches(&["web-*", "shop"], &["nginx-?", "*-proxy"]);
        for (namespace, name, covered) in [
            ("web-1", "nginx-1", true),
            ("shop", "a-proxy", true),
            ("web", "nginx-1", false),
            ("web-1", "nginx-12", false),
            ("shops", "nginx-1", false),
        ] {
            assert_eq!(servers.covers(Some(&pod(namespace, name))), covered, "{namespace}/{name}");
        }
        assert!(!servers.covers(None));
    }

    #[test]
    fn what_matches_every_pod_needs_no_name() {
        for every in [matches(&[], &[]), matches(&["*"], &[]), matches(&["a", "**"], &["*"])] {
            assert!(every.is_every_pod() && every.covers(None), "{every:?}");
        }
        let labelled = Match { labels: [("a".into(), "b".into())].into(), ..Match::default() };
        for some in [matches(&["?*"], &[]), matches(&[], &["a"]), labelled.clone()] {
            assert!(!some.is_every_pod() && !some.covers(None), "{some:?}");
        }
        // Labels are not asked for yet.
        assert!(!labelled.covers(Some(&pod("a", "b"))));
        // Half a name is none.
        let half = Identity { name: None, ..pod("a", "") };
        assert!(!matches(&["a"], &[]).covers(Some(&half)));
    }

    /// `*` any characters, `?` one, by trying every way.
    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], _) => name.is_empty(),
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|cut| plainly(rest, &name[cut..])),
            ([b'?', rest @ ..], [_, others @ ..]) => plainly(rest, others),
            ([one, rest @ ..], [other, others @ ..]) => one == other && plainly(rest, others),
            (_, []) => false,
        }
    }

    fn some_match() -> impl Strategy<Value = Match> {
        let patterns = || prop::collection::vec("[ab*?]{1,3}", 0..3);
        (patterns(), patterns()).prop_map(|(namespaces, pods)| Match {
            namespaces,
            pods,
            labels: BTreeMap::new(),
        })
    }

    fn some_policies() -> impl Strategy<Value = Vec<PodPolicy>> {
        let keys = prop::collection::btree_set("net\\.[abc]", 1..3);
        let one = (some_match(), keys).prop_map(|(matches, keys)| {
            let policy = Policy {
                want: Want::Value("1".into()),
                on_conflict: OnConflict::Yield,
                required: false,
                source: Source::Config { line: 1 },
                reason: None,
            };
            let keys = keys.iter().map(|key| (Key::parse(key).unwrap(), policy.clone()));
            PodPolicy { name: String::new(), matches, policies: keys.collect() }
        });
        prop::collection::vec(one, 0..5)
    }

    proptest! {
        #[test]
        fn patterns_mean_what_they_say(
            matches in some_match(), namespace in "[ab]{1,3}", name in "[ab]{1,3}",
        ) {
            let one = |patterns: &[String], name: &str| {
                patterns.is_empty()
                    || patterns.iter().any(|it| plainly(it.as_bytes(), name.as_bytes()))
            };
            let expected = one(&matches.namespaces, &namespace) && one(&matches.pods, &name);
            prop_assert_eq!(matches.covers(Some(&pod(&namespace, &name))), expected);
            prop_assert!(expected || !matches.is_every_pod());
        }

        #[test]
        fn the_first_that_matches_decides_each_key(
            policies in some_policies(), namespace in "[ab]{1,3}", name in "[ab]{1,3}",
        ) {
            let pod = pod(&namespace, &name);
            let known = wanted(&policies, Some(&pod));
            let covering = |key: &Key| {
                policies.iter().position(|policy| {
                    policy.policies.contains_key(key) && policy.matches.covers(Some(&pod))
                })
            };
            for key in policies.iter().flat_map(|policy| policy.policies.keys()) {
                prop_assert_eq!(known.get(key).map(|(index, _)| *index), covering(key));
            }
            // What is known of a pod later never takes a key away, and only an earlier policy
            // takes its place.
            for (key, (index, _)) in wanted(&policies, None) {
                prop_assert!(policies[index].matches.is_every_pod());
                prop_assert!(known[key].0 <= index);
            }
        }
    }
}
