//! Facts about the machine and this process.

use std::path::Path;
use std::time::Duration;

use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use procfs::WithCurrentSystemInfo as _;

use super::name::escape;

/// This boot's id (`random(4)`): values set before a reboot are gone after it.
pub fn boot_id(proc_root: &Path) -> std::io::Result<String> {
    let text = std::fs::read(proc_root.join("sys/kernel/random/boot_id"))?;
    Ok(escape(text.trim_ascii()))
}

/// Kernel release and node name (`uname(2)`), escaped.
#[must_use]
pub fn uname() -> (String, String) {
    use std::os::unix::ffi::OsStrExt as _;
    nix::sys::utsname::uname().map_or_else(
        |_| ("unknown".to_owned(), "unknown".to_owned()),
        |name| (escape(name.release().as_bytes()), escape(name.nodename().as_bytes())),
    )
}

/// Major and minor of a kernel release, such as (6, 18); (0, 0) where it makes no sense.
#[must_use]
pub fn kernel_version(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// How many CPUs are online, from `/sys`: all of the machine, whatever this process may use.
#[must_use]
pub fn cpus(sys_root: &Path) -> Option<u64> {
    parse_cpus(&std::fs::read_to_string(sys_root.join("devices/system/cpu/online")).ok()?)
}

/// A list such as `0-3,8` (`Documentation/admin-guide/cputopology.rst`).
fn parse_cpus(list: &str) -> Option<u64> {
    list.trim().split(',').try_fold(0_u64, |sum, part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        sum.checked_add(last.checked_sub(first)?.checked_add(1)?)
    })
}

/// The effective user id.
///
/// The owner of `/proc/self`, not geteuid(2): nix has that behind a feature that links the name
/// service into a static binary.
#[must_use]
pub fn user_id() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").map_or(u32::MAX, |meta| meta.uid())
}

/// Whether this process is root in its user namespace.
#[must_use]
pub fn is_root() -> bool {
    user_id() == 0
}

/// How many descriptors this process may have open, after raising that as far as it may: each
/// key that is kept open takes one.
#[must_use]
pub fn open_files_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Whether this process is in the initial PID namespace, whose inode is fixed (`PROC_PID_INIT_INO`).
#[must_use]
pub fn in_initial_pid_namespace(proc_root: &Path) -> bool {
    let link = std::fs::read_link(proc_root.join("self/ns/pid"));
    link.is_ok_and(|link| link == Path::new("pid:[4026531836]"))
}

/// CPU time that the calling thread has used.
#[must_use]
pub fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .ok()
        .and_then(|time| u64::try_from(time.num_nanoseconds()).ok())
        .map_or(Duration::ZERO, Duration::from_nanos)
}

/// The node's memory in bytes: `MemTotal` (`proc_meminfo(5)`).
pub fn memory_bytes(proc_root: &Path) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(proc_root.join("meminfo"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
    let bytes = kilobytes.and_then(|kilobytes: u64| kilobytes.checked_mul(1024));
    bytes.ok_or_else(|| std::io::Error::other("meminfo has no MemTotal"))
}

/// What the standard `process_*` metrics say.
#[derive(Clone, Copy, Debug, Default)]
pub struct SelfUsage {
    /// User and system CPU seconds.
    pub cpu_seconds: f64,
    /// Resident memory in bytes.
    pub resident_bytes: u64,
    /// Virtual memory in bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub open_fds: Option<u64>,
    /// The soft limit on open descriptors.
    pub max_fds: Option<u64>,
    /// Start time in seconds since the epoch.
    pub start_time: Option<f64>,
    /// Threads.
    pub threads: u64,
}

/// What does not change while this process runs, and is dear to read: when it started (that takes
/// `/proc/stat`, slow on large machines) and how many descriptors it may open.
#[must_use]
pub fn self_facts() -> SelfUsage {
    let started = || {
        let started = procfs::process::Process::myself().ok()?.stat().ok()?.starttime;
        let boot = procfs::boot_time_secs().ok()?;
        Some(boot as f64 + started as f64 / procfs::ticks_per_second() as f64)
    };
    let max_fds = || {
        let limits = procfs::process::Process::myself().ok()?.limits().ok()?;
        match limits.max_open_files.soft_limit {
            procfs::process::LimitValue::Value(value) => Some(value),
            procfs::process::LimitValue::Unlimited => None,
        }
    };
    SelfUsage { start_time: started(), max_fds: max_fds(), ..SelfUsage::default() }
}

/// This process' own usage, from `/proc/self`, beside its `facts`.
pub fn self_usage(facts: &SelfUsage) -> Result<SelfUsage, String> {
    let process = procfs::process::Process::myself().map_err(|error| error.to_string())?;
    let stat = process.stat().map_err(|error| error.to_string())?;
    let cpu =
        clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_err(|errno| errno.to_string())?;
    Ok(SelfUsage {
        cpu_seconds: cpu.num_nanoseconds() as f64 / 1e9,
        resident_bytes: stat.rss_bytes().get(),
        virtual_bytes: stat.vsize,
        open_fds: process.fd_count().ok().map(|count| count as u64),
        threads: u64::try_from(stat.num_threads).unwrap_or(0),
        ..*facts
    })
}

/// Has all threads allocate from one arena (`mallopt(3)`). glibc gives each of the threads that are at
/// work at the same time one of its own, which keeps what it once held.
#[allow(unsafe_code)]
pub fn use_one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only sets a parameter of the allocator.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory that was freed back to the kernel (`malloc_trim(3)`): after a burst, glibc keeps it.
#[allow(unsafe_code)]
pub fn give_back_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the allocator's own locks make it safe at any time.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn lists_of_cpus() {
        for (list, count) in [
            ("0\n", Some(1)),
            ("0-3\n", Some(4)),
            ("0,2-3,8-127\n", Some(123)),
            ("", None),
            ("3-0", None),
            ("0-18446744073709551615", None),
            ("x", None),
        ] {
            assert_eq!(super::parse_cpus(list), count, "{list}");
        }
        let here = super::cpus(std::path::Path::new("/sys"));
        assert!(here.is_some_and(|cpus| cpus > 0), "{here:?}");
    }

    #[test]
    fn kernel_versions() {
        for (release, version) in [
            ("6.18.44-fc-v669", (6, 18)),
            ("5.10.0-30-amd64", (5, 10)),
            ("7.2", (7, 2)),
            ("what", (0, 0)),
        ] {
            assert_eq!(super::kernel_version(release), version, "{release}");
        }
    }
}
