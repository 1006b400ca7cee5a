//! What a CNI configuration says of pods' addresses, where the plugin `host-local` gives them.
//!
//! Counted as the plugin does (containernetworking/plugins, `plugins/ipam/host-local/backend/allocator`:
//! `range.go`, `range_set.go`, `config.go`, and `RangeIter.Next` in `allocator.go`, as of 2026); a test
//! holds it to the plugin of 1.1.1. Configurations that it refuses give no pod an address, and are errors here.

use std::net::IpAddr;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::flannel::Flannel;
use crate::config::cidr::{Cidr, CidrError, like, number};
use crate::kernel::name::escape;

/// Longest configuration that is read, in bytes.
pub const LONGEST: u64 = 1 << 20;

/// Where the plugin keeps leases unless it is told otherwise (`backend/disk/backend.go`).
pub const DATA_DIR: &str = "/var/lib/cni/networks";

/// A pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// Its name, escaped.
    pub name: String,
    /// Who gives addresses.
    pub ipam: Ipam,
}

/// Who gives pods their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipam {
    /// The plugin `host-local`.
    HostLocal(HostLocal),
    /// The plugin `host-local`, for `flannel`.
    Flannel(Flannel),
    /// Another plugin, escaped.
    Other(String),
}

/// What `host-local` was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLocal {
    /// Directory of the network's leases.
    pub leases: PathBuf,
    /// A pod gets one address of each.
    pub sets: Vec<Set>,
}

/// Ranges of one family, out of which each pod gets one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set(Vec<Range>);

/// Addresses that are given, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    first: IpAddr,
    last: IpAddr,
    /// Skipped where it is among them.
    gateway: IpAddr,
}

/// Why a configuration says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no JSON document.
    #[error("it is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The plugin would refuse it, or libcni would.
    #[error("{0}")]
    Refused(String),
    /// Calico's plugin asks the Kubernetes API for the range.
    #[error("the range is `{0}`, which Calico's plugin replaces by the node's podCIDR")]
    FromApi(String),
}

pub(super) fn refused<T>(why: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable::Refused(why.into()))
}

/// Reads a configuration: of a list of plugins (`*.conflist`), or of one (`*.conf`, `*.json`).
pub fn parse(bytes: &[u8]) -> Result<Network, Unreadable> {
    let file: Value = serde_json::from_slice(bytes)?;
    let name = text(&file, "name").unwrap_or_default();
    // `utils.ValidateNetworkName`; it becomes a directory's name.
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.bytes().all(letter) {
        return refused(format!("`{}` is no name of a network", shown(name)));
    }
    let plugins = match file.get("plugins") {
        Some(plugins) => plugins.as_array().map(Vec::as_slice).unwrap_or_default(),
        None => std::slice::from_ref(&file),
    };
    let Some(first) = plugins.first() else { return refused("it lists no plugin") };
    let ipam = plugins.iter().find_map(|plugin| plugin.get("ipam").filter(|it| it.is_object()));
    let kind = ipam.and_then(|ipam| text(ipam, "type"));
    let ipam = match (ipam, kind) {
        (_, None | Some("host-local")) if text(first, "type") == Some("flannel") => {
            Ipam::Flannel(Flannel::new(first, name)?)
        }
        (Some(ipam), Some("host-local")) => Ipam::HostLocal(host_local(ipam, name)?),
        (_, Some(other)) => Ipam::Other(shown(other)),
        // Plugins that give addresses themselves, such as cilium-cni and aws-cni.
        (_, None) => match text(first, "type") {
            Some(kind) => Ipam::Other(shown(kind)),
            None => return refused("its first plugin has no type"),
        },
    };
    Ok(Network { name: shown(name), ipam })
}

/// A text; an empty one is none, as it is for the plugin.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> Option<&'v str> {
    value.get(field)?.as_str().filter(|text| !text.is_empty())
}

/// Text of a file, cut short.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 80;
    escape(text.as_bytes().get(..LONGEST).unwrap_or(text.as_bytes()))
}

/// Whether a path is absolute, without `..`.
pub(super) fn is_plain(path: &Path) -> bool {
    let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(plain)
}

