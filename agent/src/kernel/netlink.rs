//! A small netlink dump loop that misses nothing.
//!
//! rtnetlink's dump calls hide a failed dump (an error code in DONE), an interrupted one
//! (`NLM_F_DUMP_INTR`) and a truncated datagram, and hold a whole dump in memory. Recurring reads
//! go through this loop: one reused buffer, each message parsed where it lies.

use std::ops::ControlFlow;
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkSerializable as _};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt::ReceiveTimeout};
use nix::sys::time::{TimeVal, TimeValLike as _};

/// The kernel sizes dump datagrams by what the reader offers, up to 32 KiB; 64 KiB also holds
/// whatever a later kernel may choose.
const BUFFER: usize = 64 * 1024;
/// A dump that takes longer than this has a stuck RTNL behind it.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often an interrupted dump is taken again before it is given up.
const ATTEMPTS: u32 = 5;

const HEADER: usize = 16;
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// Why a dump gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made or written.
    #[error("netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Reading failed.
    #[error("netlink {request}: {errno:?}: {}", errno.desc())]
    Receive {
        /// What was asked.
        request: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused the request, or broke the dump off.
    #[error("netlink {request}: the kernel answered {errno:?}: {}", errno.desc())]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A datagram was longer than the buffer.
    #[error("netlink {request}: a datagram of {length} bytes was cut off")]
    Truncated {
        /// What was asked.
        request: &'static str,
        /// The datagram's length.
        length: usize,
    },
    /// A datagram made no sense.
    #[error("netlink {request}: malformed answer")]
    Malformed {
        /// What was asked.
        request: &'static str,
    },
    /// The table changed while it was dumped, several times in a row.
    #[error("netlink {request}: interrupted by changes {ATTEMPTS} times in a row")]
    Interrupted {
        /// What was asked.
        request: &'static str,
    },
    /// No end came in time.
    #[error("netlink {request}: no end of the answer within {} s", DEADLINE.as_secs())]
    TimedOut {
        /// What was asked.
        request: &'static str,
    },
}

impl NetlinkError {
    /// The kernel's answer, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket(error) => error.raw_os_error().map(Errno::from_raw),
            Self::Receive { errno, .. } | Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// One message in a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

/// The messages of one datagram (`netlink(7)`: 16-byte header, aligned to 4). Ends after the
/// first malformed one, which is an `Err`.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<Message<'_>, ()>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((message, next)) = split_message(rest) else {
            rest = &[];
            return Some(Err(()));
        };
        rest = next;
        Some(Ok(message))
    })
}

fn split_message(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    if length < HEADER {
        return None;
    }
    let message = Message {
        kind: u16_at(bytes, 4)?,
        flags: u16_at(bytes, 6)?,
        sequence: u32_at(bytes, 8)?,
        payload: bytes.get(HEADER..length)?,
    };
    let aligned = length.checked_add(3)? & !3;
    Some((message, bytes.get(aligned..).unwrap_or_default()))
}

/// A native-endian `u16` at an offset.
#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// A native-endian `u32` at an offset.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// A blocking socket for dumps. Its own: events have another one.
pub struct DumpSocket {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl DumpSocket {
    /// A socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        Self::over(Socket::new(NETLINK_ROUTE)?)
    }

