//! Facts 3.3: what the kernel reads out of the bytes that are written.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;

use headroom_tests::{SavedSysctls, root_or_skip};
use nix::errno::Errno;

use super::support::{fresh, full, has_conntrack, number, read, refusal, set, text, write};

const SOMAXCONN: &str = "net/core/somaxconn";
const RMEM: &str = "net/ipv4/tcp_rmem";

/// Facts 3.3: spaces around a number are allowed, hexadecimal is, and a leading 0 means octal.
#[test]
fn a_number_may_be_decimal_hexadecimal_or_octal_with_space_around_it() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        for (text, value) in [
            ("1025\n", "1025"),
            (" 1026 \n", "1026"),
            ("\t1027", "1027"),
            ("0x400", "1024"),
            ("0X401", "1025"),
            ("010", "8"),
        ] {
            set(SOMAXCONN, text);
            assert_eq!(read(SOMAXCONN), value, "{text:?}");
        }
    });
}

/// Facts 3.3: what is no number gives EINVAL and changes nothing.
#[test]
fn what_is_no_number_is_refused_whole() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        set(SOMAXCONN, 1025);
        for text in ["+5", "-1", "12abc", "1e3", "2147483648", "99999999999999999999", "\n", "x"] {
            assert_eq!(refusal(SOMAXCONN, text), Errno::EINVAL, "{text:?}");
            assert_eq!(read(SOMAXCONN), "1025", "{text:?}");
        }
    });
}

/// Facts 3.3: an empty write returns 0 and does nothing.
#[test]
fn an_empty_write_does_nothing() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        set(SOMAXCONN, 1025);
        assert_eq!(write(SOMAXCONN, ""), Ok(0));
        assert_eq!(read(SOMAXCONN), "1025");
    });
}

/// Facts 3.3: two numbers for a key that has one: the first is taken, and the write is short.
#[test]
fn a_second_number_for_one_is_a_short_write() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        assert_eq!(write(SOMAXCONN, "12 13"), Ok(3), "the first number and the space");
        assert_eq!(read(SOMAXCONN), "12");
    });
}

/// Facts 3.3: a write that is not at offset 0 says that it succeeded and does nothing, as long as
/// `kernel.sysctl_writes_strict` is 1.
#[test]
fn a_write_behind_the_start_is_ignored_and_called_a_success() {
    let Some(_host) = root_or_skip() else { return };
    let strict = number("kernel/sysctl_writes_strict") == 1;
    fresh(|| {
        set(SOMAXCONN, 1025);
        let file = OpenOptions::new().write(true).open(full(SOMAXCONN)).unwrap();
        assert_eq!(file.write_at(b"77\n", 1).unwrap(), 3);
        assert_eq!(read(SOMAXCONN), if strict { "1025" } else { "77" });
        set(SOMAXCONN, 1025);
        let mut file = OpenOptions::new().write(true).open(full(SOMAXCONN)).unwrap();
        for value in ["2000\n", "3000\n"] {
            assert_eq!(std::io::Write::write(&mut file, value.as_bytes()).unwrap(), 5);
        }
        assert_eq!(read(SOMAXCONN), if strict { "2000" } else { "3000" }, "two writes in a row");
    });
}

/// Facts 3.3: fewer numbers than a vector has leave the rest as it was.
#[test]
fn a_short_vector_leaves_the_rest() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        set(RMEM, "4096 50000 600000");
        set(RMEM, "8192 100000");
        assert_eq!(read(RMEM), "8192 100000 600000");
        set(RMEM, "9000");
        assert_eq!(read(RMEM), "9000 100000 600000");
    });
}

/// Facts 3.3: a vector is not written as a whole: EINVAL for one number, and those before it are in
/// force.
#[test]
fn a_refused_vector_is_half_applied() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        set(RMEM, "4096 50000 600000");
        assert_eq!(refusal(RMEM, "5000 6000 -1"), Errno::EINVAL);
        assert_eq!(read(RMEM), "5000 6000 600000");
        assert_eq!(refusal(RMEM, "7000 0 700000"), Errno::EINVAL);
        assert_eq!(read(RMEM), "7000 6000 600000");
        assert_eq!(refusal(RMEM, "0 0 0"), Errno::EINVAL, "the smallest is 1");
        assert_eq!(read(RMEM), "7000 6000 600000");
    });
}

