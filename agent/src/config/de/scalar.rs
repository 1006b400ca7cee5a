//! What a scalar may be read as: stricter than YAML, so that every reader agrees.

use super::{De, Fault};
use crate::config::problem::escape;
use crate::config::yaml::Value;

impl<'a> De<'a> {
    /// Text of a scalar that is not null, and whether it is plain.
    pub(super) fn scalar(self, expected: &str) -> Result<(&'a str, bool), Fault> {
        match &self.node.value {
            Value::Scalar { text, plain, null: false } => Ok((text, *plain)),
            _ => Err(self.not(expected, "")),
        }
    }

    /// The error that the node is not what was expected.
    pub(super) fn not(self, expected: &str, advice: &str) -> Fault {
        let found = match &self.node.value {
            Value::Scalar { null: true, .. } => {
                let advice = "write a value or leave the entry out";
                let message = format!("expected {expected}, found nothing: {advice}");
                return Fault::new("invalid-type", message);
            }
            Value::Scalar { text, plain: true, .. } => format!("`{}`", escape(text)),
            Value::Scalar { text, .. } => format!("the string \"{}\"", escape(text)),
            Value::Seq(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        };
        let message = format!("expected {expected}, found {found}{advice}");
        Fault::new("invalid-type", message)
    }

    pub(super) fn boolean(self) -> Result<bool, Fault> {
        let expected = "`true` or `false`";
        let (text, plain) = self.scalar(expected)?;
        match (text, plain) {
            ("true", true) => return Ok(true),
            ("false", true) => return Ok(false),
            ("true" | "false", false) => return Err(self.not(expected, ": remove the quotes")),
            _ => {}
        }
        Err(match text.to_ascii_lowercase().as_str() {
            "yes" | "on" | "y" | "true" => self.not(expected, ": write `true`"),
            "no" | "off" | "n" | "false" => self.not(expected, ": write `false`"),
            _ => self.not(expected, ""),
        })
    }

    /// The text of a scalar that is an integer in plain decimal.
    pub(super) fn integer(self) -> Result<&'a str, Fault> {
        let expected = "an integer";
        let (text, plain) = self.scalar(expected)?;
        match (is_decimal(text), plain) {
            (true, true) => Ok(text),
            (true, false) => Err(self.not(expected, ": remove the quotes")),
            (false, _) => Err(self.not(expected, integer_advice(text))),
        }
    }

    pub(super) fn float(self) -> Result<f64, Fault> {
        let expected = "a number";
        let (text, plain) = self.scalar(expected)?;
        let numeric = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+' | 'e' | 'E');
        match text.parse::<f64>() {
            Ok(number) if plain && number.is_finite() && text.chars().all(numeric) => Ok(number),
            Ok(_) if !plain => Err(self.not(expected, ": remove the quotes")),
            _ => Err(self.not(expected, "")),
        }
    }
}

/// The decimal integers that every YAML reader understands alike.
pub(super) fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let zero_first = digits.starts_with('0') && text != "0";
    !digits.is_empty() && !zero_first && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Why what looks like a number is not accepted. Readers of YAML 1.1 and 1.2 differ on all of
/// these, and a kernel parameter is no place for a difference.
fn integer_advice(text: &str) -> &'static str {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    let lower = digits.to_ascii_lowercase();
    if ["0x", "0o", "0b"].iter().any(|p| lower.starts_with(p)) {
        ": only decimal is accepted, convert it"
    } else if lower.contains('_') {
        ": digits are not grouped, remove the `_`"
    } else if !lower.bytes().all(|byte| byte.is_ascii_digit()) {
        ": write a whole number in digits only"
    } else if text.starts_with('+') {
        ": remove the `+`"
    } else {
        ": a leading zero means octal to some readers, write plain decimal"
    }
}
