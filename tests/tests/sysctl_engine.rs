//! The sysctl engine on a real kernel: passes, other writers, the ledger, and what stands between
//! a container and the host's values.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use headroom::kernel::netns::Netns;
use headroom::kernel::state_dir::{self, LockError};
use headroom::kernel::sysctl_file::SysctlTree;
use headroom::sysctl::place::{Net, Place};
use headroom::sysctl::policy::OnConflict::{Report, Yield};
use headroom::sysctl::restore::Outcome;
use headroom::sysctl::state::State;
use headroom_tests::{
    Mount, Namespace, Rig, SavedSysctls, WriteWatch, in_netns, key, max, min, one_of,
    private_mounts, root_or_skip, value, with_conflict,
};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

const SOMAXCONN: &str = "net.core.somaxconn";
const FIN_TIMEOUT: &str = "net.ipv4.tcp_fin_timeout";
const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
const PORT_START: &str = "net.ipv4.ip_unprivileged_port_start";
const IP_FORWARD: &str = "net.ipv4.ip_forward";

fn file(key: &str) -> String {
    headroom_tests::key(key).path().to_str().unwrap().to_owned()
}

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn watch(netns: &Namespace, keys: &[&str]) -> WriteWatch {
    let files: Vec<String> = keys.iter().map(|key| file(key)).collect();
    netns.run(|| WriteWatch::new(files.iter().map(String::as_str)))
}

/// The open files below `/proc/sys` of this process, and whether they are open for writing.
fn open_sysctls() -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok) {
        let Ok(path) = fs::read_link(entry.path()) else { continue };
        if path.starts_with("/proc/sys") && path != Path::new("/proc/sys") {
            let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
            let info = fs::read_to_string(info).unwrap();
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            found.push((path, flags & 0o3 != 0));
        }
    }
    found
}

#[test]
fn values_bounds_choices_and_vectors_are_put_in_force_once() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let rmem: Vec<u64> = netns
        .read("net/ipv4/tcp_rmem")
        .split_whitespace()
        .map(|field| field.parse().unwrap())
        .collect();
    let congestion = netns.read("net/ipv4/tcp_congestion_control");
    let policies = [
        value(SOMAXCONN, "10000"),
        value("net.ipv4.conf.lo.tag", "7"),
        min(FIN_TIMEOUT, "90"),
        min("net.ipv4.tcp_keepalive_intvl", "10"),
        max("net.ipv4.tcp_keepalive_time", "600"),
        min("net.ipv4.tcp_rmem", &format!("_ _ {}", rmem[2] + 4096)),
        one_of("net.ipv4.tcp_congestion_control", ["reno", "no_such_algorithm"]),
    ];
    let keys: Vec<&str> = policies.iter().map(|(key, _)| key.as_str()).collect();
    let mut watch = watch(&netns, &keys);
    let mut rig = Rig::at(&netns, state.path());
    rig.want(policies.clone());
    rig.pass();

    for (file, expected) in [
        ("net/core/somaxconn", "10000"),
        ("net/ipv4/conf/lo/tag", "7"),
        ("net/ipv4/tcp_fin_timeout", "90"),
        ("net/ipv4/tcp_keepalive_intvl", "75"),
        ("net/ipv4/tcp_keepalive_time", "600"),
        ("net/ipv4/tcp_congestion_control", "reno"),
    ] {
        assert_eq!(netns.read(file), expected, "{file}");
    }
    let wanted = format!("{} {} {}", rmem[0], rmem[1], rmem[2] + 4096);
    assert_eq!(words(&netns.read("net/ipv4/tcp_rmem")), wanted, "only the field with a bound");
    for status in rig.engine.status() {
        assert_eq!((status.state, status.in_sync), (State::InSync, true), "{status:?}");
        assert_eq!(status.desired, status.actual);
    }
    assert_eq!(rig.unmet(), []);
    let writes = if congestion == "reno" { 5 } else { 6 };
    let counters = rig.counters();
    assert_eq!((counters.ok, counters.drift), (writes, 0), "{counters:?}");
    assert_eq!(watch.written().len(), usize::try_from(writes).unwrap(), "one write(2) a key");
    assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"));
    assert_eq!(rig.original("net.ipv4.tcp_keepalive_intvl"), None, "never written");

    rig.pass();
    rig.want(policies);
    rig.pass();
    assert_eq!(watch.written(), Vec::<String>::new(), "in force: nothing to write");
    assert_eq!(rig.counters(), counters);
}

#[test]
fn a_changed_value_is_put_back_and_counted_once() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000"), min(FIN_TIMEOUT, "90")]);
    rig.pass();
    netns.write("net/core/somaxconn", "50");
    // Above its bound: another writer, but no drift.
    netns.write("net/ipv4/tcp_fin_timeout", "100");
    rig.wait(10);
    rig.pass();
    assert_eq!(netns.read("net/core/somaxconn"), "10000");
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "100");
    assert_eq!(rig.state(SOMAXCONN), State::InSync);
    assert_eq!(rig.counters().drift, 1);
    rig.wait(10);
    rig.pass();
    assert_eq!(rig.counters().drift, 1);
    assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"), "not the other writer's 50");
    assert_eq!(rig.restore()[SOMAXCONN], Outcome::Restored);
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
}

#[test]
fn yield_takes_anothers_value_and_report_never_writes() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    rig.want([
        with_conflict(value(SOMAXCONN, "10000"), Yield),
        with_conflict(value(FIN_TIMEOUT, "90"), Report),
    ]);
    let mut watch = watch(&netns, &[SOMAXCONN, FIN_TIMEOUT]);
    rig.pass();
    assert_eq!(watch.written(), [file(SOMAXCONN)], "yield still sets it to begin with");
    assert_eq!(rig.state(SOMAXCONN), State::InSync);
    let reported = rig.status(FIN_TIMEOUT);
    assert_eq!((reported.state, reported.in_sync), (State::Observed, false));
    assert_eq!(reported.desired.as_deref(), Some("90"), "what it would be");

    netns.write("net/core/somaxconn", "50");
    let _ = watch.written();
    for _ in 0..3 {
        rig.wait(10);
        rig.pass();
        let yielded = rig.status(SOMAXCONN);
        assert_eq!((yielded.state, yielded.in_sync), (State::Yielded, false));
        assert_eq!(rig.counters().drift, 1);
    }
    assert_eq!(watch.written(), Vec::<String>::new());
    assert_eq!(rig.unmet(), [], "neither holds readiness back");

    netns.write("net/core/somaxconn", "10000");
    rig.pass();
    assert_eq!(rig.state(SOMAXCONN), State::InSync, "the other writer came round");
}

