//! Facts 3.4: whose values a path, a descriptor and a thread see.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use headroom_tests::root_or_skip;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use super::support::{
    exists, finish, fresh, full, helper, helper_argument, here, kernel, number, on_thread, read,
    set, unshared, wait_for_the_other_side, with_capabilities,
};

const SOMAXCONN: &str = "net/core/somaxconn";

fn inode(path: &str) -> u64 {
    fs::metadata(path).unwrap().ino()
}

/// Facts 3.4: `/proc/sys/net` is that of the calling thread's namespace, at the time of the look-up.
#[test]
fn proc_sys_net_is_the_calling_threads() {
    let Some(_host) = root_or_skip() else { return };
    let outside = read(SOMAXCONN);
    let inside = fresh(|| {
        set(SOMAXCONN, 1111);
        File::open("/proc/thread-self/ns/net").unwrap()
    });
    assert_eq!(read(SOMAXCONN), outside);
    on_thread(|| {
        assert_eq!(read(SOMAXCONN), outside);
        setns(&inside, CloneFlags::CLONE_NEWNET).unwrap();
        assert_eq!(read(SOMAXCONN), "1111", "the same path on the same thread");
    });
    assert_eq!(read(SOMAXCONN), outside);
}

/// Facts 3.4: the way through another process' root leads to the reader's own namespace, and
/// processes have no `sys` of their own.
#[test]
fn another_process_root_shows_the_readers_namespace() {
    let Some(_host) = root_or_skip() else { return };
    let outside = read(SOMAXCONN);
    fresh(|| {
        set(SOMAXCONN, 1111);
        let thread = nix::unistd::gettid();
        let reader = move || {
            let text = fs::read_to_string(format!("/proc/{thread}/root/proc/sys/{SOMAXCONN}"));
            (text.unwrap(), Path::new(&format!("/proc/{thread}/sys")).exists())
        };
        let main = File::open(format!("/proc/{}/ns/net", std::process::id())).unwrap();
        let seen = on_thread(|| {
            setns(&main, CloneFlags::CLONE_NEWNET).unwrap();
            reader()
        });
        assert_eq!((seen.0.trim_end(), seen.1), (outside.as_str(), false));
        assert_eq!(reader().0.trim_end(), "1111");
    });
}

/// Facts 3.4: `/proc/self` and `/proc/net` are the main thread's; a thread that moved must ask
/// `/proc/thread-self`.
#[test]
fn proc_self_and_proc_net_are_the_main_threads() {
    let Some(_host) = root_or_skip() else { return };
    let outside = inode("/proc/self/ns/net");
    // Only the first namespace has this file.
    let first = |root: &str| Path::new(root).join("stat/arp_cache").exists();
    assert!(first("/proc/net") && first("/proc/thread-self/net"));
    fresh(|| {
        assert_eq!(inode("/proc/self/ns/net"), outside);
        assert_ne!(inode("/proc/thread-self/ns/net"), outside);
        assert!(first("/proc/net"));
        assert!(!first("/proc/thread-self/net"));
    });
}

/// Waits until a descriptor answers ENOENT: the kernel takes namespaces down in its own time.
fn wait_until_gone(file: &File) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while file.read_at(&mut [0; 16], 0).is_ok() {
        assert!(Instant::now() < deadline, "the namespace is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    let error = file.read_at(&mut [0; 16], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32));
}

fn open_somaxconn() -> File {
    File::options().read(true).write(true).open(full(SOMAXCONN)).unwrap()
}

fn value(file: &File) -> String {
    let mut buffer = [0; 32];
    let length = file.read_at(&mut buffer, 0).unwrap();
    String::from_utf8_lossy(&buffer[..length]).trim_end().to_owned()
}

/// Facts 3.4: a descriptor keeps to the namespace that it was opened in, and does not keep it:
/// without it, every read and write answers ENOENT.
#[test]
fn a_descriptor_stays_with_its_namespace_and_does_not_keep_it() {
    let Some(_host) = root_or_skip() else { return };
    let outside = read(SOMAXCONN);
    let (file, inside) = fresh(|| {
        set(SOMAXCONN, 1111);
        (open_somaxconn(), File::open("/proc/thread-self/ns/net").unwrap())
    });
    assert_eq!(value(&file), "1111");
    file.write_at(b"2222", 0).unwrap();
    let enter = || setns(&inside, CloneFlags::CLONE_NEWNET).unwrap();
    let seen = on_thread(|| {
        enter();
        read(SOMAXCONN)
    });
    assert_eq!(seen, "2222", "written from outside");
    assert_eq!(read(SOMAXCONN), outside);
    drop(inside);
    wait_until_gone(&file);
    let error = file.write_at(b"3333", 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ENOENT as i32));
}

