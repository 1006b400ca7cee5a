//! Netfilter's rules, which requests pay for one by one: how many there are, whose they are, and
//! how kube-proxy works here. A pressure without a maximum.

pub mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::kernel::netfilter::Family;

/// The name of its age among those of the limits.
pub const NAME: &str = "netfilter_rules";

/// What holds rules.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The tables that `iptables-legacy` makes.
    IptablesLegacy,
    /// The nftables tables that `iptables-nft` makes: `ip` and `ip6`, by their names.
    IptablesNft,
    /// All other tables of nftables.
    Nftables,
    /// Virtual services.
    Ipvs,
}

impl Backend {
    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::IptablesLegacy => "iptables-legacy",
            Self::IptablesNft => "iptables-nft",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }

    /// Of an nftables table.
    #[must_use]
    pub fn of_table(family: Family, table: &[u8]) -> Self {
        let iptables = matches!(table, b"filter" | b"nat" | b"mangle" | b"raw" | b"security");
        match iptables && family != Family::Inet {
            true => Self::IptablesNft,
            false => Self::Nftables,
        }
    }
}

/// Whose rules they are.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// In kube-proxy's own chains or table.
    KubeProxy,
    /// In any other, also where they jump to kube-proxy's.
    Other,
    /// In a table too large to be read: an upper bound.
    Unknown,
}

impl Owner {
    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::KubeProxy => "kube-proxy",
            Self::Other => "other",
            Self::Unknown => "unknown",
        }
    }
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Rules; of IPVS destinations.
    pub rules: u64,
    /// Chains; of IPVS virtual services. `None`: not known.
    pub chains: Option<u64>,
}

impl Count {
    /// Adds chains, and rules in them.
    pub fn add(&mut self, chains: u64, rules: u64) {
        self.rules += rules;
        self.chains = Some(self.chains.unwrap_or(0) + chains);
    }
}

/// Counts by backend, family and owner.
pub type Counts = BTreeMap<(Backend, Family, Owner), Count>;

/// How kube-proxy works.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// iptables, by `iptables-legacy`.
    IptablesLegacy,
    /// iptables, by `iptables-nft`.
    IptablesNft,
    /// nftables.
    Nftables,
    /// IPVS.
    Ipvs,
}

impl Mode {
    /// In words.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::IptablesLegacy => "iptables (by iptables-legacy)",
            Self::IptablesNft => "iptables (by iptables-nft)",
            Self::Nftables => "nftables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// Which of its modes a chain of kube-proxy's belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainOf {
    /// iptables mode alone.
    Iptables,
    /// ipvs mode alone.
    Ipvs,
    /// Both.
    Either,
}

/// Chains that carry a service's or an endpoint's name behind this.
const PER_SERVICE: [&[u8]; 6] =
    [b"KUBE-SVC-", b"KUBE-SVL-", b"KUBE-SEP-", b"KUBE-EXT-", b"KUBE-FW-", b"KUBE-XLB-"];

/// A chain of kube-proxy's, by its name in iptables (`pkg/proxy/{iptables,ipvs}/proxier.go` of
/// Kubernetes). `None`: somebody else's. KUBE-FIREWALL, KUBE-MARK-DROP, KUBE-KUBELET-CANARY and
/// KUBE-IPTABLES-HINT are kubelet's, KUBE-ROUTER-* and KUBE-POD-FW-* kube-router's.
#[must_use]
pub fn kube_proxy_chain(name: &[u8]) -> Option<ChainOf> {
    if PER_SERVICE.iter().any(|prefix| name.starts_with(prefix)) {
        return Some(ChainOf::Iptables);
    }
    match name {
        b"KUBE-NODEPORTS" | b"KUBE-EXTERNAL-SERVICES" => Some(ChainOf::Iptables),
        b"KUBE-NODE-PORT"
        | b"KUBE-LOAD-BALANCER"
        | b"KUBE-SOURCE-RANGES-FIREWALL"
        | b"KUBE-IPVS-FILTER"
        | b"KUBE-IPVS-OUT-FILTER" => Some(ChainOf::Ipvs),
        b"KUBE-SERVICES"
        | b"KUBE-FORWARD"
        | b"KUBE-POSTROUTING"
        | b"KUBE-MARK-MASQ"
        | b"KUBE-PROXY-CANARY"
        | b"KUBE-PROXY-FIREWALL" => Some(ChainOf::Either),
        _ => None,
    }
}

