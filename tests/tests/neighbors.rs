//! Neighbor tables on a real kernel: one per family for all namespaces, what fills it, and the
//! files and messages that tell.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::Write as _;
use std::path::Path;

use headroom::kernel::errno::FileError;
use headroom::kernel::neighbor::{
    EntryCounts, Family, StatFile, TableStat, classify, parse_stat, scan, table,
};
use headroom::kernel::netlink::{DumpSocket, messages};
use headroom::kernel::netns::socket_in_empty_netns;
use headroom::limits::neighbor::{Neighbor, Sampler};
use headroom_tests::{HostLock, Namespace, SavedSysctls, root_or_skip};
use nix::errno::Errno;

fn stat(family: Family) -> TableStat {
    StatFile::open(Path::new("/proc"), family).unwrap().read().unwrap()
}

/// The machine has neighbors of its own that come and go meanwhile: what is measured must come
/// out exactly in one of a few rounds.
fn exact_once<T: PartialEq + std::fmt::Debug>(expected: &T, mut measure: impl FnMut() -> T) {
    let mut seen = Vec::new();
    for _ in 0..5 {
        seen.push(measure());
        if seen.last() == Some(expected) {
            return;
        }
    }
    panic!("expected {expected:?} in one of {seen:?}");
}

/// A namespace with the interface `v0`, which is down: nothing is sent, nothing expires.
fn with_interface(host: &HostLock) -> Namespace {
    let netns = Namespace::new(host);
    netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    netns
}

fn address(family: Family, number: usize) -> String {
    match family {
        Family::Ipv4 => format!("10.1.{}.{}", number / 250, number % 250 + 1),
        Family::Ipv6 => format!("fd00::1:{number:x}"),
    }
}

/// `ip -batch` lines that add this many neighbors, with `how` at the end of each.
fn neighbors(family: Family, range: std::ops::Range<usize>, how: &str) -> String {
    range.fold(String::new(), |mut batch, number| {
        let address = address(family, number);
        writeln!(batch, "neigh add {address} lladdr 02:00:00:00:00:01 dev v0 {how}").unwrap();
        batch
    })
}

#[test]
fn entries_of_every_namespace_are_in_the_one_table_of_their_family() {
    let Some(host) = root_or_skip() else { return };
    let namespaces = [with_interface(&host), with_interface(&host)];
    let mut socket = DumpSocket::over(socket_in_empty_netns().unwrap()).unwrap();
    let mut entries = move |family| {
        let by_file = stat(family).entries.unwrap();
        let by_netlink = table(&mut socket, family).unwrap().unwrap().entries;
        [by_file, u64::from(by_netlink)]
    };
    for family in Family::ALL {
        exact_once(&([60, 60], [0, 0]), || {
            let before = entries(family);
            for netns in &namespaces {
                netns.ip_batch(neighbors(family, 0..30, "nud permanent"));
            }
            let full = entries(family);
            for netns in &namespaces {
                netns.ip(["neigh", "flush", "dev", "v0", "nud", "all"]);
            }
            let after = entries(family);
            let more = |now: [u64; 2]| [0, 1].map(|by| now[by].wrapping_sub(before[by]));
            (more(full), more(after))
        });
    }
}

#[test]
fn the_statistics_exist_only_in_the_initial_namespace_but_netlink_answers_everywhere() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    for family in Family::ALL {
        // As /proc/net is for a process in that namespace.
        let open = || StatFile::open(Path::new("/proc/thread-self"), family);
        assert!(matches!(netns.run(open), Err(FileError { errno: Errno::ENOENT, .. })));
        open().unwrap().read().unwrap();
        exact_once(&true, || {
            let inside = netns.run(|| table(&mut DumpSocket::open().unwrap(), family));
            let outside = table(&mut DumpSocket::open().unwrap(), family);
            let (inside, outside) = (inside.unwrap().unwrap(), outside.unwrap().unwrap());
            assert_eq!(inside.gc_thresh3, outside.gc_thresh3);
            inside.entries == outside.entries && inside.table_fulls == outside.table_fulls
        });
    }
}

