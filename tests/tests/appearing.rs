//! Keys that appear later, with their interface: the sweep comes once an hour here, so what is set
//! was set because a link event told of it. Modules are in `modules.rs` and, real ones, in the
//! virtual machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(missing_docs)]

use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{Namespace, root_or_skip};

const PATTERN: &str = "net.ipv4.conf.*.rp_filter";
const DOTTED: &str = "net.ipv4.conf.b0/100.tag";

const DOCUMENT: &str = "\
hostNetns: current
watch: { sysctlSweep: 1h }
sysctls:
  net.ipv4.conf.*.rp_filter: 2
  net/ipv4/conf/b0.100/tag: { value: 7, required: false }
  net.ipv6.conf.b0.hop_limit: { value: 33, required: false }
";

fn add(netns: &Namespace, name: &str) {
    netns.ip(["link", "add", name, "type", "bridge"]);
}

fn becomes(agent: &mut Agent<'_>, netns: &Namespace, path: &str, value: &str) {
    let holds = |_: &Agent<'_>| {
        // The interface may be gone, or its directory not there yet.
        let read = || std::fs::read_to_string(format!("/proc/sys/{path}"));
        netns.run(read).is_ok_and(|text| text.trim_end() == value)
    };
    agent.wait_until(&format!("{path} {value}"), holds);
}

#[test]
fn keys_are_set_as_soon_as_their_interface_appears_is_renamed_or_gets_its_ipv6_back() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(DOCUMENT);
    let mut agent = home.start();
    let key = agent.key(DOTTED);
    assert_eq!((&key["state"], &key["required"]), (&"pending".into(), &false.into()));
    assert!(agent.is_ready(), "what is not required holds nothing back");

    add(&netns, "b0");
    becomes(&mut agent, &netns, "net/ipv4/conf/b0/rp_filter", "2");
    becomes(&mut agent, &netns, "net/ipv6/conf/b0/hop_limit", "33");
    // A name with a dot, as a VLAN's.
    add(&netns, "b0.100");
    becomes(&mut agent, &netns, "net/ipv4/conf/b0.100/tag", "7");
    becomes(&mut agent, &netns, "net/ipv4/conf/b0.100/rp_filter", "2");
    agent.wait_until("said", |agent| agent.key(DOTTED)["state"] == "in-sync");

    netns.ip(["link", "set", "b0", "mtu", "1000"]);
    let hop_limit = "net.ipv6.conf.b0.hop_limit";
    agent.wait_until("gone", |agent| agent.key(hop_limit)["state"] == "pending");
    netns.ip(["link", "set", "b0", "mtu", "1500"]);
    becomes(&mut agent, &netns, "net/ipv6/conf/b0/hop_limit", "33");

    netns.ip(["link", "set", "b0.100", "name", "c0"]);
    agent.wait_until("gone", |agent| agent.key(DOTTED)["state"] == "pending");
    netns.write("net/ipv4/conf/c0/rp_filter", "1");
    becomes(&mut agent, &netns, "net/ipv4/conf/c0/rp_filter", "2");
    netns.ip(["link", "set", "c0", "name", "b0.100"]);
    agent.wait_until("back", |agent| agent.key(DOTTED)["state"] == "in-sync");
    netns.ip(["link", "delete", "b0.100"]);
    agent.wait_until("gone", |agent| agent.key(DOTTED)["state"] == "pending");
    assert!(agent.is_ready());
    assert_eq!(agent.key(PATTERN)["state"], "in-sync");

    // A storm of interfaces, with as many writes as there are of them, and no more.
    let before = agent.metrics().value("headroom_sysctl_writes_total", &[("result", "ok")]);
    netns.ip_batch((0..200).map(|n| format!("link add s{n} type bridge\n")).collect::<String>());
    agent.wait_until("all", |agent| agent.key(PATTERN)["members"]["total"] == 204);
    agent.wait_until("set", |agent| agent.key(PATTERN)["inSync"] == true);
    let after = agent.metrics().value("headroom_sysctl_writes_total", &[("result", "ok")]);
    // New interfaces begin with the default's value, which is what is wanted.
    assert_eq!(after, before, "redundant writes");
}

/// Fault 38: what can be applied is, and what cannot is named.
#[test]
fn fault_38_a_configuration_with_keys_that_fail_is_applied_key_by_key() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure("hostNetns: current\nsysctls: { net.core.somaxconn: 10000 }\n");
    let mut agent = home.start();
    home.configure(
        "hostNetns: current\nsysctls: { net.core.somaxconn: 20000, net.ipv4.tcp_fin_timeout: 90, \
         net.ipv4.ip_local_port_range: \"60000 50000\", net.ipv4.conf.nosuch0.tag: 1 }\n",
    );
    becomes(&mut agent, &netns, "net/core/somaxconn", "20000");
    becomes(&mut agent, &netns, "net/ipv4/tcp_fin_timeout", "90");
    agent.wait_until("judged", |agent| {
        agent.key("net.ipv4.ip_local_port_range")["state"] == "rejected"
            && agent.key("net.ipv4.conf.nosuch0.tag")["state"] == "pending"
    });
    assert!(!agent.is_ready());
    let status = home.run(["status"]);
    assert_eq!(status.code, Some(4));
    for part in ["low must not be above high", "its interface is not there", "EINVAL"] {
        assert!(status.stdout.contains(part), "{part}: {}", status.stdout);
    }
    let good = agent.metrics().value("headroom_config_last_reload_successful", &[]);
    assert_eq!(good, Some(1.0), "the configuration itself is good");
}
