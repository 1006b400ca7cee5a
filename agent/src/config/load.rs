//! Finding, reading and judging a configuration.

use std::path::{Path, PathBuf};

use super::Config;
use super::check::check;
use super::de::from_node;
use super::document::Document;
use super::problem::{Problem, Problems};
use super::yaml;
use crate::kernel::name::escape;
use crate::kernel::state_dir;

/// Where a configuration is looked for when none is named.
pub const DEFAULT_PATH: &str = "/etc/headroom/config.yaml";
/// The document that is used when there is none.
pub const EMBEDDED: &str = include_str!("default.yaml");

/// Where a configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The agent itself.
    Embedded,
}

impl Origin {
    /// For people: the path, or `embedded default`.
    #[must_use]
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => escape(path.to_string_lossy().as_bytes()),
            Self::Embedded => "embedded default".to_owned(),
        }
    }
}

/// A configuration and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Where it was found.
    pub origin: Origin,
    /// A hash of its text, 16 hexadecimal digits.
    pub hash: String,
    /// What should be looked at.
    pub warnings: Vec<Problem>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}", shown(origin, problems))]
pub struct LoadError {
    /// Where it was found.
    pub origin: Origin,
    /// Everything that is wrong with it, and what should be looked at.
    pub problems: Problems,
    /// Where it would have the agent answer: an agent that runs with the last good configuration
    /// most likely does.
    pub socket: Option<PathBuf>,
}

fn shown(origin: &Origin, problems: &Problems) -> String {
    let file = origin.shown();
    let lines: Vec<String> = problems.iter().map(|problem| problem.located(&file)).collect();
    lines.join("\n")
}

impl LoadError {
    /// Whether a file that was named is not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.problems.iter().any(|problem| problem.code == MISSING)
    }
}

/// The code of the problem that a named file is not there.
const MISSING: &str = "missing-file";

/// What is where a configuration is looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A file's content.
    Content(Vec<u8>),
    /// No file.
    Missing,
    /// Something that cannot be read, and why.
    Unreadable(String),
}

impl Found {
    /// Looks at the named file, or at the default one.
    #[must_use]
    pub fn at(named: Option<&Path>) -> Self {
        match state_dir::read(place(named), yaml::MAX_BYTES as u64) {
            Ok(Some(bytes)) => Self::Content(bytes),
            Ok(None) => Self::Missing,
            Err(error) => Self::Unreadable(error.to_string()),
        }
    }

    /// Judges it. A file that is named must be there; without the default one the embedded
    /// document is used.
    pub fn judge(self, named: Option<&Path>) -> Result<Loaded, LoadError> {
        let path = place(named);
        match self {
            Self::Content(bytes) => judge(Origin::File(path.to_owned()), &bytes),
            Self::Missing if named.is_none() => judge(Origin::Embedded, EMBEDDED.as_bytes()),
            Self::Missing => Err(failed(path, MISSING, "the file does not exist")),
            Self::Unreadable(why) => Err(failed(path, "unreadable", &why)),
        }
    }
}

/// Loads the named file, or the default one, or the embedded document. A file that is named must
/// be there.
pub fn load(named: Option<&Path>) -> Result<Loaded, LoadError> {
    Found::at(named).judge(named)
}

/// Where a configuration is looked for.
#[must_use]
pub fn place(named: Option<&Path>) -> &Path {
    named.unwrap_or(Path::new(DEFAULT_PATH))
}

/// The default file was in force and is gone: only a start falls back to the embedded document,
/// which may want much more than the file did.
#[must_use]
pub fn gone() -> LoadError {
    let why = "the file is gone; the next start would use the embedded default";
    failed(Path::new(DEFAULT_PATH), MISSING, why)
}

fn failed(path: &Path, code: &'static str, why: &str) -> LoadError {
    let problem = Problem::error(code, why);
    LoadError {
        origin: Origin::File(path.to_owned()),
        problems: Problems::from(vec![problem]),
        socket: None,
    }
}

/// Judges a document: all that is wrong with it at once, or the configuration.
pub fn judge(origin: Origin, bytes: &[u8]) -> Result<Loaded, LoadError> {
    let (root, syntax) = yaml::parse_partial(bytes);
    let mut problems = Problems::from(syntax);
    let (document, shape) = match &root {
        Some(root) => from_node::<Document>(root),
        // Nothing is known about what could not be read, not even that something is missing.
        None if problems.has_errors() => return Err(LoadError { origin, problems, socket: None }),
        None => (Some(Document::default()), Vec::new()),
    };
    problems.extend(shape);
    // What is left of a document with errors is checked too: its other errors are worth knowing.
    let config = document.map(|document| check(document, &mut problems));
    match config {
        Some(config) if !problems.has_errors() => {
            let warnings = problems.into_vec();
            Ok(Loaded { config, origin, hash: hash(bytes), warnings })
        }
        config => {
            let socket = config.map(|config| config.socket);
            Err(LoadError { origin, problems, socket })
        }
    }
}

/// FNV-1a, 64 bits: tells contents apart, the same on every build. Nobody is kept out by it.
pub(super) fn hash(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn codes(document: &str) -> Vec<&'static str> {
        let error = judge(Origin::Embedded, document.as_bytes()).unwrap_err();
        error.problems.iter().map(|problem| problem.code).collect()
    }

    /// What could not be read is not known to be missing.
    #[test]
    fn a_syntax_error_is_told_alone() {
        let unread = "apiVersion: headroom/v1\nkind: AgentConfig\nsysctls: [\n";
        assert_eq!(codes(unread), ["syntax"]);
        assert_eq!(codes("a: 1\n---\nb: 2\n"), ["multiple-documents"]);
        // Nothing at all is a document that lacks what it must have.
        assert_eq!(codes(""), ["missing-field", "missing-field"]);
        assert_eq!(codes("# nothing\n"), ["missing-field", "missing-field"]);
    }

    #[test]
    fn problems_are_shown_with_their_file() {
        let nowhere = failed(Path::new("nosuch"), "unreadable", "EACCES");
        assert_eq!(nowhere.to_string(), "nosuch: error[unreadable] EACCES");
        let origin = Origin::File("x.yaml".into());
        let error = judge(origin, b"kind: AgentConfig\nmode: 1\n").unwrap_err().to_string();
        assert!(error.lines().any(|line| line.starts_with("x.yaml:2:7: error[")), "{error}");
    }
}