#[test]
fn a_socket_in_an_empty_namespace_and_one_beside_many_devices_agree() {
    let Some(host) = root_or_skip() else { return };
    let crowded = Namespace::new(&host);
    crowded.ip_batch(
        (0..60).map(|n| format!("link add v{n} type veth peer name p{n}\n")).collect::<String>(),
    );
    let mut empty = DumpSocket::over(socket_in_empty_netns().unwrap()).unwrap();
    let beside = |family| crowded.run(|| table(&mut DumpSocket::open().unwrap(), family));
    for _ in 0..10 {
        for family in Family::ALL {
            let thresholds = thresholds(family);
            exact_once(&true, || {
                let one = table(&mut empty, family).unwrap().unwrap();
                let two = beside(family).unwrap().unwrap();
                assert_eq!([one.gc_thresh1, one.gc_thresh2, one.gc_thresh3], thresholds);
                assert_eq!([two.gc_thresh1, two.gc_thresh2, two.gc_thresh3], thresholds);
                assert!(one.hash_buckets.is_power_of_two());
                let file = stat(family);
                (one.entries, one.table_fulls, one.forced_gc_runs)
                    == (two.entries, two.table_fulls, two.forced_gc_runs)
                    && file.entries == Some(one.entries.into())
                    && file.table_fulls == Some(one.table_fulls)
                    && file.forced_gc_runs == Some(one.forced_gc_runs)
                    && file.res_failed == Some(one.res_failed)
            });
        }
    }
}

#[test]
fn a_scan_tells_exempt_pinned_and_reclaimable_entries_apart() {
    let Some(host) = root_or_skip() else { return };
    let netns = with_interface(&host);
    for family in Family::ALL {
        // Reachable for hours: their timers hold a reference, so no collection frees them.
        netns.write(&format!("net/{}/neigh/v0/base_reachable_time_ms", family.label()), "36000000");
        netns.ip_batch(neighbors(family, 0..30, "nud permanent"));
        netns.ip_batch(neighbors(family, 30..50, "nud reachable extern_learn"));
        netns.ip_batch(neighbors(family, 50..65, "nud noarp"));
        netns.ip_batch(neighbors(family, 65..70, "nud failed"));
        netns.ip_batch(neighbors(family, 70..170, "nud reachable"));
        netns.ip_batch(neighbors(family, 170..171, "nud reachable").replace("v0", "lo"));
        let scanned =
            |exempt| netns.run(|| scan(&mut DumpSocket::open().unwrap(), family, exempt).unwrap());
        let counts = scanned(false);
        let expected = EntryCounts { entries: 171, exempt: 50, pinned: 101 };
        assert_eq!(counts, expected, "{family:?}");
        let expected = EntryCounts { exempt: 51, pinned: 100, ..expected };
        assert_eq!(scanned(true), expected, "{family:?}");

        // Another namespace sees none of them.
        let other = Namespace::new(&host);
        let counts = other.run(|| scan(&mut DumpSocket::open().unwrap(), family, false).unwrap());
        assert_eq!(counts, EntryCounts::default());
    }
}

/// What cannot be made without waiting: entries of some age.
#[test]
fn an_entry_can_be_reclaimed_once_it_is_five_seconds_old_and_nobody_holds_it() {
    const STALE: u16 = 0x04;
    const REACHABLE: u16 = 0x02;
    // state, RTN type, references, hundredths of a second since the update → pinned
    for (state, kind, references, updated, pinned) in [
        (STALE, 1, 0, 0, 1),
        (STALE, 1, 0, 500, 1),
        (STALE, 1, 0, 501, 0),
        (STALE, 1, 1, 9999, 1),
        (REACHABLE, 1, 1, 9999, 1),
        (0x20, 1, 0, 0, 0), // FAILED
        (0x40, 1, 0, 0, 0), // NOARP
        (0x40, 1, 1, 0, 1),
        (STALE, 5, 0, 0, 0), // multicast
        (STALE, 5, 1, 0, 1),
    ] {
        let datagram = entry(state, 0, kind, Some((updated, references)), None);
        let message = messages(&datagram).next().unwrap().unwrap();
        let expected = EntryCounts { entries: 1, exempt: 0, pinned };
        assert_eq!(classify(&message, true), Some(expected), "{state:#x} {references} {updated}");
    }
    for (state, flags, extended) in [(0x80, 0, None), (STALE, 0x10, None), (STALE, 0, Some(4))] {
        let datagram = entry(state, flags, 1, Some((0, 0)), extended);
        let message = messages(&datagram).next().unwrap().unwrap();
        let expected = EntryCounts { entries: 1, exempt: 1, pinned: 0 };
        assert_eq!(classify(&message, true), Some(expected), "{state:#x} {flags:#x} {extended:?}");
    }
}

