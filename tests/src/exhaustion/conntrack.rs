//! Tracked connections: UDP flows from the node to pods, in namespaces of the run's own.
//!
//! `nf_conntrack_max` is one number for all namespaces, what is counted is each one's own: the
//! lowered maximum meets nobody else, unless the host itself tracks connections now.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;

use headroom::limits::Limit;

use super::eyes::Eyes;
use super::pod::errno_of;
use super::{Bench, Fact, Foretold, Row};
use crate::{HostLock, Namespace, SavedSysctls, agent_process::Finished};

const MAX: &str = "net/netfilter/nf_conntrack_max";
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
/// The lowered maximum, and flows of a pod.
const LOWERED: u64 = 330;
const EACH: u16 = 8;

/// What makes a namespace track connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// A rule that asks for a connection's state, as kube-proxy has.
    Rule,
    /// The module was loaded so that all namespaces do.
    Always,
}

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    if !Path::new("/proc/sys").join(MAX).exists() {
        return Err("this kernel has no nf_conntrack (module); `make vm-test` runs it".to_owned());
    }
    let own: u64 = fs::read_to_string(COUNT).unwrap().trim().parse().unwrap();
    if own > LOWERED / 2 {
        return Err(format!(
            "the host tracks {own} connections: they would meet the lowered maximum"
        ));
    }
    conntrack(bench.host, Hooks::Rule)
}

/// Opens flows until one is dropped.
pub fn conntrack(host: &HostLock, hooks: Hooks) -> Result<Row, String> {
    let (node, pods) = (Namespace::new(host), Namespace::new(host));
    connect(&node, &pods);
    if hooks == Hooks::Rule {
        track(&node)?;
    }
    let _saved = SavedSysctls::new(host, [MAX]);
    fs::write(Path::new("/proc/sys").join(MAX), LOWERED.to_string()).unwrap();
    let (foretold, fact) = node.run(fill);
    Ok(Row {
        limit: "tracked connections of the node",
        pod: format!("{EACH} UDP flows to it"),
        set_to: LOWERED.to_string(),
        predictions: foretold.quarters(fact.pods),
        fact,
        allowed: 1,
        note: None,
    })
}

fn fill() -> (Foretold, Fact) {
    let mut foretold = Foretold::default();
    let mut eyes = Eyes::new();
    let mut look = || -> Option<Limit> { eyes.see("conntrack", "host") };
    let socket = UdpSocket::bind((Ipv4Addr::new(10, 97, 0, 1), 0)).unwrap();
    for pod in 0..LOWERED {
        foretold.look(pod, look());
        let [.., high, low] = pod.to_be_bytes();
        let address = Ipv4Addr::new(10, 98, high, low);
        for port in 1..=EACH {
            let before = refusals();
            let sent = socket.send_to(b"flow", (address, port));
            if refusals() > before {
                // Another flow may have had to go instead: then the sender is told nothing.
                let refusal = sent.map_or_else(
                    |error| format!("{:?}, `drop` rose", errno_of(&error)),
                    |_| "`early_drop` rose".to_owned(),
                );
                return (foretold, Fact { pods: pod, refusal });
            }
            sent.unwrap();
        }
    }
    panic!("{LOWERED} pods, and the kernel refuses none");
}

/// A veth to the pods, whose addresses are behind one router that is known for good: no ARP, and
/// nobody there answers.
fn connect(node: &Namespace, pods: &Namespace) {
    node.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1", "netns", pods.name()]);
    node.ip_batch(
        "link set v0 up\naddress add 10.97.0.1/24 dev v0\n\
         neigh add 10.97.0.2 lladdr 02:00:00:00:00:02 dev v0 nud permanent\n\
         route add 10.98.0.0/16 via 10.97.0.2\n",
    );
    pods.ip(["link", "set", "v1", "up"]);
    node.ip(["link", "set", "v0", "up"]);
}

fn track(node: &Namespace) -> Result<(), String> {
    let rule = ["-A", "OUTPUT", "-m", "conntrack", "--ctstate", "NEW", "-j", "ACCEPT"];
    let mut command = std::process::Command::new("iptables");
    command.args(rule);
    let done = node.run(|| Finished::of(&mut command, b""));
    if done.code == Some(0) { Ok(()) } else { Err(format!("iptables: {done:?}")) }
}

/// How often the kernel found this namespace's table full: it dropped the packet, or another flow.
fn refusals() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap();
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
    let column = |name| names.iter().position(|found| *found == name).unwrap();
    let columns = [column("drop"), column("early_drop")];
    let of = |line: &str| -> u64 {
        let words: Vec<&str> = line.split_whitespace().collect();
        columns.iter().map(|at| u64::from_str_radix(words[*at], 16).unwrap()).sum()
    };
    lines.map(of).sum()
}
