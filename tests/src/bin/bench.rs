//! `make bench`: what Headroom costs, beside the programs that do parts of the same work.
//!
//! One run answers three questions and writes them down as one Markdown document:
//! what a scrape costs beside `prometheus-node-exporter`, how much memory both hold, and how long
//! a first pass over 100 keys takes beside `sysctl` and `systemd-sysctl`.
//!
//! It needs root and the initial network namespace. Everything it makes is called `hrbench…` and is
//! removed at the end, after a panic, on SIGINT, SIGTERM and SIGHUP, and before the next run starts.
//! Host sysctls are never changed. A missing `headroom` binary costs its column (`n/a`), not the run.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that prints a table

#[path = "../bench/apply.rs"]
mod apply;
#[path = "../bench/cost.rs"]
mod cost;
#[path = "../bench/machine.rs"]
mod machine;
#[path = "../bench/playground.rs"]
mod playground;
#[path = "../bench/programs.rs"]
mod programs;
#[path = "../bench/report.rs"]
mod report;
#[path = "../bench/scrape.rs"]
mod scrape;
#[path = "../bench/stop.rs"]
mod stop;

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What everything here returns: the text of an error is all that is done with it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "\
usage: bench [--headroom PATH] [--out FILE] [--only scrape|apply] [--quick] [--scrapes N]

  --headroom PATH   the agent's binary (default target/release/headroom)
  --out FILE        write the Markdown document there as well as to standard output
  --only PART       scrape: latency, CPU and memory; apply: the first pass over 100 keys
  --quick           5 scrapes and 5 passes instead of 30 and 20
  --scrapes N       that many scrapes a scenario and program";

/// The command line.
struct Options {
    headroom: PathBuf,
    out: Option<PathBuf>,
    scrape: bool,
    apply: bool,
    scrapes: usize,
    passes: usize,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            headroom: "target/release/headroom".into(),
            out: None,
            scrape: true,
            apply: true,
            scrapes: 30,
            passes: 20,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--headroom" => options.headroom = value()?.into(),
                "--out" => options.out = Some(value()?.into()),
                "--only" => match value()?.as_str() {
                    "scrape" => options.apply = false,
                    "apply" => options.scrape = false,
                    other => return Err(format!("--only {other}: scrape or apply").into()),
                },
                "--quick" => (options.scrapes, options.passes) = (5, 5),
                "--scrapes" => options.scrapes = value()?.parse::<usize>()?.max(1),
                other => return Err(format!("{other}: unknown argument").into()),
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
            eprintln!("bench: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures what was asked for and prints the document.
fn run(options: &Options) -> Outcome<()> {
    check_rights()?;
    programs::end_orphans()?;
    programs::check_ports()?;
    stop::listen()?;
    if let Some(out) = &options.out {
        check_writable(out)?;
    }
    let headroom = find_headroom(&options.headroom);
    let machine = machine::describe(headroom.as_deref())?;
    // Dropped last, so that daemons end before the interfaces they look at vanish.
    let mut playground = playground::Playground::new()?;
    let scrape = if options.scrape {
        Some(scrape::run(&mut playground, headroom.as_deref(), options.scrapes)?)
    } else {
        None
    };
    playground.clear()?;
    let apply =
        if options.apply { Some(apply::run(headroom.as_deref(), options.passes)?) } else { None };
    drop(playground);

    let document = report::document(&machine, scrape.as_ref(), apply.as_ref());
    print!("{document}");
    if let Some(out) = &options.out {
        std::fs::write(out, &document).map_err(|error| format!("{}: {error}", out.display()))?;
        eprintln!("written to {}", out.display());
    }
    Ok(())
}

/// Root, and the namespace in which neighbor tables and all host keys can be seen.
fn check_rights() -> Outcome<()> {
    // /proc/self belongs to the effective user.
    if std::fs::metadata("/proc/self")?.uid() != 0 {
        return Err("needs root: it makes namespaces, bridges and neighbor entries".into());
    }
    if !Path::new(playground::ARP_COUNTERS).exists() {
        return Err("needs the initial network namespace: no neighbor counters here".into());
    }
    Ok(())
}

/// A directory for configurations, sockets and logs that goes away with its owner.
fn scratch() -> Outcome<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix(playground::SCRATCH).tempdir()?)
}

/// A document that cannot be written should fail before the measurements, not after.
fn check_writable(out: &Path) -> Outcome<()> {
    if let Some(directory) = out.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(out)
        .map_err(|error| format!("{}: {error}", out.display()))?;
    Ok(())
}

/// The agent's binary as an absolute path, or nothing and a line that says so.
fn find_headroom(path: &Path) -> Option<PathBuf> {
    let found = path.canonicalize().ok();
    if found.is_none() {
        eprintln!("{}: not there, so headroom's column stays empty", path.display());
    }
    found
}
