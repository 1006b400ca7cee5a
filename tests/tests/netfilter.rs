//! Netfilter's rules on a real kernel: counted as the tools that made them list them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use headroom::kernel::name::Name;
use headroom::kernel::netfilter::legacy::{self, Legacy};
use headroom::kernel::system::thread_cpu_time;
use headroom::limits::netfilter::reader::{Reader, Reads};
use headroom::limits::netfilter::{Backend, Count, Counts, Family, Mode, Netfilter, Owner};
use headroom_tests::agent_process::{Agent, Finished, Home};
use headroom_tests::{Namespace, root_or_skip};

const OBSERVE: &str = "mode: observe\nhostNetns: current\n";

/// Runs a tool in the namespace, with `input` as its standard input.
fn run(netns: &Namespace, program: &str, args: &[&str], input: &str) -> String {
    let done = netns.run(|| Finished::of(Command::new(program).args(args), input.as_bytes()));
    assert_eq!(done.code, Some(0), "{program} {args:?}: {}", done.stderr);
    done.stdout
}

fn read(netns: &Namespace, reader: &mut Reader) -> Netfilter {
    let (found, failed) = netns.run(|| reader.read());
    assert_eq!(failed, None);
    assert_eq!(found.unknown, Vec::<String>::new());
    found
}

fn names(netns: &Namespace) -> [String; 2] {
    ["ip_tables_names", "ip6_tables_names"].map(|file| {
        netns.run(|| std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))).unwrap()
    })
}

/// What kube-proxy's iptables mode makes, in its shape, beside kubelet's and a CNI plugin's chains.
fn kube_proxy(six: bool, services: usize, endpoints: usize) -> String {
    let (address, net) = if six { ("fd00:96::", 128) } else { ("10.96.0.", 32) };
    let mut text = String::from(
        "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
         :KUBE-MARK-MASQ - [0:0]\n:KUBE-KUBELET-CANARY - [0:0]\n:KUBE-PROXY-CANARY - [0:0]\n\
         :CNI-1234 - [0:0]\n",
    );
    for service in 0..services {
        writeln!(text, ":KUBE-SVC-{service:016} - [0:0]").unwrap();
        for endpoint in 0..endpoints {
            writeln!(text, ":KUBE-SEP-{service:08}{endpoint:08} - [0:0]").unwrap();
        }
    }
    text += "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
             -A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
             -A POSTROUTING -j CNI-1234\n-A CNI-1234 -j ACCEPT\n\
             -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
             -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n";
    for service in 0..services {
        let comment = format!("-m comment --comment \"space/service-{service}:http cluster IP\"");
        let host = service % 200 + 1;
        writeln!(
            text,
            "-A KUBE-SERVICES -d {address}{host}/{net} -p tcp {comment} -m tcp --dport {} -j \
             KUBE-SVC-{service:016}",
            service + 1
        )
        .unwrap();
        for endpoint in 0..endpoints {
            let (svc, sep) =
                (format!("KUBE-SVC-{service:016}"), format!("KUBE-SEP-{service:08}{endpoint:08}"));
            let to = if six { "[fd00::5]:80" } else { "10.0.0.5:80" };
            writeln!(
                text,
                "-A {svc} {comment} -j {sep}\n-A {sep} -s {address}7/{net} {comment} -j \
                 KUBE-MARK-MASQ\n-A {sep} -p tcp {comment} -j DNAT --to-destination {to}"
            )
            .unwrap();
        }
    }
    text += "COMMIT\n*filter\n:KUBE-FIREWALL - [0:0]\n:KUBE-FORWARD - [0:0]\n\
             -A INPUT -j KUBE-FIREWALL\n-A FORWARD -j KUBE-FORWARD\n-A KUBE-FIREWALL -j DROP\n\
             -A KUBE-FORWARD -j ACCEPT\nCOMMIT\n";
    text
}