/// A datagram with one `RTM_NEWNEIGH`.
fn entry(
    state: u16,
    flags: u8,
    kind: u8,
    cache: Option<(u32, u32)>,
    extended: Option<u32>,
) -> Vec<u8> {
    let mut attributes = Vec::new();
    // 20 bytes, as InfiniBand has them; an attribute that nobody knows
    attribute(&mut attributes, 2, &[7; 20]);
    attribute(&mut attributes, 0x3fff, &[1, 2, 3]);
    if let Some((updated, references)) = cache {
        let words = [0, 0, updated, references].map(u32::to_ne_bytes).concat();
        attribute(&mut attributes, 3, &words);
    }
    if let Some(extended) = extended {
        attribute(&mut attributes, 15, &extended.to_ne_bytes());
    }
    let mut payload = vec![2, 0, 0, 0];
    payload.extend(7u32.to_ne_bytes());
    payload.extend(state.to_ne_bytes());
    payload.extend([flags, kind]);
    payload.extend(attributes);
    let mut datagram = u32::try_from(16 + payload.len()).unwrap().to_ne_bytes().to_vec();
    datagram.extend(28u16.to_ne_bytes()); // RTM_NEWNEIGH
    datagram.extend([0; 10]);
    datagram.extend(payload);
    datagram
}

fn attribute(into: &mut Vec<u8>, kind: u16, value: &[u8]) {
    into.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
    into.extend(kind.to_ne_bytes());
    into.extend(value);
    into.resize(into.len().next_multiple_of(4), 0);
}

/// The table of one family with room for some more entries only, until it is dropped.
fn lowered(host: &HostLock, family: Family, room: u64) -> (SavedSysctls, u64) {
    let directory = format!("net/{}/neigh/default", family.label());
    let files = [3, 2, 1].map(|level| format!("{directory}/gc_thresh{level}"));
    let saved = SavedSysctls::new(host, files.iter().map(String::as_str));
    let most = stat(family).entries.unwrap() + room;
    for file in files {
        std::fs::write(Path::new("/proc/sys").join(file), most.to_string()).unwrap();
    }
    (saved, most)
}

/// Adds neighbors that no collection can free until so many were refused.
fn overflow(netns: &Namespace, family: Family, refusals: usize) -> usize {
    netns.write(&format!("net/{}/neigh/v0/base_reachable_time_ms", family.label()), "36000000");
    netns.ip_batch(neighbors(family, 0..80, "nud reachable"));
    let mut refused = 0;
    for number in 80..2000 {
        let line = neighbors(family, number..number + 1, "nud reachable");
        match netns.try_ip(line.split_ascii_whitespace()) {
            Ok(_) => {}
            Err(error) if error.contains("No buffer space available") => refused += 1,
            Err(error) => panic!("{error}"),
        }
        if refused == refusals {
            return number + 1 - refused;
        }
    }
    panic!("the table took 2000 entries more");
}

#[test]
fn a_full_table_counts_exactly_the_allocations_that_failed() {
    let Some(host) = root_or_skip() else { return };
    for family in Family::ALL {
        let mut socket = DumpSocket::over(socket_in_empty_netns().unwrap()).unwrap();
        exact_once(&[20, 20], || {
            let netns = with_interface(&host);
            let (_saved, most) = lowered(&host, family, 100);
            let before = stat(family);
            let by_netlink = table(&mut socket, family).unwrap().unwrap();
            overflow(&netns, family, 20);
            let after = stat(family);
            let table = table(&mut socket, family).unwrap().unwrap();
            assert_eq!(u64::from(table.gc_thresh3), most);
            assert!(after.forced_gc_runs > before.forced_gc_runs);
            assert!(table.forced_gc_runs > by_netlink.forced_gc_runs);
            [
                after.table_fulls.unwrap() - before.table_fulls.unwrap(),
                table.table_fulls - by_netlink.table_fulls,
            ]
        });
    }
}

#[test]
fn fault_18_a_full_table_stops_none_of_our_own_questions() {
    let Some(host) = root_or_skip() else { return };
    let netns = with_interface(&host);
    let (_saved, most) = lowered(&host, Family::Ipv4, 100);
    let added = overflow(&netns, Family::Ipv4, 1);
    let mut socket = DumpSocket::over(socket_in_empty_netns().unwrap()).unwrap();
    let entries = table(&mut socket, Family::Ipv4).unwrap().unwrap().entries;
    assert!(u64::from(entries) >= most);
    let counts = netns.run(|| scan(&mut DumpSocket::open().unwrap(), Family::Ipv4, true).unwrap());
    let added = added as u64;
    assert_eq!(counts, EntryCounts { entries: added, exempt: 0, pinned: added });
}

#[test]
fn the_sampler_reads_what_the_kernel_shows_again_and_again() {
    let Some(host) = root_or_skip() else { return };
    let mut sampler = Sampler::new(Path::new("/proc"));
    let mut tables = <[Neighbor; 2]>::default();
    sampler.sample(&mut tables, false).unwrap();
    assert!(tables.iter().all(|table| table.thresholds.is_none()), "not asked for");
    for room in [100, 200] {
        let (_saved, most) = lowered(&host, Family::Ipv6, room);
        sampler.sample(&mut tables, true).unwrap();
        assert_eq!(tables[1].gc_thresholds(), Some([most; 3]));
        assert_eq!(tables[0].gc_thresholds(), Some(thresholds(Family::Ipv4).map(u64::from)));
        assert!(tables.iter().all(|table| table.stat.is_some_and(|stat| stat.entries.is_some())));
    }
    // In a child namespace there is nothing to read, and nothing old is shown instead.
    let netns = Namespace::new(&host);
    netns.run(|| {
        let mut sampler = Sampler::new(Path::new("/proc/thread-self/root/proc"));
        let result = sampler.sample(&mut tables, true);
        assert!(result.is_err());
        assert!(tables.iter().all(|table| table.thresholds.is_none()));
    });
}

