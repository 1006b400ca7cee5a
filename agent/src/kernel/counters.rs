//! What small files of `/proc` say: parsers of text, for readers that keep the file open.
//!
//! `None`: it is not the format that is known, and nothing of it is believed.

use procfs::{FromRead as _, LoadAverage};

/// The numbers at these places among the words, the first being 0.
#[must_use]
pub fn words<const N: usize>(text: &str, places: [usize; N]) -> Option<[u64; N]> {
    let mut numbers = [0; N];
    for (number, place) in numbers.iter_mut().zip(places) {
        *number = text.split_ascii_whitespace().nth(place)?.parse().ok()?;
    }
    Some(numbers)
}

/// `/proc/loadavg`: how many threads there are, zombies too (`nr_threads`).
#[must_use]
pub fn threads(text: &str) -> Option<u64> {
    Some(LoadAverage::from_read(text.as_bytes()).ok()?.max.into())
}

/// A user's keys, of `/proc/key-users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyUser {
    /// The user, as the reader's user namespace has it.
    pub uid: u32,
    /// Keys that count, and how many may.
    pub keys: [u64; 2],
    /// Bytes that count, and how many may.
    pub bytes: [u64; 2],
}

/// `/proc/key-users`: every user that has keys (keyrings(7), `proc_key_users_show`). Not with procfs,
/// which keeps the type to itself and panics at a word whose last character is not ASCII.
#[must_use]
pub fn key_users(text: &str) -> Option<Vec<KeyUser>> {
    text.lines().map(key_user).collect()
}

fn key_user(line: &str) -> Option<KeyUser> {
    let (uid, rest) = line.split_once(':')?;
    let mut pairs = rest.split_ascii_whitespace().skip(2).map(|pair| {
        let (used, max) = pair.split_once('/')?;
        Some([used.parse().ok()?, max.parse().ok()?])
    });
    let (keys, bytes) = (pairs.next()??, pairs.next()??);
    Some(KeyUser { uid: uid.trim().parse().ok()?, keys, bytes })
}

/// The line `TCP:` of `/proc/net/sockstat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSockets {
    /// Of IPv4, in use in this network namespace, listening ones too.
    pub inuse: u64,
    /// Without a process, in all namespaces.
    pub orphan: u64,
    /// In TIME_WAIT in this network namespace, those of IPv6 too.
    pub tw: u64,
    /// Pages of memory, of all namespaces.
    pub mem: u64,
}

/// `/proc/net/sockstat` (`sockstat_seq_show`).
#[must_use]
pub fn tcp_sockets(text: &str) -> Option<TcpSockets> {
    let find = |name| sockets(text, "TCP:", name);
    Some(TcpSockets {
        inuse: find("inuse")?,
        orphan: find("orphan")?,
        tw: find("tw")?,
        mem: find("mem")?,
    })
}

/// `/proc/net/sockstat6`: TCP sockets of IPv6 in use in this network namespace, listening ones too.
#[must_use]
pub fn tcp6_inuse(text: &str) -> Option<u64> {
    sockets(text, "TCP6:", "inuse")
}

fn sockets(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == name)?;
    words.next()?.parse().ok()
}

/// Counters of one group of `/proc/net/netstat`, which is a line of names and one of numbers. The
/// inner `None`: this kernel has no counter of that name.
#[must_use]
pub fn netstat<const N: usize>(
    text: &str,
    group: &str,
    names: [&str; N],
) -> Option<[Option<u64>; N]> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group)?.strip_prefix(':'));
    let (titles, numbers) = (lines.next()?, lines.next()?);
    let mut found = [None; N];
    let mut numbers = numbers.split_ascii_whitespace();
    for title in titles.split_ascii_whitespace() {
        let number = numbers.next()?;
        for (slot, _) in found.iter_mut().zip(names).filter(|(_, name)| *name == title) {
            *slot = Some(number.parse().ok()?);
        }
    }
    Some(found)
}

/// Columns of a file of `/proc/net/stat`, summed over CPUs: a line of names, then one of hexadecimal
/// numbers for each CPU. The inner `None`: this kernel has no column of that name.
#[must_use]
pub fn columns<const N: usize>(text: &str, names: [&str; N]) -> Option<[Option<u64>; N]> {
    let mut lines = text.lines();
    let titles = lines.next()?;
    let place = |name| titles.split_ascii_whitespace().position(|title| title == name);
    let places = names.map(place);
    let mut sums = places.map(|place| place.map(|_| 0));
    for line in lines {
        for (sum, place) in sums.iter_mut().zip(places) {
            if let (Some(sum), Some(place)) = (sum.as_mut(), place) {
                *sum = u64::saturating_add(*sum, hex(line, place)?);
            }
        }
    }
    Some(sums)
}

fn hex(line: &str, place: usize) -> Option<u64> {
    u64::from_str_radix(line.split_ascii_whitespace().nth(place)?, 16).ok()
}

/// Frames that were dropped because a CPU's backlog was full, of all CPUs: the second of
/// `/proc/net/softnet_stat`'s hexadecimal columns, which have no header (`softnet_seq_show`).
#[must_use]
pub fn softnet_dropped(text: &str) -> Option<u64> {
    let mut sum = 0u64;
    for line in text.lines() {
        sum = sum.saturating_add(hex(line, 1)?);
    }
    (!text.is_empty()).then_some(sum)
}

/// `/proc/pressure/cpu`: microseconds in which some task waited for a CPU. Not with procfs, which
/// asks for the line `full` that kernels before 5.13 do not have.
#[must_use]
pub fn pressure_some(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?.parse().ok()
}

/// How many dst entries of IPv6 there are, from `/proc/net/rt6_stats` (`rt6_stats_seq_show`): its
/// sixth field, and what kernels before 6.3 compare with `max_size` (`ip6_dst_gc`).
#[must_use]
pub fn ipv6_dst_entries(text: &str) -> Option<u64> {
    hex(text, 5)
}

/// How many cgroups the hierarchy of the memory controller has, from `/proc/cgroups`. The inner
/// `None`: that controller is not listed.
#[must_use]
pub fn memory_cgroups(text: &str) -> Option<Option<u64>> {
    let mut rows = text.lines().filter(|line| !line.starts_with('#'));
    let Some(row) = rows.find(|row| row.split_ascii_whitespace().next() == Some("memory")) else {
        return Some(None);
    };
    words(row, [2]).map(|[count]| Some(count))
}

/// A line `name number` of a cgroup's flat-keyed file.
#[must_use]
pub fn keyed(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
}

/// How many ports of `low` to `high` a list such as `80,8000-8100` has
/// (`net.ipv4.ip_local_reserved_ports`); no port is in it twice.
#[must_use]
pub fn ports_between(list: &str, low: u64, high: u64) -> Option<u64> {
    let mut count = 0;
    for range in list.trim().split(',').filter(|range| !range.is_empty()) {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to): (u16, u16) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        let (from, to) = (u64::from(from).max(low), u64::from(to).min(high));
        count += (to + 1).saturating_sub(from);
    }
    Some(count)
}

#[cfg(test)]
#[path = "counters_tests.rs"]
mod tests;
