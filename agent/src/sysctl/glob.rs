//! Patterns over interfaces: `net.ipv4.conf.*.rp_filter`, present and future.

use std::ffi::OsStr;
use std::fmt;

use serde::{Deserialize, Serialize};
use wildmatch::WildMatch;

use super::catalogue::{self, Entry};
use super::key::{Key, KeyError};

/// A pattern in canonical form. `*` is any characters and `?` one, in the component of the
/// interface alone; it matches each directory there is, `all` and `default` too, as `glob(7)` in
/// a `sysctl.d(5)` file does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob {
    text: Box<str>,
    /// The interface's component, with dots as they are in the directory's name.
    pattern: Box<str>,
}

impl Glob {
    /// Whether a text is meant as a pattern.
    #[must_use]
    pub fn is_pattern(text: &str) -> bool {
        text.contains(['*', '?', '[', ']'])
    }

    /// Parses either form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.contains(['[', ']']) {
            return Err(KeyError::Pattern);
        }
        // What is no key with a letter in the place of each wildcard is none with an interface.
        let example = Key::parse(&text.replace(['*', '?'], "x"))?;
        let separator = text.find(['.', '/']).and_then(|at| text.get(at..=at));
        let canonical = match separator {
            Some("/") => text.chars().map(super::key::swap_separators).collect(),
            _ => text.to_owned(),
        };
        let place = catalogue::interface(example.as_str()).ok_or(KeyError::Pattern)?;
        let parts: Vec<&str> = canonical.split('.').collect();
        let [_, _, _, pattern, leaf] = parts.as_slice() else { return Err(KeyError::Pattern) };
        let elsewhere =
            parts.iter().enumerate().any(|(at, part)| at != 3 && Self::is_pattern(part));
        if elsewhere || place.len() != pattern.len() || leaf.is_empty() {
            return Err(KeyError::Pattern);
        }
        Ok(Self { pattern: pattern.replace('/', ".").into(), text: canonical.into() })
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The directory of the interfaces, below `/proc/sys`.
    #[must_use]
    pub fn directory(&self) -> String {
        self.text.split('.').take(3).collect::<Vec<_>>().join("/")
    }

    /// Whether an interface, `all` or `default` is meant.
    #[must_use]
    pub fn matches(&self, interface: &str) -> bool {
        WildMatch::new(&self.pattern).matches(interface)
    }

    /// Whether a key is one that it means.
    #[must_use]
    pub fn covers(&self, key: &Key) -> bool {
        let interface = catalogue::interface(key.as_str()).map(|name| name.replace('/', "."));
        interface.is_some_and(|name| self.key(OsStr::new(&name)).as_ref() == Some(key))
    }

    /// The key of a directory's name that matches; `None` also for a name that no key can have.
    #[must_use]
    pub fn key(&self, interface: &OsStr) -> Option<Key> {
        let interface = interface.to_str().filter(|name| self.matches(name))?;
        let leaf = self.text.split('.').nth(4)?;
        Key::parse(&format!("{}/{interface}/{}", self.directory(), leaf.replace('/', "."))).ok()
    }

    /// What is known about its keys.
    #[must_use]
    pub fn entry(&self) -> Option<Entry> {
        catalogue::lookup(&self.example()?)
    }

    /// One of its keys: what holds of one interface's holds of all.
    #[must_use]
    pub fn example(&self) -> Option<Key> {
        Key::parse(&catalogue::with_interface(&self.text, "default")?).ok()
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a policy is about: one key, or a pattern with all keys that match it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// One key.
    Key(Key),
    /// All keys that match.
    Glob(Glob),
}

impl Subject {
    /// As it is written, in canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Key(key) => key.as_str(),
            Self::Glob(glob) => glob.as_str(),
        }
    }

    /// The key, or one of the keys: what is known of one interface's holds of all.
    #[must_use]
    pub fn example(&self) -> Option<Key> {
        match self {
            Self::Key(key) => Some(key.clone()),
            Self::Glob(glob) => glob.example(),
        }
    }

    /// The path below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> String {
        self.as_str().chars().map(super::key::swap_separators).collect()
    }

    /// Parses either.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        match Glob::is_pattern(text) {
            true => Glob::parse(text).map(Self::Glob),
            false => Key::parse(text).map(Self::Key),
        }
    }
}

