//! Bridges on a real kernel: the 1023rd port, events, dumps while everything changes.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use headroom::kernel::links::{
    BridgeLink, LinkEvent, LinkEvents, bridge_ports, bridges, port_count,
};
use headroom::kernel::netlink::{DumpSocket, NetlinkError};
use headroom::limits::bridge::{Bridge, Effect, Model, PORTS, limits};
use headroom_tests::{HostLock, Mount, Namespace, private_mounts, root_or_skip};

fn dumped(netns: &Namespace) -> (Vec<BridgeLink>, Vec<(u32, u32)>) {
    netns.run(|| {
        let mut socket = DumpSocket::open().unwrap();
        (bridges(&mut socket).unwrap(), bridge_ports(&mut socket).unwrap())
    })
}

fn bridge(netns: &Namespace, name: &str) -> BridgeLink {
    let (bridges, _) = dumped(netns);
    bridges.into_iter().find(|bridge| bridge.name.as_bytes() == name.as_bytes()).unwrap()
}

/// Shows `work` a sysfs of this namespace: a mount shows the namespace it was made in.
fn with_sysfs<T: Send>(
    host: &HostLock,
    netns: &Namespace,
    work: impl FnOnce(&Path) -> T + Send,
) -> T {
    let directory = host.directory();
    netns.run(|| {
        private_mounts(|| {
            let _sysfs = Mount::file_system("sysfs", directory.path(), "");
            work(directory.path())
        })
    })
}

#[test]
fn a_bridge_takes_1023_ports_and_not_one_more() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "add", "br0", "type", "bridge"]);
    let port = |n: u64| format!("link add v{n} master br0 type veth peer name p{n}\n");
    netns.ip_batch((0..PORTS).map(port).collect::<String>());
    let count = |ports: u64| {
        let (bridges, all) = dumped(&netns);
        assert_eq!(bridges.len(), 1);
        let br0 = &bridges[0];
        assert_eq!(all.iter().filter(|(_, master)| *master == br0.index).count() as u64, ports);
        assert_eq!(all.len() as u64, ports);
        let by_sysfs = with_sysfs(&host, &netns, |sys| port_count(sys, br0).unwrap());
        assert_eq!(by_sysfs, Some(usize::try_from(ports).unwrap()));
        assert_eq!(Model::new(bridges.clone(), all).ports(br0.index), ports);
    };
    count(1023);
    netns.ip(["link", "add", "one-more", "type", "veth", "peer", "name", "p-more"]);
    let refused = netns.try_ip(["link", "set", "one-more", "master", "br0"]).unwrap_err();
    assert!(refused.contains("Exchange full"), "{refused}");
    count(1023);
    let full =
        Bridge { name: bridge(&netns, "br0").name, ports: 1023, limit: PORTS, read_from: "sysfs" };
    let limit = limits(&[full], None).remove(0);
    assert_eq!((limit.used, limit.max, limit.object.as_str()), (Some(1023), Some(1023), "br0"));

    netns.ip(["link", "set", "v5", "nomaster"]);
    count(1022);
    netns.ip(["link", "delete", "v6"]);
    count(1021);
    netns.ip(["link", "set", "one-more", "master", "br0"]);
    count(1022);
}

