//! What this kernel does, in lines that `make vm-test` compares between kernels: the defaults of
//! keys on the host and in a new network namespace, which of the host's values a new namespace
//! copies, and how writes are understood.
//!
//! Printed as `fact: NAME=VALUE`; see them with `cargo test --test kernel_versions -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use headroom_tests::{Namespace, root_or_skip};
use nix::sched::{CloneFlags, unshare};

/// The key whose path below `/proc/sys` this is, in dotted form.
fn dotted(path: &str) -> String {
    path.chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect()
}

fn fact(name: &str, value: &str) {
    let words: Vec<&str> = value.split_whitespace().collect();
    println!("fact: {name}={}", words.join(" ").escape_debug());
}

/// Whether this machine is the test's own, and has modules to load.
fn is_virtual_machine() -> bool {
    std::env::var_os("HEADROOM_VM").is_some_and(|set| set == "1")
}

/// Keys that count, name this boot, act when they are read, or belong to one interface.
fn is_left_out(path: &str) -> bool {
    const PARTS: [&str; 22] = [
        "kernel/random/",
        "kernel/hostname",
        "kernel/domainname",
        "kernel/version",
        "kernel/osrelease",
        "kernel/ns_last_pid",
        "kernel/pty/nr",
        "kernel/sched_domain",
        "kernel/keys/",
        "kernel/tainted",
        "fs/dentry-state",
        "fs/inode-",
        "fs/file-nr",
        "fs/aio-nr",
        "fs/quota/",
        "fs/binfmt_misc/",
        "vm/stat_refresh",
        "nf_conntrack_count",
        "tcp_fastopen_key",
        "stable_secret",
        "/conf/lo/",
        "/neigh/lo/",
    ];
    PARTS.iter().any(|part| path.contains(part))
}

/// The readable keys below a directory of `/proc/sys`, as the calling thread's namespaces have
/// them; those that nobody may write say so.
fn values(directory: &str, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(Path::new("/proc/sys").join(directory)).into_iter().flatten() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("{directory}/{name}");
        let full = Path::new("/proc/sys").join(&path);
        let Ok(about) = fs::metadata(&full) else { continue };
        if about.is_dir() {
            values(&path, found);
        } else if !is_left_out(&path)
            && let Ok(text) = fs::read_to_string(&full)
        {
            let fixed = about.permissions().mode() & 0o222 == 0;
            let text = text.trim_end().to_owned();
            found.insert(path, if fixed { format!("{text} (read-only)") } else { text });
        }
    }
}

fn all_values(directories: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for directory in directories {
        values(directory, &mut found);
    }
    found
}

fn net_values(netns: &Namespace) -> BTreeMap<String, String> {
    netns.run(|| all_values(&["net"]))
}

#[test]
fn defaults_of_the_host_and_of_a_new_network_namespace() {
    let Some(host) = root_or_skip() else { return };
    if is_virtual_machine() {
        for module in ["nf_conntrack", "br_netfilter", "ip_vs"] {
            assert!(Command::new("modprobe").arg(module).status().unwrap().success(), "{module}");
        }
    }
    let ours = all_values(&["fs", "kernel", "net", "user", "vm"]);
    for (path, value) in &ours {
        fact(&format!("default {}", dotted(path)), value);
    }
    let child = net_values(&Namespace::new(&host));
    for path in ours.keys().chain(child.keys()).filter(|path| path.starts_with("net/")) {
        fact(&format!("child {}", dotted(path)), child.get(path).map_or("absent", String::as_str));
    }
    assert!(child.contains_key("net/core/somaxconn") && ours.len() > child.len());
}

/// Changes the host's keys one by one and looks at a namespace made after that, and at one made
/// before.
#[test]
fn which_values_of_the_host_a_new_namespace_copies() {
    // It changes nearly every key of the network.
    let Some(host) = root_or_skip().filter(|_| is_virtual_machine()) else { return };
    let ours = all_values(&["net"]);
    let old = Namespace::new(&host);
    let before = net_values(&old);
    let (mut copied, mut tried) = (0, 0);
    for (path, value) in before.iter().filter(|(path, _)| !path.contains("/all/")) {
        let full = Path::new("/proc/sys").join(path);
        let Some(original) = ours.get(path).filter(|text| !text.contains("read-only")) else {
            continue;
        };
        if !disturb(&full, original) {
            continue;
        }
        let differs = |netns: &Namespace| {
            let after = netns.run(|| fs::read_to_string(&full)).unwrap();
            after.trim_end() != value
        };
        let what = match (differs(&Namespace::new(&host)), differs(&old)) {
            (_, true) => "shared",
            (true, false) => "copied",
            (false, false) => "reset",
        };
        let _ = fs::write(&full, original);
        tried += 1;
        copied += u32::from(what == "copied");
        fact(&format!("inherit {}", dotted(path)), what);
    }
    println!("{copied} of {tried} copied");
    assert!(copied > 0 && copied < tried);
}

