//! Names of keys: parsing, the canonical form, the path.

use std::fmt;
use std::path::PathBuf;

/// Longest key accepted, in bytes. The longest in the kernel has 70; an interface adds 15.
const LONGEST: usize = 256;

/// A sysctl's name in canonical form.
///
/// Dots separate the components; a dot inside one, as in the interface `eth0.100`, is written
/// `/`. Either separator is understood, and the first one found is the separator (`sysctl(8)`,
/// systemd's `sysctl_normalize`): `net/ipv4/conf/eth0.100/rp_filter` and
/// `net.ipv4.conf.eth0/100.rp_filter` are the same key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Box<str>);

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing there.
    #[error("the key is empty")]
    Empty,
    /// Too long.
    #[error("the key is longer than {LONGEST} bytes")]
    TooLong,
    /// Begins with a separator.
    #[error(
        "a key does not begin with a separator: write it as below /proc/sys, like net.core.somaxconn"
    )]
    Absolute,
    /// Two separators in a row, or one at the end.
    #[error("the key has an empty component")]
    EmptyComponent,
    /// `.` or `..` as a component.
    #[error("the key has a component `.` or `..`, which would lead elsewhere")]
    Traversal,
    /// Outside printable ASCII, or white space.
    #[error("the key has a character that is not printable ASCII")]
    Character,
    /// A pattern.
    #[error(
        "a pattern stands for interfaces only, of * and ?, as in net.ipv4.conf.*.rp_filter: name each \
         other key"
    )]
    Pattern,
    /// One component only.
    #[error("the key names a directory: a key has at least two components, like vm.swappiness")]
    TooShort,
}

impl KeyError {
    /// Stable code for messages.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Pattern => "key-pattern",
            _ => "key-syntax",
        }
    }
}

impl Key {
    /// Parses either form.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.len() > LONGEST {
            return Err(KeyError::TooLong);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Character);
        }
        if text.starts_with(['.', '/']) {
            return Err(KeyError::Absolute);
        }
        if text.contains(['*', '?', '[', ']']) {
            return Err(KeyError::Pattern);
        }
        let canonical = canonical(text)?;
        for component in canonical.split('.') {
            match component {
                "" => return Err(KeyError::EmptyComponent),
                // A dot in a component is written `/` here.
                "/" | "//" => return Err(KeyError::Traversal),
                _ => {}
            }
        }
        Ok(Self(canonical.into()))
    }

    /// The canonical form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.chars().map(swap_separators).collect::<String>().into()
    }

    /// Whether the key is below `net`, where the network namespace decides what is read.
    #[must_use]
    pub fn is_net(&self) -> bool {
        self.0.starts_with("net.")
    }

    /// The components, with dots as they are in the file's name.
    pub fn components(&self) -> impl Iterator<Item = String> + '_ {
        self.0.split('.').map(|component| component.replace('/', "."))
    }
}

/// In canonical form dots separate; the other separator stands for a dot in a name.
fn canonical(text: &str) -> Result<String, KeyError> {
    match text.chars().find(|c| matches!(c, '.' | '/')) {
        Some('/') => Ok(text.chars().map(swap_separators).collect()),
        Some(_) => Ok(text.to_owned()),
        None => Err(KeyError::TooShort),
    }
}

pub(super) fn swap_separators(c: char) -> char {
    match c {
        '.' => '/',
        '/' => '.',
        c => c,
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for Key {
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
    fn both_forms_name_the_same_key() {
        // After systemd's test-sysctl-util.c; repeated separators are refused here.
        for (text, canonical, path) in [
            ("a.b.c", "a.b.c", "a/b/c"),
            ("a/b/c", "a.b.c", "a/b/c"),
            ("a/b.c/d", "a.b/c.d", "a/b.c/d"),
            ("a.b/c.d", "a.b/c.d", "a/b.c/d"),
            (
                "net.ipv4.conf.enp3s0/200.forwarding",
                "net.ipv4.conf.enp3s0/200.forwarding",
                "net/ipv4/conf/enp3s0.200/forwarding",
            ),
            (
                "net/ipv4/conf/enp3s0.200/forwarding",
                "net.ipv4.conf.enp3s0/200.forwarding",
                "net/ipv4/conf/enp3s0.200/forwarding",
            ),
        ] {
            let key = Key::parse(text).unwrap();
            assert_eq!(key.as_str(), canonical);
            assert_eq!(key.path().to_str().unwrap(), path);
        }
    }

    /// Fault 1 and 2: no spelling leads out of the tree or around the list of refused keys.
    #[test]
    fn fault_01_02_what_is_no_key_is_refused() {
        for (text, error) in [
            ("", KeyError::Empty),
            ("net/../kernel/core_pattern", KeyError::Traversal),
            ("net.//.core_pattern", KeyError::Traversal),
            ("net./.core_pattern", KeyError::Traversal),
            ("../../etc/x", KeyError::Absolute),
            ("/etc/passwd", KeyError::Absolute),
            ("/proc/sys/net/core/somaxconn", KeyError::Absolute),
            ("net..core", KeyError::EmptyComponent),
            ("net/core/", KeyError::EmptyComponent),
            ("net/./core", KeyError::Traversal),
            ("kernel//core_pattern", KeyError::EmptyComponent),
            ("net.core\0.x", KeyError::Character),
            ("net.core.x y", KeyError::Character),
            ("net.core.\u{ff10}", KeyError::Character),
            ("net.core.x\n", KeyError::Character),
            ("net.ipv4.conf.*.rp_filter", KeyError::Pattern),
            ("net", KeyError::TooShort),
        ] {
            assert_eq!(Key::parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Key::parse(&"a.".repeat(2048)), Err(KeyError::TooLong));
    }

    proptest! {
        #[test]
        fn no_key_leaves_the_tree(text in "[a-z./*-]{0,24}|\\PC{0,40}") {
            if let Ok(key) = Key::parse(&text) {
                let path = key.path();
                prop_assert!(path.is_relative());
                for part in path.components() {
                    prop_assert!(matches!(part, std::path::Component::Normal(_)), "{path:?}");
                }
                // The canonical form names the same key again.
                prop_assert_eq!(Key::parse(key.as_str()).unwrap(), key.clone());
                prop_assert_eq!(Key::parse(path.to_str().unwrap()).unwrap(), key);
            }
        }
    }
}
