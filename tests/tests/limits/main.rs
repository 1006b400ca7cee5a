//! Limits on a real kernel: each is driven to the refusal, and what was said to remain is what was
//! then possible.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod calls;
mod network;
mod node;

use std::path::{Path, PathBuf};

use headroom::limits::cgroups::Cgroups;
use headroom::limits::tcp::Tcp;
use headroom::limits::{Limit, Reader, Roots, cheap, dear};

fn roots() -> Roots {
    Roots {
        proc: PathBuf::from("/proc"),
        sys: PathBuf::from("/sys"),
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        ..Roots::default()
    }
}

/// `/proc` as a thread in a network namespace of its own should see it: `/proc/net` is the main
/// thread's.
fn roots_of_thread(directory: &Path) -> Roots {
    std::os::unix::fs::symlink("/proc/sys", directory.join("sys")).unwrap();
    std::os::unix::fs::symlink("/proc/thread-self/net", directory.join("net")).unwrap();
    Roots { proc: directory.to_owned(), ..roots() }
}

/// The limit of one object, as its reader has it now.
fn limit(reader: &mut dyn Reader, name: &str, object: &str) -> Limit {
    let limits = reader.read();
    let found = limits.iter().find(|limit| limit.about.name == name && limit.object == object);
    found.unwrap_or_else(|| panic!("no {name} {object} in {limits:?}")).clone()
}

fn remaining(limit: &Limit) -> u64 {
    limit.max.unwrap().checked_sub(limit.used.unwrap()).unwrap_or_else(|| panic!("{limit:?}"))
}

/// A number of the host's `/proc/sys`.
fn number(path: &str) -> u64 {
    let text = std::fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap();
    text.trim().parse().unwrap()
}

fn set(path: &str, value: u64) {
    std::fs::write(Path::new("/proc/sys").join(path), value.to_string()).unwrap();
}

#[test]
fn everything_that_this_kernel_has_is_read() {
    let mut readers = cheap(&roots());
    readers.push(Box::new(Cgroups::new(&roots())));
    readers.push(Box::new(Tcp::new(&roots())));
    for mut reader in readers {
        for limit in reader.read() {
            let name = (limit.about.name, &limit.object);
            assert_eq!(limit.unknown, None, "{name:?}");
            let said = limit.used.is_some() || limit.hits.is_some();
            assert!(said, "{name:?} says nothing");
        }
    }
}

/// What rendering the metrics takes, in microseconds of CPU time.
fn scrape(mut readers: Vec<Box<dyn Reader>>) -> f64 {
    use headroom::kernel::system::thread_cpu_time;
    let node = headroom::node::Node::default();
    node.on_scrape(move |state| drop(headroom::limits::ask_all(&mut readers, state)));
    let metrics = headroom::serve::metrics::Metrics::new(node).unwrap();
    let once = || {
        let before = thread_cpu_time();
        let _ = metrics.render().unwrap();
        thread_cpu_time().saturating_sub(before).as_secs_f64() * 1e6
    };
    (0..200).map(|_| once()).fold(f64::MAX, f64::min)
}

/// Prints what the readers cost; how long that took is no verdict.
#[test]
#[ignore = "prints a measurement"]
fn what_a_reading_costs() {
    use headroom::kernel::system::thread_cpu_time;
    let mut all = 0.0;
    for (kind, readers) in [("cheap", cheap(&roots())), ("dear", dear(&roots()))] {
        for mut reader in readers {
            let best = (0..200)
                .map(|_| {
                    let before = thread_cpu_time();
                    let _ = reader.read();
                    thread_cpu_time().saturating_sub(before)
                })
                .min()
                .unwrap();
            let micros = best.as_secs_f64() * 1e6;
            if kind == "cheap" {
                all += micros;
            }
            eprintln!("{kind} {:16} {micros:6.1} us", reader.name());
        }
    }
    eprintln!("cheap together     {all:6.1} us");
    for (kind, readers) in [("without", Vec::new()), ("with", cheap(&roots()))] {
        eprintln!("scrape {kind:7} limits {:6.1} us", scrape(readers));
    }
}
