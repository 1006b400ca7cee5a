//! `make conformance`: who keeps which rule about `sysctl.d`, keys, values and exit codes.
//!
//! Prints the table and, with `--out`, writes the page of the documentation. Fails where Headroom
//! fails a case. The machine's own files and keys are not touched.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that prints a table

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use headroom_tests::conformance::{self, Row, Tool, Verdict};
use headroom_tests::root_or_skip;

const USAGE: &str = "\
usage: conformance [--headroom PATH] [--out FILE] [--only TEXT] [--verbose]

  --headroom PATH   the agent's binary (default target/debug/headroom)
  --out FILE        write the page of the documentation there
  --only TEXT       cases whose group or name has this text
  --verbose         what the tools printed where they do not pass";

struct Options {
    headroom: PathBuf,
    out: Option<PathBuf>,
    only: String,
    verbose: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            headroom: "target/debug/headroom".into(),
            out: None,
            only: String::new(),
            verbose: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--headroom" => options.headroom = value()?.into(),
                "--out" => options.out = Some(value()?.into()),
                "--only" => options.only = value()?,
                "--verbose" => options.verbose = true,
                other => return Err(format!("{other}: unknown argument")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("conformance: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether Headroom passes all that it claims.
fn run(options: &Options) -> Result<bool, Box<dyn std::error::Error>> {
    // /proc/self belongs to the effective user.
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Err("needs root: it makes namespaces and mounts of its own".into());
    }
    let headroom = &options.headroom;
    let headroom =
        headroom.canonicalize().map_err(|error| format!("{}: {error}", headroom.display()))?;
    let there = |tool: &Tool| {
        let there = tool.version(&headroom).is_some();
        if !there {
            eprintln!("{} is not installed: its column is left out", tool.name());
        }
        there
    };
    let tools: Vec<Tool> = Tool::all().iter().copied().filter(there).collect();
    let mut cases = conformance::all();
    cases.retain(|case| case.group.contains(&options.only) || case.name.contains(&options.only));
    let rows = {
        let host = root_or_skip().ok_or("needs root")?;
        conformance::run(&host, cases, &tools, &headroom)
    };
    print!("{}", conformance::text(&rows));
    if options.verbose {
        what_was_said(&rows);
    }
    if let Some(out) = &options.out {
        let page = conformance::markdown(&rows, &headroom, &machine()?);
        std::fs::write(out, page).map_err(|error| format!("{}: {error}", out.display()))?;
        eprintln!("written to {}", out.display());
    }
    let failed = |row: &Row| {
        let cells = row.cells.iter().filter(|cell| cell.tool == Tool::Headroom);
        cells.into_iter().any(|cell| matches!(cell.verdict, Verdict::Fail(_) | Verdict::NoRule(_)))
    };
    Ok(!rows.iter().any(failed))
}

fn what_was_said(rows: &[Row]) {
    for row in rows {
        for cell in &row.cells {
            if !matches!(cell.verdict, Verdict::Pass | Verdict::NotApplicable(_)) {
                println!("\n== {} · {} · {:?}", row.case.name, cell.tool.name(), cell.verdict);
                println!("{}", cell.said.trim_end());
            }
        }
    }
}

/// The distribution and the kernel.
fn machine() -> Result<String, Box<dyn std::error::Error>> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{}, kernel {}", name.unwrap_or("Linux").trim_matches('"'), kernel.trim()))
}