#[test]
fn a_later_run_tells_its_own_values_from_anothers() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let policies = [value(SOMAXCONN, "10000"), with_conflict(value(FIN_TIMEOUT, "90"), Yield)];
    let run = |policies| {
        let mut rig = Rig::at(&netns, state.path());
        rig.want(policies);
        rig.pass();
        rig
    };
    drop(run(policies.clone()));

    let second = run(policies.clone());
    assert_eq!(second.counters(), Default::default(), "in force already");
    assert_eq!(second.original(SOMAXCONN).as_deref(), Some("4096"));
    drop(second);

    netns.write("net/core/somaxconn", "50");
    netns.write("net/ipv4/tcp_fin_timeout", "30");
    let third = run(policies);
    assert_eq!(third.counters().drift, 2, "changed while no agent ran");
    assert_eq!(netns.read("net/core/somaxconn"), "10000");
    assert_eq!(third.state(FIN_TIMEOUT), State::Yielded);
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "30");
    drop(third);

    // A new configuration is no drift: what is in force is the agent's own.
    let mut fourth =
        run([value(SOMAXCONN, "12000"), with_conflict(value(FIN_TIMEOUT, "30"), Yield)]);
    assert_eq!(fourth.counters().drift, 0);
    assert_eq!(netns.read("net/core/somaxconn"), "12000");
    assert_eq!(fourth.restore()[SOMAXCONN], Outcome::Restored);
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
}

#[test]
fn observe_mode_neither_writes_nor_opens_for_writing() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let keys = [SOMAXCONN, FIN_TIMEOUT];
    let mut watch = watch(&netns, &keys);
    // The watch's own descriptors are among these, all read-only.
    let mut rig = Rig::observing(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000"), min(FIN_TIMEOUT, "30")]);
    rig.pass();
    rig.pass();
    let unmet = rig.status(SOMAXCONN);
    assert_eq!((unmet.state, unmet.in_sync), (State::Observed, false));
    assert_eq!((unmet.desired.as_deref(), unmet.actual.as_deref()), (Some("10000"), Some("4096")));
    let met = rig.status(FIN_TIMEOUT);
    assert_eq!((met.state, met.in_sync), (State::Observed, true));
    assert_eq!(open_sysctls().iter().filter(|(_, writable)| *writable).count(), 0);
    assert!(open_sysctls().len() >= 4, "kept open: {:?}", open_sysctls());
    drop(rig);
    assert_eq!(watch.closed_writable(), Vec::<String>::new());
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
    assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0, "no ledger either");

    // What an engine opened before it was told to observe is closed.
    let mut rig = Rig::at(&netns, state.path());
    rig.want([min(FIN_TIMEOUT, "30")]);
    rig.pass();
    rig.engine.set_observe(true);
    rig.pass();
    assert_eq!(open_sysctls().iter().filter(|(_, writable)| *writable).count(), 0);
    assert_eq!(rig.state(FIN_TIMEOUT), State::Observed);
    drop(rig);
    let _ = watch.closed_writable();

    // What this test looks at does show an engine that may write.
    let mut rig = Rig::at(&netns, state.path());
    rig.want([min(FIN_TIMEOUT, "30")]);
    rig.pass();
    assert_eq!(open_sysctls().iter().filter(|(_, writable)| *writable).count(), 1);
    drop(rig);
    assert_eq!(watch.closed_writable(), [file(FIN_TIMEOUT)]);
}

#[test]
fn fault_41_a_key_that_somebody_keeps_changing_is_contested_and_clears_by_itself() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000"), value(FIN_TIMEOUT, "90")]);
    rig.pass();
    for round in 1..=5 {
        netns.write("net/core/somaxconn", "50");
        rig.wait(2);
        rig.pass();
        assert_eq!(netns.read("net/core/somaxconn"), "10000", "round {round}");
        assert_eq!(rig.state(SOMAXCONN), State::InSync, "round {round}");
    }
    let mut watch = watch(&netns, &[SOMAXCONN]);
    netns.write("net/core/somaxconn", "50");
    let _ = watch.written();
    for _ in 0..29 {
        rig.wait(2);
        rig.pass();
        let contested = rig.status(SOMAXCONN);
        assert_eq!((contested.state, contested.in_sync), (State::Contested, false));
        assert!(contested.detail.unwrap().contains("another writer keeps changing it (now 50)"));
    }
    assert_eq!(watch.written(), Vec::<String>::new(), "the other writer is left to it");
    assert_eq!(rig.unmet(), [(key(SOMAXCONN), State::Contested)]);
    assert_eq!(rig.counters().drift, 6);

    // A key that nobody fights over is kept meanwhile.
    netns.write("net/ipv4/tcp_fin_timeout", "30");
    rig.wait(60);
    rig.pass();
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "90");
    assert_eq!(netns.read("net/core/somaxconn"), "10000", "one attempt after the wait");
    assert_eq!(rig.state(SOMAXCONN), State::Contested, "not over yet");
    rig.wait(600);
    rig.pass();
    assert_eq!(rig.state(SOMAXCONN), State::InSync, "over");
    assert_eq!(rig.unmet(), []);

    netns.write("net/core/somaxconn", "50");
    rig.wait(1);
    rig.pass();
    assert_eq!(netns.read("net/core/somaxconn"), "10000", "and forgotten");
}

