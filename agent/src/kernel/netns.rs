//! Namespaces: which ones this process is in, and doing something in another network namespace.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use netlink_sys::{Socket, protocols::NETLINK_ROUTE};
use nix::sched::{CloneFlags, setns, unshare};
use serde::Serialize;

/// A kind of namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Network.
    Net,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Process ids.
    Pid,
    /// Host and domain name.
    Uts,
    /// Users and capabilities.
    User,
    /// What the root of control groups is.
    Cgroup,
}

impl Kind {
    fn file(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Uts => "uts",
            Self::User => "user",
            Self::Cgroup => "cgroup",
        }
    }

    /// Inode of the initial namespace of this kind, where the kernel fixes it
    /// (`include/uapi/linux/nsfs.h`, before that `include/linux/proc_ns.h`). The network
    /// namespace's is dynamic before 6.18, so it is not listed.
    fn initial_inode(self) -> Option<u64> {
        match self {
            Self::Net => None,
            Self::Ipc => Some(0xEFFF_FFFF),
            Self::Uts => Some(0xEFFF_FFFE),
            Self::User => Some(0xEFFF_FFFD),
            Self::Pid => Some(0xEFFF_FFFC),
            Self::Cgroup => Some(0xEFFF_FFFB),
        }
    }
}

/// Identity of a namespace: two descriptors with the same device and inode are the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct NsId {
    /// Device of nsfs.
    pub dev: u64,
    /// Inode in nsfs.
    pub ino: u64,
}

/// The namespaces that are the host's, whatever their files are called: the calling thread's and,
/// where that can be read, that of pid 1.
#[must_use]
pub fn hosts(proc_root: &Path) -> Vec<NsId> {
    let found = [own(proc_root, Kind::Net), of(&proc_root.join("1/ns/net"))];
    let mut hosts: Vec<NsId> = found.into_iter().flatten().collect();
    hosts.dedup();
    hosts
}

/// Whether this process sees the same mounts as the node's init does. False where that cannot be
/// told.
#[must_use]
pub fn shares_mounts_with_init(proc_root: &Path) -> bool {
    let of = |process: &str| of(&proc_root.join(process).join("ns/mnt")).ok();
    is_initial(proc_root, Kind::Pid) && of("1").is_some() && of("1") == of("thread-self")
}

/// The calling thread's namespace of a kind.
///
/// `thread-self`, not `self`: the latter shows the main thread's, whatever `setns(2)` did here.
pub fn own(proc_root: &Path, kind: Kind) -> io::Result<NsId> {
    of(&proc_root.join("thread-self/ns").join(kind.file()))
}

fn of(path: &Path) -> io::Result<NsId> {
    let meta = std::fs::metadata(path)?;
    Ok(NsId { dev: meta.dev(), ino: meta.ino() })
}

/// Whether this process shares the host's namespace of a kind; true where it cannot be told.
#[must_use]
pub fn is_initial(proc_root: &Path, kind: Kind) -> bool {
    match (kind.initial_inode(), own(proc_root, kind)) {
        (Some(initial), Ok(id)) => id.ino == initial,
        _ => true,
    }
}

/// What was found when looking whether the network namespace is the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostNet {
    /// It is the initial network namespace.
    Initial,
    /// It is another one, with the evidence.
    Other(String),
}

/// Recognises the initial network namespace by what the kernel has only there: the neighbor
/// thresholds (`neigh_sysctl_register`: only without a device, so only in `init_net`), the
/// neighbor statistics, and the namespace of pid 1 where that can be read.
#[must_use]
pub fn host_net(proc_root: &Path) -> HostNet {
    for file in ["sys/net/ipv4/neigh/default/gc_thresh3", "net/stat/arp_cache"] {
        // /proc/net is the main thread's; the agent never moves that thread.
        let path = match file.strip_prefix("net/") {
            Some(rest) => proc_root.join("thread-self/net").join(rest),
            None => proc_root.join(file),
        };
        if !path.exists() {
            return HostNet::Other(format!("{} does not exist", path.display()));
        }
    }
    match (own(proc_root, Kind::Net), of(&proc_root.join("1/ns/net"))) {
        (Ok(own), Ok(init)) if own != init => HostNet::Other(format!(
            "pid 1 is in net:[{}], the agent in net:[{}]",
            init.ino, own.ino
        )),
        _ => HostNet::Initial,
    }
}

