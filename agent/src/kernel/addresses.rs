//! The addresses of a network namespace.

use std::net::IpAddr;
use std::ops::ControlFlow;

use netlink_packet_core::Parseable as _;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};

use super::netlink::{DumpSocket, NetlinkError};

/// `RTM_NEWADDR` (`rtnetlink(7)`).
const RTM_NEWADDR: u16 = 20;

/// Every address of the calling thread's network namespace but loopback ones, in one dump. The
/// socket is closed at once: one that is open keeps the namespace alive.
pub fn addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    let mut socket = DumpSocket::open()?;
    let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let dumped = socket.dump("RTM_GETADDR", &request, |found: &mut Vec<IpAddr>, message| {
        if message.kind == RTM_NEWADDR {
            found.extend(address(message.payload).filter(|address| !address.is_loopback()));
        }
        ControlFlow::Continue(())
    })?;
    Ok(dumped.value)
}

/// Of a point-to-point interface `IFA_ADDRESS` is the peer's, and `IFA_LOCAL` its own
/// (`rtnetlink(7)`).
fn address(payload: &[u8]) -> Option<IpAddr> {
    let message = AddressMessage::parse(payload).ok()?;
    let mut found = None;
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(local) => return Some(local),
            AddressAttribute::Address(address) => found = Some(address),
            _ => {}
        }
    }
    found
}
