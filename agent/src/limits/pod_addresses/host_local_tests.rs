#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn of(ipam: &Value) -> Result<HostLocal, Unreadable> {
    let file = json!({ "name": "net", "type": "bridge", "ipam": ipam });
    match parse(file.to_string().as_bytes())?.ipam {
        Ipam::HostLocal(host_local) => Ok(host_local),
        other => panic!("{other:?}"),
    }
}

fn with(ranges: &Value) -> Result<HostLocal, Unreadable> {
    of(&json!({ "type": "host-local", "ranges": ranges }))
}

fn sizes(ranges: &Value) -> Vec<(u64, &'static str)> {
    with(ranges).unwrap().sets.iter().map(|set| (set.size(), set.family())).collect()
}

#[test]
fn subnets_lose_what_the_plugin_never_gives() {
    let one = |range: Value| sizes(&json!([[range]]))[0].0;
    assert_eq!(one(json!({ "subnet": "10.244.0.0/24" })), 253);
    assert_eq!(one(json!({ "subnet": "10.244.0.0/30" })), 1);
    assert_eq!(one(json!({ "subnet": "fd00::/120" })), 254);
    assert_eq!(one(json!({ "subnet": "fd00::/64" })), (1 << 53) - 1);
    assert_eq!(one(json!({ "subnet": "::/0" })), (1 << 53) - 1);
    // A gateway elsewhere costs nothing.
    assert_eq!(one(json!({ "subnet": "10.244.0.0/24", "gateway": "10.244.1.1" })), 254);
    assert_eq!(one(json!({ "subnet": "10.244.0.0/24", "gateway": "10.244.0.255" })), 254);
    assert_eq!(one(json!({ "subnet": "10.244.0.0/24", "gateway": "10.244.0.7" })), 253);
    assert_eq!(one(json!({ "subnet": "10.244.0.0/24", "gateway": "" })), 253);
    // What is named is given, the network's own address and broadcast too.
    let named =
        json!({ "subnet": "10.0.0.0/28", "rangeStart": "10.0.0.0", "rangeEnd": "10.0.0.15" });
    assert_eq!(one(named), 15);
    let only = json!({ "subnet": "10.0.0.0/28", "rangeStart": "10.0.0.1", "rangeEnd": "10.0.0.1" });
    assert_eq!(one(only), 0, "the gateway alone");
    let part = json!({ "subnet": "10.0.0.0/28", "rangeStart": "::ffff:10.0.0.4" });
    assert_eq!(one(part), 11);
}

#[test]
fn sets_add_up_and_stand_side_by_side() {
    let two = json!([[{ "subnet": "10.0.0.0/28" }, { "subnet": "10.1.0.0/28" }], [{ "subnet": "fd00::/120" }]]);
    assert_eq!(sizes(&two), [(26, "ipv4"), (254, "ipv6")]);
    let old = json!({
        "type": "host-local", "subnet": "10.0.0.0/28", "rangeEnd": "10.0.0.5", "dataDir": "/run/ipam",
        "ranges": [[{ "subnet": "10.1.0.0/24" }]],
    });
    let old = of(&old).unwrap();
    assert_eq!(old.leases, Path::new("/run/ipam/net"));
    assert_eq!(old.sets.iter().map(Set::size).collect::<Vec<_>>(), [4, 253]);
    assert_eq!(
        with(&json!([[{ "subnet": "10.0.0.0/24" }]])).unwrap().leases,
        Path::new(DATA_DIR).join("net")
    );
}

