//! What pods get of a key, when, and what to do about it: the one truth for every command.
//!
//! The catalogue says what kernels do, the kernel's version and `net.core.devconf_inherit_init_net`
//! say which of that this one does, and what was measured in a new namespace overrules both.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::catalogue::{self, Entry, NewNetns, Refusal, Scope};
use super::key::Key;
use super::measure::InNew;
use crate::kernel::sysctl_file::{OpenMode, SysctlTree};

/// What a pod that is created now gets of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gets {
    /// Its own value, which begins as the kernel's default.
    Own,
    /// Its own value, which begins as a copy taken once, when its namespace is created.
    Copied,
    /// Its own value, which the kernel computes when its namespace is created.
    Computed,
    /// The host's value, which it sees and cannot write.
    ReadOnly,
    /// The one value of the node, in its own namespaces too.
    Shared,
    /// No such file: the node has one value, which counts for pods too.
    Absent,
    /// Not known: no entry in the catalogue, and not measured.
    Unknown,
}

/// `net.core.devconf_inherit_init_net`: where a new namespace has its interfaces' settings from.
/// The kernel has one for all namespaces (`devinet_init_net`, `addrconf_init_net`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Devconf {
    /// 0: IPv4's are the host's, IPv6's the kernel's defaults.
    #[default]
    Ipv4,
    /// 1: both are the host's.
    Both,
    /// 2: both are the kernel's defaults.
    Neither,
    /// 3: both are those of the process that creates the namespace.
    Creator,
}

impl Devconf {
    const KEY: &str = "net.core.devconf_inherit_init_net";

    /// As it is now. The kernel's default where it cannot be read: only the initial network
    /// namespace has the file.
    #[must_use]
    pub fn read(tree: &SysctlTree) -> Self {
        let value = Key::parse(Self::KEY).ok().and_then(|key| {
            let file = tree.open_key(key.as_str(), &key.path(), OpenMode::ReadOnly).ok()?;
            let mut buffer = Vec::new();
            let text = String::from_utf8_lossy(file.read(&mut buffer).ok()?).into_owned();
            text.trim().parse().ok()
        });
        Self::from_value(value.unwrap_or(0))
    }

    /// Of a value of the key.
    #[must_use]
    pub fn from_value(value: i64) -> Self {
        match value {
            1 => Self::Both,
            2 => Self::Neither,
            3 => Self::Creator,
            _ => Self::Ipv4,
        }
    }
}

/// What is known of a key on this node.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The key.
    pub key: &'a Key,
    /// The kernel's version.
    pub kernel: (u32, u32),
    /// Where new namespaces have their interfaces' settings from.
    pub devconf: Devconf,
    /// What a namespace made for the purpose showed, where that was looked at.
    pub measured: Option<&'a InNew>,
    /// The host's value of the key, as [`InNew`] shows values.
    pub host: Option<&'a str>,
}

/// What pods get of a key, in words too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InPods {
    /// What they get.
    pub gets: Gets,
    /// The value they begin with, where it was measured, escaped.
    pub value: Option<String>,
    /// The host's key that is copied, where that is not the key itself.
    pub from: Option<String>,
    /// What they get and when, in words.
    pub words: String,
    /// What sets it for pods, in words.
    pub to_change: String,
    /// What the catalogue says, where the measurement says something else.
    pub contradicts: Option<String>,
}

impl InPods {
    /// The truth about a key.
    #[must_use]
    pub fn of(known: &Known<'_>) -> Self {
        let entry = catalogue::lookup(known.key);
        let expected = expected(known.key, known.kernel, known.devconf);
        let (gets, contradicts) = overrule(known, entry.as_ref(), expected);
        let value = match known.measured {
            Some(InNew::Own { value } | InNew::ReadOnly { value }) => Some(value.clone()),
            _ => None,
        };
        let from = copied_from(known.key).filter(|_| gets == Gets::Copied);
        Self {
            gets,
            value,
            words: words(known, entry.as_ref(), gets, from.as_deref()),
            to_change: to_change(known.key, entry.as_ref(), gets, from.as_deref()).to_owned(),
            from,
            contradicts,
        }
    }
}

