//! Values that stay: how fast a drift is put right, and what looking costs while there is none.

use std::path::Path;
use std::time::Duration;

use crate::playground::Playground;
use crate::room::Room;
use crate::{Outcome, drift, idle, scrape, sweep};

/// Numbers of pods' namespaces on the node.
const PODS: [usize; 2] = [0, 1000];

/// What is to be measured, and for how long.
#[derive(Clone, Copy)]
pub struct Plan {
    pub drifts: Option<usize>,
    pub sweep: Option<sweep::Length>,
    pub idle: Option<Duration>,
}

/// What came of it: a row for each number of pods.
#[derive(Default)]
pub struct Upkeep {
    pub drifts: Vec<drift::Row>,
    pub sweeps: Vec<sweep::Row>,
    pub idle: Vec<idle::Row>,
}

/// Measures everything without pods, then with them. Leaves them to the playground.
pub fn run(playground: &mut Playground, headroom: Option<&Path>, plan: Plan) -> Outcome<Upkeep> {
    let mut upkeep = Upkeep::default();
    if plan.drifts.is_none() && plan.sweep.is_none() && plan.idle.is_none() {
        return Ok(upkeep);
    }
    for pods in PODS {
        // Before the pods, as a node is there before its pods: of files of one name the kernel
        // finds the newest namespace's first.
        let drifting = plan.drifts.map(|_| Room::new("drift", drift::INTERFACES)).transpose()?;
        let swept = plan.sweep.map(|_| Room::new("sweep", sweep::INTERFACES)).transpose()?;
        playground.add_pods(pods)?;
        scrape::settle()?;
        if let (Some(count), Some(room), Some(binary)) = (plan.drifts, &drifting, headroom) {
            upkeep.drifts.extend(drift::run(room, pods, binary, count)?);
        }
        if let (Some(length), Some(room)) = (plan.sweep, &swept) {
            upkeep.sweeps.push(sweep::run(room, pods, headroom, length)?);
        }
        if let (Some(length), Some(binary)) = (plan.idle, headroom) {
            upkeep.idle.push(idle::run(pods, binary, length)?);
        }
    }
    Ok(upkeep)
}