/// What `iptables-save` lists. A chain of kubelet's or of no name in Kubernetes is another's.
fn listed(backend: Backend, family: Family, saved: &str) -> Counts {
    let mut counts = Counts::new();
    let owner = |chain: &str| match chain {
        "KUBE-FIREWALL" | "KUBE-KUBELET-CANARY" => Owner::Other,
        chain if chain.starts_with("KUBE-") => Owner::KubeProxy,
        _ => Owner::Other,
    };
    for line in saved.lines() {
        let mut count = |chain, chains, rules| {
            let sum = counts.entry((backend, family, owner(chain))).or_default();
            Count::add(sum, chains, rules);
        };
        if let Some(chain) = line.strip_prefix(':') {
            count(chain.split(' ').next().unwrap(), 1, 0);
        } else if let Some(rule) = line.strip_prefix("-A ") {
            count(rule.split(' ').next().unwrap(), 0, 1);
        }
    }
    counts
}

#[test]
fn iptables_legacy_is_counted_as_its_own_tool_lists_it() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "iptables-legacy-restore", &[], &kube_proxy(false, 100, 9));
    run(&netns, "ip6tables-legacy-restore", &[], &kube_proxy(true, 3, 2));
    run(&netns, "iptables-legacy", &["-t", "mangle", "-A", "INPUT", "-j", "ACCEPT"], "");
    let mut expected = listed(
        Backend::IptablesLegacy,
        Family::Ipv4,
        &run(&netns, "iptables-legacy-save", &[], ""),
    );
    expected.extend(listed(
        Backend::IptablesLegacy,
        Family::Ipv6,
        &run(&netns, "ip6tables-legacy-save", &[], ""),
    ));
    let before = names(&netns);
    let mut reader = Reader::new("/proc");
    let found = read(&netns, &mut reader);
    assert_eq!(found.counts, expected);
    assert_eq!(expected.len(), 4, "{expected:?}");
    assert!(expected.values().any(|count| count.rules > 2700), "{expected:?}");
    assert_eq!(found.modes, Some(vec![Mode::IptablesLegacy]));
    assert_eq!(names(&netns), before, "asking makes no table");

    let reads = reader.reads();
    assert_eq!(reads.tables, 5);
    read(&netns, &mut reader);
    assert_eq!(reader.reads(), reads, "nothing is read that has not changed");
    run(&netns, "iptables-legacy", &["-t", "mangle", "-A", "INPUT", "-j", "ACCEPT"], "");
    let now = read(&netns, &mut reader);
    assert_eq!(reader.reads().tables, 6, "the one table alone");
    let other = (Backend::IptablesLegacy, Family::Ipv4, Owner::Other);
    assert_eq!(now.counts[&other].rules, found.counts[&other].rules + 1);
}

/// A bound that needs no reading of the table: kernel-facts' 9000 rules in 1000 chains.
#[test]
fn the_number_of_entries_is_a_bound_of_the_rules() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let mut text = String::from("*filter\n");
    (0..10).for_each(|chain| writeln!(text, ":C{chain} - [0:0]").unwrap());
    (0..90).for_each(|rule| writeln!(text, "-A C{} -s 10.0.0.{rule}", rule % 10).unwrap());
    run(&netns, "iptables-legacy-restore", &[], &(text + "COMMIT\n"));
    netns.run(|| {
        let table = legacy::tables("/proc".as_ref(), Family::Ipv4).unwrap().remove(0);
        let info = Legacy::open(false).unwrap().info(&table).unwrap();
        assert_eq!(info.entries, 90 + 3 + 2 * 10 + 1);
        assert_eq!(info.most_rules(), 90 + 2 * 10);
        // One that is not listed is refused by name, and is not made.
        let none = Name::from_bytes(*b"none");
        assert!(Legacy::open(false).unwrap().info(&none).is_err());
    });
}

