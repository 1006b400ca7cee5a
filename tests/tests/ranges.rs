//! Pods' addresses against the real plugin `host-local`: what is foretold is what it then gives.
//!
//! The plugin only makes files in a directory of the test's own, so most of this needs neither root nor
//! the machine for itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use headroom::limits::pod_addresses::PodAddresses;
use headroom::limits::{Limit, Reader as _};
use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{Namespace, host_local, root_or_skip};
use serde_json::{Value, json};

/// The node's files, and a network on it.
struct Node {
    root: tempfile::TempDir,
    ipam: Value,
}

impl Node {
    fn new(ipam: &Value) -> Self {
        let root = tempfile::tempdir().unwrap();
        let node = Self { root, ipam: ipam.clone() };
        let [conf, leases] = ["etc/cni/net.d", "leases"].map(|path| node.root.path().join(path));
        fs::create_dir_all(&conf).unwrap();
        fs::create_dir_all(leases).unwrap();
        let plugins = json!([node.bridge(Path::new("/leases"))]);
        let list = json!({ "cniVersion": "1.0.0", "name": "net", "plugins": plugins });
        fs::write(conf.join("10-net.conflist"), list.to_string()).unwrap();
        node
    }

    fn bridge(&self, leases: &Path) -> Value {
        let mut ipam = self.ipam.clone();
        ipam["type"] = json!("host-local");
        ipam["dataDir"] = json!(leases);
        json!({ "cniVersion": "1.0.0", "name": "net", "type": "bridge", "ipam": ipam })
    }

    /// Whether the plugin did it, and what it complained about.
    fn run(&self, verb: &str, id: u64) -> Result<(), String> {
        let config = self.bridge(&self.root.path().join("leases"));
        let finished = host_local(verb, &config, &format!("pod-{id}"));
        if finished.code == Some(0) { Ok(()) } else { Err(finished.stdout) }
    }

    fn read(&self) -> Vec<Limit> {
        PodAddresses::new(self.root.path()).read()
    }

    /// How many pods still fit; `None` where that is said to be unknown.
    fn remaining(&self) -> Option<u64> {
        let limits = self.read();
        let left = |limit: &Limit| Some(limit.max?.checked_sub(limit.used?).unwrap());
        limits.iter().map(left).min().unwrap()
    }

    /// Adds pods until the plugin refuses one. What was foretold before each, and how many fitted.
    fn fill(&self, first: u64) -> (Vec<u64>, u64) {
        let mut foretold = Vec::new();
        for id in first.. {
            foretold.push(self.remaining().unwrap());
            if let Err(why) = self.run("ADD", id) {
                assert!(why.contains("no IP addresses available in range set"), "{why}");
                return (foretold, id - first);
            }
        }
        unreachable!()
    }

    /// At every step exactly what is then really possible.
    fn assert_foretold(&self, first: u64) -> u64 {
        let (foretold, fitted) = self.fill(first);
        let really: Vec<u64> = (0..=fitted).rev().collect();
        assert_eq!(foretold, really, "{}", self.ipam);
        fitted
    }
}

#[test]
fn what_is_foretold_is_what_the_plugin_gives() {
    let four = "10.98.0.0/28";
    for (ipam, pods) in [
        (json!({ "ranges": [[{ "subnet": four }]] }), 13),
        (
            json!({ "ranges": [[{ "subnet": four, "rangeStart": "10.98.0.4", "rangeEnd": "10.98.0.9" }]] }),
            6,
        ),
        // The first address of all, broadcast, and a gateway in between.
        (
            json!({ "ranges": [[{
                "subnet": four, "rangeStart": "10.98.0.0", "rangeEnd": "10.98.0.15", "gateway": "10.98.0.7",
            }]] }),
            15,
        ),
        // Two ranges in a set; the gateway of one is among the other's addresses, and given.
        (json!({ "ranges": [[{ "subnet": "10.98.0.0/29" }, { "subnet": "10.98.1.0/30" }]] }), 6),
        (
            json!({ "ranges": [[{ "subnet": "10.98.0.0/29" }, { "subnet": "10.98.1.0/29", "gateway": "10.98.0.3" }]] }),
            11,
        ),
        // Dual stack: the smaller family decides, whichever it is. IPv6 has no broadcast.
        (json!({ "ranges": [[{ "subnet": "10.98.0.0/29" }], [{ "subnet": "fd98::/125" }]] }), 5),
        (json!({ "ranges": [[{ "subnet": four }], [{ "subnet": "fd98::/125" }]] }), 6),
        (
            json!({ "ranges": [[{ "subnet": "fd98::/64", "rangeStart": "fd98::10", "rangeEnd": "fd98::14" }]] }),
            5,
        ),
        // Two addresses of one family.
        (json!({ "ranges": [[{ "subnet": "10.98.0.0/29" }], [{ "subnet": "10.98.1.0/30" }]] }), 1),
        // The old form, alone and before others.
        (json!({ "subnet": four, "gateway": "10.98.0.14" }), 13),
        (
            json!({ "subnet": "10.98.0.0/29", "rangeEnd": "10.98.0.3", "ranges": [[{ "subnet": "10.98.1.0/28" }]] }),
            2,
        ),
        // Nothing but the gateway.
        (json!({ "subnet": four, "rangeStart": "10.98.0.1", "rangeEnd": "10.98.0.1" }), 0),
    ] {
        assert_eq!(Node::new(&ipam).assert_foretold(0), pods, "{ipam}");
    }
}

