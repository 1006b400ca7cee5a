//! Real pods beside a real agent: what their first processes see, and whose they are said to be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;

use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::cri::{Burst, Containerd, Node, Pod, PodSpec};
use headroom_tests::root_or_skip;
use serde_json::Value;

const PODS: usize = 100;
const PORTS: &str = "net/ipv4/ip_local_port_range";

/// An agent's home on a node, with the directories it looks at by default.
fn home<'a>(node: &'a Node, pods: &str) -> Home<'a> {
    let home = Home::on(node);
    home.configure(&format!("hostNetns: current\npods:\n{pods}"));
    home
}

/// What the agent says of a pod's namespace.
fn shown(agent: &Agent<'_>, pod: &Pod<'_>) -> Value {
    let name = pod.netns().unwrap().file_name().unwrap().to_str().unwrap();
    let status = agent.status();
    let mut all = status["pods"]["namespaces"].as_array().into_iter().flatten();
    let found = all.find(|one| one["path"].as_str().unwrap().ends_with(name));
    found.cloned().unwrap_or_default()
}

fn key<'a>(namespace: &'a Value, name: &str) -> &'a Value {
    let mut keys = namespace["keys"].as_array().into_iter().flatten();
    keys.find(|key| key["key"] == name).unwrap_or(&Value::Null)
}

#[test]
fn the_first_process_of_every_pod_has_the_values_and_every_pod_its_name() {
    let Some(host) = root_or_skip() else { return };
    let runtime = Containerd::start(&host);
    let home = home(
        runtime.node(),
        "  - { name: web, match: { namespaces: [\"web-*\"] }, sysctls: { net.core.somaxconn: 20000 } }
  - name: all
    sysctls: { net.core.somaxconn: 16384, net.ipv4.ip_local_port_range: \"1024 65535\" }
",
    );
    let mut agent = home.start();
    let make = |number: usize| {
        let namespace = ["default", "web-1"][number % 2];
        let spec = PodSpec::new(namespace, &format!("pod-{number}"));
        // A third asks for something itself: containerd sets that after the agent was there.
        let own = number.is_multiple_of(3);
        let spec = if own { spec.sysctl("net.core.somaxconn", "777") } else { spec };
        let pod = runtime.run_pod(spec);
        let printed = pod.run(&["print", "net/core/somaxconn", PORTS]);
        let somaxconn = match (own, number % 2) {
            (true, _) => 777,
            (false, 0) => 16384,
            (false, _) => 20000,
        };
        (pod, printed, format!("{somaxconn}\n1024\t65535\n"))
    };
    let pods: Vec<(Pod<'_>, String, String)> = std::thread::scope(|scope| {
        let half = |first: usize| move || (first..PODS).step_by(2).map(make).collect::<Vec<_>>();
        let halves = [0, 1].map(|first| scope.spawn(half(first)));
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    let wrong = pods.iter().filter(|(_, printed, wanted)| printed != wanted);
    let wrong: Vec<_> = wrong.map(|(pod, printed, _)| (pod.spec(), printed)).collect();
    assert!(wrong.is_empty(), "{} of {PODS}: {wrong:#?}", wrong.len());

    for (pod, ..) in &pods {
        agent.wait_until("aware of its name", |agent| !shown(agent, pod)["pod"].is_null());
        let (shown, spec) = (shown(&agent, pod), pod.spec());
        let identity = ["namespace", "name", "uid"].map(|part| &shown["pod"][part]);
        assert_eq!(identity, [&spec.namespace, &spec.name, &spec.uid]);
        assert_eq!(shown["late"], false);
        assert_eq!(key(&shown, "net.ipv4.ip_local_port_range")["policy"], "all");
    }
    assert_eq!(runtime.node().network().read("net/core/somaxconn"), "4096");
    std::thread::scope(|scope| {
        for (pod, ..) in pods {
            scope.spawn(|| pod.delete());
        }
    });
    agent.wait_until("rid of them", |agent| {
        agent.status()["pods"]["namespaces"].as_array().is_none_or(Vec::is_empty)
    });
    assert_eq!(fs::read_dir(home.state().join("pods")).unwrap().count(), 0);
}

/// The story of `net.core.somaxconn`: the program asks for a long queue and the pod's namespace
/// cuts it to 4096, whatever the host has.
#[test]
fn a_burst_overflows_a_servers_backlog_and_does_not_with_a_policy() {
    let Some(host) = root_or_skip() else { return };
    let runtime = Containerd::start(&host);
    runtime.node().network().write("net/core/somaxconn", "16384");
    let overflows = |name: &str| {
        let pod = runtime.run_pod(PodSpec::new("default", name));
        pod.start(&["serve", "80", "65535"]).wait_for("listening");
        let burst = Burst::new(&pod, 80, 6000);
        burst.overflows(&pod)
    };
    assert!(overflows("before") > 0);
    let home = home(runtime.node(), "  - { name: all, sysctls: { net.core.somaxconn: 16384 } }\n");
    let _agent = home.start();
    assert_eq!(overflows("after"), 0);
}
