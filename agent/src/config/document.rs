//! The document as it is written: types that serde reads and the JSON Schema is made from.

mod autogrow;
mod limits;
mod pods;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

pub use self::autogrow::{AutogrowSpec, NeighborGrowthSpec};
pub use self::limits::{LimitsSpec, MaxPodsSpec, PodRangeSpec};
pub use self::pods::{MatchSpec, PodNamespacesSpec, PodPolicySpec};
use super::de::{RawScalar, Spanned};
use crate::sysctl::policy::OnConflict;

/// The one value of `apiVersion`.
pub const API_VERSION: &str = "headroom/v1";
/// The one value of `kind`.
pub const KIND: &str = "AgentConfig";

/// Headroom's configuration: the same document in the ConfigMap, in `headroom check`, and in the
/// embedded default.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(title = "AgentConfig")]
pub struct Document {
    /// Always `headroom/v1`.
    #[schemars(with = "ApiVersion", required)]
    pub api_version: Option<Spanned<String>>,
    /// Always `AgentConfig`.
    #[schemars(with = "Kind", required)]
    pub kind: Option<Spanned<String>>,
    /// Whether the agent writes.
    pub mode: Mode,
    /// Which network namespace is the node's.
    pub host_netns: HostNetns,
    /// What is logged.
    pub log: Log,
    /// Named sets of policies that ship with the agent: `dense-node`, `density-article`. None by
    /// default.
    pub profiles: Vec<Spanned<String>>,
    /// Keys from the refused list that are wanted all the same.
    pub allow_dangerous: Vec<Spanned<String>>,
    /// The host's keys: a value, or an object with value, oneOf, min, max, onConflict, required.
    pub sysctls: BTreeMap<Spanned<String>, PolicySpec>,
    /// Policies for pods' network namespaces: for each key the first that matches counts.
    pub pods: Vec<Spanned<PodPolicySpec>>,
    /// Where pods' network namespaces are, and how they are looked after.
    pub pod_namespaces: PodNamespacesSpec,
    /// What is watched.
    pub watch: WatchSpec,
    /// What limits pods beside the kernel.
    pub limits: LimitsSpec,
    /// What grows by itself before it is full. Nothing by default.
    pub autogrow: AutogrowSpec,
    /// Where the agent answers.
    pub server: Server,
    /// Directory of the ledger and the lock; on a tmpfs of the host, so that it dies with the
    /// boot, as the values do. Default `/run/headroom`, without root
    /// `$XDG_RUNTIME_DIR/headroom`.
    pub state: Option<Spanned<String>>,
}

/// Only for the schema.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the schema alone is used")]
enum ApiVersion {
    #[serde(rename = "headroom/v1")]
    V1,
}

/// Only for the schema.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "the schema alone is used")]
enum Kind {
    AgentConfig,
}

/// Whether the agent writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Writes what differs, and keeps it there.
    #[default]
    Enforce,
    /// Never writes.
    Observe,
}

impl Mode {
    /// As it is written.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// Which network namespace is the node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HostNetns {
    /// The kernel's initial one; in any other the agent says so and writes no `net.*` key.
    #[default]
    Initial,
    /// The agent's own: the node is itself a container (kind, minikube's docker driver).
    Current,
}

/// What is logged.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// The least important lines that are written.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// The least important lines that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// Each write of a key, each change of state.
    #[default]
    Info,
    /// What the agent does.
    Debug,
    /// Every detail.
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is watched.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct WatchSpec {
    /// Name patterns of the bridges to watch: `*` any characters, `?` one.
    pub bridges: Vec<String>,
    /// Ports that a bridge can have: 1023 unless the kernel was compiled otherwise.
    pub bridge_port_limit: Spanned<u32>,
    /// How often every key is compared with its policy.
    pub sysctl_sweep: Interval,
    /// How often the neighbor entries are scanned, at the most.
    pub neighbor_scan: Interval,
}

impl Default for WatchSpec {
    fn default() -> Self {
        Self {
            bridges: vec!["*".to_owned()],
            bridge_port_limit: Spanned::nowhere(1023),
            sysctl_sweep: Interval(Duration::from_secs(10)),
            neighbor_scan: Interval(Duration::from_secs(60)),
        }
    }
}

