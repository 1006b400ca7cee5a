//! Facts 8 and 3.3: the same errno says one thing at `open(2)` and another at `write(2)`.

use std::path::Path;

use headroom::kernel::errno::Access::{Open, Read};
use headroom_tests::{Mount, SavedSysctls, private_mounts, root_or_skip};
use nix::errno::Errno;

use super::support::{
    exists, fresh, full, has_ipv6, here, mode, number, read, refusal, set, text, words, write,
};

/// Facts 8: ENOENT at open: no such key.
#[test]
fn enoent_at_open_means_no_such_key() {
    let Some(_host) = root_or_skip() else { return };
    for path in ["net/core/nothing", "net/ipv4/conf/nolink/tag", "nothing/at_all"] {
        assert_eq!(text(path), Err((Open, Errno::ENOENT)), "{path}");
        assert_eq!(write(path, "1"), Err((Open, Errno::ENOENT)), "{path}");
    }
    // There, but not in this namespace.
    assert!(exists("net/core/netdev_max_backlog"));
    let inside = fresh(|| write("net/core/netdev_max_backlog", "1000"));
    assert_eq!(inside, Err((Open, Errno::ENOENT)));
}

/// Facts 8, 3.3: ENOENT at write: no such value. EPERM there: an algorithm that child namespaces
/// may not choose.
#[test]
fn enoent_at_write_means_no_such_value() {
    let Some(host) = root_or_skip() else { return };
    let [key, allowed, available] =
        ["", "allowed_", "available_"].map(|kind| format!("net/ipv4/tcp_{kind}congestion_control"));
    let before = read(&key);
    fresh(|| {
        assert_eq!(refusal(&key, "nosuch"), Errno::ENOENT);
        assert_eq!(read(&key), before);
    });
    let all = read(&available);
    let Some(other) = all.split(' ').find(|name| *name != "reno") else {
        assert_eq!(all, "reno", "the kernel always has this one");
        return eprintln!("not tested: no second congestion control that could be forbidden");
    };
    let _saved = SavedSysctls::new(&host, [allowed.as_str()]);
    set(&allowed, "reno");
    fresh(|| {
        assert_eq!(refusal(&key, other), Errno::EPERM);
        set(&key, "reno");
        assert_eq!(write(&allowed, other), Err((Open, Errno::EACCES)), "the host's, to look at");
    });
}

/// Facts 8: EACCES as root at open: the mode bits, which no capability overrides here.
#[test]
fn eacces_at_open_means_the_mode_bits_even_for_root() {
    let Some(_host) = root_or_skip() else { return };
    for path in ["fs/file-nr", "kernel/ostype", "net/ipv4/tcp_available_congestion_control"] {
        assert_eq!(mode(path), 0o444, "{path}");
        assert!(text(path).is_ok());
        assert_eq!(write(path, "1"), Err((Open, Errno::EACCES)), "{path}");
    }
}

/// Facts 8: files that act and store nothing can be written and not read.
#[test]
fn what_only_acts_is_write_only() {
    let Some(_host) = root_or_skip() else { return };
    let compaction = std::fs::read_to_string("/proc/vmstat").unwrap().contains("compact_stall");
    let mut paths = vec!["net/ipv4/route/flush", "vm/drop_caches"];
    if has_ipv6() {
        paths.push("net/ipv6/route/flush");
    }
    if here("vm/compact_memory", "compaction is not compiled in", !compaction) {
        paths.push("vm/compact_memory");
    }
    for path in paths {
        assert_eq!(mode(path), 0o200, "{path}");
        assert_eq!(text(path), Err((Open, Errno::EACCES)), "{path}");
    }
    fresh(|| {
        assert_eq!(mode("net/ipv4/route/flush"), 0o200);
        set("net/ipv4/route/flush", 1);
    });
    // It acts on read too, and has nothing to show.
    assert_eq!(mode("vm/stat_refresh"), 0o600);
    assert_eq!(text("vm/stat_refresh"), Ok(String::new()));
}

