//! Judging one entry of a map of keys: the host's `sysctls`, or those of a policy for pods.

use std::collections::{BTreeMap, BTreeSet};

use super::super::de::{RawScalar, Spanned};
use super::super::document::{PolicyFields, PolicySpec};
use super::super::problem::{Position, Problem, Problems, push_key};
use super::hazards;
use crate::sysctl::catalogue::{self, Entry, Refusal};
use crate::sysctl::glob::Subject;
use crate::sysctl::key::Key;
use crate::sysctl::policy::{OnConflict, Policy, Source, Want};
use crate::sysctl::value::{self, Shape};

/// A hostile document can name thousands of unknown keys; a similar known one is looked for while
/// there are fewer problems than this.
const HINTS: usize = 20;

/// What is known while the entries of one map of keys are judged.
pub struct Entries<'a> {
    /// Where the map stands in the document.
    path: String,
    /// What an entry does about other writers where it does not say.
    on_conflict: OnConflict,
    /// Dangerous keys that are wanted all the same.
    allowed: &'a BTreeSet<Key>,
    /// Where each key stands.
    places: BTreeMap<Subject, Position>,
}

impl<'a> Entries<'a> {
    pub fn new(
        path: impl Into<String>,
        on_conflict: OnConflict,
        allowed: &'a BTreeSet<Key>,
    ) -> Self {
        Self { path: path.into(), on_conflict, allowed, places: BTreeMap::new() }
    }

    /// Where an entry stands in the document.
    pub fn path(&self, name: &str) -> String {
        let mut path = self.path.clone();
        push_key(&mut path, name);
        path
    }

    /// Where each key stands that was judged; patterns left out.
    pub fn keys(&self) -> impl Iterator<Item = (Key, Position)> + '_ {
        self.places.iter().filter_map(|(subject, at)| match subject {
            Subject::Key(key) => Some((key.clone(), *at)),
            Subject::Glob(_) => None,
        })
    }

    /// One entry: the policy, or its problems.
    pub fn judge(
        &mut self,
        name: &Spanned<String>,
        PolicySpec(fields): &PolicySpec,
        problems: &mut Problems,
    ) -> Option<(Subject, Policy)> {
        let path = self.path(name);
        let hint = problems.len() < HINTS;
        let mut report = |problem: Problem| problems.push(problem.at(name.at).path(&path));
        let subject = match Subject::parse(name) {
            Ok(subject) => subject,
            Err(error) => {
                report(Problem::error(error.code(), error.to_string()));
                return None;
            }
        };
        if let Some(first) = self.places.insert(subject.clone(), name.at) {
            let message = format!("the same key stands on line {}: keep one of them", first.line);
            report(Problem::error("duplicate-key", message));
            return None;
        }
        // What holds of one interface's key holds of every other's.
        let key = match &subject {
            Subject::Key(key) => key.clone(),
            Subject::Glob(glob) => glob.example()?,
        };
        if let Some(problem) = refusal(&key, self.allowed) {
            report(problem);
            return None;
        }
        let want = match want(fields) {
            Ok(want) => want,
            Err(problem) => {
                report(problem);
                return None;
            }
        };
        let entry = catalogue::lookup(&key);
        for problem in hazards::of_key(&key, entry.as_ref(), hint) {
            report(problem);
        }
        if let Some(shape) = entry.and_then(|entry| entry.shape()) {
            match want.compile(shape) {
                Err(error) => report(Problem::error("value", error.to_string())),
                Ok(_) => out_of_range(&want, shape, &entry).into_iter().for_each(report),
            }
        }
        let policy = Policy {
            want,
            on_conflict: fields.on_conflict.unwrap_or(self.on_conflict),
            required: fields.required.unwrap_or(true),
            source: Source::Config { line: name.at.line },
            reason: None,
        };
        Some((subject, policy))
    }
}

fn refusal(key: &Key, allowed: &BTreeSet<Key>) -> Option<Problem> {
    let message = match catalogue::refusal(key)? {
        Refusal::Dangerous if allowed.contains(key) => return None,
        Refusal::Dangerous => {
            "this key can run code, open the host or stop it: if it is wanted all the same, name it \
             under allowDangerous"
        }
        Refusal::SideEffect => {
            "this key acts when it is written or read, and stores nothing to keep"
        }
        Refusal::ReadOnly => "the kernel does not let this key be written",
    };
    Some(Problem::error("key-refused", message))
}

/// Exactly one of `value`, `oneOf`, or `min` and/or `max`; of text that some key could hold, as a
/// key that the catalogue does not know is not looked at any further here.
fn want(fields: &PolicyFields) -> Result<Want, Problem> {
    let text = |scalar: &RawScalar| match value::check_text(&scalar.text) {
        Ok(()) => Ok(scalar.text.clone()),
        Err(error) => Err(Problem::error("value", error.to_string())),
    };
    let bound = |scalar: &Option<RawScalar>| scalar.as_ref().map(text).transpose();
    match (&fields.value, &fields.one_of, &fields.min, &fields.max) {
        (Some(value), None, None, None) => Ok(Want::Value(text(value)?)),
        (None, Some(values), None, None) => {
            Ok(Want::OneOf(values.iter().map(text).collect::<Result<_, _>>()?))
        }
        (None, None, None, None) => {
            Err(Problem::error("policy", "nothing is wanted: give value, oneOf, or min and/or max"))
        }
        (None, None, min, max) => Ok(Want::Bounds { min: bound(min)?, max: bound(max)? }),
        _ => Err(Problem::error("policy", "give exactly one of value, oneOf, or min and/or max")),
    }
}

/// The catalogue's range was measured on one kernel, so a value outside of it is only doubtful.
fn out_of_range(want: &Want, shape: Shape, entry: &Option<Entry>) -> Option<Problem> {
    let (low, high) = entry.as_ref()?.range();
    let texts: Vec<&String> = match want {
        Want::Value(value) => vec![value],
        Want::OneOf(values) => values.iter().collect(),
        Want::Bounds { min, max } => min.iter().chain(max).collect(),
    };
    let bounds = texts.iter().filter_map(|text| shape.parse_bounds(text).ok());
    let outside = |value: &i128| {
        low.is_some_and(|low| *value < low) || high.is_some_and(|high| *value > high)
    };
    let found = bounds.flatten().flatten().find(outside)?;
    let range = match (low, high) {
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (Some(low), None) => format!("{low} or more"),
        (None, high) => format!("at most {}", high.unwrap_or_default()),
    };
    Some(Problem::warning(
        "value-range",
        format!(
            "{found} is out of what the kernel takes ({range} where it was measured): it will be refused or changed"
        ),
    ))
}
