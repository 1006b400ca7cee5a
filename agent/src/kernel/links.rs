//! Links: bridges, their ports, and what changes them.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt as _;
use netlink_packet_core::{NetlinkPayload, NlasIterator};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{setsockopt, sockopt};
use rtnetlink::MulticastGroup;
use rtnetlink::sys::AsyncSocket as _;

use super::errno::{Access, FileError, of_io};
use super::gate::{Gate, GatedSocket};
use super::name::Name;
use super::netlink::{DumpSocket, Message, NetlinkError, u32_at};

const RTM_NEWLINK: u16 = 16;
const IFINFOMSG_LENGTH: usize = 16;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// A bridge as netlink names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeLink {
    /// Interface index, unique in its network namespace while the interface lives.
    pub index: u32,
    /// Interface name.
    pub name: Name,
}

/// Every bridge of the socket's namespace. The kernel filters by kind, so this is one message a
/// bridge, whatever else the node has.
pub fn bridges(socket: &mut DumpSocket) -> Result<Vec<BridgeLink>, NetlinkError> {
    let mut request = LinkMessage::default();
    request.attributes = vec![
        LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]),
        LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
    ];
    let request = RouteNetlinkMessage::GetLink(request);
    let dumped =
        socket.dump("RTM_GETLINK kind bridge", &request, |found: &mut Vec<_>, message| {
            // A kernel that does not filter sends every link: look at the kind all the same.
            if let Some(link) = parse_link(message).filter(|link| link.is_bridge) {
                found.push(BridgeLink { index: link.index, name: link.name });
            }
            ControlFlow::Continue(())
        })?;
    Ok(dumped.value)
}

/// Every link of the socket's namespace: a message each, so not for every scrape.
pub fn all(socket: &mut DumpSocket) -> Result<Vec<Link>, NetlinkError> {
    let mut request = LinkMessage::default();
    request.attributes = vec![LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    let request = RouteNetlinkMessage::GetLink(request);
    let dumped = socket.dump("RTM_GETLINK", &request, |found: &mut Vec<_>, message| {
        found.extend(parse_link(message));
        ControlFlow::Continue(())
    })?;
    Ok(dumped.value)
}

/// Every port of every bridge, as (port, bridge) interface indexes, and whether the dump had to
/// be taken again. AF_BRIDGE dumps do not say when they were inconsistent, so the count is to be
/// checked against [`port_count`].
pub fn bridge_ports(socket: &mut DumpSocket) -> Result<Vec<(u32, u32)>, NetlinkError> {
    let mut request = LinkMessage::default();
    request.header.interface_family = AddressFamily::Bridge;
    let request = RouteNetlinkMessage::GetLink(request);
    let dumped =
        socket.dump("RTM_GETLINK AF_BRIDGE", &request, |found: &mut Vec<_>, message| {
            if let Some(link) = parse_link(message)
                && let Some(master) = link.master
            {
                found.push((link.index, master));
            }
            ControlFlow::Continue(())
        })?;
    Ok(dumped.value)
}

/// The parts of a link message that bridges need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name; empty if the message has none.
    pub name: Name,
    /// Index of the bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// Whether it is a bridge.
    pub is_bridge: bool,
    /// Whether it is an end of a pair as container networks make one for each pod: veth, or netkit
    /// (Linux 6.7).
    pub is_pair: bool,
}

/// Parses an `RTM_NEWLINK`, by bytes: names need not be UTF-8.
#[must_use]
pub fn parse_link(message: &Message<'_>) -> Option<Link> {
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let mut link = Link {
        index: u32_at(message.payload, 4)?,
        name: Name::default(),
        master: None,
        is_bridge: false,
        is_pair: false,
    };
    for attribute in NlasIterator::new(message.payload.get(IFINFOMSG_LENGTH..)?) {
        let Ok(attribute) = attribute else { break };
        let value = attribute.value();
        match attribute.kind() {
            IFLA_IFNAME => link.name = Name::from_bytes(value.strip_suffix(&[0]).unwrap_or(value)),
            IFLA_MASTER => link.master = u32_at(value, 0),
            IFLA_LINKINFO => {
                link.is_bridge = kind_is(value, b"bridge\0");
                link.is_pair = kind_is(value, b"veth\0") || kind_is(value, b"netkit\0");
            }
            _ => {}
        }
    }
    Some(link)
}

fn kind_is(info: &[u8], kind: &[u8]) -> bool {
    NlasIterator::new(info)
        .map_while(Result::ok)
        .any(|nested| nested.kind() == IFLA_INFO_KIND && nested.value().starts_with(kind))
}

