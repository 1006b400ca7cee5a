//! TCP's memory and orphaned sockets, of the whole node, and its listeners that were too slow.
//!
//! Not at every scrape: `/proc/net/netstat` alone takes as long as all that is read there.

use std::time::Duration;

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// TCP's memory.
pub static MEMORY: About = About {
    name: "tcp_memory",
    title: "memory of TCP",
    unit: "pages",
    scope: "the node",
    read: "/proc/net/sockstat",
    raised_by: Some("net.ipv4.tcp_mem"),
    cost: Cost::Learned { prior: 0.0, floor: 0.0 },
    cost_why: "what the connections here hold in buffers; it follows traffic more than pods",
    when_hit: "buffers no longer grow, data is dropped and sent again: `TCP: out of memory -- consider tuning \
               tcp_mem` for orphaned sockets",
    exactness: &[(
        "all",
        Exactness::Exact,
        "pages, which `__sk_mem_raise_allocated` compares with the third value; since 6.0 each CPU may \
         hold 1 MiB more",
    )],
    cadence: Cadence::Slow,
};

/// Sockets that no process has any more.
pub static ORPHANS: About = About {
    name: "tcp_orphans",
    title: "orphaned TCP sockets",
    unit: "sockets",
    scope: "the node",
    read: "/proc/net/sockstat",
    raised_by: Some("net.ipv4.tcp_max_orphans"),
    cost: Cost::NotByPods,
    cost_why: "they come from connections whose peers went away, and live for seconds to minutes",
    when_hit: "`TCP: too many orphaned sockets`: they are reset, and what they still had to send is lost",
    exactness: &[
        (
            "all",
            Exactness::Exact,
            "`tcp_orphan_count`, which `tcp_too_many_orphans` compares, counted twofold or fourfold for \
             sockets that make no progress",
        ),
        (
            "all",
            Exactness::LowerBound,
            "hits: `TCPAbortOnMemory` of the host's namespace: orphans that were reset, for their number \
             or because tcp_mem was reached",
        ),
    ],
    cadence: Cadence::Slow,
};

/// Connections that a listener did not accept in time.
pub static LISTEN_QUEUE: About = About {
    name: "listen_queue",
    title: "accept queues",
    unit: "connections",
    scope: "each listening socket; hits are of all in the host's network namespace",
    read: "/proc/net/netstat",
    raised_by: Some("net.core.somaxconn"),
    cost: Cost::NotByPods,
    cost_why: "each socket has a queue of its own, as long as the program and somaxconn say",
    when_hit: "connections wait and are tried again, or time out: the program is slow, or its backlog short",
    exactness: &[(
        "all",
        Exactness::LowerBound,
        "hits: `ListenOverflows`; pods' own listeners count in their namespaces",
    )],
    cadence: Cadence::Slow,
};

/// Reads all three.
#[derive(Debug)]
pub struct Tcp {
    sockets: Kept,
    counted: Kept,
    memory_max: Kept,
    orphans_max: Kept,
}

impl Tcp {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let file = |name| Kept::new(roots.proc.join(name));
        Self {
            sockets: file("net/sockstat"),
            counted: file("net/netstat"),
            memory_max: file("sys/net/ipv4/tcp_mem"),
            orphans_max: file("sys/net/ipv4/tcp_max_orphans"),
        }
    }

    fn hits(&mut self) -> Result<[Option<u64>; 2], FileError> {
        let names = ["TCPAbortOnMemory", "ListenOverflows"];
        self.counted.parsed(|text| counters::netstat(text, "TcpExt", names))
    }
}

impl Reader for Tcp {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn read(&mut self) -> Vec<Limit> {
        let sockets = self.sockets.parsed(counters::tcp_sockets);
        let memory = sockets.clone().and_then(|now| Ok([now.mem, self.memory_max.field(2)?]));
        let orphans = sockets.and_then(|now| Ok([now.orphan, self.orphans_max.number()?]));
        let hits = self.hits();
        let [aborted, overflows] = hits.clone().unwrap_or_default();
        let orphans = Limit::read(&ORPHANS, "", orphans);
        let listeners = match hits {
            Ok(_) => Some(Limit { hits: overflows, ..Limit::of(&LISTEN_QUEUE, "host") }),
            Err(error) => Limit::read(&LISTEN_QUEUE, "host", Err(error)),
        };
        Limit::read(&MEMORY, "", memory)
            .into_iter()
            .chain(orphans.map(|orphans| Limit { hits: aborted, ..orphans }))
            .chain(listeners)
            .collect()
    }

    fn every(&self) -> Duration {
        Duration::from_secs(10)
    }
}
