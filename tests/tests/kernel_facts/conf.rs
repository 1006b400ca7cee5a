//! Facts 8: the directories of interfaces below `conf`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use headroom_tests::{HostLock, SavedSysctls, root_or_skip};
use nix::errno::Errno;

use super::support::{
    add_address, add_link, delete_link, exists, fresh, full, has_ipv6, number, on_host, rename,
    set, set_mtu,
};

fn tag(link: &str) -> String {
    format!("net/ipv4/conf/{link}/tag")
}

fn errno(result: std::io::Result<usize>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

/// Runs `work` in a new namespace whose conf is as compiled. Otherwise it also copies from the
/// host's which keys of `conf.default` were ever written there.
fn as_compiled<T: Send>(host: &HostLock, work: impl FnOnce() -> T + Send) -> T {
    let inherit = "net/core/devconf_inherit_init_net";
    let saved = SavedSysctls::new(host, [inherit]);
    set(inherit, 2);
    fresh(|| {
        // The file is the host's alone.
        on_host(|| drop(saved));
        work()
    })
}

/// Facts 8: writing `conf.default.X` also changes the interfaces that have no address and whose X
/// was never written, and no others (`devinet_copy_dflt_conf`).
#[test]
fn a_default_changes_interfaces_without_address_and_explicit_value() {
    let Some(host) = root_or_skip() else { return };
    as_compiled(&host, || {
        if !["bare", "set", "addressed"].into_iter().all(add_link) {
            return;
        }
        set(&tag("set"), 0);
        add_address("addressed", "192.0.2.1", 24);
        set(&tag("default"), 5);
        let now = ["bare", "set", "addressed", "lo", "all"].map(|link| number(&tag(link)));
        assert_eq!(now, [5, 0, 0, 5, 0]);
        // Another leaf of the one that was set is still the kernel's to change.
        set("net/ipv4/conf/default/medium_id", 9);
        let media = ["bare", "set", "addressed"].map(|at| format!("net/ipv4/conf/{at}/medium_id"));
        assert_eq!(media.map(|key| number(&key)), [9, 9, 0]);
        set(&tag("default"), 6);
        assert_eq!(number(&tag("bare")), 6, "again and again");
    });
}

/// Facts 8, and more than they say: an interface that comes after `conf.default.X` was written
/// takes along that X was written (`inetdev_init` copies `state`), so it follows no later change.
#[test]
fn an_interface_that_comes_after_a_default_was_written_follows_it_no_more() {
    let Some(host) = root_or_skip() else { return };
    as_compiled(&host, || {
        set(&tag("default"), 5);
        if !add_link("later") {
            return assert_eq!(number(&tag("lo")), 5);
        }
        assert_eq!([number(&tag("later")), number(&tag("lo"))], [5, 5]);
        set(&tag("default"), 6);
        assert_eq!([number(&tag("later")), number(&tag("lo"))], [5, 6]);
    });
    // So does a namespace, of what was written on the host before it came.
    let _saved = SavedSysctls::new(&host, [tag("default").as_str()]);
    set(&tag("default"), number(&tag("default")));
    fresh(|| {
        let before = number(&tag("lo"));
        set(&tag("default"), before + 5);
        assert_eq!(number(&tag("lo")), before);
    });
}

/// Facts 8, the other family: IPv6 interfaces that are there keep what they have.
#[test]
fn an_ipv6_default_changes_no_interface_that_is_there() {
    let Some(_host) = root_or_skip() else { return };
    if !has_ipv6() {
        return;
    }
    let key = |at: &str| format!("net/ipv6/conf/{at}/max_addresses");
    fresh(|| {
        let link = add_link("b0");
        set(&key("default"), 7);
        assert_eq!([number(&key("lo")), number(&key("all"))], [16, 16]);
        if link {
            assert_eq!(number(&key("b0")), 16);
            assert!(add_link("b1"));
            assert_eq!(number(&key("b1")), 7);
        }
    });
}

/// Facts 8: renaming an interface moves its directories, with the values; a kept descriptor
/// answers ENOENT.
#[test]
fn a_rename_moves_the_directory_and_ends_kept_descriptors() {
    let Some(_host) = root_or_skip() else { return };
    let ipv6 = has_ipv6();
    fresh(|| {
        if !add_link("b0") {
            return;
        }
        set(&tag("b0"), 7);
        if ipv6 {
            set("net/ipv6/conf/b0/max_addresses", 7);
        }
        let kept = File::options().read(true).write(true).open(full(&tag("b0"))).unwrap();
        assert_eq!(kept.read_at(&mut [0; 8], 0).unwrap(), 2);
        // A dot in the name, as VLAN interfaces have it.
        rename("b0", "c0.100");
        assert!(!exists("net/ipv4/conf/b0") && !exists("net/ipv6/conf/b0"));
        assert_eq!(number(&tag("c0.100")), 7);
        if ipv6 {
            assert_eq!(number("net/ipv6/conf/c0.100/max_addresses"), 7);
        }
        assert_eq!(errno(kept.read_at(&mut [0; 8], 0)), Some(Errno::ENOENT as i32));
        assert_eq!(errno(kept.write_at(b"8", 0)), Some(Errno::ENOENT as i32));
        assert_eq!(number(&tag("c0.100")), 7);
        // The old name back does not revive it.
        rename("c0.100", "b0");
        assert_eq!(number(&tag("b0")), 7);
        assert_eq!(errno(kept.read_at(&mut [0; 8], 0)), Some(Errno::ENOENT as i32));
    });
}

/// Facts 8: an interface that goes takes its directories along; a new one of its name has
/// defaults, and a descriptor of the old one answers ENOENT.
#[test]
fn an_interface_of_the_same_name_has_defaults_and_new_files() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        if !add_link("b0") {
            return;
        }
        let before = number(&tag("default"));
        set(&tag("b0"), before + 7);
        let kept = File::open(full(&tag("b0"))).unwrap();
        delete_link("b0");
        assert!(!exists(&tag("b0")));
        assert_eq!(errno(kept.read_at(&mut [0; 8], 0)), Some(Errno::ENOENT as i32));
        assert!(add_link("b0"));
        assert_eq!(number(&tag("b0")), before);
        assert_eq!(errno(kept.read_at(&mut [0; 8], 0)), Some(Errno::ENOENT as i32));
    });
}