#[test]
fn fault_41_two_agents_do_not_share_a_state_directory() {
    let Some(host) = root_or_skip() else { return };
    let state = host.directory();
    let first = state_dir::lock(state.path(), "headroom run, pid 7").unwrap();
    match state_dir::lock(state.path(), "headroom apply, pid 8") {
        Err(error @ LockError::Held { .. }) => {
            assert!(error.to_string().contains("headroom run, pid 7"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    drop(first);
    let _second = state_dir::lock(state.path(), "headroom apply, pid 8").unwrap();
    let third = state_dir::lock(state.path(), "").unwrap_err().to_string();
    assert!(third.contains("headroom apply, pid 8"), "{third}");
}

#[test]
fn fault_38_a_refused_value_waits_for_a_reason_and_stops_no_other_key() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let before = netns.read("net/ipv4/ip_local_port_range");
    let mut rig = Rig::at(&netns, state.path());
    let others = [value(SOMAXCONN, "10000"), value("net.ipv4.tcp_tw_reuse", "0")];
    rig.want(others.clone().into_iter().chain([value(PORT_RANGE, "60000 50000")]));
    rig.pass();
    let refused = rig.status(PORT_RANGE);
    assert_eq!((refused.state, refused.in_sync), (State::Rejected, false));
    let detail = refused.detail.unwrap();
    assert!(detail.contains("EINVAL") && detail.contains("low must not be above high"), "{detail}");
    assert_eq!(netns.read("net/ipv4/ip_local_port_range"), before, "the last good value");
    assert_eq!(rig.state(SOMAXCONN), State::InSync);
    assert_eq!(netns.read("net/ipv4/tcp_tw_reuse"), "0");
    assert_eq!(rig.unmet(), [(key(PORT_RANGE), State::Rejected)]);

    let rejected = rig.counters().rejected;
    assert!(rejected >= 1);
    for _ in 0..3 {
        rig.wait(10);
        rig.pass();
    }
    assert_eq!(rig.counters().rejected, rejected, "nothing has changed, so no more attempts");
    assert_eq!(rig.state(PORT_RANGE), State::Rejected);

    netns.write("net/ipv4/ip_unprivileged_port_start", "1000");
    rig.pass();
    assert_eq!(rig.counters().rejected, rejected + 1, "a related key changed: one more attempt");
    rig.pass();
    assert_eq!(rig.counters().rejected, rejected + 1);

    // A new configuration is a reason too, also one that asks the same.
    rig.want(others.clone().into_iter().chain([value(PORT_RANGE, "60000 50000")]));
    rig.pass();
    assert!(rig.counters().rejected > rejected + 1);
    assert_eq!(rig.state(PORT_RANGE), State::Rejected);

    // Refused only because of the other key: in force as soon as that one makes room.
    rig.want(others.into_iter().chain([value(PORT_RANGE, "500 60999")]));
    rig.pass();
    assert_eq!(rig.state(PORT_RANGE), State::Rejected);
    netns.write("net/ipv4/ip_unprivileged_port_start", "400");
    rig.pass();
    assert_eq!(rig.state(PORT_RANGE), State::InSync);
    assert_eq!(words(&netns.read("net/ipv4/ip_local_port_range")), "500 60999");
    assert_eq!(rig.unmet(), []);
}

#[test]
fn port_range_and_unprivileged_start_make_room_for_each_other_in_one_pass() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    for (start, range) in [("100", "512 60999"), ("40000", "50000 60999"), ("1024", "32768 60999")]
    {
        rig.want([value(PORT_START, start), value(PORT_RANGE, range)]);
        rig.pass();
        assert_eq!(netns.read("net/ipv4/ip_unprivileged_port_start"), start);
        assert_eq!(words(&netns.read("net/ipv4/ip_local_port_range")), range);
        assert_eq!(rig.unmet(), []);
    }
    assert_eq!(rig.counters().rejected, 0, "no attempt was in vain");
}

#[test]
fn fault_06_a_value_that_the_kernel_clamps_is_shown_with_both_numbers() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const GROUPS: &str = "net.ipv4.ping_group_range";
    netns.write("net/ipv4/ping_group_range", "5 9");
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(GROUPS, "5 1"), value(SOMAXCONN, "10000")]);
    rig.pass();
    let clamped = rig.status(GROUPS);
    assert_eq!((clamped.state, clamped.in_sync), (State::Drifted, false));
    let detail = clamped.detail.unwrap();
    assert!(detail.contains("wrote 5 1") && detail.contains("shows 1 0"), "{detail}");
    assert_eq!(words(&netns.read("net/ipv4/ping_group_range")), "1 0");
    assert_eq!(rig.state(SOMAXCONN), State::InSync);

    let mut watch = watch(&netns, &[GROUPS]);
    let counters = rig.counters();
    assert_eq!(counters.mismatch, 1);
    for _ in 0..3 {
        rig.wait(10);
        rig.pass();
    }
    assert_eq!(watch.written(), Vec::<String>::new(), "it would only come to the same");
    assert_eq!(rig.counters(), counters);
    assert_eq!(rig.restore()[GROUPS], Outcome::Restored);
    assert_eq!(words(&netns.read("net/ipv4/ping_group_range")), "5 9");
}

#[test]
fn fault_06_a_value_that_the_kernel_rounds_is_in_force() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const TIME: &str = "net.ipv4.neigh.lo.retrans_time_ms";
    let original = netns.read("net/ipv4/neigh/lo/retrans_time_ms");
    let run = || {
        let mut rig = Rig::at(&netns, state.path());
        rig.want([value(TIME, "1001")]);
        rig.pass();
        rig
    };
    let mut rig = run();
    let stored = netns.read("net/ipv4/neigh/lo/retrans_time_ms");
    // With HZ=1000 nothing is rounded.
    let state_wanted = if stored == "1001" { State::InSync } else { State::Normalized };
    let status = rig.status(TIME);
    assert_eq!((status.state, status.in_sync), (state_wanted, true));
    assert_eq!(status.actual, Some(stored));
    let mut watch = watch(&netns, &[TIME]);
    rig.pass();
    assert_eq!(watch.written(), Vec::<String>::new());
    drop(rig);

    let mut again = run();
    assert_eq!((again.state(TIME), again.counters().drift), (state_wanted, 0));
    again.restore();
    assert_eq!(netns.read("net/ipv4/neigh/lo/retrans_time_ms"), original);
}

/// `headroom diff` and the next run look at what an earlier run has rounded.
#[test]
fn fault_06_a_rounded_value_in_force_is_no_change_to_a_later_run() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const TIME: &str = "net.ipv4.neigh.lo.retrans_time_ms";
    for _ in 0..2 {
        let mut rig = Rig::at(&netns, state.path());
        rig.want([value(TIME, "1001")]);
        rig.pass();
    }
    let mut rig = Rig::observing(&netns, state.path());
    rig.want([value(TIME, "1001")]);
    assert_eq!(rig.engine.preview(Instant::now()).unwrap(), []);
    assert!(rig.status(TIME).in_sync);
}

