//! `make vm-test`: the tests on Debian's kernels, in virtual machines, with real modules; and
//! where these kernels differ.
//!
//! A kernel is fetched from Debian and unpacked, never installed. The virtual machine is emulated
//! in software, has no disk and no network, and runs from an archive in memory: busybox, `ip`, the
//! kernel's modules, the agent's static binary and static test binaries. Whatever hangs is killed.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program that prints a table

#[path = "../vm/archive.rs"]
mod archive;
#[path = "../vm/build.rs"]
mod build;
#[path = "../vm/initramfs.rs"]
mod initramfs;
#[path = "../vm/kernels.rs"]
mod kernels;
#[path = "../vm/machine.rs"]
mod machine;
#[path = "../vm/report.rs"]
mod report;
#[path = "../vm/results.rs"]
mod results;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use kernels::{Kernel, WANTED, Wanted};
use results::Results;

/// What everything here returns: the text of an error is all that is done with it.
type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "\
usage: vm [--kernel NAME]… [--test NAME]… [--out FILE] [--work DIRECTORY]

  --kernel NAME     6.1, 6.12 or newest (default: all)
  --test NAME       a test binary of headroom-tests (default: those that need no other program)
  --out FILE        write the Markdown document there as well as to standard output
  --work DIRECTORY  where kernels and builds are kept (default target/vm)";

/// The test binaries that run inside: those that look at the kernel.
const TESTS: [&str; 20] = [
    "kernel_versions",
    "kernel_facts",
    "sysctl_engine",
    "namespaces",
    "neighbors",
    "neighbors_scan",
    "limits_dear",
    "bridges",
    "capacity",
    "touch",
    "watching",
    "reload",
    "restarts",
    "agent",
    "scenarios",
    "appearing",
    "pods",
    "pods_values",
    "modules",
    "vm_modules",
];

/// Far above what a test binary takes, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(900);

/// The command line.
struct Options {
    kernels: Vec<&'static Wanted>,
    tests: Vec<String>,
    out: Option<PathBuf>,
    work: PathBuf,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut options =
            Self { kernels: Vec::new(), tests: Vec::new(), out: None, work: "target/vm".into() };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--kernel" => {
                    let name = value()?;
                    let wanted = WANTED.iter().find(|wanted| wanted.name == name);
                    options.kernels.push(wanted.ok_or(format!("--kernel {name}: not known"))?);
                }
                "--test" => options.tests.push(value()?),
                "--out" => options.out = Some(value()?.into()),
                "--work" => options.work = value()?.into(),
                other => return Err(format!("{other}: unknown argument").into()),
            }
        }
        if options.kernels.is_empty() {
            options.kernels = WANTED.iter().collect();
        }
        if options.tests.is_empty() {
            options.tests = TESTS.map(str::to_owned).to_vec();
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
            eprintln!("vm: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match go(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the tests on every kernel and prints the document; whether all tests passed.
fn go(options: &Options) -> Outcome<bool> {
    if !cfg!(target_arch = "x86_64") {
        return Err("only Debian's kernels for amd64 are known here".into());
    }
    std::fs::create_dir_all(&options.work)?;
    let kernels = options.kernels.iter().map(|wanted| kernels::get(wanted, &options.work));
    let kernels = kernels.collect::<Outcome<Vec<_>>>()?;
    let programs = build::programs(&options.work.join("build"), &options.tests)?;
    let mut all = Vec::new();
    for (kernel, wanted) in kernels.into_iter().zip(&options.kernels) {
        let mut results = Results::default();
        for test in &programs.tests {
            let initramfs = options.work.join("initramfs.cpio");
            std::fs::write(&initramfs, initramfs::build(&kernel, &programs.headroom, test)?)?;
            eprintln!("== {}: {}", kernel.release, test.0);
            let console = machine::boot(&kernel, &initramfs, LIMIT)?;
            let log = options.work.join("consoles").join(wanted.name).join(&test.0);
            std::fs::create_dir_all(log.parent().unwrap_or(&log))?;
            std::fs::write(log.with_extension("log"), console.join("\n"))?;
            results.add(&test.0, &console);
        }
        all.push((kernel, results));
    }
    let document = report::document(&all);
    print!("{document}");
    if let Some(out) = &options.out {
        std::fs::write(out, &document).map_err(|error| format!("{}: {error}", out.display()))?;
    }
    Ok(all.iter().all(|(_, results): &(Kernel, Results)| results.is_good()))
}

/// Runs a program that has to succeed.
fn run(command: &mut Command) -> Outcome<()> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// What a program that has to succeed prints.
fn text_of(command: &mut Command) -> Outcome<String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{command:?}: {}: {}", output.status, why.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The regular files below a directory.
fn files(directory: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let kind = path.symlink_metadata()?.file_type();
        if kind.is_dir() {
            found.extend(files(&path)?);
        } else if kind.is_file() {
            found.push(path);
        }
    }
    Ok(found)
}