/// Facts 8: an MTU below 1280 takes the IPv6 directory away, and no other; at 1280 it is back, with
/// the defaults of that moment.
#[test]
fn a_small_mtu_takes_the_ipv6_directory_away() {
    let Some(_host) = root_or_skip() else { return };
    if !has_ipv6() {
        return;
    }
    let addresses = |at: &str| format!("net/ipv6/conf/{at}/max_addresses");
    fresh(|| {
        if !add_link("b0") {
            return;
        }
        set(&addresses("b0"), 7);
        set(&tag("b0"), 7);
        let kept = File::open(full(&addresses("b0"))).unwrap();
        set_mtu("b0", 1280);
        assert_eq!(number(&addresses("b0")), 7, "1280 is enough");
        set_mtu("b0", 1279);
        assert!(!exists("net/ipv6/conf/b0"));
        assert_eq!(errno(kept.read_at(&mut [0; 8], 0)), Some(Errno::ENOENT as i32));
        assert_eq!(number(&tag("b0")), 7, "IPv4 stays");
        set(&addresses("default"), 9);
        set_mtu("b0", 1280);
        assert_eq!(number(&addresses("b0")), 9);
        assert_eq!(errno(kept.read_at(&mut [0; 8], 0)), Some(Errno::ENOENT as i32));
        // IPv4 needs 68 bytes only. Loopback keeps its IPv6 directory whatever its MTU is.
        set_mtu("lo", 1279);
        assert!(exists("net/ipv6/conf/lo"));
    });
}

/// Facts 3.1: every namespace has `all`, `default` and `lo`, also while nothing is up.
#[test]
fn every_namespace_has_all_default_and_lo() {
    let Some(_host) = root_or_skip() else { return };
    let list = |family: &str| {
        let entries = std::fs::read_dir(full(&format!("net/{family}/conf"))).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // Devices that some modules make in every namespace.
            .filter(|name| !name.ends_with('0'))
            .collect();
        names.sort();
        names
    };
    fresh(|| {
        assert_eq!(list("ipv4"), ["all", "default", "lo"]);
        if has_ipv6() {
            assert_eq!(list("ipv6"), ["all", "default", "lo"]);
        }
    });
}
