//! Neighbor tables: one per address family per kernel, shared by all network namespaces.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use netlink_packet_core::{NetlinkDeserializable as _, NetlinkHeader, NlasIterator};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::neighbour_table::{NeighbourTableAttribute, NeighbourTableMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use schemars::JsonSchema;
use serde::Serialize;

use super::errno::{Access, FileError, of_io};
use super::netlink::{DumpSocket, Message, NetlinkError, u16_at, u32_at};

// include/uapi/linux/rtnetlink.h and neighbour.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_NEWNEIGHTBL: u16 = 64;
const NDMSG_LENGTH: usize = 12;
const NDA_CACHEINFO: u16 = 3;
const NDA_FLAGS_EXT: u16 = 15;
const NUD_FAILED: u16 = 0x20;
const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
const NTF_EXT_LEARNED: u8 = 0x10;
const NTF_EXT_EXT_VALIDATED: u32 = 1 << 2;
const RTN_MULTICAST: u8 = 5;
/// `LOOPBACK_IFINDEX`: `lo` is 1 in every namespace.
const LOOPBACK_IFINDEX: u32 = 1;

/// An address family with a neighbor table.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// ARP.
    Ipv4,
    /// Neighbor discovery.
    Ipv6,
}

impl Family {
    /// Both, in the order they are shown.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    /// The table's name in the kernel, and its file's in `/proc/net/stat`.
    #[must_use]
    pub fn table(self) -> &'static str {
        match self {
            Self::Ipv4 => "arp_cache",
            Self::Ipv6 => "ndisc_cache",
        }
    }

    fn address_family(self) -> AddressFamily {
        match self {
            Self::Ipv4 => AddressFamily::Inet,
            Self::Ipv6 => AddressFamily::Inet6,
        }
    }
}

/// What `/proc/net/stat/{arp_cache,ndisc_cache}` says. A column that this kernel lacks is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStat {
    /// Entries of all namespaces: the same number on every line, so it is not summed.
    pub entries: Option<u64>,
    /// Allocations that failed because the table was full.
    pub table_fulls: Option<u64>,
    /// Forced garbage collections; from `gc_thresh2` on, so not a failure by itself.
    pub forced_gc_runs: Option<u64>,
    /// Packets dropped while their neighbor was being resolved.
    pub unresolved_discards: Option<u64>,
    /// Resolutions that failed.
    pub res_failed: Option<u64>,
}

/// Why a statistics file makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: line {line}: {what}")]
pub struct StatFormatError {
    /// The file.
    pub file: String,
    /// 1-based.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Parses the statistics by the names in the header line. Lines are one per possible CPU, all
/// hexadecimal; counters are per CPU and are summed (`neigh_stat_seq_show`).
pub fn parse_stat(file: &str, text: &str) -> Result<TableStat, StatFormatError> {
    let error = |line, what| StatFormatError { file: file.to_owned(), line, what };
    let mut lines = text.lines();
    let header: Vec<&str> = lines
        .next()
        .ok_or_else(|| error(1, "the file is empty"))?
        .split_ascii_whitespace()
        .collect();
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    let mut rows = 0;
    for (index, line) in lines.enumerate() {
        let mut fields = line.split_ascii_whitespace();
        rows += 1;
        for &name in &header {
            let field = fields.next().ok_or_else(|| error(index + 2, "fewer fields than names"))?;
            let value = u64::from_str_radix(field, 16)
                .map_err(|_| error(index + 2, "a field is no hexadecimal number"))?;
            let sum = sums.entry(name).or_default();
            // The table-wide number stands on every line.
            *sum = if name == "entries" { value } else { sum.wrapping_add(value) };
        }
        if fields.next().is_some() {
            return Err(error(index + 2, "more fields than names"));
        }
    }
    if rows == 0 {
        return Err(error(1, "no line follows the header"));
    }
    Ok(TableStat {
        entries: sums.get("entries").copied(),
        table_fulls: sums.get("table_fulls").copied(),
        forced_gc_runs: sums.get("forced_gc_runs").copied(),
        unresolved_discards: sums.get("unresolved_discards").copied(),
        res_failed: sums.get("res_failed").copied(),
    })
}

/// A statistics file, kept open: reading it takes no lock that pod creation holds.
#[derive(Debug)]
pub struct StatFile {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

/// Why statistics could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StatError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file makes no sense.
    #[error(transparent)]
    Format(#[from] StatFormatError),
}

impl StatFile {
    /// Opens the file of a family. It exists only in the initial network namespace.
    pub fn open(proc_root: &Path, family: Family) -> Result<Self, FileError> {
        let path = proc_root.join("net/stat").join(family.table());
        let file = File::open(&path)
            .map_err(|error| FileError::new(Access::Open, path.clone(), of_io(&error)))?;
        Ok(Self { file, path, buffer: Vec::new() })
    }

