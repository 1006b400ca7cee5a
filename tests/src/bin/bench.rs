//! `make bench`: what Headroom costs, beside the programs that do parts of the same work.
//!
//! One run answers these questions and writes them down as one Markdown document:
//! what a scrape costs beside `prometheus-node-exporter`, how much memory both hold, how long
//! a first pass over 100 keys takes beside `sysctl` and `systemd-sysctl`, how fast a drift is put
//! right, what a sweep without drift costs beside `sysctl -a` and TuneD, and what an idle hour
//! costs, the last three without pods' namespaces on the node and with 1000; and what all of it costs
//! on a dense node with every limit read.
//!
//! It needs root and the initial network namespace. Everything it makes is called `hrbench…` and is
//! removed at the end, after a panic, on SIGINT, SIGTERM and SIGHUP, and before the next run starts.
//! Host sysctls are never changed. A missing `headroom` binary costs its column (`n/a`), not the run.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that prints a table

#[path = "../bench/apply.rs"]
mod apply;
#[path = "../bench/cost.rs"]
mod cost;
#[path = "../bench/cpu.rs"]
mod cpu;
#[path = "../bench/dense.rs"]
mod dense;
#[path = "../bench/drift.rs"]
mod drift;
#[path = "../bench/idle.rs"]
mod idle;
#[path = "../bench/machine.rs"]
mod machine;
#[path = "../bench/playground.rs"]
mod playground;
#[path = "../bench/pods.rs"]
mod pods;
#[path = "../bench/programs.rs"]
mod programs;
#[path = "../bench/report.rs"]
mod report;
#[path = "../bench/report_dense.rs"]
mod report_dense;
#[path = "../bench/report_pods.rs"]
mod report_pods;
#[path = "../bench/report_upkeep.rs"]
mod report_upkeep;
#[path = "../bench/room.rs"]
mod room;
#[path = "../bench/scrape.rs"]
mod scrape;
#[path = "../bench/stop.rs"]
mod stop;
#[path = "../bench/sweep.rs"]
mod sweep;
#[path = "../bench/tuned.rs"]
mod tuned;
#[path = "../bench/upkeep.rs"]
mod upkeep;

use std::error::Error;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// What everything here returns: the text of an error is all that is done with it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "\
usage: bench [--headroom PATH] [--out FILE] [--only PART] [--quick] [--scrapes N]

  --headroom PATH   the agent's binary (default target/release/headroom)
  --out FILE        write the Markdown document there as well as to standard output
  --only PART       scrape: latency, CPU and memory; apply: the first pass over 100 keys;
                    drift: how fast it is put right; sweep: 100 keys without drift;
                    idle: 5 minutes without and with pods;
                    pods: how soon 1000 pods' namespaces are tuned, and what that costs;
                    dense: a scrape with everything on, 1000 pods and 100 000 neighbor entries
  --quick           few scrapes, passes, drifts and sweeps, and 10 s instead of 5 minutes
  --scrapes N       that many scrapes a scenario and program";

/// The parts that `--only` chooses from.
const PARTS: [&str; 7] = ["scrape", "apply", "drift", "sweep", "idle", "pods", "dense"];

/// The command line.
struct Options {
    headroom: PathBuf,
    out: Option<PathBuf>,
    only: Option<String>,
    quick: bool,
    scrapes: Option<usize>,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options = Self {
            headroom: "target/release/headroom".into(),
            out: None,
            only: None,
            quick: false,
            scrapes: None,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--headroom" => options.headroom = value()?.into(),
                "--out" => options.out = Some(value()?.into()),
                "--only" => {
                    let part = value()?;
                    if !PARTS.contains(&part.as_str()) {
                        return Err(format!("--only {part}: one of {}", PARTS.join(", ")).into());
                    }
                    options.only = Some(part);
                }
                "--quick" => options.quick = true,
                "--scrapes" => options.scrapes = Some(value()?.parse::<usize>()?.max(1)),
                other => return Err(format!("{other}: unknown argument").into()),
            }
        }
        Ok(options)
    }

    /// The length of a part: that of a quick run or of a full one, nothing if it is left out.
    fn length<T>(&self, part: &str, quick: T, full: T) -> Option<T> {
        let wanted = self.only.as_ref().is_none_or(|only| only == part);
        wanted.then_some(if self.quick { quick } else { full })
    }

    fn dense(&self) -> Option<dense::Length> {
        let length = |pods, neighbors, scrapes, idle| dense::Length {
            pods,
            neighbors,
            scrapes,
            idle: Duration::from_secs(idle),
        };
        self.length("dense", length(100, 10_000, 10, 10), length(1000, 100_000, 30, 60))
    }

    fn upkeep(&self) -> upkeep::Plan {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let [quick, full] =
            [(5, 3), (100, 20)].map(|(sweeps, rounds)| sweep::Length { sweeps, rounds });
        upkeep::Plan {
            drifts: self.length("drift", 50, 1000),
            sweep: self.length("sweep", quick, full),
            idle: self.length("idle", Duration::from_secs(10), minutes(5)),
        }
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
    let scrapes = options.length("scrape", 5, 30).map(|count| options.scrapes.unwrap_or(count));
    let scrapes = scrapes.map(|count| scrape::run(&mut playground, headroom.as_deref(), count));
    let scrapes = scrapes.transpose()?;
    playground.clear()?;
    let passes = options.length("apply", 5, 20);
    let passes = passes.map(|count| apply::run(headroom.as_deref(), count)).transpose()?;
    let upkeep = upkeep::run(&mut playground, headroom.as_deref(), options.upkeep())?;
    playground.clear()?;
    let dense = options.dense().zip(headroom.as_deref());
    let dense = dense
        .map(|(length, headroom)| dense::run(&mut playground, headroom, length))
        .transpose()?;
    drop(playground);
    let pods = options.length("pods", 50, 1000).zip(headroom.as_deref());
    let pods = pods.map(|(count, headroom)| pods::run(headroom, count)).transpose()?;

    let document = report::document(
        &machine,
        scrapes.as_ref(),
        passes.as_ref(),
        &upkeep,
        pods.as_ref(),
        dense.as_ref(),
    );
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
    Ok(tempfile::Builder::new()
        .prefix(playground::SCRATCH)
        .tempdir_in(playground::scratch_root())?)
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
