#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::os::unix::fs::symlink;

use super::*;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn v4_line(local: &str, state: &str, inode: &str) -> String {
    format!(
        "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

fn v6_line(local: &str, inode: u64) -> String {
    format!(
        "   0: {local} 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn parse(text: &str) -> Vec<(String, u64)> {
    parse_table(text.as_bytes()).map(|s| (s.addr.to_string(), s.inode)).collect()
}

// The kernel dumps memory, so the fixtures are those of a little-endian machine.
#[cfg(target_endian = "little")]
#[test]
fn v4_and_v6_addresses_are_read() {
    let v4 = HEAD.to_owned()
        + &v4_line("0100007F:4DA7", "0A", "41")
        + &v4_line("00000000:1770", "0A", "42")
        + &v4_line("0A01A8C0:A1B2", "01", "43");
    assert_eq!(parse(&v4), [("127.0.0.1:19879".into(), 41), ("0.0.0.0:6000".into(), 42)]);
    let v6 = HEAD.to_owned()
        + &v6_line("00000000000000000000000000000000:0050", 1)
        + &v6_line("00000000000000000000000001000000:0051", 2)
        + &v6_line("0000000000000000FFFF00000100007F:0052", 3)
        + &v6_line("B80D0120000000000000000001000000:0053", 4);
    assert_eq!(
        parse(&v6),
        [
            ("[::]:80".into(), 1),
            ("[::1]:81".into(), 2),
            ("[::ffff:127.0.0.1]:82".into(), 3),
            ("[2001:db8::1]:83".into(), 4)
        ]
    );
}

#[test]
fn malformed_lines_are_left_out() {
    let good = v4_line("00000000:1770", "0A", "7");
    for bad in [
        "",
        "\0\u{fffd}",
        "0: 0A",
        "0: : : 0A a a a a a 1",
        "0: 00000000: x 0A a a a a a 1",
        "0: :1770 x 0A a a a a a 1",
        "0: +0000000:1770 x 0A a a a a a 1",
        "0: 00000000:+770 x 0A a a a a a 1",
        "0: 00000000:17700 x 0A a a a a a 1",
        "0: 000000000:1770 x 0A a a a a a 1",
        "0: 0000000é:1770 x 0A a a a a a 1",
        "0: 00000000:1770 x 0A a a a a a -1",
        "0: 00000000:1770 x 0A a a a a a 99999999999999999999999",
        "0: 00000000:1770 x 0A a a a a",
        "0: 0000000000000000000000000000000g:1770 x 0A a a a a a 1",
    ] {
        let text = format!("{bad}\n{good}{bad}");
        assert_eq!(parse(&text), [("0.0.0.0:6000".into(), 7)], "{bad:?}");
    }
    // Every prefix of a line, and every byte of it replaced.
    for cut in 0..good.len() {
        let _ = parse(&good[..cut]);
        let mut bytes = good.clone().into_bytes();
        bytes[cut] = 0xff;
        let _ = parse_table(&bytes).count();
    }
}

#[test]
fn what_stands_in_the_way() {
    for (listener, wanted, expected) in [
        ("127.0.0.1:1", "127.0.0.1:1", Some(0)),
        ("127.0.0.1:2", "127.0.0.1:1", None),
        ("127.0.0.2:1", "127.0.0.1:1", None),
        ("0.0.0.0:1", "127.0.0.1:1", Some(1)),
        ("127.0.0.1:1", "0.0.0.0:1", Some(1)),
        ("[::]:1", "127.0.0.1:1", Some(2)),
        ("[::]:1", "[::1]:1", Some(1)),
        ("[::1]:1", "[::]:1", Some(1)),
        ("[::ffff:127.0.0.1]:1", "127.0.0.1:1", Some(0)),
        // We bind IPv6 as v6-only, so an IPv4 listener is in nobody's way.
        ("0.0.0.0:1", "[::]:1", None),
        ("[::1]:1", "127.0.0.1:1", None),
    ] {
        assert_eq!(rank(addr(listener), addr(wanted)), expected, "{listener} {wanted}");
    }
}

/// A fixture tree: one listener of pid 123, one of pid 124, and a process without `fd`.
fn tree() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let dir = |path: &str| fs::create_dir_all(root.path().join(path)).unwrap();
    let file = |path: &str, text: &[u8]| fs::write(root.path().join(path), text).unwrap();
    dir("net");
    let v4 = HEAD.to_owned()
        + &v4_line("00000000:4DA7", "0A", "501")
        + &v4_line("00000000:1F90", "0A", "999");
    file("net/tcp", v4.as_bytes());
    file(
        "net/tcp6",
        (HEAD.to_owned() + &v6_line("00000000000000000000000000000000:4DA7", 502)).as_bytes(),
    );
    dir("sys");
    dir("122");
    for (pid, comm, inode) in [("123", &b"v6-one\n"[..], 502), ("124", b"ev\x1bil\n", 501)] {
        dir(&format!("{pid}/fd"));
        file(&format!("{pid}/comm"), comm);
        symlink("/dev/null", root.path().join(pid).join("fd/0")).unwrap();
        symlink(format!("socket:[{inode}]"), root.path().join(pid).join("fd/3")).unwrap();
    }
    root
}

#[test]
fn the_closest_holder_is_named() {
    let root = tree();
    let found = |text| holder_of(root.path(), addr(text));
    let evil = Holder { pid: 124, comm: Name::from_bytes(&b"ev\x1bil"[..]) };
    // 123 listens on [::], 124 on 0.0.0.0 of the same port.
    assert_eq!(found("127.0.0.1:19879"), Some(evil));
    let v6 = Holder { pid: 123, comm: Name::from_bytes(&b"v6-one"[..]) };
    assert_eq!(found("[::1]:19879"), Some(v6));
    // Nobody listens; somebody does whose process is not visible.
    assert_eq!(found("127.0.0.1:1"), None);
    assert_eq!(found("127.0.0.1:8080"), None);
    assert_eq!(holder_of(Path::new("/nonexistent"), addr("127.0.0.1:1")), None);
}

#[test]
fn this_process_is_found_in_the_real_procfs() {
    for local in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(local) else {
            continue; // no IPv6 here
        };
        let taken = listener.local_addr().unwrap();
        let holder = holder_of(Path::new("/proc"), taken).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(!holder.comm.as_bytes().is_empty());
    }
}
