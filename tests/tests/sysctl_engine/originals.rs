use super::*;

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
fn fault_39_killed_at_any_point_of_a_pass_the_originals_stay_known() {
    let Some(host) = root_or_skip() else { return };
    for (moment, value_then) in [("before", "4096"), ("after", "10000")] {
        for apply_first in [false, true] {
            let (netns, state) = (Namespace::new(&host), host.directory());
            let path = netns.path();
            let argument = format!("{moment} {} {}", path.display(), state.path().display());
            let status = helper("originals::helper_that_is_killed_in_a_pass", &argument);
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
        ("net.ipv4.conf.w0.tag", Outcome::Restored),
        ("net.ipv4.conf.v1.tag", Outcome::Restored),
    ];
    assert_eq!(done, expected.map(|(key, outcome)| (key.to_owned(), outcome)).into());
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "30");
    assert_eq!(netns.read("net/ipv4/conf/v1/tag"), "0");
    assert_eq!(netns.read("net/ipv4/conf/w0/tag"), "0", "by another name");
    let again = rig.restore();
    assert!(again.values().all(|outcome| *outcome == Outcome::LeftAlone), "{again:?}");
    assert_eq!(
        again.len(),
        1,
        "what another writer changed stays on record, the rest is forgotten"
    );
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

/// What another writer did is put right, and is not what was there before the agent.
#[test]
fn the_original_is_what_was_there_before_another_writer() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    rig.want([min(SOMAXCONN, "4096")]);
    rig.pass();
    assert_eq!(rig.original(SOMAXCONN), None, "met, so nothing was written");
    netns.write("net/core/somaxconn", "128");
    rig.wait(10);
    rig.pass();
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
    assert_eq!(rig.original(SOMAXCONN).as_deref(), Some("4096"));
    assert_eq!(rig.restore()[SOMAXCONN], Outcome::AlreadyThere);
    assert_eq!(netns.read("net/core/somaxconn"), "4096");
}
