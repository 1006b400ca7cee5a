//! The document's text.

use std::fmt::Write as _;

use super::Entry;
use crate::config::document::{API_VERSION, KIND};
use crate::sysctl::disk::Disk;
use crate::sysctl::policy::OnConflict;

/// The whole document. The same files give the same text.
#[must_use]
pub fn render(disk: &Disk, entries: &[Entry]) -> String {
    let mut text = String::from(
        "# What this host's sysctl.d sets at boot, read as systemd-sysctl reads it (sysctl.d(5)).\n\
         # Made by `headroom import`.\n",
    );
    sources(disk, &mut text);
    text += &head();
    // The field is there also where nothing is in it.
    let empty = entries.iter().all(|entry| entry.refused.is_some());
    if empty {
        text.truncate(text.trim_end().len());
        text += " {}\n";
    }
    for entry in entries {
        one(entry, &mut text);
    }
    text
}

/// What every document begins with, up to the policies.
#[must_use]
pub fn head() -> String {
    format!("apiVersion: {API_VERSION}\nkind: {KIND}\nmode: enforce\nsysctls:\n")
}

fn sources(disk: &Disk, text: &mut String) {
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# {line}");
    };
    if let Some(notice) = &disk.notice {
        return line(format_args!("{notice}."));
    }
    for file in &disk.files {
        let link = file.link.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
        let why = match &file.masked_by {
            Some(masker) => format!(" (not read: {masker} masks it)"),
            None if file.systemd => String::new(),
            None => " (read by `sysctl --system` only)".to_owned(),
        };
        line(format_args!("  {}{link}{why}", file.path));
    }
}

fn one(entry: &Entry, text: &mut String) {
    for note in &entry.notes {
        let _ = writeln!(text, "  # {note}");
    }
    let policy = policy(entry);
    let policy = policy.trim();
    let _ = match &entry.refused {
        Some(why) => {
            writeln!(text, "  # left out: {why}\n  # {policy} # {}:{}", entry.file, entry.line)
        }
        None => writeln!(text, "  {policy} # {}:{}", entry.file, entry.line),
    };
}

/// The line of one key.
#[must_use]
pub fn policy(entry: &Entry) -> String {
    let value = quoted(&entry.value);
    let mut fields = vec![format!("value: {value}")];
    match entry.on_conflict {
        OnConflict::Enforce => {}
        OnConflict::Yield => fields.push("onConflict: yield".to_owned()),
        OnConflict::Report => fields.push("onConflict: report".to_owned()),
    }
    if !entry.required {
        fields.push("required: false".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./*?".contains(&byte);
    let starts_plain = entry.key.starts_with(|first: char| first.is_ascii_alphanumeric());
    let key = match starts_plain && entry.key.bytes().all(plain) {
        true => entry.key.clone(),
        false => quoted(&entry.key),
    };
    match fields.len() {
        1 => format!("  {key}: {value}\n"),
        _ => format!("  {key}: {{ {} }}\n", fields.join(", ")),
    }
}

/// A YAML scalar that every reader takes for the same text (YAML 1.2, 7.3.1).
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        let _ = match letter {
            '"' | '\\' => write!(out, "\\{letter}"),
            ' '..='~' => write!(out, "{letter}"),
            other => write!(out, "\\U{:08X}", u32::from(other)),
        };
    }
    out.push('"');
    out
}
