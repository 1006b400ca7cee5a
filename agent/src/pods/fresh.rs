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
        self.keys.get(key)?.ineligible.as_deref()
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
        self.keys.values().any(|fresh| fresh.found == InNew::Absent)
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
