//! Reading limits: the cheap ones at every scrape, the dear ones on a slow schedule.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::{error, warn};

use super::supervise::{Failure, blocking, current, recovered};
use super::{Context, neighbors};
use crate::config::Config;
use crate::kernel::{kubepods, node_file, system};
use crate::limits::pressure::CpuPressure;
use crate::limits::{self, Limit, Reader, Roots};
use crate::node::NodeState;
use crate::pods::state::Pods;

/// Share of a core that each dear reader may take: its interval stretches to stay below.
pub const SHARE: f64 = 0.0005;
/// Between two points of the history.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);
/// Between two counts of pods.
const COUNT_EVERY: Duration = Duration::from_secs(10);
/// Readers that are due within so long are asked in one go.
const TOGETHER: Duration = Duration::from_secs(1);
/// Far more than a node can have.
const MOST_PODS: usize = 1 << 16;

/// Where readers of limits find the kernel.
fn roots(roots: &super::Roots, config: &Config) -> Roots {
    let (proc, sys) = (roots.proc.clone(), roots.sys.clone());
    let cgroup = kubepods::cgroup_root(&sys);
    Roots { proc, sys, cgroup, netns: config.pod_namespaces.directories.clone() }
}

/// What a scrape reads: kept descriptors and the agent's own cost. No lock that pod creation holds is
/// taken. `right_place`: the agent is in the network namespace whose limits these are.
pub fn prepare_scrape(context: &Context, right_place: bool) {
    let mut neighbors = neighbors::at_scrape(context);
    let mut readers = if right_place {
        limits::cheap(&roots(&context.roots, &current(context)))
    } else {
        Vec::new()
    };
    let mut pressure = CpuPressure::new(&roots(&context.roots, &current(context)));
    let facts = system::self_facts();
    context.node.on_scrape(move |state| {
        neighbors(state);
        collect(state, "limits", |state| {
            limits::read_all(&mut readers, state);
            failures(state)
        });
        collect(state, "pressure", |state| {
            let stalled = pressure.read();
            let error = stalled.as_ref().err().map(ToString::to_string);
            state.cpu_stalled = stalled.unwrap_or_default();
            error
        });
        collect(state, "process", |state| {
            let usage = system::self_usage(&facts);
            let error = usage.as_ref().err().cloned();
            state.process = usage.ok();
            error
        });
    });
}

fn collect(
    state: &mut NodeState,
    name: &'static str,
    read: impl FnOnce(&mut NodeState) -> Option<String>,
) {
    let started = Instant::now();
    let error = read(state);
    if state.collected(name, error.clone(), started.elapsed())
        && let Some(reason) = error
    {
        warn!(collector = name, reason, "cannot be read");
    }
}

/// What a scrape reads and what failed there.
fn failures(state: &NodeState) -> Option<String> {
    // A right or a mount that is missing is told with the limit, and is no failure.
    let cheap = state.limits.values().flatten().filter(|it| it.read_at.is_none() && it.failed);
    let failed: Vec<String> = cheap.filter_map(failure).collect();
    (!failed.is_empty()).then(|| failed.join("; "))
}

fn failure(limit: &Limit) -> Option<String> {
    Some(format!("{} {}: {}", limit.about.name, limit.object, limit.unknown.as_ref()?))
}

/// A dear reader and when it is due.
struct Dear {
    reader: Box<dyn Reader>,
    due: Instant,
}

/// All of them under a configuration, due now.
fn dear(context: &Context, config: &Config) -> Vec<Dear> {
    let readers = limits::dear(&roots(&context.roots, config)).into_iter();
    readers.map(|reader| Dear { reader, due: Instant::now() }).collect()
}

/// Reads the dear limits, one after the other, each at its own pace, and counts pods. All of it anew
/// when the configuration has pods' namespaces elsewhere.
pub async fn read_slowly(mut context: Context) -> Result<(), Failure> {
    let mut config = current(&context);
    let mut dear = self::dear(&context, &config);
    let mut count_at = Instant::now();
    loop {
        if count_at <= Instant::now() {
            count_pods(&context).await?;
            count_at = Instant::now() + COUNT_EVERY;
        }
        for index in 0..dear.len() {
            let Some(one) = dear.get_mut(index).filter(|one| one.due <= Instant::now()) else {
                continue;
            };
            let reader = std::mem::replace(&mut one.reader, Box::new(Away));
            let pods = context.node.read(|state| state.pod_count);
            let reading = blocking(reader, move |reader| read(reader.as_mut(), pods));
            let (reader, Reading { limits, cost, panicked }) = reading.await?;
            one.due = Instant::now() + reader.every().max(cost.div_f64(SHARE));
            let name = reader.name();
            one.reader = reader;
            context.node.update(|state| {
                state.limits.insert(name, limits);
                // Seen by its failure alone.
                if panicked || state.collectors.contains_key(name) {
                    let error = panicked.then(|| "it panicked: this is a bug".to_owned());
                    state.collected(name, error, cost);
                }
            });
        }
        recovered(&context.node, "limits");
        let next = dear.iter().map(|one| one.due).fold(count_at, Instant::min);
        let next = next.max(Instant::now() + TOGETHER);
        tokio::select! {
            () = sleep_until(next.into()) => {}
            changed = context.config.changed() => {
                changed.map_err(|_| "the agent is stopping".to_owned())?;
                let before = std::mem::replace(&mut config, current(&context));
                if before.pod_namespaces.directories != config.pod_namespaces.directories {
                    dear = self::dear(&context, &config);
                    count_at = Instant::now();
                }
            }
        }
    }
}

