//! A bridge's limit: its ports, 1023 for ever (`BR_PORT_BITS` 10, port 0 is reserved).

use std::collections::BTreeMap;

use super::{About, Cadence, Cost, Exactness, Limit};
use crate::kernel::links::{BridgeLink, LinkEvent};
use crate::kernel::name::Name;

/// Usable ports of a Linux bridge, fixed when the kernel is compiled.
pub const PORTS: u64 = 1023;

/// A bridge and how full it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Interface name.
    pub name: Name,
    /// Its ports.
    pub ports: u64,
    /// How many it can have.
    pub limit: u64,
    /// Where the count was read.
    pub read_from: &'static str,
}

/// Ports of a bridge.
pub static ABOUT: About = About {
    name: "bridge_ports",
    title: "bridge",
    unit: "ports",
    scope: "each bridge",
    read: "/sys/class/net/<bridge>/brif, or RTM_GETLINK",
    raised_by: None,
    cost: Cost::Fixed(1.0),
    cost_why: "the CNI plugin joins one veth a pod to the bridge; one with far fewer ports than another, or \
               than there are pods, is not the pods'",
    when_hit: "the pod hangs in ContainerCreating: `exchange full` (EXFULL)",
    exactness: &[("all", Exactness::Exact, "BR_PORT_BITS 10, port 0 is reserved")],
    cadence: Cadence::Scrape,
};

/// What a pod costs of a bridge. Pods do not join one that nothing has joined yet, nor one with far
/// fewer ports than another (Docker's beside the CNI plugin's); where all bridges together have far
/// fewer ports than there are pods, the CNI plugin uses none.
#[must_use]
pub fn cost(bridge: &Bridge, all: &[Bridge], pods: Option<u64>) -> Cost {
    let few = |ports: u64, of: u64| ports.saturating_mul(4) < of;
    let sum = all.iter().map(|bridge| bridge.ports).sum();
    let most = all.iter().map(|bridge| bridge.ports).max().unwrap_or(0);
    let none = bridge.ports == 0 || few(bridge.ports, most) || few(sum, pods.unwrap_or(0));
    if none { Cost::NotByPods } else { Cost::Fixed(1.0) }
}

/// The bridges as limits.
#[must_use]
pub fn limits(bridges: &[Bridge], pods: Option<u64>) -> Vec<Limit> {
    bridges
        .iter()
        .map(|bridge| Limit {
            read_from: bridge.read_from,
            cost: cost(bridge, bridges, pods),
            ..Limit::of(&ABOUT, bridge.name.to_string()).with(bridge.ports, bridge.limit)
        })
        .collect()
}

/// Bridges and their ports as netlink tells them: filled by dumps, kept by events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    bridges: BTreeMap<u32, Name>,
    /// What each link belongs to: bridges, but also bonds and VRFs.
    masters: BTreeMap<u32, u32>,
}

/// What an event asks for beside the model's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that counts changed.
    None,
    /// A bridge or its ports changed.
    Changed,
    /// Events were lost: read everything anew.
    Resync,
}

impl Model {
    /// The model of what dumps found.
    #[must_use]
    pub fn new(bridges: Vec<BridgeLink>, ports: Vec<(u32, u32)>) -> Self {
        Self {
            bridges: bridges.into_iter().map(|bridge| (bridge.index, bridge.name)).collect(),
            masters: ports.into_iter().collect(),
        }
    }

    /// Takes an event in. Events are idempotent: one that a dump had seen already changes nothing.
    pub fn apply(&mut self, event: LinkEvent) -> Effect {
        let changed = match event {
            LinkEvent::Overrun => return Effect::Resync,
            LinkEvent::LeftBridge { index } => self.masters.remove(&index).is_some(),
            LinkEvent::Gone { index } => {
                let bridge = self.bridges.remove(&index).is_some();
                if bridge {
                    self.masters.retain(|_, master| *master != index);
                }
                self.masters.remove(&index).is_some() || bridge
            }
            LinkEvent::Changed { index, bridge, master } => {
                let named = bridge
                    .is_some_and(|name| self.bridges.insert(index, name.clone()) != Some(name));
                let before = match master {
                    Some(master) => self.masters.insert(index, master),
                    None => self.masters.remove(&index),
                };
                before != master || named
            }
        };
        if changed { Effect::Changed } else { Effect::None }
    }