#[test]
fn fault_11_a_key_goes_and_comes_with_its_interface() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const TAG: &str = "net.ipv4.conf.v0.tag";
    let veth = ["link", "add", "v0", "type", "veth", "peer", "name", "v1"];
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(TAG, "7"), value(SOMAXCONN, "10000")]);
    rig.pass();
    assert_eq!(rig.state(TAG), State::Pending, "not there yet");
    assert!(rig.detail(TAG).contains("its interface is not there"), "{}", rig.detail(TAG));
    assert_eq!(rig.unmet(), [(key(TAG), State::Pending)]);

    for round in 0..3 {
        netns.ip(veth);
        rig.pass();
        assert_eq!(netns.read("net/ipv4/conf/v0/tag"), "7", "round {round}");
        assert_eq!(rig.state(TAG), State::InSync);
        netns.ip(["link", "delete", "v0"]);
        netns.write("net/core/somaxconn", "50");
        rig.wait(100);
        rig.pass();
        let gone = rig.status(TAG);
        assert_eq!((gone.state, gone.actual), (State::Pending, None));
        assert_eq!(netns.read("net/core/somaxconn"), "10000", "other keys go on");
    }

    // A rename takes the directory along; a kept descriptor does not follow it.
    netns.ip(veth);
    rig.pass();
    netns.ip(["link", "set", "v0", "name", "v2"]);
    rig.pass();
    assert_eq!(rig.state(TAG), State::Pending);
    netns.ip(["link", "set", "v1", "name", "v0"]);
    rig.pass();
    assert_eq!(rig.state(TAG), State::InSync);
    assert_eq!(netns.read("net/ipv4/conf/v0/tag"), "7");

    netns.ip(["link", "delete", "v0"]);
    assert_eq!(rig.restore()[TAG], Outcome::Gone);
    assert_eq!(rig.original(TAG), None);
}

#[test]
fn fault_11_an_interface_that_comes_back_is_no_other_writer() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const TAG: &str = "net.ipv4.conf.v0.tag";
    let veth = ["link", "add", "v0", "type", "veth", "peer", "name", "v1"];
    let mut rig = Rig::at(&netns, state.path());
    rig.want([with_conflict(value(TAG, "7"), Yield)]);
    netns.ip(veth);
    rig.pass();
    assert_eq!(rig.state(TAG), State::InSync);
    netns.ip(["link", "delete", "v0"]);
    rig.pass();
    netns.ip(veth);
    rig.pass();
    assert_eq!(netns.read("net/ipv4/conf/v0/tag"), "7");
    assert_eq!((rig.state(TAG), rig.counters().drift), (State::InSync, 0));
}

#[test]
fn fault_11_a_key_that_vanishes_between_plan_and_write_is_tried_again() {
    let Some(host) = root_or_skip() else { return };
    const TAG: &str = "net.ipv4.conf.v0.tag";
    let veth = ["link", "add", "v0", "type", "veth", "peer", "name", "v1"];
    for back_at_once in [false, true] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        netns.ip(veth);
        let mut rig = Rig::at(&netns, state.path());
        rig.want([value(TAG, "7"), value(SOMAXCONN, "10000")]);
        let changes = rig.engine.preview(Instant::now()).unwrap();
        assert_eq!(changes.len(), 2);
        netns.ip(["link", "delete", "v0"]);
        if back_at_once {
            netns.ip(veth);
        }
        let written = netns.run(|| rig.engine.write(changes));
        assert_eq!(written, 1, "the other key");
        assert_eq!(netns.read("net/core/somaxconn"), "10000");
        if !back_at_once {
            assert_eq!(rig.state(TAG), State::Pending);
            netns.ip(veth);
        }
        rig.pass();
        assert_eq!(netns.read("net/ipv4/conf/v0/tag"), "7", "back at once: {back_at_once}");
        assert_eq!(rig.state(TAG), State::InSync);
    }
}

#[test]
fn fault_11_interfaces_come_go_and_change_names_during_passes() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    let tags = (0..8).map(|index| value(&format!("net.ipv4.conf.v{index}.tag"), "7"));
    rig.want(tags.chain([value(IP_FORWARD, "1")]));
    let batch: String = (0..8)
        .map(|index| {
            format!(
                "link add v{index} type veth peer name p{index}\n\
                 link set v{index} name w{index}\nlink set p{index} name v{index}\n\
                 link set v{index} name p{index}\nlink set w{index} name v{index}\n\
                 link delete v{index}\n"
            )
        })
        .collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..5 {
                netns.ip_batch(&batch);
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            rig.wait(1);
            netns.write("net/ipv4/ip_forward", "0");
            rig.pass();
        }
    });
    netns.ip_batch(
        (0..8).map(|i| format!("link add v{i} type veth peer name p{i}\n")).collect::<String>(),
    );
    rig.wait(2000);
    rig.pass();
    for index in 0..8 {
        assert_eq!(netns.read(&format!("net/ipv4/conf/v{index}/tag")), "7");
    }
}

#[test]
fn an_interface_with_a_dot_in_its_name_is_reached_in_both_forms() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    netns.ip(["link", "add", "x.12345", "type", "veth", "peer", "name", "y.12345"]);
    let mut rig = Rig::at(&netns, state.path());
    rig.want([
        value("net/ipv4/conf/x.12345/tag", "7"),
        value("net.ipv4.conf.y/12345.tag", "8"),
        value("net.ipv4.conf.x.12345.tag", "9"),
    ]);
    rig.pass();
    assert_eq!(netns.read("net/ipv4/conf/x.12345/tag"), "7");
    assert_eq!(netns.read("net/ipv4/conf/y.12345/tag"), "8");
    assert_eq!(rig.state("net/ipv4/conf/x.12345/tag"), State::InSync);
    assert_eq!(rig.state("net.ipv4.conf.x.12345.tag"), State::Pending, "an interface `x`");
}

