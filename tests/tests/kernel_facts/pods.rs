//! Pods' namespaces: which of them lies at a path, its cookie, its addresses and its processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use headroom::kernel::addresses::addresses;
use headroom::kernel::net_processes::{self, ProcessesError};
use headroom::kernel::netns::NsId;
use headroom::kernel::nsfs::{self, Found};
use headroom_tests::{Mount, private_mounts, root_or_skip};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::mkfifo;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::support::{
    add_address, add_link, change_link, finish, fresh, has_ipv6, helper, index, kernel, netlink,
    on_thread, unshared, with_capabilities,
};

const PROC: &str = "/proc";
const OWN: &str = "/proc/thread-self/ns/net";

fn own() -> NsId {
    let meta = fs::metadata(OWN).unwrap();
    NsId { dev: meta.dev(), ino: meta.ino() }
}

/// What lies there, in words; `netns` for a network namespace.
fn found(path: &Path) -> &'static str {
    match nsfs::find(Path::new(PROC), path).unwrap() {
        Found::Netns(..) => "netns",
        Found::NotMounted => "not mounted",
        Found::Other(what) => what,
        Found::Nothing => "nothing",
    }
}

fn file(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    File::create_new(&path).unwrap();
    path
}

#[test]
fn a_mounted_network_namespace_is_found_and_none_of_another_kind() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    private_mounts(|| {
        let path = file(directory.path(), "net");
        let (id, _mount) = fresh_at(&path);
        let Ok(Found::Netns(fd, known)) = nsfs::find(Path::new(PROC), &path) else { panic!() };
        assert_eq!(known, id);
        assert_ne!(known, own());
        // The descriptor is of that very namespace, and one to enter it by.
        let entered = on_thread(|| {
            setns(fd.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
            own()
        });
        assert_eq!(entered, id);
        for kind in ["cgroup", "ipc", "pid", "user", "uts"] {
            let source = Path::new("/proc/self/ns").join(kind);
            if source.exists() {
                let path = file(directory.path(), kind);
                let _mount = Mount::bind(source, &path);
                assert_eq!(found(&path), "a namespace of another kind", "{kind}");
            }
        }
        // Another file on top is what is seen.
        let other = file(directory.path(), "other");
        let mount = Mount::bind(&other, &path);
        assert_eq!(found(&path), "not mounted");
        drop(mount);
        assert_eq!(found(&path), "netns");
    });
    // There, the mount is not seen.
    assert_eq!(found(&directory.path().join("net")), "not mounted");
}

/// A new namespace, mounted on a file.
fn fresh_at(path: &Path) -> (NsId, Mount) {
    fresh(|| (own(), Mount::bind(OWN, path)))
}

#[test]
fn what_is_no_namespace_is_told_apart() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    let at = |name: &str| directory.path().join(name);
    let empty = file(directory.path(), "empty");
    fs::set_permissions(&empty, PermissionsExt::from_mode(0o000)).unwrap();
    symlink(OWN, at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    mknod(&at("device"), SFlag::S_IFCHR, Mode::S_IRUSR, makedev(1, 3)).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRUSR).unwrap();
    let all = [
        ("empty", "not mounted"),
        ("link", "a symbolic link"),
        ("dangling", "a symbolic link"),
        ("directory", "a directory"),
        ("socket", "a socket"),
        ("device", "a device"),
        ("fifo", "a FIFO"),
        ("nothing", "nothing"),
        ("empty/below", "nothing"),
    ];
    for (name, what) in all {
        assert_eq!(found(&at(name)), what, "{name}");
    }
    // No permission on the files is needed.
    with_capabilities(&[], || {
        assert!(File::open(&empty).is_err());
        for (name, what) in all {
            assert_eq!(found(&at(name)), what, "{name}");
        }
    });
}

/// `fifo(7)`: a writer's `open(2)` waits for a reader's, however short that is.
#[test]
fn a_writer_that_waits_at_a_fifo_goes_on_waiting() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    let path = directory.path().join("fifo");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let opened = AtomicBool::new(false);
    let (tid_to, tid) = mpsc::channel();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            tid_to.send(nix::unistd::gettid()).unwrap();
            let file = File::options().write(true).open(&path);
            opened.store(true, Ordering::SeqCst);
            file.is_ok()
        });
        let calls = format!("/proc/self/task/{}/syscall", tid.recv().unwrap());
        // "running", or the call that it waits in.
        let waits = || {
            let call = fs::read_to_string(&calls).unwrap_or_default();
            call.split(' ').next() == Some(&libc::SYS_openat.to_string())
        };
        while !waits() {
            std::thread::yield_now();
        }
        let looked = (0..100).all(|_| found(&path) == "a FIFO");
        let waiting = waits() && !opened.load(Ordering::SeqCst);
        // Lets it go, whatever comes of the test.
        let reader = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        assert!(reader.is_ok() && writer.join().unwrap());
        assert!(looked && waiting, "it was woken");
    });
}

#[test]
fn a_cookie_is_one_namespaces_alone() {
    let Some(_host) = root_or_skip() else { return };
    let (cookie, again, namespace) = fresh(|| {
        let namespace = File::open(OWN).unwrap();
        (nsfs::cookie().unwrap(), nsfs::cookie().unwrap(), namespace)
    });
    assert_eq!(cookie.is_some(), kernel() >= (5, 14), "SO_NETNS_COOKIE is of 5.14");
    assert_eq!(cookie, again);
    let entered = on_thread(|| {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        nsfs::cookie().unwrap()
    });
    assert_eq!(entered, cookie);
    if cookie.is_some() {
        assert_ne!(fresh(|| nsfs::cookie().unwrap()), cookie);
        assert_ne!(nsfs::cookie().unwrap(), cookie);
        return;
    }
    eprintln!("not tested: this kernel has no cookies");
}

