#![allow(clippy::unwrap_used)]

use std::time::Duration;

use proptest::prelude::*;

use super::super::tests::{config, problems};
use super::*;
use crate::sysctl::policy::{OnConflict, Want};

#[test]
fn a_policy_for_pods_in_full() {
    let config = config(
        "\
pods:
  - name: busy-servers
    match: { namespaces: ['web-*', default], pods: ['*'] }
    sysctls:
      net.core.somaxconn: 10000
      net.ipv4.tcp_keepalive_time: { max: 600, onConflict: enforce }
      net.ipv4.tcp_congestion_control: { oneOf: [bbr, cubic] }
  - name: rest
    sysctls: { net/ipv4/conf/eth0/rp_filter: 2 }
    onConflict: report
podNamespaces: { directories: [/run/netns/, /a], cniCache: /c, sweep: 1m, perPodSeries: 1000 }
",
    );
    let [servers, rest] = config.pods.as_slice() else { unreachable!() };
    assert_eq!((servers.name.as_str(), rest.name.as_str()), ("busy-servers", "rest"));
    assert_eq!(servers.matches.namespaces, ["web-*", "default"]);
    assert!(rest.matches.is_every_pod() && !servers.matches.is_every_pod());
    let policy = |policy: &PodPolicy, key: &str| policy.policies[&Key::parse(key).unwrap()].clone();
    let backlog = policy(servers, "net.core.somaxconn");
    assert_eq!(backlog.want, Want::Value("10000".into()));
    assert_eq!(backlog.on_conflict, OnConflict::Yield, "what somebody set on purpose wins");
    assert!(!backlog.required, "nothing in a pod holds the node's readiness back");
    assert_eq!(backlog.source.to_string(), "configuration line 7");
    let keepalive = policy(servers, "net.ipv4.tcp_keepalive_time");
    assert_eq!(keepalive.on_conflict, OnConflict::Enforce, "a key's own word counts");
    assert_eq!(policy(rest, "net.ipv4.conf.eth0.rp_filter").on_conflict, OnConflict::Report);
    let namespaces = config.pod_namespaces;
    assert_eq!(namespaces.directories, ["/run/netns", "/a"].map(PathBuf::from));
    assert_eq!(namespaces.cni_cache, PathBuf::from("/c"));
    assert_eq!((namespaces.sweep, namespaces.per_pod_series), (Duration::from_secs(60), 1000));
}

#[test]
fn without_the_sections_no_pod_is_touched() {
    let config = config("");
    assert_eq!(config.pods, []);
    assert_eq!(config.pod_namespaces, PodNamespaces::default());
}

#[test]
fn policies_need_a_name_of_their_own_and_keys() {
    let body = "\
pods:
  - sysctls: { net.core.somaxconn: 1 }
  - name: ''
    sysctls: { net.ipv4.tcp_rmem: 1 2 3 }
  - name: a b
    sysctls: {}
  - name: c
  - { name: c, sysctls: { net.ipv4.tcp_syncookies: 1 } }
  -
  - name: [d]
    sysctls: { net.ipv4.tcp_sack: [1] }
    only: web
  - nothing
";
    assert_eq!(
        problems(body),
        [
            "4:5 missing-field",
            "5:11 name",
            "7:5 missing-field",
            "7:11 name",
            "9:5 missing-field",
            "10:13 duplicate-name",
            "11:4 missing-field",
            "11:4 missing-field",
            "12:11 invalid-type",
            "13:35 invalid-value",
            "14:5 unknown-field",
            "15:5 invalid-type",
        ]
    );
}

#[test]
fn keys_that_no_pod_has_are_refused() {
    let body = "\
pods:
  - name: a
    sysctls:
      vm.swappiness: 1
      kernel.shmmax: 1
      net.core.rmem_max: 1
      net.core.netdev_max_backlog: 2000
      net.ipv4.neigh.default.gc_thresh3: 8192
      net.netfilter.nf_hooks_lwtunnel: 1
      net.netfilter.nf_conntrack_max: 1
      net.ipv4.conf.*.rp_filter: 2
      net/ipv4/conf/IFNAME/arp_filter: 1
      net.ipv4.conf.IFNAME.arp_notify: 1
      net/../kernel/core_pattern: x
      net.ipv4.route.flush: 1
      net.ipv4.udp_hash_entries: 1
      net.core.somaxconn: 0200
      net/core/somaxconn: 1
      net.ipv4.tcp_sack: { value: 1, required: false }
      net.ipv4.tcp_dsack: {}
      net.core.optmem_max: 131072
      net.core.somaxcon: 1
      net.ipv4.ip_default_ttl: 300
      net.ipv4.conf.all.forwarding: 1
      net.ipv4.ip_forward: 0
";
    assert_eq!(
        problems(body),
        [
            "6:7 not-per-pod",
            "7:7 not-per-pod",
            "8:7 not-per-pod",
            "9:7 not-per-pod",
            "10:7 not-per-pod",
            "11:7 not-per-pod",
            "12:7 not-per-pod",
            "13:7 key-pattern",
            "14:7 placeholder",
            "15:7 placeholder",
            "16:7 key-syntax",
            "17:7 key-refused",
            "18:7 key-refused",
            "19:7 value",
            "20:7 duplicate-key",
            "21:7 policy",
            "22:7 policy",
            "23:7 ~newer-kernel",
            "24:7 ~unknown-key",
            "25:7 ~value-range",
            "27:7 ~sibling-keys",
        ]
    );
}

