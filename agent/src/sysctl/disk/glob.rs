//! Patterns in keys, as `glob(7)` understands them below `/proc/sys`.

use std::fmt;

use crate::sysctl::glob::Glob;
use crate::sysctl::key::{Key, KeyError};

/// Longest pattern: a key has no more.
const LONGEST: usize = 256;

/// A key with wildcards, held as its path below `/proc/sys`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

/// Why a text is no pattern that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// What holds for keys holds for patterns.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Understood by systemd and by nobody else.
    #[error("braces in a pattern are systemd's own and not understood here: write a line for each")]
    Braces,
    /// Quoting.
    #[error("a backslash in a pattern is not understood: no key needs one")]
    Backslash,
}

impl Pattern {
    /// Whether a path has wildcards at all (systemd's `string_is_glob`).
    #[must_use]
    pub fn is_one(path: &str) -> bool {
        path.contains(['*', '?', '['])
    }

    /// A pattern of this path, which is relative and has no empty component.
    pub fn new(path: &str) -> Result<Self, PatternError> {
        if path.len() > LONGEST {
            return Err(KeyError::TooLong.into());
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Character.into());
        }
        if path.contains(['{', '}']) {
            return Err(PatternError::Braces);
        }
        if path.contains('\\') {
            return Err(PatternError::Backslash);
        }
        if path.split('/').any(|component| matches!(component, "." | "..")) {
            return Err(KeyError::Traversal.into());
        }
        if !path.contains('/') {
            return Err(KeyError::TooShort.into());
        }
        Ok(Self(path.into()))
    }

    /// The path below `/proc/sys`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Whether it matches a key.
    #[must_use]
    pub fn matches(&self, key: &Key) -> bool {
        let key = key.path();
        let Some(key) = key.to_str() else { return false };
        let (mut pattern, mut names) = (self.0.split('/'), key.split('/'));
        loop {
            match (pattern.next(), names.next()) {
                (None, None) => return true,
                (Some(pattern), Some(name)) if component(pattern, name) => {}
                _ => return false,
            }
        }
    }

    /// Whether a configuration may hold it: wildcards in the interface's place alone, and only `*`
    /// and `?`.
    #[must_use]
    pub fn is_for_interfaces(&self) -> bool {
        Glob::parse(&self.to_string()).is_ok()
    }

    /// Every key that it matches in a tree; `list` names what is in a directory of it. At most
    /// `most`; whether there were more.
    pub fn expand(
        &self,
        list: &mut dyn FnMut(&str) -> Vec<String>,
        most: usize,
    ) -> (Vec<Key>, bool) {
        let mut paths = vec![String::new()];
        for pattern in self.0.split('/') {
            let mut next = Vec::new();
            for path in &paths {
                let join = |name: &str| match path.as_str() {
                    "" => name.to_owned(),
                    path => format!("{path}/{name}"),
                };
                // Also what has no wildcard is looked up: a key that is not there is no match.
                let names = list(path);
                next.extend(names.iter().filter(|name| component(pattern, name)).map(|n| join(n)));
                if next.len() > most {
                    break;
                }
            }
            paths = next;
        }
        let cut = paths.len() > most;
        let keys = paths.iter().take(most).filter_map(|path| Key::parse(path).ok());
        (keys.collect(), cut)
    }
}

/// With dots, as keys are written.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in self.0.chars() {
            fmt::Write::write_char(
                f,
                match letter {
                    '/' => '.',
                    '.' => '/',
                    other => other,
                },
            )?;
        }
        Ok(())
    }
}

/// One component against a name (`fnmatch(3)` with `FNM_PERIOD`).
fn component(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut at, mut reached) = (0, 0);
    // Where the last `*` stands, and how far it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while reached < name.len() || at < pattern.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, reached));
            at += 1;
            continue;
        }
        let one = name.get(reached).and_then(|&byte| one(pattern, at, byte));
        match (one, star) {
            (Some(next), _) => {
                at = next;
                reached += 1;
            }
            (None, Some((stood, eaten))) if eaten < name.len() => {
                star = Some((stood, eaten + 1));
                at = stood + 1;
                reached = eaten + 1;
            }
            _ => return false,
        }
    }
    true
}

/// Where the pattern goes on after matching one byte at `at`.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => match class(pattern, at, byte) {
            Some((true, next)) => Some(next),
            Some((false, _)) => None,
            // Without its end it is a letter like others.
            None => (byte == b'[').then_some(at + 1),
        },
        letter => (letter == byte).then_some(at + 1),
    }
}