#[test]
fn fault_12_hostile_interface_names_disturb_nothing() {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let names: [&[u8]; 8] =
        [b"a\"b\\c", b"\x1b[31mred", b"\xff\xfe\x80", b"..a", b"a..", b"*", b"$(id)", b"\x01\x7f"];
    for name in names {
        netns.run(|| {
            let name = std::ffi::OsStr::from_bytes(name);
            let ip = [OsStr("-n"), OsStr(netns.name()), OsStr("link"), OsStr("add"), name]
                .into_iter()
                .chain(["type", "bridge"].map(OsStr));
            headroom_tests::ip(ip);
            fs::write(Path::new("/proc/sys/net/ipv4/conf").join(name).join("forwarding"), "1")
                .unwrap();
        });
    }
    let quoted = "net/ipv4/conf/a\"b\\c/tag";
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(IP_FORWARD, "1"), value(quoted, "7"), value("net/ipv4/conf/..a/tag", "8")]);
    rig.pass();
    rig.pass();
    for status in rig.engine.status() {
        assert_eq!(status.state, State::InSync, "{status:?}");
    }
    assert_eq!(netns.read(quoted), "7");
    assert_eq!(netns.read("net/ipv4/conf/..a/tag"), "8");
    assert_eq!(rig.engine.ledger_notice(), None);
    let ledger = fs::read(state.path().join("ledger.json")).unwrap();
    assert!(ledger.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')), "escaped");
    assert_eq!(rig.restore()[IP_FORWARD], Outcome::Restored);
}

#[allow(non_snake_case)]
fn OsStr(text: &str) -> &std::ffi::OsStr {
    std::ffi::OsStr::new(text)
}

#[test]
fn a_key_of_a_module_that_is_not_there_is_pending_with_advice() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let absent =
        ["net.ipv4.vs.conntrack", "net.sctp.rto_min", "net.bridge.bridge-nf-call-iptables"]
            .into_iter()
            .find(|key| !netns.run(|| Path::new("/proc/sys").join(file(key)).exists()));
    // A kernel with all of these has the last one's like under a name of nobody's.
    let absent = absent.unwrap_or("net.bridge.bridge-nf-call-nobody");
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(absent, "1"), value(SOMAXCONN, "10000")]);
    rig.pass();
    assert_eq!(rig.state(absent), State::Pending);
    assert!(
        rig.detail(absent).contains("its kernel module is not loaded"),
        "{}",
        rig.detail(absent)
    );
    assert_eq!(rig.state(SOMAXCONN), State::InSync);
}

#[test]
fn in_the_wrong_namespace_no_net_key_is_touched() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut watch = watch(&netns, &[SOMAXCONN, IP_FORWARD]);
    let opened = open_sysctls().len();
    netns.run(|| {
        let given = Place::look(Path::new("/proc"), true);
        assert_eq!(given.net, Net::Given);
        let place = Place::look(Path::new("/proc"), false);
        assert!(matches!(&place.net, Net::Wrong(evidence) if evidence.contains("gc_thresh3")));
        let mut rig = Rig::here(state.path());
        rig.want([
            value(SOMAXCONN, "10000"),
            value(IP_FORWARD, "1"),
            value("net.ipv4.neigh.default.gc_thresh3", "1024"),
            value("net.no.such.key", "1"),
            with_conflict(value("vm.swappiness", "7"), Report),
        ]);
        rig.pass();
        for status in rig.engine.status() {
            if status.key.is_net() {
                assert_eq!((status.state, &status.actual), (State::Unsupported, &None));
                let detail = status.detail.unwrap();
                assert!(detail.starts_with("wrong network namespace"), "{detail}");
                assert!(detail.contains("hostNetwork") && detail.contains("hostNetns: current"));
            } else {
                assert_eq!(status.state, State::Observed, "not the network's business");
            }
        }
        assert_eq!(open_sysctls().len(), opened + 1, "vm.swappiness alone");
        assert_eq!(rig.counters(), Default::default());
    });
    assert_eq!(watch.written(), Vec::<String>::new());
    assert_eq!(watch.closed_writable(), Vec::<String>::new());
}

#[test]
fn fault_10_fault_45_a_read_only_proc_sys_is_denied_until_it_is_writable() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    private_mounts(|| {
        let mount = Mount::bind("/proc/sys", "/proc/sys");
        mount.set_read_only(true);
        let mut rig = Rig::at(&netns, state.path());
        rig.want([value(SOMAXCONN, "10000"), min(FIN_TIMEOUT, "30")]);
        rig.pass();
        let denied = rig.status(SOMAXCONN);
        assert_eq!((denied.state, denied.in_sync), (State::Denied, false));
        assert_eq!(denied.actual.as_deref(), Some("4096"), "readable all the same");
        let detail = denied.detail.unwrap();
        for part in ["EROFS", "/proc/sys/net/core/somaxconn", "/host/proc/sys/net read-write"] {
            assert!(detail.contains(part), "{part}: {detail}");
        }
        assert_eq!(rig.state(FIN_TIMEOUT), State::InSync, "nothing to write there");
        assert_eq!(rig.unmet(), [(key(SOMAXCONN), State::Denied)]);
        assert!(!state.path().join("ledger.json").exists(), "nothing was about to be written");

        let mut observing = Rig::observing(&netns, state.path());
        observing.want([value(SOMAXCONN, "10000")]);
        observing.pass();
        assert_eq!(observing.state(SOMAXCONN), State::Observed);

        mount.set_read_only(false);
        rig.pass();
        assert_eq!(rig.state(SOMAXCONN), State::InSync);

        drop(rig);
        mount.set_read_only(true);
        let mut rig = Rig::at(&netns, state.path());
        let outcome = rig.restore().remove(SOMAXCONN).unwrap();
        assert!(
            matches!(&outcome, Outcome::Failed { reason } if reason.contains("EROFS")),
            "{outcome:?}"
        );
        assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"), "stays on record");
        mount.set_read_only(false);
        assert_eq!(rig.restore()[SOMAXCONN], Outcome::Restored);
    });
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
}

