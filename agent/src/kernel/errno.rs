//! What an errno means where it occurred, and what to do about it.

use std::path::PathBuf;

use nix::errno::Errno;

use super::name::escape;

/// What was being done to a file when the kernel said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `open(2)`.
    Open,
    /// `read(2)`.
    Read,
    /// `write(2)`.
    Write,
}

impl Access {
    fn verb(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// A file operation that failed: which, where, the errno, and what it means there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {} {}: {}: {}", access.verb(), shown(path), name_of(*errno), meaning)]
pub struct FileError {
    /// What was tried.
    pub access: Access,
    /// The file.
    pub path: PathBuf,
    /// The kernel's answer.
    pub errno: Errno,
    /// What the answer means for this file, and what to do.
    pub meaning: String,
}

impl FileError {
    /// An error whose meaning is the generic one of its errno.
    pub fn new(access: Access, path: impl Into<PathBuf>, errno: Errno) -> Self {
        let meaning = generic(access, errno).to_owned();
        Self { access, path: path.into(), errno, meaning }
    }

    /// The same with a meaning of its own.
    #[must_use]
    pub fn meaning(mut self, meaning: impl Into<String>) -> Self {
        self.meaning = meaning.into();
        self
    }
}

fn shown(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    escape(path.as_os_str().as_bytes())
}

/// `EINVAL`, not `Invalid argument`: the name is what people search for.
#[must_use]
pub fn name_of(errno: Errno) -> String {
    format!("{errno:?}")
}

/// The errno of an I/O error, `EIO` where the error did not come from the kernel.
#[must_use]
pub fn of_io(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

fn generic(access: Access, errno: Errno) -> &'static str {
    match (access, errno) {
        (_, Errno::ENOENT) => "it does not exist",
        (_, Errno::EACCES) => "the mode bits or a capability check forbid it, even to root",
        (_, Errno::EPERM) => "a capability is missing",
        (_, Errno::EROFS) => "it is mounted read-only",
        (_, Errno::EISDIR) => "it is a directory",
        (_, Errno::ELOOP | Errno::EXDEV) => "the path leaves its root or goes through a link",
        (_, Errno::EMFILE | Errno::ENFILE) => {
            "too many open files: raise RLIMIT_NOFILE or fs.file-max"
        }
        (_, Errno::ENOSPC) => "the file system is full",
        (_, Errno::ENOSYS) => "this kernel or this sandbox lacks the system call",
        _ => errno.desc(),
    }
}

/// What a failed `/proc/sys` operation means (measured on 5.10 to 7.2: the same errno says one
/// thing at `open(2)` and another at `write(2)`).
#[must_use]
pub fn sysctl_meaning(access: Access, errno: Errno, key: &str) -> String {
    let text = match (access, errno) {
        (Access::Open, Errno::ENOENT) => {
            "the key does not exist: its kernel module is not loaded, its interface is not there, \
             or this kernel or network namespace does not have it"
        }
        (Access::Read | Access::Write, Errno::ENOENT) if key.ends_with("congestion_control") => {
            "no such congestion control algorithm in this kernel: load its module, or see \
             net.ipv4.tcp_available_congestion_control"
        }
        (Access::Write, Errno::ENOENT) if key == "net.core.default_qdisc" => {
            "no such queueing discipline in this kernel: load its sch_ module"
        }
        (Access::Read, Errno::ENOENT) => {
            "the key vanished, with its module, interface or namespace"
        }
        (Access::Write, Errno::ENOENT) => {
            "the key vanished, or the kernel does not know this value"
        }
        (Access::Open, Errno::EACCES) if !super::system::is_root() => "only root may write it",
        (Access::Open, Errno::EACCES) if is_window(key) => {
            "outside the initial network namespace this is only a view of the host's value"
        }
        (Access::Open, Errno::EACCES) => {
            "the key is read-only, also for root, or needs a capability (user.*: CAP_SYS_RESOURCE; \
             net.* as another user than root: CAP_NET_ADMIN)"
        }
        (Access::Write | Access::Open, Errno::EPERM) => match key {
            k if k.ends_with("forwarding") || k == "net.ipv4.ip_forward" => {
                "CAP_NET_ADMIN is missing"
            }
            "vm.mmap_min_addr" => "CAP_SYS_RAWIO is missing",
            k if k.starts_with("user.") => "CAP_SYS_RESOURCE is missing",
            k if k.ends_with("congestion_control") => {
                "this algorithm is restricted: add it to net.ipv4.tcp_allowed_congestion_control"
            }
            _ => "a capability is missing (most often CAP_SYS_ADMIN), or the key only goes one way",
        },
        (_, Errno::EROFS) => {
            "/proc/sys is mounted read-only here: mount the host's /proc/sys/net (or the one file) \
             at /host/proc/sys/net read-write"
        }
        (Access::Write, Errno::EINVAL) => invalid(key),
        (Access::Write, Errno::EBUSY) => "the value conflicts with another setting in force",
        (Access::Write, Errno::ERANGE | Errno::EOVERFLOW) => {
            "the value is out of the kernel's range"
        }
        (Access::Read, Errno::EIO) if key.ends_with("stable_secret") => {
            "no secret has been set yet"
        }
        (access, errno) => generic(access, errno),
    };
    text.to_owned()
}

/// Keys that other network namespaces show, and cannot write (since 6.11 also the first four).
fn is_window(key: &str) -> bool {
    ["net.core.rmem_", "net.core.wmem_", "net.netfilter.nf_conntrack_", "net.nf_conntrack_"]
        .iter()
        .any(|prefix| key.starts_with(prefix))
}

fn invalid(key: &str) -> &'static str {
    match key {
        "net.ipv4.ip_local_port_range" => {
            "the kernel refused the value: low must not be above high, nor below \
             net.ipv4.ip_unprivileged_port_start"
        }
        "net.ipv4.ip_unprivileged_port_start" => {
            "the kernel refused the value: it must not be above the low end of \
             net.ipv4.ip_local_port_range"
        }
        "vm.dirty_bytes" | "vm.dirty_background_bytes" => {
            "the kernel refused the value: 0 is what it shows when the _ratio key rules, but it \
             cannot be written; write the _ratio key instead"
        }
        "kernel.pid_max" => {
            "the kernel refused the value: it must be above 300 and at most 4194304"
        }
        _ => "the kernel refused the value: out of its range, or in conflict with a related key",
    }
}
