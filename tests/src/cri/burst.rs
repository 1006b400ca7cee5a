//! Many connections at once, and what the kernel counts of those it has no room for.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};

use super::Pod;
use crate::agent_process::PATIENCE;

/// Connections that were begun within a pod, over its loopback, and are kept open.
#[derive(Debug)]
pub struct Burst(Vec<OwnedFd>);

impl Burst {
    /// Begins so many to this port, waiting for none.
    ///
    /// # Panics
    /// Where the process may not have as many open files.
    #[must_use]
    pub fn new(pod: &Pod<'_>, port: u16, count: usize) -> Self {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let needed = u64::try_from(count).unwrap() + 200;
        assert!(needed <= hard, "{count} connections, but ulimit -n -H is {hard}");
        if needed > soft {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        }
        let to = SockaddrIn::from(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        let begin = || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            let connection = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
            match connect(connection.as_raw_fd(), &to) {
                Ok(()) | Err(Errno::EINPROGRESS) => connection,
                Err(error) => panic!("port {port}: {error}"),
            }
        };
        Self(pod.enter(|| (0..count).map(|_| begin()).collect()))
    }

    /// How many are established, as the client sees it.
    #[must_use]
    pub fn established(&self) -> usize {
        let connections = self.0.iter().map(|connection| connection.as_fd());
        let mut asked: Vec<PollFd<'_>> =
            connections.map(|connection| PollFd::new(connection, PollFlags::POLLOUT)).collect();
        poll(&mut asked, PollTimeout::ZERO).unwrap();
        let writable = |one: &&PollFd<'_>| one.revents() == Some(PollFlags::POLLOUT);
        asked.iter().filter(writable).count()
    }

    /// Waits until all are established, or the kernel has dropped one and counted that; how many
    /// it has dropped.
    ///
    /// # Panics
    /// Where neither comes.
    #[must_use]
    pub fn overflows(&self, pod: &Pod<'_>) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let established = self.established();
            // After the connections: what was dropped of those was counted before.
            let overflows = pod.tcp_ext("ListenOverflows");
            if established == self.0.len() || overflows > 0 {
                return overflows;
            }
            assert!(Instant::now() < deadline, "{established} of {}", self.0.len());
            sleep(Duration::from_millis(20));
        }
    }
}

impl Pod<'_> {
    /// A counter of its network namespace, from `TcpExt` in `/proc/net/netstat`, such as
    /// `ListenOverflows`.
    #[must_use]
    pub fn tcp_ext(&self, counter: &str) -> u64 {
        // /proc/net is that of the process's first thread.
        let text = self.enter(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
        let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        let (_, value) = pairs.find(|(name, _)| *name == counter).unwrap();
        value.parse().unwrap()
    }
}