/// What was counted in chains, and what they say of kube-proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The counts.
    pub counts: Counts,
    /// Modes that chains were found of; [`Mode::Ipvs`] needs services as well.
    pub modes: BTreeSet<Mode>,
}

impl Tally {
    /// Counts `chains` chains (or none, where they were counted before) and their rules.
    pub fn add(&mut self, place: Place<'_>, chains: u64, rules: u64) {
        let owner = self.owner(place);
        let key = (place.backend, place.family, owner);
        self.counts.entry(key).or_default().add(chains, rules);
    }

    fn owner(&mut self, place: Place<'_>) -> Owner {
        let mode = match place.backend {
            Backend::Nftables if place.table == b"kube-proxy" => Some(Mode::Nftables),
            Backend::Nftables | Backend::Ipvs => return Owner::Other,
            Backend::IptablesLegacy | Backend::IptablesNft => {
                match (kube_proxy_chain(place.chain), place.backend) {
                    (None, _) => return Owner::Other,
                    (Some(ChainOf::Either), _) => None,
                    (Some(ChainOf::Ipvs), _) => Some(Mode::Ipvs),
                    (_, Backend::IptablesLegacy) => Some(Mode::IptablesLegacy),
                    _ => Some(Mode::IptablesNft),
                }
            }
        };
        self.modes.extend(mode);
        Owner::KubeProxy
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            let sum = self.counts.entry(*key).or_default();
            sum.rules += count.rules;
            if let Some(chains) = count.chains {
                sum.chains = Some(sum.chains.unwrap_or(0) + chains);
            }
        }
        self.modes.extend(&other.modes);
    }
}

/// Where rules are.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What holds them.
    pub backend: Backend,
    /// Of the table.
    pub family: Family,
    /// Its name.
    pub table: &'a [u8],
    /// The chain's; empty: a built-in one.
    pub chain: &'a [u8],
}

/// The rules of the node's network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netfilter {
    /// How many.
    pub counts: Counts,
    /// kube-proxy's modes that were found. One: it is in force. Several: an earlier one left
    /// something behind. None: no kube-proxy, or one that works otherwise. `None`: not known.
    pub modes: Option<Vec<Mode>>,
    /// What could not be counted and why, escaped.
    pub unknown: Vec<String>,
    /// When.
    pub read_at: Instant,
}

/// The kernel that kube-proxy's nftables mode asks for.
const NFTABLES_MODE: (u32, u32) = (5, 13);

