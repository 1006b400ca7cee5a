//! Reading limits: the cheap ones at every scrape, the dear ones on a slow schedule.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::warn;

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
    let roots = roots(&context.roots, &current(context));
    let mut readers = if right_place { limits::cheap(&roots) } else { Vec::new() };
    let mut pressure = CpuPressure::new(&roots);
    let facts = system::self_facts();
    context.node.on_scrape(move |state| {
        neighbors(state);
        collect(state, "limits", |state| limits::ask_all(&mut readers, state));
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

/// A dear reader and when it is due.
struct Dear {
    reader: Box<dyn Reader>,
    due: Instant,
}

impl Dear {
    /// What it finds, and at what cost; due again as late as that asks for. `pods`: how many there are
    /// now.
    fn read(&mut self, pods: Option<u64>) -> (Result<Vec<Limit>, String>, Duration) {
        let before = system::thread_cpu_time();
        let mut found = limits::ask(self.reader.as_mut());
        let now = Instant::now();
        for limit in found.iter_mut().flatten() {
            limit.read_at = Some(now);
            limit.pods_then = limit.pods_then.or(pods);
        }
        let cost = system::thread_cpu_time().saturating_sub(before);
        self.due = now + self.reader.every().max(cost.div_f64(SHARE));
        (found, cost)
    }
}

fn first_due(dear: &[Dear]) -> Option<usize> {
    dear.iter().position(|one| one.due <= Instant::now())
}

fn publish(
    context: &Context,
    name: &'static str,
    found: Result<Vec<Limit>, String>,
    cost: Duration,
) {
    let error = found.as_ref().err().cloned();
    let changed = context.node.update(|state| {
        state.limits.insert(name, found.unwrap_or_default());
        // A collector of its own only once it fails.
        let shown = error.is_some() || state.collectors.contains_key(name);
        shown && state.collected(name, error.clone(), cost)
    });
    if let (true, Some(reason)) = (changed, error) {
        warn!(collector = name, reason, "cannot be read");
    }
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
        while let Some(index) = first_due(&dear) {
            let pods = context.node.read(|state| state.pod_count);
            let reading = blocking(dear.swap_remove(index), move |one| one.read(pods));
            let (one, (found, cost)) = reading.await?;
            publish(&context, one.reader.name(), found, cost);
            dear.push(one);
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
    let failed = limits::ask_all(&mut limits::cheap(&roots), state);
    // What fails there is told with its limit.
    let _ = limits::ask_all(&mut limits::dear(&roots), state);
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
