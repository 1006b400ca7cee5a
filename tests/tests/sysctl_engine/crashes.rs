//! Runs that end in the middle of a pass, one after another, and what may change between them.

use super::*;

const BRIDGE_FORWARDING: &str = "net.ipv4.conf.b0.forwarding";
const TAG: &str = "net.ipv4.conf.b0.tag";
const DEFAULT_MEDIUM: &str = "net.ipv4.conf.default.medium_id";

fn tag(netns: &Namespace, interface: &str) -> String {
    netns.read(&format!("net/ipv4/conf/{interface}/tag"))
}

fn forwarding(netns: &Namespace, interface: &str) -> String {
    netns.read(&format!("net/ipv4/conf/{interface}/forwarding"))
}

fn add_bridge(netns: &Namespace, name: &str) {
    netns.ip(["link", "add", name, "type", "bridge"]);
}

/// A run that is over after this many writes: what it noted of them is not on record.
fn cut_off(netns: &Namespace, state: &Path, want: &[(&str, &str)], writes: usize) {
    let mut rig = Rig::at(netns, state);
    rig.want(want.iter().map(|(key, text)| value(key, text)));
    let mut changes = rig.engine.preview(Instant::now()).unwrap();
    netns.run(|| {
        rig.engine.record(&changes);
        changes.truncate(writes);
        rig.engine.write(changes);
    });
}

fn whole(netns: &Namespace, state: &Path, want: &[(&str, &str)]) -> Rig {
    let mut rig = Rig::at(netns, state);
    rig.want(want.iter().map(|(key, text)| value(key, text)));
    rig.engine.restore_unconfigured().unwrap();
    rig.pass();
    rig
}

#[test]
fn fault_39_two_runs_cut_off_in_a_row_lose_no_original() {
    let Some(host) = root_or_skip() else { return };
    for last in [0, 1] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        cut_off(&netns, state.path(), &[(SOMAXCONN, "10000")], 1);
        assert_eq!(netns.read("net/core/somaxconn"), "10000");
        // Another configuration, and the end before it has written anything.
        cut_off(&netns, state.path(), &[(SOMAXCONN, "12000")], 0);
        cut_off(&netns, state.path(), &[(SOMAXCONN, "13000")], last);
        let done = Rig::at(&netns, state.path()).restore();
        assert_eq!(netns.read("net/core/somaxconn"), "4096", "{last}: {done:?}");
    }
}

/// `ip_forward` changes interfaces that are on record already.
#[test]
fn fault_39_a_switch_that_is_written_again_loses_no_interfaces_original() {
    let Some(host) = root_or_skip() else { return };
    for writes in [0, 1] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        add_bridge(&netns, "b0");
        netns.write("net/ipv4/ip_forward", "0");
        netns.write("net/ipv4/conf/b0/forwarding", "1");
        drop(whole(&netns, state.path(), &[(IP_FORWARD, "1")]));
        cut_off(&netns, state.path(), &[(IP_FORWARD, "0")], writes);
        let done = Rig::at(&netns, state.path()).restore();
        let now = ["all", "b0"].map(|name| forwarding(&netns, name));
        assert_eq!(now, ["0", "1"], "{writes}: {done:?}");
    }
}

/// The value that a switch gave a key is not the key's original.
#[test]
fn the_original_of_a_key_is_from_before_the_switch_that_changed_it_too() {
    let Some(host) = root_or_skip() else { return };
    let both = [(IP_FORWARD, "1"), (BRIDGE_FORWARDING, "0")];
    for first in [&both[..], &both[..1]] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        add_bridge(&netns, "b0");
        netns.write("net/ipv4/ip_forward", "0");
        drop(whole(&netns, state.path(), first));
        let mut rig = whole(&netns, state.path(), &both);
        assert_eq!((forwarding(&netns, "all"), forwarding(&netns, "b0")), ("1".into(), "0".into()));
        assert_eq!(rig.original(BRIDGE_FORWARDING).as_deref(), Some("0"));
        let done = rig.restore();
        assert_eq!(forwarding(&netns, "b0"), "0", "{done:?}");
        assert_eq!(forwarding(&netns, "all"), "0", "{done:?}");
    }
}

/// `conf.default` reaches interfaces that have no value of their own yet (devinet_copy_dflt_conf).
#[test]
fn the_original_of_an_interface_is_from_before_the_default_that_it_follows() {
    let medium = |netns: &Namespace, interface: &str| {
        netns.read(&format!("net/ipv4/conf/{interface}/medium_id"))
    };
    let Some(host) = root_or_skip() else { return };
    for (then, interface) in [("a pattern", "9"), ("an address", "7")] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        add_bridge(&netns, "b0");
        drop(whole(&netns, state.path(), &[(DEFAULT_MEDIUM, "7")]));
        assert_eq!(medium(&netns, "b0"), "7", "it follows");
        if then == "an address" {
            // From now on it has values of its own (ipv4_devconf_setall).
            netns.ip(["address", "add", "10.99.0.1/24", "dev", "b0"]);
        } else {
            let mut rig = Rig::at(&netns, state.path());
            rig.want_patterns([], [pattern("net.ipv4.conf.*.medium_id", "9")]);
            rig.pass();
        }
        assert_eq!(medium(&netns, "b0"), interface);
        let done = Rig::at(&netns, state.path()).restore();
        let now = ["all", "default", "b0", "lo"].map(|name| medium(&netns, name));
        assert_eq!(now, ["0", "0", "0", "0"], "{then}: {done:?}");
        assert_eq!(Rig::at(&netns, state.path()).restore().len(), 0, "{then}");
    }
}

