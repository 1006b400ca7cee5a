//! Counting the rules: what has not changed is not read again.
//!
//! | source | asked every round | read when that changed | exact |
//! | --- | --- | --- | --- |
//! | iptables-legacy | number and bytes of a table's entries | the table | yes, but an exchange of as many bytes between owners goes unseen |
//! | nftables, iptables-nft | the generation | each chain's use count, and the rules when one of those changed | yes |
//! | ipvs | `/proc/net/ip_vs` | | yes |
//!
//! A use count is rules and jumps together (`nft_chain.use`), with kube-proxy's chains almost twice
//! the rules, so it says whether something changed and not how many there are.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::time::Instant;

use nix::errno::Errno;

use super::{Backend, Count, Family, Mode, Netfilter, Owner, Place, Tally};
use crate::kernel::name::Name;
use crate::kernel::netfilter::ipvs;
use crate::kernel::netfilter::legacy::{self, Info, LARGEST, Legacy, LegacyError};
use crate::kernel::netfilter::nftables::{self, NfTables};
use crate::kernel::netlink::NetlinkError;
use crate::kernel::system;

/// How often a table is asked for again that changes while it is read.
const ATTEMPTS: u32 = 3;

/// Counts the rules of the calling thread's network namespace, which must stay the same.
pub struct Reader {
    proc_root: PathBuf,
    /// Whether nftables is built in; `None`: not looked at, because it was there anyway.
    built_in: Option<bool>,
    nft: Option<Nft>,
    legacy: BTreeMap<(Family, Name), (Info, Tally)>,
    reads: Reads,
}

/// What was known at a generation.
struct Nft {
    generation: Option<u32>,
    /// Of every chain and its use count.
    uses: u64,
    /// The chains without their rules.
    chains: Tally,
    rules: Tally,
}

/// How often something dear was read, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Tables of iptables-legacy.
    pub tables: u64,
    /// All chains of nftables.
    pub chains: u64,
    /// All rules of nftables.
    pub rules: u64,
}

/// Why something could not be counted.
struct Trouble {
    what: String,
    /// A capability is missing: that is so until the agent is started anew, and no failure.
    denied: bool,
}

impl Reader {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(proc_root: impl Into<PathBuf>) -> Self {
        Self {
            proc_root: proc_root.into(),
            built_in: None,
            nft: None,
            legacy: BTreeMap::new(),
            reads: Reads::default(),
        }
    }