/// A bracket expression: whether it holds the byte, and where it ends. `None`: it does not end.
fn class(pattern: &[u8], at: usize, byte: u8) -> Option<(bool, usize)> {
    let mut at = at + 1;
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let (first, mut found) = (at, false);
    loop {
        let letter = *pattern.get(at)?;
        if letter == b']' && at > first {
            return Some((found != negated, at + 1));
        }
        if let Some((held, next)) = named(pattern, at, byte) {
            found |= held;
            at = next;
            continue;
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(b'-'), Some(&last)) if last != b']' => {
                found |= (letter..=last).contains(&byte);
                at += 3;
            }
            _ => {
                found |= letter == byte;
                at += 1;
            }
        }
    }
}

/// `[:alpha:]` and its like, within a bracket expression.
fn named(pattern: &[u8], at: usize, byte: u8) -> Option<(bool, usize)> {
    let rest = pattern.get(at..)?.strip_prefix(b"[:")?;
    let end = rest.windows(2).position(|pair| pair == b":]")?;
    let held = match rest.get(..end)? {
        b"alpha" => byte.is_ascii_alphabetic(),
        b"digit" => byte.is_ascii_digit(),
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"lower" => byte.is_ascii_lowercase(),
        b"upper" => byte.is_ascii_uppercase(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        b"punct" => byte.is_ascii_punctuation(),
        b"graph" | b"print" => byte.is_ascii_graphic(),
        _ => false,
    };
    Some((held, at + 2 + end + 2))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn components_match_as_fnmatch_does() {
        for (pattern, name, expected) in [
            ("*", "eth0", true),
            ("*", "eth0.100", true),
            ("*", ".hidden", false),
            ("eth?", "eth0", true),
            ("eth?", "eth", false),
            ("eth?", "eth10", false),
            ("e*0", "eth0", true),
            ("e*0", "eth0.100", true),
            ("e*0*", "veth0", false),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbxc", false),
            ("[el]*", "lo", true),
            ("[!a-k]o", "lo", true),
            ("[^a-l]o", "lo", false),
            ("[[:alpha:]]ll", "all", true),
            ("[[:digit:]]ll", "all", false),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[lo", "[lo", true),
            ("[lo", "lo", false),
            ("", "", true),
        ] {
            assert_eq!(component(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_wildcard_stays_in_its_component() {
        let pattern = Pattern::new("net/ipv4/conf/*/rp_filter").unwrap();
        let matches = |key: &str| pattern.matches(&Key::parse(key).unwrap());
        assert!(matches("net.ipv4.conf.all.rp_filter"));
        assert!(matches("net/ipv4/conf/eth0.100/rp_filter"));
        assert!(!matches("net.ipv4.conf.all.arp_filter"));
        assert!(!matches("net.ipv4.conf.rp_filter"));
        assert_eq!(pattern.to_string(), "net.ipv4.conf.*.rp_filter");
    }

    #[test]
    fn only_patterns_of_interfaces_may_stay() {
        for (path, expected) in [
            ("net/ipv4/conf/*/rp_filter", true),
            ("net/ipv6/neigh/eth?/gc_stale_time", true),
            ("net/mpls/conf/*/input", true),
            ("net/ipv4/conf/e[nt]*/rp_filter", false),
            ("net/ipv?/conf/all/rp_filter", false),
            ("net/ipv4/conf/*/rp_*", false),
            ("vm/*/x", false),
        ] {
            assert_eq!(Pattern::new(path).unwrap().is_for_interfaces(), expected, "{path}");
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert_eq!(Pattern::new("a/{b,c}/*"), Err(PatternError::Braces));
        assert_eq!(Pattern::new("a/\\*"), Err(PatternError::Backslash));
        assert_eq!(Pattern::new("*"), Err(KeyError::TooShort.into()));
        assert_eq!(Pattern::new("net/../*"), Err(KeyError::Traversal.into()));
        assert_eq!(Pattern::new(&format!("a/{}", "*".repeat(300))), Err(KeyError::TooLong.into()));
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_what_is_wider(name in "[a-z0-9_]{1,12}", at in 0usize..12) {
            prop_assert!(component(&name, &name));
            let at = at.min(name.len() - 1);
            let wild = |with: &str| format!("{}{with}{}", &name[..at], &name[at + 1..]);
            prop_assert!(component(&wild("?"), &name));
            prop_assert!(component(&wild("*"), &name));
            prop_assert!(component(&wild("[!.]"), &name));
            prop_assert!(component("*", &name));
        }

        #[test]
        fn any_pattern_ends(pattern in "[*?!^a-c:\\[\\]-]{0,40}", name in "[a-c\\[\\]-]{0,40}") {
            let _ = component(&pattern, &name);
        }
    }
}
