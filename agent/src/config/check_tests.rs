#![allow(clippy::unwrap_used)]

use super::super::load::{EMBEDDED, Origin, judge};
use super::*;
use crate::sysctl::policy::{Source, Want};

const HEAD: &str = "apiVersion: headroom/v1\nkind: AgentConfig\n";

/// `line:column code` of every problem, warnings marked.
pub fn problems(body: &str) -> Vec<String> {
    let problems = match judge(Origin::Embedded, format!("{HEAD}{body}").as_bytes()) {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.problems.into_vec(),
    };
    problems
        .iter()
        .map(|problem| {
            let at = problem.position.unwrap_or_default();
            let mark =
                if problem.severity == super::super::problem::Severity::Warning { "~" } else { "" };
            format!("{}:{} {mark}{}", at.line, at.column, problem.code)
        })
        .collect()
}

pub fn config(body: &str) -> Config {
    judge(Origin::Embedded, format!("{HEAD}{body}").as_bytes()).unwrap().config
}

#[test]
fn the_embedded_document_is_good_and_warns_of_nothing() {
    let loaded = judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(loaded.config.profiles, ["dense-node"]);
    assert_eq!(loaded.config.mode, super::super::Mode::Enforce);
    assert_eq!(loaded.config.listen, ["0.0.0.0:19879".parse().unwrap()]);
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let body = "\
mode: enforced
profile: [dense-node]
profiles: [dense]
allowDangerous: [vm.drop_caches, vm.swappiness]
sysctls:
  net/../kernel/core_pattern: x
  kernel.core_pattern: core
  kernel/core_pattern: core
  vm.drop_caches: 3
  fs.file-nr: 1
  net.core.somaxconn: 0200
  net/core/somaxconn: 128
  net.ipv4.tcp_rmem: '4096 131072'
  net.ipv4.*.all.rp_filter: 2
  vm.swappiness: { min: 1, value: 2 }
  vm.max_map_count: {}
  net.ipv4.tcp_congestion_control: { min: 4 }
  vm.page-cluster: [1, 2]
watch: { sysctlSweep: 90, bridgePortLimit: 0 }
server: { listen: [localhost:80], socket: run/x }
";
    assert_eq!(
        problems(body),
        [
            "3:7 unknown-variant",
            "4:1 unknown-field",
            "5:12 unknown-profile",
            "6:18 key-refused",
            "6:34 ~needless-allowance",
            "8:3 key-syntax",
            "9:3 key-refused",
            "10:3 duplicate-key",
            "11:3 key-refused",
            "12:3 key-refused",
            "13:3 value",
            "14:3 duplicate-key",
            "15:3 value",
            "16:3 key-pattern",
            "17:3 policy",
            "18:3 policy",
            "19:3 value",
            "20:20 invalid-value",
            "21:23 invalid-value",
            "21:44 value",
            "22:20 invalid-value",
            "22:43 path",
        ]
    );
}

#[test]
fn what_is_likely_to_hurt_is_warned_about() {
    let body = "\
sysctls:
  vm.overcommit_memory: 1
  net.core.somaxcon: 1000
  net.ipv4.conf.eth0.100.rp_filter: 1
  net.ipv4.neigh.default.gc_interval: 30
  vm.swappiness: 300
  net.ipv4.neigh.default.gc_thresh1: 2048
  net.ipv4.neigh.default.gc_thresh2: 1024
  net.ipv4.neigh.default.gc_thresh3: { min: 8192 }
  net.ipv6.neigh.default.gc_thresh3: { min: 1024 }
  net.ipv4.ip_local_port_range: 1024 65535
";
    assert_eq!(
        problems(body),
        [
            "4:3 ~kubelet-key",
            "5:3 ~unknown-key",
            "6:3 ~dotted-interface",
            "7:3 ~dead-key",
            "8:3 ~value-range",
            "9:3 ~threshold-order",
            "9:3 ~stale-entries",
            "10:3 ~threshold-order",
            "12:3 ~threshold-families",
            "13:3 ~port-collision",
        ]
    );
}

/// Fault 8: widening the host's port range collides with NodePorts, unless they are reserved.
#[test]
fn fault_08_port_collisions() {
    let range = |range: &str, reserved: &str| {
        problems(&format!(
            "sysctls:\n  net.ipv4.ip_local_port_range: {range}\n  net.ipv4.ip_local_reserved_ports: '{reserved}'\n"
        ))
    };
    assert_eq!(range("1024 65535", ""), ["4:3 ~port-collision"]);
    assert_eq!(range("32768 60999", ""), [""; 0]);
    assert_eq!(range("20000 60999", "30000-32767"), [""; 0]);
    assert_eq!(range("20000 60999", "30000-32000"), ["4:3 ~port-collision"]);
    assert_eq!(
        range("1024 65535", "2379,2380,6443,9100,10248-10250,10255,10256,19879,30000-32767"),
        [""; 0]
    );
}

