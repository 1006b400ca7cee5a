//! The addresses of a network namespace.

use std::net::IpAddr;
use std::ops::ControlFlow;

use netlink_packet_core::NlasIterator;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;

use super::netlink::{DumpSocket, Message, NetlinkError};

const RTM_NEWADDR: u16 = 20;
const IFADDRMSG_LENGTH: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;

/// Most addresses that are taken. A pod's own administrator may give it any number.
const MOST: usize = 10_000;

/// The addresses of all interfaces of the calling thread's network namespace, tentative ones too,
/// without loopback addresses.
///
/// The socket is closed on return: it keeps the namespace alive.
pub fn addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let dumped =
        DumpSocket::open()?.dump("RTM_GETADDR", &request, |found: &mut Vec<_>, message| {
            found.extend(parse_address(message).filter(|address| !address.is_loopback()));
            if found.len() < MOST { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
    Ok(dumped.value)
}

/// The address that an `RTM_NEWADDR` tells of.
#[must_use]
pub fn parse_address(message: &Message<'_>) -> Option<IpAddr> {
    if message.kind != RTM_NEWADDR {
        return None;
    }
    let (mut address, mut local) = (None, None);
    for attribute in NlasIterator::new(message.payload.get(IFADDRMSG_LENGTH..)?) {
        let Ok(attribute) = attribute else { break };
        match attribute.kind() {
            IFA_ADDRESS => address = from_bytes(attribute.value()),
            IFA_LOCAL => local = from_bytes(attribute.value()),
            _ => {}
        }
    }
    // On a point-to-point link IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL there only
    // (`include/uapi/linux/if_addr.h`).
    local.or(address)
}

fn from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
