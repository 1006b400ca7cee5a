//! Addresses of the node's range: the plugin `host-local` until it has none left.

use std::path::Path;
use std::process::Command;

use headroom::limits::Limit;
use serde_json::json;

use super::{Bench, Fact, Foretold, Row};
use crate::agent_process::Finished;

const PLUGINS: &str = "/usr/lib/cni";
const SUBNET: &str = "10.97.1.0/26";
const NAME: &str = "hrtest";
/// What the plugin says at the end.
const NONE_LEFT: &str = "no IP addresses available";

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let plugin = Path::new(PLUGINS).join("host-local");
    if !plugin.exists() {
        return Err(format!("{} is not installed", plugin.display()));
    }
    let directory = bench.host.directory();
    let leases = directory.path().join("networks");
    let network = json!({
        "cniVersion": "1.0.0", "name": NAME, "type": "bridge", "bridge": "cni0",
        "ipam": { "type": "host-local", "dataDir": leases, "ranges": [[{ "subnet": SUBNET }]] },
    });
    let configurations = directory.path().join("net.d");
    std::fs::create_dir(&configurations).unwrap();
    std::fs::write(configurations.join("10-hrtest.conf"), network.to_string()).unwrap();
    let mut foretold = Foretold::default();
    let fact = loop {
        let pods = foretold.look_next(|| limit(&configurations, &leases));
        let mut command = Command::new(&plugin);
        command
            .env_clear()
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", format!("pod{pods}"))
            .env("CNI_NETNS", "/run/netns/none")
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", PLUGINS);
        let finished = Finished::of(&mut command, network.to_string().as_bytes());
        if finished.code != Some(0) {
            let said = finished.json()["msg"].as_str().unwrap_or_default().to_owned();
            if !said.contains(NONE_LEFT) {
                return Err(said);
            }
            break Fact { pods, refusal: format!("`{NONE_LEFT}`") };
        }
    };
    Ok(Row {
        limit: "addresses of the pod range",
        pod: "an address of `host-local`".to_owned(),
        set_to: format!("a /{}", SUBNET.rsplit('/').next().unwrap_or_default()),
        predictions: foretold.quarters(fact.pods),
        fact,
        note: None,
    })
}

/// How Headroom sees it.
fn limit(_configurations: &Path, _leases: &Path) -> Option<Limit> {
    None
}
