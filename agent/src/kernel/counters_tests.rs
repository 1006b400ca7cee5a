#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// As they were read on 6.18, shortened.
const NETSTAT: &str = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPAbortOnMemory\n\
                       TcpExt: 1 22 33 44\n\
                       IpExt: InNoRoutes ListenDrops\n\
                       IpExt: 5 6\n";
const CONNTRACK: &str = "entries  clashres found insert_failed drop early_drop icmp_error\n\
                         00000007  00000000 00000000 00000001 0000000a 00000010 00000000\n\
                         00000007  00000000 00000000 00000002 0000000b 00000001 00000000\n";

#[test]
fn threads_are_the_number_behind_the_slash() {
    assert_eq!(threads("0.23 0.38 1.09 1/91 5612\n"), Some(91));
    for bad in ["", "0.23 0.38 1.09 1 5612", "0.23 0.38 1.09 1/x 5612"] {
        assert_eq!(threads(bad), None, "{bad:?}");
    }
}

#[test]
fn a_line_of_key_users_is_a_user_with_both_maxima() {
    let text = "    0:     9 8/8 3/1000000 40/25000000\n65534:     1 1/1 200/200 20000/20000\n";
    let users = key_users(text).unwrap();
    assert_eq!(users[0], KeyUser { uid: 0, keys: [3, 1_000_000], bytes: [40, 25_000_000] });
    assert_eq!(users[1], KeyUser { uid: 65534, keys: [200, 200], bytes: [20000, 20000] });
    assert_eq!(key_users(""), Some(Vec::new()), "nobody has a key");
    for bad in ["0: 9 8/8 3/1000000", "é 1 1/1 1/1 1/1", "0: 9 8/8 3 4/5", "\n"] {
        assert_eq!(key_users(bad), None, "{bad:?}");
    }
}

#[test]
fn sockets_of_tcp_are_found_by_name() {
    let text = "sockets: used 16\nTCP: inuse 1 orphan 2 tw 3 alloc 4 mem 343\nUDP: inuse 9 mem 8\n";
    let found = TcpSockets { inuse: 1, orphan: 2, tw: 3, mem: 343 };
    assert_eq!(tcp_sockets(text), Some(found));
    assert_eq!(tcp6_inuse("TCP6: inuse 4\nUDP6: inuse 9\n"), Some(4));
    assert_eq!(tcp6_inuse(text), None);
    assert_eq!(tcp_sockets("UDP: inuse 9 mem 8\n"), None);
    assert_eq!(tcp_sockets("TCP: inuse 1 orphan 2 tw 3 alloc 4\n"), None);
}

#[test]
fn counters_of_netstat_are_of_their_group_and_absent_where_the_kernel_has_none() {
    let names = ["ListenOverflows", "ListenDrops", "NotYet"];
    assert_eq!(netstat(NETSTAT, "TcpExt", names), Some([Some(22), Some(33), None]));
    assert_eq!(netstat(NETSTAT, "IpExt", ["ListenDrops"]), Some([Some(6)]));
    assert_eq!(netstat(NETSTAT, "MPTcpExt", ["ListenDrops"]), None);
    assert_eq!(netstat("TcpExt: A B\nTcpExt: 1\n", "TcpExt", ["A"]), None, "cut off");
}

#[test]
fn columns_are_hexadecimal_found_by_name_and_summed_over_cpus() {
    let names = ["drop", "early_drop", "insert_failed", "chaintoolong"];
    assert_eq!(columns(CONNTRACK, names), Some([Some(21), Some(17), Some(3), None]));
    assert_eq!(columns("", ["drop"]), None);
    assert_eq!(columns("drop\n", ["drop"]), Some([Some(0)]));
    assert_eq!(columns("a drop\n1\n", ["drop"]), None, "a short line");
}

#[test]
fn softnet_counts_the_drops_of_all_cpus() {
    let text = "00f64bf7 003e581b 0000003d 00000000\n0108d5cf 00000001 00000002 00000000\n";
    assert_eq!(softnet_dropped(text), Some(0x003e_581c));
    assert_eq!(softnet_dropped(""), None);
    assert_eq!(softnet_dropped("00f64bf7\n"), None);
}

