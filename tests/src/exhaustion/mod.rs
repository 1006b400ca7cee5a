//! `make exhaustion`: real limits, driven to the kernel's refusal, beside what Headroom foretold.
//!
//! A pod is a real unit here: a process with five threads, three inotify instances or 300 open
//! files, or a veth on a bridge. One comes after the other until the kernel refuses; before each
//! Headroom's own readers and its arithmetic say how many more will fit. What a run changes is put
//! back, also when it fails, and a lowered limit meets only what the run has made itself, but for
//! `fs.file-max`: there the refusal lasts for as long as it takes to close what was refused.

mod backlog;
mod bridge;
mod conntrack;
mod eyes;
mod file_handles;
mod fill;
mod foretold;
mod inotify;
mod keys;
mod neighbors;
mod net_namespaces;
mod pids;
mod pod;
mod pod_addresses;
mod report;

use std::path::PathBuf;

pub use conntrack::{Hooks, conntrack};
pub use foretold::{Fact, Foretold, Prediction, Row};
pub use pod::main as pod_main;
pub use report::{markdown, replace, text};

use crate::HostLock;

/// What a run needs.
#[derive(Debug)]
pub struct Bench<'a> {
    /// Alone on this machine.
    pub host: &'a HostLock,
    /// The program that plays a pod: this one, `exhaustion`.
    pub program: PathBuf,
}

/// A limit that is driven to its end. `Err`: why it cannot be on this machine.
pub type Driver = fn(&Bench<'_>) -> Result<Row, String>;

/// What there is, in the order of the table.
pub const ALL: [(&str, Driver); 11] = [
    ("neighbors", neighbors::drive),
    ("peers", neighbors::drive_peers),
    ("bridge", bridge::drive),
    ("backlog", backlog::drive),
    ("addresses", pod_addresses::drive),
    ("pids", pids::drive),
    ("inotify", inotify::drive),
    ("keys", keys::drive),
    ("conntrack", conntrack::drive),
    ("files", file_handles::drive),
    ("netns", net_namespaces::drive),
];