pub(super) fn host_local(ipam: &Value, network: &str) -> Result<HostLocal, Unreadable> {
    let data_dir = PathBuf::from(text(ipam, "dataDir").unwrap_or(DATA_DIR));
    if !is_plain(&data_dir) {
        return refused("its `dataDir` is no absolute path");
    }
    // The old form is put before the ranges (`LoadIPAMConfig`).
    let old = text(ipam, "subnet").map(|_| set(std::slice::from_ref(ipam)));
    let ranges = ipam.get("ranges").and_then(Value::as_array);
    let ranges = ranges.into_iter().flatten();
    let new = ranges.map(|ranges| set(ranges.as_array().map(Vec::as_slice).unwrap_or_default()));
    let sets: Vec<Set> = old.into_iter().chain(new).collect::<Result<_, _>>()?;
    if sets.is_empty() {
        return refused("it has no ranges");
    }
    let all: Vec<&Range> = sets.iter().flat_map(|set| &set.0).collect();
    for (index, range) in all.iter().enumerate() {
        if all.iter().skip(index + 1).any(|other| range.overlaps(other)) {
            return refused(format!("its range from {} overlaps another", range.first));
        }
    }
    Ok(HostLocal { leases: data_dir.join(network), sets })
}

fn set(ranges: &[Value]) -> Result<Set, Unreadable> {
    let ranges: Vec<Range> = ranges.iter().map(range).collect::<Result<_, _>>()?;
    let Some(first) = ranges.first() else { return refused("it has a set without a range") };
    if ranges.iter().any(|range| range.first.is_ipv4() != first.first.is_ipv4()) {
        return refused("it has a set of both address families");
    }
    Ok(Set(ranges))
}

fn range(value: &Value) -> Result<Range, Unreadable> {
    let subnet = text(value, "subnet").unwrap_or_default();
    let cidr = match Cidr::parse(subnet) {
        Ok(cidr) => cidr,
        Err(CidrError::Syntax) if subnet.starts_with("usePodCidr") => {
            return Err(Unreadable::FromApi(shown(subnet)));
        }
        Err(error) => return refused(format!("its subnet `{}`: {error}", shown(subnet))),
    };
    if cidr.host_bits() < 2 {
        return refused(format!("its subnet {cidr} is too small to give addresses from"));
    }
    let default = Range::of(cidr);
    let first = address(value, "rangeStart")?.unwrap_or(default.first);
    let last = address(value, "rangeEnd")?.unwrap_or(default.last);
    if !(cidr.contains(first) && cidr.contains(last) && first <= last) {
        return refused(format!("its range from {first} to {last} is not in {cidr}"));
    }
    let gateway = address(value, "gateway")?.unwrap_or(default.gateway);
    Ok(Range { first, last, gateway })
}

fn address(value: &Value, field: &str) -> Result<Option<IpAddr>, Unreadable> {
    let Some(text) = text(value, field) else { return Ok(None) };
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Some(address.to_canonical())),
        Err(_) => refused(format!("its `{field}` is no address")),
    }
}

/// A range of IPv6 has no end: what JSON's numbers hold is enough of it (RFC 8259, section 6).
const MOST: u64 = (1 << 53) - 1;

impl Range {
    /// What is given of a whole subnet: not the network's own address, not the gateway, which is the
    /// first after it, and of IPv4 not the broadcast address.
    #[must_use]
    pub fn of(cidr: Cidr) -> Self {
        let step = |address: IpAddr, by: u128| like(address, number(address).saturating_add(by));
        let (network, end) = (cidr.first(), cidr.last());
        if cidr.host_bits() < 2 {
            // host-local takes no such subnet; whoever does gives each address.
            return Self { first: network, last: end, gateway: IpAddr::from([0, 0, 0, 0]) };
        }
        let first = step(network, 1);
        let broadcast = u128::from(end.is_ipv4());
        let last = like(end, number(end).saturating_sub(broadcast));
        Self { first, last, gateway: first }
    }

    /// Whether an address is given.
    #[must_use]
    pub fn gives(&self, address: IpAddr) -> bool {
        (self.first..=self.last).contains(&address) && address != self.gateway
    }

    /// How many addresses are given.
    #[must_use]
    pub fn size(&self) -> u64 {
        let span = number(self.last).saturating_sub(number(self.first));
        let skipped = (self.first..=self.last).contains(&self.gateway);
        let size = if skipped { span } else { span.saturating_add(1) };
        u64::try_from(size).map_or(MOST, |size| size.min(MOST))
    }

    /// Whether it is of IPv4.
    #[must_use]
    pub fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl Set {
    /// How many addresses are given.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.iter().fold(0u64, |sum, range| sum.saturating_add(range.size())).min(MOST)
    }

    /// Whether an address is given.
    #[must_use]
    pub fn gives(&self, address: IpAddr) -> bool {
        self.0.iter().any(|range| range.gives(address))
    }

    /// `ipv4` or `ipv6`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        if self.0.iter().all(Range::is_ipv4) { "ipv4" } else { "ipv6" }
    }
}

#[cfg(test)]
#[path = "host_local_tests.rs"]
mod tests;
