//! Whose value a key is on this kernel, measured: what namespaces made for the purpose show.

use nix::errno::Errno;
use schemars::JsonSchema;
use serde::Serialize;

use super::catalogue::{self, Refusal, Scope};
use super::key::Key;
use super::managed::show;
use crate::kernel::netns::{self, NetnsError};
use crate::kernel::sysctl_file::{OpenMode, SysctlTree};

/// What a new namespace shows of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", tag = "found")]
pub enum InNew {
    /// No such file: one value for the node.
    Absent,
    /// The host's value, which cannot be written there.
    ReadOnly {
        /// The value, escaped.
        value: String,
    },
    /// A value of its own, with which it begins.
    Own {
        /// The value, escaped.
        value: String,
    },
    /// The host's value: nothing tells whether it is the same one or begins as a copy.
    Same,
    /// It could not be looked at.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What a new namespace of the kind that matters to this key shows; `None` where no namespace
/// does, or the kind cannot be made for a moment. Reads only.
#[must_use]
pub fn in_new(tree: &SysctlTree, key: &Key) -> Option<InNew> {
    if catalogue::refusal(key) == Some(Refusal::SideEffect) {
        return None;
    }
    let key = &everywhere(key);
    let look = || look(tree, key);
    if look() == InNew::Absent {
        return None;
    }
    if key.is_net() {
        return Some(netns::in_new_netns(look).unwrap_or_else(|error| unknown(&error)));
    }
    let scope = catalogue::lookup(key).map(|entry| entry.scope());
    if !matches!(scope, Some(Scope::Ipc | Scope::Uts)) {
        return None;
    }
    let here = look();
    let there = netns::in_new_ipc_and_uts(look).unwrap_or_else(|error| unknown(&error));
    // The file is the same one everywhere, so only another value is proof.
    Some(if here == there { InNew::Same } else { there })
}

/// What one new network namespace shows of several keys of its own.
pub fn all_in_new(tree: &SysctlTree, keys: &[Key]) -> Result<Vec<InNew>, NetnsError> {
    netns::in_new_netns(|| keys.iter().map(|key| look(tree, &everywhere(key))).collect())
}

/// What holds of one interface's key holds of every other's, and `default` is everywhere.
#[must_use]
pub fn everywhere(key: &Key) -> Key {
    let everywhere = catalogue::with_interface(key.as_str(), "default");
    everywhere.and_then(|key| Key::parse(&key).ok()).unwrap_or_else(|| key.clone())
}

/// What the calling thread's namespace shows of a key.
#[must_use]
pub fn here(tree: &SysctlTree, key: &Key) -> InNew {
    look(tree, key)
}

fn unknown(error: &NetnsError) -> InNew {
    InNew::Unknown { reason: error.to_string() }
}

fn look(tree: &SysctlTree, key: &Key) -> InNew {
    // Opened for writing to see whether it could be; nothing is written.
    let file = match tree.open_key(key.as_str(), &key.path(), OpenMode::ReadWrite) {
        Ok(file) => file,
        Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => {
            return InNew::Absent;
        }
        Err(error) => return InNew::Unknown { reason: error.to_string() },
    };
    let mut buffer = Vec::new();
    let value = match file.read(&mut buffer) {
        Ok(bytes) => show(&String::from_utf8_lossy(bytes)),
        // A secret that was never set.
        Err(error) if error.errno == Errno::EIO => String::new(),
        Err(error) => return InNew::Unknown { reason: error.to_string() },
    };
    match file.write_error() {
        None => InNew::Own { value },
        Some(error) if error.errno == Errno::EACCES => InNew::ReadOnly { value },
        // How the tree is mounted says nothing of the key.
        Some(_) if file.is_for_writing() => InNew::Own { value },
        Some(_) => InNew::ReadOnly { value },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Without CAP_SYS_ADMIN it says so, and that is all there is to see here.
    #[test]
    fn what_cannot_be_measured_is_said() {
        let tree = SysctlTree::open(Path::new("/proc/sys"), None).unwrap();
        let measure = |key: &str| in_new(&tree, &Key::parse(key).unwrap());
        assert!(measure("net.core.somaxconn").is_some());
        assert_eq!(measure("vm.swappiness"), None, "no namespace has its own");
        assert_eq!(measure("net.ipv4.route.flush"), None, "touching it acts");
    }
}
