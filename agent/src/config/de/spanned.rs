//! Types that see more of a document than serde shows: its positions and its exact text.

use std::borrow::{Borrow, Cow};
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

use crate::config::problem::Position;

/// The newtype names by which [`Spanned`] and [`RawScalar`] are recognized.
pub(super) const SPANNED: &str = "$headroom::Spanned";
pub(super) const RAW_SCALAR: &str = "$headroom::RawScalar";

/// A value that knows its place in the document. Compares, hashes and serializes as the value,
/// so that it can be a map key; read by other deserializers, its place is 0:0.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spanned<T> {
    /// Where the value starts.
    pub at: Position,
    /// The value.
    pub value: T,
}

impl<T> Spanned<T> {
    /// A value that is in no document.
    pub fn nowhere(value: T) -> Self {
        let at = Position::default();
        Self { at, value }
    }
}

impl<T> Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl Borrow<str> for Spanned<String> {
    fn borrow(&self) -> &str {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Spanned<T> {}

impl<T: PartialOrd> PartialOrd for Spanned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.value.partial_cmp(&other.value)
    }
}

impl<T: Ord> Ord for Spanned<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.value.cmp(&other.value)
    }
}

impl<T: Hash> Hash for Spanned<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.value.hash(state);
    }
}

impl<T: Serialize> Serialize for Spanned<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(SPANNED, SpannedVisitor(PhantomData))
    }
}

struct SpannedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for SpannedVisitor<T> {
    type Value = Spanned<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        T::deserialize(d).map(Spanned::nowhere)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let at = Position { line: next(&mut parts)?, column: next(&mut parts)? };
        let value = next(&mut parts)?;
        Ok(Spanned { at, value })
    }
}

fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(parts: &mut A) -> Result<T, A::Error> {
    let missing = || A::Error::custom("expected a value");
    parts.next_element()?.ok_or_else(missing)
}

/// Any scalar with the exact text it was written with: `0200` stays `0200`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawScalar {
    /// The text, without quotes and with escapes resolved.
    pub text: String,
    /// Whether it was written without quotes.
    pub plain: bool,
}

impl Serialize for RawScalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl JsonSchema for RawScalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RawScalar".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "integer", "boolean"] })
    }
}

impl<'de> Deserialize<'de> for RawScalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(RAW_SCALAR, RawVisitor)
    }
}

struct RawVisitor;

impl RawVisitor {
    fn plain<E>(text: String) -> Result<RawScalar, E> {
        Ok(RawScalar { text, plain: true })
    }
}

impl<'de> Visitor<'de> for RawVisitor {
    type Value = RawScalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, an integer or a boolean")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<RawScalar, A::Error> {
        Ok(RawScalar { text: next(&mut parts)?, plain: next(&mut parts)? })
    }

    // What follows is for other deserializers.

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<RawScalar, D::Error> {
        d.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<RawScalar, E> {
        Self::plain(value.to_string())
    }

    fn visit_i64<E>(self, value: i64) -> Result<RawScalar, E> {
        Self::plain(value.to_string())
    }

    fn visit_u64<E>(self, value: u64) -> Result<RawScalar, E> {
        Self::plain(value.to_string())
    }

    fn visit_str<E>(self, value: &str) -> Result<RawScalar, E> {
        let text = value.to_owned();
        Ok(RawScalar { text, plain: false })
    }
}
