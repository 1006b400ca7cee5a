//! Who listens on a TCP port: `/proc/net/tcp`, `/proc/net/tcp6` and the `fd` links of processes.
//!
//! Only read when a port turns out to be taken, to say by whom.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::kernel::name::Name;

/// At most this much of a table is read. The kernel lists listening sockets first, so on a node
/// with a million connections the answer is still at the top.
const MAX_TABLE: u64 = 8 << 20;

/// At most this many `fd` links are looked at before the search gives up.
const MAX_LINKS: usize = 100_000;

/// The state column of a listening socket (`TCP_LISTEN`).
const LISTEN: &[u8] = b"0A";

/// A process that has a listening socket open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, as numbered in the procfs that was read.
    pub pid: u32,
    /// Its `comm`: bytes it chose itself.
    pub comm: Name,
}

/// A listening TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The local address and port.
    pub addr: SocketAddr,
    /// The socket's inode, which `fd` links name as `socket:[inode]`.
    pub inode: u64,
}

/// The process that keeps `addr` from being bound, if it can be seen through `proc_root`.
///
/// `None` when there is no such listener in this network namespace, when its process is in a PID
/// namespace that this procfs does not show, or when its `fd` directory may not be read.
#[must_use]
pub fn holder_of(proc_root: &Path, addr: SocketAddr) -> Option<Holder> {
    let rivals = rivals_of(proc_root, addr);
    if rivals.is_empty() { None } else { find_holder(proc_root, &rivals) }
}

/// The inodes of the sockets in the way of `addr`, the closest match first.
fn rivals_of(proc_root: &Path, addr: SocketAddr) -> Vec<u64> {
    let mut ranked: Vec<(u8, u64)> = ["net/tcp", "net/tcp6"]
        .iter()
        .flat_map(|table| read_table(&proc_root.join(table)))
        .filter_map(|socket| Some((rank(socket.addr, addr)?, socket.inode)))
        .collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, inode)| inode).collect()
}

fn read_table(path: &Path) -> Vec<Listening> {
    // Without the table (no IPv6, no procfs) there is no answer, which is not worth an error:
    // the caller already has one to report.
    let Ok(file) = File::open(path) else {
        return Vec::new();
    };
    let lines = BufReader::new(file.take(MAX_TABLE)).split(b'\n');
    lines.map_while(Result::ok).filter_map(|line| parse_line(&line)).collect()
}

/// The listening sockets in the text of a `/proc/net/tcp` or `/proc/net/tcp6`.
///
/// The heading, sockets in other states and lines that make no sense are left out.
pub fn parse_table(table: &[u8]) -> impl Iterator<Item = Listening> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line)
}

/// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode …`
fn parse_line(line: &[u8]) -> Option<Listening> {
    let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
    let local = fields.nth(1)?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    if state != LISTEN {
        return None;
    }
    let inode = std::str::from_utf8(inode).ok()?.parse().ok()?;
    Some(Listening { addr: parse_addr(local)?, inode })
}

/// `0100007F:4DA7` is 127.0.0.1:19879: the port is a number, the address a memory dump.
fn parse_addr(text: &[u8]) -> Option<SocketAddr> {
    let colon = text.iter().position(|&byte| byte == b':')?;
    let (ip, port) = (text.get(..colon)?, text.get(colon + 1..)?);
    let port = u16::try_from(hex(port, 4)?).ok()?;
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(hex(ip, 8)?.to_ne_bytes())),
        32 => {
            let mut octets = [0; 16];
            for (word, to) in ip.chunks_exact(8).zip(octets.chunks_exact_mut(4)) {
                to.copy_from_slice(&hex(word, 8)?.to_ne_bytes());
            }
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Exactly `digits` hexadecimal digits (`from_str_radix` alone would take a sign, too).
fn hex(text: &[u8], digits: usize) -> Option<u32> {
    if text.len() != digits || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// How closely a listener stands in the way of binding `wanted`: 0 most, `None` not at all.
fn rank(listener: SocketAddr, wanted: SocketAddr) -> Option<u8> {
    if listener.port() != wanted.port() {
        return None;
    }
    // An IPv4-mapped socket of the IPv6 table occupies the IPv4 port.
    let (has, wants) = (listener.ip().to_canonical(), wanted.ip().to_canonical());
    let same_family = has.is_ipv4() == wants.is_ipv4();
    if has == wants {
        Some(0)
    } else if same_family && (has.is_unspecified() || wants.is_unspecified()) {
        Some(1)
    } else if has.is_ipv6() && has.is_unspecified() {
        // [::] takes the IPv4 port too unless it is v6-only, which the table does not say.
        Some(2)
    } else {
        None
    }
}

/// Looks the inodes up in every visible process, and prefers the one that comes first in `inodes`.
fn find_holder(proc_root: &Path, inodes: &[u64]) -> Option<Holder> {
    let wanted: Vec<Vec<u8>> =
        inodes.iter().map(|inode| format!("socket:[{inode}]").into_bytes()).collect();
    let mut best: Option<(usize, u32)> = None;
    let mut links = 0;
    for entry in fs::read_dir(proc_root).ok()?.map_while(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Unreadable: another user's process without CAP_SYS_PTRACE, or one that just ended.
        let Ok(fds) = fs::read_dir(entry.path().join("fd")) else {
            continue;
        };
        for fd in fds.map_while(Result::ok) {
            links += 1;
            let Ok(target) = fs::read_link(fd.path()) else {
                continue;
            };
            let target = target.as_os_str().as_bytes();
            if let Some(index) = wanted.iter().position(|inode| inode == target)
                && best.is_none_or(|(found, _)| index < found)
            {
                best = Some((index, pid));
            }
            if matches!(best, Some((0, _))) || links >= MAX_LINKS {
                return best.map(|(_, pid)| holder(proc_root, pid));
            }
        }
    }
    best.map(|(_, pid)| holder(proc_root, pid))
}

fn holder(proc_root: &Path, pid: u32) -> Holder {
    let mut comm = Vec::new();
    if let Ok(file) = File::open(proc_root.join(pid.to_string()).join("comm")) {
        // 15 bytes and a newline in practice. A process that ended meanwhile has no name left.
        let _ = file.take(64).read_to_end(&mut comm);
    }
    if comm.last() == Some(&b'\n') {
        comm.pop();
    }
    Holder { pid, comm: Name::from_bytes(comm) }
}

#[cfg(test)]
#[path = "listeners_tests.rs"]
mod tests;
