//! Sockets to listen on: who may be in the way, and what exactly failed.

use std::fmt;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::sockopt::Ipv6V6Only;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt, socket,
};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::kernel::errno::{name_of, of_io};
use crate::kernel::listeners::Holder;
use crate::kernel::name::escape;

/// Connections the kernel keeps for us while all slots are in use.
const BACKLOG: u16 = 128;

/// The longest path of a unix socket: `sun_path` less its terminating zero.
pub const MAX_SOCKET_PATH: usize = 107;

/// The mode of a unix socket: connecting takes write permission, so root alone may.
const SOCKET_MODE: u32 = 0o600;

/// Why a socket could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the address.
    #[error("{addr} is taken by {}", Occupant(holder.as_ref()))]
    Taken {
        /// The address asked for.
        addr: SocketAddr,
        /// The process that has it, if it can be seen.
        holder: Option<Holder>,
    },
    /// Some step of listening on a TCP address failed.
    #[error("cannot listen on {addr}: {step}: {} ({})", name_of(*errno), errno.desc())]
    Tcp {
        /// The address asked for.
        addr: SocketAddr,
        /// The step.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// Some step of listening on a unix socket failed.
    #[error("cannot listen on {}: {step}: {} ({})", shown(path), name_of(*errno), errno.desc())]
    Unix {
        /// The path asked for.
        path: PathBuf,
        /// The step.
        step: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The path does not fit a socket address.
    #[error(
        "cannot listen on {}: a socket's path has at most {MAX_SOCKET_PATH} bytes, this one has {}",
        shown(path), path.as_os_str().len()
    )]
    PathTooLong {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something else than a socket is at the path; it is left alone.
    #[error(
        "cannot listen on {}: {kind} is there, and only a stale socket is replaced",
        shown(path)
    )]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// A process answers on the unix socket; it is left alone.
    #[error("cannot listen on {}: another process answers there", shown(path))]
    Live {
        /// The path asked for.
        path: PathBuf,
    },
}

impl BindError {
    /// The errno behind the error.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Taken { .. } | Self::Live { .. } => Errno::EADDRINUSE,
            Self::Tcp { errno, .. } | Self::Unix { errno, .. } => *errno,
            Self::PathTooLong { .. } => Errno::ENAMETOOLONG,
            Self::NotASocket { .. } => Errno::ENOTSOCK,
        }
    }
}

/// A holder in words.
struct Occupant<'a>(Option<&'a Holder>);

impl fmt::Display for Occupant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => write!(f, "{} (pid {})", holder.comm, holder.pid),
            None => f.write_str("another process (not visible from here: no hostPID)"),
        }
    }
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// Listens on a TCP address. To be called within a tokio runtime.
///
/// `SO_REUSEADDR`, so that connections of a former agent in TIME_WAIT do not keep the port; never
/// `SO_REUSEPORT`, with which another process of the same user could take part of the
/// connections. IPv6 sockets are IPv6 only, so that 0.0.0.0 and `[::]` can both be listed.
pub fn tcp(addr: SocketAddr) -> Result<TcpListener, BindError> {
    let failed = |step| move |error: io::Error| tcp_error(addr, step, of_io(&error));
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
        .map_err(failed("socket"))?;
    if addr.is_ipv6() {
        setsockopt(&socket, Ipv6V6Only, &true)
            .map_err(|errno| tcp_error(addr, "IPV6_V6ONLY", errno))?;
    }
    socket.set_reuseaddr(true).map_err(failed("SO_REUSEADDR"))?;
    socket.bind(addr).map_err(failed("bind"))?;
    // With SO_REUSEADDR on both sides two sockets can be bound, and the second listen() fails.
    socket.listen(u32::from(BACKLOG)).map_err(failed("listen"))
}

fn tcp_error(addr: SocketAddr, step: &'static str, errno: Errno) -> BindError {
    if errno == Errno::EADDRINUSE {
        // Who holds it is looked for elsewhere: that reads a lot.
        return BindError::Taken { addr, holder: None };
    }
    BindError::Tcp { addr, step, errno }
}

/// Listens on a unix socket that only root may connect to. To be called within a tokio runtime.
///
/// The parent directory is created if needed. A stale socket, one that is a socket and refuses
/// connections, is replaced; anything else at the path is an error.
///
/// The mode is 0600 from the first moment: Linux gives the new file the mode of the socket's own
/// inode less the umask, so a `fchmod` of the socket before `bind` leaves no gap. The alternative,
/// binding a temporary name and renaming it, would show the temporary name in `ss -xl` for as long
/// as the agent lives, and its rename could replace a live socket that came up in between, where
/// `bind` fails.
pub fn unix(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |step| move |errno| BindError::Unix { path: path.to_owned(), step, errno };
    let io_failed = |step| move |error: io::Error| failed(step)(of_io(&error));
    if path.as_os_str().len() > MAX_SOCKET_PATH {
        return Err(BindError::PathTooLong { path: path.to_owned() });
    }
    let addr = UnixAddr::new(path).map_err(failed("address"))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755).create(parent).map_err(io_failed("mkdir"))?;
    }
    remove_stale(path, &addr)?;

    let socket = private_socket().map_err(failed("socket"))?;
    bind(socket.as_raw_fd(), &addr).map_err(failed("bind"))?;
    // A sandboxed kernel may not inherit the mode; nobody can connect before listen().
    let mode = fs::symlink_metadata(path).map_err(io_failed("stat"))?.permissions().mode();
    if mode & 0o777 != SOCKET_MODE {
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(io_failed("chmod"))?;
    }
    let backlog = Backlog::new(BACKLOG).map_err(failed("listen"))?;
    listen(&socket, backlog).map_err(failed("listen"))?;
    UnixListener::from_std(socket.into()).map_err(io_failed("register"))
}

/// Non-blocking, as tokio wants it, and so that a connect to a full backlog returns.
fn stream_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

/// A socket whose file will be created with [`SOCKET_MODE`].
fn private_socket() -> nix::Result<OwnedFd> {
    let socket = stream_socket()?;
    fchmod(&socket, Mode::from_bits_truncate(SOCKET_MODE))?;
    Ok(socket)
}

/// Removes a socket that nobody listens on any more, and nothing else.
///
/// Two agents that start in the same instant can both find the socket stale, and the later one
/// then unlinks what the earlier one bound. They share the TCP port, which only one of them gets.
fn remove_stale(path: &Path, addr: &UnixAddr) -> Result<(), BindError> {
    let failed = |step, errno| Err(BindError::Unix { path: path.to_owned(), step, errno });
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return failed("stat", of_io(&error)),
    };
    if !kind.is_socket() {
        return Err(BindError::NotASocket { path: path.to_owned(), kind: kind_of(kind) });
    }
    let probe = match stream_socket() {
        Ok(socket) => connect(socket.as_raw_fd(), addr),
        Err(errno) => return failed("socket", errno),
    };
    match probe {
        Err(Errno::ECONNREFUSED) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                failed("unlink the stale socket", of_io(&error))
            }
            _ => Ok(()),
        },
        Err(Errno::ENOENT) => Ok(()),
        // EAGAIN is a full backlog, EPROTOTYPE a datagram socket: somebody has it open.
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => {
            Err(BindError::Live { path: path.to_owned() })
        }
        Err(errno) => failed("see whether the socket there is in use", errno),
    }
}

fn kind_of(kind: fs::FileType) -> &'static str {
    if kind.is_file() {
        "a regular file"
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_fifo() {
        "a pipe"
    } else {
        "a device"
    }
}

#[cfg(test)]
#[path = "bind_tests.rs"]
mod tests;
