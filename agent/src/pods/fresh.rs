//! What a network namespace has that nobody has touched: the measure for what somebody set on
//! purpose, and for which keys a namespace has of its own on this kernel.

use std::collections::BTreeMap;

use crate::kernel::netns::NetnsError;
use crate::kernel::sysctl_file::SysctlTree;
use crate::sysctl::catalogue::{self, NewNetns, Scope};
use crate::sysctl::key::Key;
use crate::sysctl::measure::{self, InNew};

/// Values of earlier moments that are remembered for each key: namespaces that were made then have
/// them still.
const MOST_VALUES: usize = 8;

/// What fresh namespaces have.
#[derive(Clone, Debug, Default)]
pub struct Fresh {
    keys: BTreeMap<Key, FreshKey>,
}

#[derive(Clone, Debug)]
struct FreshKey {
    found: InNew,
    /// As they were read, the latest first.
    values: Vec<String>,
    /// Why it is none of a pod's keys, if so.
    ineligible: Option<String>,
}

impl Fresh {
    /// Looks at the keys in a namespace made for the purpose, and in the calling thread's, which is
    /// the node's. What was seen `before` is remembered.
    pub fn measure(
        tree: &SysctlTree,
        keys: &[Key],
        kernel: (u32, u32),
        before: Option<&Self>,
    ) -> Result<Self, NetnsError> {
        let found = measure::all_in_new(tree, keys)?;
        let judge = |(key, found): (&Key, InNew)| {
            let host = measure::here(tree, &measure::everywhere(key));
            let ineligible = ineligible(key, &found, &host, kernel);
            let known = before.and_then(|before| before.keys.get(key));
            let mut fresh = FreshKey {
                values: known.map(|known| known.values.clone()).unwrap_or_default(),
                found,
                ineligible,
            };
            if let InNew::Own { value } = &fresh.found {
                fresh.values.retain(|known| known != value);
                fresh.values.insert(0, value.clone());
                fresh.values.truncate(MOST_VALUES);
            }
            (key.clone(), fresh)
        };
        Ok(Self { keys: keys.iter().zip(found).map(judge).collect() })
    }

    /// Adds what the node's key was before the agent changed it: a namespace that was made then
    /// began with a copy of that.
    pub fn remember(&mut self, key: &Key, original: &str) {
        for (known, fresh) in &mut self.keys {
            let original = original.to_owned();
            if copies(known)
                && measure::everywhere(known) == *key
                && !fresh.values.contains(&original)
            {
                fresh.values.push(original);
            }
        }
    }

    /// Why a key is not to be written in pods' namespaces, if so.
    #[must_use]
    pub fn ineligible(&self, key: &Key) -> Option<&str> {
        match self.keys.get(key) {
            Some(fresh) => fresh.ineligible.as_deref(),
            None => Some("it was not looked at in a new namespace"),
        }
    }

    /// Whether an untouched namespace can have this value, escaped and with single spaces.
    #[must_use]
    pub fn has(&self, key: &Key, shown: &str) -> bool {
        self.keys.get(key).is_some_and(|fresh| fresh.values.iter().any(|value| value == shown))
    }

    /// What a namespace that is made now has.
    #[must_use]
    pub fn value(&self, key: &Key) -> Option<&str> {
        self.keys.get(key)?.values.first().map(String::as_str)
    }

    /// Whether a module that is loaded later may bring the key.
    #[must_use]
    pub fn lacks_some(&self) -> bool {
        let lacks = |found: &InNew| matches!(found, InNew::Absent | InNew::Unknown { .. });
        self.keys.values().any(|fresh| lacks(&fresh.found))
    }
}

/// Whether new namespaces begin with the node's value, so that what they have changes with it.
#[must_use]
pub fn copies(key: &Key) -> bool {
    let class = catalogue::lookup(key).and_then(|entry| entry.new_netns());
    !matches!(class, Some(NewNetns::Reset | NewNetns::Computed))
}