/// What a pod gets by what the catalogue knows of this kernel.
#[must_use]
pub fn expected(key: &Key, kernel: (u32, u32), devconf: Devconf) -> Gets {
    let Some(entry) = catalogue::lookup(key) else { return Gets::Unknown };
    let not_yet = entry.namespaced_since().is_some_and(|since| kernel < since);
    if !key.is_net() {
        return match entry.scope() {
            Scope::Ipc | Scope::Pid | Scope::Uts | Scope::Mountns if !not_yet => Gets::Own,
            // A pod has the host's user namespace, or one below it, where the host's counts too.
            _ => Gets::Shared,
        };
    }
    if not_yet {
        return Gets::Absent;
    }
    let buffers = ["net.core.rmem_", "net.core.wmem_"];
    match entry.new_netns() {
        None => Gets::Unknown,
        // Shown read-only since 6.11 (19249c0724f2); before that there was no file.
        Some(NewNetns::Global)
            if kernel < (6, 11) && buffers.iter().any(|start| key.as_str().starts_with(start)) =>
        {
            Gets::Absent
        }
        Some(NewNetns::Global) if entry.has("shared") => Gets::Shared,
        Some(NewNetns::Global) => Gets::ReadOnly,
        Some(NewNetns::Absent) => Gets::Absent,
        Some(NewNetns::Computed) => Gets::Computed,
        Some(new) => match tree(key) {
            // The tables are the kernel's; only an interface's settings are its namespace's.
            Some("neigh") if catalogue::interface(key.as_str()) == Some("default") => Gets::Absent,
            Some("ipv4") if devconf == Devconf::Neither => Gets::Own,
            Some("ipv6") if of_module(key) => Gets::Own,
            Some("ipv6") if matches!(devconf, Devconf::Both | Devconf::Creator) => Gets::Copied,
            _ if new == NewNetns::Copied => Gets::Copied,
            _ => Gets::Own,
        },
    }
}

/// Which settings of interfaces a key is one of: `ipv4` and `ipv6` below `conf`, or `neigh`.
fn tree(key: &Key) -> Option<&'static str> {
    let starts = |start: &str| key.as_str().starts_with(start);
    // Another name of conf.all.forwarding.
    if starts("net.ipv4.conf.") || key.as_str() == "net.ipv4.ip_forward" {
        return Some("ipv4");
    }
    if starts("net.ipv6.conf.") {
        return Some("ipv6");
    }
    (starts("net.ipv4.neigh.") || starts("net.ipv6.neigh.")).then_some("neigh")
}

/// Two settings that `addrconf_init_net` takes from the parameters of the ipv6 module for every new
/// namespace's `conf.default`, whatever is copied.
fn of_module(key: &Key) -> bool {
    let leaf = key.as_str().rsplit('.').next();
    matches!(leaf, Some("autoconf" | "disable_ipv6"))
        && catalogue::interface(key.as_str()) != Some("all")
}

/// The key whose value an interface begins with: an interface of a pod has nothing to do with the
/// host's of the same name.
fn copied_from(key: &Key) -> Option<String> {
    let interface = catalogue::interface(key.as_str())?;
    tree(key).filter(|_| !matches!(interface, "all" | "default"))?;
    catalogue::with_interface(key.as_str(), "default")
}

/// What was measured wins. Beside it what the catalogue says, if that is something else.
fn overrule(known: &Known<'_>, entry: Option<&Entry>, expected: Gets) -> (Gets, Option<String>) {
    let own = matches!(expected, Gets::Own | Gets::Copied | Gets::Computed);
    let measured = match known.measured {
        None | Some(InNew::Same | InNew::Unknown { .. }) => return (expected, None),
        Some(InNew::Absent) if expected == Gets::Absent => return (expected, None),
        Some(InNew::Absent) => Gets::Absent,
        // Nobody can write it, the namespace's own or not.
        Some(InNew::ReadOnly { .. }) if entry.is_some_and(|entry| entry.has("readonly")) => {
            return (expected, None);
        }
        Some(InNew::ReadOnly { .. }) if expected == Gets::ReadOnly => return (expected, None),
        Some(InNew::ReadOnly { .. }) => Gets::ReadOnly,
        Some(InNew::Own { value }) => {
            // Of an interface what was looked at is another key.
            let copy =
                copied_from(known.key).is_some() || known.host.is_none_or(|host| host == value);
            if expected == Gets::Shared || (own && (expected != Gets::Copied || copy)) {
                return (expected, None);
            }
            Gets::Own
        }
    };
    let says = (expected != Gets::Unknown)
        .then(|| format!("the catalogue says: {}; measured here it is not so", short(expected)));
    (measured, says)
}

