//! Values: their shapes, strict parsing of what a person wrote, and comparing by meaning.

use std::fmt;

/// Longest value accepted from a configuration. The kernel takes a page less one from most
/// string handlers.
const LONGEST: usize = 4095;

/// What a key's file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// This many integers.
    Ints(usize),
    /// Integers whose number the kernel decides.
    AnyInts,
    /// One line of text.
    Text,
    /// Ports and ranges: `8080,9148-9150`.
    Ports,
    /// A CPU mask: comma-separated 32-bit words in hexadecimal.
    Mask,
}

/// A value, held so that equal meaning is equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Integers, as wide as the kernel's widest of either sign.
    Ints(Vec<i128>),
    /// Text, trimmed.
    Text(String),
    /// Sorted, disjoint, not touching.
    Ports(Vec<(u16, u16)>),
    /// Words, most significant first, without leading zeros.
    Mask(Vec<u32>),
}

/// Why a text is no value of a shape.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Line ends and control characters.
    #[error("a value is one line without control characters")]
    Control,
    /// Too long.
    #[error("a value has at most {LONGEST} bytes")]
    TooLong,
    /// Not a plain decimal integer.
    #[error("{} is not a plain decimal integer{}", quoted(.0), number_hint(.0))]
    Number(String),
    /// Out of what any key takes.
    #[error("{} does not fit in 64 bits", quoted(.0))]
    TooLarge(String),
    /// The kernel would silently take part of it.
    #[error(
        "the key has {expected} fields, the value {found}: the kernel would set only part of it"
    )]
    Fields {
        /// How many the key has.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// Not ports.
    #[error("{} is no port or range of ports like 8080 or 9148-9150", quoted(.0))]
    Ports(String),
    /// Not a mask.
    #[error("{} is no CPU mask: hexadecimal words of up to 8 digits without 0x, separated by commas", quoted(.0))]
    Mask(String),
    /// Nothing.
    #[error("the value is empty")]
    Empty,
}

fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(40).collect();
    let dots = if shown.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", shown.escape_debug())
}

fn number_hint(text: &str) -> &'static str {
    let digits = text.trim_start_matches(['-', '+']);
    if digits.starts_with("0x") || digits.starts_with("0X") {
        ": the kernel would read it as hexadecimal"
    } else if digits.len() > 1 && digits.starts_with('0') {
        ": the kernel would read it as octal"
    } else {
        ""
    }
}

/// What holds for every value and bound, whatever the shape: one printable line, not too long.
pub fn check_text(text: &str) -> Result<(), ValueError> {
    if text.len() > LONGEST {
        return Err(ValueError::TooLong);
    }
    // The kernel itself separates fields with tabs.
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(ValueError::Control);
    }
    Ok(())
}

impl Shape {
    /// The shape of what a file holds now, for a key that the catalogue does not know.
    #[must_use]
    pub fn learn(current: &str) -> Self {
        let mut count = 0;
        for field in current.split_ascii_whitespace() {
            if strict_int(field).is_err() {
                return Self::Text;
            }
            count += 1;
        }
        if count == 0 { Self::Text } else { Self::Ints(count) }
    }

    /// Parses what a person wrote. Whatever the kernel would quietly misread is refused: octal
    /// and hexadecimal, too few or too many fields, trailing text, line ends.
    pub fn parse(self, text: &str) -> Result<Value, ValueError> {
        check_text(text)?;
        match self {
            Self::Ints(expected) => {
                let ints = strict_ints(text)?;
                if ints.len() != expected {
                    return Err(ValueError::Fields { expected, found: ints.len() });
                }
                Ok(Value::Ints(ints))
            }
            Self::AnyInts => match strict_ints(text)? {
                ints if ints.is_empty() => Err(ValueError::Empty),
                ints => Ok(Value::Ints(ints)),
            },
            Self::Text => match text.trim() {
                "" => Err(ValueError::Empty),
                text => Ok(Value::Text(text.to_owned())),
            },
            Self::Ports => ports(text).map(Value::Ports),
            Self::Mask => mask(text).map(Value::Mask),
        }
    }

    /// Parses bounds: integers or `_` for none, one for each field.
    pub fn parse_bounds(self, text: &str) -> Result<Vec<Option<i128>>, ValueError> {
        check_text(text)?;
        let bound = |field| if field == "_" { Ok(None) } else { strict_int(field).map(Some) };
        let bounds: Vec<_> = text.split_ascii_whitespace().map(bound).collect::<Result<_, _>>()?;
        match self {
            Self::Ints(expected) if bounds.len() != expected => {
                Err(ValueError::Fields { expected, found: bounds.len() })
            }
            _ if bounds.is_empty() => Err(ValueError::Empty),
            _ => Ok(bounds),
        }
    }

