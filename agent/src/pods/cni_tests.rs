#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const UID: &str = "0f6c1c5e-1111-4222-8333-123456789abc";
const SANDBOX: &str = "/var/run/netns/cni-5e9a7a2b";

/// As libcni writes it for containerd, with the plugin's result.
fn file(result: &Value) -> Value {
    json!({
        "kind": "cniCacheV1",
        "containerId": "c0ffee",
        "config": "eyJjbmlWZXJzaW9uIjoiMS4wLjAifQ==",
        "ifName": "eth0",
        "networkName": "cbr0",
        "netns": SANDBOX,
        "cniArgs": [
            ["K8S_POD_UID", UID],
            ["IgnoreUnknown", "1"],
            ["K8S_POD_NAMESPACE", "web"],
            ["K8S_POD_NAME", "shop-0"],
            ["K8S_POD_INFRA_CONTAINER_ID", "c0ffee"],
        ],
        "capabilityArgs": { "dns": {}, "portMappings": [{ "hostPort": 8080 }] },
        "result": result,
    })
}

fn read(file: &Value) -> CniResult {
    parse(file.to_string().as_bytes()).unwrap()
}

fn addresses_of(result: &Value) -> Vec<String> {
    read(&file(result)).addresses.iter().map(ToString::to_string).collect()
}

fn ip(address: &str) -> IpAddr {
    address.parse().unwrap()
}

/// The result of the plugin `bridge`, 1.0.0.
fn bridge() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "dns": {},
        "interfaces": [
            { "mac": "4a:d4:72:42:71:30", "name": "cni0" },
            { "mac": "ae:52:8c:dd:6b:e9", "name": "veth1a2b3c4d" },
            { "mac": "36:05:49:9f:c1:15", "name": "eth0", "sandbox": SANDBOX },
        ],
        "ips": [{ "address": "10.88.0.7/16", "gateway": "10.88.0.1", "interface": 2 }],
        "routes": [{ "dst": "0.0.0.0/0" }],
    })
}

#[test]
fn a_result_tells_the_pod_its_path_and_its_addresses() {
    let expected = CniResult {
        container: "c0ffee".to_owned(),
        namespace: Some("web".to_owned()),
        name: Some("shop-0".to_owned()),
        uid: Some(UID.to_owned()),
        sandboxes: vec![SANDBOX.into()],
        addresses: vec![ip("10.88.0.7")],
    };
    assert_eq!(read(&file(&bridge())), expected);
    // Of older versions the result alone tells the path.
    let mut without = file(&bridge());
    without.as_object_mut().unwrap().remove("netns");
    assert_eq!(read(&without), expected);
    // A result of 0.2.0 has no interfaces, and the file alone tells it.
    let old = json!({ "dns": {}, "ip4": { "ip": "10.88.0.7/16", "gateway": "10.88.0.1" } });
    assert_eq!(read(&file(&old)), expected);
}

#[test]
fn every_version_tells_its_addresses() {
    let old = json!({
        "cniVersion": "0.2.0",
        "ip4": { "ip": "10.0.0.2/24", "gateway": "10.0.0.1", "routes": [{ "dst": "0.0.0.0/0" }] },
        "ip6": { "ip": "fd00::2/64" },
    });
    assert_eq!(addresses_of(&old), ["10.0.0.2", "fd00::2"]);
    for version in ["0.3.0", "0.3.1", "0.4.0"] {
        let middle = json!({
            "cniVersion": version,
            "interfaces": [{ "name": "eth0", "sandbox": SANDBOX }],
            "ips": [
                { "version": "4", "address": "10.0.0.2/24", "interface": 0 },
                { "version": "6", "address": "fd00::2/64" },
            ],
        });
        assert_eq!(addresses_of(&middle), ["10.0.0.2", "fd00::2"], "{version}");
    }
    for version in ["1.0.0", "1.1.0", "9.0.0"] {
        let new = json!({
            "cniVersion": version,
            "interfaces": [{ "name": "eth0", "mtu": 1500, "sandbox": SANDBOX, "socketPath": "" }],
            "ips": [{ "address": "fd00::2/64" }, { "address": "10.0.0.2/24", "interface": 0 }],
        });
        assert_eq!(addresses_of(&new), ["fd00::2", "10.0.0.2"], "{version}");
    }
}

/// The network `cni-loopback`, for which containerd has a file of its own.
#[test]
fn loopback_proves_nothing() {
    let loopback = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": SANDBOX }],
        "ips": [{ "address": "127.0.0.1/8", "interface": 0 }, { "address": "::1/128" }],
    });
    let read = read(&file(&loopback));
    assert_eq!((read.addresses, read.sandboxes), (vec![], vec![SANDBOX.into()]));
}

#[test]
fn what_is_half_written_says_nothing() {
    let text = file(&bridge()).to_string();
    for end in 0..text.len() {
        assert!(matches!(parse(&text.as_bytes()[..end]), Err(CniError::Json(_))), "{end}");
    }
    assert!(parse(&[text.as_bytes(), b"\n"].concat()).is_ok());
    assert!(matches!(parse(&[text.as_bytes(), b"}"].concat()), Err(CniError::Json(_))));
}

#[test]
fn what_is_of_another_kind_says_nothing() {
    // What old versions of libcni wrote is the plugin's result alone.
    for other in [bridge(), json!({}), json!({ "kind": "cniCacheV2" }), json!({ "kind": 1 })] {
        assert!(matches!(parse(other.to_string().as_bytes()), Err(CniError::Kind)), "{other}");
    }
    for no_object in ["null", "1", "\"cniCacheV1\"", ""] {
        assert!(matches!(parse(no_object.as_bytes()), Err(CniError::Json(_))), "{no_object}");
    }
    let twice = br#"{ "kind": "cniCacheV1", "netns": "/a", "netns": "/b" }"#;
    assert!(matches!(parse(twice), Err(CniError::Json(_))));
}

