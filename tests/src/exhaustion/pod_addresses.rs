//! Addresses of the node's range: the plugin `host-local` until it has none left.

use std::path::Path;

use headroom::limits::pod_addresses::PodAddresses;
use serde_json::{Value, json};

use super::eyes::Eyes;
use super::{Bench, Fact, Foretold, Row};
use crate::host_local;

const CONFIGURATIONS: &str = "etc/cni/net.d";
const LEASES: &str = "/var/lib/cni/networks";
const NETWORK: &str = "hrtest";
const SUBNET: &str = "10.97.1.0/26";
/// What the plugin says at the end.
const NONE_LEFT: &str = "no IP addresses available";

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    // The node's files, in a tree of our own.
    let root = bench.host.directory();
    let configurations = root.path().join(CONFIGURATIONS);
    let leases = root.path().join(LEASES.trim_start_matches('/'));
    std::fs::create_dir_all(&configurations).unwrap();
    std::fs::create_dir_all(&leases).unwrap();
    let file = configurations.join("10-hrtest.conf");
    std::fs::write(file, configuration(Path::new(LEASES)).to_string()).unwrap();
    let configuration = configuration(&leases);

    let mut eyes = Eyes::of(PodAddresses::new(root.path()));
    let mut foretold = Foretold::default();
    let mut pods = 0;
    let said = loop {
        foretold.look(pods, eyes.see("pod_addresses", &format!("{NETWORK} ipv4")));
        let finished = host_local("ADD", &configuration, &format!("pod{pods}"));
        if finished.code != Some(0) {
            break finished.json()["msg"].to_string();
        }
        pods += 1;
    };
    if !said.contains(NONE_LEFT) {
        return Err(said);
    }
    Ok(Row {
        limit: "addresses of the pod range",
        pod: "an address of `host-local`".to_owned(),
        set_to: format!("{SUBNET}, less network, broadcast and gateway"),
        predictions: foretold.quarters(pods),
        fact: Fact { pods, refusal: format!("`{NONE_LEFT}`") },
        allowed: 0,
        note: None,
    })
}

fn configuration(leases: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": NETWORK, "type": "bridge", "bridge": "cni0",
        "ipam": { "type": "host-local", "dataDir": leases, "ranges": [[{ "subnet": SUBNET }]] },
    })
}