#[test]
fn later_sources_replace_the_whole_policy() {
    let body = "profiles: [dense-node, density-article]\nsysctls:\n  net.core.somaxconn: { max: 100, onConflict: report, required: false }\n";
    let policies = config(body).policies;
    let policy = |key: &str| policies[&Key::parse(key).unwrap()].clone();
    let somaxconn = policy("net.core.somaxconn");
    assert_eq!(somaxconn.want, Want::Bounds { min: None, max: Some("100".into()) });
    assert_eq!(somaxconn.reason, None, "nothing of the profile's is left");
    assert!(!somaxconn.required);
    let thresh3 = policy("net.ipv4.neigh.default.gc_thresh3");
    assert_eq!(thresh3.source, Source::Profile("density-article".into()));
    assert!(
        config("sysctls: { vm.swappiness: 10 }\n").policies.values().all(|policy| policy.required)
    );
}

#[test]
fn dangerous_keys_need_to_be_allowed_by_name() {
    assert_eq!(problems("sysctls: { kernel.core_pattern: core }\n"), ["3:12 key-refused"]);
    assert_eq!(
        problems("allowDangerous: [kernel/core_pattern]\nsysctls: { kernel.core_pattern: core }\n"),
        [""; 0]
    );
    assert_eq!(problems("sysctls: { fs.binfmt_misc.anything: 1 }\n"), ["3:12 key-refused"]);
}

#[test]
fn a_document_without_profiles_gets_none() {
    assert!(config("sysctls:\n").policies.is_empty());
}

#[test]
fn durations_and_addresses() {
    let config = config(
        "watch: { sysctlSweep: 1m 30s }\nserver: { listen: ['[::1]:1', 127.0.0.1:2] }\nstate: /s\n",
    );
    assert_eq!(config.watch.sysctl_sweep.as_secs(), 90);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.socket, Path::new("/s/agent.sock"));
}

/// Fault 36: a document at the size limit, full of keys that nobody knows, is judged in bounded
/// work, and none of its policies is lost.
#[test]
fn fault_36_thousands_of_unknown_keys() {
    let keys: String = (0..4_000).map(|n| format!("  x.y{n}: 1\n")).collect();
    let body = format!("sysctls:\n{keys}");
    assert_eq!(problems(&body).len(), 101);
    assert_eq!(config(&body).policies.len(), 4_000);
}

/// A profile counts once: to name it again is a mistake, and costs no second look at it.
#[test]
fn a_profile_is_named_once() {
    assert_eq!(
        problems("profiles: [dense-node, density-article, dense-node]\n"),
        ["3:41 duplicate-profile"]
    );
    assert_eq!(
        problems("profiles: [dense, dense]\n"),
        ["3:12 unknown-profile", "3:19 duplicate-profile"]
    );
    let many = problems(&format!("profiles: [{}]\n", "dense-node,".repeat(90_000)));
    assert_eq!(many.len(), 101, "{many:?}");
    assert_eq!(many.first().unwrap(), "3:23 duplicate-profile");
}

#[test]
fn every_choice_of_a_port_range_is_examined() {
    let range = |choices: &str, reserved: &str| {
        problems(&format!(
            "sysctls:\n  net.ipv4.ip_local_port_range: {{ oneOf: {choices} }}\n  net.ipv4.ip_local_reserved_ports: '{reserved}'\n"
        ))
    };
    assert_eq!(range("['1024 65535']", ""), ["4:3 ~port-collision"]);
    assert_eq!(range("['32768 60999', '33000 65535']", ""), [""; 0]);
    assert_eq!(range("['32768 60999', '20000 60999']", ""), ["4:3 ~port-collision"]);
    assert_eq!(range("['32000 60999', '20000 60999']", ""), ["4:3 ~port-collision"]);
    assert_eq!(range("['32000 60999', '20000 60999']", "19879,30000-32767"), [""; 0]);
    // A listener that several choices reach is told once.
    let body = format!(
        "{HEAD}sysctls: {{ net.ipv4.ip_local_port_range: {{ oneOf: ['32000 60999', '31000 32500'] }} }}\n"
    );
    let loaded = judge(Origin::Embedded, body.as_bytes()).unwrap();
    let message = &loaded.warnings.first().unwrap().message;
    assert!(message.contains("listen on: 30000-32767 (NodePorts);"), "{message}");
}

