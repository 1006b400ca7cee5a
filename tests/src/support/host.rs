//! Being root, being alone, and leaving nothing behind.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::command::try_ip;
use super::sysctl;
use crate::cri::cgroups;

/// What everything made here is called: `hrtest-<pid>-<n>`.
const PREFIX: &str = "hrtest-";
pub(super) const NETNS_DIRECTORY: &str = "/run/netns";
/// What tests keep in files. Root's alone, unlike `/tmp`, and gone with the boot.
pub(super) const DIRECTORY: &str = "/run/headroom-tests";

/// The right to change what the whole machine shares. One test has it at a time, among threads,
/// test binaries and runs; taken with [`root_or_skip`], before anything else is made, so that it
/// is dropped last.
#[derive(Debug)]
pub struct HostLock(#[expect(dead_code, reason = "held, not read")] File);

/// The first line of every kernel test. Waits until no other test uses the machine and removes
/// what killed runs left behind. `None`: not root, and to be skipped.
///
/// # Panics
/// Without root, unless `HEADROOM_SKIP_ROOT_TESTS=1`.
#[must_use]
pub fn root_or_skip() -> Option<HostLock> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        let skip = std::env::var_os("HEADROOM_SKIP_ROOT_TESTS").is_some_and(|set| set == "1");
        assert!(
            skip,
            "this test needs root: run it as root, or set HEADROOM_SKIP_ROOT_TESTS=1 to skip all \
             tests that do"
        );
        eprintln!("skipped: needs root (HEADROOM_SKIP_ROOT_TESTS=1)");
        return None;
    }
    fs::create_dir_all(DIRECTORY).unwrap();
    let lock = Path::new(DIRECTORY).join("lock");
    let file = File::options().create(true).append(true).open(lock).unwrap();
    file.lock().unwrap();
    let lock = HostLock(file);
    if !keep() {
        lock.clean();
    }
    Some(lock)
}

/// Whether a failed test's namespaces are left for a person to look at.
pub(super) fn keep() -> bool {
    std::env::var_os("HEADROOM_KEEP_NAMESPACES").is_some_and(|set| set == "1")
}

impl HostLock {
    /// A name that nothing else on this machine has.
    #[must_use]
    pub fn unique_name(&self) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        format!("{PREFIX}{}-{count}", std::process::id())
    }

    /// A directory that is removed when it is dropped.
    #[must_use]
    pub fn directory(&self) -> tempfile::TempDir {
        tempfile::Builder::new().prefix(&self.unique_name()).tempdir_in(DIRECTORY).unwrap()
    }

    /// Only the lock's holder makes such things, so all there are now are leftovers.
    fn clean(&self) {
        sysctl::restore_leftovers();
        for name in names(NETNS_DIRECTORY) {
            let _ = try_ip(["netns", "delete", &name]);
        }
        for name in names(DIRECTORY) {
            let directory = Path::new(DIRECTORY).join(name);
            super::pods::unmount_leftovers(&directory);
            cgroups::remove_remembered(&directory);
            let _ = fs::remove_dir_all(directory);
        }
    }
}

fn names(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}