/// Facts 3.4: an open namespace file, or a socket made inside, keeps the namespace.
#[test]
fn a_namespace_file_or_a_socket_keeps_the_namespace() {
    let Some(_host) = root_or_skip() else { return };
    let by_file = fresh(|| (open_somaxconn(), File::open("/proc/thread-self/ns/net").unwrap()));
    let by_socket = fresh(|| (open_somaxconn(), std::net::UdpSocket::bind("0.0.0.0:0").unwrap()));
    // Left later than both, so these are not merely waiting for their turn.
    wait_until_gone(&fresh(open_somaxconn));
    assert_eq!(value(&by_file.0), "4096");
    assert_eq!(value(&by_socket.0), "4096");
    drop((by_file.1, by_socket.1));
    wait_until_gone(&by_file.0);
    wait_until_gone(&by_socket.0);
}

/// Facts 3.4: System V and POSIX queue limits follow the thread's IPC namespace, names its UTS
/// namespace; `setns(2)` leads there.
#[test]
fn ipc_and_uts_keys_follow_the_thread() {
    let Some(_host) = root_or_skip() else { return };
    let mut keys = vec![("kernel/hostname", "elsewhere"), ("kernel/domainname", "elsewhere")];
    let no_ipc = !Path::new("/proc/sysvipc").exists();
    if here("kernel/shmmni", "System V IPC is not compiled in", no_ipc) {
        keys.extend([
            ("kernel/shmmni", "1234"),
            ("kernel/msgmax", "5000"),
            ("kernel/sem", "300 32000 32 128"),
            ("kernel/shm_rmid_forced", "1"),
        ]);
    }
    let systems = fs::read_to_string("/proc/filesystems").unwrap();
    let no_queues = !systems.contains("mqueue");
    if here("fs/mqueue/msg_max", "POSIX queues are not compiled in", no_queues) {
        keys.push(("fs/mqueue/msg_max", "11"));
    }
    let outside: Vec<String> = keys.iter().map(|(key, _)| read(key)).collect();
    let both = CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    let (ipc, uts) = unshared(both, || {
        keys.iter().for_each(|(key, value)| set(key, value));
        ["ipc", "uts"]
            .map(|kind| File::open(format!("/proc/thread-self/ns/{kind}")).unwrap())
            .into()
    });
    let again: Vec<String> = keys.iter().map(|(key, _)| read(key)).collect();
    assert_eq!(again, outside, "this thread's are as they were");
    on_thread(|| {
        setns(&ipc, CloneFlags::CLONE_NEWIPC).unwrap();
        setns(&uts, CloneFlags::CLONE_NEWUTS).unwrap();
        for (key, value) in &keys {
            assert_eq!(read(key), *value, "{key}");
        }
    });
}

/// Facts 3.4, 3.2: `pid_max` is the PID namespace's since 6.14, and `setns(2)` does not change what
/// the caller sees: it moves its children only. A new one starts at the most there can be.
#[test]
fn pid_max_follows_the_process_and_not_the_thread() {
    let Some(_host) = root_or_skip() else { return };
    let outside = read("kernel/pid_max");
    unshared(CloneFlags::CLONE_NEWPID, || {
        assert_eq!(read("kernel/pid_max"), outside, "the caller stays where it is");
        let child = helper("paths::in_a_pid_namespace", &outside).spawn().unwrap();
        finish(child);
    });
    assert_eq!(read("kernel/pid_max"), outside);
}

