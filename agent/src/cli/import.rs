//! `headroom import`: what the host's sysctl.d sets, as a configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use headroom::agent::once;
use headroom::config::import::{Entry, entries, render};
use headroom::config::load::{Origin, judge};
use headroom::config::problem::Severity;
use headroom::kernel::sysctl_d;
use headroom::sysctl::disk::{Disk, Problem};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Exit, Format, out, output};

/// What was found, and the configuration that wants the same.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Imported {
    /// Always `headroom.import/v1`.
    schema: &'static str,
    /// The files, in the order in which they are read.
    files: Vec<File>,
    /// Every key or pattern that is set: patterns first, in their order.
    keys: Vec<Entry>,
    /// What is wrong in the files, or could not be read.
    problems: Vec<Problem>,
    /// Why there is nothing, if so.
    notice: Option<String>,
    /// The configuration, as it is printed without `-o json`.
    document: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct File {
    path: String,
    link: Option<String>,
    masked_by: Option<String>,
    /// Whether systemd-sysctl reads it.
    systemd: bool,
    /// Whether `sysctl --system` reads it.
    procps: bool,
}

pub fn run(root: Option<PathBuf>, format: &Format) -> Exit {
    // A container's own /proc/sys is the kernel's; beneath /host there may be parts of it only.
    let tree = root.as_ref().map(|root| root.join("proc/sys")).filter(|tree| tree.is_dir());
    let tree = tree.unwrap_or_else(|| PathBuf::from("/proc/sys"));
    let disk = once::disk(root.or_else(sysctl_d::default_root).as_deref());
    let imported = import(&disk, &tree);
    for problem in &imported.problems {
        output::error(problem);
    }
    let nothing = "no sysctl.d file was found";
    match &imported.notice {
        Some(notice) => output::error(&format_args!("headroom: {notice}")),
        None if disk.files.is_empty() => output::error(&format_args!("headroom: {nothing}")),
        None => {}
    }
    let out = out(format);
    if out.is_json() {
        out.document(&imported);
    } else {
        out.line(imported.document.trim_end());
    }
    if disk.is_partial() { Exit::Failed } else { Exit::Ok }
}

fn import(disk: &Disk, tree: &Path) -> Imported {
    // Patterns look at the same directories again and again.
    let mut known: HashMap<String, Vec<String>> = HashMap::new();
    let mut list = |directory: &str| {
        let names = || sysctl_d::keys(tree, directory);
        known.entry(directory.to_owned()).or_insert_with(names).clone()
    };
    let keys = entries(disk, &mut list);
    let document = render(disk, &keys);
    let mut problems = disk.problems.clone();
    problems.extend(too_large(&document));
    let files = disk.files.iter().map(|file| File {
        path: file.path.clone(),
        link: file.link.clone(),
        masked_by: file.masked_by.clone(),
        systemd: file.systemd,
        procps: file.procps,
    });
    Imported {
        schema: "headroom.import/v1",
        files: files.collect(),
        keys,
        problems,
        notice: disk.notice.clone(),
        document,
    }
}

/// Each line was judged; all of them together can still be more than a configuration may have.
fn too_large(document: &str) -> Option<Problem> {
    let error = judge(Origin::Embedded, document.as_bytes()).err()?;
    let whole = |problem: &&headroom::config::problem::Problem| {
        problem.severity == Severity::Error && problem.code.starts_with("too-")
    };
    let found = error.problems.iter().find(whole)?;
    Some(Problem {
        file: "the configuration".to_owned(),
        line: None,
        message: found.message.clone(),
        unread: false,
    })
}