#[test]
fn iptables_nft_is_counted_as_its_own_tool_lists_it() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "iptables-nft-restore", &[], &kube_proxy(false, 100, 9));
    run(&netns, "ip6tables-nft-restore", &[], &kube_proxy(true, 3, 2));
    let mut expected =
        listed(Backend::IptablesNft, Family::Ipv4, &run(&netns, "iptables-nft-save", &[], ""));
    expected.extend(listed(
        Backend::IptablesNft,
        Family::Ipv6,
        &run(&netns, "ip6tables-nft-save", &[], ""),
    ));
    // The tool also lists built-in chains that it has not made.
    let by_nft = by_nft(&run(&netns, "nft", &["-j", "list", "ruleset"], ""));
    let mut reader = Reader::new("/proc");
    let found = read(&netns, &mut reader);
    for (key, count) in &found.counts {
        assert_eq!(count.rules, expected[key].rules, "{key:?}");
    }
    assert_eq!(found.counts.len(), expected.len());
    let chains = found.counts.values().map(|count| count.chains.unwrap()).sum::<u64>();
    assert_eq!(chains, by_nft.values().map(|count| count.chains.unwrap()).sum::<u64>());
    assert_eq!(found.modes, Some(vec![Mode::IptablesNft]));
    assert_eq!(names(&netns), ["", ""], "no legacy table");
}

/// Counts by table of what `nft -j list ruleset` lists, in the families that are counted.
fn by_nft(ruleset: &str) -> BTreeMap<(String, String), Count> {
    let ruleset: serde_json::Value = serde_json::from_str(ruleset).unwrap();
    let mut counts = BTreeMap::<(String, String), Count>::new();
    for item in ruleset["nftables"].as_array().unwrap() {
        for (kind, chains, rules) in [("chain", 1, 0), ("rule", 0, 1)] {
            if let Some(it) = item.get(kind) {
                let text = |name: &str| it[name].as_str().unwrap().to_owned();
                let key = (text("family"), text("table"));
                if ["ip", "ip6", "inet"].contains(&key.0.as_str()) {
                    counts.entry(key).or_default().add(chains, rules);
                }
            }
        }
    }
    counts
}

/// What kube-proxy's nftables mode makes, in its shape: maps jump, not rules.
fn nft_ruleset(services: usize) -> String {
    let mut text = String::from(
        "table ip kube-proxy {\n\
           map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }\n\
           chain mark-for-masquerade { meta mark set meta mark or 0x4000; }\n\
           chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }\n\
           chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }\n",
    );
    for service in 0..services {
        let (high, low) = (service / 250, service % 250 + 1);
        writeln!(
            text,
            "chain endpoint-{service} {{ ip saddr 10.1.{high}.{low} jump mark-for-masquerade; \
             meta l4proto tcp dnat to 10.1.{high}.{low}:80; }}\n\
             chain service-{service} {{ numgen random mod 1 vmap {{ 0 : goto endpoint-{service} }}; }}"
        )
        .unwrap();
    }
    text += "}\ntable ip kube-proxy {\nmap service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = {\n";
    for service in 0..services {
        let (high, low) = (service / 250, service % 250 + 1);
        writeln!(text, "10.96.{high}.{low} . tcp . 80 : goto service-{service},").unwrap();
    }
    text + "}\n}\n}\n\
            table inet filter {\nchain input { type filter hook input priority 0; accept; }\n}\n\
            table ip6 mine {\nchain one { counter; drop; }\nchain two { jump one; }\n}\n\
            table bridge elsewhere {\nchain one { accept; }\n}\n"
}

#[test]
fn nftables_is_counted_as_nft_lists_it() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "nft", &["-f", "-"], &nft_ruleset(300));
    let expected = by_nft(&run(&netns, "nft", &["-j", "list", "ruleset"], ""));
    let of = |family: &str, table: &str| expected[&(family.to_owned(), table.to_owned())];
    let mut reader = Reader::new("/proc");
    let found = read(&netns, &mut reader);
    let nftables = |family, owner| (Backend::Nftables, family, owner);
    let wanted = Counts::from([
        (nftables(Family::Ipv4, Owner::KubeProxy), of("ip", "kube-proxy")),
        (nftables(Family::Inet, Owner::Other), of("inet", "filter")),
        (nftables(Family::Ipv6, Owner::Other), of("ip6", "mine")),
    ]);
    assert_eq!(found.counts, wanted);
    assert_eq!(of("ip", "kube-proxy"), Count { rules: 903, chains: Some(603) });
    assert_eq!(found.modes, Some(vec![Mode::Nftables]));
}

