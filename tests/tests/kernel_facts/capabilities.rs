//! Facts 8 and 3.4: which capability a write needs, and what a thread without any may do.

use std::fs::{self, File};

use headroom::kernel::errno::Access::{Open, Read, Write};
use headroom_tests::{Mount, SavedSysctls, private_mounts, root_or_skip};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

use super::support::{
    Answer, CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_SYS_RAWIO, CAP_SYS_RESOURCE, as_user,
    exists, finish, fresh, has_ipv6, helper, here, is_capable, number, read, set, text,
    with_capabilities, write,
};

/// Writes the value that is there. Whether it may is all that is asked.
fn same(path: &str) -> Answer<usize> {
    write(path, &number(path).to_string())
}

/// Facts 8: uid 0 without any capability writes `net.*`, `vm.*`, `fs.*` and most of `kernel.*`.
#[test]
fn root_without_capabilities_writes_most_keys() {
    let Some(_host) = root_or_skip() else { return };
    with_capabilities(&[], || {
        for path in ["vm/swappiness", "vm/max_map_count", "fs/aio-max-nr", "kernel/panic"] {
            assert!(same(path).is_ok(), "{path}: {:?}", same(path));
        }
        assert!(same("net/core/netdev_max_backlog").is_ok());
        assert!(same("net/ipv4/neigh/default/gc_thresh3").is_ok());
    });
    fresh(|| {
        with_capabilities(&[], || {
            set("net/core/somaxconn", 1025);
            set("net/ipv4/conf/default/rp_filter", 2);
            set("net/ipv4/tcp_rmem", "4096 50000 600000");
        });
        assert_eq!(read("net/core/somaxconn"), "1025");
    });
}

/// Facts 8: the switches for forwarding need CAP_NET_ADMIN, also from uid 0.
#[test]
fn forwarding_needs_cap_net_admin() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        for path in [
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/forwarding",
            "net/ipv4/conf/default/forwarding",
            "net/ipv4/conf/lo/forwarding",
        ] {
            let refused = with_capabilities(&[], || write(path, "1"));
            assert_eq!(refused, Err((Write, Errno::EPERM)), "{path}");
            with_capabilities(&[CAP_NET_ADMIN], || set(path, 1));
            assert_eq!(read(path), "1", "{path}");
            set("net/ipv4/ip_forward", 0);
        }
        if has_ipv6() {
            // Not so for IPv6: addrconf_sysctl_forward asks for nothing.
            with_capabilities(&[], || set("net/ipv6/conf/all/forwarding", 1));
        }
    });
}

/// Facts 8: keys that hide kernel addresses, or keep programs from the kernel, need CAP_SYS_ADMIN.
#[test]
fn keys_that_hide_the_kernel_need_cap_sys_admin() {
    let Some(_host) = root_or_skip() else { return };
    let mut paths = vec!["kernel/dmesg_restrict", "kernel/kptr_restrict"];
    let bpf = "kernel/unprivileged_bpf_disabled";
    let no_bpf = !std::path::Path::new("/sys/fs/bpf").exists();
    if here(bpf, "the bpf system call is not compiled in", no_bpf) {
        paths.push(bpf);
    }
    for path in paths {
        let value = number(path).to_string();
        let refused = with_capabilities(&[], || write(path, &value));
        assert_eq!(refused, Err((Write, Errno::EPERM)), "{path}");
        let taken = with_capabilities(&[CAP_SYS_ADMIN], || write(path, &value));
        assert_eq!(taken, Ok(value.len()), "{path}");
    }
    let harden = "net/core/bpf_jit_harden";
    let no_jit = !exists("net/core/bpf_jit_enable");
    if here(harden, "the compiler for BPF is not compiled in", no_jit) {
        let value = number(harden).to_string();
        let (seen, refused) = with_capabilities(&[], || (text(harden), write(harden, &value)));
        assert_eq!(seen, Err((Read, Errno::EPERM)), "not even to look at");
        assert_eq!(refused, Err((Write, Errno::EPERM)));
        with_capabilities(&[CAP_SYS_ADMIN], || set(harden, &value));
    }
}

/// Facts 8: the lowest address that may be mapped needs CAP_SYS_RAWIO.
#[test]
fn mmap_min_addr_needs_cap_sys_rawio() {
    let Some(_host) = root_or_skip() else { return };
    let key = "vm/mmap_min_addr";
    assert_eq!(with_capabilities(&[], || same(key)), Err((Write, Errno::EPERM)));
    assert!(with_capabilities(&[CAP_SYS_RAWIO], || same(key)).is_ok());
}

