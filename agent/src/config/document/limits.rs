//! The document's section about limits that the kernel does not know, as it is written.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::de::Spanned;

/// What limits pods beside the kernel.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub struct LimitsSpec {
    /// How many pods the kubelet runs at the most. `auto`: as its configuration says.
    pub max_pods: Spanned<MaxPodsSpec>,
    /// How many pods are kept free: so many fewer are said to fit.
    pub reserve: Spanned<u32>,
    /// Which addresses this node's pods are given: a range or a list of ranges. `auto`: as the CNI's
    /// configuration says, where host-local gives them.
    pub pod_range: Spanned<PodRangeSpec>,
}

/// `auto`, or a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxPodsSpec {
    /// To be found.
    #[default]
    Auto,
    /// As it is written.
    Pods(u64),
}

impl<'de> Deserialize<'de> for MaxPodsSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MaxPodsVisitor)
    }
}

struct MaxPodsVisitor;

impl Visitor<'_> for MaxPodsVisitor {
    type Value = MaxPodsSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`auto` or a number of pods")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<MaxPodsSpec, E> {
        match text {
            "auto" => Ok(MaxPodsSpec::Auto),
            _ => Err(E::custom(format!("`{text}` is neither `auto` nor a number of pods"))),
        }
    }

    fn visit_u64<E: Error>(self, pods: u64) -> Result<MaxPodsSpec, E> {
        Ok(MaxPodsSpec::Pods(pods))
    }
}

impl JsonSchema for MaxPodsSpec {
    fn schema_name() -> Cow<'static, str> {
        "MaxPods".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`auto`, or a number of pods.",
            "anyOf": [{ "const": "auto" }, { "type": "integer", "minimum": 1, "maximum": 100_000 }]
        })
    }
}

/// `auto`, a range, or a list of ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PodRangeSpec {
    /// To be found.
    #[default]
    Auto,
    /// As it is written, without a list.
    One(String),
    /// As they are written.
    Many(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for PodRangeSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PodRangeVisitor)
    }
}

struct PodRangeVisitor;

impl<'de> Visitor<'de> for PodRangeVisitor {
    type Value = PodRangeSpec;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`auto`, a range of addresses, or a list of ranges")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<PodRangeSpec, E> {
        Ok(match text {
            "auto" => PodRangeSpec::Auto,
            range => PodRangeSpec::One(range.to_owned()),
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<PodRangeSpec, A::Error> {
        let mut ranges = Vec::new();
        while let Some(range) = items.next_element()? {
            ranges.push(range);
        }
        Ok(PodRangeSpec::Many(ranges))
    }
}

impl JsonSchema for PodRangeSpec {
    fn schema_name() -> Cow<'static, str> {
        "PodRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let range =
            json_schema!({ "type": "string", "examples": ["10.244.0.0/24", "fd00:10:244::/64"] });
        json_schema!({
            "description": "`auto`, a range of addresses, or a list of ranges.",
            "anyOf": [range, { "type": "array", "items": range, "minItems": 1, "maxItems": 16 }]
        })
    }
}
