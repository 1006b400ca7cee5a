//! What the host's `sysctl.d` files set at boot, and which line wins: `sysctl.d(5)` as a pure
//! function of the files' contents.
//!
//! Two programs read these files. systemd-sysctl sets what they say at boot, and what concerns an
//! interface again when it appears; `sysctl --system` of procps is run by people and by systems
//! without systemd. They differ: only procps reads `/etc/sysctl.conf`, after all others (systemd
//! through a link such as `/etc/sysctl.d/99-sysctl.conf`), and hidden files; and a line `-key`
//! takes back an assignment of the same key for systemd alone.

pub mod glob;
mod mention;
pub mod parse;
pub mod reading;
mod view;

use schemars::JsonSchema;
use serde::Serialize;

use crate::kernel::errno::FileError;
use crate::kernel::name::{Name, escape};
use crate::kernel::sysctl_d::{self, Content, DIRECTORIES, Files, Found, MOST_FILES, SYSCTL_CONF};
use crate::sysctl::catalogue;
use crate::sysctl::glob::Glob;
use crate::sysctl::key::Key;
use crate::sysctl::managed::show;
use crate::sysctl::policy::Want;
use crate::sysctl::state::AtBoot;
use crate::sysctl::value::Shape;
pub use mention::Mention;
use parse::Target;
use view::View;

/// Most lines that are read, of all files together.
pub const MOST_LINES: usize = 100_000;

/// Most lines with patterns that are read: each is compared with every key.
pub const MOST_PATTERNS: usize = 1000;

/// Longest value that is shown, in characters.
const MOST_SHOWN: usize = 200;

/// What to do where the host's files are not there to be read.
const NOT_VISIBLE: &str = "the host's sysctl.d is not visible: mount /etc/sysctl.d, /run/sysctl.d \
                           and /usr/lib/sysctl.d read-only beneath /host";

/// All that the host's files say.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// The files, in the order in which they are read.
    pub files: Vec<File>,
    /// Every line that sets or excludes something, file by file.
    pub assignments: Vec<Assignment>,
    /// What is wrong in them.
    pub problems: Vec<Problem>,
    /// Why nothing is known, if so.
    pub notice: Option<String>,
    systemd: View,
    procps: View,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path on the host, escaped.
    pub path: String,
    /// Where it leads, if it is a link; escaped.
    pub link: Option<String>,
    /// The file of the same name that masks it.
    pub masked_by: Option<String>,
    /// Whether systemd-sysctl reads it.
    pub systemd: bool,
    /// Whether `sysctl --system` reads it.
    pub procps: bool,
}

/// One line that sets something, or excludes a key from patterns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Which of the files.
    pub file: usize,
    /// Its line, from 1.
    pub line: usize,
    /// The key or the keys.
    pub target: Target,
    /// The value. `None`: patterns are not to set the key.
    pub value: Option<String>,
    /// Whether it was written with a `-`.
    pub ignore_failure: bool,
}

/// How much was read of all files together.
#[derive(Default)]
struct Counts {
    lines: usize,
    patterns: usize,
}

/// What is wrong with a file or a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The file or directory on the host, escaped.
    pub file: String,
    /// The line, from 1, if it is about one.
    pub line: Option<usize>,
    /// What is wrong and what to do, escaped.
    pub message: String,
    /// Whether something could not be read, so that more may be missing.
    pub unread: bool,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.message),
            None => write!(f, "{}: {}", self.file, self.message),
        }
    }
}

impl Disk {
    /// Understands what was read; an error: why nothing could be. `None`: there is no root.
    #[must_use]
    pub fn of(files: Option<Result<Files, FileError>>) -> Self {
        let files = match files {
            Some(Ok(files)) => files,
            Some(Err(error)) => {
                let mut disk = Self { notice: Some(error.to_string()), ..Self::default() };
                let path = sysctl_d::shown(&error.path);
                disk.problem(&path, None, error.to_string(), true);
                return disk;
            }
            None => return Self { notice: Some(NOT_VISIBLE.to_owned()), ..Self::default() },
        };
        let mut disk = Self::default();
        if files.directories == 0 && files.files.is_empty() {
            disk.notice =
                Some(format!("there is no sysctl.d here; if this is a container, {NOT_VISIBLE}"));
        }
        for error in &files.failed {
            disk.problem(&sysctl_d::shown(&error.path), None, error.to_string(), true);
        }
        if files.cut {
            let message = format!("there are more than {MOST_FILES} files: the rest is not read");
            disk.problem(DIRECTORIES[0], None, message, true);
        }
        disk.read(files.files);
        disk.systemd = View::systemd(&disk);
        disk.procps = View::procps(&disk);
        disk
    }

