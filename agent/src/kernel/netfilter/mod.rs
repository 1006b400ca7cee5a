//! Netfilter's rules: how many, in which chains. Asking makes no table and loads no module.

pub mod ipvs;
pub mod legacy;
pub mod nftables;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a table, or a virtual service, is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// nftables' `ip`.
    Ipv4,
    /// nftables' `ip6`.
    Ipv6,
    /// nftables' `inet`: both.
    Inet,
}

impl Family {
    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Inet => "inet",
        }
    }
}