    /// Uses a socket made elsewhere, for example in an empty namespace.
    pub fn over(mut socket: Socket) -> Result<Self, NetlinkError> {
        socket.bind_auto()?;
        // Connected to the kernel (port 0): nobody else's messages get in.
        socket.connect(&SocketAddr::new(0, 0))?;
        // Both only sharpen error reports; kernels before 4.20 lack the first.
        let _ = socket.set_netlink_get_strict_chk(true);
        let _ = socket.set_ext_ack(true);
        let seconds = i64::try_from(DEADLINE.as_secs()).unwrap_or(5);
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(seconds))
            .map_err(|errno| NetlinkError::Receive { request: "SO_RCVTIMEO", errno })?;
        Ok(Self { socket, buffer: vec![0; BUFFER], sequence: 0 })
    }

    /// Dumps, retrying while the kernel says that the dump was inconsistent. `each` folds the
    /// messages into a fresh `T` for every attempt and may stop early.
    pub fn dump<T: Default>(
        &mut self,
        name: &'static str,
        request: &RouteNetlinkMessage,
        each: impl FnMut(&mut T, &Message<'_>) -> ControlFlow<()>,
    ) -> Result<Dumped<T>, NetlinkError> {
        let mut body = vec![0; request.buffer_len()];
        request.serialize(&mut body);
        self.dump_raw(Request { name, kind: request.message_type(), body: &body }, each)
    }

    /// The same with a request of another protocol than rtnetlink.
    pub fn dump_raw<T: Default>(
        &mut self,
        request: Request<'_>,
        mut each: impl FnMut(&mut T, &Message<'_>) -> ControlFlow<()>,
    ) -> Result<Dumped<T>, NetlinkError> {
        for interrupted in 0..ATTEMPTS {
            let mut value = T::default();
            let each = &mut |message: &Message<'_>| each(&mut value, message);
            if self.attempt(request, NLM_F_DUMP, each)? {
                return Ok(Dumped { value, interrupted });
            }
        }
        Err(NetlinkError::Interrupted { request: request.name })
    }

    /// Asks for what one message answers; `None` where `read` makes nothing of it.
    pub fn ask<T>(
        &mut self,
        request: Request<'_>,
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, NetlinkError> {
        let mut answer = None;
        self.attempt(request, 0, &mut |message| {
            answer = read(message);
            ControlFlow::Break(())
        })?;
        Ok(answer)
    }

    /// One exchange; whether it was consistent.
    fn attempt(
        &mut self,
        request: Request<'_>,
        flags: u16,
        each: &mut dyn FnMut(&Message<'_>) -> ControlFlow<()>,
    ) -> Result<bool, NetlinkError> {
        let name = request.name;
        self.send(request, flags)?;
        let started = Instant::now();
        let mut consistent = true;
        loop {
            if started.elapsed() > DEADLINE {
                return Err(NetlinkError::TimedOut { request: name });
            }
            let length = self.receive(name)?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            for message in messages(datagram) {
                let message = message.map_err(|()| NetlinkError::Malformed { request: name })?;
                if message.sequence != self.sequence {
                    continue; // the tail of an answer that was given up
                }
                consistent &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_NOOP => {}
                    NLMSG_ERROR if message.payload.len() < 4 => {
                        return Err(NetlinkError::Malformed { request: name });
                    }
                    NLMSG_DONE | NLMSG_ERROR => {
                        return finished(name, message.payload).map(|()| consistent);
                    }
                    _ => {
                        if each(&message).is_break() {
                            return Ok(consistent);
                        }
                    }
                }
            }
        }
    }

    fn send(&mut self, request: Request<'_>, flags: u16) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = HEADER + request.body.len();
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        bytes.extend_from_slice(&request.kind.to_ne_bytes());
        bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        bytes.extend_from_slice(&[0; 4]); // the sender's port: the kernel knows it
        bytes.extend_from_slice(request.body);
        self.socket.send(&bytes, 0)?;
        Ok(())
    }

    fn receive(&mut self, request: &'static str) -> Result<usize, NetlinkError> {
        loop {
            // MSG_TRUNC: the answer is the datagram's length even where it did not fit.
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(NetlinkError::Truncated { request, length });
                }
                Ok(length) => return Ok(length),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(NetlinkError::TimedOut { request }),
                Err(errno) => return Err(NetlinkError::Receive { request, errno }),
            }
        }
    }
}

/// A request in a protocol's own bytes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What it is called in an error.
    pub name: &'static str,
    /// `nlmsg_type`.
    pub kind: u16,
    /// What follows the header.
    pub body: &'a [u8],
}

/// What a dump gave.
#[derive(Debug)]
pub struct Dumped<T> {
    /// The folded messages.
    pub value: T,
    /// How many attempts were interrupted before this one.
    pub interrupted: u32,
}

/// DONE and ERROR both begin with a code: 0 or a negative errno. A dump that failed half-way
/// says so only here.
fn finished(request: &'static str, payload: &[u8]) -> Result<(), NetlinkError> {
    let code = u32_at(payload, 0).map_or(0, u32::cast_signed);
    match code {
        0 => Ok(()),
        code => Err(NetlinkError::Refused { request, errno: Errno::from_raw(code.wrapping_neg()) }),
    }
}
