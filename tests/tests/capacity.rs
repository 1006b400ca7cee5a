//! How many more pods fit, as an agent tells it: in metrics, in `status` and in `plan`.

#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use headroom_tests::agent_process::Home;
use headroom_tests::{HostLock, Namespace, root_or_skip};
use serde_json::Value;

/// A node that is a namespace of its own, with a bridge of so many ports.
fn node(host: &HostLock, ports: u64) -> Namespace {
    let netns = Namespace::new(host);
    netns.ip(["link", "add", "cni0", "type", "bridge"]);
    grow(&netns, 0, ports);
    netns
}

fn grow(netns: &Namespace, from: u64, to: u64) {
    let port = |n: u64| format!("link add v{n} master cni0 type veth peer name p{n}\n");
    netns.ip_batch((from..to).map(port).collect::<String>());
}

const CONFIG: &str = "hostNetns: current\npodNamespaces: { directories: [/nonexistent] }\n";

fn limit<'a>(status: &'a Value, name: &str, object: &str) -> &'a Value {
    let mut limits = status["limits"].as_array().unwrap().iter();
    limits.find(|limit| limit["limit"] == name && limit["object"] == object).unwrap()
}

#[test]
fn an_agent_tells_how_many_more_pods_fit_and_what_stops_the_next_one() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host, 1000);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let mut agent = home.start();
    agent.wait_until("right about the bridge", |agent| {
        agent.status()["bridges"][0]["ports"] == 1000
    });

    let status = agent.status();
    let bridge = limit(&status, "bridge_ports", "cni0");
    assert_eq!((&bridge["podsRemaining"], &bridge["podCost"]), (&23.into(), &1.0.into()));
    assert_eq!((&bridge["podCostFrom"], &bridge["exactness"]), (&"fixed".into(), &"exact".into()));
    let capacity = &status["capacity"];
    let sentence = capacity["sentence"].as_str().unwrap();
    let binding = &capacity["bindingLimit"];
    assert!(capacity["podsRemaining"].as_u64().unwrap() <= 23, "{sentence}");
    let object = binding["object"].as_str().unwrap();
    let name = binding["limit"].as_str().unwrap();
    assert_eq!(limit(&status, name, object)["podsRemaining"], capacity["podsRemaining"]);

    let scrape = agent.metrics();
    let labels = [("limit", "bridge_ports"), ("object", "cni0")];
    assert_eq!(scrape.value("headroom_limit_pods_remaining", &labels), Some(23.0));
    let remaining = capacity["podsRemaining"].as_f64();
    assert_eq!(scrape.value("headroom_node_pods_remaining", &[]), remaining);
    let info = [("limit", name), ("object", object)];
    assert_eq!(scrape.value("headroom_node_binding_limit_info", &info), Some(1.0));
    let shown = home.run(["status"]);
    assert!(shown.stdout.contains(sentence), "{shown:?}");

    grow(&netns, 1000, 1023);
    agent.wait_until("full", |agent| agent.status()["capacity"]["podsRemaining"] == 0);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn a_plan_on_a_node_starts_from_what_it_has() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host, 40);
    let home = Home::inside(&netns);
    home.configure(CONFIG);
    let plan = |args: &[&str]| home.run([&["plan", "-o", "json"], args].concat());

    let done = plan(&["--pods", "3000", "--what-if", "net.ipv4.neigh.default.gc_thresh3=65536"]);
    assert_eq!(done.code, Some(3), "{done:?}");
    let answer = done.json();
    assert_eq!(answer["from"], "cli");
    assert_eq!(answer["whatIf"]["net.ipv4.neigh.default.gc_thresh3"], 65536);
    assert_eq!(answer["thenStoppedBy"]["limit"], "bridge_ports");
    let fits = answer["podsPossibleThen"].as_u64().unwrap() - answer["podsNow"].as_u64().unwrap();
    assert_eq!(fits, 983);

    let text = home.run(["plan", "--pods", "3000"]);
    assert!(text.stdout.contains("nothing raises it; what people do"), "{text:?}");
    let other = plan(&["--pods", "3000", "--cni", "other"]).json();
    assert_ne!(other["thenStoppedBy"]["limit"], "bridge_ports");
    let wrong = plan(&["--what-if", "net.core.somaxconn=1"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("raises no limit that is known here"), "{wrong:?}");
}