#[test]
fn pressure_is_read_with_and_without_the_line_full() {
    let some = "some avg10=0.00 avg60=0.20 avg300=0.85 total=5468107372\n";
    assert_eq!(pressure_some(some), Some(5_468_107_372));
    let both = format!("{some}full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n");
    assert_eq!(pressure_some(&both), Some(5_468_107_372));
    assert_eq!(pressure_some("some"), None);
}

#[test]
fn dst_entries_are_the_sixth_field_of_rt6_stats() {
    assert_eq!(ipv6_dst_entries("0009 0006 01a4 0007 0000 00ff 4a3f\n"), Some(255));
    assert_eq!(ipv6_dst_entries("0009 0006"), None);
}

#[test]
fn the_memory_controller_may_be_missing_from_the_list() {
    let text = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t1\t1\t1\nmemory\t4\t69\t1\n";
    assert_eq!(memory_cgroups(text), Some(Some(69)));
    assert_eq!(memory_cgroups("#subsys_name\n"), Some(None));
    assert_eq!(memory_cgroups("memory\t4\n"), None);
    let stat = "nr_descendants 61\nnr_subsys_memory 50\nnr_dying_subsys_memory 8\n";
    assert_eq!(keyed(stat, "nr_subsys_memory"), Some(50));
    assert_eq!(keyed(stat, "nr_dying_descendants"), None);
}

#[test]
fn reserved_ports_count_where_they_lie_in_the_range() {
    for (list, count) in [
        ("", 0),
        ("\n", 0),
        ("80,32768,60999", 2),
        ("1-65535", 28232),
        ("32000-32768,60999-65535,100", 2),
    ] {
        assert_eq!(ports_between(list, 32768, 60999), Some(count), "{list:?}");
    }
    for bad in ["x", "1-", "70000", "1,,x"] {
        assert_eq!(ports_between(bad, 1, 2), None, "{bad:?}");
    }
}

proptest! {
    #[test]
    fn what_the_kernel_prints_reads_back(
        rows in proptest::collection::vec(any::<[u32; 4]>(), 1..9),
        names in Just(vec!["drop", "early_drop", "insert_failed", "new"]).prop_shuffle(),
    ) {
        let lines = rows.iter().map(|row| row.map(|cell| format!("{cell:08x}")).join(" ") + "\n");
        let text = names.join(" ") + "\n" + &lines.collect::<String>();
        let sum = |place: usize| rows.iter().map(|row| u64::from(row[place])).sum::<u64>();
        let place = |name| names.iter().position(|one| *one == name).unwrap();
        let found = columns(&text, ["drop", "new", "none"]).unwrap();
        prop_assert_eq!(found, [Some(sum(place("drop"))), Some(sum(place("new"))), None]);
    }

    #[test]
    fn key_users_read_back(users in proptest::collection::vec(any::<(u32, u32, u32)>(), 0..9)) {
        let line = |&(uid, used, max): &(u32, u32, u32)| {
            format!("{uid:5}: {:5} 1/1 {used}/{max} {max}/{used}\n", 7)
        };
        let text: String = users.iter().map(line).collect();
        let found = key_users(&text).unwrap();
        let expected = users.iter().map(|&(uid, used, max)| {
            let (used, max) = (u64::from(used), u64::from(max));
            KeyUser { uid, keys: [used, max], bytes: [max, used] }
        });
        prop_assert_eq!(found, expected.collect::<Vec<_>>());
    }

    /// Against a set that is slow and obvious; ranges of the kernel never overlap.
    #[test]
    fn reserved_ports_are_counted_like_a_set(
        bits in proptest::collection::btree_set(0u64..200, 0..60), low in 0u64..200, width in 0u64..200,
    ) {
        let list = bits.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let expected = bits.iter().filter(|port| (low..=low + width).contains(port)).count() as u64;
        prop_assert_eq!(ports_between(&list, low, low + width), Some(expected));
    }
}
