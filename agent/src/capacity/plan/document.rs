//! The answer, as a document.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::limits::Exactness;

/// The document's version.
pub const SCHEMA: &str = "headroom.plan/v1";

/// What a node needs for so many pods, and where it stops.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Always `headroom.plan/v1`.
    pub schema: &'static str,
    /// Whose limits these are: `agent`, `cli` (no agent answered, so the command looked itself) or
    /// `defaults` (the kernel's and Kubernetes' own, of no node).
    pub from: String,
    /// The node.
    pub node: Option<String>,
    /// Pods that run now.
    pub pods_now: u64,
    /// Pods that are asked for.
    pub pods: Option<u64>,
    /// Pods that are kept free beside them.
    pub reserve: u64,
    /// Values that were assumed.
    pub what_if: BTreeMap<String, u64>,
    /// How many pods fit in all, as it is or as assumed.
    pub pods_possible: Option<u64>,
    /// How to read that number.
    pub exactness: Option<Exactness>,
    /// What stops the next one then.
    pub stopped_by: Option<Stop>,
    /// Whether as many fit as are asked for.
    pub fits: Option<bool>,
    /// What to raise for as many as are asked for.
    pub raise: Vec<Raise>,
    /// How many fit once that is done.
    pub pods_possible_then: Option<u64>,
    /// What stops the next one once that is done.
    pub then_stopped_by: Option<Stop>,
    /// What Kubernetes' guidance says for a node of this size.
    pub guidance: Option<Guidance>,
    /// What kube-proxy would write.
    pub rules: Option<Rules>,
    /// Limits of which nothing can be said, and why.
    pub not_known: Vec<String>,
}

/// Something to raise.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Raise {
    /// The key, or in words what it is.
    pub what: String,
    /// Whether that is a key of the kernel.
    pub is_key: bool,
    /// Its value now, where it is known.
    pub now: Option<u64>,
    /// What it should be at least.
    pub at_least: u64,
    /// The policy that does it, where it is a key.
    pub policy: Option<String>,
    /// Why.
    pub why: String,
    /// Memory that it takes in bytes, when all of it is in use.
    pub memory_bytes: Option<u64>,
}

/// A limit that stops pods.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// Which limit.
    pub limit: String,
    /// Of what.
    pub object: String,
    /// In words, with numbers.
    pub why: String,
    /// What raises it.
    pub raised_by: Option<String>,
    /// What people do.
    pub ways: Vec<String>,
}

/// Kubernetes' guidance (SIG Scalability's thresholds).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Guidance {
    /// Pods: the fewer of 110 and ten for each core.
    pub pods: u64,
    /// Cores of the node.
    pub cores: u64,
}

/// What kube-proxy would write in iptables mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// Services.
    pub services: u64,
    /// Rules where each pod is an endpoint of one port of one Service: two a Service, eight an
    /// endpoint.
    pub least: u64,
    /// Rules where pods have several ports: as measured on a node with 1000 pods, 23 a pod.
    pub most: u64,
    /// What that means.
    pub advice: String,
}
