//! YAML text to a tree of positioned nodes, in bounded memory and time.
//!
//! Only the part of YAML that a configuration needs: one document, no anchors, aliases, merge
//! keys or custom tags. Without aliases a tree is never larger than its text, so the size limit
//! of the text bounds everything that follows.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span, Tag};

use super::problem::{self, MAX_PROBLEMS, Position, Problem};

/// Largest document, in bytes; the limit of a Kubernetes ConfigMap.
pub const MAX_BYTES: usize = 1 << 20;
/// Deepest nesting of maps and lists.
pub const MAX_DEPTH: usize = 64;
/// Most keys, values, maps and lists in one document.
pub const MAX_NODES: usize = 100_000;

/// A positioned piece of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Where it starts; for an absent value, at the `:` or right after the `-`.
    pub at: Position,
    /// What it is.
    pub value: Value,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A single value, not yet interpreted.
    Scalar {
        /// The text without quotes and with escapes resolved.
        text: String,
        /// Whether it was written without quotes, so that it may be a number or a boolean.
        plain: bool,
        /// Whether it is absent, `~` or `null`.
        null: bool,
    },
    /// A list.
    Seq(Vec<Node>),
    /// A map, in the order of the document. Keys are scalars, not null and distinct.
    Map(Vec<(Node, Node)>),
}

/// Parses a document that has to be free of problems; `None` if it is empty.
pub fn parse(bytes: &[u8]) -> Result<Option<Node>, Vec<Problem>> {
    let (root, problems) = parse_partial(bytes);
    if problems.is_empty() { Ok(root) } else { Err(problems) }
}

/// Parses as much of a document as there is, so that what it says can be checked along with how
/// it is written.
///
/// Entries that are problems themselves (duplicates, aliases, merge keys) are left out of the
/// tree. After a problem that ends parsing, such as a syntax error, there is no tree.
pub fn parse_partial(bytes: &[u8]) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder::default();
    let root = match decode(bytes).and_then(|text| builder.build(text)) {
        Ok(root) => root,
        Err(fatal) => {
            builder.problems.push(fatal);
            None
        }
    };
    // Stable, and the fatal problem may be about an earlier place than the last collected one.
    builder
        .problems
        .sort_by_key(|problem| (problem.position.is_none(), problem.position.unwrap_or_default()));
    (root, builder.problems)
}

/// Checks size and encoding, and skips the byte order mark.
fn decode(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > MAX_BYTES {
        let message =
            format!("the document has {} bytes, the limit is {MAX_BYTES}: shorten it", bytes.len());
        return Err(Problem::error("too-large", message));
    }
    // Both byte order marks of UTF-16, then what text that starts with ASCII looks like.
    let wide = match bytes {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [first, second, ..] => (*first == 0) != (*second == 0),
        _ => false,
    };
    if wide {
        let message = "the document looks like UTF-16 or UTF-32: save it as UTF-8";
        return Err(Problem::error("unsupported-encoding", message).at(Position::new(1, 1)));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|error| {
        let (valid, rest) = bytes.split_at_checked(error.valid_up_to()).unwrap_or((bytes, &[]));
        let bad = problem::escape(rest.get(..1).unwrap_or_default());
        let message = format!("byte `{bad}` is not valid UTF-8: save the document as UTF-8");
        Problem::error("invalid-utf8", message).at(position_after(&String::from_utf8_lossy(valid)))
    })
}

/// The position right after `text`, counting line breaks as YAML does.
fn position_after(text: &str) -> Position {
    let mut at = Position::new(1, 1);
    let mut previous = ' ';
    for c in text.chars() {
        match c {
            '\n' if previous == '\r' => {}
            '\n' | '\r' => at = Position::new(at.line + 1, 1),
            _ => at.column += 1,
        }
        previous = c;
    }
    at
}

/// A map or list that is not complete yet.
struct Open {
    at: Position,
    kind: OpenKind,
}

enum OpenKind {
    Seq(Vec<Node>),
    Map {
        entries: Vec<(Node, Node)>,
        /// The line of each key so far.
        lines: HashMap<String, usize>,
        next: Next,
    },
}