    /// Reads it anew.
    pub fn read(&mut self) -> Result<TableStat, StatError> {
        let length = self.fill()?;
        let text = self.buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        Ok(parse_stat(&self.path.to_string_lossy(), text.unwrap_or_default())?)
    }

    /// A seq_file hands out a page at a time: read on until it says nothing more.
    fn fill(&mut self) -> Result<usize, FileError> {
        let mut length = 0;
        loop {
            if self.buffer.len() < length + 4096 {
                self.buffer.resize(length + 8192, 0);
            }
            let free = self.buffer.get_mut(length..).unwrap_or_default();
            match self.file.read_at(free, length as u64) {
                Ok(0) => return Ok(length),
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(FileError::new(Access::Read, self.path.clone(), of_io(&error)));
                }
            }
        }
    }
}

/// What `RTM_GETNEIGHTBL` says of one table: global numbers, from any namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Table {
    /// Below this many entries nothing is collected.
    pub gc_thresh1: u32,
    /// Above this many, entries older than 5 s are collected on allocation.
    pub gc_thresh2: u32,
    /// At this many the allocation fails if nothing can be collected.
    pub gc_thresh3: u32,
    /// Entries of all namespaces.
    pub entries: u32,
    /// Failed allocations.
    pub table_fulls: u64,
    /// Forced garbage collections.
    pub forced_gc_runs: u64,
    /// Failed resolutions.
    pub res_failed: u64,
    /// Milliseconds since the last forced collection.
    pub last_flush_ms: u32,
    /// Buckets of the hash table, which never shrinks: a dump walks them all.
    pub hash_buckets: u64,
}

/// Asks for the table of one family. Stops at the first message, which is the table's own; what
/// follows is one message for each device.
///
/// The answer's tail stays in the socket, so `socket` should be a fresh one, or one in a
/// namespace without devices (later answers are told apart by their sequence number).
pub fn table(socket: &mut DumpSocket, family: Family) -> Result<Option<Table>, NetlinkError> {
    let mut request = NeighbourTableMessage::default();
    request.header.family = family.address_family();
    let request = RouteNetlinkMessage::GetNeighbourTable(request);
    let dumped =
        socket.dump("RTM_GETNEIGHTBL", &request, |found: &mut Option<Table>, message| {
            *found = found.or_else(|| parse_table(message.payload));
            if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
    Ok(dumped.value)
}

/// The table's own message; `None` for the per-device ones, which carry no configuration.
#[must_use]
pub fn parse_table(payload: &[u8]) -> Option<Table> {
    let mut header = NetlinkHeader::default();
    header.message_type = RTM_NEWNEIGHTBL;
    let Ok(RouteNetlinkMessage::NewNeighbourTable(message)) =
        RouteNetlinkMessage::deserialize(&header, payload)
    else {
        return None;
    };
    let mut thresholds = [None; 3];
    let (mut config, mut stats) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourTableAttribute::Threshold1(value) => thresholds[0] = Some(*value),
            NeighbourTableAttribute::Threshold2(value) => thresholds[1] = Some(*value),
            NeighbourTableAttribute::Threshold3(value) => thresholds[2] = Some(*value),
            NeighbourTableAttribute::Config(value) => config = Some(value),
            NeighbourTableAttribute::Stats(value) => stats = Some(value),
            _ => {}
        }
    }
    let ([Some(gc_thresh1), Some(gc_thresh2), Some(gc_thresh3)], Some(config), Some(stats)) =
        (thresholds, config, stats)
    else {
        return None;
    };
    Some(Table {
        gc_thresh1,
        gc_thresh2,
        gc_thresh3,
        entries: config.entries,
        table_fulls: stats.table_fulls,
        forced_gc_runs: stats.forced_gc_runs,
        res_failed: stats.res_failed,
        last_flush_ms: config.last_flush,
        hash_buckets: u64::from(config.hash_mask) + 1,
    })
}