#[test]
fn keys_that_change_each_other_are_warned_about_once() {
    let siblings = |keys: &str| problems(&format!("sysctls:\n{keys}"));
    assert_eq!(
        siblings("  vm.dirty_ratio: 20\n  vm.dirty_bytes: 1048576\n"),
        ["5:3 ~sibling-keys"]
    );
    assert_eq!(
        siblings("  vm.dirty_bytes: 1048576\n  vm.dirty_ratio: 20\n"),
        ["5:3 ~sibling-keys"]
    );
    let neigh = |first: &str, second: &str| {
        siblings(&format!(
            "  net/ipv4/neigh/{first}/base_reachable_time: 30\n  net/ipv4/neigh/{second}/base_reachable_time_ms: 20000\n"
        ))
    };
    assert_eq!(neigh("eth0.100", "eth0.100"), ["5:3 ~sibling-keys"]);
    assert_eq!(neigh("default", "default"), ["5:3 ~sibling-keys"]);
    assert_eq!(neigh("eth0", "eth1"), [""; 0]);
    // Two names of one value that agree.
    let instances = |value: u32| {
        siblings(&format!(
            "  fs.inotify.max_user_instances: 8192\n  user.max_inotify_instances: {value}\n"
        ))
    };
    assert_eq!(instances(8192), [""; 0]);
    assert_eq!(instances(1024), ["5:3 ~sibling-keys"]);
    assert_eq!(
        siblings("  net.ipv4.conf.all.forwarding: 0\n  net.ipv4.ip_forward: 1\n"),
        ["5:3 ~sibling-keys"]
    );
    // ip_forward only resets it: to set it as well is how one gets both.
    assert_eq!(
        siblings("  net.ipv4.ip_forward: 1\n  net.ipv4.conf.all.accept_redirects: 0\n"),
        [""; 0]
    );
    // What a profile says is not the user's.
    assert_eq!(
        problems("profiles: [dense-node]\nsysctls: { user.max_inotify_instances: 1024 }\n"),
        [""; 0]
    );
}

/// No kernel value has control characters or is that long, so this needs no knowledge of the key.
#[test]
fn unprintable_and_endless_values_are_refused_for_every_policy() {
    let long = "1 ".repeat(2100);
    for policy in [
        r#"net.ipv4.tcp_rmem: {min: "1\n2\n3"}"#,
        r#"net.ipv4.tcp_rmem: {max: "1 2\e 3"}"#,
        r#"net.ipv4.no_such_key: "a\e[31mRED\nX""#,
        r#"net.ipv4.no_such_key: {oneOf: [a, "b\0"]}"#,
        r#"net.ipv4.no_such_key: {min: "1\r"}"#,
        &format!("net.ipv4.no_such_key: '{long}'"),
        &format!("net.ipv4.no_such_key: {{max: '{long}'}}"),
    ] {
        assert_eq!(problems(&format!("sysctls:\n  {policy}\n")), ["4:3 value"], "{policy}");
    }
}

#[test]
fn addresses_are_few_and_different() {
    let listen = |addresses: &[String]| {
        problems(&format!("server:\n  listen: ['{}']\n", addresses.join("', '")))
    };
    let ports = |count: u16| (1..=count).map(|port| format!("[::1]:{port}")).collect::<Vec<_>>();
    assert_eq!(listen(&ports(16)), [""; 0]);
    assert_eq!(listen(&ports(17)), ["4:195 too-many-addresses"]);
    let twice = ["[::1]:1".to_owned(), "127.0.0.1:1".to_owned(), "[0::1]:1".to_owned()];
    assert_eq!(listen(&twice), ["4:38 duplicate-address"]);
    assert_eq!(config("server: { listen: [] }\n").listen, []);
}