/// What the next node in a map is.
enum Next {
    /// A key.
    Key,
    /// The value of this key.
    Value(Node),
    /// The value of a refused key.
    Ignored,
}

/// Builds the tree from parser events. `Err` is the problem that ends it.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    problems: Vec<Problem>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    fn build(&mut self, text: &str) -> Result<Option<Node>, Problem> {
        let options = granit_parser::options! {
            emit_anchor_events: true,
            emit_unresolved_aliases: true,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        for next in Parser::new_from_str_with_options(text, options) {
            let (event, span) = next.map_err(|error| syntax(&error))?;
            self.event(event, &span)?;
        }
        let root = self.root.take();
        Ok(root.filter(|node| !matches!(node.value, Value::Scalar { null: true, .. })))
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Problem> {
        let at = position(&span.start);
        if event.is_node() {
            self.nodes += 1;
            if self.nodes > MAX_NODES {
                let message = format!("more than {MAX_NODES} values: shorten the document");
                return Err(Problem::error("too-many-nodes", message).at(at));
            }
            self.check_tag(&event, span)?;
        }
        match event {
            Event::DocumentStart(..) => self.document(at),
            Event::Scalar(text, style, _, tag) => {
                let value = scalar(text.into_owned(), style, tag.as_deref(), span);
                self.place(at, Some(Node { at, value }))
            }
            Event::SequenceStart(..) => self.open(at, OpenKind::Seq(Vec::new())),
            Event::MappingStart(..) => self.open(
                at,
                OpenKind::Map { entries: Vec::new(), lines: HashMap::new(), next: Next::Key },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.report(no_anchors().at(at).path(self.path()))?;
                self.place(at, None)
            }
            // Follows its node, so that the path of the moment is not the anchor's.
            Event::Anchor(..) => self.report(no_anchors().at(at)),
            _ => Ok(()),
        }
    }

    fn report(&mut self, problem: Problem) -> Result<(), Problem> {
        if self.problems.len() >= MAX_PROBLEMS {
            return Err(Problem::too_many());
        }
        self.problems.push(problem);
        Ok(())
    }

    fn document(&mut self, at: Position) -> Result<(), Problem> {
        self.documents += 1;
        if self.documents > 1 {
            let message = "a second document in the file: keep one, without a `---` after it";
            return Err(Problem::error("multiple-documents", message).at(at));
        }
        Ok(())
    }

    fn check_tag(&mut self, event: &Event<'_>, span: &Span) -> Result<(), Problem> {
        let Some(tag) = event.tag() else {
            return Ok(());
        };
        let fits = match (event, tag.core_suffix()) {
            (Event::SequenceStart(..), suffix) => suffix == Some("seq"),
            (Event::MappingStart(..), suffix) => suffix == Some("map"),
            (_, suffix) => suffix.is_some_and(|suffix| !matches!(suffix, "seq" | "map")),
        };
        if fits {
            return Ok(());
        }
        let message = format!(
            "tag `{}` is not supported here: write the value without it",
            problem::escape(tag.original())
        );
        let at = position(&span.tag_start().unwrap_or(span.start));
        self.report(Problem::error("unsupported-tag", message).at(at).path(self.path()))
    }

    fn open(&mut self, at: Position, kind: OpenKind) -> Result<(), Problem> {
        if self.open.len() >= MAX_DEPTH {
            return Err(too_deep().at(at));
        }
        self.open.push(Open { at, kind });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        let Some(Open { at, kind }) = self.open.pop() else {
            return Ok(());
        };
        let value = match kind {
            OpenKind::Seq(items) => Value::Seq(items),
            OpenKind::Map { entries, .. } => Value::Map(entries),
        };
        self.place(at, Some(Node { at, value }))
    }

    /// Puts a complete node where it belongs; `None` stands for one that was refused.
    fn place(&mut self, at: Position, node: Option<Node>) -> Result<(), Problem> {
        let wants_key = matches!(
            self.open.last().map(|open| &open.kind),
            Some(OpenKind::Map { next: Next::Key, .. })
        );
        let following = if wants_key { self.check_key(at, node.as_ref())? } else { Next::Key };
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = node,
            Some(OpenKind::Seq(items)) => items.extend(node),
            Some(OpenKind::Map { entries, next, .. }) => {
                if let (Next::Value(key), Some(value)) = (std::mem::replace(next, following), node)
                {
                    entries.push((key, value));
                }
            }
        }
        Ok(())
    }

    /// Decides what becomes of the value that follows `key`.
    fn check_key(&mut self, at: Position, key: Option<&Node>) -> Result<Next, Problem> {
        // A refused alias has been reported.
        let Some(key) = key else {
            return Ok(Next::Ignored);
        };
        let problem = match &key.value {
            Value::Scalar { null: true, .. } | Value::Seq(_) | Value::Map(_) => {
                let message = "a key has to be text: put quotes around it if it is";
                Problem::error("invalid-key", message).path(self.path())
            }
            Value::Scalar { text, plain: true, .. } if text == "<<" => {
                let message = "merge keys are not supported: write the entries out";
                Problem::error("merge-key", message).path(self.path())
            }
            Value::Scalar { text, .. } => match self.first_line(text, at.line) {
                None => return Ok(Next::Value(key.clone())),
                Some(first) => {
                    let mut path = self.path();
                    problem::push_key(&mut path, text);
                    let message = format!("duplicate key, first on line {first}: keep one of them");
                    Problem::error("duplicate-key", message).path(path)
                }
            },
        };
        self.report(problem.at(at))?;
        Ok(Next::Ignored)
    }

    /// The line on which the innermost map had this key before, else notes it as the first.
    fn first_line(&mut self, key: &str, line: usize) -> Option<usize> {
        match self.open.last_mut().map(|open| &mut open.kind) {
            Some(OpenKind::Map { lines, .. }) => match lines.get(key) {
                Some(first) => Some(*first),
                None => lines.insert(key.to_owned(), line),
            },
            _ => None,
        }
    }

    /// The document path of the node that comes next.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.kind {
                OpenKind::Seq(items) => problem::push_index(&mut path, items.len()),
                OpenKind::Map { next: Next::Value(key), .. } => {
                    if let Value::Scalar { text, .. } = &key.value {
                        problem::push_key(&mut path, text);
                    }
                }
                OpenKind::Map { .. } => {}
            }
        }
        path
    }
}

