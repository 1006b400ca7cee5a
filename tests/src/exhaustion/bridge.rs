//! Ports of a bridge: veth pairs until the kernel says `EXFULL`.

use headroom::kernel::links::{bridge_ports, bridges};
use headroom::kernel::netlink::DumpSocket;
use headroom::limits::bridge::{Bridge, Model, PORTS, limits};

use super::{Bench, Fact, Foretold, Row};
use crate::Namespace;

/// Ports that are added before Headroom is asked again.
const STEP: u64 = 100;

/// The bridge in a namespace, as Headroom sees it: by dumps.
pub fn look(netns: &Namespace) -> Bridge {
    let (bridges, ports) = netns.run(|| {
        let mut socket = DumpSocket::open().unwrap();
        (bridges(&mut socket).unwrap(), bridge_ports(&mut socket).unwrap())
    });
    let link = bridges[0].clone();
    let used = Model::new(bridges, ports).ports(link.index);
    let read_from = "RTM_GETLINK";
    Bridge { name: link.name, ports: used, limit: PORTS, read_from }
}

/// `ip -batch` lines that give the bridge `br0` these ports.
fn ports(range: std::ops::Range<u64>) -> String {
    let port = |n| format!("link add v{n} master br0 type veth peer name p{n}\n");
    range.map(port).collect()
}

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let netns = Namespace::new(bench.host);
    netns.write("net/ipv6/conf/default/disable_ipv6", "1");
    netns.ip(["link", "add", "br0", "type", "bridge"]);
    let mut foretold = Foretold::default();
    let mut there = 0;
    let refusal = loop {
        let failures = netns.ip_batch_failures(ports(there..there + STEP));
        let bridge = look(&netns);
        let added = bridge.ports - there;
        there = bridge.ports;
        if added < STEP {
            break failures;
        }
        foretold.look(there, limits(&[bridge], None).pop());
    };
    if !refusal.contains("Exchange full") {
        return Err(format!("ip says something else than EXFULL: {refusal}"));
    }
    Ok(Row {
        limit: "ports of a bridge",
        pod: "a veth on it".to_owned(),
        set_to: format!("{PORTS}, fixed in the kernel"),
        predictions: foretold.hundreds(),
        fact: Fact { pods: there, refusal: "EXFULL".to_owned() },
        allowed: 0,
        note: None,
    })
}
