//! The error type: collects its place on the way out, and words what serde reports.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::De;
use crate::config::problem::{self, Position, Problem, did_you_mean, escape};
use crate::config::yaml::Node;

/// An error on its way out of serde, which learns its place from the nodes it passes.
#[derive(Debug)]
pub(super) struct Fault(pub(super) Box<Details>);

#[derive(Debug)]
pub(super) struct Details {
    code: &'static str,
    message: String,
    at: Option<Position>,
    /// Keys and indices, innermost first.
    pub(super) path: Vec<Segment>,
    /// The value of the innermost entry around it: what to leave out next time.
    pub(super) entry: Option<*const Node>,
    /// The field, if it is that a field is missing.
    missing: Option<&'static str>,
    /// Whether it may only be there because an erroneous entry was left out.
    pub(super) follows: bool,
}

#[derive(Debug)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl Fault {
    pub(super) fn new(code: &'static str, message: String) -> Self {
        Self(Box::new(Details {
            code,
            message,
            at: None,
            path: Vec::new(),
            entry: None,
            missing: None,
            follows: false,
        }))
    }

    /// Notes the node it came out of, unless that was a node further in. `skipped` is how many
    /// erroneous entries had been passed before that node.
    pub(super) fn locate(mut self, from: De<'_>, skipped: usize) -> Self {
        if self.0.at.is_none() {
            self.0.at = Some(from.node.at);
            self.0.follows = match self.0.missing {
                Some(field) => from.lost(field),
                None => from.run.skipped.get() > skipped,
            };
        }
        self
    }
}

impl Details {
    pub(super) fn into_problem(self) -> Problem {
        let mut path = String::new();
        for segment in self.path.iter().rev() {
            match segment {
                Segment::Key(key) => problem::push_key(&mut path, key),
                Segment::Index(index) => problem::push_index(&mut path, *index),
            }
        }
        let problem = Problem::error(self.code, self.message).path(path);
        match self.at {
            Some(at) => problem.at(at),
            None => problem,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new("invalid-value", message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let message = format!("expected {expected}, found {}", show_found(found));
        Self::new("invalid-type", message)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let message = format!("expected {expected}, found {}", show_found(found));
        Self::new("invalid-value", message)
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        let message = format!("expected {expected}, found {length} entries");
        Self::new("invalid-length", message)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let message = unknown("value", "values", variant, expected);
        Self::new("unknown-variant", message)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let message = unknown("field", "fields", field, expected);
        Self::new("unknown-field", message)
    }

    fn missing_field(field: &'static str) -> Self {
        let mut fault = Self::new("missing-field", format!("field `{field}` is missing: add it"));
        fault.0.missing = Some(field);
        fault
    }

    fn duplicate_field(field: &'static str) -> Self {
        let message = format!("field `{field}` is given more than once: keep one");
        Self::new("duplicate-field", message)
    }
}

fn unknown(one: &str, many: &str, text: &str, known: &[&str]) -> String {
    let suggestion = match did_you_mean(text, known) {
        Some(close) => format!("did you mean `{close}`? "),
        None => String::new(),
    };
    let text = escape(text);
    if known.is_empty() {
        return format!("unknown {one} `{text}`: no {many} are known here, remove it");
    }
    format!("unknown {one} `{text}`: {suggestion}known {many}: {}", list(known))
}

pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn show_found(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("`{}`", escape(text)),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        other => other.to_string(),
    }
}