/// Why a key is none that a namespace has of its own on this kernel. Where the catalogue does not
/// say that it is one, another value than the node's is the proof.
fn ineligible(key: &Key, found: &InNew, host: &InNew, kernel: (u32, u32)) -> Option<String> {
    if !key.is_net() {
        return Some("it is no key of a network namespace".to_owned());
    }
    let entry = catalogue::lookup(key);
    let known = entry.is_some_and(|entry| {
        let since = entry.namespaced_since().is_none_or(|since| kernel >= since);
        entry.scope() == Scope::Netns && since && !entry.has("shared")
    });
    match found {
        InNew::Own { value } => {
            let differs = matches!(host, InNew::Own { value: host } if host != value);
            (!known && !differs).then(|| {
                "it is not known to be a network namespace's own on this kernel, so a write could \
                 change the node: set it under sysctls"
                    .to_owned()
            })
        }
        InNew::ReadOnly { value } => Some(format!(
            "pods have the node's value, {value}, and cannot change it: set it under sysctls"
        )),
        InNew::Absent if *host == InNew::Absent => Some(
            "this kernel does not have it, or the module that brings it is not loaded".to_owned(),
        ),
        InNew::Absent => Some(
            "it is one value for the node, which pods do not have: set it under sysctls".to_owned(),
        ),
        InNew::Same | InNew::Unknown { .. } => match found {
            InNew::Unknown { reason } => Some(format!("it could not be measured: {reason}")),
            _ => Some("it could not be measured".to_owned()),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::parse(name).unwrap()
    }

    fn own(value: &str) -> InNew {
        InNew::Own { value: value.to_owned() }
    }

    fn why(name: &str, found: &InNew, host: &InNew) -> Option<String> {
        ineligible(&key(name), found, host, (6, 18))
    }

    #[test]
    fn what_the_catalogue_knows_as_a_namespaces_own_needs_no_proof() {
        for host in [own("4096"), own("8192"), InNew::Absent] {
            assert_eq!(why("net.core.somaxconn", &own("4096"), &host), None, "{host:?}");
        }
        assert_eq!(why("net.ipv4.conf.eth0.rp_filter", &own("0"), &own("0")), None);
        assert_eq!(why("net.ipv4.conf.default.rp_filter", &own("0"), &own("0")), None);
    }

    #[test]
    fn what_nobody_knows_is_proven_by_another_value_than_the_nodes() {
        let unknown = "net.core.not_in_the_catalogue";
        assert!(catalogue::lookup(&key(unknown)).is_none());
        assert_eq!(why(unknown, &own("1"), &own("2")), None);
        let same = why(unknown, &own("1"), &own("1")).unwrap();
        assert!(same.contains("could change the node"), "{same}");
        // Without the node's value there is no proof.
        for host in [InNew::Absent, InNew::ReadOnly { value: "2".into() }, InNew::Same] {
            assert!(why(unknown, &own("1"), &host).is_some(), "{host:?}");
        }
    }

    #[test]
    fn what_is_a_namespaces_own_on_later_kernels_only_needs_proof_before() {
        let optmem = key("net.core.optmem_max");
        let judge = |host: &str, kernel| ineligible(&optmem, &own("131072"), &own(host), kernel);
        assert_eq!(judge("131072", (6, 8)), None);
        assert!(judge("131072", (6, 7)).is_some());
        assert_eq!(judge("20480", (6, 7)), None, "backported");
        // The catalogue knows that it is the node's, and one of the switches that are shared.
        for shared in ["net.core.rmem_max", "net.netfilter.nf_hooks_lwtunnel"] {
            assert!(why(shared, &own("1"), &own("1")).is_some(), "{shared}");
        }
    }

    #[test]
    fn what_cannot_be_a_pods_own_says_why_and_what_to_do() {
        let read_only = InNew::ReadOnly { value: "4194304".into() };
        let why_read_only = why("net.core.rmem_max", &read_only, &own("4194304")).unwrap();
        assert!(why_read_only.contains("4194304") && why_read_only.contains("under sysctls"));
        let absent = why("net.core.netdev_max_backlog", &InNew::Absent, &own("1000")).unwrap();
        assert!(absent.contains("one value for the node"), "{absent}");
        let nowhere = why("net.core.somaxconn", &InNew::Absent, &InNew::Absent).unwrap();
        assert!(nowhere.contains("module"), "{nowhere}");
        let unknown = InNew::Unknown { reason: "EIO".into() };
        let unknown = why("net.core.somaxconn", &unknown, &own("1")).unwrap();
        assert!(unknown.contains("measured: EIO"), "{unknown}");
        assert!(why("net.core.somaxconn", &InNew::Same, &own("1")).is_some());
        let other = why("vm.swappiness", &own("1"), &own("2")).unwrap();
        assert!(other.contains("network namespace"), "{other}");
    }

    impl Fresh {
        /// Adds a key as if it had been measured.
        pub(in crate::pods) fn with(mut self, name: &str, found: InNew, values: &[&str]) -> Self {
            let values = values.iter().map(|&value| value.to_owned()).collect();
            let ineligible = ineligible(&key(name), &found, &InNew::Same, (6, 18));
            self.keys.insert(key(name), FreshKey { found, values, ineligible });
            self
        }
    }

    fn fresh(name: &str, found: InNew, values: &[&str]) -> Fresh {
        Fresh::default().with(name, found, values)
    }

    #[test]
    fn an_untouched_namespace_may_have_what_the_node_had() {
        let copied = key("net.ipv4.tcp_rmem");
        let mut known = fresh("net.ipv4.tcp_rmem", own("4096 1 2"), &["4096 1 2"]);
        assert!(copies(&copied) && !known.has(&copied, "4096 1 1"));
        known.remember(&copied, "4096 1 1");
        known.remember(&copied, "4096 1 1");
        assert!(known.has(&copied, "4096 1 1") && known.has(&copied, "4096 1 2"));
        assert_eq!(known.keys[&copied].values.len(), 2);
        assert_eq!(known.value(&copied), Some("4096 1 2"), "what one has now comes first");
        // An interface's begins with the node's default.
        let eth0 = key("net.ipv4.conf.eth0.rp_filter");
        let mut known = fresh(eth0.as_str(), own("0"), &["0"]);
        known.remember(&key("net.ipv4.conf.default.rp_filter"), "2");
        assert!(known.has(&eth0, "2"));
        // The node's value of this reaches no other namespace.
        let reset = key("net.core.somaxconn");
        let mut known = fresh(reset.as_str(), own("4096"), &["4096"]);
        known.remember(&reset, "8192");
        assert!(!copies(&reset) && !known.has(&reset, "8192"));
        // What nobody knows may be a copy.
        assert!(copies(&key("net.core.not_in_the_catalogue")));
    }

    #[test]
    fn a_key_that_is_absent_may_come_with_a_module() {
        assert!(fresh("net.core.somaxconn", InNew::Absent, &[]).lacks_some());
        let there = fresh("net.core.somaxconn", own("1"), &["1"]);
        assert!(!there.lacks_some());
        let other = key("net.core.optmem_max");
        assert_eq!(there.value(&other), None);
        assert!(!there.has(&other, "1") && there.ineligible(&other).is_some());
    }
}