#[test]
fn fault_10_a_root_that_is_no_proc_sys_is_not_written() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state, root) = (Namespace::new(&host), host.directory(), host.directory());
    let somaxconn = root.path().join("net/core/somaxconn");
    let engine = |netns: Netns| {
        let tree = SysctlTree::open(root.path(), None).unwrap();
        Rig::new(in_netns(), tree, netns, false, state.path())
    };
    private_mounts(|| {
        let _mount = Mount::file_system("tmpfs", root.path(), "");
        fs::create_dir_all(somaxconn.parent().unwrap()).unwrap();
        fs::write(&somaxconn, "4096\n").unwrap();
        let mut rig = engine(Netns::At(netns.fd()));
        rig.want([value(SOMAXCONN, "10000")]);
        rig.pass();
        assert_eq!(fs::read_to_string(&somaxconn).unwrap(), "4096\n");
        let detail = rig.detail(SOMAXCONN);
        assert!(
            detail.contains("no proc file system") && detail.contains("mount the host's"),
            "{detail}"
        );
        assert_eq!(rig.unmet().len(), 1);

        fs::remove_dir_all(root.path().join("net")).unwrap();
        std::os::unix::fs::symlink("/proc/sys/net", root.path().join("net")).unwrap();
        let mut rig = engine(Netns::At(netns.fd()));
        rig.want([value(SOMAXCONN, "10000")]);
        rig.pass();
        let denied = rig.status(SOMAXCONN);
        assert_eq!((denied.state, denied.actual), (State::Denied, None));
        let detail = denied.detail.unwrap();
        assert!(detail.contains("ELOOP") && detail.contains("link"), "{detail}");
    });
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
}

/// As the chart mounts it: the host's `/proc/sys/net` beneath a root of its own, the rest read
/// from the container's own `/proc/sys`.
#[test]
fn fault_10_what_is_not_mounted_beneath_the_root_is_read_and_denied() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state, root) = (Namespace::new(&host), host.directory(), host.directory());
    let _saved = SavedSysctls::new(&host, ["vm/max_map_count", "vm/swappiness"]);
    let count = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim_end().to_owned();
    let swappiness = fs::read_to_string("/proc/sys/vm/swappiness").unwrap().trim_end().to_owned();
    private_mounts(|| {
        fs::create_dir_all(root.path().join("net")).unwrap();
        fs::create_dir_all(root.path().join("vm")).unwrap();
        fs::write(root.path().join("vm/swappiness"), "").unwrap();
        let _net = Mount::bind("/proc/sys/net", root.path().join("net"));
        let _file = Mount::bind("/proc/sys/vm/swappiness", root.path().join("vm/swappiness"));
        let tree = SysctlTree::open(root.path(), Some(Path::new("/proc/sys"))).unwrap();
        let mut rig = Rig::new(in_netns(), tree, Netns::At(netns.fd()), false, state.path());
        let more: u64 = count.parse::<u64>().unwrap() + 1;
        let other = if swappiness == "59" { "58" } else { "59" };
        rig.want([
            value(SOMAXCONN, "10000"),
            min("vm.max_map_count", &more.to_string()),
            value("vm.swappiness", other),
            min("fs.file-max", "1"),
        ]);
        rig.pass();
        assert_eq!(rig.state(SOMAXCONN), State::InSync);
        assert_eq!(rig.state("vm.swappiness"), State::InSync, "mounted as a single file");
        assert_eq!(rig.state("fs.file-max"), State::InSync, "readable, and nothing to write");
        let denied = rig.status("vm.max_map_count");
        assert_eq!((denied.state, denied.actual), (State::Denied, Some(count.clone())));
        let detail = denied.detail.unwrap();
        let missing = format!("{}/vm/max_map_count", root.path().display());
        assert!(detail.contains(&missing), "{detail}");
        let hint = "mount the host's /proc/sys/vm/max_map_count there, read-write";
        assert!(detail.contains(hint), "{detail}");
        assert_eq!(rig.restore()["vm.swappiness"], Outcome::Restored);
    });
    assert_eq!(fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim_end(), count);
    assert_eq!(fs::read_to_string("/proc/sys/vm/swappiness").unwrap().trim_end(), swappiness);
}

/// On a thread of its own, which ends with it: nothing else is moved.
fn unshared<T: Send>(flags: CloneFlags, work: impl FnOnce() -> T + Send) -> T {
    let unshared = || {
        unshare(flags).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(unshared).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn fault_09_what_a_write_would_change_only_in_this_container_is_refused() {
    let Some(host) = root_or_skip() else { return };
    let state = host.directory();
    for (flag, name, other, field) in [
        (CloneFlags::CLONE_NEWIPC, "kernel.shmmni", "100", "hostIPC: true"),
        (CloneFlags::CLONE_NEWUTS, "kernel.domainname", "headroom.test", "hostNetwork: true"),
    ] {
        unshared(flag, || {
            let path = Path::new("/proc/sys").join(file(name));
            let before = fs::read_to_string(&path).unwrap();
            let mut rig = Rig::here(state.path());
            rig.want([value(name, other)]);
            rig.pass();
            assert_eq!(rig.state(name), State::Unsupported);
            assert!(rig.detail(name).contains(field), "{}", rig.detail(name));
            assert_eq!(fs::read_to_string(&path).unwrap(), before);
        });
    }
    let mut rig = Rig::here(state.path());
    rig.want([with_conflict(value("kernel.shmmni", "100"), Report)]);
    rig.pass();
    assert_eq!(rig.state("kernel.shmmni"), State::Observed, "the host's own is another matter");
}

/// PID namespaces are entered by children only.
#[test]
fn fault_09_pid_scoped_keys_need_the_hosts_pid_namespace() {
    let Some(_host) = root_or_skip() else { return };
    let status = unshared(CloneFlags::CLONE_NEWPID, || helper("helper_in_a_pid_namespace", "1"));
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "a process that another test starts"]
fn helper_in_a_pid_namespace() {
    if std::env::var_os("HRTEST_HELPER").is_none() {
        return;
    }
    let place = Place::look(Path::new("/proc"), true);
    assert!(!place.pid && place.ipc && place.uts, "{place:?}");
    let pid_max = key("kernel.pid_max");
    let entry = headroom::sysctl::catalogue::lookup(&pid_max);
    let why = Place { kernel: (6, 18), ..place.clone() }.unsupported(&pid_max, entry.as_ref());
    assert!(why.unwrap().contains("hostPID: true"));
    let old = Place { kernel: (6, 12), ..place };
    assert_eq!(old.unsupported(&pid_max, entry.as_ref()), None, "one for the kernel before 6.14");
}

/// Runs an ignored test of this file in a process of its own.
fn helper(name: &str, argument: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("HRTEST_HELPER", argument)
        .status()
        .unwrap()
}

#[test]
fn fault_39_killed_at_any_point_of_a_pass_the_originals_stay_known() {
    let Some(host) = root_or_skip() else { return };
    for (moment, value_then) in [("before", "4096"), ("after", "10000")] {
        for apply_first in [false, true] {
            let (netns, state) = (Namespace::new(&host), host.directory());
            let path = netns.path();
            let argument = format!("{moment} {} {}", path.display(), state.path().display());
            let status = helper("helper_that_is_killed_in_a_pass", &argument);
            assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
            assert_eq!(netns.read("net/core/somaxconn"), value_then, "{moment}");

            let mut rig = Rig::at(&netns, state.path());
            assert_eq!(rig.notice, None, "the ledger is whole");
            assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"));
            if apply_first {
                rig.want([value(SOMAXCONN, "10000"), value(FIN_TIMEOUT, "90")]);
                rig.pass();
                assert_eq!(netns.read("net/core/somaxconn"), "10000");
                assert_eq!(rig.counters().drift, 0);
            }
            assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"));
            let done = rig.restore();
            let back = [Outcome::Restored, Outcome::AlreadyThere];
            assert!(
                back.contains(&done[SOMAXCONN]) && back.contains(&done[FIN_TIMEOUT]),
                "{done:?}"
            );
            assert_eq!(netns.read("net/core/somaxconn"), "4096");
            assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "60");
            assert_eq!(rig.restore().len(), 0, "nothing is on record any more");
        }
    }
}

#[test]
#[ignore = "a process that another test starts"]
fn helper_that_is_killed_in_a_pass() {
    let Ok(argument) = std::env::var("HRTEST_HELPER") else { return };
    let [moment, netns, state] = argument.split(' ').collect::<Vec<_>>()[..] else { return };
    let fd: OwnedFd = fs::File::open(netns).unwrap().into();
    let netns = Netns::At(fd.into());
    let tree = SysctlTree::open(Path::new("/proc/sys"), None).unwrap();
    let mut rig = Rig::new(in_netns(), tree, netns.clone(), false, Path::new(state));
    rig.want([value(SOMAXCONN, "10000"), value(FIN_TIMEOUT, "90")]);
    let changes = rig.engine.preview(Instant::now()).unwrap();
    netns
        .run(|| {
            rig.engine.record(&changes);
            if moment == "after" {
                rig.engine.write(changes);
            }
        })
        .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGKILL).unwrap();
}