fn thresholds(family: Family) -> [u32; 3] {
    [1, 2, 3].map(|level| {
        let name = family.label();
        let path = format!("/proc/sys/net/{name}/neigh/default/gc_thresh{level}");
        std::fs::read_to_string(path).unwrap().trim_end().parse().unwrap()
    })
}

const HEADER: &str = "entries  allocs   destroys hash_grows lookups  hits     res_failed \
    rcv_probes_mcast rcv_probes_ucast periodic_gc_runs forced_gc_runs unresolved_discards table_fulls\n";

#[test]
fn statistics_sum_every_cpu_but_the_entries() {
    let row = |cpu: u64| {
        format!(
            "0000007b {:08x} 00030d53 00000009   0002ef4d 00000000 {cpu:08x}   00000000         \
             00000000         000000b7         {:08x}       {:08x}            {:08x}\n",
            1000 + cpu,
            16 + cpu,
            32 + cpu,
            64 + cpu
        )
    };
    for cpus in [1, 2, 64, 512] {
        let text = HEADER.to_owned() + &(0..cpus).map(row).collect::<String>();
        let sum: u64 = (0..cpus).sum();
        let expected = TableStat {
            entries: Some(123),
            table_fulls: Some(64 * cpus + sum),
            forced_gc_runs: Some(16 * cpus + sum),
            unresolved_discards: Some(32 * cpus + sum),
            res_failed: Some(sum),
        };
        assert_eq!(parse_stat("arp_cache", &text), Ok(expected), "{cpus} CPUs");
    }
}

#[test]
fn statistics_of_older_and_later_kernels_are_read_by_name() {
    // Before 4.3 there was no table_fulls.
    let old = HEADER.replace(" table_fulls", "");
    let text = format!("{old}{}\n", ["0000000a"; 12].join(" "));
    let stat = parse_stat("arp_cache", &text).unwrap();
    assert_eq!((stat.entries, stat.table_fulls), (Some(10), None));
    assert_eq!(stat.unresolved_discards, Some(10));

    // A later one may have more, anywhere.
    let text = "brand_new entries table_fulls\nff 2 3\nff 2 4\n";
    let stat = parse_stat("arp_cache", text).unwrap();
    assert_eq!((stat.entries, stat.table_fulls), (Some(2), Some(7)));
    assert_eq!(stat.forced_gc_runs, None);
    assert_eq!(parse_stat("arp_cache", "a b\n1 2\n"), Ok(TableStat::default()));

    // Counters that have wrapped around sum as the kernel would.
    let text = "entries table_fulls\nffffffff ffffffffffffffff\nffffffff 2\n";
    let stat = parse_stat("arp_cache", text).unwrap();
    assert_eq!((stat.entries, stat.table_fulls), (Some(0xffff_ffff), Some(1)));
}

#[test]
fn statistics_that_make_no_sense_are_refused_with_their_line() {
    let row = ["00000001"; 13].join(" ");
    let hostile = format!("{}\n", "\u{ff10}".repeat(13));
    for (rows, line) in [
        (String::new(), 1),
        (row.replacen("00000001", "0000000g", 1), 2),
        (format!("{row}\n{}", row.replacen("00000001", "-0000001", 1)), 3),
        (format!("{row}\n00000001 00000001\n"), 3),
        (format!("{row}\n{row} 00000001\n"), 3),
        (format!("{row}\n\n{row}\n"), 3),
        (row.replacen("00000001", "10000000000000000", 1), 2),
        (hostile, 2),
        ("\0\0\0\0".to_owned(), 2),
    ] {
        let error = parse_stat("/proc/net/stat/arp_cache", &(HEADER.to_owned() + &rows));
        let error = error.unwrap_err();
        assert_eq!(error.line, line, "{rows:?}: {error}");
        assert!(error.to_string().starts_with("/proc/net/stat/arp_cache: line "), "{error}");
    }
    assert!(parse_stat("arp_cache", "").is_err());
    assert!(parse_stat("arp_cache", "\n").is_err(), "no header, no line");
    assert!(parse_stat("arp_cache", "\n1 2 3\n").is_err(), "no header");
}