#[test]
fn nothing_is_dumped_while_the_generation_stays() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "nft", &["-f", "-"], &nft_ruleset(10));
    let mut reader = Reader::new("/proc");
    let first = read(&netns, &mut reader);
    let reads = |chains, rules| Reads { tables: 0, chains, rules };
    assert_eq!(reader.reads(), reads(1, 1));
    for _ in 0..3 {
        assert_eq!(read(&netns, &mut reader).counts, first.counts);
    }
    assert_eq!(reader.reads(), reads(1, 1));
    // Another generation, and no other rules: kube-proxy's synchronisations are mostly that.
    run(&netns, "nft", &["add", "set", "ip6", "mine", "s", "{ type ipv6_addr; }"], "");
    assert_eq!(read(&netns, &mut reader).counts, first.counts);
    assert_eq!(reader.reads(), reads(2, 1));
    run(&netns, "nft", &["add", "rule", "ip6", "mine", "two", "accept"], "");
    let now = read(&netns, &mut reader);
    assert_eq!(reader.reads(), reads(3, 2));
    let key = (Backend::Nftables, Family::Ipv6, Owner::Other);
    assert_eq!(now.counts[&key].rules, first.counts[&key].rules + 1);
    run(&netns, "nft", &["flush", "ruleset"], "");
    assert_eq!(read(&netns, &mut reader).counts, Counts::new());
}

#[test]
fn asking_an_empty_namespace_makes_nothing() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    assert_eq!(names(&netns), ["", ""]);
    let mut reader = Reader::new("/proc");
    for _ in 0..2 {
        let found = read(&netns, &mut reader);
        assert_eq!((found.counts, found.modes), (Counts::new(), Some(vec![])));
    }
    assert_eq!(names(&netns), ["", ""]);
    assert_eq!(run(&netns, "nft", &["list", "ruleset"], ""), "");
}

#[test]
fn a_change_while_it_is_read_is_no_error() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "nft", &["-f", "-"], &nft_ruleset(1000));
    let before = read(&netns, &mut Reader::new("/proc"));
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            for _ in 0..20 {
                // One exchanged for another: the counts stay.
                let batch = "flush chain ip6 mine two\nadd rule ip6 mine two jump one\n";
                run(&netns, "nft", &["-f", "-"], batch);
            }
        });
        let mut reader = Reader::new("/proc");
        while !changes.is_finished() {
            let (found, failed) = netns.run(|| reader.read());
            match failed {
                None => assert_eq!(found.counts, before.counts),
                Some(why) => assert!(why.contains("interrupted by changes"), "{why}"),
            }
        }
    });
    assert_eq!(read(&netns, &mut Reader::new("/proc")).counts, before.counts);
}

#[test]
fn without_the_capability_it_is_unknown_and_said() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "iptables-legacy-restore", &[], &kube_proxy(false, 2, 2));
    let home = Home::inside(&netns);
    home.configure(OBSERVE);
    let status = |wrapper: &[&str], json: bool| {
        let mut command = home.wrapped(wrapper, ["status"]);
        command.args(json.then_some("--output=json"));
        home.enter(|| Finished::of(&mut command, b""))
    };
    let bounded = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    let denied = status(&bounded, true);
    let json = denied.json();
    let unknown = json["netfilter"]["unknown"].as_array().unwrap();
    assert_eq!(unknown.len(), 2, "{json}");
    assert!(unknown.iter().all(|it| it.as_str().unwrap().contains("CAP_NET_ADMIN")), "{json}");
    assert_eq!(json["netfilter"]["rules"], serde_json::json!([]));
    assert!(json["netfilter"].get("kubeProxyModes").is_none(), "{json}");
    let collectors = json["collectors"].as_array().unwrap();
    let netfilter = collectors.iter().find(|it| it["name"] == "netfilter").unwrap();
    assert_eq!(netfilter["ok"], true, "a capability that is not given is no failure");
    assert!(status(&bounded, false).stdout.contains("kube-proxy: mode not known"));

    let shown = status(&[], false).stdout;
    assert!(
        shown.contains("NETFILTER RULES  kube-proxy: iptables (by iptables-legacy)"),
        "{shown}"
    );
    assert!(shown.contains("nftables mode looks services up in maps"), "{shown}");
    let json = status(&[], true).json();
    assert_eq!(json["netfilter"]["kubeProxyModes"], serde_json::json!(["iptables-legacy"]));
}