    /// Understands what the kernel shows. What does not fit the shape is held as text.
    #[must_use]
    pub fn read(self, text: &str) -> Value {
        let parsed = match self {
            Self::Ints(_) | Self::AnyInts => kernel_ints(text).map(Value::Ints),
            Self::Text => None,
            Self::Ports => ports(text).ok().map(Value::Ports),
            Self::Mask => mask(text).ok().map(Value::Mask),
        };
        parsed.unwrap_or_else(|| Value::Text(text.trim().to_owned()))
    }
}

impl Value {
    /// The integers, if it is any.
    #[must_use]
    pub fn ints(&self) -> Option<&[i128]> {
        match self {
            Self::Ints(ints) => Some(ints),
            _ => None,
        }
    }
}

/// The form that is written: fields separated by one space.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ints(ints) => join(f, ints, " ", |f, int| write!(f, "{int}")),
            Self::Text(text) => f.write_str(text),
            Self::Ports(ranges) => join(f, ranges, ",", |f, (low, high)| match low == high {
                true => write!(f, "{low}"),
                false => write!(f, "{low}-{high}"),
            }),
            Self::Mask(words) => match words.split_first() {
                None => f.write_str("0"),
                Some((first, rest)) => {
                    write!(f, "{first:x}")?;
                    rest.iter().try_for_each(|word| write!(f, ",{word:08x}"))
                }
            },
        }
    }
}

fn join<T>(
    f: &mut fmt::Formatter<'_>,
    items: &[T],
    separator: &str,
    each: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            f.write_str(separator)?;
        }
        each(f, item)?;
    }
    Ok(())
}

fn strict_ints(text: &str) -> Result<Vec<i128>, ValueError> {
    text.split_ascii_whitespace().map(strict_int).collect()
}

/// Plain decimal: the kernel's own parser (`proc_get_long`) takes base 0, so a leading zero is
/// octal to it and `0x` hexadecimal.
fn strict_int(field: &str) -> Result<i128, ValueError> {
    let digits = field.strip_prefix('-').unwrap_or(field);
    let plain = !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && field != "-0";
    if !plain {
        return Err(ValueError::Number(field.to_owned()));
    }
    field
        .parse()
        .ok()
        .filter(|int| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(int))
        .ok_or_else(|| ValueError::TooLarge(field.to_owned()))
}

/// What the kernel prints may have leading zeros (`%04o` modes); it is decimal all the same
/// where the catalogue says so.
fn kernel_ints(text: &str) -> Option<Vec<i128>> {
    text.split_ascii_whitespace().map(|field| field.parse().ok()).collect()
}

fn ports(text: &str) -> Result<Vec<(u16, u16)>, ValueError> {
    let mut ranges = Vec::new();
    let fail = |part: &str| ValueError::Ports(part.to_owned());
    for part in text.split(',').map(str::trim).filter(|_| !text.trim().is_empty()) {
        let port = |text: &str| {
            strict_int(text).ok().and_then(|int| u16::try_from(int).ok()).ok_or_else(|| fail(part))
        };
        let (low, high) = match part.split_once('-') {
            Some((low, high)) => (port(low)?, port(high)?),
            None => (port(part)?, port(part)?),
        };
        if low > high {
            return Err(fail(part));
        }
        ranges.push((low, high));
    }
    ranges.sort_unstable();
    let mut merged: Vec<(u16, u16)> = Vec::new();
    for (low, high) in ranges {
        match merged.last_mut() {
            Some(last) if u32::from(low) <= u32::from(last.1) + 1 => last.1 = last.1.max(high),
            _ => merged.push((low, high)),
        }
    }
    Ok(merged)
}

fn mask(text: &str) -> Result<Vec<u32>, ValueError> {
    let word = |part: &str| {
        let part = part.trim();
        let digits =
            !part.is_empty() && part.len() <= 8 && part.bytes().all(|b| b.is_ascii_hexdigit());
        digits
            .then(|| u32::from_str_radix(part, 16).ok())
            .flatten()
            .ok_or_else(|| ValueError::Mask(text.to_owned()))
    };
    let words = text.split(',').map(word).collect::<Result<Vec<_>, _>>()?;
    Ok(words.into_iter().skip_while(|&word| word == 0).collect())
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
