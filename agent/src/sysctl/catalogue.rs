//! What is known about keys: compiled in, one line a key.
//!
//! `catalogue.tsv` was measured on kernels 5.10 to 7.2. A key that is not in it still works: its
//! shape is learned from its file.

use std::fmt;
use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::Serialize;

use super::key::Key;
use super::value::Shape;

static TABLE: &str = include_str!("catalogue.tsv");

/// Whose value a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The kernel's.
    Host,
    /// A network namespace's.
    Netns,
    /// An IPC namespace's.
    Ipc,
    /// A PID namespace's.
    Pid,
    /// A UTS namespace's.
    Uts,
    /// A user namespace's.
    User,
    /// A mount namespace's.
    Mountns,
}

/// What a network namespace that is created later gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NewNetns {
    /// The initial namespace's value at that moment.
    Copied,
    /// The kernel's default.
    Reset,
    /// A value computed from the namespace's own tables.
    Computed,
    /// The host's value, read-only but for keys with the flag `shared`.
    Global,
    /// No such file.
    Absent,
}

/// One line of the catalogue.
#[derive(Clone, Copy)]
pub struct Entry {
    fields: [&'static str; 13],
}

impl Entry {
    /// The key; `*` stands for an interface, `all` or `default`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.field(0)
    }

    /// Whose value it is.
    #[must_use]
    pub fn scope(&self) -> Scope {
        match self.field(1) {
            "netns" => Scope::Netns,
            "ipc" => Scope::Ipc,
            "pid" => Scope::Pid,
            "uts" => Scope::Uts,
            "user" => Scope::User,
            "mountns" => Scope::Mountns,
            _ => Scope::Host,
        }
    }

    /// Since which kernel it is per namespace; `None`: since 5.10 or earlier.
    #[must_use]
    pub fn namespaced_since(&self) -> Option<(u32, u32)> {
        version(self.field(2))
    }

    /// What its file holds; `None` for tables of lines, which are not written.
    #[must_use]
    pub fn shape(&self) -> Option<Shape> {
        match self.field(3) {
            "int" => Some(Shape::Ints(1)),
            "int[]" => Some(Shape::AnyInts),
            "string" => Some(Shape::Text),
            "ports" => Some(Shape::Ports),
            "cpumask" => Some(Shape::Mask),
            "table" => None,
            vector => vector
                .strip_prefix("int[")
                .and_then(|rest| rest.strip_suffix(']'))
                .and_then(|count| count.parse().ok())
                .map(Shape::Ints),
        }
    }

    /// Smallest and largest value that the kernel takes, where they are fixed.
    #[must_use]
    pub fn range(&self) -> (Option<i128>, Option<i128>) {
        (self.field(4).parse().ok(), self.field(5).parse().ok())
    }

    /// Unit, where there is one.
    #[must_use]
    pub fn unit(&self) -> Option<&'static str> {
        some(self.field(6))
    }

    /// First kernel that has it, where that is later than 5.10.
    #[must_use]
    pub fn since(&self) -> Option<(u32, u32)> {
        version(self.field(7))
    }

    /// What new network namespaces get.
    #[must_use]
    pub fn new_netns(&self) -> Option<NewNetns> {
        match self.field(8) {
            "copied" => Some(NewNetns::Copied),
            "reset" => Some(NewNetns::Reset),
            "computed" => Some(NewNetns::Computed),
            "global" => Some(NewNetns::Global),
            "absent" => Some(NewNetns::Absent),
            _ => None,
        }
    }

    /// Whether a flag is set: see the table's column.
    #[must_use]
    pub fn has(&self, flag: &str) -> bool {
        self.flags().any(|set| set == flag)
    }

    /// The flags.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        some(self.field(9)).into_iter().flat_map(|flags| flags.split(','))
    }

    /// Keys that one write to this one also changes.
    pub fn siblings(&self) -> impl Iterator<Item = &'static str> {
        some(self.field(10)).into_iter().flat_map(|keys| keys.split(','))
    }

    /// The kernel's default, in words.
    #[must_use]
    pub fn default(&self) -> Option<&'static str> {
        some(self.field(11))
    }

    /// What it is for, in one line.
    #[must_use]
    pub fn purpose(&self) -> &'static str {
        self.field(12)
    }

    fn field(&self, index: usize) -> &'static str {
        self.fields.get(index).copied().unwrap_or_default()
    }

    fn parse(line: &'static str) -> Self {
        let mut fields = [""; 13];
        for (slot, field) in fields.iter_mut().zip(line.split('\t')) {
            *slot = field;
        }
        Self { fields }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Entry").field(&self.key()).finish()
    }
}