/// Facts 3.3: nobody checks that minimum, default and maximum ascend.
#[test]
fn the_order_within_a_vector_is_not_checked() {
    let Some(host) = root_or_skip() else { return };
    fresh(|| {
        set(RMEM, "9000 8000 7000");
        assert_eq!(read(RMEM), "9000 8000 7000");
    });
    // The kernel's own, so with limits that nothing here reaches.
    let _saved = SavedSysctls::new(&host, ["net/ipv4/tcp_mem"]);
    set("net/ipv4/tcp_mem", "30000000 20000000 10000000");
    assert_eq!(read("net/ipv4/tcp_mem"), "30000000 20000000 10000000");
}

/// Facts 3.3: a range of groups that is upside down is taken and stored as "nobody".
#[test]
fn a_group_range_upside_down_is_stored_as_nobody() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        let groups = "net/ipv4/ping_group_range";
        assert_eq!(read(groups), "1 0", "nobody, in a new namespace");
        set(groups, "5 100");
        assert_eq!(read(groups), "5 100");
        set(groups, "5 1");
        assert_eq!(read(groups), "1 0");
        assert_eq!(refusal(groups, "0 4294967295"), Errno::EINVAL, "(gid_t)-1 is no group");
    });
}

/// Facts 3.3: an empty write to a list of ports does nothing, a line end clears it.
#[test]
fn a_list_of_ports_is_cleared_by_a_line_end() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        let ports = "net/ipv4/ip_local_reserved_ports";
        set(ports, "8080,1000-1002");
        assert_eq!(read(ports), "1000-1002,8080", "sorted");
        assert_eq!(write(ports, ""), Ok(0));
        assert_eq!(read(ports), "1000-1002,8080");
        for bad in ["70000", "5-1", "1,x"] {
            assert_eq!(refusal(ports, bad), Errno::EINVAL, "{bad}");
            assert_eq!(read(ports), "1000-1002,8080", "{bad}");
        }
        set(ports, "1002-1004,1003");
        assert_eq!(read(ports), "1002-1004", "replaced, joined");
        set(ports, "\n");
        assert_eq!(text(ports), Ok("\n".to_owned()));
    });
}

/// Facts 3.3: senseless values that the kernel takes.
#[test]
fn the_kernel_does_not_protect_from_senseless_values() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        for (path, value) in [
            ("net/ipv4/tcp_keepalive_time", "-1"),
            ("net/ipv4/tcp_fin_timeout", "-1"),
            ("net/ipv4/tcp_max_syn_backlog", "-5"),
            ("net/ipv4/conf/all/rp_filter", "3"),
        ] {
            set(path, value);
            assert_eq!(read(path), value, "{path}");
        }
    });
}

/// Facts 3.3: the kernel rounds up, says yes, and shows another number than was written.
#[test]
fn sizes_are_rounded_up() {
    let Some(host) = root_or_skip() else { return };
    let _saved = SavedSysctls::new(&host, ["fs/pipe-max-size"]);
    let page = 4096.max(page_size());
    set("fs/pipe-max-size", 5000);
    assert_eq!(number("fs/pipe-max-size"), if page > 5000 { page } else { 2 * page });
    set("fs/pipe-max-size", 1);
    assert_eq!(number("fs/pipe-max-size"), page, "at least a page");
    if has_conntrack() {
        let buckets = "net/netfilter/nf_conntrack_buckets";
        let _saved = SavedSysctls::new(&host, [buckets]);
        set(buckets, 1000);
        // nf_ct_alloc_hashtable: whole pages of 8-byte heads.
        let per_page = page / 8;
        assert_eq!(number(buckets), (1000 + per_page - 1) / per_page * per_page);
    }
}

fn page_size() -> i64 {
    nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).unwrap().unwrap()
}

/// Facts 3.3: keys in milliseconds hold whole ticks: what is shown is the next tick's time.
#[test]
fn milliseconds_are_kept_in_ticks() {
    let Some(_host) = root_or_skip() else { return };
    let key = "net/ipv4/neigh/lo/retrans_time_ms";
    let shown: Vec<i64> = fresh(|| {
        (1..=60)
            .map(|value| {
                set(key, value);
                number(key)
            })
            .collect()
    });
    // msecs_to_jiffies and jiffies_to_msecs round up, both.
    let ticks = |hz: i64| {
        (1..=60).map(move |ms| (ms * hz + 999) / 1000).map(move |t| (t * 1000 + hz - 1) / hz)
    };
    let found: Vec<i64> =
        [100, 250, 300, 1000].into_iter().filter(|hz| ticks(*hz).eq(shown.clone())).collect();
    assert_eq!(found.len(), 1, "of no HZ there is: {shown:?}");
    fresh(|| {
        for value in &shown {
            set(key, value);
            assert_eq!(number(key), *value, "what is read can be written back");
        }
        set(key, 1000);
        assert_eq!(number(key), 1000, "whole seconds are exact");
    });
}
