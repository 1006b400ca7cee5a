//! `headroom check`: validate configurations, with the agent's own code.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use headroom::config::load::{LoadError, Loaded, Origin, judge, load};
use headroom::config::problem::{Problem, Severity};
use headroom::config::yaml::MAX_BYTES;
use headroom::kernel::name::escape;
use schemars::JsonSchema;
use serde::Serialize;

use super::output::Tone;
use super::{Exit, Format, out};

/// What was found.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// Always `headroom.check/v1`.
    schema: &'static str,
    /// Whether all of them can be used.
    ok: bool,
    /// File by file.
    files: Vec<File>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct File {
    file: String,
    ok: bool,
    errors: usize,
    warnings: usize,
    problems: Vec<Problem>,
}

pub fn run(files: &[PathBuf], strict: bool, format: &Format) -> Exit {
    let files: Vec<File> = files.iter().map(|path| check(path, strict)).collect();
    let ok = files.iter().all(|file| file.ok);
    let checked = Checked { schema: "headroom.check/v1", ok, files };
    let out = out(format);
    if out.is_json() {
        out.document(&checked);
    } else {
        for file in &checked.files {
            for problem in &file.problems {
                let tone =
                    if problem.severity == Severity::Error { Tone::Bad } else { Tone::Notable };
                out.line(format_args!(
                    "{} {}",
                    out.paint(tone, tone.symbol()),
                    problem.located(&file.file)
                ));
            }
            let tone = if file.ok { Tone::Good } else { Tone::Bad };
            let verdict = match (file.errors, file.warnings) {
                (0, 0) => "ok".to_owned(),
                (errors, warnings) => format!("errors: {errors}, warnings: {warnings}"),
            };
            out.line(format_args!("{} {}: {verdict}", out.paint(tone, tone.symbol()), file.file));
        }
    }
    if ok { Exit::Ok } else { Exit::Usage }
}

fn check(path: &Path, strict: bool) -> File {
    let result = if path == Path::new("-") { standard_input() } else { load(Some(path)) };
    let problems = match result {
        Ok(loaded) => loaded.warnings,
        Err(error) => error.problems.into_vec(),
    };
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    File {
        file: escape(path.to_string_lossy().as_bytes()),
        ok: errors == 0 && !(strict && warnings > 0),
        errors,
        warnings,
        problems,
    }
}

fn standard_input() -> Result<Loaded, LoadError> {
    let mut bytes = Vec::new();
    let origin = Origin::File(PathBuf::from("-"));
    // One byte more than is allowed: the judge says that it is too long.
    match std::io::stdin().lock().take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes) {
        Ok(_) => judge(origin, &bytes),
        Err(error) => {
            let problem = Problem::error("unreadable", error.to_string());
            Err(LoadError { origin, problems: vec![problem].into(), socket: None })
        }
    }
}
