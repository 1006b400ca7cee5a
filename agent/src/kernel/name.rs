//! Names chosen by others: interfaces, processes, pods.

use std::fmt;
use std::os::unix::ffi::OsStrExt as _;

/// Bytes that somebody else chose, such as an interface name.
///
/// The kernel accepts quotes, backslashes, escape sequences and invalid UTF-8 in an interface
/// name (`dev_valid_name` refuses only `/`, `:` and white space), so such bytes never reach a
/// terminal, a log, a metric or a page except through this type's `Display`, which escapes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Wraps bytes as they came.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into().into_boxed_slice())
    }

    /// The bytes as they came: for system calls and comparisons, never for output.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The name as a path component.
    #[must_use]
    pub fn as_os_str(&self) -> &std::ffi::OsStr {
        std::ffi::OsStr::from_bytes(&self.0)
    }
}

/// Printable ASCII stays as it is, a backslash doubles, everything else becomes `\xNN`: the
/// result is unambiguous and safe wherever text goes.
pub fn escape_into(bytes: &[u8], out: &mut impl fmt::Write) -> fmt::Result {
    for &byte in bytes {
        match byte {
            b'\\' => out.write_str("\\\\")?,
            b' '..=b'~' => out.write_char(char::from(byte))?,
            _ => write!(out, "\\x{byte:02x}")?,
        }
    }
    Ok(())
}

/// [`escape_into`] a new string.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    // Writing to a String cannot fail.
    let _ = escape_into(bytes, &mut out);
    out
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        escape_into(&self.0, f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_printed_unambiguously() {
        for (bytes, shown) in [
            (&b"eth0"[..], "eth0"),
            (b"a\x1b[31m", "a\\x1b[31m"),
            (b"q\"<b>\\", "q\"<b>\\\\"),
            (b"\xff\xfe\n", "\\xff\\xfe\\x0a"),
            ("ü".as_bytes(), "\\xc3\\xbc"),
        ] {
            assert_eq!(Name::from_bytes(bytes).to_string(), shown);
        }
    }
}