/// Every start and end of a small subnet, with a gateway that is now here, now there: given, or
/// refused, as it is said.
#[test]
fn every_range_of_a_subnet() {
    let (mut given, mut refused) = (0, 0);
    for (start, end) in (0..8).flat_map(|start| (0..8).map(move |end| (start, end))) {
        let address = |last: u32| format!("10.98.0.{last}");
        let ipam = json!({
            "subnet": "10.98.0.0/29", "rangeStart": address(start), "rangeEnd": address(end),
            "gateway": address((start * 3 + end) % 8),
        });
        let node = Node::new(&ipam);
        match node.remaining() {
            Some(_) => {
                node.assert_foretold(0);
                given += 1;
            }
            None => {
                assert!(node.run("ADD", 0).is_err(), "{ipam}");
                refused += 1;
            }
        }
    }
    assert_eq!((given, refused), (36, 28), "an end before its start is refused");
}

#[test]
fn what_the_plugin_refuses_is_unknown_with_the_reason() {
    for ipam in [
        json!({}),
        json!({ "ranges": [] }),
        json!({ "subnet": "10.98.0.0/31" }),
        json!({ "subnet": "10.98.0.5/28" }),
        json!({ "subnet": "10.98.0.0/28", "rangeStart": "10.98.1.3" }),
        json!({ "subnet": "10.98.0.0/28", "gateway": "x" }),
        json!({ "ranges": [[]] }),
        json!({ "ranges": [[{ "subnet": "10.98.0.0/28" }, { "subnet": "fd98::/64" }]] }),
        json!({ "ranges": [[{ "subnet": "10.98.0.0/28" }], [{ "subnet": "10.98.0.0/24" }]] }),
        json!({ "ranges": [[{ "subnet": "10.98.0.0/28" }, { "subnet": "10.98.0.8/29" }]] }),
    ] {
        let node = Node::new(&ipam);
        assert!(node.run("ADD", 0).is_err(), "{ipam}");
        let limits = node.read();
        assert!(limits[0].unknown.is_some() && node.remaining().is_none(), "{ipam}: {limits:?}");
    }
}

/// A lease that nobody gave back is used, one that is given back is not, and one that another range
/// left behind does not count.
#[test]
fn pods_that_go_make_room_and_leaks_do_not() {
    let node = Node::new(&json!({ "ranges": [[{ "subnet": "10.98.0.0/29" }]] }));
    for stray in ["10.98.7.7", "10.98.0.1", "fd98::1", "10.98.0.x"] {
        let directory = node.root.path().join("leases/net");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(stray), "gone\r\neth0").unwrap();
    }
    assert_eq!(node.assert_foretold(0), 5);
    for id in [1, 3] {
        node.run("DEL", id).unwrap();
    }
    assert_eq!(node.remaining(), Some(2));
    assert_eq!(node.assert_foretold(10), 2);
}

/// Of the configuration in force, whatever the files of this machine say.
fn configured(agent: &Agent<'_>) -> Vec<(String, Value)> {
    let status = agent.status();
    let mut limits: Vec<_> = status["limits"].as_array().unwrap().iter().collect();
    limits.retain(|limit| limit["limit"] == "max_pods" || limit["limit"] == "pod_addresses");
    limits.iter().map(|limit| (limit["named"].to_string(), limit["max"].clone())).collect()
}

#[test]
fn limits_that_are_configured_change_with_the_configuration() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    let limits = |fields: &str| home.configure(&format!("hostNetns: current\nlimits: {fields}\n"));
    limits("{ maxPods: 301, podRange: [10.98.0.0/24, 'fd98::/120'] }");
    let mut agent = home.start();
    agent.wait_until_it_answers();
    let named = |name: &str, max: u64| (format!("\"{name}\""), json!(max));
    let [v4, v6] = ["IPv4 pod addresses", "IPv6 pod addresses"];
    assert_eq!(configured(&agent), [named(v4, 253), named(v6, 254), named("maxPods", 301)]);
    limits("{ maxPods: 302, podRange: 10.98.0.0/28 }");
    let changed = [named(v4, 13), named("maxPods", 302)];
    agent.wait_until("changed", |agent| configured(agent) == changed);
    let max = agent.metrics().value("headroom_limit_max", &[("limit", "max_pods"), ("object", "")]);
    assert_eq!(max, Some(302.0));
    limits("{ maxPods: 0 }");
    agent.wait_until("refused", |agent| !agent.status()["config"]["reloadError"].is_null());
    assert_eq!(configured(&agent), changed, "the last good one stays in force");
    assert_eq!(agent.terminate(), Some(0));
}