#[test]
fn the_agent_exports_rules_chains_and_their_age() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    run(&netns, "nft", &["-f", "-"], &nft_ruleset(5));
    let home = Home::inside(&netns);
    home.configure(OBSERVE);
    let mut agent = home.start();
    let labels = [("backend", "nftables"), ("family", "ipv4"), ("owner", "kube-proxy")];
    let rules = |agent: &Agent<'_>| agent.metrics().value("headroom_netfilter_rules", &labels);
    agent.wait_until("counting", |agent| rules(agent).is_some());
    let scrape = agent.metrics();
    assert_eq!(scrape.value("headroom_netfilter_rules", &labels), Some(18.0));
    assert_eq!(scrape.value("headroom_netfilter_chains", &labels), Some(13.0));
    let age = [("limit", "netfilter_rules")];
    assert!(scrape.value("headroom_limit_age_seconds", &age).is_some());
    let collector = [("collector", "netfilter")];
    assert_eq!(scrape.value("headroom_collector_success", &collector), Some(1.0));
}

/// Prints what a round costs at about 9000 rules in 1000 chains: by hand, with `--ignored
/// --nocapture`, of a release build.
#[test]
#[ignore = "a measurement"]
fn what_a_round_costs() {
    let Some(host) = root_or_skip() else { return };
    let plain = {
        let mut text = String::from("*filter\n");
        (0..1000).for_each(|chain| writeln!(text, ":C{chain} - [0:0]").unwrap());
        (0..1000).for_each(|chain| writeln!(text, "-A INPUT -j C{chain}").unwrap());
        (0..8000).for_each(|rule| {
            let (chain, high, low) = (rule % 1000, rule / 250, rule % 250);
            writeln!(text, "-A C{chain} -s 10.0.{high}.{low} -p tcp -j ACCEPT").unwrap();
        });
        text + "COMMIT\n"
    };
    let kube = kube_proxy(false, 330, 9);
    for (what, tool, input) in [
        ("legacy, 9000 plain rules, 1000 chains", "iptables-legacy-restore", &plain),
        ("nft, 9000 plain rules, 1000 chains", "iptables-nft-restore", &plain),
        ("legacy, 330 services of 9 endpoints", "iptables-legacy-restore", &kube),
        ("nft, 330 services of 9 endpoints", "iptables-nft-restore", &kube),
    ] {
        let netns = Namespace::new(&host);
        run(&netns, tool, &[], input);
        let mut times = [Duration::MAX; 3];
        let mut rules = 0;
        let mut measure = |slot: usize, reader: &mut Reader| {
            let found = netns.run(|| {
                let before = thread_cpu_time();
                let (found, _) = reader.read();
                let now = thread_cpu_time() - before;
                times[slot] = times[slot].min(now);
                found
            });
            rules = found.counts.values().map(|count| count.rules).sum();
        };
        for round in 0..5 {
            let mut reader = Reader::new("/proc");
            measure(0, &mut reader);
            measure(1, &mut reader);
            if tool.contains("nft") {
                let table = format!("t{round}");
                run(&netns, "nft", &["add", "table", "ip", &table], "");
                measure(2, &mut reader);
            }
        }
        let [first, same, generation] = times;
        eprintln!("{what}: {rules} rules: all read {first:?}, nothing changed {same:?}");
        if tool.contains("nft") {
            eprintln!("  another generation with the same chains: {generation:?}");
        }
    }
}
