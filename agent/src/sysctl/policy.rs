//! What the configuration wants for one key.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{Shape, Value, ValueError};

/// What to do when another writer changed a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// Put it right.
    #[default]
    Enforce,
    /// Take the other's value as the new truth and report it.
    Yield,
    /// Never write; report.
    Report,
}

/// What is wanted, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// Exactly this.
    Value(String),
    /// One of these; the first is written where none is there.
    OneOf(Vec<String>),
    /// Within these, field by field.
    Bounds {
        /// Only ever raise to it.
        min: Option<String>,
        /// Only ever lower to it.
        max: Option<String>,
    },
}

impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => f.write_str(value),
            Self::OneOf(values) => f.write_str(&values.join(" | ")),
            Self::Bounds { min: Some(min), max: None } => write!(f, ">= {min}"),
            Self::Bounds { min: None, max: Some(max) } => write!(f, "<= {max}"),
            Self::Bounds { min, max } => {
                write!(f, "{} .. {}", min.as_deref().unwrap_or("_"), max.as_deref().unwrap_or("_"))
            }
        }
    }
}

/// Where a policy comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A profile that ships with the agent.
    Profile(String),
    /// The configuration's `sysctls`, at this line.
    Config {
        /// 1-based.
        line: usize,
    },
    /// `autogrow`: what a table has grown to.
    Autogrow,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(name) => write!(f, "profile {name}"),
            Self::Config { line } => write!(f, "configuration line {line}"),
            Self::Autogrow => f.write_str("autogrow"),
        }
    }
}

/// What the configuration wants for one key, and how insistently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The value or bound.
    pub want: Want,
    /// What to do about other writers.
    pub on_conflict: OnConflict,
    /// Whether readiness waits for it.
    pub required: bool,
    /// Where it was written.
    pub source: Source,
    /// Why, in one line; profiles give one.
    pub reason: Option<String>,
}

impl Policy {
    /// Whether another policy asks the same, wherever it was written.
    #[must_use]
    pub fn asks_the_same(&self, other: &Self) -> bool {
        self.want == other.want && self.on_conflict == other.on_conflict
    }
}

/// Why a policy cannot be held against a key of some shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The value does not fit.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// `min` or `max` for something that is not integers.
    #[error("min and max need a key that holds integers: use value or oneOf")]
    BoundsOnText,
    /// Nothing satisfies it.
    #[error("min is above max in field {}", .0 + 1)]
    Crossed(usize),
    /// `oneOf: []`.
    #[error("oneOf is empty: give at least one value")]
    NoChoice,
}

/// A want in the terms of one key's shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// Exactly this.
    Exactly(Value),
    /// One of these.
    OneOf(Vec<Value>),
    /// Field by field; the lists are as long as the value has fields, or shorter.
    Bounds {
        /// Lower bounds.
        min: Vec<Option<i128>>,
        /// Upper bounds.
        max: Vec<Option<i128>>,
    },
}

impl Want {
    /// Understands the want for a key of this shape.
    pub fn compile(&self, shape: Shape) -> Result<Goal, PolicyError> {
        match self {
            Self::Value(text) => Ok(Goal::Exactly(shape.parse(text)?)),
            Self::OneOf(texts) if texts.is_empty() => Err(PolicyError::NoChoice),
            Self::OneOf(texts) => {
                let values = texts.iter().map(|text| shape.parse(text));
                Ok(Goal::OneOf(values.collect::<Result<_, _>>()?))
            }
            Self::Bounds { min, max } => {
                if !matches!(shape, Shape::Ints(_) | Shape::AnyInts) {
                    return Err(PolicyError::BoundsOnText);
                }
                let side = |text: &Option<String>| {
                    text.as_deref().map_or(Ok(Vec::new()), |text| shape.parse_bounds(text))
                };
                let (min, max) = (side(min)?, side(max)?);
                match min
                    .iter()
                    .zip(&max)
                    .position(|(min, max)| min.is_some() && max.is_some() && min > max)
                {
                    Some(field) => Err(PolicyError::Crossed(field)),
                    None => Ok(Goal::Bounds { min, max }),
                }
            }
        }
    }
}