/// Whether the calling thread is in the kernel's initial network namespace: the thresholds are there
/// alone (`neigh_sysctl_register`).
#[must_use]
pub fn is_in_initial(proc_root: &Path) -> bool {
    proc_root.join("sys/net/ipv4/neigh/default/gc_thresh3").exists()
}

/// The network namespace that something works on.
#[derive(Clone, Debug, Default)]
pub enum Netns {
    /// The one the calling thread is in.
    #[default]
    Own,
    /// Another one. The descriptor keeps it alive: close it early.
    At(Arc<OwnedFd>),
}

/// Why nothing could be done in a namespace.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    /// `setns(2)` or `unshare(2)` failed.
    #[error("cannot enter the namespace: {0}: CAP_SYS_ADMIN is needed")]
    Enter(nix::errno::Errno),
    /// The thread could not be started.
    #[error("cannot start a thread for the network namespace: {0}")]
    Thread(io::Error),
    /// It is another one than was meant.
    #[error("this is another namespace than was meant: net:[{0}]")]
    Elsewhere(u64),
    /// Where the thread is cannot be told.
    #[error("the thread's own namespace cannot be told: {0}")]
    Unknown(io::Error),
    /// What was run there panicked.
    #[error("the thread in the network namespace panicked")]
    Panicked,
    /// A socket could not be made there.
    #[error("cannot open a netlink socket: {0}")]
    Socket(io::Error),
}

impl Netns {
    /// Runs `work` in the namespace.
    ///
    /// In another namespace it runs on a thread of its own that ends with it: a thread that
    /// entered a namespace never returns to other work, so no failure can leave the agent there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        let Self::At(fd) = self else { return Ok(work()) };
        on_own_thread(|| {
            setns(fd, CloneFlags::CLONE_NEWNET).map_err(NetnsError::Enter)?;
            Ok(work())
        })
    }
}

/// Enters a network namespace for good: for a thread that does nothing else and ends afterwards, as
/// it would do all later work there. The descriptor is closed: it keeps the namespace alive.
///
/// `expected`: what the namespace must be; another one is left at once, by ending. A path can come
/// to mean another namespace while it is opened.
pub fn enter(proc_root: &Path, fd: OwnedFd, expected: NsId) -> Result<(), NetnsError> {
    setns(&fd, CloneFlags::CLONE_NEWNET).map_err(NetnsError::Enter)?;
    drop(fd);
    match own(proc_root, Kind::Net) {
        Ok(id) if id == expected => Ok(()),
        Ok(id) => Err(NetnsError::Elsewhere(id.ino)),
        Err(error) => Err(NetnsError::Unknown(error)),
    }
}

fn on_own_thread<T: Send>(
    work: impl FnOnce() -> Result<T, NetnsError> + Send,
) -> Result<T, NetnsError> {
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(NetnsError::Thread)?
            .join()
            .unwrap_or(Err(NetnsError::Panicked))
    })
}

/// Runs `work` on a thread in a new, empty network namespace, which is gone with it: what a pod
/// that is created now would find.
pub fn in_new_netns<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    in_new(CloneFlags::CLONE_NEWNET, work)
}

/// The same in new IPC and UTS namespaces.
pub fn in_new_ipc_and_uts<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    in_new(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS, work)
}

fn in_new<T: Send>(kinds: CloneFlags, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
    on_own_thread(|| {
        unshare(kinds).map_err(NetnsError::Enter)?;
        Ok(work())
    })
}

/// A route netlink socket in a new, empty network namespace, which lives as long as the socket.
///
/// Table-wide neighbor numbers are the same from every namespace, but the answer carries one
/// message for each device of the socket's namespace: 1.2 kB here instead of 447 kB beside 1000
/// veths.
pub fn socket_in_empty_netns() -> Result<Socket, NetnsError> {
    in_new_netns(|| Socket::new(NETLINK_ROUTE))?.map_err(NetnsError::Socket)
}
