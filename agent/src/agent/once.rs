//! Looking at the node once, for commands where no agent runs.

use std::time::Instant;

use super::{Roots, config_state};
use crate::config::HostNetns;
use crate::config::load::Loaded;
use crate::kernel::links;
use crate::kernel::neighbor::{self, Family};
use crate::kernel::netlink::DumpSocket;
use crate::kernel::netns::Netns;
use crate::kernel::sysctl_file::SysctlTree;
use crate::kernel::system;
use crate::limits::bridge::{Bridge, Model};
use crate::limits::neighbor::{Sampler, Scan};
use crate::node::NodeState;
use crate::sysctl::engine::Engine;
use crate::sysctl::ledger::Ledger;
use crate::sysctl::place::{Net, Place};

/// An engine for one command. `observe`: it only looks.
pub fn engine(loaded: &Loaded, roots: &Roots, observe: bool) -> Result<Engine, String> {
    let place = Place::look(&roots.proc, loaded.config.host_netns == HostNetns::Current);
    let tree = SysctlTree::open(&roots.sysctl, Some(&roots.proc.join("sys")))
        .map_err(|error| error.to_string())?;
    let boot = system::boot_id(&roots.proc).map_err(|error| format!("boot id: {error}"))?;
    let (ledger, notice) = Ledger::open(&loaded.config.state, &boot);
    let mut engine = Engine::new(place, tree, Netns::Own, observe, ledger);
    if let Some(notice) = notice {
        engine.ledger_trouble(&notice);
    }
    engine.configure(loaded.config.policies.clone());
    Ok(engine)
}

/// The picture of this moment.
#[must_use]
pub fn look(loaded: &Loaded, roots: &Roots) -> NodeState {
    let mut state = NodeState::default();
    (state.kernel, state.node) = system::uname();
    state.config = config_state(loaded);
    let place = Place::look(&roots.proc, loaded.config.host_netns == HostNetns::Current);
    collect(&mut state, "sysctl", |state| {
        let mut engine = engine(loaded, roots, true)?;
        engine.pass(Instant::now()).map_err(|error| error.to_string())?;
        state.keys = Some(engine.status());
        state.ledger_notice = engine.ledger_notice().map(str::to_owned);
        Ok(())
    });
    if !matches!(place.net, Net::Wrong(_)) {
        collect(&mut state, "neighbor", |state| neighbors(state, roots, &place));
        collect(&mut state, "bridges", |state| bridges(state, loaded, roots));
    }
    state.net = Some(place.net);
    state
}

fn collect(
    state: &mut NodeState,
    name: &'static str,
    read: impl FnOnce(&mut NodeState) -> Result<(), String>,
) {
    let started = Instant::now();
    let error = read(state).err();
    state.collected(name, error, started.elapsed());
}

fn neighbors(state: &mut NodeState, roots: &Roots, place: &Place) -> Result<(), String> {
    if place.net == Net::Initial {
        Sampler::new(&roots.proc)
            .sample(&mut state.neighbor, true)
            .map_err(|error| error.to_string())?;
    }
    for (slot, family) in state.neighbor.iter_mut().zip(Family::ALL) {
        let fresh = || DumpSocket::open().map_err(|error| error.to_string());
        slot.table = neighbor::table(&mut fresh()?, family).map_err(|error| error.to_string())?;
        let counts = neighbor::scan(&mut fresh()?, family, place.kernel >= (6, 10))
            .map_err(|error| error.to_string())?;
        let complete = slot.entries().is_some_and(|entries| counts.entries >= entries);
        let at = std::time::SystemTime::now();
        slot.scan = Some(Scan { counts, scanned: 1, skipped: 0, complete, at });
    }
    Ok(())
}

fn bridges(state: &mut NodeState, loaded: &Loaded, roots: &Roots) -> Result<(), String> {
    let mut socket = DumpSocket::open().map_err(|error| error.to_string())?;
    let found = links::bridges(&mut socket).map_err(|error| error.to_string())?;
    let ports = links::bridge_ports(&mut socket).map_err(|error| error.to_string())?;
    let model = Model::new(found, ports);
    let watch = &loaded.config.watch;
    let mut bridges = Vec::new();
    for link in model.bridges().into_iter().filter(|link| watch.covers(&link.name)) {
        let counted = links::port_count(&roots.sys, &link).map_err(|error| error.to_string())?;
        let (ports, read_from) = match counted {
            Some(count) => (count as u64, "brif"),
            None => (model.ports(link.index), "RTM_GETLINK"),
        };
        bridges.push(Bridge { name: link.name, ports, limit: watch.bridge_port_limit, read_from });
    }
    state.bridges = Some(bridges);
    Ok(())
}