#[test]
fn fault_12_a_bridge_with_a_hostile_name_is_found_and_counted() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    // The kernel itself refuses `.`, `..`, `/`, `:` and white space.
    let names: [&[u8]; 4] = [b"\x1b[31m\"<b>", b"\xff\xfe\\", b"...", b"a'b$(id)"];
    let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    for (number, name) in names.iter().enumerate() {
        netns.ip([OsStr::new("link"), OsStr::new("add"), &word(name)]
            .into_iter()
            .chain([OsStr::new("type"), OsStr::new("bridge")]));
        for port in 0..=number {
            let veth = format!("v{number}x{port}");
            netns.ip([
                "link",
                "add",
                &veth,
                "type",
                "veth",
                "peer",
                "name",
                &veth.replace('v', "p"),
            ]);
            let set =
                [OsStr::new("link"), OsStr::new("set"), OsStr::new(&veth), OsStr::new("master")];
            netns.ip(set.into_iter().chain([word(name).as_os_str()]));
        }
    }
    let (found, ports) = dumped(&netns);
    assert_eq!(found.len(), names.len());
    with_sysfs(&host, &netns, |sys| {
        for (number, name) in names.iter().enumerate() {
            let link = found.iter().find(|bridge| bridge.name.as_bytes() == *name).unwrap();
            assert_eq!(port_count(sys, link).unwrap(), Some(number + 1));
            assert_eq!(ports.iter().filter(|(_, at)| *at == link.index).count(), number + 1);
            let shown = link.name.to_string();
            assert!(shown.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{shown}");
        }
    });
}

#[test]
fn a_sysfs_that_shows_another_namespace_counts_nothing() {
    let Some(host) = root_or_skip() else { return };
    let (one, two) = (Namespace::new(&host), Namespace::new(&host));
    one.ip(["link", "add", "br0", "type", "bridge"]);
    // The same name with another index.
    two.ip_batch("link add other type bridge\nlink add br0 type bridge\n");
    let (here, elsewhere) = (bridge(&one, "br0"), bridge(&two, "br0"));
    assert_ne!(here.index, elsewhere.index);
    with_sysfs(&host, &one, |sys| {
        assert_eq!(port_count(sys, &here).unwrap(), Some(0));
        assert_eq!(port_count(sys, &elsewhere).unwrap(), None);
        assert_eq!(port_count(sys, &bridge(&two, "other")).unwrap(), None);
        one.ip(["link", "delete", "br0"]);
        assert_eq!(port_count(sys, &here).unwrap(), None, "deleted");
    });
    assert_eq!(port_count(Path::new("/sys"), &bridge(&two, "br0")).unwrap(), None);
    // A link that is no bridge has no `brif`.
    one.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    with_sysfs(&host, &one, |sys| {
        let text = std::fs::read_to_string(sys.join("class/net/v0/ifindex")).unwrap();
        let link = BridgeLink {
            index: text.trim().parse().unwrap(),
            name: headroom::kernel::name::Name::from_bytes("v0"),
        };
        assert_eq!(port_count(sys, &link).unwrap(), None);
    });
}

/// Runs `work` in the namespace on a runtime of its own.
fn on_runtime<T: Send>(netns: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    })
}

/// The next event. The limit only keeps a broken test from hanging.
async fn next(events: &mut LinkEvents) -> LinkEvent {
    let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
    event.unwrap_or_else(|_| panic!("no event came")).unwrap()
}

/// Makes a new bridge and takes in events until its own has come: then every earlier one has.
async fn catch_up(netns: &Namespace, events: &mut LinkEvents, marker: &str, model: &mut Model) {
    netns.ip(["link", "add", marker, "type", "bridge"]);
    loop {
        let event = next(events).await;
        let last = matches!(&event, LinkEvent::Changed { bridge: Some(name), .. }
            if name.as_bytes() == marker.as_bytes());
        assert_ne!(model.apply(event), Effect::Resync);
        if last {
            return;
        }
    }
}

