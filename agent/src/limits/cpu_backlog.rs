//! The queues of frames each CPU (`netdev_max_backlog`), against what one broadcast puts into it.
//!
//! A bridge sends a broadcast to every port, and a veth puts each copy into the queue of the CPU that
//! sends (`veth_xmit`, `netif_rx`). `enqueue_to_backlog` takes a frame while the queue's length is at
//! most `netdev_max_backlog`, and nothing leaves the queue before the sender is done. So a bridge of
//! one port more than the maximum still loses nothing, and with each port above that the oldest one
//! gets no broadcast any more.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;
use crate::node::NodeState;

/// Ports of a bridge against the queue.
pub static ABOUT: About = About {
    name: "cpu_backlog",
    title: "one broadcast on bridge",
    unit: "copies",
    scope: "each bridge, against the queue of the CPU that sends",
    read: "the bridge's ports",
    raised_by: Some("net.core.netdev_max_backlog"),
    cost: Cost::Fixed(1.0),
    cost_why: "a broadcast is copied for each port, and a pod is one; it fits while the ports are at most \
               netdev_max_backlog + 1",
    when_hit: "the pods that were created first miss every broadcast: ARP finds them no more, and \
               connections to them time out",
    exactness: &[(
        "all",
        Exactness::Exact,
        "for one broadcast alone; what else waits in the same queue, such as a second broadcast, fills it \
         earlier (RPS and threaded NAPI spread the copies over CPUs)",
    )],
    cadence: Cadence::Scrape,
};

/// What the queues lost.
pub static QUEUE: About = About {
    name: "softnet_backlog",
    title: "queues of frames",
    unit: "frames",
    scope: "each CPU; hits are of all CPUs",
    read: "/proc/net/softnet_stat",
    raised_by: Some("net.core.netdev_max_backlog"),
    cost: Cost::NotByPods,
    cost_why: "frames wait for microseconds: only what was lost can be seen, not how full it is",
    when_hit: "frames are dropped without a word (`rx_dropped` of the receiving interface)",
    exactness: &[("all", Exactness::Exact, "hits: `dropped`, the second column, over all CPUs")],
    cadence: Cadence::Scrape,
};

/// Reads what the queues may hold and lost.
#[derive(Debug)]
pub struct Softnet {
    stat: Kept,
    max: Kept,
}

impl Softnet {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self {
            stat: Kept::new(roots.proc.join("net/softnet_stat")),
            max: Kept::new(roots.proc.join("sys/net/core/netdev_max_backlog")),
        }
    }

    fn limit(&mut self) -> Result<Limit, FileError> {
        let dropped = self.stat.parsed(counters::softnet_dropped)?;
        let max = Some(self.max.number()?);
        Ok(Limit { max, hits: Some(dropped), ..Limit::of(&QUEUE, "") })
    }
}

impl Reader for Softnet {
    fn name(&self) -> &'static str {
        READER
    }

    fn read(&mut self) -> Vec<Limit> {
        match self.limit() {
            Ok(limit) => vec![limit],
            Err(error) => Limit::read(&QUEUE, "", Err(error)).into_iter().collect(),
        }
    }
}

const READER: &str = "softnet";

/// The copies of one broadcast that a queue takes.
#[must_use]
pub fn copies(max_backlog: u64) -> u64 {
    max_backlog.saturating_add(1)
}

/// Every bridge against the queue, where that could be read.
#[must_use]
pub fn limits(node: &NodeState) -> Vec<Limit> {
    let mut read = node.limits.get(READER).into_iter().flatten();
    let Some(max) = read.find(|limit| *limit.about == QUEUE).and_then(|limit| limit.max) else {
        return Vec::new();
    };
    let bridges = node.bridges.as_deref().unwrap_or_default();
    bridges
        .iter()
        .map(|bridge| Limit {
            read_from: bridge.read_from,
            cost: super::bridge::cost(bridge, bridges, node.pod_count),
            ..Limit::of(&ABOUT, bridge.name.to_string()).with(bridge.ports, copies(max))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::name::Name;
    use crate::limits::bridge::Bridge;

    fn node(backlog: Option<u64>, ports: u64) -> NodeState {
        let mut node = NodeState::default();
        let name = Name::from_bytes(*b"cni0");
        node.bridges = Some(vec![Bridge { name, ports, limit: 1023, read_from: "brif" }]);
        let queue = Limit { max: backlog, ..Limit::of(&QUEUE, "") };
        node.limits.insert(READER, vec![queue]);
        node
    }

    #[test]
    fn one_port_more_than_the_backlog_fits_and_an_unknown_backlog_says_nothing() {
        let shown = limits(&node(Some(1000), 1020));
        let numbers: Vec<_> =
            shown.iter().map(|limit| (limit.used, limit.max, limit.cost)).collect();
        assert_eq!(numbers, [(Some(1020), Some(1001), Cost::Fixed(1.0))]);
        assert_eq!(
            limits(&node(Some(1000), 0)).pop().map(|limit| limit.cost),
            Some(Cost::NotByPods)
        );
        assert!(limits(&node(None, 1020)).is_empty());
    }
}