/// Facts 8: the limits of a user namespace need CAP_SYS_RESOURCE, from the first byte on.
#[test]
fn limits_of_a_user_namespace_need_cap_sys_resource() {
    let Some(_host) = root_or_skip() else { return };
    let key = "user/max_net_namespaces";
    let refused = with_capabilities(&[], || (text(key).is_ok(), same(key)));
    assert_eq!(refused, (true, Err((Open, Errno::EACCES))));
    match is_capable(CAP_SYS_RESOURCE) {
        true => assert!(with_capabilities(&[CAP_SYS_RESOURCE], || same(key)).is_ok()),
        false => assert_eq!(same(key), Err((Open, Errno::EACCES)), "nor with all others"),
    }
}

/// Facts 8: another user with CAP_NET_ADMIN writes `net.*` and nothing else.
#[test]
fn another_user_with_cap_net_admin_writes_net_alone() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        as_user(65534, &[CAP_NET_ADMIN], || {
            set("net/core/somaxconn", 1025);
            set("net/ipv4/ip_forward", 1);
            for path in ["vm/swappiness", "fs/aio-max-nr", "kernel/panic"] {
                assert_eq!(same(path), Err((Open, Errno::EACCES)), "{path}");
            }
        });
        as_user(65534, &[], || {
            assert_eq!(write("net/core/somaxconn", "1026"), Err((Open, Errno::EACCES)));
            assert_eq!(read("net/core/somaxconn"), "1025", "it may look");
        });
    });
}

/// Facts 3.4: entering a network namespace needs CAP_SYS_ADMIN. Facts 8: getting at it through
/// another process also needs CAP_SYS_PTRACE.
#[test]
fn entering_needs_cap_sys_admin_and_a_path_through_a_process_cap_sys_ptrace() {
    let Some(_host) = root_or_skip() else { return };
    let inside = fresh(|| File::open("/proc/thread-self/ns/net").unwrap());
    let enter = || setns(&inside, CloneFlags::CLONE_NEWNET);
    assert_eq!(with_capabilities(&[CAP_NET_ADMIN], enter), Err(Errno::EPERM));
    assert_eq!(with_capabilities(&[CAP_SYS_ADMIN], enter), Ok(()));
    // A process that has more capabilities than who looks.
    let mut other = helper("support::wait", "").spawn().unwrap();
    let path = format!("/proc/{}/ns/net", other.id());
    let open = || File::open(&path).map(drop).map_err(|error| error.kind());
    let denied = Err(std::io::ErrorKind::PermissionDenied);
    assert_eq!(with_capabilities(&[CAP_SYS_ADMIN], open), denied);
    assert_eq!(with_capabilities(&[CAP_SYS_ADMIN, CAP_SYS_PTRACE], open), Ok(()));
    drop(other.stdin.take());
    finish(other);
}

/// Facts 8: a container with nothing but the host's `/proc/sys/net` mounted read-write, without
/// capabilities and with no_new_privs, writes the keys of the namespace that its thread is in.
#[test]
fn a_mount_of_proc_sys_net_follows_the_thread() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    let _saved = SavedSysctls::new(&host, ["net/core/message_burst"]);
    let [somaxconn, burst] =
        ["core/somaxconn", "core/message_burst"].map(|key| directory.path().join(key));
    let outside = read("net/core/somaxconn");
    private_mounts(|| {
        let _net = Mount::bind("/proc/sys/net", directory.path());
        let read_only = Mount::bind("/proc/sys", "/proc/sys");
        read_only.set_read_only(true);
        with_capabilities(&[], || {
            nix::sys::prctl::set_no_new_privs().unwrap();
            assert_eq!(same("net/core/message_burst"), Err((Open, Errno::EROFS)));
            fs::write(&burst, "11").unwrap();
        });
        assert_eq!(read("net/core/message_burst"), "11", "the host's");
        fresh(|| {
            with_capabilities(&[], || {
                fs::write(&somaxconn, "1025").unwrap();
                assert!(!burst.exists(), "the host's alone");
            });
            assert_eq!(read("net/core/somaxconn"), "1025", "the pod's, through the same mount");
        });
        assert_eq!(read("net/core/somaxconn"), outside);
    });
}
