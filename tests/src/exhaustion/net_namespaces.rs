//! Network namespaces: `user.max_net_namespaces` of a user namespace of the run's own. It is a value
//! of each user namespace, and nobody else lives in this one.
//!
//! What is made in it counts for the user who made it, in the initial namespace too. There Headroom
//! counts it; only the maximum is the inner one's, which an agent on the host cannot see.

use std::fs;
use std::io::BufRead as _;

use headroom::limits::Limit;
use headroom::limits::net_namespaces::{ABOUT, NetNamespaces};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;

use super::eyes::{Eyes, roots};
use super::fill::{Filled, fill_with, nobody};
use super::pod::{Pod, as_user, say};
use super::{Bench, Row};

const MAX: u64 = 81;

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let uid = nobody(4);
    let mut node =
        Pod::start(&bench.program, "user-namespace", &[uid.to_string(), MAX.to_string()])
            .map_err(|errno| format!("a user namespace of a user's own: {errno:?}"))?;
    let mut eyes = Eyes::of(NetNamespaces::new(&roots()));
    let user = format!("uid {uid}");
    let look = || {
        let limit = eyes.see("net_namespaces", &user)?;
        Some(Limit { max: Some(MAX), cost: ABOUT.cost, ..limit })
    };
    let Filled { foretold, fact } = fill_with("netns", || node.ask("one more"), look);
    Ok(Row {
        limit: "network namespaces of a user namespace",
        pod: "a process with one".to_owned(),
        set_to: MAX.to_string(),
        predictions: foretold.quarters(fact.pods),
        fact,
        allowed: 0,
        note: None,
    })
}

/// A node that is a user namespace: makes a pod for every line it is told.
pub fn node(uid: u32, max: u64) {
    as_user(uid);
    // Else /proc/self is still root's.
    prctl::set_dumpable(true).unwrap();
    if let Err(errno) = unshare(CloneFlags::CLONE_NEWUSER) {
        return say(Err(errno));
    }
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).unwrap();
    fs::write("/proc/sys/user/max_net_namespaces", max.to_string()).unwrap();
    say(Ok(()));
    let program = std::env::current_exe().unwrap();
    let mut pods = Vec::new();
    for _ in std::io::stdin().lock().lines() {
        let pod = Pod::start(&program, "netns", &["1".to_owned()]);
        say(pod.map(|pod| pods.push(pod)));
    }
}