/// What to do about the rules, where something can be done.
#[must_use]
pub fn advice(modes: &[Mode], kernel: (u32, u32)) -> Option<String> {
    let cost = match modes {
        [] | [Mode::Nftables] => return None,
        [Mode::Ipvs] => {
            "ipvs mode is deprecated since Kubernetes 1.35 and makes iptables rules as well"
        }
        [_] => "each new connection passes kube-proxy's rules one by one",
        _ => {
            "more than one mode has left rules behind, and those of all are passed: restart the node, \
             or run `kube-proxy --cleanup` and kube-proxy anew"
        }
    };
    if modes.len() > 1 && modes.contains(&Mode::Nftables) {
        return Some(cost.to_owned());
    }
    let (major, minor) = kernel;
    Some(match kernel >= NFTABLES_MODE {
        true => format!(
            "{cost}; kube-proxy's nftables mode looks services up in maps instead: stable since \
             Kubernetes 1.33 (beta since 1.31), and this kernel ({major}.{minor}) has what it needs"
        ),
        false => format!(
            "{cost}; kube-proxy's nftables mode looks services up in maps instead, but needs kernel \
             5.13: this is {major}.{minor}"
        ),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn place(backend: Backend, table: &'static str, chain: &'static str) -> Place<'static> {
        let (table, chain) = (table.as_bytes(), chain.as_bytes());
        Place { backend, family: Family::Ipv4, table, chain }
    }

    #[test]
    fn chains_and_tables_have_owners_and_tell_the_mode() {
        let legacy = |chain| place(Backend::IptablesLegacy, "nat", chain);
        let nft = |chain| place(Backend::IptablesNft, "nat", chain);
        let table = |table| place(Backend::Nftables, table, "services");
        for (place, owner, mode) in [
            (legacy("KUBE-SVC-ABC"), Owner::KubeProxy, Some(Mode::IptablesLegacy)),
            (nft("KUBE-SEP-ABC"), Owner::KubeProxy, Some(Mode::IptablesNft)),
            (nft("KUBE-SERVICES"), Owner::KubeProxy, None),
            (nft("KUBE-NODE-PORT"), Owner::KubeProxy, Some(Mode::Ipvs)),
            (legacy(""), Owner::Other, None),
            (legacy("KUBE-FIREWALL"), Owner::Other, None),
            (nft("KUBE-KUBELET-CANARY"), Owner::Other, None),
            (nft("KUBE-IPTABLES-HINT"), Owner::Other, None),
            (nft("KUBE-ROUTER-INPUT"), Owner::Other, None),
            (nft("cali-INPUT"), Owner::Other, None),
            (table("kube-proxy"), Owner::KubeProxy, Some(Mode::Nftables)),
            (table("kube-proxy2"), Owner::Other, None),
        ] {
            let mut tally = Tally::default();
            tally.add(place, 1, 3);
            let count = Count { rules: 3, chains: Some(1) };
            assert_eq!(tally.counts, [((place.backend, Family::Ipv4, owner), count)].into());
            assert_eq!(tally.modes.into_iter().next(), mode, "{place:?}");
        }
    }

    #[test]
    fn tables_of_iptables_nft_are_known_by_name() {
        for (family, table, backend) in [
            (Family::Ipv4, "nat", Backend::IptablesNft),
            (Family::Ipv6, "security", Backend::IptablesNft),
            (Family::Inet, "filter", Backend::Nftables),
            (Family::Ipv4, "kube-proxy", Backend::Nftables),
        ] {
            assert_eq!(Backend::of_table(family, table.as_bytes()), backend, "{table}");
        }
    }

    #[test]
    fn what_is_advised() {
        let new = (6, 18);
        assert_eq!(advice(&[], new), None);
        assert_eq!(advice(&[Mode::Nftables], new), None);
        let iptables = advice(&[Mode::IptablesNft], new).unwrap();
        assert!(iptables.contains("stable since Kubernetes 1.33") && iptables.contains("6.18"));
        let old = advice(&[Mode::IptablesLegacy], (5, 10)).unwrap();
        assert!(old.contains("needs kernel 5.13: this is 5.10"), "{old}");
        let ipvs = advice(&[Mode::Ipvs], (5, 13)).unwrap();
        assert!(ipvs.contains("deprecated") && ipvs.contains("has what it needs"), "{ipvs}");
        let two = advice(&[Mode::IptablesNft, Mode::Nftables], new).unwrap();
        assert!(two.contains("--cleanup") && !two.contains("1.33"), "{two}");
        assert!(advice(&[Mode::IptablesLegacy, Mode::Ipvs], new).unwrap().contains("1.33"));
    }

    #[test]
    fn tallies_add_up() {
        let mut all = Tally::default();
        let mut one = Tally::default();
        one.add(place(Backend::IptablesNft, "nat", "KUBE-SVC-A"), 1, 2);
        let key = (Backend::IptablesLegacy, Family::Ipv4, Owner::Unknown);
        one.counts.insert(key, Count { rules: 7, chains: None });
        all.merge(&one);
        all.merge(&one);
        assert_eq!(all.counts[&key], Count { rules: 14, chains: None });
        let kube = (Backend::IptablesNft, Family::Ipv4, Owner::KubeProxy);
        assert_eq!(all.counts[&kube], Count { rules: 4, chains: Some(2) });
        assert_eq!(all.modes, one.modes);
    }
}