/// The ledger knows what was wanted, and the kernel shows what it made of it.
#[test]
fn fault_39_killed_after_a_write_that_the_kernel_rounded_the_original_comes_back() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const TIME: &str = "net.ipv4.neigh.lo.retrans_time_ms";
    let original = netns.read("net/ipv4/neigh/lo/retrans_time_ms");
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(TIME, "1001")]);
    let changes = rig.engine.preview(Instant::now()).unwrap();
    netns.run(|| {
        rig.engine.record(&changes);
        rig.engine.write(changes);
    });
    // Before the ledger is saved again.
    drop(rig);
    let done = Rig::at(&netns, state.path()).restore();
    assert_eq!(netns.read("net/ipv4/neigh/lo/retrans_time_ms"), original, "{done:?}");
}

/// The original of a key is that of the interface that has it now.
#[test]
fn fault_11_another_interface_of_the_same_name_has_an_original_of_its_own() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const TAG: &str = "net.ipv4.conf.v0.tag";
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(TAG, "7")]);
    for original in ["3", "4"] {
        netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        netns.write("net/ipv4/conf/v0/tag", original);
        rig.pass();
        assert_eq!(netns.read("net/ipv4/conf/v0/tag"), "7");
        assert_eq!(rig.original(TAG).as_deref(), Some(original));
        netns.ip(["link", "delete", "v0"]);
        rig.pass();
    }
}

#[test]
fn only_what_is_still_ours_is_put_back() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    let mut rig = Rig::at(&netns, state.path());
    assert_eq!(rig.restore().len(), 0, "an empty ledger");
    rig.want([
        value(SOMAXCONN, "10000"),
        value(FIN_TIMEOUT, "90"),
        value("net.ipv4.tcp_keepalive_time", "600"),
        value("net.ipv4.conf.v0.tag", "7"),
        value("net.ipv4.conf.v1.tag", "7"),
        value("net.ipv4.tcp_keepalive_intvl", "75"),
    ]);
    rig.pass();
    netns.write("net/ipv4/tcp_fin_timeout", "30");
    netns.write("net/ipv4/tcp_keepalive_time", "7200");
    netns.ip(["link", "set", "v0", "name", "w0"]);
    let done = rig.restore();
    let expected = [
        (SOMAXCONN, Outcome::Restored),
        (FIN_TIMEOUT, Outcome::LeftAlone),
        ("net.ipv4.tcp_keepalive_time", Outcome::AlreadyThere),
        ("net.ipv4.conf.v0.tag", Outcome::Gone),
        ("net.ipv4.conf.v1.tag", Outcome::Restored),
    ];
    assert_eq!(done, expected.map(|(key, outcome)| (key.to_owned(), outcome)).into());
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "30");
    assert_eq!(netns.read("net/ipv4/conf/v1/tag"), "0");
    assert_eq!(rig.restore().len(), 0, "all forgotten");
}

#[test]
fn what_is_no_longer_wanted_is_put_back_with_its_siblings_alone() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    const SECONDS: &str = "net.ipv4.neigh.lo.base_reachable_time";
    let both = |netns: &Namespace| {
        ["", "_ms"].map(|unit| netns.read(&format!("net/ipv4/neigh/lo/base_reachable_time{unit}")))
    };
    let before = both(&netns);
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000"), value(FIN_TIMEOUT, "90"), value(SECONDS, "77")]);
    rig.pass();
    assert_eq!(both(&netns), ["77", "77000"]);
    assert_eq!(rig.restore_unconfigured().len(), 0);
    rig.want([value(FIN_TIMEOUT, "90")]);
    let done = rig.restore_unconfigured();
    assert_eq!(done[SOMAXCONN], Outcome::Restored);
    assert_eq!(done[SECONDS], Outcome::Restored);
    rig.pass();
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
    assert_eq!(both(&netns), before, "{done:?}");
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "90");
    assert_eq!(rig.original(SOMAXCONN), None);
    assert_eq!(rig.original(FIN_TIMEOUT).as_deref(), Some("60"));
    assert_eq!(rig.restore().len(), 1, "the one that is left");
}

