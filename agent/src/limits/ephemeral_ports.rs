//! Local ports that the kernel gives to connections of the host's network namespace.

use nix::errno::Errno;

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// Local ports.
pub static ABOUT: About = About {
    name: "ephemeral_ports",
    title: "local ports",
    unit: "TCP sockets",
    scope: "each network namespace, and there each destination; shown of the host's, all destinations together",
    read: "/proc/net/sockstat and sockstat6",
    raised_by: Some("net.ipv4.ip_local_port_range"),
    cost: Cost::NotByPods,
    cost_why: "pods with a network namespace of their own have a range of their own; what uses this one is \
               the node and pods with hostNetwork",
    when_hit: "connect fails with EADDRNOTAVAIL: `Cannot assign requested address`",
    exactness: &[(
        "all",
        Exactness::UpperBound,
        "all TCP sockets in use and in TIME_WAIT, listening ones and those of every destination: a port \
         is taken for one destination only; UDP, which has its own ports, is not in it",
    )],
    cadence: Cadence::Scrape,
};

/// Reads it.
#[derive(Debug)]
pub struct EphemeralPorts {
    sockets: Kept,
    sockets6: Kept,
    range: Kept,
    reserved: Kept,
}

impl EphemeralPorts {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let file = |name| Kept::new(roots.proc.join(name));
        Self {
            sockets: file("net/sockstat"),
            sockets6: file("net/sockstat6"),
            range: file("sys/net/ipv4/ip_local_port_range"),
            reserved: file("sys/net/ipv4/ip_local_reserved_ports"),
        }
    }

    fn numbers(&mut self) -> Result<[u64; 2], FileError> {
        let sockets = self.sockets.parsed(counters::tcp_sockets)?;
        let inuse6 = match self.sockets6.parsed(counters::tcp6_inuse) {
            // A kernel without IPv6.
            Err(error) if error.errno == Errno::ENOENT => 0,
            other => other?,
        };
        let [low, high] = self.range.fields([0, 1])?;
        let reserved = self.reserved.parsed(|list| counters::ports_between(list, low, high))?;
        let width = high.saturating_add(1).saturating_sub(low);
        let used = sockets.inuse.saturating_add(inuse6).saturating_add(sockets.tw);
        Ok([used, width.saturating_sub(reserved)])
    }
}

impl Reader for EphemeralPorts {
    fn name(&self) -> &'static str {
        "ephemeral_ports"
    }

    fn read(&mut self) -> Vec<Limit> {
        Limit::read(&ABOUT, "host", self.numbers()).into_iter().collect()
    }
}
