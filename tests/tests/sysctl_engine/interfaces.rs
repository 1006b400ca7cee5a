use super::*;

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
    assert_eq!(rig.unmet(), [(key(TAG).into(), State::Pending)]);

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