/// Changes a key's first number a little; whether the kernel took it.
fn disturb(path: &Path, original: &str) -> bool {
    let mut words = original.split_whitespace();
    let Some(first) = words.next().and_then(|word| word.parse::<i64>().ok()) else {
        return false;
    };
    let rest = words.map(|word| format!(" {word}")).collect::<String>();
    let changed = |value: i64| {
        let _ = fs::write(path, format!("{value}{rest}"));
        fs::read_to_string(path).is_ok_and(|text| text.trim_end() != original)
    };
    [1, -1, 4, 1024].into_iter().any(|step| changed(first + step))
}

/// What comes of a write: the error, or the value that is read back.
fn write(path: &str, value: &str) -> String {
    let path = Path::new("/proc/sys").join(path);
    match fs::write(&path, value).and_then(|()| fs::read_to_string(&path)) {
        Ok(text) => text.trim_end().to_owned(),
        Err(error) => errno(&error),
    }
}

fn errno(error: &io::Error) -> String {
    error
        .raw_os_error()
        .map_or(error.to_string(), |raw| format!("{:?}", nix::errno::Errno::from_raw(raw)))
}

#[test]
fn how_writes_are_understood() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let try_write = |what: &str, path: &str, value: &str| {
        let came = netns.run(|| write(path, value));
        fact(&format!("write {what}"), &came);
        came
    };
    let somaxconn = "net/core/somaxconn";
    assert_eq!(try_write("`010` to somaxconn", somaxconn, "010"), "8");
    try_write("`0x400` to somaxconn", somaxconn, "0x400");
    try_write("`-1` to somaxconn", somaxconn, "-1");
    try_write("`-1` to tcp_keepalive_time", "net/ipv4/tcp_keepalive_time", "-1");
    try_write(
        "`1001` to base_reachable_time_ms",
        "net/ipv4/neigh/lo/base_reachable_time_ms",
        "1001",
    );
    try_write("`5 1` to ping_group_range", "net/ipv4/ping_group_range", "5 1");
    try_write("`nosuch` to tcp_congestion_control", "net/ipv4/tcp_congestion_control", "nosuch");
    try_write("`1` to rmem_max in a child", "net/core/rmem_max", "1");
    try_write("`5000 6000 -1` to tcp_rmem", "net/ipv4/tcp_rmem", "5000 6000 -1");
    fact("write tcp_rmem after that", &netns.read("net/ipv4/tcp_rmem"));
    if is_virtual_machine() {
        let max = "net/netfilter/nf_conntrack_max";
        let before = fs::read_to_string(Path::new("/proc/sys").join(max)).unwrap();
        fact("write `0` to nf_conntrack_max", &write(max, "0"));
        write(max, &before);
    }
}

#[test]
fn a_pid_namespace_has_a_pid_max_of_its_own() {
    let Some(_host) = root_or_skip() else { return };
    let inside = std::thread::scope(|scope| {
        let look = || {
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            // Whatever proc is mounted: the kernel asks for the reader's own namespace.
            Command::new("cat").arg("/proc/sys/kernel/pid_max").output().unwrap().stdout
        };
        scope.spawn(look).join().unwrap()
    });
    fact("pid_max in a new PID namespace", &String::from_utf8(inside).unwrap());
}

#[test]
fn interfaces_and_their_keys() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    let there = |path: &str| {
        let path = Path::new("/proc/sys/net").join(path);
        if netns.run(|| path.exists()) { "there" } else { "gone" }
    };
    netns.ip(["link", "set", "v0", "mtu", "1279"]);
    fact("interface: IPv6 keys at an MTU of 1279", there("ipv6/conf/v0/mtu"));
    netns.ip(["link", "set", "v0", "mtu", "1280"]);
    fact("interface: IPv6 keys at an MTU of 1280", there("ipv6/conf/v0/mtu"));
    netns.ip(["link", "set", "v0", "up"]);
    let came = netns.try_ip(["link", "set", "v0", "name", "v2"]);
    fact("interface: renamed while it is up", if came.is_ok() { "yes" } else { "no" });
    netns.write("net/ipv4/conf/default/tag", "7");
    let tag = |name: &str| netns.read(&format!("net/ipv4/conf/{name}/tag"));
    fact("interface: conf.default changes one that has no address", &tag("v1"));
    // The mark "has a value of its own", which writing the default sets on the default, is copied
    // too (inetdev_init).
    netns.ip(["link", "add", "b0", "type", "bridge"]);
    netns.write("net/ipv4/conf/default/tag", "8");
    fact("interface: conf.default changes one made after it was first written", &tag("b0"));
    let kinds = ["dummy", "bridge", "vxlan id 1 dstport 0", "ipvlan link v1", "netkit"];
    for kind in kinds {
        let words = ["link", "add", "k0", "type"].into_iter().chain(kind.split(' '));
        let made = netns.try_ip(words).is_ok();
        let kind = kind.split(' ').next().unwrap();
        fact(&format!("interface: kind {kind}"), if made { "can be made" } else { "no" });
        let _ = netns.try_ip(["link", "delete", "k0"]);
    }
}
