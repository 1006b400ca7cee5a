//! What the kernel makes of a value that a person wrote for `sysctl.d`.

use crate::sysctl::disk::shown;
use crate::sysctl::value::{Shape, Value};

/// The value that the kernel stores when this text is written, where that is certain; else why it
/// is not. Stricter readers refuse octal and hexadecimal numbers; the kernel takes them
/// (`proc_get_long`, base 0; measured on 5.10 to 7.2).
pub fn as_kernel(shape: Shape, text: &str) -> Result<Value, String> {
    match shape {
        Shape::Ints(expected) => {
            let ints = integers(text)?;
            match ints.len() {
                found if found == expected => Ok(Value::Ints(ints)),
                found if found < expected => Err(format!(
                    "the key has {expected} fields and the value {found}: the kernel would leave the others as they are"
                )),
                found => Err(format!(
                    "the key has {expected} {} and the value {found}: the kernel would leave out the rest",
                    if expected == 1 { "field" } else { "fields" }
                )),
            }
        }
        Shape::AnyInts => Ok(Value::Ints(integers(text)?)),
        Shape::Text | Shape::Ports | Shape::Mask => {
            shape.parse(text).map_err(|error| error.to_string())
        }
    }
}

fn integers(text: &str) -> Result<Vec<i128>, String> {
    let ints: Vec<i128> =
        text.split_ascii_whitespace().map(integer).collect::<Result<_, _>>().map_err(|error| {
            match text.contains(['#', ';']) {
                true => format!("{error}: a comment has a line of its own"),
                false => error,
            }
        })?;
    if ints.is_empty() { Err("the value is empty".to_owned()) } else { Ok(ints) }
}

fn integer(field: &str) -> Result<i128, String> {
    let (sign, digits) = match field.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, field),
    };
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..).unwrap_or_default()),
        [b'0', _, ..] => (8, digits.get(1..).unwrap_or_default()),
        _ => (10, digits),
    };
    let whole = digits.chars().all(|digit| digit.is_digit(base));
    let parsed = if whole { i128::from_str_radix(digits, base).ok() } else { None };
    parsed
        .map(|value| sign * value)
        .filter(|value| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(value))
        .ok_or_else(|| format!("`{}` is no number that the kernel takes", shown(field)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_the_kernel_makes_of_them() {
        for (text, expected) in [
            ("128", "128"),
            ("0200", "128"),
            ("0x400", "1024"),
            ("0XfF", "255"),
            ("-1", "-1"),
            ("-010", "-8"),
            ("0", "0"),
            ("00", "0"),
            (" 7 ", "7"),
        ] {
            assert_eq!(as_kernel(Shape::Ints(1), text).unwrap().to_string(), expected, "{text}");
        }
        let rmem = as_kernel(Shape::Ints(3), "4096\t 0x20000   010").unwrap();
        assert_eq!(rmem.to_string(), "4096 131072 8");
        for (shape, text) in [
            (Shape::Ints(1), "+5"),
            (Shape::Ints(1), "089"),
            (Shape::Ints(1), "0x"),
            (Shape::Ints(1), "-"),
            (Shape::Ints(1), "1e3"),
            (Shape::Ints(1), ""),
            (Shape::Ints(1), "1 2"),
            (Shape::Ints(3), "1 2"),
            (Shape::Ints(1), "99999999999999999999"),
            (Shape::Ports, "1-"),
        ] {
            assert!(as_kernel(shape, text).is_err(), "{text}");
        }
        let error = as_kernel(Shape::Ints(1), "5 # five").unwrap_err();
        assert!(error.ends_with("a line of its own"), "{error}");
    }
}