/// A part that is of another type is as if it were not there, and the others count.
#[test]
fn a_wrong_type_costs_no_more_than_what_it_is_in() {
    let good = read(&file(&bridge()));
    for name in ["config", "ifName", "networkName", "capabilityArgs", "netns", "unknown"] {
        for wrong in [json!(null), json!(7), json!(["a"]), json!({ "a": [] })] {
            let mut file = file(&bridge());
            file[name] = wrong;
            assert_eq!(read(&file), good, "{file}");
        }
    }
    for wrong in [json!(null), json!(7), json!("x"), json!([[]]), json!({ "ips": "x" })] {
        let mut other = file(&bridge());
        other["containerId"] = wrong.clone();
        assert_eq!(read(&other).name, good.name);
        let result = read(&file(&wrong));
        assert_eq!((&result.name, result.addresses), (&good.name, vec![]), "{wrong}");
        let mut other = file(&bridge());
        other["cniArgs"] = wrong.clone();
        let nameless = CniResult { namespace: None, name: None, uid: None, ..good.clone() };
        assert_eq!(read(&other), nameless, "{wrong}");
        let mut other = file(&bridge());
        for list in ["interfaces", "ips"] {
            other["result"][list].as_array_mut().unwrap().insert(0, wrong.clone());
        }
        other["result"]["interfaces"][3]["name"] = wrong.clone();
        other["result"]["ips"][1]["gateway"] = wrong.clone();
        other["result"]["dns"] = wrong.clone();
        other["result"]["routes"] = wrong.clone();
        other["cniArgs"].as_array_mut().unwrap().insert(0, wrong);
        assert_eq!(read(&other), good, "{other}");
    }
    for address in [json!(7), json!(null), json!(""), json!("10.0.0"), json!("10.0.0.1 /8")] {
        let result = json!({ "ips": [{ "address": address }, { "address": "10.0.0.2" }] });
        assert_eq!(addresses_of(&result), ["10.0.0.2"]);
    }
}

#[test]
fn paths_are_absolute_and_told_once() {
    let sandbox = |path: &str| json!({ "name": "eth0", "sandbox": path });
    let paths = ["/run/netns/b", "", "run/netns/c", "/run/netns/a", "/run/netns/b", SANDBOX];
    let result = json!({ "interfaces": paths.map(sandbox) });
    let expected = ["/run/netns/a", "/run/netns/b", SANDBOX].map(PathBuf::from);
    assert_eq!(read(&file(&result)).sandboxes, expected);
}

#[test]
fn arguments_that_contradict_each_other_say_nothing() {
    let name_of = |arguments: Value| {
        let mut file = file(&bridge());
        file["cniArgs"] = arguments;
        read(&file).name
    };
    let key = "K8S_POD_NAME";
    assert_eq!(name_of(json!([[key, "a"], ["X", "y"], [key, "a"]])), Some("a".to_owned()));
    assert_eq!(name_of(json!([[key, "a"], [key, "b"]])), None);
    assert_eq!(name_of(json!([[key, ""], [key, "b"]])), None);
    for not_one in [json!([key]), json!([key, "a", "b"]), json!([key, 1]), json!([1, "a"])] {
        assert_eq!(name_of(json!([not_one])), None, "{not_one}");
    }
    assert_eq!(name_of(json!([["k8s_pod_name", "a"]])), None);
    assert_eq!(name_of(json!([])), None);
}

fn some_text() -> impl Strategy<Value = Option<String>> {
    prop::option::of(any::<String>().prop_filter("said", |text| !text.is_empty()))
}

fn some_result() -> impl Strategy<Value = CniResult> {
    let paths = prop::collection::btree_set("/[a-z/.\"\\\\\u{1}é]{0,8}", 0..4);
    let addresses = prop::collection::vec(
        any::<IpAddr>().prop_filter("of a pod", |address| !address.is_loopback()),
        0..4,
    );
    let texts = (any::<String>(), some_text(), some_text(), some_text());
    (texts, paths, addresses).prop_map(|((container, namespace, name, uid), paths, addresses)| {
        let mut sandboxes: Vec<PathBuf> = paths.into_iter().map(PathBuf::from).collect();
        sandboxes.sort();
        sandboxes.dedup();
        CniResult { container, namespace, name, uid, sandboxes, addresses }
    })
}

/// The file that says this, its arguments in some order.
fn written(result: &CniResult, turn: usize) -> Value {
    let known = [
        ("K8S_POD_NAMESPACE", &result.namespace),
        ("K8S_POD_NAME", &result.name),
        ("K8S_POD_UID", &result.uid),
    ];
    let mut arguments: Vec<Value> =
        known.iter().filter_map(|(key, value)| Some(json!([key, value.as_ref()?]))).collect();
    arguments.push(json!(["IgnoreUnknown", "1"]));
    let turn = turn % arguments.len();
    arguments.rotate_left(turn);
    let interfaces = result.sandboxes.iter().map(|path| json!({ "sandbox": path }));
    let ips = result.addresses.iter().map(|address| json!({ "address": format!("{address}/20") }));
    json!({
        "kind": "cniCacheV1",
        "containerId": result.container,
        "cniArgs": arguments,
        "result": {
            "interfaces": interfaces.collect::<Vec<_>>(),
            "ips": ips.collect::<Vec<_>>(),
        },
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn a_file_with_any_bytes_changed_is_read(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = file(&bridge()).to_string().into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn what_is_written_is_read_again(result in some_result(), turn in 0..4usize) {
        prop_assert_eq!(read(&written(&result, turn)), result);
    }
}