impl Goal {
    /// Whether a value satisfies it. `zero_unlimited`: to this key 0 means "no limit".
    #[must_use]
    pub fn met(&self, actual: &Value, zero_unlimited: bool) -> bool {
        self.target(actual, zero_unlimited).as_ref() == Some(actual)
    }

    /// What would be written over `actual`: the same value where it satisfies the goal. `None`
    /// where bounds meet something that is not integers.
    #[must_use]
    pub fn target(&self, actual: &Value, zero_unlimited: bool) -> Option<Value> {
        match self {
            Self::Exactly(value) => Some(value.clone()),
            Self::OneOf(values) if values.contains(actual) => Some(actual.clone()),
            Self::OneOf(values) => values.first().cloned(),
            Self::Bounds { min, max } => {
                let bounded = actual.ints()?.iter().enumerate().map(|(field, &value)| {
                    let bound = |side: &[Option<i128>]| side.get(field).copied().flatten();
                    bounded(value, bound(min), bound(max), zero_unlimited)
                });
                Some(Value::Ints(bounded.collect()))
            }
        }
    }
}

fn bounded(value: i128, min: Option<i128>, max: Option<i128>, zero_unlimited: bool) -> i128 {
    if zero_unlimited && value == 0 {
        return max.unwrap_or(value);
    }
    let raised = min.map_or(value, |min| value.max(min));
    max.map_or(raised, |max| raised.min(max))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bounds(min: Option<&str>, max: Option<&str>) -> Want {
        Want::Bounds { min: min.map(Into::into), max: max.map(Into::into) }
    }

    #[test]
    fn a_violated_bound_writes_the_bound_and_only_it() {
        let tcp_rmem = Shape::Ints(3);
        let goal = bounds(Some("_ _ 33554432"), None).compile(tcp_rmem).unwrap();
        let now = tcp_rmem.read("4096 131072 6291456");
        assert_eq!(goal.target(&now, false).unwrap().to_string(), "4096 131072 33554432");
        assert!(goal.met(&tcp_rmem.read("1 1 33554432"), false));
        assert!(goal.met(&tcp_rmem.read("1 1 99999999"), false), "only ever raises");
    }

    #[test]
    fn zero_that_means_unlimited_is_above_any_minimum() {
        let goal = bounds(Some("1048576"), None).compile(Shape::Ints(1)).unwrap();
        let zero = Value::Ints(vec![0]);
        assert!(goal.met(&zero, true) && !goal.met(&zero, false));
        let capped = bounds(None, Some("10")).compile(Shape::Ints(1)).unwrap();
        assert_eq!(capped.target(&zero, true), Some(Value::Ints(vec![10])));
    }

    #[test]
    fn one_of_writes_its_first() {
        let goal = Want::OneOf(vec!["bbr".into(), "cubic".into()]).compile(Shape::Text).unwrap();
        assert!(goal.met(&Value::Text("cubic".into()), false));
        assert_eq!(
            goal.target(&Value::Text("reno".into()), false),
            Some(Value::Text("bbr".into()))
        );
    }

    #[test]
    fn impossible_policies_are_refused() {
        assert_eq!(bounds(Some("1"), None).compile(Shape::Text), Err(PolicyError::BoundsOnText));
        assert_eq!(
            bounds(Some("_ 5"), Some("9 4")).compile(Shape::Ints(2)),
            Err(PolicyError::Crossed(1))
        );
        assert_eq!(Want::OneOf(vec![]).compile(Shape::Text), Err(PolicyError::NoChoice));
        assert!(Want::Value("0200".into()).compile(Shape::Ints(1)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_satisfies(min in -9i128..9, extra in 0i128..9, value in -20i128..20, zero: bool) {
            let goal = bounds(Some(&min.to_string()), Some(&(min + extra).to_string()))
                .compile(Shape::Ints(1)).unwrap();
            let written = goal.target(&Value::Ints(vec![value]), zero).unwrap();
            // Unless what is written is itself "unlimited".
            if !(zero && written == Value::Ints(vec![0])) {
                prop_assert!(goal.met(&written, zero));
            }
        }
    }
}
