use super::*;

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
    assert_eq!(rig.unmet(), [(key(SOMAXCONN).into(), State::Contested)]);
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

/// The kernel applies the fields before the one that it refuses.
#[test]
fn fault_38_a_vector_refused_half_way_is_left_as_it_was() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    netns.write("net/ipv4/tcp_rmem", "4096 131072 6291456");
    let before = netns.read("net/ipv4/tcp_rmem");
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value("net.ipv4.tcp_rmem", "5000 6000 -1")]);
    rig.pass();
    assert_eq!(rig.state("net.ipv4.tcp_rmem"), State::Rejected);
    assert_eq!(netns.read("net/ipv4/tcp_rmem"), before, "the last good value");
    let rejected = rig.counters().rejected;
    rig.wait(10);
    rig.pass();
    assert_eq!(rig.counters().rejected, rejected, "nothing has changed, so no more attempts");
    assert_eq!(netns.read("net/ipv4/tcp_rmem"), before);
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
    assert_eq!(rig.unmet(), [(key(PORT_RANGE).into(), State::Rejected)]);

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