/// Where the agent answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Server {
    /// Addresses with ports for HTTP; an empty list serves the socket only.
    pub listen: Vec<Spanned<Address>>,
    /// Path of the unix socket. Default `agent.sock` in the state directory.
    pub socket: Option<Spanned<String>>,
}

impl Default for Server {
    fn default() -> Self {
        let everywhere = Address(SocketAddr::from(([0, 0, 0, 0], 19879)));
        Self { listen: vec![Spanned::nowhere(everywhere)], socket: None }
    }
}

/// A time between two rounds: `10s`, `1m 30s`; from 1 s to 1 h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval(pub Duration);

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const ALLOWED: std::ops::RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(3600);
        let text = String::deserialize(deserializer)?;
        let duration = humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no duration: write one with its unit, like 10s or 5m"
            ))
        })?;
        if !ALLOWED.contains(&duration) {
            return Err(D::Error::custom(format!("`{text}` is out of range: from 1s to 1h")));
        }
        Ok(Self(duration))
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A duration with its unit, from 1s to 1h.", "examples": ["10s", "1m 30s"] })
    }
}

/// An IP address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no address with a port: write 0.0.0.0:19879 or [::]:19879 (names are not looked up)"
            ))
        })
    }
}

impl JsonSchema for Address {
    fn schema_name() -> Cow<'static, str> {
        "Address".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "An IP address with a port; names are not looked up.", "examples": ["0.0.0.0:19879", "[::]:19879"] })
    }
}

/// What is wanted for one key, as it is written.
#[derive(Clone, Debug, Default)]
pub struct PolicySpec(pub PolicyFields);

/// The long form.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyFields {
    /// Exactly this value.
    pub value: Option<RawScalar>,
    /// One of these values; the first is written where none is there.
    pub one_of: Option<Vec<RawScalar>>,
    /// At least this: only ever raises. A vector has a bound for each field, `_` for none.
    pub min: Option<RawScalar>,
    /// At most this: only ever lowers.
    pub max: Option<RawScalar>,
    /// What to do when another writer changes the key. Default `enforce`, for a key in pods what
    /// their policy says.
    pub on_conflict: Option<OnConflict>,
    /// Whether readiness waits for it. Default true; refused for a key in pods, as nothing in a
    /// pod holds the node's readiness back.
    pub required: Option<bool>,
}

impl<'de> Deserialize<'de> for PolicySpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PolicyVisitor)
    }
}

struct PolicyVisitor;

impl PolicyVisitor {
    fn value<E>(text: impl fmt::Display) -> Result<PolicySpec, E> {
        let value = Some(RawScalar { text: text.to_string(), plain: true });
        Ok(PolicySpec(PolicyFields { value, ..PolicyFields::default() }))
    }
}

impl<'de> Visitor<'de> for PolicyVisitor {
    type Value = PolicySpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, or an object with value, oneOf, min or max")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PolicySpec, E> {
        Self::value(text)
    }

    fn visit_i64<E: Error>(self, int: i64) -> Result<PolicySpec, E> {
        Self::value(int)
    }

    fn visit_u64<E: Error>(self, int: u64) -> Result<PolicySpec, E> {
        Self::value(int)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<PolicySpec, E> {
        Err(E::custom(format!("`{value}` is no value of a key: write 1 or 0")))
    }

    fn visit_unit<E: Error>(self) -> Result<PolicySpec, E> {
        Err(E::custom("nothing is wanted: give a value, or remove the key"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<PolicySpec, A::Error> {
        Err(A::Error::custom(
            "a list: write the fields of a vector as one text, like \"4096 131072 6291456\"",
        ))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PolicySpec, A::Error> {
        PolicyFields::deserialize(MapAccessDeserializer::new(map)).map(PolicySpec)
    }
}

impl JsonSchema for PolicySpec {
    fn schema_name() -> Cow<'static, str> {
        "Policy".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fields = generator.subschema_for::<PolicyFields>();
        json_schema!({
            "description": "A value, or an object with exactly one of value, oneOf, or min and/or max.",
            "anyOf": [{ "type": ["integer", "string"] }, fields]
        })
    }
}
