//! Network namespaces: `user.max_net_namespaces` of a user namespace of the run's own. It is a value
//! of each user namespace, and nobody else lives in this one.

use std::fs;

use nix::sched::{CloneFlags, unshare};

use super::eyes::Eyes;
use super::fill::fill;
use super::foretold::Spoken;
use super::pod::Pod;
use super::{Bench, Fact, Foretold, Row};

/// Namespaces of a pod: its own, and that of a sandbox in it.
const EACH: u32 = 2;
const MAX: u32 = 81;

/// What the node tells of itself: every prediction, how many pods fitted, and the refusal.
type Told = (Vec<Spoken>, u64, String);

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let args = [MAX.to_string(), EACH.to_string()];
    let line = Pod::launch(&bench.program, "user-namespace", &args).line();
    let (all, pods, refusal): Told = serde_json::from_str(&line).map_err(|_| line)?;
    let foretold = Foretold::of(all);
    Ok(Row {
        limit: "network namespaces of a user namespace",
        pod: format!("a process with {EACH} of them"),
        set_to: MAX.to_string(),
        predictions: foretold.quarters(pods),
        fact: Fact { pods, refusal },
        note: None,
    })
}

/// A node that is a user namespace: fills it, and tells what it foretold and saw.
pub fn node(max: u32, each: u32) {
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", "0 0 1").unwrap();
    fs::write("/proc/self/gid_map", "0 0 1").unwrap();
    fs::write("/proc/sys/user/max_net_namespaces", max.to_string()).unwrap();
    let program = std::env::current_exe().unwrap();
    let mut eyes = Eyes::new();
    let filled =
        fill(&program, "netns", &[each.to_string()], || eyes.see("net_namespaces", |_| true));
    let told: Told = (filled.foretold.spoken(), filled.fact.pods, filled.fact.refusal);
    super::pod::say(&serde_json::to_string(&told).unwrap());
}