/// What a pod gets, in a few words.
fn short(gets: Gets) -> &'static str {
    match gets {
        Gets::Own => "the kernel's default",
        Gets::Copied => "a copy of the host's value",
        Gets::Computed => "a computed value",
        Gets::ReadOnly => "the host's value, read-only",
        Gets::Shared => "the node's one value",
        Gets::Absent => "no such file",
        Gets::Unknown => "not known",
    }
}

fn words(known: &Known<'_>, entry: Option<&Entry>, gets: Gets, from: Option<&str>) -> String {
    let key = known.key;
    match gets {
        Gets::Own if entry.is_none() || !key.is_net() => "a value of their own".to_owned(),
        Gets::Own if copied_from(key).is_some() => {
            "their interfaces' own values, which begin as the pod's own conf.default; the host's do \
             not reach them"
                .to_owned()
        }
        Gets::Own => {
            "their own value, which begins as the kernel's default; the host's does not reach them"
                .to_owned()
        }
        Gets::Copied => {
            let whose = match (known.devconf, tree(key)) {
                (Devconf::Creator, Some("ipv4" | "ipv6")) => {
                    "the value that the creating process' namespace, most often the host's, has"
                }
                _ => "the host's value",
            };
            let of = from.map(|from| format!(" of {from}")).unwrap_or_default();
            let when = match tree(key) {
                Some("neigh") => "when an interface of theirs is created",
                _ => "when the pod's namespace is created",
            };
            format!(
                "their own value, which begins as a copy of {whose}{of}, taken once, {when}: later \
                 changes on the host reach new pods only"
            )
        }
        Gets::Computed => {
            "their own value, which the kernel computes from the size of the namespace's tables; the \
             host's does not reach them"
                .to_owned()
        }
        Gets::ReadOnly => "the host's value, which they see and cannot write".to_owned(),
        Gets::Shared if key.is_net() => {
            "the node's one value: a write in a pod changes it for all".to_owned()
        }
        Gets::Shared => "the node's one value, which counts for pods too".to_owned(),
        Gets::Absent if tree(key) == Some("neigh") && copies_to_interfaces(entry) => {
            "no such file; their interfaces begin with a copy of this value, taken when they are created"
                .to_owned()
        }
        Gets::Absent => {
            "no such file: the node has one value, which counts for pods too".to_owned()
        }
        Gets::Unknown => "not known".to_owned(),
    }
}

/// Of `neigh.default`: whether it is a setting of interfaces and not of the whole table.
fn copies_to_interfaces(entry: Option<&Entry>) -> bool {
    entry.is_some_and(|entry| entry.key().contains(".*."))
}

fn to_change(key: &Key, entry: Option<&Entry>, gets: Gets, from: Option<&str>) -> String {
    match catalogue::refusal(key) {
        Some(Refusal::ReadOnly) => return "cannot be set: the kernel only shows it".to_owned(),
        Some(Refusal::SideEffect) => return "cannot be set: it stores no value".to_owned(),
        _ => {}
    }
    match gets {
        Gets::Own if entry.is_some_and(|entry| entry.scope() == Scope::Ipc) => {
            "`securityContext.sysctls` of the pod; policies under `pods` are for keys below `net.`"
        }
        Gets::Own | Gets::Computed if !key.is_net() => {
            "not by Headroom: policies under `pods` are for keys below `net.`"
        }
        Gets::Own | Gets::Computed => "a policy under `pods`",
        Gets::Copied => {
            let of = from.map(|from| format!(" for {from}")).unwrap_or_default();
            return format!(
                "a policy under `pods`; or one under `sysctls`{of}, which reaches pods created after it"
            );
        }
        Gets::Absent if tree(key) == Some("neigh") && copies_to_interfaces(entry) => {
            "a policy under `sysctls`, which reaches interfaces created after it"
        }
        Gets::ReadOnly | Gets::Shared | Gets::Absent => {
            "cannot be set for a pod: a policy under `sysctls` sets it for the whole node"
        }
        Gets::Unknown => "not known",
    }
    .to_owned()
}

/// Whether programs meet a key, rather than what a node's own network is made of: what many set on
/// the host and expect in pods.
#[must_use]
pub fn is_of_programs(key: &Key) -> bool {
    const STARTS: [&str; 7] = [
        "net.core.",
        "net.ipv4.tcp_",
        "net.ipv4.udp_",
        "net.ipv4.ip_local_",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.unix.",
    ];
    STARTS.iter().any(|start| key.as_str().starts_with(start))
}

#[cfg(test)]
#[path = "inherit_tests.rs"]
mod tests;
