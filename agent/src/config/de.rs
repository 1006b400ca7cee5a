//! Reads serde types from a YAML tree and reports every problem, not only the first.
//!
//! Serde gives up at the first error. So an erroneous entry is noted, left out and the document
//! read again, until it can be read or a bound is hit. Nothing but the type says what a document
//! may contain, and types report their own errors the way serde types always do.

mod access;
mod fault;
mod scalar;
mod spanned;

use std::cell::Cell;
use std::collections::HashSet;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, Visitor,
};
use serde::forward_to_deserialize_any;

use self::access::{Entries, Items, Part, Parts, key_text};
use self::fault::{Fault, Segment, list};
use self::scalar::is_decimal;
pub use self::spanned::{RawScalar, Spanned};
use super::problem::{MAX_PROBLEMS, Position, Problem, Problems, did_you_mean, escape};
use super::yaml::{Node, Value};

/// Most readings of one document. More than problems, because an error that only follows from
/// an earlier one costs a reading without being reported.
const MAX_READINGS: usize = 2 * MAX_PROBLEMS;

/// Reads a `T` and reports all problems, in document order.
///
/// With problems, the value is what remains without the erroneous entries: good for looking for
/// more problems, not for use. There is none if the document as a whole is wrong.
pub fn from_node<T: DeserializeOwned>(root: &Node) -> (Option<T>, Vec<Problem>) {
    let mut problems = Problems::new();
    let mut run = Run::default();
    for _ in 0..MAX_READINGS {
        run.skipped.set(0);
        let node = De { node: root, run: &run };
        let fault = match T::deserialize(node) {
            Ok(value) => return (Some(value), problems.into_vec()),
            Err(fault) => fault.locate(node, 0).0,
        };
        let entry = fault.entry;
        if !fault.follows {
            if problems.len() >= MAX_PROBLEMS {
                break;
            }
            problems.push(fault.into_problem());
        }
        match entry {
            Some(entry) if run.pruned.insert(entry) => {}
            // The whole document is wrong.
            _ => return (None, problems.into_vec()),
        }
    }
    problems.push(Problem::too_many());
    (None, problems.into_vec())
}

/// What one reading of a document knows about the ones before.
#[derive(Default)]
struct Run {
    /// The values of erroneous entries, by identity: a borrowed tree does not move.
    pruned: HashSet<*const Node>,
    /// How many of them this reading has passed.
    skipped: Cell<usize>,
}

impl Run {
    fn is_pruned(&self, node: &Node) -> bool {
        self.pruned.contains(&std::ptr::from_ref(node))
    }

    fn skips(&self, node: &Node) -> bool {
        let pruned = self.is_pruned(node);
        self.skipped.set(self.skipped.get() + usize::from(pruned));
        pruned
    }
}

/// A node as serde sees it.
#[derive(Clone, Copy)]
struct De<'a> {
    node: &'a Node,
    run: &'a Run,
}

impl<'a> De<'a> {
    /// Reads the node, which belongs to the entry with this value and place in its parent.
    fn read<S: DeserializeSeed<'a>>(
        self,
        seed: S,
        entry: &Node,
        segment: impl FnOnce() -> Segment,
    ) -> Result<S::Value, Fault> {
        let skipped = self.run.skipped.get();
        seed.deserialize(self).map_err(|fault| {
            let mut fault = fault.locate(self, skipped);
            fault.0.path.push(segment());
            fault.0.entry.get_or_insert(std::ptr::from_ref(entry));
            fault
        })
    }

    /// Whether `field` of this map is missing because it, or what seems to be a misspelling of
    /// it, was erroneous and left out.
    fn lost(self, field: &str) -> bool {
        let Value::Map(entries) = &self.node.value else {
            return false;
        };
        entries.iter().any(|(key, value)| {
            self.run.is_pruned(value) && did_you_mean(key_text(key), &[field]).is_some()
        })
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $ty:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let text = self.integer()?;
            // An integer it is, so that only its size can be wrong.
            let number = text.parse::<$ty>().map_err(|_| {
                let (min, max) = (<$ty>::MIN, <$ty>::MAX);
                let message = format!("{} is out of range: write {min} to {max}", escape(text));
                Fault::new("out-of-range", message)
            })?;
            visitor.$visit(number)
        }
    )*};
}

impl<'de> Deserializer<'de> for De<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let (text, plain) = match &self.node.value {
            Value::Seq(_) => return self.deserialize_seq(visitor),
            Value::Map(_) => return self.deserialize_map(visitor),
            Value::Scalar { null: true, .. } => return visitor.visit_unit(),
            Value::Scalar { text, plain, .. } => (text.as_str(), *plain),
        };
        match (text, plain) {
            ("true", true) => visitor.visit_bool(true),
            ("false", true) => visitor.visit_bool(false),
            (_, true) if is_decimal(text) => match (text.parse(), text.parse()) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => visitor.visit_str(text),
            },
            _ => visitor.visit_str(text),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8,
        deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64,
        deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8,
        deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64,
        deserialize_u128 visit_u128 u128,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_bool(self.boolean()?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_f64(self.float()?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_str(self.scalar("a string")?.0)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { null: true, .. } => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.value {
            Value::Scalar { null: true, .. } => visitor.visit_unit(),
            _ => Err(self.not("nothing", ": remove the value")),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match name {
            spanned::SPANNED => {
                let Position { line, column } = self.node.at;
                let parts = [Part::Number(line), Part::Number(column), Part::Node(self)];
                visitor.visit_seq(Parts(parts.into_iter()))
            }
            spanned::RAW_SCALAR => {
                let (text, plain) = self.scalar("a value")?;
                visitor.visit_seq(Parts([Part::Text(text), Part::Flag(plain)].into_iter()))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let items = match &self.node.value {
            Value::Seq(items) => items.as_slice(),
            Value::Scalar { null: true, .. } => &[],
            _ => return Err(self.not("a list", "")),
        };
        let mut access = Items { rest: items.iter().enumerate(), run: self.run };
        let value = visitor.visit_seq(&mut access)?;
        if access.rest.len() > 0 {
            let wanted = items.len() - access.rest.len();
            let expected = format!("a list of {wanted}");
            return Err(Fault::invalid_length(items.len(), &expected.as_str()));
        }
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _length: usize,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let entries = match &self.node.value {
            Value::Map(entries) => entries.as_slice(),
            Value::Scalar { null: true, .. } => &[],
            _ => return Err(self.not("a map", ": write `key: value` lines")),
        };
        visitor.visit_map(Entries { rest: entries.iter(), current: None, run: self.run })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let (text, _) = self.scalar(&format!("one of {}", list(variants)))?;
        let variant: StrDeserializer<'_, Fault> = text.into_deserializer();
        visitor.visit_enum(variant)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! { bytes byte_buf }
}

#[cfg(test)]
#[path = "de_tests.rs"]
mod tests;