/// Facts 8: EROFS: `/proc/sys` is mounted read-only. Facts 3.4: another mount of proc is not.
#[test]
fn erofs_means_the_mount_is_read_only() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    fresh(|| {
        private_mounts(|| {
            let bind = Mount::bind("/proc/sys", "/proc/sys");
            bind.set_read_only(true);
            assert_eq!(write("net/core/somaxconn", "1025"), Err((Open, Errno::EROFS)));
            assert_eq!(read("net/core/somaxconn"), "4096");
            let _proc = Mount::file_system("proc", directory.path(), "");
            let other = directory.path().join("sys/net/core/somaxconn");
            std::fs::write(other, "1026").unwrap();
            assert_eq!(read("net/core/somaxconn"), "1026");
        });
    });
}

/// Facts 8: `stable_secret` answers EIO until it is set.
#[test]
fn eio_means_that_no_secret_is_set() {
    let Some(_host) = root_or_skip() else { return };
    if !has_ipv6() {
        return;
    }
    let [default, all, lo] =
        ["default", "all", "lo"].map(|at| format!("net/ipv6/conf/{at}/stable_secret"));
    fresh(|| {
        assert_eq!(words(&default), Err((Read, Errno::EIO)));
        assert_eq!(words(&lo), Err((Read, Errno::EIO)));
        let secret = "2001:0db8:0000:0000:0000:0000:0000:0001";
        assert_eq!(refusal(&all, secret), Errno::EIO, "there is no secret for all");
        let modes =
            || ["default", "lo"].map(|at| number(&format!("net/ipv6/conf/{at}/addr_gen_mode")));
        assert_eq!(modes(), [0, 0]);
        assert!(write(&default, secret).is_ok());
        assert_eq!(read(&default), secret);
        assert_eq!(words(&lo), Err((Read, Errno::EIO)), "this one has none yet");
        // addrconf_sysctl_stable_secret: those that are there are switched, the default is not.
        assert_eq!(modes(), [0, 2], "stable addresses from now on");
    });
}

/// Facts 3.3, 8: EINVAL: out of range, of a number as of what it may be together with others.
#[test]
fn einval_means_out_of_range() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        for (path, values) in [
            ("net/ipv4/ip_default_ttl", ["0", "256"]),
            ("net/ipv4/tcp_syn_retries", ["0", "128"]),
            ("net/ipv4/ip_unprivileged_port_start", ["-1", "65536"]),
        ] {
            let before = read(path);
            for value in values {
                assert_eq!(refusal(path, value), Errno::EINVAL, "{path} = {value}");
                assert_eq!(read(path), before);
            }
        }
    });
}

/// Facts 8: EPERM at write: a key that goes one way only.
#[test]
fn eperm_at_write_means_a_key_that_goes_one_way() {
    let Some(_host) = root_or_skip() else { return };
    let key = "kernel/unprivileged_bpf_disabled";
    let no_bpf = !Path::new("/sys/fs/bpf").exists();
    if !here(key, "the bpf system call is not compiled in", no_bpf) {
        return;
    }
    match number(key) {
        1 => {
            for value in ["0", "2"] {
                assert_eq!(refusal(key, value), Errno::EPERM, "1 stays until the next boot");
            }
            set(key, 1);
        }
        // To set 1 for this would be for good.
        before => {
            set(key, before);
            assert_eq!(number(key), before, "not locked");
        }
    }
}

/// Facts 8: a directory is no key.
#[test]
fn a_directory_is_no_key() {
    let Some(_host) = root_or_skip() else { return };
    assert!(full("net/core").is_dir());
    assert_eq!(text("net/core"), Err((Read, Errno::EISDIR)));
    assert_eq!(write("net/core", "1"), Err((Open, Errno::EISDIR)));
}
