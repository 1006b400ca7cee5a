#![allow(clippy::unwrap_used)]

use std::fs;

use serde_json::{Value, json};

use super::*;
use crate::config;
use crate::config::cidr::Cidr;

/// A node's files.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn configure(&self, file: &str, ipam: &Value) {
        let plugins = json!([{ "type": "bridge", "ipam": ipam }, { "type": "portmap" }]);
        let file = format!("etc/cni/net.d/{file}");
        self.write(&file, &json!({ "name": "net", "plugins": plugins }).to_string());
    }

    fn lease(&self, name: &str) {
        self.write(&format!("var/lib/cni/networks/net/{name}"), "id\r\neth0");
    }

    fn read(&self) -> Vec<Limit> {
        PodAddresses::new(self.0.path()).read()
    }

    fn shown(&self) -> Vec<(String, Option<u64>, Option<u64>)> {
        self.read().into_iter().map(|limit| (limit.object, limit.used, limit.max)).collect()
    }

    fn why(&self) -> String {
        let limits = self.read();
        assert!(limits.iter().all(|limit| limit.used.is_none() && limit.max.is_none()));
        limits[0].unknown.clone().unwrap()
    }
}

fn ranges(ranges: &Value) -> Value {
    json!({ "type": "host-local", "ranges": ranges })
}

#[test]
fn leases_in_the_ranges_are_counted_by_set() {
    let node = Fixture::new();
    assert_eq!(node.read(), [], "no CNI");
    fs::create_dir_all(node.0.path().join("etc/cni/net.d/00.conflist")).unwrap();
    node.write("etc/cni/net.d/01.conflist.bak", "junk");
    assert_eq!(node.read(), [], "no configuration");
    let dual = ranges(&json!([[{ "subnet": "10.0.0.0/28" }], [{ "subnet": "fd00::/120" }]]));
    node.configure("10-net.conflist", &dual);
    assert!(node.why().contains("/var/lib/cni/networks/net, which is not here"), "{}", node.why());
    fs::create_dir_all(node.0.path().join("var/lib/cni/networks")).unwrap();
    let shown = |v4, v6| {
        [("net ipv4".to_owned(), Some(v4), Some(13)), ("net ipv6".to_owned(), Some(v6), Some(254))]
    };
    assert_eq!(node.shown(), shown(0, 0));
    for name in ["10.0.0.2", "10.0.0.14", "fd00::2", "last_reserved_ip.0", "lock"] {
        node.lease(name);
    }
    // Not given: the network's own, the gateway, broadcast, another subnet.
    for name in ["10.0.0.0", "10.0.0.1", "10.0.0.15", "10.0.1.2", "fd00::1:2"] {
        node.lease(name);
    }
    assert_eq!(node.shown(), shown(2, 1));
    let twice = ranges(&json!([[{ "subnet": "10.0.0.0/28" }], [{ "subnet": "10.0.1.0/28" }]]));
    node.configure("10-net.conflist", &twice);
    let objects = node.shown();
    assert_eq!(objects[0], ("net ipv4 0".to_owned(), Some(2), Some(13)));
    assert_eq!(objects[1], ("net ipv4 1".to_owned(), Some(1), Some(13)));
}

#[test]
fn the_first_file_is_the_pods_network() {
    let node = Fixture::new();
    node.write("etc/cni/net.d/20.conf", r#"{ "name": "b", "type": "cilium-cni" }"#);
    assert!(node.why().starts_with("cilium-cni gives addresses"), "{}", node.why());
    node.write("etc/cni/net.d/10.json", r#"{ "name": "a", "type": "aws-cni" }"#);
    assert!(node.why().starts_with("aws-cni gives addresses"), "{}", node.why());
    node.configure("05.conflist", &ranges(&json!([[{ "subnet": "usePodCidr" }]])));
    assert!(node.why().contains("limits.podRange"), "{}", node.why());
    node.write("etc/cni/net.d/01.conf", "{");
    assert!(node.why().contains("01.conf: it is no JSON"), "{}", node.why());
}

#[test]
fn flannel_has_its_range_in_a_file_of_its_own() {
    let node = Fixture::new();
    let flannel = json!({ "type": "flannel", "delegate": { "isDefaultGateway": true } });
    let list = json!({ "name": "net", "plugins": [flannel, { "type": "portmap" }] });
    node.write("etc/cni/net.d/10-flannel.conflist", &list.to_string());
    assert!(node.why().contains("/run/flannel/subnet.env, which is not here"), "{}", node.why());
    let env = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\n";
    node.write("run/flannel/subnet.env", env);
    node.lease("10.42.3.9");
    node.lease("10.42.4.9");
    assert_eq!(node.shown(), [("net ipv4".to_owned(), Some(1), Some(253))]);
    node.write("run/flannel/subnet.env", &format!("{env}FLANNEL_IPV6_SUBNET=fd42:3::1/120\n"));
    assert_eq!(node.shown()[1], ("net ipv6".to_owned(), Some(0), Some(254)));
    for wrong in ["", "FLANNEL_SUBNET=\n", "FLANNEL_SUBNET=10.42.3.1/24,10.42.4.1/24\n"] {
        node.write("run/flannel/subnet.env", wrong);
        assert!(node.why().starts_with("/run/flannel/subnet.env: "), "{}", node.why());
    }
    let elsewhere = json!({
        "name": "net", "type": "flannel", "subnetFile": "/x", "ipam": { "type": "calico-ipam" },
    });
    node.write("etc/cni/net.d/10-flannel.conflist", &elsewhere.to_string());
    assert!(node.why().starts_with("calico-ipam gives"), "{}", node.why());
}

#[test]
fn a_configured_range_beats_the_files() {
    let mut node = NodeState { pod_count: Some(0), ..NodeState::default() };
    assert_eq!(limits(&node), []);
    node.pod_count = None;
    let found = Limit::unknown(&ABOUT, "calico", "why");
    node.limits.insert(ABOUT.name, vec![found.clone()]);
    assert_eq!(limits(&node), [found]);
    let pod_range =
        ["10.244.0.0/24", "10.245.0.9/32", "fd00::/64"].map(|it| Cidr::parse(it).unwrap());
    node.config.limits =
        config::Limits { pod_range: Some(pod_range.to_vec()), ..Default::default() };
    assert!(limits(&node).iter().all(|limit| limit.used.is_none() && limit.unknown.is_some()));
    node.pod_count = Some(40);
    let shown: Vec<_> = limits(&node).into_iter().map(|it| (it.object, it.used, it.max)).collect();
    let expected = |object: &str, max| (object.to_owned(), Some(40), Some(max));
    assert_eq!(shown, [expected("ipv4", 254), expected("ipv6", (1 << 53) - 1)]);
    let all = super::super::all(&node).into_iter().filter(|limit| *limit.about == ABOUT);
    assert_eq!(all.count(), 2);
}
