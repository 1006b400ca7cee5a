//! Files that a network namespace is mounted on, as container runtimes keep them in
//! `/var/run/netns`: told apart from everything else that may lie there, without being held up.

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::CloneFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{FsType, fstatfs};

use super::errno::{Access, FileError};
use super::netns::NsId;

/// `NSFS_MAGIC` of `include/uapi/linux/magic.h`.
const NSFS_MAGIC: FsType = FsType(0x6e73_6673);
/// `SO_NETNS_COOKIE` of `include/uapi/asm-generic/socket.h`, since Linux 5.14.
const SO_NETNS_COOKIE: nix::libc::c_int = 71;

/// What lies at a path.
#[derive(Debug)]
pub enum Found {
    /// A network namespace. The descriptor keeps it alive: close it early.
    Netns(OwnedFd, NsId),
    /// A regular file: no namespace is mounted there, as far as this process can see.
    NotMounted,
    /// Something that cannot be one, in words.
    Other(&'static str),
    /// Nothing.
    Nothing,
}

/// Looks at a path and opens the network namespace that is mounted there.
///
/// What lies there is looked at before it is opened for reading, through a descriptor that does
/// nothing to it (`O_PATH`): opening a FIFO would wake its writer, and a device may act or hang.
pub fn find(proc_root: &Path, path: &Path) -> Result<Found, FileError> {
    let fail = |errno| FileError::new(Access::Open, path, errno);
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let there = match open(path, flags, Mode::empty()) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(Found::Nothing),
        other => other.map_err(fail)?,
    };
    let stat = fstat(&there).map_err(fail)?;
    if let Some(what) = other_than_file(&stat) {
        return Ok(Found::Other(what));
    }
    if fstatfs(&there).map_err(fail)?.filesystem_type() != NSFS_MAGIC {
        return Ok(Found::NotMounted);
    }
    let own = proc_root.join("thread-self/fd").join(there.as_raw_fd().to_string());
    let opened = open(&own, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(fail)?;
    if namespace_type(&opened).map_err(fail)? != CloneFlags::CLONE_NEWNET.bits() {
        return Ok(Found::Other("a namespace of another kind"));
    }
    Ok(Found::Netns(opened, NsId { dev: stat.st_dev, ino: stat.st_ino }))
}

fn other_than_file(stat: &FileStat) -> Option<&'static str> {
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    match kind {
        SFlag::S_IFREG => None,
        SFlag::S_IFLNK => Some("a symbolic link"),
        SFlag::S_IFDIR => Some("a directory"),
        SFlag::S_IFIFO => Some("a FIFO"),
        SFlag::S_IFSOCK => Some("a socket"),
        _ => Some("a device"),
    }
}

/// `ioctl_ns(2)`: the kind of namespace, as a `CLONE_NEW*` flag.
#[allow(unsafe_code)]
fn namespace_type(fd: impl AsFd) -> nix::Result<nix::libc::c_int> {
    nix::ioctl_none!(ns_get_nstype, 0xb7, 0x3);
    // SAFETY: the request takes no argument and changes nothing.
    unsafe { ns_get_nstype(fd.as_fd().as_raw_fd()) }
}

/// The number that the kernel gave the calling thread's network namespace: no other one has it
/// until the next boot, while inodes are used again. `None` before Linux 5.14.
#[allow(unsafe_code)]
pub fn cookie() -> nix::Result<Option<u64>> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as nix::libc::socklen_t;
    // SAFETY: both pointers are to live variables of the sizes that are given.
    let result = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match Errno::result(result) {
        Ok(_) => Ok(Some(cookie)),
        Err(Errno::ENOPROTOOPT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