    /// All files in one order, by name and not by directory; of one name the first directory's
    /// masks the others, whatever it holds.
    fn read(&mut self, mut found: Vec<Found>) {
        found.sort_by(|a, b| {
            let place =
                |file: &Found| (file.directory.is_none(), file.name.clone(), file.directory);
            place(a).cmp(&place(b))
        });
        let mut counts = Counts::default();
        let mut masker: Option<(Name, String)> = None;
        for file in found {
            let path = path(&file);
            let system = file.directory.is_some();
            let masked_by = masker
                .as_ref()
                .filter(|(name, _)| system && *name == file.name)
                .map(|(_, masker)| masker.clone());
            if system && masked_by.is_none() {
                masker = Some((file.name.clone(), path.clone()));
            }
            let hidden = file.name.as_bytes().starts_with(b".");
            let read = masked_by.is_none();
            self.files.push(File {
                link: file.link.as_deref().map(sysctl_d::shown),
                systemd: system && read && !hidden,
                procps: read,
                masked_by,
                path,
            });
            self.content(&file, &mut counts);
        }
    }

    fn content(&mut self, file: &Found, counts: &mut Counts) {
        let Some(index) = self.files.len().checked_sub(1) else { return };
        let path = path(file);
        // What is wrong with a file that nobody reads is nobody's trouble.
        let read = self.files.get(index).is_some_and(|file| file.procps);
        let bytes = match &file.content {
            Content::Bytes(bytes) => bytes,
            Content::Cut(bytes) => {
                let message = format!("it is too long: only {} bytes are read", bytes.len());
                self.problem(&path, None, message, true);
                bytes
            }
            Content::Null => return,
            Content::Nowhere if read => {
                let target = file.link.as_deref().map(sysctl_d::shown).unwrap_or_default();
                let message = format!(
                    "it leads to {target}, which is not there: remove the link, or if this is a \
                     container mount what it leads to as well"
                );
                return self.problem(&path, None, message, true);
            }
            Content::Failed(error) if read => {
                return self.problem(&path, None, error.to_string(), true);
            }
            Content::Nowhere | Content::Failed(_) => return,
        };
        for (number, text) in parse::lines(bytes).enumerate() {
            let limit = match *counts {
                Counts { lines: MOST_LINES, .. } => Some(format!("{MOST_LINES} lines")),
                Counts { patterns: MOST_PATTERNS, .. } => Some(format!("{MOST_PATTERNS} patterns")),
                _ => None,
            };
            if let Some(limit) = limit {
                let message = format!("after {limit} in all files the rest is not read");
                return self.problem(&path, Some(number + 1), message, true);
            }
            counts.lines += 1;
            match parse::line(text) {
                None => {}
                Some(Err(message)) if read => {
                    self.problem(&path, Some(number + 1), message, false);
                }
                Some(Err(_)) => {}
                Some(Ok(parse::Line { target, value, ignore_failure, odd })) => {
                    let line = number + 1;
                    if let Some(odd) = odd.filter(|_| read) {
                        self.problem(&path, Some(line), odd, false);
                    }
                    counts.patterns += usize::from(matches!(target, Target::Pattern(_)));
                    let file = index;
                    self.assignments.push(Assignment { file, line, target, value, ignore_failure });
                }
            }
        }
    }

    fn problem(&mut self, file: &str, line: Option<usize>, message: String, unread: bool) {
        self.problems.push(Problem { file: file.to_owned(), line, message, unread });
    }

