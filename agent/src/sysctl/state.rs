//! The state of a key.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::glob::Subject;
use super::inherit::Gets;
use super::marks::LastWrite;
use super::policy::OnConflict;

/// One state at a time: the first that applies, in this order.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not on this kernel, or not from this namespace.
    Unsupported,
    /// Does not exist yet: its module or interface is not there.
    Pending,
    /// No right to write.
    Denied,
    /// The kernel refused the value; the last good one is in force.
    Rejected,
    /// Another writer keeps changing it; writing is held back.
    Contested,
    /// Another writer's value was taken as the new truth.
    Yielded,
    /// Only looked at: mode observe, or the policy's `onConflict: report`.
    Observed,
    /// The kernel's value stopped meeting the policy, and is not put right yet.
    Drifted,
    /// In force, in the kernel's own spelling.
    Normalized,
    /// In force.
    InSync,
}

impl State {
    /// The label value.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Pending => "pending",
            Self::Denied => "denied",
            Self::Rejected => "rejected",
            Self::Contested => "contested",
            Self::Yielded => "yielded",
            Self::Observed => "observed",
            Self::Drifted => "drifted",
            Self::Normalized => "normalized",
            Self::InSync => "in-sync",
        }
    }

    /// Whether readiness waits for a required key in this state.
    #[must_use]
    pub fn blocks_readiness(self) -> bool {
        matches!(
            self,
            Self::Unsupported | Self::Pending | Self::Denied | Self::Rejected | Self::Contested
        )
    }
}

/// A key as the engine sees it: what status, metrics and explain show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// The key in canonical form, or the pattern.
    #[schemars(with = "String")]
    pub key: Subject,
    /// Its state.
    pub state: State,
    /// Whether the kernel's value meets the policy, in whatever state.
    pub in_sync: bool,
    /// Whether readiness waits for it.
    pub required: bool,
    /// What is wanted: a value, `a | b`, `>= n`, `<= n` or `n .. m`.
    pub want: String,
    /// What would be written, given the value now.
    pub desired: Option<String>,
    /// The value now, with single spaces, escaped.
    pub actual: Option<String>,
    /// The value before the agent first wrote it, if it did.
    pub original: Option<String>,
    /// What happens when another writer changes it.
    pub on_conflict: OnConflict,
    /// Where the policy was written.
    pub source: String,
    /// Why the policy is there.
    pub reason: Option<String>,
    /// What is wrong and what to do.
    pub detail: Option<String>,
    /// The last write that was not the agent's, if one was seen since it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_write: Option<LastWrite>,
    /// Of a pattern: its keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Members>,
    /// What the host's sysctl.d sets at boot, where that is something else than is wanted.
    #[serde(default)]
    pub disk: Option<AtBoot>,
    /// What pods that are created now get of it; absent before that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<Gets>,
    /// Why the policy does not do for pods what many expect of it, if so, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods_note: Option<String>,
    /// `desired` and `actual` as integers, where they are.
    #[serde(skip)]
    pub numbers: Numbers,
}

/// A key of a pattern that another process wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WrittenMember {
    /// The key.
    #[schemars(with = "String")]
    pub key: Subject,
    /// The last write.
    pub last_write: LastWrite,
}

/// The keys that a pattern has found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Members {
    /// How many there are.
    pub total: usize,
    /// How many of them meet the policy.
    pub in_sync: usize,
    /// How many more match and are not managed.
    pub cut: usize,
    /// Those that do not meet it, at most 20.
    pub not_in_sync: Vec<String>,
    /// Those that another process wrote since the agent started, the latest first, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub written: Vec<WrittenMember>,
}

/// What a line on the host's disk sets a key to at boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AtBoot {
    /// The file on the host, escaped.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The value, with single spaces, escaped.
    pub value: String,
}

/// The numeric fields of a key, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// The value now.
    pub actual: Vec<i128>,
    /// The value that is wanted.
    pub desired: Vec<i128>,
}

impl KeyStatus {
    /// Whether it holds readiness back.
    #[must_use]
    pub fn blocks_readiness(&self) -> bool {
        self.required && self.on_conflict == OnConflict::Enforce && self.state.blocks_readiness()
    }
}