#[test]
fn a_key_that_cannot_be_reached_stays_on_record() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000")]);
    rig.pass();
    drop(rig);
    // The next run finds itself where it does not belong.
    netns.run(|| {
        let mut rig = Rig::here(state.path());
        let outcome = rig.restore().remove(SOMAXCONN).unwrap();
        assert!(matches!(&outcome, Outcome::Failed { reason } if reason.contains("wrong network namespace")));
        assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"));
    });
    assert_eq!(netns.read("net/core/somaxconn"), "10000");
    assert_eq!(Rig::at(&netns, state.path()).restore()[SOMAXCONN], Outcome::Restored);
}

#[test]
fn keys_that_change_each_other_are_put_back_together() {
    let Some(host) = root_or_skip() else { return };
    const BYTES: &str = "vm.dirty_bytes";
    const RATIO: &str = "vm.dirty_ratio";
    let pair = ["vm/dirty_bytes", "vm/dirty_ratio"];
    let _saved = SavedSysctls::new(&host, pair);
    let now = || {
        pair.map(|path| {
            fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap().trim_end().to_owned()
        })
    };
    let large = "8589934592";
    for (set, original, policy) in [
        ("vm/dirty_ratio", ["0", "21"], value(BYTES, large)),
        ("vm/dirty_bytes", [large, "0"], value(RATIO, "22")),
        ("vm/dirty_ratio", ["0", "21"], value(RATIO, "22")),
    ] {
        let value = if set == "vm/dirty_ratio" { original[1] } else { original[0] };
        fs::write(Path::new("/proc/sys").join(set), value).unwrap();
        assert_eq!(now(), original);
        let state = host.directory();
        let mut rig = Rig::here(state.path());
        rig.want([policy.clone()]);
        rig.pass();
        assert_eq!(rig.state(policy.0.as_str()), State::InSync);
        assert_ne!(now(), original);
        let done = rig.restore();
        assert_eq!(now(), original, "{done:?}");
        assert_eq!(done[policy.0.as_str()], Outcome::Restored);
        assert_eq!(rig.restore().len(), 0);
    }
}

/// `ip_forward` rewrites every interface's `forwarding`.
#[test]
fn what_ip_forward_changed_comes_back_interface_by_interface() {
    let Some(host) = root_or_skip() else { return };
    for key in [IP_FORWARD, "net.ipv4.conf.all.forwarding", "net.ipv6.conf.all.forwarding"] {
        let (netns, state) = (Namespace::new(&host), host.directory());
        let family = if key.contains("ipv6") { "ipv6" } else { "ipv4" };
        let forwarding = |name: &str| format!("net/{family}/conf/{name}/forwarding");
        netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
        netns.write(&forwarding("all"), "0");
        netns.write(&forwarding("v0"), "1");
        let mut rig = Rig::at(&netns, state.path());
        rig.want([value(key, "1")]);
        rig.pass();
        assert_eq!(netns.read(&forwarding("v1")), "1", "{key}");
        let done = rig.restore();
        assert_eq!(done[key], Outcome::Restored);
        let values = ["all", "v0", "v1"].map(|name| netns.read(&forwarding(name)));
        assert_eq!(values, ["0", "1", "0"], "{key}: {done:?}");
    }
}

#[test]
fn fault_40_without_room_or_right_for_the_ledger_tuning_goes_on() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    private_mounts(|| {
        let mount = Mount::file_system("tmpfs", state.path(), "size=16k");
        let filler = state.path().join("filler");
        fs::write(&filler, [0; 16384]).unwrap();
        let mut rig = Rig::at(&netns, state.path());
        rig.want([value(SOMAXCONN, "10000")]);
        rig.pass();
        assert_eq!(rig.state(SOMAXCONN), State::InSync);
        let notice = rig.engine.ledger_notice().unwrap().to_owned();
        assert!(notice.contains("ENOSPC") && notice.contains("kept in memory only"), "{notice}");
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1, "no half of a file");
        rig.pass();
        assert_eq!(rig.engine.ledger_notice(), Some(notice.as_str()), "still so");

        fs::remove_file(&filler).unwrap();
        rig.pass();
        assert_eq!(rig.engine.ledger_notice(), None, "there is room again");
        drop(rig);
        let mut rig = Rig::at(&netns, state.path());
        assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"), "and it was written");

        mount.set_read_only(true);
        rig.want([value(SOMAXCONN, "10000"), value(FIN_TIMEOUT, "90")]);
        rig.pass();
        assert_eq!(rig.state(FIN_TIMEOUT), State::InSync);
        let notice = rig.engine.ledger_notice().unwrap();
        assert!(notice.contains("EROFS"), "{notice}");
        assert_eq!(rig.restore()[FIN_TIMEOUT], Outcome::Restored, "from memory");
    });
}

#[test]
fn fault_07_thresholds_are_raised_from_the_top_and_lowered_from_the_bottom() {
    let Some(host) = root_or_skip() else { return };
    let keys = |family: &str| {
        [1, 2, 3].map(|level| format!("net.{family}.neigh.default.gc_thresh{level}"))
    };
    let all: Vec<String> = [keys("ipv4"), keys("ipv6")].concat();
    let files: Vec<String> = all.iter().map(|key| file(key)).collect();
    let _saved = SavedSysctls::new(&host, files.iter().map(String::as_str));
    let state = host.directory();
    let mut rig = Rig::here(state.path());
    let mut set = |values: [&str; 3]| {
        rig.want(all.iter().zip(values.into_iter().cycle()).map(|(key, text)| value(key, text)));
        let mut watch = WriteWatch::new(files.iter().map(String::as_str));
        rig.pass();
        assert_eq!(rig.unmet(), []);
        let written = watch.written();
        ["ipv4", "ipv6"].map(|family| -> String {
            let ours = written.iter().filter(|path| path.contains(family));
            ours.filter_map(|path| path.chars().last()).collect()
        })
    };
    // From whatever the machine has to where this test begins.
    set(["1000", "2000", "3000"]);
    assert_eq!(set(["1500", "4096", "8192"]), ["321", "321"], "raised");
    assert_eq!(set(["900", "1200", "1500"]), ["123", "123"], "lowered");
    let back = rig.restore();
    assert!(
        back.values().all(|outcome| matches!(outcome, Outcome::Restored | Outcome::AlreadyThere)),
        "{back:?}"
    );
}