/// The first process of a PID namespace, below the host's `/proc`.
#[test]
#[ignore = "run by pid_max_follows_the_process_and_not_the_thread"]
fn in_a_pid_namespace() {
    let Some(outside) = helper_argument() else { return };
    assert_eq!(std::process::id(), 1);
    // The mount is the host's, so this shows the number that the host knows it by.
    let seen = fs::read_link("/proc/self").unwrap();
    assert_ne!(seen, Path::new("1"));
    if kernel() >= (6, 14) {
        assert_eq!(number("kernel/pid_max"), 4_194_304);
        set("kernel/pid_max", 30_000);
        assert_eq!(number("kernel/pid_max"), 30_000);
    } else {
        assert_eq!(read("kernel/pid_max"), outside);
    }
}

/// Facts 3.4: a namespace that belongs to another user namespace (a pod with a user namespace, or
/// a rootless one) is read and written from outside as others are; its own root may as well. It
/// lacks some keys, which the kernel does not show to those who made their own root: those of xfrm
/// in `net.core`, and some or all of IPVS.
#[test]
fn a_namespace_of_another_user_namespace_is_as_others() {
    let Some(_host) = root_or_skip() else { return };
    let no_users = !Path::new("/proc/self/ns/user").exists();
    if !here("user/max_user_namespaces", "user namespaces are not compiled in", no_users) {
        return;
    }
    let mut command = helper("paths::root_of_a_user_namespace", "");
    enter_user_namespace(&mut command);
    let mut child = command.spawn().unwrap();
    let inside = File::open(format!("/proc/{}/ns/net", child.id())).unwrap();
    let enter = || setns(&inside, CloneFlags::CLONE_NEWNET).unwrap();
    let lists = || (keys_below("net/ipv4"), keys_below("net/core"));
    let (ipv4, core) = fresh(lists);
    on_thread(|| {
        enter();
        set(TIMEOUT, 11);
        let (its_ipv4, its_core) = lists();
        let lacks = |ours: &[String], its: &[String]| -> Vec<String> {
            ours.iter().filter(|key| !its.contains(key)).cloned().collect()
        };
        // Settings of neighbors are shown since 5.17 (8c8b7aa7fb0c), most of IPVS by 6.12, those of
        // two of its schedulers not at all.
        let missing = lacks(&ipv4, &its_ipv4);
        let hidden = |key: &String| {
            key.contains("/vs/lblc")
                || (key.contains("/vs/") && kernel() < (6, 12))
                || (key.contains("/neigh/") && kernel() < (5, 17))
        };
        assert!(missing.iter().all(hidden), "{missing:?}");
        // xfrm_sysctl_init; earlier kernels showed nothing of net.core (sysctl_core_net_init).
        let missing = lacks(&core, &its_core);
        assert!(
            missing.iter().all(|key| key.contains("/xfrm_")) || its_core.is_empty(),
            "{missing:?}"
        );
        assert!(lacks(&its_ipv4, &ipv4).is_empty() && lacks(&its_core, &core).is_empty());
    });
    drop(child.stdin.take());
    finish(child);
    on_thread(|| {
        enter();
        assert_eq!((number(TIMEOUT), number("net/ipv4/ip_forward")), (22, 1));
    });
}

const TIMEOUT: &str = "net/ipv4/tcp_fin_timeout";

/// All files below a directory.
fn keys_below(directory: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![full(directory)];
    while let Some(directory) = open.pop() {
        // Where nothing is shown, neither is the directory.
        for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => found.push(entry.path().to_string_lossy().into_owned()),
            }
        }
    }
    found
}

/// Root of a user namespace that has a network namespace.
#[allow(unsafe_code)]
fn enter_user_namespace(command: &mut std::process::Command) {
    let enter = || {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
        let map = open(c"/proc/self/uid_map", OFlag::O_WRONLY, Mode::empty())?;
        nix::unistd::write(&map, b"0 0 1")?;
        Ok(())
    };
    // SAFETY: system calls alone, between fork and exec.
    unsafe { command.pre_exec(enter) };
}

#[test]
#[ignore = "run by a_namespace_of_another_user_namespace_is_as_others"]
fn root_of_a_user_namespace() {
    if helper_argument().is_none() {
        return;
    }
    // Until the other side has looked and written.
    wait_for_the_other_side();
    assert_eq!(number(TIMEOUT), 11);
    set("net/ipv4/ip_forward", 1);
    // It owns the files, so it needs no capability either.
    with_capabilities(&[], || set(TIMEOUT, 22));
    assert!(!exists("net/core/netdev_max_backlog"), "the host's");
}