    /// Whether something could not be read, so that what is known may not be all.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.problems.iter().any(|problem| problem.unread)
    }

    /// An assignment's file and line, as `FILE:LINE`.
    #[must_use]
    pub fn place(&self, assignment: &Assignment) -> String {
        format!("{}:{}", self.path(assignment), assignment.line)
    }

    /// An assignment's file and line.
    #[must_use]
    pub fn origin(&self, assignment: &Assignment) -> (&str, usize) {
        (self.path(assignment), assignment.line)
    }

    /// Lines that name a key and set it to something else than the one that wins, as
    /// systemd-sysctl sees it.
    pub fn losers(&self, key: &Key) -> impl Iterator<Item = &Assignment> {
        let winner = self.winner(key).and_then(|(one, _)| one.value.as_deref());
        let named = self.systemd.named.get(key).into_iter().flatten();
        named
            .filter_map(|index| self.assignments.get(*index))
            .filter(move |one| one.value.is_some() && one.value.as_deref() != winner)
    }

    fn path(&self, assignment: &Assignment) -> &str {
        self.files.get(assignment.file).map_or("", |file| &file.path)
    }

    /// What systemd-sysctl sets a key to at boot, and whether a failure is ignored.
    #[must_use]
    pub fn winner(&self, key: &Key) -> Option<(&Assignment, bool)> {
        let won = self.systemd.winner(self, key)?;
        Some((self.assignments.get(won.index)?, won.ignore_failure))
    }

    /// What `sysctl --system` sets a key to.
    #[must_use]
    pub fn winner_of_procps(&self, key: &Key) -> Option<&Assignment> {
        self.assignments.get(self.procps.winner(self, key)?.index)
    }

    /// What is written about keys by their names, as systemd-sysctl sees it: the last line of
    /// each, and whether a failure is ignored.
    pub fn exact(&self) -> impl Iterator<Item = (&Key, &Assignment, bool)> {
        self.systemd.exact.iter().filter_map(|(key, won)| {
            Some((key, self.assignments.get(won.index)?, won.ignore_failure))
        })
    }

    /// The patterns that set something, in systemd-sysctl's order, the last winning.
    pub fn patterns(&self) -> impl Iterator<Item = (&glob::Pattern, &Assignment, bool)> {
        self.systemd.patterns.iter().filter_map(|won| {
            let assignment = self.assignments.get(won.index)?;
            match &assignment.target {
                Target::Pattern(pattern) if assignment.value.is_some() => {
                    Some((pattern, assignment, won.ignore_failure))
                }
                _ => None,
            }
        })
    }

    /// What the last pattern would set a key to, were the key not written about by its name.
    #[must_use]
    pub fn pattern_for(&self, key: &Key) -> Option<&Assignment> {
        self.assignments.get(self.systemd.pattern(self, key)?.index)
    }

    /// Lines that only `sysctl --system` reads.
    pub fn only_procps(&self) -> impl Iterator<Item = &Assignment> {
        let alone = |file: &File| file.procps && !file.systemd;
        self.assignments.iter().filter(move |one| self.files.get(one.file).is_some_and(alone))
    }

    /// What the host's files set a key to at boot, where that does not meet the policy. `now`: the
    /// value in force, for the shape of a key that the catalogue does not know.
    #[must_use]
    pub fn conflict(&self, key: &Key, want: &Want, now: Option<&str>) -> Option<AtBoot> {
        let (winner, _) = self.winner(key)?;
        let value = winner.value.as_deref()?;
        let entry = catalogue::lookup(key);
        let known = entry.and_then(|entry| entry.shape());
        let shape = known.or_else(|| now.map(Shape::learn));
        let zero_unlimited = entry.is_some_and(|entry| entry.has("zero-unlimited"));
        if meets(want, shape, value, zero_unlimited) {
            return None;
        }
        Some(AtBoot { file: self.path(winner).to_owned(), line: winner.line, value: shown(value) })
    }

    /// The same for the first of a pattern's keys for which it is so. `meant`: whether the policy
    /// is that key's.
    pub fn conflict_of(
        &self,
        glob: &Glob,
        meant: impl Fn(&Key) -> bool,
        want: &Want,
    ) -> Option<AtBoot> {
        let examples = examples(glob);
        let named = self.systemd.exact.keys().filter(|key| glob.covers(key));
        examples
            .iter()
            .chain(named)
            .filter(|key| meant(key))
            .find_map(|key| self.conflict(key, want, None))
    }
}

/// Keys that a pattern means whatever interfaces there are: one that may still come, and those
/// that are always there.
fn examples(glob: &Glob) -> Vec<Key> {
    let text = glob.as_str();
    let with = |place: &str| catalogue::with_interface(text, place);
    let texts = [Some(text.replace(['*', '?'], "0")), with("all"), with("default")];
    let keys = texts.into_iter().flatten().filter_map(|text| Key::parse(&text).ok());
    keys.filter(|key| glob.covers(key)).collect()
}

/// Whether a value in a file does what is wanted.
fn meets(want: &Want, shape: Option<Shape>, value: &str, zero_unlimited: bool) -> bool {
    let words = |text: &str| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    let same = || match want {
        Want::Value(wanted) => words(wanted) == words(value),
        Want::OneOf(wanted) => wanted.iter().any(|wanted| words(wanted) == words(value)),
        // Without a shape nothing can be said of bounds, so nothing is.
        Want::Bounds { .. } => shape.is_none(),
    };
    let goal = shape.and_then(|shape| Some((shape, want.compile(shape).ok()?)));
    match goal {
        Some((shape, goal)) => {
            let read = reading::as_kernel(shape, value).unwrap_or_else(|_| shape.read(value));
            goal.met(&read, zero_unlimited)
        }
        None => same(),
    }
}

/// A value for people: single spaces, escaped, not endless.
#[must_use]
pub fn shown(value: &str) -> String {
    let text = show(value);
    match text.char_indices().nth(MOST_SHOWN) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

fn path(file: &Found) -> String {
    match file.directory.and_then(|index| DIRECTORIES.get(index)) {
        Some(directory) => format!("{directory}/{}", escape(file.name.as_bytes())),
        None => SYSCTL_CONF.to_owned(),
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