/// While no agent runs, an interface is made anew: the record is about another one.
#[test]
fn fault_11_an_interface_made_anew_between_two_runs_has_an_original_of_its_own() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    for original in ["3", "4"] {
        add_bridge(&netns, "b0");
        netns.write("net/ipv4/conf/b0/tag", original);
        let rig = whole(&netns, state.path(), &[(TAG, "7")]);
        assert_eq!(rig.counters().drift, 0, "no other writer");
        assert_eq!(rig.original(TAG).as_deref(), Some(original));
        netns.ip(["link", "delete", "b0"]);
    }
    add_bridge(&netns, "b0");
    netns.write("net/ipv4/conf/b0/tag", "7");
    let done = Rig::at(&netns, state.path()).restore();
    assert_eq!((tag(&netns, "b0").as_str(), &done[TAG]), ("7", &Outcome::Gone), "not ours");
}

#[test]
fn fault_11_an_interface_renamed_between_two_runs_takes_its_original_along() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    for (name, original) in [("b0", "3"), ("b1", "4")] {
        add_bridge(&netns, name);
        netns.write(&format!("net/ipv4/conf/{name}/tag"), original);
    }
    drop(whole(&netns, state.path(), &[(TAG, "7"), ("net.ipv4.conf.b1.tag", "8")]));
    for (from, to) in [("b0", "x"), ("b1", "b0"), ("x", "b1")] {
        netns.ip(["link", "set", from, "name", to]);
    }
    let done = Rig::at(&netns, state.path()).restore();
    assert_eq!((tag(&netns, "b1"), tag(&netns, "b0")), ("3".into(), "4".into()), "{done:?}");
}

#[test]
fn after_a_run_that_was_cut_off_another_writers_value_is_known_as_such() {
    let Some(host) = root_or_skip() else { return };
    for run_between in [true, false] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        cut_off(&netns, state.path(), &[(SOMAXCONN, "10000")], 1);
        if run_between {
            drop(whole(&netns, state.path(), &[(SOMAXCONN, "10000")]));
        }
        netns.write("net/core/somaxconn", "50");
        let mut rig = Rig::at(&netns, state.path());
        rig.want([with_conflict(value(SOMAXCONN, "10000"), Yield)]);
        rig.pass();
        assert_eq!(rig.state(SOMAXCONN), State::Yielded, "{run_between}");
        assert_eq!(netns.read("net/core/somaxconn"), "50");
    }
}

/// As an earlier version wrote it, with the fields it had.
#[test]
fn a_ledger_of_an_earlier_version_is_taken_over() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    add_bridge(&netns, "b0");
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let ledger = serde_json::json!({
        "version": 1,
        "bootId": boot_id.trim(),
        "keys": {
            "net.core.somaxconn": { "original": "4000\n", "intended": "10000", "stored": "10000\n" },
            "net.ipv4.tcp_fin_timeout": { "original": "61", "intended": "90" },
            "net.ipv4.conf.b0.tag": { "original": "3", "intended": "7", "stored": "7" },
            "net.ipv4.ip_forward": { "original": "0", "intended": "1", "stored": "1" },
            "net.ipv4.conf.b0.forwarding":
                { "original": "1", "stored": "1", "siblingOf": "net.ipv4.ip_forward" },
        },
    });
    fs::write(state.path().join("ledger.json"), ledger.to_string()).unwrap();
    for (path, ours) in [
        ("core/somaxconn", "10000"),
        ("ipv4/tcp_fin_timeout", "90"),
        ("ipv4/conf/b0/tag", "7"),
        ("ipv4/ip_forward", "1"),
    ] {
        netns.write(&format!("net/{path}"), ours);
    }
    let want = [(SOMAXCONN, "12000"), (FIN_TIMEOUT, "90"), (TAG, "8"), (IP_FORWARD, "1")];
    let mut rig = whole(&netns, state.path(), &want);
    assert_eq!((rig.notice.clone(), rig.counters().drift), (None, 0));
    assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4000\n"), "never our own value");
    let done = rig.restore();
    let now = ["core/somaxconn", "ipv4/tcp_fin_timeout", "ipv4/conf/b0/tag", "ipv4/ip_forward"]
        .map(|path| netns.read(&format!("net/{path}")));
    assert_eq!(now, ["4000", "61", "3", "0"], "{done:?}");
    assert_eq!(forwarding(&netns, "b0"), "1", "{done:?}");
}