    /// The bridges, by name.
    #[must_use]
    pub fn bridges(&self) -> Vec<BridgeLink> {
        let mut bridges: Vec<_> = self
            .bridges
            .iter()
            .map(|(&index, name)| BridgeLink { index, name: name.clone() })
            .collect();
        bridges.sort_by(|a, b| a.name.cmp(&b.name));
        bridges
    }

    /// How many ports a bridge has, by what netlink told.
    #[must_use]
    pub fn ports(&self, bridge: u32) -> u64 {
        self.masters.values().filter(|&&master| master == bridge).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn changed(index: u32, bridge: Option<&str>, master: Option<u32>) -> LinkEvent {
        LinkEvent::Changed {
            index,
            bridge: bridge.map(|name| Name::from_bytes(name.as_bytes())),
            master,
        }
    }

    #[test]
    fn ports_move_bridges_come_are_renamed_and_go() {
        let mut model = Model::default();
        assert_eq!(model.apply(changed(1, Some("br0"), None)), Effect::Changed);
        assert_eq!(model.apply(changed(2, Some("br1"), None)), Effect::Changed);
        assert_eq!(model.apply(changed(3, None, Some(1))), Effect::Changed);
        assert_eq!(model.apply(changed(3, None, Some(1))), Effect::None, "the same again");
        assert_eq!((model.ports(1), model.ports(2)), (1, 0));
        model.apply(changed(3, None, Some(2)));
        assert_eq!((model.ports(1), model.ports(2)), (0, 1));
        model.apply(changed(2, Some("renamed"), None));
        assert_eq!(
            model.bridges().iter().map(|b| b.name.to_string()).collect::<Vec<_>>(),
            ["br0", "renamed"]
        );
        model.apply(LinkEvent::LeftBridge { index: 3 });
        assert_eq!(model.ports(2), 0);
        model.apply(changed(3, None, Some(2)));
        assert_eq!(model.apply(LinkEvent::Gone { index: 2 }), Effect::Changed);
        assert_eq!(model.bridges().len(), 1);
        assert_eq!(model.apply(LinkEvent::Overrun), Effect::Resync);
    }

    #[test]
    fn bridges_that_pods_do_not_join_stop_none() {
        let bridge = |ports| Bridge {
            name: Name::from_bytes(*b"br"),
            ports,
            limit: PORTS,
            read_from: "brif",
        };
        let costs = |ports: &[u64], pods| -> Vec<bool> {
            let bridges: Vec<Bridge> = ports.iter().map(|ports| bridge(*ports)).collect();
            let of = |one| cost(one, &bridges, pods) == Cost::Fixed(1.0);
            bridges.iter().map(of).collect()
        };
        assert_eq!(costs(&[1, 100], Some(100)), [false, true], "Docker's beside the CNI plugin's");
        assert_eq!(costs(&[1], Some(100)), [false], "a CNI plugin that routes");
        assert_eq!(costs(&[20; 5], Some(100)), [true; 5], "pods spread over five");
        assert_eq!(costs(&[0], Some(0)), [false]);
        assert_eq!(costs(&[7], None), [true]);
    }

    fn event() -> impl Strategy<Value = LinkEvent> {
        prop_oneof![
            (1u32..3).prop_map(|index| changed(index, Some("br"), None)),
            (3u32..9, proptest::option::of(1u32..3))
                .prop_map(|(index, master)| changed(index, None, master)),
            (1u32..9).prop_map(|index| LinkEvent::Gone { index }),
            (3u32..9).prop_map(|index| LinkEvent::LeftBridge { index }),
        ]
    }

    proptest! {
        /// Whatever was missed, the same last word about every link gives the same model.
        #[test]
        fn events_are_idempotent(events in proptest::collection::vec(event(), 0..40)) {
            let mut once = Model::default();
            let mut twice = Model::default();
            for event in events {
                once.apply(event.clone());
                twice.apply(event.clone());
                prop_assert_eq!(twice.apply(event), Effect::None);
            }
            prop_assert_eq!(once, twice);
        }
    }
}
