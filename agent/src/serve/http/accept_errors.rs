//! What a failed accept means, and how long to wait after it.

use std::io;
use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;

use crate::kernel::errno::{name_of, of_io};

/// What to do after a failed accept.
#[derive(Debug, Default)]
pub(super) struct AcceptErrors {
    /// The last pause.
    pause: Duration,
    /// Connections that failed before they were accepted, in a row.
    aborted: u32,
    /// Failures of this episode; zero outside of one.
    failed: u64,
    last: Option<Instant>,
}

impl AcceptErrors {
    const MIN_PAUSE: Duration = Duration::from_millis(100);
    pub(super) const MAX_PAUSE: Duration = Duration::from_secs(5);
    /// More aborted connections in a row than a full backlog are no accident.
    pub(super) const MAX_ABORTED: u32 = 1024;

    /// The instant before which accept is not to be called again; `None` means at once.
    pub(super) fn failed(&mut self, at: &str, error: &io::Error, now: Instant) -> Option<Instant> {
        let errno = of_io(error);
        if is_about_the_connection(errno) && self.aborted < Self::MAX_ABORTED {
            self.aborted += 1;
            return None;
        }
        // Out of descriptors or memory, or something unheard of. The loop must neither spin nor
        // end: when it is over, the agent serves again.
        if self.failed == 0 {
            let errno = name_of(errno);
            tracing::warn!(listener = %at, errno, "cannot accept connections, retrying");
        }
        self.failed = self.failed.saturating_add(1);
        self.pause = (self.pause * 2).clamp(Self::MIN_PAUSE, Self::MAX_PAUSE);
        self.last = Some(now);
        Some(now + self.pause)
    }

    /// Notes a success; the number of failures if an episode has ended with it.
    ///
    /// It takes a calm of [`Self::MAX_PAUSE`]: at the limit of descriptors every closed connection
    /// lets one more in, and would otherwise give two log lines each.
    pub(super) fn accepted(&mut self, now: Instant) -> Option<u64> {
        self.pause = Duration::ZERO;
        self.aborted = 0;
        let calm = self.last.is_some_and(|last| now.duration_since(last) >= Self::MAX_PAUSE);
        if !calm {
            return None;
        }
        self.last = None;
        Some(std::mem::take(&mut self.failed))
    }
}

/// Errors of the connection that would have been next, not of the listener. accept(2): Linux
/// passes pending network errors of the new socket on.
fn is_about_the_connection(errno: Errno) -> bool {
    use Errno::{
        ECONNABORTED, ECONNREFUSED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, ENETDOWN,
        ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPERM, EPROTO, ETIMEDOUT,
    };
    matches!(
        errno,
        ECONNABORTED
            | ECONNREFUSED
            | ECONNRESET
            | EHOSTDOWN
            | EHOSTUNREACH
            | EINTR
            | ENETDOWN
            | ENETUNREACH
            | ENONET
            | ENOPROTOOPT
            | EOPNOTSUPP
            | EPERM
            | EPROTO
            | ETIMEDOUT
    )
}
