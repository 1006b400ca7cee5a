//! `make exhaustion`: limits driven to the kernel's refusal, beside what Headroom foretold.
//!
//! Prints one table and, with `--out`, puts it into the page of the documentation. Fails where a
//! limit cannot be driven, or was not foretold as well as it should be.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that prints a table

use std::any::Any;
use std::error::Error;
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use headroom_tests::exhaustion::{self, ALL, Bench, Row};
use headroom_tests::root_or_skip;
use nix::sys::signal::{SigSet, Signal};

const USAGE: &str = "\
usage: exhaustion [--only NAME]… [--out FILE]

  --only NAME   only this limit
  --out FILE    put the table between its marks in this page";

#[derive(Default)]
struct Options {
    only: Vec<String>,
    out: Option<PathBuf>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--only" => {
                    let name = value()?;
                    let names = ALL.map(|(name, _)| name);
                    if !names.contains(&name.as_str()) {
                        return Err(format!("--only {name}: one of {}", names.join(", ")));
                    }
                    options.only.push(name);
                }
                "--out" => options.out = Some(value()?.into()),
                other => return Err(format!("{other}: unknown argument")),
            }
        }
        Ok(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(code) = exhaustion::pod_main(&arguments) {
        return code;
    }
    if arguments.iter().any(|argument| argument == "--help" || argument == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(arguments.into_iter()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("exhaustion: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("exhaustion: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything was driven and foretold.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    // /proc/self belongs to the effective user.
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Err("needs root: it makes namespaces and users of its own".into());
    }
    let host = root_or_skip().ok_or("needs root")?;
    let bench = Bench { host: &host, program: std::env::current_exe()? };
    let mut results = Vec::new();
    for (name, drive) in ALL {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            eprintln!("{name} …");
            results.push((name, uninterrupted(|| drive(&bench))?));
        }
    }
    print!("{}", exhaustion::text(&results));
    if let Some(out) = &options.out {
        let page = std::fs::read_to_string(out);
        let page = page.map_err(|error| format!("{}: {error}", out.display()))?;
        let table = exhaustion::markdown(&results, &machine()?);
        std::fs::write(out, exhaustion::replace(&page, &table)?)?;
        eprintln!("written to {}", out.display());
    }
    Ok(results.iter().all(|(_, result)| result.as_ref().is_ok_and(Row::is_as_foretold)))
}

/// Runs one driver to its end: a lowered limit is put back before a signal ends the run, and a
/// panic costs one row.
fn uninterrupted(drive: impl FnOnce() -> Result<Row, String>) -> nix::Result<Result<Row, String>> {
    let signals = SigSet::from_iter([Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block()?;
    let result = catch_unwind(AssertUnwindSafe(drive)).unwrap_or_else(|panic| Err(said(&*panic)));
    signals.thread_unblock()?;
    Ok(result)
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// The distribution and the kernel.
fn machine() -> Result<String, Box<dyn Error>> {
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{}, kernel {}", name.unwrap_or("Linux").trim_matches('"'), kernel.trim()))
}