/// Entries of one namespace, classified as the kernel's collector sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EntryCounts {
    /// All entries of the namespace.
    pub entries: u64,
    /// Entries that the thresholds do not count: permanent, externally learned or validated, and
    /// on the loopback device since 6.10 (commit eabf425bc6ad).
    pub exempt: u64,
    /// Entries that no collection can free now: neither exempt nor reclaimable.
    pub pinned: u64,
}

impl std::ops::AddAssign for EntryCounts {
    fn add_assign(&mut self, other: Self) {
        self.entries += other.entries;
        self.exempt += other.exempt;
        self.pinned += other.pinned;
    }
}

/// Dumps and classifies the entries of the socket's namespace. Walks the whole hash table of the
/// kernel, so it belongs on a slow schedule and off the main thread.
pub fn scan(
    socket: &mut DumpSocket,
    family: Family,
    loopback_exempt: bool,
) -> Result<EntryCounts, NetlinkError> {
    fold(socket, family, |counts: &mut EntryCounts, message| {
        if let Some(entry) = classify(message, loopback_exempt) {
            *counts += entry;
        }
    })
}

/// The same by interface index.
pub fn scan_by_link(
    socket: &mut DumpSocket,
    family: Family,
    loopback_exempt: bool,
) -> Result<BTreeMap<u32, EntryCounts>, NetlinkError> {
    fold(socket, family, |links: &mut BTreeMap<u32, EntryCounts>, message| {
        if let Some((link, entry)) = link_of(message).zip(classify(message, loopback_exempt)) {
            *links.entry(link).or_default() += entry;
        }
    })
}

fn fold<T: Default>(
    socket: &mut DumpSocket,
    family: Family,
    mut each: impl FnMut(&mut T, &Message<'_>),
) -> Result<T, NetlinkError> {
    let mut request = NeighbourMessage::default();
    request.header.family = family.address_family();
    let request = RouteNetlinkMessage::GetNeighbour(request);
    let dumped = socket.dump("RTM_GETNEIGH", &request, |value, message| {
        each(value, message);
        ControlFlow::Continue(())
    })?;
    Ok(dumped.value)
}

/// `ndm_ifindex`.
fn link_of(message: &Message<'_>) -> Option<u32> {
    u32_at(message.payload, 4)
}

/// What one `RTM_NEWNEIGH` adds to the counts; `None` if it is no neighbor entry.
///
/// Reclaimable is what `neigh_forced_gc` may free: no reference but the table's own (the kernel
/// reports `refcnt - 1`), and failed, NOARP, multicast, or not updated for 5 s. The dump shows no
/// timers, but an entry whose timer runs has a reference more.
#[must_use]
pub fn classify(message: &Message<'_>, loopback_exempt: bool) -> Option<EntryCounts> {
    if message.kind != RTM_NEWNEIGH {
        return None;
    }
    let ndmsg = message.payload;
    let ifindex = link_of(message)?;
    let state = u16_at(ndmsg, 8)?;
    let (&flags, &kind) = (ndmsg.get(10)?, ndmsg.get(11)?);
    let (mut references, mut updated, mut extended) = (0, 0, 0);
    for attribute in NlasIterator::new(ndmsg.get(NDMSG_LENGTH..)?) {
        let Ok(attribute) = attribute else { break };
        match attribute.kind() {
            // struct nda_cacheinfo: confirmed, used, updated (1/100 s), refcnt
            NDA_CACHEINFO => {
                updated = u32_at(attribute.value(), 8).unwrap_or(0);
                references = u32_at(attribute.value(), 12).unwrap_or(0);
            }
            NDA_FLAGS_EXT => extended = u32_at(attribute.value(), 0).unwrap_or(0),
            _ => {}
        }
    }
    let exempt = state & NUD_PERMANENT != 0
        || flags & NTF_EXT_LEARNED != 0
        || extended & NTF_EXT_EXT_VALIDATED != 0
        || (loopback_exempt && ifindex == LOOPBACK_IFINDEX);
    let reclaimable = references == 0
        && (state & (NUD_FAILED | NUD_NOARP) != 0 || kind == RTN_MULTICAST || updated > 500);
    Some(EntryCounts {
        entries: 1,
        exempt: u64::from(exempt),
        pinned: u64::from(!exempt && !reclaimable),
    })
}