#[test]
fn what_the_plugin_refuses_is_said() {
    let why = |ranges: &Value| with(ranges).unwrap_err().to_string();
    for (ranges, words) in [
        (json!([]), "no ranges"),
        (json!([[]]), "without a range"),
        (json!([{ "subnet": "10.0.0.0/24" }]), "without a range"),
        (json!([[{ "subnet": "10.0.0.0/31" }]]), "too small"),
        (json!([[{ "subnet": "10.0.0.1/24" }]]), "the network is 10.0.0.0/24"),
        (json!([[{}]]), "no range of addresses"),
        (
            json!([[{ "subnet": "10.0.0.0/24" }, { "subnet": "fd00::/64" }]]),
            "both address families",
        ),
        (json!([[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.0.0/16" }]]), "overlaps"),
        (json!([[{ "subnet": "10.0.0.0/24", "rangeStart": "10.0.1.4" }]]), "not in 10.0.0.0/24"),
        (json!([[{ "subnet": "10.0.0.0/24", "rangeEnd": "10.0.0.0" }]]), "not in 10.0.0.0/24"),
        (json!([[{ "subnet": "10.0.0.0/24", "rangeStart": "fd00::1" }]]), "not in 10.0.0.0/24"),
        (json!([[{ "subnet": "10.0.0.0/24", "gateway": "x" }]]), "`gateway` is no address"),
        (json!([[{ "subnet": "usePodCidr" }]]), "Calico"),
    ] {
        assert!(why(&ranges).contains(words), "{ranges}: {}", why(&ranges));
    }
    let relative = json!({ "type": "host-local", "subnet": "10.0.0.0/24", "dataDir": "../x" });
    assert!(of(&relative).unwrap_err().to_string().contains("dataDir"));
    for name in ["", ".", "../etc", "a/b", "-a", "a\u{1b}"] {
        let file = json!({ "name": name, "type": "bridge", "ipam": {} }).to_string();
        let error = parse(file.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("no name") && !error.contains('\u{1b}'), "{error}");
    }
    for file in ["", "{", "[]", "null", "{\"name\":\"a\",\"plugins\":[]}", "{\"name\":\"a\"}"] {
        assert!(parse(file.as_bytes()).is_err(), "{file}");
    }
}

#[test]
fn other_plugins_are_named() {
    let list = |plugins: Value| {
        let file = json!({ "name": "k8s", "cniVersion": "1.0.0", "plugins": plugins });
        parse(file.to_string().as_bytes()).unwrap().ipam
    };
    let other = |name: &str| Ipam::Other(name.to_owned());
    let calico =
        json!([{ "type": "calico", "ipam": { "type": "calico-ipam" } }, { "type": "portmap" }]);
    assert_eq!(list(calico), other("calico-ipam"));
    assert_eq!(list(json!([{ "type": "cilium-cni" }])), other("cilium-cni"));
    assert_eq!(list(json!([{ "type": "aws\u{1b}" }])), other("aws\\x1b"));
    let second = json!([{ "type": "x" }, { "type": "bridge", "ipam": { "type": "whereabouts" } }]);
    assert_eq!(list(second), other("whereabouts"));
}

fn any_address() -> impl Strategy<Value = IpAddr> {
    let small =
        |n: u8| [IpAddr::from(Ipv4Addr::new(10, 0, 0, n)), Ipv6Addr::from_bits(n.into()).into()];
    (any::<u8>(), 0..2_usize).prop_map(move |(n, family)| small(n)[family])
}

proptest! {
    /// The number is that of the addresses that are given, one by one.
    #[test]
    fn the_size_is_what_is_given(
        prefix in 24..=30_u8, block in any::<u8>(),
        start in proptest::option::of(any::<u8>()), end in proptest::option::of(any::<u8>()),
        gateway in proptest::option::of(any_address()),
    ) {
        let network = block & u8::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let name = |n: u8| Ipv4Addr::new(10, 0, 0, n).to_string();
        let mut range = json!({ "subnet": format!("{}/{prefix}", name(network)) });
        for (field, value) in [("rangeStart", start.map(name)), ("rangeEnd", end.map(name)), ("gateway", gateway.map(|it| it.to_string()))] {
            if let Some(value) = value { range[field] = json!(value); }
        }
        if let Ok(host_local) = with(&json!([[range]])) {
            let given = (0..=255).filter(|n| host_local.sets[0].gives(Ipv4Addr::new(10, 0, 0, *n).into()));
            prop_assert_eq!(given.count() as u64, host_local.sets[0].size());
        }
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&bytes);
    }
}
