//! Entering network namespaces and knowing one's own, on a real kernel.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use headroom::kernel::netns::{
    HostNet, Kind, Netns, NetnsError, NsId, host_net, is_initial, own, socket_in_empty_netns,
};
use headroom_tests::agent_process::PATIENCE;
use headroom_tests::{Namespace, root_or_skip};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

fn net() -> NsId {
    own(Path::new("/proc"), Kind::Net).unwrap()
}

fn count(directory: &str) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn work_is_done_in_the_namespace_and_the_caller_stays_where_it_was() {
    let Some(host) = root_or_skip() else { return };
    let namespace = Namespace::new(&host);
    let inside = namespace.run(net);
    let outside = net();
    assert_ne!(inside, outside);
    let netns = Netns::At(namespace.fd());
    assert_eq!(netns.run(net).unwrap(), inside);
    assert_eq!(net(), outside);
    assert_eq!(Netns::Own.run(net).unwrap(), outside);
    // From within another namespace, and borrowing what is the caller's.
    let mut list = vec![1];
    namespace.run(|| {
        assert_eq!(Netns::Own.run(net).unwrap(), inside);
        let other = Namespace::new(&host);
        Netns::At(other.fd()).run(|| list.push(2)).unwrap();
        assert_eq!(net(), inside);
    });
    assert_eq!(list, [1, 2]);
}

/// Fault 22 and 23: the thread that entered a namespace ends there.
#[test]
fn fault_22_fault_23_a_panic_inside_leaves_nobody_in_the_namespace() {
    let Some(host) = root_or_skip() else { return };
    let namespace = Namespace::new(&host);
    let outside = net();
    let netns = Netns::At(namespace.fd());
    let before = (count("/proc/self/task"), count("/proc/self/fd"));
    for _ in 0..50 {
        let result: Result<(), _> = netns.run(|| panic!("on purpose"));
        assert!(matches!(result, Err(NetnsError::Panicked)));
        assert_eq!(net(), outside);
        assert!(netns.run(|| ()).is_ok(), "the next one works");
    }
    assert_eq!(count("/proc/self/fd"), before.1);
    // A thread is joined a moment before the kernel takes it off the list (`mm_release` comes before
    // `release_task` in `do_exit`), and other tests' threads may end meanwhile: only one that stays
    // was left behind.
    let deadline = Instant::now() + PATIENCE;
    while count("/proc/self/task") > before.0 {
        assert!(Instant::now() < deadline, "threads are left");
        std::thread::sleep(Duration::from_millis(1));
    }
    for task in std::fs::read_dir("/proc/self/task").unwrap().filter_map(Result::ok) {
        let Ok(task) = std::fs::metadata(task.path().join("ns/net")) else { continue };
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&task), outside.ino);
    }
}

#[test]
fn a_descriptor_that_is_no_network_namespace_is_an_error() {
    let Some(_host) = root_or_skip() else { return };
    for path in ["/proc/self/ns/mnt", "/dev/null", "/proc/self/status"] {
        let fd: OwnedFd = std::fs::File::open(path).unwrap().into();
        let error = Netns::At(Arc::new(fd)).run(|| panic!("not reached")).unwrap_err();
        assert!(matches!(error, NetnsError::Enter(Errno::EINVAL)), "{path}: {error}");
    }
}

#[test]
fn a_namespace_ends_with_its_last_descriptor() {
    let Some(host) = root_or_skip() else { return };
    let namespace = Namespace::new(&host);
    let inside = namespace.run(net);
    let kept = Netns::At(namespace.fd());
    drop(namespace);
    assert_eq!(kept.run(net).unwrap(), inside, "a descriptor keeps it alive");
}

#[test]
fn fault_19_the_hosts_own_namespace_is_recognised_by_whatever_name() {
    let Some(host) = root_or_skip() else { return };
    let outside = net();
    let fd: OwnedFd = std::fs::File::open("/proc/thread-self/ns/net").unwrap().into();
    let by_descriptor = Netns::At(Arc::new(fd));
    assert_eq!(by_descriptor.run(net).unwrap(), outside);
    assert_eq!(by_descriptor.run(|| host_net(Path::new("/proc"))).unwrap(), HostNet::Initial);
    let namespace = Namespace::new(&host);
    namespace.run(|| assert_ne!(net(), outside, "thread-self, not self"));
}

#[test]
fn the_hosts_network_namespace_is_known_from_any_other() {
    let Some(host) = root_or_skip() else { return };
    let proc_root = Path::new("/proc");
    assert_eq!(host_net(proc_root), HostNet::Initial);
    let namespace = Namespace::new(&host);
    let HostNet::Other(evidence) = namespace.run(|| host_net(proc_root)) else {
        panic!("a child namespace was taken for the host's")
    };
    assert!(evidence.contains("/proc/sys/net/ipv4/neigh/default/gc_thresh3"), "{evidence}");
    // Without the files of the kernel's there is nothing to go by.
    let empty = host.directory();
    assert!(matches!(host_net(empty.path()), HostNet::Other(_)));
}

#[test]
fn every_kind_of_namespace_is_told_from_the_hosts() {
    let Some(_host) = root_or_skip() else { return };
    let proc_root = Path::new("/proc");
    let kinds = [Kind::Ipc, Kind::Uts, Kind::User, Kind::Pid];
    for kind in kinds {
        assert!(
            is_initial(proc_root, kind),
            "{kind:?}: run these tests on a host, not in a container"
        );
    }
    for (flag, unshared) in
        [(CloneFlags::CLONE_NEWIPC, Kind::Ipc), (CloneFlags::CLONE_NEWUTS, Kind::Uts)]
    {
        let seen = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    unshare(flag).unwrap();
                    kinds.map(|kind| is_initial(proc_root, kind))
                })
                .join()
                .unwrap()
        });
        assert_eq!(seen, kinds.map(|kind| kind != unshared));
    }
    assert!(kinds.into_iter().all(|kind| is_initial(proc_root, kind)), "this thread stayed");
    let nowhere = Path::new("/nonexistent");
    assert!(is_initial(nowhere, Kind::Ipc), "true where it cannot be told");
    assert!(own(nowhere, Kind::Ipc).is_err());
}

#[test]
fn a_socket_in_an_empty_namespace_leaves_its_maker_where_it_was() {
    let Some(_host) = root_or_skip() else { return };
    let outside = net();
    let _socket = socket_in_empty_netns().unwrap();
    assert_eq!(net(), outside);
}