/// Remembers what limits use, so that what a pod costs and where a trend leads can be told.
pub async fn remember(context: Context) -> Result<(), Failure> {
    loop {
        // Fresh numbers: no scrape may have come by.
        context.node.fresh(|state| {
            let limits = limits::all(state);
            state.history.record(&limits, state.pod_count, Instant::now());
        });
        recovered(&context.node, "capacity");
        sleep_until((Instant::now() + REMEMBER_EVERY).into()).await;
    }
}

/// Reads every limit once, where no agent runs.
pub fn look(from: &super::Roots, config: &Config, state: &mut NodeState) -> Result<(), String> {
    let roots = roots(from, config);
    limits::read_all(&mut limits::cheap(&roots), state);
    let failed = failures(state);
    limits::read_all(&mut limits::dear(&roots), state);
    state.pod_count = count_files(&config.pod_namespaces.directories);
    failed.map_or(Ok(()), Err)
}

/// How many pods have a network namespace: what the pods' task knows, else how many files there are
/// where namespaces are kept. None is opened for it.
async fn count_pods(context: &Context) -> Result<(), Failure> {
    let known = context.node.read(|state| state.pods.as_ref().and_then(Pods::count));
    let count = match known {
        Some(count) => Some(count),
        None => {
            let directories = current(context).pod_namespaces.directories.clone();
            blocking(directories, |directories| count_files(directories)).await?.1
        }
    };
    context.node.update(|state| state.pod_count = count);
    Ok(())
}

/// `None` where one of the directories cannot be read: fewer than there are would be said. One that
/// is not there is made with the first namespace. In a container it may only not be mounted; there the
/// one above it is missing as well, as long as nothing else is mounted in that.
fn count_files(directories: &[PathBuf]) -> Option<u64> {
    let mut count = 0;
    for directory in directories {
        let listed = node_file::each(directory, MOST_PODS, |_| count += 1);
        let none_yet = || {
            let above = directory.parent().is_some_and(node_file::is_directory);
            above && !node_file::is_directory(directory)
        };
        if listed.is_err() && !none_yet() {
            return None;
        }
    }
    Some(count)
}

/// `pods`: how many there are now. A reader that panics loses its own numbers, and no one else's.
fn read(reader: &mut dyn Reader, pods: Option<u64>) -> Reading {
    let before = system::thread_cpu_time();
    let read = catch_unwind(AssertUnwindSafe(|| reader.read()));
    let panicked = read.is_err();
    if panicked {
        error!(limit = reader.name(), "reading it panicked: this is a bug");
    }
    let mut limits = read.unwrap_or_default();
    let now = Some(Instant::now());
    for limit in &mut limits {
        limit.read_at = now;
        limit.pods_then = limit.pods_then.or(pods);
    }
    Reading { limits, cost: system::thread_cpu_time().saturating_sub(before), panicked }
}

/// What came of one.
struct Reading {
    limits: Vec<Limit>,
    cost: Duration,
    panicked: bool,
}

/// Stands where a reader is at work on another thread.
struct Away;

impl Reader for Away {
    fn name(&self) -> &'static str {
        "away"
    }

    fn read(&mut self) -> Vec<Limit> {
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_counted_by_their_files_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
        std::fs::create_dir(&first).unwrap();
        assert_eq!(count_files(std::slice::from_ref(&first)), Some(0));
        std::fs::write(first.join("a"), "").unwrap();
        let both = [first.clone(), second.clone()];
        assert_eq!(count_files(&both), Some(1), "no pod was in the other yet");
        let hidden = [dir.path().join("not-mounted/netns")];
        assert_eq!(count_files(&hidden), None);
        std::fs::create_dir(&second).unwrap();
        std::fs::write(second.join("b"), "").unwrap();
        assert_eq!(count_files(&both), Some(2));
    }
}