#[test]
fn patterns_that_no_name_matches_are_refused() {
    let body = "\
pods:
  - name: a
    match:
      namespaces: ['Web-*', '', 'a.b', 'web_1', '-a', 'ä', 'web-*', '?']
      pods: ['a.b', 'a..b', '*-', 'A', 'x[1]']
      labels: { app: web }
    sysctls: { net.core.somaxconn: 1 }
";
    assert_eq!(
        problems(body),
        [
            "6:20 pattern",
            "6:29 pattern",
            "6:33 pattern",
            "6:40 pattern",
            "6:49 pattern",
            "6:55 pattern",
            "7:21 pattern",
            "7:29 pattern",
            "7:35 pattern",
            "7:40 pattern",
            "8:17 ~labels",
        ]
    );
    let long = format!("{}*", "a".repeat(64));
    assert!(never_matches(&long, LONGEST_LABEL, false).is_some());
    assert!(never_matches(&long, LONGEST_SUBDOMAIN, true).is_none());
}

#[test]
fn a_key_that_an_earlier_policy_always_decides_is_told() {
    let body = "\
pods:
  - { name: a, match: { pods: ['a*'] }, sysctls: { net.ipv4.tcp_sack: 1 } }
  - { name: b, match: { namespaces: ['*'] }, sysctls: { net.core.somaxconn: 1 } }
  - { name: c, match: { pods: [c] }, sysctls: { net/core/somaxconn: 2, net.ipv4.tcp_sack: 0 } }
  - { name: d, match: { pods: ['a*'] }, sysctls: { net.ipv4.tcp_sack: 0 } }
  - { name: e, match: { labels: { x: y } }, sysctls: { net.ipv4.tcp_dsack: 0 } }
  - { name: f, sysctls: { net.ipv4.tcp_dsack: 0 } }
";
    assert_eq!(problems(body), ["6:49 ~shadowed-key", "7:52 ~shadowed-key", "8:35 ~labels"]);
}

#[test]
fn directories_and_numbers_have_bounds() {
    let namespaces = |fields: &str| problems(&format!("podNamespaces: {{ {fields} }}\n"));
    assert_eq!(
        namespaces("directories: [run/netns, /a, /a/], cniCache: x, perPodSeries: 1001"),
        ["3:32 path", "3:47 duplicate-path", "3:63 path", "3:80 value"]
    );
    assert_eq!(namespaces("directories: []"), ["3:31 missing-field"]);
    assert_eq!(namespaces("directories: [[]]"), ["3:32 invalid-type"]);
    assert_eq!(
        namespaces("directories: [/1, /2, /3, /4, /5, /6, /7, /8, /9]"),
        ["3:64 too-many-directories"]
    );
    assert_eq!(namespaces("directories: [/]"), ["3:32 path"]);
    assert_eq!(namespaces("directories: [/run/../etc]"), ["3:32 path"]);
    assert_eq!(namespaces("cniCache: /").len(), 1);
    assert_eq!(namespaces("sweep: 2h, perPodSeries: -1").len(), 2);
    let many: String = (0..102)
        .map(|index| format!("- {{ name: p{index}, match: {{ pods: [p{index}] }}, sysctls: {{ net.ipv4.tcp_sack: 1 }} }}\n"))
        .collect();
    assert_eq!(problems(&format!("pods:\n{many}")), ["104:3 too-many-policies"]);
}

/// What is said of a key in pods leads on.
#[test]
fn messages_say_where_a_key_belongs() {
    let message = |key: &str| not_of_a_pod(&Key::parse(key).unwrap()).unwrap().message;
    assert!(message("net.core.rmem_max").contains("`sysctls`"));
    assert!(message("kernel.shmmax").contains("securityContext"));
    assert!(message("net.core.optmem_max").contains("6.8"));
    assert!(message("net.ipv4.neigh.default.base_reachable_time_ms").contains("neigh.eth0"));
    assert!(not_of_a_pod(&Key::parse("net.core.somaxconn").unwrap()).is_none());
}

proptest! {
    /// A pattern made of a name that Kubernetes takes is never called impossible.
    #[test]
    fn patterns_of_real_names_are_taken(
        name in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?",
        cut in 0usize..22,
        wildcard in "[*?]",
    ) {
        let mut pattern = name.clone();
        let cut = cut.min(name.len() - 1);
        pattern.replace_range(cut..=cut, &wildcard);
        prop_assert_eq!(never_matches(&name, LONGEST_LABEL, false), None);
        prop_assert_eq!(never_matches(&pattern, LONGEST_LABEL, false), None);
        let covers = wildmatch::WildMatch::new(&pattern).matches(&name);
        prop_assert!(covers);
    }
}