/// How many ports a bridge has, from `brif`: exact, and without RTNL. `None` where the sysfs at
/// `sys_root` does not show this bridge: it shows the namespace of its mount, not the thread's.
pub fn port_count(sys_root: &Path, bridge: &BridgeLink) -> Result<Option<usize>, FileError> {
    let directory = sys_root.join("class/net").join(bridge.name.as_os_str());
    let shown = std::fs::read_to_string(directory.join("ifindex"));
    if shown.ok().and_then(|text| text.trim().parse().ok()) != Some(bridge.index) {
        return Ok(None);
    }
    let path = directory.join("brif");
    let count = std::fs::read_dir(&path).and_then(|entries| {
        entries.into_iter().try_fold(0, |count, entry| entry.map(|_| count + 1))
    });
    match count {
        Ok(count) => Ok(Some(count)),
        // Deleted between the two looks.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new(Access::Read, path, of_io(&error))),
    }
}

/// The index of an interface of the calling thread's namespace (SIOCGIFINDEX, under RCU: it does
/// not wait for RTNL). An index is not given to another interface while the namespace lives.
#[must_use]
pub fn index_of(interface: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(interface).ok()
}

/// What the interface with an index is called now (SIOCGIFNAME); `None`: it is gone.
#[must_use]
pub fn name_of(index: u32) -> Option<Name> {
    // nix answers with an empty name where there is no such interface.
    let name = nix::net::if_::if_indextoname(index).ok()?.into_bytes();
    Some(name).filter(|name| !name.is_empty()).map(Name::from_bytes)
}

/// The same as a key's path has it; `None` also where no key can have it.
#[must_use]
pub fn key_name_of(index: u32) -> Option<String> {
    String::from_utf8(name_of(index)?.as_bytes().to_vec()).ok()
}

/// What happened to a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// It is there, new or changed.
    Changed {
        /// Interface index.
        index: u32,
        /// Interface name, if it is a bridge.
        bridge: Option<Name>,
        /// What it belongs to. `None`: to nothing.
        master: Option<u32>,
    },
    /// It left the bridge it was a port of.
    LeftBridge {
        /// Interface index.
        index: u32,
    },
    /// It is gone.
    Gone {
        /// Interface index.
        index: u32,
    },
    /// The kernel dropped events because the socket's buffer was full: anything may have changed.
    Overrun,
}

/// Link events of the calling thread's namespace.
///
/// They are wake-ups: a name that is not UTF-8 makes the parser drop its message, so the truth is
/// re-read all the same.
pub struct LinkEvents {
    messages: Box<dyn futures_util::Stream<Item = LinkEvent> + Send + Unpin>,
    connection: tokio::task::JoinHandle<()>,
    gate: Arc<Gate>,
}

impl LinkEvents {
    /// Subscribes, with a receive buffer of `buffer` bytes where that is allowed (above
    /// `net.core.rmem_max` it takes CAP_NET_ADMIN). Needs a tokio runtime.
    pub fn subscribe(buffer: usize) -> std::io::Result<Self> {
        let (mut connection, _, messages) = rtnetlink::new_multicast_connection_with_socket::<
            GatedSocket,
        >(&[MulticastGroup::Link])?;
        let gated = connection.socket_mut();
        let gate = gated.gate.clone();
        if setsockopt(gated.socket_ref(), sockopt::RcvBufForce, &buffer).is_err() {
            setsockopt(gated.socket_ref(), sockopt::RcvBuf, &buffer)?;
        }
        let messages =
            messages.filter_map(|(message, _)| std::future::ready(link_event(message.payload)));
        // The connection's end is the stream's end, which the owner supervises.
        let connection = tokio::spawn(connection);
        Ok(Self { messages: Box::new(messages), connection, gate })
    }

    /// The next event; `None` when the socket failed.
    pub async fn next(&mut self) -> Option<LinkEvent> {
        self.gate.open();
        self.messages.next().await
    }
}

impl Drop for LinkEvents {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn link_event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<LinkEvent> {
    match payload {
        NetlinkPayload::Overrun(_) => Some(LinkEvent::Overrun),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Some(changed(link)),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
            let index = link.header.index;
            Some(match link.header.interface_family {
                AddressFamily::Bridge => LinkEvent::LeftBridge { index },
                _ => LinkEvent::Gone { index },
            })
        }
        _ => None,
    }
}

fn changed(link: LinkMessage) -> LinkEvent {
    let (mut name, mut master, mut is_bridge) = (None, None, false);
    for attribute in link.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(Name::from_bytes(text)),
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                is_bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    LinkEvent::Changed { index: link.header.index, bridge: name.filter(|_| is_bridge), master }
}