fn some(field: &'static str) -> Option<&'static str> {
    Some(field).filter(|field| !matches!(*field, "-" | ""))
}

fn version(field: &str) -> Option<(u32, u32)> {
    let (major, minor) = field.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn lines() -> &'static [&'static str] {
    static LINES: OnceLock<Vec<&'static str>> = OnceLock::new();
    LINES.get_or_init(|| TABLE.lines().skip(1).collect())
}

/// All entries, sorted by key.
pub fn all() -> impl Iterator<Item = Entry> {
    lines().iter().map(|line| Entry::parse(line))
}

/// What is known about a key. Below `conf` and `neigh`, a line with `*` covers every interface.
#[must_use]
pub fn lookup(key: &Key) -> Option<Entry> {
    exact(key.as_str()).or_else(|| exact(&with_interface(key.as_str(), "*")?))
}

fn exact(key: &str) -> Option<Entry> {
    let lines = lines();
    let index =
        lines.binary_search_by(|line| line.split('\t').next().unwrap_or_default().cmp(key)).ok()?;
    lines.get(index).map(|line| Entry::parse(line))
}

/// The key with another interface in its place; `None` if it has no such place.
#[must_use]
pub fn with_interface(key: &str, interface: &str) -> Option<String> {
    let parts: Vec<&str> = key.splitn(5, '.').collect();
    match parts.as_slice() {
        ["net", family @ ("ipv4" | "ipv6"), tree @ ("conf" | "neigh"), _, leaf] => {
            Some(format!("net.{family}.{tree}.{interface}.{leaf}"))
        }
        ["net", "mpls", "conf", _, leaf] => Some(format!("net.mpls.conf.{interface}.{leaf}")),
        _ => None,
    }
}

/// The interface (or `all`, `default`) in a key, in canonical form.
#[must_use]
pub fn interface(key: &str) -> Option<&str> {
    with_interface(key, "*")?;
    key.split('.').nth(3)
}

/// Why a key is refused unless it is allowed by name, or refused always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It can run code or open the host.
    Dangerous,
    /// It stores nothing, it acts.
    SideEffect,
    /// It cannot be written.
    ReadOnly,
}

/// Whether a key is refused. Whole directories are named here, so that a name the catalogue does
/// not know is no way around it.
#[must_use]
pub fn refusal(key: &Key) -> Option<Refusal> {
    const DANGEROUS: [&str; 3] =
        ["fs.binfmt_misc.", "kernel.usermodehelper.", "kernel.core_pattern"];
    if let Some(entry) = lookup(key) {
        if entry.has("writeonly") || entry.has("sideeffect") {
            return Some(Refusal::SideEffect);
        }
        if entry.has("readonly") {
            return Some(Refusal::ReadOnly);
        }
        if entry.has("dangerous") {
            return Some(Refusal::Dangerous);
        }
    }
    DANGEROUS.iter().any(|prefix| key.as_str().starts_with(prefix)).then_some(Refusal::Dangerous)
}

/// The known key closest to a name that is not known, for a "did you mean".
#[must_use]
pub fn similar(key: &Key) -> Option<&'static str> {
    all()
        .map(|entry| (strsim::levenshtein(key.as_str(), entry.key()), entry.key()))
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, key)| key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_whole_sorted_and_makes_sense() {
        let lines = lines();
        assert!(lines.len() > 500);
        assert!(lines.is_sorted_by(|a, b| a.split('\t').next() < b.split('\t').next()));
        for line in lines {
            assert_eq!(line.split('\t').count(), 13, "{line}");
            let entry = Entry::parse(line);
            let key = Key::parse(&entry.key().replace('*', "all")).unwrap();
            let known = lookup(&key).unwrap();
            assert!(known.key() == entry.key() || known.key().contains("gc_"), "{line}");
            assert!(entry.shape().is_some() || line.contains("\ttable\t"), "{line}");
            let (low, high) = entry.range();
            assert!(low.zip(high).is_none_or(|(low, high)| low <= high), "{line}");
            assert!((10..=160).contains(&entry.purpose().len()), "{line}");
            for sibling in entry.siblings() {
                assert!(
                    lookup(&Key::parse(&sibling.replace('*', "all")).unwrap()).is_some(),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn interfaces_share_a_line_and_exact_lines_win() {
        let entry = |key: &str| lookup(&Key::parse(key).unwrap()).unwrap();
        assert_eq!(entry("net/ipv4/conf/eth0.100/rp_filter").key(), "net.ipv4.conf.*.rp_filter");
        assert_eq!(entry("net.ipv6.conf.all.forwarding").key(), "net.ipv6.conf.*.forwarding");
        assert_eq!(entry("net.ipv4.neigh.default.gc_thresh3").scope(), Scope::Host);
        assert_eq!(entry("net.ipv4.tcp_rmem").shape(), Some(Shape::Ints(3)));
        assert_eq!(entry("kernel.pid_max").namespaced_since(), Some((6, 14)));
    }

    #[test]
    fn what_acts_or_opens_the_host_is_refused() {
        let refusal = |key: &str| refusal(&Key::parse(key).unwrap());
        for key in [
            "vm.drop_caches",
            "net.ipv4.route.flush",
            "net.ipv6.route.flush",
            "vm.stat_refresh",
            "vm.compact_memory",
        ] {
            assert_eq!(refusal(key), Some(Refusal::SideEffect), "{key}");
        }
        for key in [
            "kernel.core_pattern",
            "kernel.modprobe",
            "kernel.hotplug",
            "kernel.sysrq",
            "fs.binfmt_misc.new",
        ] {
            assert_eq!(refusal(key), Some(Refusal::Dangerous), "{key}");
        }
        assert_eq!(refusal("fs.file-nr"), Some(Refusal::ReadOnly));
        assert_eq!(refusal("net.core.somaxconn"), None);
    }

    #[test]
    fn names_close_to_a_key_find_it() {
        let similar = |key: &str| similar(&Key::parse(key).unwrap());
        assert_eq!(similar("net.core.somaxcon"), Some("net.core.somaxconn"));
        assert_eq!(similar("vm.nothing_like_it"), None);
    }
}
