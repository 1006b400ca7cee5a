use super::*;

/// Waits until the agent has seen what a module brought along. The kernel tells of a module before
/// the module's own code has run; where that took longer than the agent expects, another module is
/// another reason to look, and until then there is none.
fn wait_for_what_was_loaded(what: &str, holds: impl Fn() -> bool) {
    let mut nudge_at = Instant::now() + Duration::from_secs(10);
    wait_until(what, || {
        if Instant::now() >= nudge_at {
            eprintln!("{what}: not after the module's own event");
            load("xt_comment", &[]);
            unload(&["xt_comment"]);
            nudge_at = Instant::now() + Duration::from_secs(10);
        }
        holds()
    });
}

/// A module's key: pending without the module, set when it comes, pending again when it goes,
/// set again, each time with the original of that time on record.
fn comes_and_goes(
    key: &str,
    path: &str,
    value: &str,
    load: impl Fn() -> String,
    unload: impl Fn(),
) {
    unload();
    let home = home(&[(key, value)]);
    let agent = home.start();
    assert_eq!(agent.key(key)["state"], "pending", "{}", agent.key(key));
    for round in 0..2 {
        let original = load();
        wait_for_what_was_loaded(key, || read(path).as_deref() == Some(value));
        assert_eq!(wait_until_set(&agent, key, path, value), original, "round {round}");
        // Nothing keeps it: no descriptor that the agent has open is a use of the module.
        unload();
        assert_eq!(read(path), None);
        let gone = wait_for(&agent, key, "pending");
        assert_eq!(gone["actual"], serde_json::Value::Null, "{gone}");
        assert!(agent.is_ready(), "round {round}");
    }
    assert!(agent.log_with(&["panicked"]).is_empty());
}

#[test]
fn conntrack_comes_and_goes_and_its_original_is_the_fresh_one() {
    let Some(_host) = virtual_machine() else { return };
    let gone = || unload(&["ip_vs", "nf_conntrack_netlink", "nf_conntrack"]);
    // The maximum follows from the number of buckets: another number, another original.
    let sizes = ["hashsize=2048", "hashsize=4096"];
    let originals = sizes.map(|size| {
        gone();
        load("nf_conntrack", &[size]);
        read("net/netfilter/nf_conntrack_max").unwrap()
    });
    assert_ne!(originals[0], originals[1]);
    let round = std::cell::Cell::new(0);
    comes_and_goes(
        "net.netfilter.nf_conntrack_max",
        "net/netfilter/nf_conntrack_max",
        "54321",
        || {
            let now = round.replace(round.get() + 1);
            load("nf_conntrack", &[sizes[now]]);
            originals[now].clone()
        },
        gone,
    );
}

#[test]
fn br_netfilter_comes_and_goes() {
    let Some(_host) = virtual_machine() else { return };
    comes_and_goes(
        "net.bridge.bridge-nf-call-iptables",
        "net/bridge/bridge-nf-call-iptables",
        "0",
        || {
            load("br_netfilter", &[]);
            "1".to_owned()
        },
        || unload(&["br_netfilter"]),
    );
}

#[test]
fn ip_vs_comes_and_goes() {
    let Some(_host) = virtual_machine() else { return };
    comes_and_goes(
        "net.ipv4.vs.conntrack",
        "net/ipv4/vs/conntrack",
        "1",
        || {
            load("ip_vs", &[]);
            "0".to_owned()
        },
        || unload(&["ip_vs"]),
    );
}

#[test]
fn readiness_waits_for_a_required_key_until_its_module_is_there() {
    let Some(_host) = virtual_machine() else { return };
    const KEY: &str = "net.bridge.bridge-nf-call-arptables";
    unload(&["br_netfilter"]);
    let home = Home::new();
    home.configure(&format!("watch: {{ sysctlSweep: 1h }}\nsysctls: {{ {KEY}: 0 }}\n"));
    let mut agent = home.launch(home.command(["run"]));
    agent.wait_until_it_answers();
    wait_for(&agent, KEY, "pending");
    assert!(!agent.is_ready());
    load("br_netfilter", &[]);
    wait_for_what_was_loaded("ready", || agent.is_ready());
    assert_eq!(read("net/bridge/bridge-nf-call-arptables").as_deref(), Some("0"));
    unload(&["br_netfilter"]);
    wait_until("unready again", || !agent.is_ready());
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn a_module_that_is_reloaded_between_two_looks_leaves_no_stale_original() {
    let Some(_host) = virtual_machine() else { return };
    const KEY: &str = "net.netfilter.nf_conntrack_max";
    let gone = || unload(&["ip_vs", "nf_conntrack_netlink", "nf_conntrack"]);
    gone();
    load("nf_conntrack", &["hashsize=2048"]);
    let home = home(&[(KEY, "54321")]);
    let agent = home.start();
    let path = "net/netfilter/nf_conntrack_max";
    let first = wait_until_set(&agent, KEY, path, "54321");
    // At once: the agent may never see that it was away.
    gone();
    load("nf_conntrack", &["hashsize=4096"]);
    wait_for_what_was_loaded("another original", || agent.key(KEY)["original"] != first);
    let second = wait_until_set(&agent, KEY, path, "54321");
    drop(agent);
    let done = home.run(["restore"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(read(path), Some(second));
    gone();
}
