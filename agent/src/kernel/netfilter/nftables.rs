//! nftables over netlink (`include/uapi/linux/netfilter/nf_tables.h`). Dumps take no lock that a
//! change waits for: the kernel walks its lists under RCU.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::Path;

use netlink_packet_core::NlasIterator;
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

use super::Family;
use crate::kernel::netlink::{DumpSocket, Message, NetlinkError, Request};

/// `NFNL_SUBSYS_NFTABLES` is the upper byte of a message's type.
const SUBSYSTEM: u16 = 10 << 8;
const NFT_MSG_NEWCHAIN: u16 = SUBSYSTEM | 3;
const NFT_MSG_GETCHAIN: u16 = SUBSYSTEM | 4;
const NFT_MSG_NEWRULE: u16 = SUBSYSTEM | 6;
const NFT_MSG_GETRULE: u16 = SUBSYSTEM | 7;
const NFT_MSG_NEWGEN: u16 = SUBSYSTEM | 15;
const NFT_MSG_GETGEN: u16 = SUBSYSTEM | 16;
/// `struct nfgenmsg`: family, version, resource; all families, version 0.
const HEADER: usize = 4;
const NLA_HEADER: usize = 4;
const EVERYTHING: [u8; HEADER] = [0; HEADER];
const NFTA_GEN_ID: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_USE: u16 = 6;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;

/// A chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Chain<'a> {
    /// Of its table.
    pub family: Family,
    /// Its table.
    pub table: &'a [u8],
    /// Its name.
    pub name: &'a [u8],
    /// Its rules, and the jumps to it from rules and maps: an upper bound of its rules, and exact
    /// for a chain with a hook, to which nothing can jump.
    pub used: u32,
}

/// A rule: the chain that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<'a> {
    /// Of its table.
    pub family: Family,
    /// Its table.
    pub table: &'a [u8],
    /// Its chain.
    pub chain: &'a [u8],
}

/// Whether a question about nftables is no harm now: where it is a module that is not loaded, a
/// question would load it (`nfnetlink_rcv_msg` asks for it). False says nothing of what is built in.
#[must_use]
pub fn is_loaded(proc_root: &Path) -> bool {
    match File::open(proc_root.join("modules")) {
        // A kernel without modules: what it has not says so.
        Err(_) => true,
        Ok(modules) => has_line(modules, |line| line.starts_with(b"nf_tables ")),
    }
}

/// Whether the kernel has nftables built in, which only its symbols tell. Takes 40 ms.
#[must_use]
pub fn is_built_in(proc_root: &Path) -> bool {
    // A module's symbols have its name in brackets behind them.
    let symbol = |line: &[u8]| line.trim_ascii_end().ends_with(b" nf_tables_getgen");
    File::open(proc_root.join("kallsyms")).is_ok_and(|file| has_line(file, symbol))
}

fn has_line(file: File, wanted: impl Fn(&[u8]) -> bool) -> bool {
    let (mut lines, mut line) = (BufReader::with_capacity(1 << 16, file), Vec::new());
    while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        if wanted(&line) {
            return true;
        }
        line.clear();
    }
    false
}

/// The tables of the network namespace that the calling thread was in when this was opened.
pub struct NfTables(DumpSocket);

impl NfTables {
    /// Only where [`is_loaded`] or [`is_built_in`].
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self(DumpSocket::over(Socket::new(NETLINK_NETFILTER)?)?))
    }

    /// The generation: another one after every change. Needs CAP_NET_ADMIN, as everything here.
    pub fn generation(&mut self) -> Result<Option<u32>, NetlinkError> {
        let request = Request { name: "NFT_MSG_GETGEN", kind: NFT_MSG_GETGEN, body: &EVERYTHING };
        self.0.ask(request, parse_generation)
    }

    /// Every chain of the families that there are labels for, folded.
    pub fn chains<T: Default>(
        &mut self,
        mut each: impl FnMut(&mut T, Chain<'_>),
    ) -> Result<T, NetlinkError> {
        let request =
            Request { name: "NFT_MSG_GETCHAIN", kind: NFT_MSG_GETCHAIN, body: &EVERYTHING };
        let dumped = self.0.dump_raw(request, |folded: &mut T, message| {
            if let Some(chain) = parse_chain(message) {
                each(folded, chain);
            }
            ControlFlow::Continue(())
        })?;
        Ok(dumped.value)
    }

    /// Every rule of these families, folded: about 550 bytes and 3 us each.
    pub fn rules<T: Default>(
        &mut self,
        mut each: impl FnMut(&mut T, Rule<'_>),
    ) -> Result<T, NetlinkError> {
        let request = Request { name: "NFT_MSG_GETRULE", kind: NFT_MSG_GETRULE, body: &EVERYTHING };
        let dumped = self.0.dump_raw(request, |folded: &mut T, message| {
            if let Some(rule) = parse_rule(message) {
                each(folded, rule);
            }
            ControlFlow::Continue(())
        })?;
        Ok(dumped.value)
    }
}

/// The generation of an `NFT_MSG_NEWGEN`.
#[must_use]
pub fn parse_generation(message: &Message<'_>) -> Option<u32> {
    (message.kind == NFT_MSG_NEWGEN).then_some(())?;
    attributes(message.payload).find(|(kind, _)| *kind == NFTA_GEN_ID).and_then(|(_, id)| be32(id))
}

/// The chain of an `NFT_MSG_NEWCHAIN`; `None` also for other families, such as `bridge`.
#[must_use]
pub fn parse_chain<'a>(message: &Message<'a>) -> Option<Chain<'a>> {
    (message.kind == NFT_MSG_NEWCHAIN).then_some(())?;
    let family = family(message.payload)?;
    let (mut table, mut name, mut used) = (None, None, None);
    for (kind, value) in attributes(message.payload) {
        match kind {
            NFTA_CHAIN_TABLE => table = Some(text(value)),
            NFTA_CHAIN_NAME => name = Some(text(value)),
            NFTA_CHAIN_USE => used = be32(value),
            _ => {}
        }
    }
    Some(Chain { family, table: table?, name: name?, used: used? })
}

/// Where the rule of an `NFT_MSG_NEWRULE` is; `None` also for other families.
#[must_use]
pub fn parse_rule<'a>(message: &Message<'a>) -> Option<Rule<'a>> {
    (message.kind == NFT_MSG_NEWRULE).then_some(())?;
    let family = family(message.payload)?;
    let (mut table, mut chain) = (None, None);
    for (kind, value) in attributes(message.payload) {
        match kind {
            NFTA_RULE_TABLE => table = Some(text(value)),
            NFTA_RULE_CHAIN => chain = Some(text(value)),
            _ => {}
        }
        // They come first; what follows is the long part.
        if table.is_some() && chain.is_some() {
            break;
        }
    }
    Some(Rule { family, table: table?, chain: chain? })
}

fn family(payload: &[u8]) -> Option<Family> {
    // enum of include/uapi/linux/netfilter.h
    match payload.first()? {
        1 => Some(Family::Inet),
        2 => Some(Family::Ipv4),
        10 => Some(Family::Ipv6),
        _ => None,
    }
}

fn attributes(payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let attributes = payload.get(HEADER..).unwrap_or_default();
    NlasIterator::new(attributes).map_while(Result::ok).map(|attribute| {
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        // `value` would borrow from the attribute.
        (kind, attribute.into_inner().get(NLA_HEADER..length).unwrap_or_default())
    })
}

/// Up to its NUL.
fn text(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// nftables' numbers have the network's order.
fn be32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.get(..4)?.try_into().ok()?))
}
