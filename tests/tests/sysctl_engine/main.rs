//! The sysctl engine on a real kernel: passes, other writers, the ledger, and what stands between
//! a container and the host's values.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use headroom::kernel::netns::Netns;
use headroom::kernel::state_dir::{self, LockError};
use headroom::kernel::sysctl_file::SysctlTree;
use headroom::sysctl::place::{Net, Place};
use headroom::sysctl::policy::OnConflict::{Report, Yield};
use headroom::sysctl::policy::Policy;
use headroom::sysctl::restore::Outcome;
use headroom::sysctl::state::State;
use headroom_tests::{
    Mount, Namespace, Rig, SavedSysctls, WriteWatch, in_netns, key, max, min, one_of, pattern,
    private_mounts, root_or_skip, value, with_conflict,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

const SOMAXCONN: &str = "net.core.somaxconn";
const FIN_TIMEOUT: &str = "net.ipv4.tcp_fin_timeout";
const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
const PORT_START: &str = "net.ipv4.ip_unprivileged_port_start";
const IP_FORWARD: &str = "net.ipv4.ip_forward";

mod conflicts;
mod crashes;
mod globs;
mod interfaces;
mod originals;
mod places;
mod values;

fn file(key: &str) -> String {
    headroom_tests::key(key).path().to_str().unwrap().to_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn watch(netns: &Namespace, keys: &[&str]) -> WriteWatch {
    let files: Vec<String> = keys.iter().map(|key| file(key)).collect();
    netns.run(|| WriteWatch::new(files.iter().map(String::as_str)))
}

/// The open files below `/proc/sys` of this process, and whether they are open for writing.
fn open_sysctls() -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok) {
        let Ok(path) = fs::read_link(entry.path()) else { continue };
        if path.starts_with("/proc/sys") && path != Path::new("/proc/sys") {
            let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let info = fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            found.push((path, flags & 0o3 != 0));
        }
    }
    found
}

/// Runs an ignored test of this file in a process of its own.
fn helper(name: &str, argument: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("HRTEST_HELPER", argument)
        .status()
        .unwrap()
}
