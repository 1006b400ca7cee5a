//! CPU time, as `/proc` and the kernel account for it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

use crate::Outcome;

/// Time on a CPU and time waiting for one, by thread: `schedstat` of a process tells its first
/// thread's only.
pub struct Cpu(HashMap<PathBuf, (Duration, Duration)>);

impl Cpu {
    /// The threads of a process now.
    pub fn of(pid: u32) -> Outcome<Self> {
        let mut threads = HashMap::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let task = entry?.path();
            // A thread may end between the two reads.
            if let Ok(text) = std::fs::read_to_string(task.join("schedstat")) {
                threads.insert(task, schedstat(&text)?);
            }
        }
        Ok(Self(threads))
    }

    /// CPU time between `earlier` and this reading; what ended in between is not seen.
    pub fn used_since(&self, earlier: &Self) -> Duration {
        self.grown(earlier).map(|(used, _)| used).sum()
    }

    /// The longest that one thread waited for a CPU since `earlier`.
    pub fn waited_since(&self, earlier: &Self) -> Duration {
        let waits = self.grown(earlier).map(|(_, waited)| waited);
        waits.max().unwrap_or_default()
    }

    fn grown(&self, earlier: &Self) -> impl Iterator<Item = (Duration, Duration)> {
        self.0.iter().map(|(task, now)| {
            let then = earlier.0.get(task).copied().unwrap_or_default();
            (now.0.saturating_sub(then.0), now.1.saturating_sub(then.1))
        })
    }
}

/// How long this thread waited for a CPU so far.
pub fn own_wait() -> Outcome<Duration> {
    Ok(schedstat(&std::fs::read_to_string("/proc/thread-self/schedstat")?)?.1)
}

/// The first two fields of a `schedstat` file: time on a CPU, time waiting for one.
fn schedstat(text: &str) -> Outcome<(Duration, Duration)> {
    let mut fields = text.split_whitespace().map(str::parse);
    let mut next = || fields.next().unwrap_or(Ok(0)).map(Duration::from_nanos);
    Ok((next()?, next()?))
}

/// CPU time of all programs that this process has started and that have ended.
pub fn of_children() -> Outcome<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

fn duration(time: TimeVal) -> Duration {
    let part = |value: i64| u64::try_from(value).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec())) + Duration::from_micros(part(time.tv_usec()))
}