#[test]
fn the_model_kept_by_events_is_what_a_fresh_dump_shows() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip_batch(
        "link add br0 type bridge\nlink add v0 master br0 type veth peer name p0\n\
         link add left type veth peer name right\n",
    );
    on_runtime(&netns, async || {
        let mut events = LinkEvents::subscribe(1 << 20).unwrap();
        let (bridges, ports) = dumped(&netns);
        let mut model = Model::new(bridges, ports);
        let steps = [
            // ports come, by both ways, and go
            "link add v1 master br0 type veth peer name p1\nlink set left master br0\n",
            "link set p1 master br0\nlink set v1 nomaster\n",
            // they move between bridges
            "link add br1 type bridge\nlink set v0 nomaster\nlink set v0 master br1\n",
            // renamed: a bridge, a port, and a name that is used again
            "link set br1 name br2\nlink add br1 type bridge\nlink set v0 name w0\n",
            "link set w0 up\nlink set p0 up\nlink set w0 down\nlink set br2 up\n",
            // a port goes without being taken from its bridge
            "link delete left\nlink delete w0\n",
            // bridges go with ports in them
            "link set p1 master br2\nlink set v1 master br1\nlink delete br2\nlink delete br1\n",
            // changes that are none to us
            "link set br0 type bridge ageing_time 100\nlink set v1 master br0\nlink set v1 mtu 1400\n",
            "link delete v1\nlink delete br0\n",
        ];
        for (number, step) in steps.into_iter().enumerate() {
            netns.ip_batch(step);
            catch_up(&netns, &mut events, &format!("marker{number}"), &mut model).await;
            let (bridges, ports) = dumped(&netns);
            assert_eq!(model, Model::new(bridges, ports), "after {step}");
        }
    });
}

#[test]
fn fault_16_lost_events_are_said_and_later_ones_come_again() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    on_runtime(&netns, async || {
        let mut events = LinkEvents::subscribe(4096).unwrap();
        let many: String =
            (0..300).map(|n| format!("link add v{n} type veth peer name p{n}\n")).collect();
        // Nobody reads meanwhile.
        netns.ip_batch(many);
        let mut seen = 0;
        while next(&mut events).await != LinkEvent::Overrun {
            seen += 1;
        }
        assert!(seen < 600, "{seen} events before the overrun");

        // The kernel says nothing more until what was queued has been read; then it does again.
        // The pauses only separate the attempts.
        for attempt in 0..50 {
            netns.ip(["link", "add", &format!("again{attempt}"), "type", "bridge"]);
            let pause = Duration::from_millis(200);
            while let Ok(event) = tokio::time::timeout(pause, events.next()).await {
                if let LinkEvent::Changed { bridge: Some(name), .. } = event.unwrap() {
                    assert!(name.as_bytes().starts_with(b"again"), "{name}");
                    return;
                }
            }
        }
        panic!("no event after the overrun");
    });
}

#[test]
fn fault_17_dumps_during_churn_are_whole_or_say_that_they_are_not() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    // More than fits in one datagram, so that changes fall in between.
    netns.ip_batch((0..150).map(|n| format!("link add s{n} type bridge\n")).collect::<String>());
    let (steady, _) = dumped(&netns);
    assert_eq!(steady.len(), 150);
    // One `ip`: hundreds of changes without a pause. Deleting is slow, adding is not.
    let churn: String = (0..600)
        .map(|n| match n % 10 {
            0 => format!("link add c{n} type bridge\nlink delete c{n}\n"),
            _ => format!("link add c{n} type bridge\n"),
        })
        .collect();
    let done = AtomicBool::new(false);
    let (mut whole, mut interrupted) = (0, 0);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| {
            netns.ip_batch(&churn);
            done.store(true, Ordering::Relaxed);
        });
        netns.run(|| {
            let mut socket = DumpSocket::open().unwrap();
            while !done.load(Ordering::Relaxed) {
                match bridges(&mut socket) {
                    Ok(found) => {
                        let ours = found.iter().filter(|link| link.name.as_bytes()[0] == b's');
                        let ours: Vec<_> = ours.cloned().collect();
                        assert_eq!(ours, steady, "a dump that claims to be whole");
                        whole += 1;
                    }
                    Err(NetlinkError::Interrupted { .. }) => interrupted += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            // Whatever was broken off, the same socket goes on.
            assert!(bridges(&mut socket).unwrap().len() >= 150);
        });
        changes.join().unwrap();
    });
    assert!(whole + interrupted > 0);
}