    /// What was read so far.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.reads
    }

    /// How it is now, and what failed but for want of a capability.
    pub fn read(&mut self) -> (Netfilter, Option<String>) {
        let mut all = Tally::default();
        let mut troubles = Vec::new();
        let before = self.reads;
        for family in [Family::Ipv4, Family::Ipv6] {
            note(self.legacy(family, &mut all), &mut troubles);
        }
        note(self.nft(&mut all), &mut troubles);
        // A chain of ipvs mode is not yet kube-proxy at work: there must be services as well.
        let chains_of_ipvs = all.modes.remove(&Mode::Ipvs);
        note(self.ipvs(&mut all, chains_of_ipvs), &mut troubles);
        if self.reads.tables > before.tables {
            // A table is megabytes, which were needed for a moment.
            system::give_back_memory();
        }
        let failed = troubles.iter().filter(|one| !one.denied).map(|one| one.what.as_str());
        let failed = failed.collect::<Vec<_>>().join("; ");
        let found = Netfilter {
            counts: all.counts,
            modes: (troubles.is_empty() || !all.modes.is_empty())
                .then(|| all.modes.into_iter().collect()),
            unknown: troubles.into_iter().map(|one| one.what).collect(),
            read_at: Instant::now(),
        };
        (found, (!failed.is_empty()).then_some(failed))
    }

    fn legacy(&mut self, family: Family, all: &mut Tally) -> Result<(), Trouble> {
        let backend = format!("iptables-legacy, {}", family.label());
        let tables = legacy::tables(&self.proc_root, family)
            .map_err(|error| trouble(&backend, Some(error.errno), &error))?;
        self.legacy.retain(|(of, table), _| *of != family || tables.contains(table));
        if tables.is_empty() {
            return Ok(());
        }
        let why = |error: LegacyError| trouble(&backend, error.errno(), &error);
        let socket = Legacy::open(family == Family::Ipv6).map_err(why)?;
        for table in tables {
            let info = socket.info(&table).map_err(why)?;
            let key = (family, table);
            if self.legacy.get(&key).is_none_or(|(known, _)| *known != info) {
                let (info, tally) = self.table(&socket, family, &key.1, info).map_err(why)?;
                self.legacy.insert(key.clone(), (info, tally));
            }
            if let Some((_, tally)) = self.legacy.get(&key) {
                all.merge(tally);
            }
        }
        Ok(())
    }

    fn table(
        &mut self,
        socket: &Legacy,
        family: Family,
        table: &Name,
        mut info: Info,
    ) -> Result<(Info, Tally), LegacyError> {
        let backend = Backend::IptablesLegacy;
        let mut attempt = 1;
        let entries = loop {
            if info.size > LARGEST {
                let mut tally = Tally::default();
                let count = Count { rules: info.most_rules(), chains: None };
                tally.counts.insert((backend, family, Owner::Unknown), count);
                return Ok((info, tally));
            }
            self.reads.tables += 1;
            match socket.entries(table, &info) {
                // It has changed since it was asked how large it is (`get_entries`).
                Err(LegacyError::Refused { errno: Errno::EAGAIN, .. }) if attempt < ATTEMPTS => {
                    attempt += 1;
                    info = socket.info(table)?;
                }
                entries => break entries?,
            }
        };
        let mut tally = Tally::default();
        let counted = entries.chains(&info, |chain| {
            let name = chain.name.unwrap_or_default();
            let place = Place { backend, family, table: table.as_bytes(), chain: name };
            tally.add(place, 1, chain.rules);
        });
        match counted {
            Some(()) => Ok((info, tally)),
            None => Err(LegacyError::Malformed { table: table.to_string() }),
        }
    }

    fn nft(&mut self, all: &mut Tally) -> Result<(), Trouble> {
        let root = &self.proc_root;
        if !nftables::is_loaded(root)
            && !*self.built_in.get_or_insert_with(|| nftables::is_built_in(root))
        {
            return Ok(());
        }
        let read = self.nft_changes();
        let why = |error: NetlinkError| trouble("nftables, iptables-nft", error.errno(), &error);
        if read.is_err() {
            self.nft = None;
        }
        read.map_err(why)?;
        if let Some(nft) = &self.nft {
            all.merge(&nft.chains);
            all.merge(&nft.rules);
        }
        Ok(())
    }

    fn nft_changes(&mut self) -> Result<(), NetlinkError> {
        let mut socket = NfTables::open()?;
        // Before the dumps: what changes after it is another generation next time.
        let generation = socket.generation()?;
        if generation.is_some() && self.nft.as_ref().is_some_and(|it| it.generation == generation) {
            return Ok(());
        }
        self.reads.chains += 1;
        let (chains, hasher) =
            socket.chains(|(tally, hasher): &mut (Tally, DefaultHasher), chain| {
                chain.hash(hasher);
                tally.add(place(chain.family, chain.table, chain.name), 1, 0);
            })?;
        let uses = hasher.finish();
        if let Some(nft) = self.nft.as_mut().filter(|nft| nft.uses == uses) {
            nft.generation = generation;
            return Ok(());
        }
        self.reads.rules += 1;
        let rules = socket.rules(|tally: &mut Tally, rule| {
            tally.add(place(rule.family, rule.table, rule.chain), 0, 1);
        })?;
        self.nft = Some(Nft { generation, uses, chains, rules });
        Ok(())
    }

    fn ipvs(&self, all: &mut Tally, chains_of_ipvs: bool) -> Result<(), Trouble> {
        let read = ipvs::read(&self.proc_root)
            .map_err(|error| trouble("ipvs", Some(error.errno), &error))?;
        for (family, found) in read.into_iter().flatten().filter(|(_, it)| it.services > 0) {
            let owner = match chains_of_ipvs {
                true => Owner::KubeProxy,
                false => Owner::Other,
            };
            let count = all.counts.entry((Backend::Ipvs, family, owner)).or_default();
            count.add(found.services, found.destinations);
            if chains_of_ipvs {
                all.modes.insert(Mode::Ipvs);
            }
        }
        Ok(())
    }
}

fn place<'a>(family: Family, table: &'a [u8], chain: &'a [u8]) -> Place<'a> {
    Place { backend: Backend::of_table(family, table), family, table, chain }
}

fn note(result: Result<(), Trouble>, troubles: &mut Vec<Trouble>) {
    troubles.extend(result.err());
}

fn trouble(of: &str, errno: Option<Errno>, error: &dyn std::fmt::Display) -> Trouble {
    let denied = matches!(errno, Some(Errno::EPERM | Errno::EACCES));
    let what = match denied {
        true => format!("{of}: rules are counted only by root with CAP_NET_ADMIN"),
        false => format!("{of}: {error}"),
    };
    Trouble { what, denied }
}