#[test]
fn patterns_keep_the_order_of_the_document_and_stand_for_interfaces_only() {
    let config = config(
        "sysctls:\n  net.ipv4.conf.*.rp_filter: 2\n  net/ipv4/conf/eth0.*/tag: { min: 1 }\n  \
         net.ipv4.conf.all.rp_filter: 1\n  net.ipv4.conf.eth?.rp_filter: 0\n",
    );
    let patterns: Vec<&str> = config.globs.iter().map(|(glob, _)| glob.as_str()).collect();
    assert_eq!(
        patterns,
        ["net.ipv4.conf.*.rp_filter", "net.ipv4.conf.eth0/*.tag", "net.ipv4.conf.eth?.rp_filter"]
    );
    let wanted = |key: &str| {
        let policy = config.policy_of(&Key::parse(key).unwrap());
        policy.map(|policy| policy.want.to_string()).unwrap_or_default()
    };
    assert_eq!(wanted("net.ipv4.conf.all.rp_filter"), "1", "a key's own policy");
    assert_eq!(wanted("net.ipv4.conf.eth0.rp_filter"), "0", "the last pattern that matches");
    assert_eq!(wanted("net.ipv4.conf.lo.rp_filter"), "2");
    assert_eq!(wanted("net/ipv4/conf/eth0.5/tag"), ">= 1");
    assert_eq!(wanted("net.ipv4.conf.lo.tag"), "");

    assert_eq!(
        problems(
            "sysctls:\n  net.ipv4.conf.*.rp_filter: 2\n  net/ipv4/conf/*/rp_filter: 2\n  \
             net.ipv4.conf.*.nosuch: 1\n  net.ipv4.conf.*.forwarding: [1]\n  vm.*: 1\n  \
             net.ipv4.conf.*.tag: '1 2'\n  net.ipv4.conf.[a].tag: 1\n",
        ),
        [
            "5:3 duplicate-key",
            "6:3 ~unknown-key",
            "7:31 invalid-value",
            "8:3 key-pattern",
            "9:3 ~dead-key",
            "9:3 value",
            "10:3 key-pattern"
        ]
    );
}

#[test]
fn limits_are_found_or_given() {
    let none = config("");
    assert_eq!(none.limits, super::super::Limits::default());
    let auto = config("limits: { maxPods: auto, reserve: 0, podRange: auto }\n");
    assert_eq!(auto.limits, none.limits);
    let given = config("limits: { maxPods: 500, reserve: 20, podRange: 10.244.0.0/23 }\n").limits;
    assert_eq!((given.max_pods, given.reserve), (Some(500), 20));
    let shown = |ranges: Option<Vec<super::super::cidr::Cidr>>| {
        ranges.unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(shown(given.pod_range), ["10.244.0.0/23"]);
    let both = config("limits: { podRange: [10.244.0.0/24, 'fd00:10:244::/64'] }\n").limits;
    assert_eq!(shown(both.pod_range), ["10.244.0.0/24", "fd00:10:244::/64"]);
}

#[test]
fn limits_that_make_no_sense_are_refused_one_by_one() {
    let of = |fields: &str| problems(&format!("limits:\n{fields}"));
    assert_eq!(of("  maxPods: 0\n"), ["4:12 value"]);
    assert_eq!(of("  maxPods: 100001\n"), ["4:12 value"]);
    assert_eq!(of("  maxPods: -1\n"), ["4:12 invalid-type"]);
    assert_eq!(of("  maxPods: '250'\n"), ["4:12 invalid-value"]);
    assert_eq!(of("  maxPods: many\n"), ["4:12 invalid-value"]);
    assert_eq!(of("  maxPods: [1]\n"), ["4:12 invalid-type"]);
    assert_eq!(of("  maxPods: 110\n  reserve: 110\n"), ["5:12 value"]);
    assert_eq!(of("  maxPods: 0\n  reserve: 110\n"), ["4:12 value"]);
    assert_eq!(of("  reserve: 100000\n"), ["4:12 value"]);
    assert_eq!(of("  reserve: -1\n"), ["4:12 out-of-range"]);
    assert_eq!(of("  podRange: 10.244.0.0\n"), ["4:13 value"]);
    assert_eq!(of("  podRange: 10.244.0.7/24\n"), ["4:13 value"]);
    assert_eq!(of("  podRange: 0.0.0.0/0\n"), ["4:13 value"]);
    assert_eq!(of("  podRange: 24\n"), ["4:13 invalid-type"]);
    assert_eq!(of("  podRange: []\n"), ["4:13 value"]);
    assert_eq!(of("  podRange: [10.244.0.0/24, auto]\n"), ["4:29 value"]);
    let inside = "  podRange: [10.244.0.0/16, 'fd00::/64', 10.244.3.0/24, 10.0.0.0/8]\n";
    assert_eq!(of(inside), ["4:42 value", "4:57 value"]);
    assert_eq!(of("  pods: 5\n"), ["4:3 unknown-field"]);
    let document = format!("{HEAD}limits: {{ podRange: [10.244.0.7/24] }}\n");
    let error = judge(Origin::Embedded, document.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("limits.podRange[0]: the address has bits"), "{error}");
    assert!(error.ends_with("the network is 10.244.0.0/24"), "{error}");
}
