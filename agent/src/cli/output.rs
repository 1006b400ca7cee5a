//! Printing: tables, symbols, colours, JSON.

use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use super::{Color, Format, OutputFormat};

/// How something is to be taken. Shown by a symbol, and by a colour beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Notable,
    /// Wrong.
    Bad,
    /// Neither.
    Plain,
}

impl Tone {
    /// One character.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Notable => "!",
            Self::Bad => "✗",
            Self::Plain => "·",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Good => "32",
            Self::Notable => "33",
            Self::Bad => "31",
            Self::Plain => "0",
        }
    }
}

/// Standard output in the form that was asked for.
pub struct Output {
    json: bool,
    color: bool,
}

impl Output {
    /// Colour only on a terminal, and not where `NO_COLOR` or a dumb terminal says so.
    pub fn new(format: &Format) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = match format.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
        };
        Self { json: format.output == OutputFormat::Json, color }
    }

    /// Whether JSON is wanted.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a document.
    pub fn document(&self, document: &impl Serialize) {
        let text = serde_json::to_string_pretty(document);
        self.line(text.unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}")));
    }

    /// Prints a line. A reader that went away is no error.
    pub fn line(&self, line: impl fmt::Display) {
        let _ = writeln!(io::stdout().lock(), "{line}");
    }

    /// Text in a tone's colour.
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if self.color && tone != Tone::Plain {
            format!("\x1b[{}m{text}\x1b[0m", tone.code())
        } else {
            text.to_owned()
        }
    }

    /// A heading.
    pub fn heading(&self, text: &str) {
        if self.color { self.line(format_args!("\x1b[1m{text}\x1b[0m")) } else { self.line(text) }
    }

    /// A table: columns as wide as their widest cell, the last as wide as it is. A tone colours
    /// the row's first cell.
    pub fn table(&self, header: &[&str], rows: &[(Tone, Vec<String>)]) {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|(_, row)| row.get(column));
            let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            widest.max(header.get(column).map_or(0, |name| name.chars().count()))
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        if header.iter().any(|name| !name.is_empty()) {
            self.line(row(header.iter().map(|name| (*name).to_owned()), &widths).trim_end());
        }
        for (tone, cells) in rows {
            let text = row(cells.iter().cloned(), &widths);
            let first = widths.first().copied().unwrap_or(0);
            let split = text.char_indices().nth(first).map_or(text.len(), |(at, _)| at);
            let (head, rest) = text.split_at(split);
            self.line(format_args!("{}{}", self.paint(*tone, head), rest.trim_end()));
        }
    }
}

fn row(cells: impl Iterator<Item = String>, widths: &[usize]) -> String {
    let padded = cells.zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ")
}

/// Prints an error.
pub fn error(error: &dyn fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{error}");
}

/// `-` for what is not known.
pub fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
