//! Reading limits: the cheap ones at every scrape, the dear ones on a slow schedule.

use std::time::{Duration, Instant};

use tokio::time::sleep_until;
use tracing::warn;

use super::supervise::{Failure, blocking, recovered};
use super::{Context, neighbors};
use crate::kernel::system;
use crate::limits::{self, Limit, Reader, Roots};
use crate::node::NodeState;

/// Share of a core that each dear reader may take: its interval stretches to stay below.
const SHARE: f64 = 0.0005;
/// Between two points of the history.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);
/// Between two looks at which reader is due.
const EVERY: Duration = Duration::from_secs(1);

/// Where readers of limits find the kernel.
pub fn roots(roots: &super::Roots) -> Roots {
    Roots { proc: roots.proc.clone(), sys: roots.sys.clone() }
}

/// What a scrape reads: kept descriptors and the agent's own cost. No lock that pod creation holds is
/// taken. `right_place`: the agent is in the network namespace whose limits these are.
pub fn prepare_scrape(context: &Context, right_place: bool) {
    let mut neighbors = neighbors::at_scrape(context);
    let mut readers = if right_place { limits::cheap(&roots(&context.roots)) } else { Vec::new() };
    let facts = system::self_facts();
    context.node.on_scrape(move |state| {
        neighbors(state);
        collect(state, "limits", |state| {
            limits::read_all(&mut readers, state);
            failures(state)
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
    let cheap = state.limits.values().flatten().filter(|limit| limit.read_at.is_none());
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

/// Reads the dear limits, one after the other, each at its own pace.
pub async fn read_slowly(context: Context) -> Result<(), Failure> {
    let readers = limits::dear(&roots(&context.roots)).into_iter();
    let mut dear: Vec<Dear> = readers.map(|reader| Dear { reader, due: Instant::now() }).collect();
    loop {
        for index in 0..dear.len() {
            let Some(one) = dear.get_mut(index).filter(|one| one.due <= Instant::now()) else {
                continue;
            };
            let reader = std::mem::replace(&mut one.reader, Box::new(Away));
            let (reader, (limits, cost)) = blocking(reader, |reader| read(reader.as_mut())).await?;
            one.due = Instant::now() + reader.every().max(cost.div_f64(SHARE));
            let name = reader.name();
            one.reader = reader;
            context.node.update(|state| state.limits.insert(name, limits));
        }
        recovered(&context.node, "limits");
        sleep_until((Instant::now() + EVERY).into()).await;
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
pub fn look(from: &super::Roots, state: &mut NodeState) -> Result<(), String> {
    limits::read_all(&mut limits::cheap(&roots(from)), state);
    let failed = failures(state);
    limits::read_all(&mut limits::dear(&roots(from)), state);
    failed.map_or(Ok(()), Err)
}

fn read(reader: &mut dyn Reader) -> (Vec<Limit>, Duration) {
    let before = system::thread_cpu_time();
    let mut limits = reader.read();
    let now = Some(Instant::now());
    limits.iter_mut().for_each(|limit| limit.read_at = now);
    (limits, system::thread_cpu_time().saturating_sub(before))
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