fn position(marker: &Marker) -> Position {
    Position::new(marker.line(), marker.col() + 1)
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Value {
    let (plain, null) = match tag.and_then(Tag::core_suffix) {
        Some("str") => (false, false),
        Some("null") => (true, true),
        // `!!int "5"` is the integer.
        Some(_) => (true, false),
        None => (style == ScalarStyle::Plain, false),
    };
    // The parser gives an absent value the text `~`.
    let absent = style == ScalarStyle::Plain && span.start.index() == span.end.index();
    let written_null = matches!(text.as_str(), "~" | "null" | "Null" | "NULL");
    Value::Scalar {
        text: if absent { String::new() } else { text },
        plain,
        null: null || (plain && (absent || written_null)),
    }
}

fn no_anchors() -> Problem {
    Problem::error(
        "anchor-or-alias",
        "anchors and aliases are not supported: write the value out, and quote a pattern that begins with `*`",
    )
}

fn too_deep() -> Problem {
    let message = format!("nested more than {MAX_DEPTH} levels deep: flatten the document");
    Problem::error("too-deep", message)
}

fn syntax(error: &ScanError) -> Problem {
    let advice = match error.kind() {
        ErrorKind::RecursionLimitExceeded => return too_deep().at(position(error.marker())),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabAtBlockScalarStart => {
            let message = "a tab is not allowed as indentation: use spaces";
            return Problem::error("syntax", message).at(position(error.marker()));
        }
        ErrorKind::MappingValueNotAllowed => ": check the indentation, or quote a text with `: `",
        ErrorKind::UnexpectedCharacter { .. } => ": quote the text, or write it as an escape",
        _ if error.info().contains("anchor or alias") => ": quote a pattern that begins with `*`",
        _ => "",
    };
    let message = format!("not valid YAML, {}{advice}", error.info());
    Problem::error("syntax", message).at(position(error.marker()))
}

#[cfg(test)]
#[path = "yaml_tests.rs"]
mod tests;
