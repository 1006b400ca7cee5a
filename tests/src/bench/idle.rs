//! What the agent costs while nothing happens and nobody asks it anything.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::programs::Daemon;
use crate::{Outcome, machine, stop};

/// After the start: the first scan and the first sweeps are over.
const SETTLED: Duration = Duration::from_secs(15);

/// As installed, but for the mode: no value of the host is changed.
const CONFIG: &str = "mode: observe\nprofiles: [dense-node]\n";

/// One node size.
pub struct Row {
    pub pods: usize,
    pub length: Duration,
    pub used: Duration,
    pub rss_kib: u64,
    pub anonymous_kib: u64,
    pub busy: f64,
}

impl Row {
    /// Share of a core.
    pub fn share(&self) -> f64 {
        self.used.as_secs_f64() / self.length.as_secs_f64()
    }
}

/// Leaves the agent alone for a while, in the initial namespace.
pub fn run(pods: usize, headroom: &Path, length: Duration) -> Outcome<Row> {
    eprintln!("{} s idle, {pods} pods' namespaces", length.as_secs());
    let scratch = crate::scratch()?;
    let agent = Daemon::agent(&[], headroom, CONFIG, scratch.path(), false)?;
    stop::pause(SETTLED)?;
    let (before, ticks, begin) = (agent.cpu()?, machine::CpuTicks::now()?, Instant::now());
    stop::pause(length)?;
    let used = agent.cpu()?.used_since(&before);
    Ok(Row {
        pods,
        length: begin.elapsed(),
        used,
        rss_kib: agent.memory_kib("VmRSS")?,
        anonymous_kib: agent.memory_kib("RssAnon")?,
        busy: machine::CpuTicks::now()?.busy_since(&ticks),
    })
}