impl From<Key> for Subject {
    fn from(key: Key) -> Self {
        Self::Key(key)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartialEq<Key> for Subject {
    fn eq(&self, other: &Key) -> bool {
        matches!(self, Self::Key(key) if key == other)
    }
}

impl Serialize for Subject {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Subject {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_name_the_same_interfaces() {
        for (text, canonical, directory, yes, no) in [
            (
                "net.ipv4.conf.*.rp_filter",
                "net.ipv4.conf.*.rp_filter",
                "net/ipv4/conf",
                "eth0.100",
                "",
            ),
            ("net/ipv4/conf/*/rp_filter", "net.ipv4.conf.*.rp_filter", "net/ipv4/conf", "all", ""),
            (
                "net.ipv6.neigh.veth?.app_solicit",
                "net.ipv6.neigh.veth?.app_solicit",
                "net/ipv6/neigh",
                "veth1",
                "veth",
            ),
            (
                "net.ipv4.conf.eth0/*.tag",
                "net.ipv4.conf.eth0/*.tag",
                "net/ipv4/conf",
                "eth0.7",
                "eth0",
            ),
            (
                "net/ipv4/conf/eth0.*/tag",
                "net.ipv4.conf.eth0/*.tag",
                "net/ipv4/conf",
                "eth0.7",
                "eth1.7",
            ),
            ("net.mpls.conf.*.input", "net.mpls.conf.*.input", "net/mpls/conf", "lo", ""),
        ] {
            let glob = Glob::parse(text).unwrap();
            assert_eq!((glob.as_str(), glob.directory().as_str()), (canonical, directory));
            assert!(glob.matches(yes) && (no.is_empty() || !glob.matches(no)), "{text}");
        }
        let glob = Glob::parse("net.ipv4.conf.*.rp_filter").unwrap();
        let key = glob.key(OsStr::new("eth0.100")).unwrap();
        assert_eq!(key, Key::parse("net/ipv4/conf/eth0.100/rp_filter").unwrap());
        assert_eq!(glob.entry().unwrap().key(), "net.ipv4.conf.*.rp_filter");
        assert_eq!(glob.key(OsStr::new("a*b")), None, "a name that no key can have");
    }

    #[test]
    fn patterns_elsewhere_are_refused() {
        for text in [
            "net.*.conf.all.rp_filter",
            "net.ipv4.*.*.rp_filter",
            "net.ipv4.conf.all.*",
            "net.ipv4.conf.*.rp_*",
            "net.ipv4.conf.*.a.b",
            "vm.*",
            "fs.protected_*",
            "net.ipv4.conf.[ab].tag",
            "*",
        ] {
            assert!(Glob::parse(text).is_err(), "{text}");
        }
        assert_eq!(Glob::parse("net.ipv4.conf.*..x"), Err(KeyError::EmptyComponent));
        assert_eq!(Glob::parse("net/ipv4/conf/../*/x"), Err(KeyError::Traversal));
    }

    proptest! {
        #[test]
        fn what_matches_is_a_key_below_its_directory(
            text in "net[./](ipv4|ipv6)[./](conf|neigh)[./][a-z*?./]{1,6}[./][a-z_]{1,6}",
            name in "[a-z.*]{1,6}",
        ) {
            if let Ok(glob) = Glob::parse(&text) {
                prop_assert_eq!(Glob::parse(glob.as_str()), Ok(glob.clone()));
                if let Some(key) = glob.key(OsStr::new(&name)) {
                    let path = key.path();
                    prop_assert!(path.starts_with(glob.directory()));
                    prop_assert_eq!(path.components().count(), 5);
                    let component = path.components().nth(3).unwrap();
                    prop_assert_eq!(component.as_os_str(), OsStr::new(&name));
                }
            }
        }
    }
}
