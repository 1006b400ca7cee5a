use super::*;

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
            if status.key.as_str().starts_with("net.") {
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
        assert_eq!(rig.unmet(), [(key(SOMAXCONN).into(), State::Denied)]);
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
    let status =
        unshared(CloneFlags::CLONE_NEWPID, || helper("places::helper_in_a_pid_namespace", "1"));
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
