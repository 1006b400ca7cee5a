//! How serde walks through lists, maps and what [`super::Spanned`] is made of.

use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, SeqAccess};

use super::fault::Segment;
use super::{De, Fault, Run};
use crate::config::yaml::{Node, Value};

/// The text of a key; the parser makes no other keys.
pub(super) fn key_text(key: &Node) -> &str {
    match &key.value {
        Value::Scalar { text, .. } => text,
        _ => "",
    }
}

/// The elements of a list.
pub(super) struct Items<'a> {
    pub(super) rest: std::iter::Enumerate<std::slice::Iter<'a, Node>>,
    pub(super) run: &'a Run,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let run = self.run;
        let Some((index, node)) = self.rest.find(|(_, node)| !run.skips(node)) else {
            return Ok(None);
        };
        De { node, run }.read(seed, node, || Segment::Index(index)).map(Some)
    }
}

/// The entries of a map.
pub(super) struct Entries<'a> {
    pub(super) rest: std::slice::Iter<'a, (Node, Node)>,
    pub(super) current: Option<&'a (Node, Node)>,
    pub(super) run: &'a Run,
}

impl<'a> Entries<'a> {
    fn read<S: DeserializeSeed<'a>>(
        &self,
        seed: S,
        node: &'a Node,
        (key, value): &'a (Node, Node),
    ) -> Result<S::Value, Fault> {
        let de = De { node, run: self.run };
        de.read(seed, value, || Segment::Key(key_text(key).to_owned()))
    }
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        let run = self.run;
        self.current = self.rest.find(|(_, value)| !run.skips(value));
        match self.current {
            Some(entry) => self.read(seed, &entry.0, entry).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        match self.current.take() {
            Some(entry) => self.read(seed, &entry.1, entry),
            None => Err(Fault::custom("a value was asked for before its key")),
        }
    }
}

/// What [`super::Spanned`] and [`super::RawScalar`] are handed.
pub(super) enum Part<'a> {
    Number(usize),
    Flag(bool),
    Text(&'a str),
    Node(De<'a>),
}

pub(super) struct Parts<'a, const N: usize>(pub(super) std::array::IntoIter<Part<'a>, N>);

impl<'de, const N: usize> SeqAccess<'de> for Parts<'de, N> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Fault> {
        self.0
            .next()
            .map(|part| match part {
                Part::Number(number) => seed.deserialize(number.into_deserializer()),
                Part::Flag(flag) => seed.deserialize(flag.into_deserializer()),
                Part::Text(text) => seed.deserialize(text.into_deserializer()),
                Part::Node(node) => seed.deserialize(node),
            })
            .transpose()
    }
}
