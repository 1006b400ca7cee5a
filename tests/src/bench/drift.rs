//! How fast a drift is put right: another process writes, the agent writes back.
//!
//! The agent runs in a [`Room`] and keeps its keys. This process writes another value and reads the
//! file over and over until it shows the right one again: the time in between is what is measured,
//! the write itself included.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::cpu::own_wait;
use crate::programs::Daemon;
use crate::room::{Room, path};
use crate::{Outcome, machine, stop};

/// Interfaces of five keys each: 200 that are written, and some for a warm-up.
pub const INTERFACES: usize = 42;
const KEYS: usize = 200;
/// A key that is put back more often within a minute is contested, and no longer put right.
const TIMES_A_KEY: usize = 5;
/// Between two drifts, in milliseconds. The agent makes 50 passes a second at the most, and with
/// inotify two a drift, since its own write is notified too: more would measure that bound.
const PAUSE: std::ops::Range<u64> = 30..70;
/// Longer than a sweep: then nothing has seen the drift.
const PATIENCE: Duration = Duration::from_secs(30);

/// Drops the right that fanotify needs, for itself and what it starts.
const WITHOUT_FANOTIFY: [&str; 3] = ["setpriv", "--bounding-set=-sys_admin", "--"];

/// One agent on a node of one size.
pub struct Row {
    pub pods: usize,
    /// What the agent says it watches by.
    pub by: String,
    /// From just before the write until the value was right again, shortest first.
    pub times: Vec<Duration>,
    /// The same without the longest that this thread or one of the agent's waited for a CPU.
    pub unqueued: Vec<Duration>,
    /// Share of the machine that was busy meanwhile; this program alone makes it a few percent.
    pub busy: f64,
}

/// Measures with fanotify and without, `count` drifts each.
pub fn run(room: &Room, pods: usize, headroom: &Path, count: usize) -> Outcome<[Row; 2]> {
    let row = |prefix: &[&str], by: &str| -> Outcome<Row> {
        eprintln!("{count} drifts, {pods} pods' namespaces, {by}");
        let row = room.inside(|| measure(room, pods, prefix, headroom, count))?;
        if row.by == by { Ok(row) } else { Err(format!("the agent watches by {}", row.by).into()) }
    };
    Ok([row(&[], "fanotify")?, row(&WITHOUT_FANOTIFY, "inotify")?])
}

fn measure(
    room: &Room,
    pods: usize,
    prefix: &[&str],
    headroom: &Path,
    count: usize,
) -> Outcome<Row> {
    let scratch = crate::scratch()?;
    let config = configuration(room.values(0), "");
    let agent = Daemon::agent(prefix, headroom, &config, scratch.path(), false)?;
    let mut keys = Vec::new();
    for ((key, wanted), (_, other)) in room.values(0).zip(room.values(1)) {
        let file = File::options().read(true).write(true).open(path(&key))?;
        keys.push(Kept { file, wanted: wanted.to_string(), other: other.to_string() });
    }
    let (drifting, warm_up) = keys.split_at(KEYS);
    let mut pauses = Pauses::new();
    for key in warm_up {
        key.put_right()?;
        pauses.make()?;
    }
    let (mut times, mut unqueued) = (Vec::new(), Vec::new());
    let ticks = machine::CpuTicks::now()?;
    for key in drifting.iter().cycle().take(count.min(KEYS * TIMES_A_KEY)) {
        let before = (agent.cpu()?, own_wait()?);
        let time = key.put_right()?;
        // At the same time, perhaps: the longer one counts.
        let own = own_wait()?.saturating_sub(before.1);
        let queued = own.max(agent.cpu()?.waited_since(&before.0));
        times.push(time);
        unqueued.push(time.saturating_sub(queued));
        pauses.make()?;
    }
    let busy = machine::CpuTicks::now()?.busy_since(&ticks);
    times.sort();
    unqueued.sort();
    Ok(Row { pods, by: agent.watches_by()?, times, unqueued, busy })
}

/// The rest of a configuration for an agent in a [`Room`].
pub fn configuration(keys: impl Iterator<Item = (String, u32)>, watch: &str) -> String {
    let mut text = format!("mode: enforce\nhostNetns: current\nwatch: {{ {watch} }}\n");
    let keys: String = keys.map(|(key, value)| format!("  {key}: {value}\n")).collect();
    if !keys.is_empty() {
        text += &format!("sysctls:\n{keys}");
    }
    text
}

/// A key that the agent keeps.
struct Kept {
    file: File,
    wanted: String,
    other: String,
}

impl Kept {
    /// Writes the other value and waits for the right one.
    fn put_right(&self) -> Outcome<Duration> {
        let mut buffer = [0; 32];
        let begin = Instant::now();
        self.file.write_all_at(self.other.as_bytes(), 0)?;
        loop {
            let length = self.file.read_at(&mut buffer, 0)?;
            let time = begin.elapsed();
            if buffer[..length].trim_ascii() == self.wanted.as_bytes() {
                return Ok(time);
            }
            if time > PATIENCE {
                return Err(format!("a drift was not put right in {PATIENCE:?}").into());
            }
            // About a microsecond: the kernel takes a lock of all sysctls for each read.
            (0..20).for_each(|_| std::hint::spin_loop());
        }
    }
}

/// Lengths that follow no beat the agent could have (xorshift).
struct Pauses(u64);

impl Pauses {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn make(&mut self) -> Outcome<()> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let microseconds = PAUSE.start * 1000 + self.0 % ((PAUSE.end - PAUSE.start) * 1000);
        stop::pause(Duration::from_micros(microseconds))
    }
}
