//! One HTTP GET over a unix socket, for the command line (`headroom health`, `headroom status`).
//!
//! Blocking and small on purpose: the probe runs on a node that may be out of everything, and
//! needs no runtime for one request. It trusts nothing that it reads.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::kernel::errno::{name_of, of_io};
use crate::kernel::name::escape;

/// The longest body that is read.
pub const MAX_BODY: usize = 16 << 20;

/// The longest line of a head or of a chunk's heading.
const MAX_LINE: usize = 8 << 10;

/// The most header or trailer lines.
const MAX_HEADERS: usize = 100;

/// What the agent answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 999.
    pub status: u16,
    /// The body, with any chunking removed.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket at the path.
    #[error("no agent answers on {}: is it running? (no such socket)", shown(.0))]
    NoSocket(PathBuf),
    /// The socket is there, but nobody listens on it.
    #[error("no agent answers on {}: is it running? (the socket is a left-over)", shown(.0))]
    Refused(PathBuf),
    /// Only root may connect.
    #[error("may not connect to {}: only root may", shown(.0))]
    Denied(PathBuf),
    /// The whole exchange took longer than it may.
    #[error("the agent on {} did not answer within {timeout:?}", shown(path))]
    Timeout {
        /// The socket.
        path: PathBuf,
        /// The time it had.
        timeout: Duration,
    },
    /// The connection ended before the answer did.
    #[error("the agent closed the connection before its answer was complete")]
    Closed,
    /// The body is longer than [`MAX_BODY`].
    #[error("the answer is longer than {MAX_BODY} bytes")]
    TooLarge,
    /// What came is no answer that this client understands.
    #[error("the answer makes no sense: {0}")]
    Malformed(&'static str),
    /// The request path cannot be sent.
    #[error("{0:?} is no request path")]
    BadPath(String),
    /// Anything else that the kernel refused.
    #[error("cannot {step} {}: {} ({})", shown(path), name_of(*errno), errno.desc())]
    Io {
        /// What was tried.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

/// Sends `GET path` to the unix socket and reads the answer, all of it within `timeout`.
pub fn get(socket: &Path, path: &str, timeout: Duration) -> Result<Response, ClientError> {
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(ClientError::BadPath(path.to_owned()));
    }
    let mut wire = Wire::open(socket, timeout)?;
    wire.send(
        format!("GET {path} HTTP/1.1\r\nHost: headroom\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    wire.response()
}

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A connection with a deadline for all of it.
struct Wire<'a> {
    path: &'a Path,
    stream: UnixStream,
    timeout: Duration,
    /// `None`: so far away that the clock cannot say it.
    deadline: Option<Instant>,
    buffer: Vec<u8>,
    /// What of the buffer has been used.
    used: usize,
}

impl<'a> Wire<'a> {
    fn open(path: &'a Path, timeout: Duration) -> Result<Self, ClientError> {
        let failed = |step| move |errno| ClientError::Io { step, path: path.to_owned(), errno };
        let addr = UnixAddr::new(path).map_err(failed("connect to"))?;
        let fd: OwnedFd =
            socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
                .map_err(failed("open a socket for"))?;
        let wire = Self {
            path,
            stream: fd.into(),
            timeout,
            deadline: Instant::now().checked_add(timeout),
            buffer: Vec::new(),
            used: 0,
        };
        // connect() waits while the backlog is full, for as long as the send timeout says.
        wire.stream
            .set_write_timeout(wire.left()?)
            .map_err(|error| wire.error("prepare", &error))?;
        match connect(wire.stream.as_raw_fd(), &addr) {
            Ok(()) => Ok(wire),
            Err(Errno::ENOENT) => Err(ClientError::NoSocket(path.to_owned())),
            Err(Errno::ECONNREFUSED) => Err(ClientError::Refused(path.to_owned())),
            Err(Errno::EACCES | Errno::EPERM) => Err(ClientError::Denied(path.to_owned())),
            Err(errno) => Err(wire.error("connect to", &errno.into())),
        }
    }

    /// The time left, never zero (which the socket options would take for "forever").
    fn left(&self) -> Result<Option<Duration>, ClientError> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        match deadline.checked_duration_since(Instant::now()) {
            Some(left) if !left.is_zero() => Ok(Some(left)),
            _ => Err(self.timed_out()),
        }
    }

    fn timed_out(&self) -> ClientError {
        ClientError::Timeout { path: self.path.to_owned(), timeout: self.timeout }
    }

    fn error(&self, step: &'static str, error: &io::Error) -> ClientError {
        match of_io(error) {
            Errno::EAGAIN | Errno::ETIMEDOUT => self.timed_out(),
            Errno::ECONNRESET | Errno::EPIPE => ClientError::Closed,
            errno => ClientError::Io { step, path: self.path.to_owned(), errno },
        }
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let left = self.left()?;
            let sent = self.stream.set_write_timeout(left).and_then(|()| self.stream.write(bytes));
            match sent {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error("write to", &error)),
            }
        }
        Ok(())
    }

    /// The bytes at hand, after waiting for more if there are none; empty at the end.
    fn fill(&mut self) -> Result<&[u8], ClientError> {
        if self.used >= self.buffer.len() {
            self.used = 0;
            self.buffer.resize(16 << 10, 0);
            let count = loop {
                let left = self.left()?;
                let got = self
                    .stream
                    .set_read_timeout(left)
                    .and_then(|()| self.stream.read(&mut self.buffer));
                match got {
                    Ok(count) => break count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(self.error("read from", &error)),
                }
            };
            self.buffer.truncate(count);
        }
        Ok(self.buffer.get(self.used..).unwrap_or_default())
    }

    /// A line without its end.
    fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        loop {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return Err(ClientError::Closed);
            }
            let end = bytes.iter().position(|&byte| byte == b'\n');
            let piece = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
            if line.len() + piece.len() > MAX_LINE {
                return Err(ClientError::Malformed("a line without end"));
            }
            line.extend_from_slice(piece);
            self.used += piece.len() + usize::from(end.is_some());
            if end.is_some() {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
        }
    }

    /// Appends `count` bytes, or all there are.
    fn take(&mut self, count: Option<usize>, body: &mut Vec<u8>) -> Result<(), ClientError> {
        let mut left = count.unwrap_or(usize::MAX);
        while left > 0 {
            let bytes = self.fill()?;
            if bytes.is_empty() {
                return if count.is_none() { Ok(()) } else { Err(ClientError::Closed) };
            }
            let piece = bytes.get(..left.min(bytes.len())).unwrap_or_default();
            if body.len() + piece.len() > MAX_BODY {
                return Err(ClientError::TooLarge);
            }
            body.extend_from_slice(piece);
            let count = piece.len();
            self.used += count;
            left -= count;
        }
        Ok(())
    }

    fn response(&mut self) -> Result<Response, ClientError> {
        let status = parse_status(&self.line()?)?;
        let framing = self.headers()?;
        let mut body = Vec::new();
        match framing {
            _ if matches!(status, 204 | 304) => {}
            // Refused before it is read.
            Framing::Length(length) if length > MAX_BODY => return Err(ClientError::TooLarge),
            Framing::Length(length) => self.take(Some(length), &mut body)?,
            Framing::UntilClose => self.take(None, &mut body)?,
            Framing::Chunked => self.chunks(&mut body)?,
        }
        Ok(Response { status, body })
    }

    fn headers(&mut self) -> Result<Framing, ClientError> {
        let mut framing = Framing::UntilClose;
        for _ in 0..MAX_HEADERS {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(framing);
            }
            let mut parts = line.splitn(2, |&byte| byte == b':');
            let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
                return Err(ClientError::Malformed("a header without colon"));
            };
            let value = value.trim_ascii();
            let found = if name.eq_ignore_ascii_case(b"content-length") {
                Framing::Length(
                    number(value, 10).ok_or(ClientError::Malformed("its content-length"))?,
                )
            } else if !name.eq_ignore_ascii_case(b"transfer-encoding") {
                continue;
            } else if value.eq_ignore_ascii_case(b"chunked") {
                Framing::Chunked
            } else {
                return Err(ClientError::Malformed("its transfer-encoding"));
            };
            if framing != Framing::UntilClose && framing != found {
                return Err(ClientError::Malformed("two lengths"));
            }
            framing = found;
        }
        Err(ClientError::Malformed("too many headers"))
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<(), ClientError> {
        loop {
            let line = self.line()?;
            let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
            let size =
                number(size.trim_ascii(), 16).ok_or(ClientError::Malformed("a chunk's size"))?;
            if size == 0 {
                break;
            }
            self.take(Some(size), body)?;
            if !self.line()?.is_empty() {
                return Err(ClientError::Malformed("a chunk longer than its size"));
            }
        }
        for _ in 0..MAX_HEADERS {
            if self.line()?.is_empty() {
                return Ok(());
            }
        }
        Err(ClientError::Malformed("too many trailers"))
    }
}

/// `HTTP/1.1 200 OK`, of which the last word may be missing.
fn parse_status(line: &[u8]) -> Result<u16, ClientError> {
    let rest = line.strip_prefix(b"HTTP/1.").ok_or(ClientError::Malformed("not HTTP/1"))?;
    let code = match rest {
        [b'0' | b'1', b' ', code @ ..] => {
            code.get(..3).filter(|_| matches!(code.get(3), None | Some(b' ')))
        }
        _ => None,
    };
    match code.and_then(|code| number(code, 10)).and_then(|code| u16::try_from(code).ok()) {
        // The interim answers are for requests that ask for them, which ours does not.
        Some(code @ 200..) => Ok(code),
        _ => Err(ClientError::Malformed("its status")),
    }
}

/// Digits only: no sign, no space, no overflow.
fn number(text: &[u8], radix: u32) -> Option<usize> {
    if !text.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
