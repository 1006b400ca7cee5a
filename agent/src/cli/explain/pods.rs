//! What pods get of a key, and what the configuration wants there.

use std::fmt;

use headroom::kernel::name::escape;
use headroom::pods::policy::{Match, PodPolicy};
use headroom::sysctl::glob::Subject;
use headroom::sysctl::inherit::Gets;
use headroom::sysctl::policy::{OnConflict, Policy};
use schemars::JsonSchema;
use serde::Serialize;

use super::Explained;

/// A policy of the configuration's `pods` that names the key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodPolicyOfKey {
    /// The policy's name, escaped.
    name: String,
    /// Which pods it is for, in words.
    matches: String,
    /// The key that it names: of a pattern, one of those it means.
    key: String,
    /// What is wanted.
    want: String,
    /// What happens where somebody else has set another value.
    on_conflict: OnConflict,
    /// Where it was written.
    source: String,
}

impl fmt::Display for PodPolicyOfKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} (pods policy {}, {})", self.want, self.matches, self.name, self.source)
    }
}

/// The policies that name the key, or one that the pattern means, in order.
pub fn naming(policies: &[PodPolicy], subject: &Subject) -> Vec<PodPolicyOfKey> {
    let named = |pod: &PodPolicy| -> Vec<PodPolicyOfKey> {
        let keys = pod.policies.iter().filter(|(key, _)| match subject {
            Subject::Key(subject) => *key == subject,
            Subject::Glob(glob) => glob.covers(key),
        });
        keys.map(|(key, policy)| of(pod, key.as_str(), policy)).collect()
    };
    policies.iter().flat_map(named).collect()
}

fn of(pod: &PodPolicy, key: &str, policy: &Policy) -> PodPolicyOfKey {
    PodPolicyOfKey {
        name: escape(pod.name.as_bytes()),
        matches: in_words(&pod.matches),
        key: key.to_owned(),
        want: policy.want.to_string(),
        on_conflict: policy.on_conflict,
        source: policy.source.to_string(),
    }
}

fn in_words(matches: &Match) -> String {
    if matches.is_every_pod() {
        return "every pod".to_owned();
    }
    let list = |what: &str, patterns: &[String]| {
        (!patterns.is_empty())
            .then(|| format!("{what} {}", escape(patterns.join(" or ").as_bytes())))
    };
    let labels: Vec<_> =
        matches.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels = (!labels.is_empty()).then(|| {
        let labels = escape(labels.join(", ").as_bytes());
        format!("labels {labels} (which the agent cannot see yet: no pod)")
    });
    let parts = [list("namespace", &matches.namespaces), list("pod", &matches.pods), labels];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The rows about pods.
pub fn rows(explained: &Explained, rows: &mut Vec<(&str, String)>) {
    let pods = &explained.pods;
    if pods.gets != Gets::Unknown {
        let value = pods.value.as_ref().map(|value| format!("{value}: ")).unwrap_or_default();
        rows.push(("new pods get", format!("{value}{}", pods.words)));
        rows.extend(pods.contradicts.clone().map(|says| ("but", says)));
        rows.push(("for pods", pods.to_change.clone()));
    }
    rows.extend(explained.takes_effect.map(|effect| ("takes effect", effect.words.to_owned())));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[allow(clippy::panic)]
mod tests {
    use headroom::sysctl::key::Key;
    use headroom::sysctl::policy::{Source, Want};

    use super::*;

    fn policy(name: &str, matches: Match, keys: &[(&str, &str)]) -> PodPolicy {
        let policies = keys.iter().map(|(key, value)| {
            let policy = Policy {
                want: Want::Value((*value).to_owned()),
                on_conflict: OnConflict::Yield,
                required: false,
                source: Source::Config { line: 3 },
                reason: None,
            };
            (Key::parse(key).unwrap(), policy)
        });
        PodPolicy { name: name.to_owned(), matches, policies: policies.collect() }
    }

    #[test]
    fn policies_that_name_the_key_come_in_order() {
        let web = Match {
            namespaces: vec!["shop-*".into()],
            pods: vec!["a".into(), "b".into()],
            ..Match::default()
        };
        let labels = Match { labels: [("a".into(), "b\x1b".into())].into(), ..Match::default() };
        let policies = [
            policy("web", web, &[("net.core.somaxconn", "1000")]),
            policy("other", Match::default(), &[("net.ipv4.tcp_fin_timeout", "9")]),
            policy("all", Match::default(), &[("net.core.somaxconn", "2000")]),
            policy("later", labels, &[("net.ipv4.conf.eth0.rp_filter", "2")]),
        ];
        let named = |subject: &str| -> Vec<String> {
            let found = naming(&policies, &Subject::parse(subject).unwrap());
            found.iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            named("net.core.somaxconn"),
            [
                "1000 in namespace shop-*, pod a or b (pods policy web, configuration line 3)",
                "2000 in every pod (pods policy all, configuration line 3)",
            ]
        );
        let of_pattern = named("net.ipv4.conf.*.rp_filter");
        let one = of_pattern.first().unwrap();
        assert_eq!(of_pattern.len(), 1);
        assert!(one.contains("labels a=b") && !one.contains('\x1b'), "{one}");
        assert!(named("net.core.rmem_max").is_empty());
    }
}
