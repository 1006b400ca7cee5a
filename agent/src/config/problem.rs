//! What is wrong with a document: one [`Problem`] each, with a place, a stable code and advice.
//!
//! Documents are written by others, so their text reaches logs and terminals only through
//! [`escape`]: a key cannot move the cursor, forge a log line or hide behind bidi controls.

use std::cmp::Ordering;
use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::Serialize;

/// Longest piece of document text shown, in characters.
const MAX_SHOWN: usize = 80;
/// Longest message; only messages of foreign code (parser, `Deserialize` impls) come near it.
const MAX_MESSAGE: usize = 1000;
/// Longest path; the deepest document with the longest keys stays below.
const MAX_PATH: usize = 8000;

/// Most problems reported for one document; after that many, the rest helps nobody.
pub const MAX_PROBLEMS: usize = 100;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// The document is not used.
    Error,
    /// The document is used; something in it deserves a look.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A place in a document. The default, 0:0, is no place at all.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Position {
    /// The place at `line` and `column`, both counted from 1.
    pub const fn new(line: usize, column: usize) -> Self {
        Self { line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Stable name of the kind of problem, such as `unknown-field`.
    pub code: &'static str,
    /// Where it is, unless it is about the document as a whole.
    pub position: Option<Position>,
    /// Where it is in terms of keys, such as `sysctls."net.core.somaxconn".min`; empty for the
    /// whole document.
    pub path: String,
    /// What is wrong, why, and what to do.
    pub message: String,
}

impl Problem {
    /// An error about the whole document, until [`at`](Self::at) and [`path`](Self::path) say more.
    pub fn error(code: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(Severity::Error, code, message.as_ref())
    }

    /// A warning about the whole document, until [`at`](Self::at) and [`path`](Self::path) say more.
    pub fn warning(code: &'static str, message: impl AsRef<str>) -> Self {
        Self::new(Severity::Warning, code, message.as_ref())
    }

    /// The last problem of a document that has more than [`MAX_PROBLEMS`].
    pub fn too_many() -> Self {
        Self::error(
            "too-many-errors",
            format!("more than {MAX_PROBLEMS} errors: the rest is not shown, fix these first"),
        )
    }

    fn new(severity: Severity, code: &'static str, message: &str) -> Self {
        Self {
            severity,
            code,
            position: None,
            path: String::new(),
            message: printable(message, MAX_MESSAGE),
        }
    }

    /// The same problem at a place.
    #[must_use]
    pub fn at(mut self, position: Position) -> Self {
        self.position = Some(position);
        self
    }

    /// The same problem at a document path built by [`push_key`] and [`push_index`].
    #[must_use]
    pub fn path(mut self, path: impl AsRef<str>) -> Self {
        self.path = printable(path.as_ref(), MAX_PATH);
        self
    }

    /// As a line that says which file it is about: `FILE:LINE:COL: error[code] …`, or `FILE: …`
    /// without a place. The name is shown as it is given: escape it before.
    #[must_use]
    pub fn located(&self, file: &str) -> String {
        let space = if self.position.is_none() { " " } else { "" };
        format!("{file}:{space}{self}")
    }

    /// Document order; what has no place comes last.
    fn order(&self) -> (bool, Option<Position>) {
        (self.position.is_none(), self.position)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        write!(f, "{}[{}] ", self.severity, self.code)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// Problems in document order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// No problems yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one problem in its place; of two at one position, the first added stays first. Of
    /// each severity [`MAX_PROBLEMS`] are kept, and one that says that there are more.
    pub fn push(&mut self, problem: Problem) {
        let alike = self.0.iter().filter(|other| other.severity == problem.severity).count();
        let problem = match (alike.cmp(&MAX_PROBLEMS), problem.severity) {
            (Ordering::Less, _) => problem,
            (Ordering::Equal, Severity::Error) => Problem::too_many(),
            (Ordering::Equal, Severity::Warning) => Problem::warning(
                "too-many-warnings",
                format!("more than {MAX_PROBLEMS} warnings: the rest is not shown"),
            ),
            (Ordering::Greater, _) => return,
        };
        let place = self.0.partition_point(|other| other.order() <= problem.order());
        self.0.insert(place, problem);
    }

    /// Whether any of them is an error.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The problems in document order.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// The problems in document order.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

impl Extend<Problem> for Problems {
    fn extend<I: IntoIterator<Item = Problem>>(&mut self, problems: I) {
        self.0.extend(problems);
        self.0.sort_by_key(Problem::order);
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        let mut collected = Self::new();
        collected.extend(problems);
        collected
    }
}

impl From<Vec<Problem>> for Problems {
    fn from(problems: Vec<Problem>) -> Self {
        problems.into_iter().collect()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One problem a line.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

/// Document text as it may be shown: on one line, printable, at most 80 characters, reversible.
///
/// Bytes that are not UTF-8 become `\xNN`, unprintable characters `\u{..}`.
pub fn escape(text: impl AsRef<[u8]>) -> String {
    let mut shown = Shown::new(MAX_SHOWN);
    for chunk in text.as_ref().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' | '"' | '`' => shown.push(&format!("\\{c}")),
                c => shown.push_char(c),
            }
        }
        for byte in chunk.invalid() {
            shown.push(&format!("\\x{byte:02x}"));
        }
        if shown.full {
            break;
        }
    }
    shown.text
}

/// A whole text, parts of which may be foreign. Leaves escaped text as it is.
fn printable(text: &str, limit: usize) -> String {
    let mut shown = Shown::new(limit);
    text.chars().for_each(|c| shown.push_char(c));
    shown.text
}

/// Text of bounded length that never ends in half an escape.
struct Shown {
    text: String,
    left: usize,
    full: bool,
}

impl Shown {
    fn new(left: usize) -> Self {
        Self { text: String::new(), left, full: false }
    }

    fn push(&mut self, piece: &str) {
        let length = piece.chars().count();
        if self.full {
        } else if length > self.left {
            self.full = true;
            self.text.push('…');
        } else {
            self.left -= length;
            self.text.push_str(piece);
        }
    }

    fn push_char(&mut self, c: char) {
        match c {
            '\n' => self.push("\\n"),
            '\t' => self.push("\\t"),
            '\r' => self.push("\\r"),
            // The cut mark of text that was escaped before.
            ' '..='~' | '…' => self.push(c.encode_utf8(&mut [0; 4])),
            c if is_letter(c) => self.push(c.encode_utf8(&mut [0; 4])),
            c => self.push(&c.escape_unicode().to_string()),
        }
    }
}

/// Letters and digits of any script that stand for themselves: no combining marks, and not the
/// Hangul fillers, which are letters that look like nothing.
fn is_letter(c: char) -> bool {
    c.is_alphanumeric()
        && c.escape_debug().len() == 1
        && !matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}')
}

/// `key` as one segment of a document path: quoted unless it is a plain word.
pub fn key_segment(key: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= MAX_SHOWN && key.chars().all(word) {
        key.to_owned()
    } else {
        format!("\"{}\"", escape(key))
    }
}

/// Appends `key` to a document path.
pub fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&key_segment(key));
}

/// Appends a list index, counted from 0, to a document path.
pub fn push_index(path: &mut String, index: usize) {
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
}

/// The candidate closest to `text`, if it is at most two edits away.
pub fn did_you_mean<'a>(text: &str, candidates: &[&'a str]) -> Option<&'a str> {
    candidates
        .iter()
        .map(|candidate| (strsim::levenshtein(text, candidate), *candidate))
        // As many edits as letters would make any short word "close".
        .filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
#[path = "problem_tests.rs"]
mod tests;
