//! When a neighbor table is to grow, and how far: decides, and writes nothing.

use std::fmt;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::neighbor::{Basis, Neighbor};
use crate::kernel::neighbor::Family;
use crate::sysctl::key::Key;

/// Between two steps of one table.
pub const PAUSE: Duration = Duration::from_secs(10);
/// What an entry takes of the kernel's memory: 336 to 344 bytes, in slabs of 512 (`neigh_alloc`,
/// `tbl->entry_size`).
pub const ENTRY_BYTES: u64 = 512;
/// A full table takes at most this part of the node's memory: one hundredth.
pub const MEMORY_PART: u64 = 100;

/// What the configuration says of growth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// At how many thousandths of `gc_thresh3` a table grows.
    pub at: u64,
    /// It grows no further.
    pub ceiling: u64,
}

/// Why a table grows no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// `autogrow.neighbor.ceiling`.
    Ceiling,
    /// The part of the node's memory that a full table may take.
    Memory,
    /// The `max` that the configuration gives `gc_thresh3`.
    Max,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ceiling => "the configured ceiling",
            Self::Memory => "1 % of the node's memory",
            Self::Max => "the configured max of gc_thresh3",
        })
    }
}

impl Rule {
    /// The largest `gc_thresh3`, and what makes it that. `memory`: the node's, in bytes. `max`: what
    /// a policy allows.
    #[must_use]
    pub fn most(&self, memory: u64, max: Option<u64>) -> (u64, Bound) {
        let bounds = [
            (self.ceiling, Bound::Ceiling),
            (memory / MEMORY_PART / ENTRY_BYTES, Bound::Memory),
            (max.unwrap_or(u64::MAX), Bound::Max),
        ];
        bounds.into_iter().min_by_key(|(most, _)| *most).unwrap_or((self.ceiling, Bound::Ceiling))
    }
}

/// The threshold of a family, 2 or 3, as a key. `gc_thresh1` does not grow.
#[must_use]
pub fn key(family: Family, level: u8) -> Option<Key> {
    Key::parse(&format!("net.{}.neigh.default.gc_thresh{level}", family.label())).ok()
}

/// The keys that growth is about: of IPv4 first, `gc_thresh2` first.
#[must_use]
pub fn keys() -> Vec<Key> {
    Family::ALL
        .into_iter()
        .flat_map(|family| [2, 3].map(|level| key(family, level)))
        .flatten()
        .collect()
}

/// What is known of how full a table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Entries that count, where that can be said.
    pub used: Option<(u64, Basis)>,
    /// It refused an entry under the thresholds of now.
    pub full: bool,
}

/// New floors for two thresholds; `gc_thresh1` stays, since below it stale entries live for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// `gc_thresh3` before.
    pub from: u64,
    /// `gc_thresh3`.
    pub thresh3: u64,
    /// `gc_thresh2`.
    pub thresh2: u64,
}

/// The next step, if one is due: twice the room, as far as `most` allows. Only ever raises.
#[must_use]
pub fn step(demand: Demand, thresholds: [u64; 3], at: u64, most: u64) -> Option<Step> {
    let [_, thresh2, from] = thresholds;
    let reached = demand.used.is_some_and(|(used, _)| reaches(used, from, at));
    let thresh3 = from.saturating_mul(2).min(most);
    (thresh3 > from && (reached || demand.full)).then(|| Step {
        from,
        thresh3,
        thresh2: (thresh3 / 2).max(thresh2).min(thresh3),
    })
}

fn reaches(used: u64, max: u64, at: u64) -> bool {
    u128::from(used) * 1000 >= u128::from(max) * u128::from(at)
}

/// What was seen of one table, second by second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trail {
    last: Option<Seen>,
    /// The kernel's own count has reached `gc_thresh2`.
    collecting: bool,
    full: bool,
    stepped: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    thresholds: [u64; 3],
    fulls: u64,
    forced: u64,
}

impl Trail {
    /// Takes note of the table as it is now. What happened under other thresholds, or before the
    /// first look, says nothing of those of now.
    pub fn look(&mut self, family: Family, table: &Neighbor, at: u64) -> Option<Demand> {
        let now = Seen {
            thresholds: table.gc_thresholds()?,
            fulls: table.table_fulls()?,
            forced: table.forced_gc_runs()?,
        };
        let [_, thresh2, max] = now.thresholds;
        match self.last.replace(now).filter(|last| last.thresholds == now.thresholds) {
            Some(last) => {
                self.full |= now.fulls > last.fulls;
                self.collecting |= now.forced > last.forced;
            }
            None => (self.full, self.collecting) = (false, false),
        }
        let entries = table.entries()?;
        let exempt = table.scan.map_or(0, |scan| scan.counts.exempt);
        if entries.saturating_sub(exempt) < thresh2 {
            self.collecting = false;
        }
        let fullness = table.fullness()?;
        // `neigh_alloc` forces a collection from gc_thresh2 on, by a count that exempt entries are
        // not in, but not within 5 s of the last: without one, the bound may be made of those. Where
        // gc_thresh2 is above the point of growth, that would tell too late.
        let proven = self.collecting || thresh2.saturating_mul(1000) > max.saturating_mul(at);
        // What a scan found pinned is there, however little of the rest it saw.
        let pinned = table.scan.map_or(0, |scan| scan.counts.pinned).min(entries);
        let used = match fullness.basis {
            Basis::Pinned => Some((fullness.used, Basis::Pinned)),
            Basis::Entries if reaches(pinned, max, at) => Some((pinned, Basis::Pinned)),
            Basis::Entries if family == Family::Ipv4 && proven => {
                Some((fullness.used, Basis::Entries))
            }
            Basis::Entries => None,
        };
        Some(Demand { used, full: self.full })
    }

    /// Whether the last step was long enough ago for another.
    #[must_use]
    pub fn rested(&self, now: Instant) -> bool {
        self.stepped.is_none_or(|at| now.saturating_duration_since(at) >= PAUSE)
    }

    /// Takes note of a step.
    pub fn stepped(&mut self, now: Instant) {
        *self = Self { stepped: Some(now), ..Self::default() };
    }
}

/// What growth has come to, for the picture of the node.
#[derive(Clone, Debug, PartialEq)]
pub struct Growth {
    /// What the configuration says.
    pub rule: Rule,
    /// Why no table grows here, whatever happens.
    pub unavailable: Option<String>,
    /// The tables, IPv4 first.
    pub tables: [Grown; 2],
}

/// One table's part of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grown {
    /// Steps since the agent started.
    pub steps: u64,
    /// What `gc_thresh3` is at least to be, once it has grown.
    pub floor: Option<u64>,
    /// How far it may grow, and why no further; `None` before the first look.
    pub most: Option<(u64, Bound)>,
    /// Whether it can grow no further.
    pub at_most: bool,
    /// Why a step is not in force. Escaped.
    pub blocked: Option<String>,
}

#[cfg(test)]
#[path = "autogrow_tests.rs"]
mod tests;