/// `ns_alloc_inum`: the lowest number that is free. `cleanup_net` frees it a while after the end.
#[test]
fn an_inode_is_used_again_and_a_cookie_is_not() {
    let Some(_host) = root_or_skip() else { return };
    let mut cookies: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    let mut made = 0;
    for _ in 0..500 {
        let (id, cookie) = fresh(|| (own(), nsfs::cookie().unwrap()));
        let Some(cookie) = cookie else {
            return eprintln!("not tested: this kernel has no cookies");
        };
        made += 1;
        assert!(cookies.entry(id.ino).or_default().insert(cookie), "{id:?} {cookie}");
        if cookies.values().any(|cookies| cookies.len() > 1) {
            break;
        }
    }
    let all: BTreeSet<u64> = cookies.values().flatten().copied().collect();
    assert_eq!(all.len(), made);
    if cookies.len() == made {
        eprintln!("not tested: no inode was used again");
    }
}

/// Has the calling thread's namespace an interface `eth0`? The kind does not matter.
fn connect() -> bool {
    let veth = LinkVeth::new("eth0", "peer0").build();
    netlink(async |handle| handle.link().add(veth).execute().await).is_ok() || add_link("eth0")
}

/// As of a point-to-point interface: its own address, and its peer's.
fn add_peer(name: &str, own: &str, peer: &str) {
    let (own, peer): (IpAddr, IpAddr) = (own.parse().unwrap(), peer.parse().unwrap());
    let add = async |handle: &Handle| {
        let length = if own.is_ipv4() { 32 } else { 128 };
        let mut request = handle.address().add(index(name), peer, length);
        request.message_mut().attributes =
            vec![AddressAttribute::Local(own), AddressAttribute::Address(peer)];
        request.execute().await
    };
    netlink(add).unwrap();
}

/// `rtnetlink(7)`: `IFA_ADDRESS` is the peer's of a point-to-point interface, `IFA_LOCAL` its own.
#[test]
fn a_namespaces_own_addresses_are_read() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        let read = || {
            let mut found: Vec<String> =
                addresses().unwrap().iter().map(ToString::to_string).collect();
            found.sort();
            found
        };
        assert_eq!(read(), Vec::<String>::new());
        change_link(LinkUnspec::new_with_index(index("lo")).up().build());
        assert_eq!(read(), Vec::<String>::new(), "127.0.0.1 and ::1 are every namespace's");
        if !connect() {
            return;
        }
        add_address("eth0", "10.99.0.7", 24);
        add_address("eth0", "10.99.0.8", 24);
        add_peer("eth0", "10.99.1.1", "10.99.1.2");
        let mut expected = vec!["10.99.0.7", "10.99.0.8", "10.99.1.1"];
        assert_eq!(read(), expected);
        if has_ipv6() {
            add_address("eth0", "fd99::7", 64);
            add_peer("eth0", "fd99::1:1", "fd99::1:2");
            expected.extend(["fd99::1:1", "fd99::7"]);
        }
        assert_eq!(read(), expected);
    });
}

/// A socket that is left open would keep the namespace.
#[test]
fn no_descriptor_is_left_by_a_look() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    let path = file(directory.path(), "net");
    private_mounts(|| {
        let (_, _mount) = fresh_at(&path);
        // A table of descriptors that no other thread uses.
        unshared(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_FILES, || {
            let open = || {
                let all = fs::read_dir("/proc/thread-self/fd").unwrap();
                let links = all.filter_map(|one| fs::read_link(one.unwrap().path()).ok());
                links.filter(|link| !link.starts_with("/proc")).collect::<Vec<_>>()
            };
            let before = open();
            addresses().unwrap();
            nsfs::cookie().unwrap();
            for name in ["net", ".", "nothing"] {
                found(&directory.path().join(name));
            }
            assert_eq!(open(), before);
        });
    });
}

/// A process is seen by the namespace of its main thread.
#[test]
fn the_processes_of_a_namespace_are_seen() {
    let Some(_host) = root_or_skip() else { return };
    let look =
        |wanted: &[NsId]| net_processes::look(Path::new(PROC), &wanted.iter().copied().collect());
    let (id, mut child) = fresh(|| (own(), helper("support::wait", "x").spawn().unwrap()));
    let (empty, namespace) = fresh(|| (own(), File::open(OWN).unwrap()));
    let seen = look(&[id, empty]);
    let refused = with_capabilities(&[], || look(&[id, empty]));
    let unwanted = look(&[]);
    drop(child.stdin.take());
    finish(child);
    drop(namespace);
    match (seen, refused, unwanted) {
        (Ok(seen), Ok(refused), Ok(unwanted)) => {
            assert_eq!(seen.pods.keys().collect::<Vec<_>>(), [&id]);
            // ptrace(2): root's own processes too, if they can do more.
            assert!(refused.pods.is_empty() && refused.refused > seen.refused, "{refused:?}");
            assert!(unwanted.pods.is_empty());
        }
        (Err(ProcessesError::OwnPidNamespace), ..) => {
            eprintln!("not tested: these are not the host's processes");
        }
        other => panic!("{other:?}"),
    }
}
