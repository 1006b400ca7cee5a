//! What it costs to look at 100 keys that are as they should be: the agent's sweep beside programs
//! that are run for it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use headroom_tests::WriteWatch;

use crate::cpu::{Cpu, of_children};
use crate::drift::configuration;
use crate::programs::Daemon;
use crate::room::{Room, path};
use crate::tuned::{self, Verify};
use crate::{Outcome, machine, stop};

/// Five keys each make 100.
pub const INTERFACES: usize = 20;
const EVERY_SECOND: &str = "sysctlSweep: 1s";

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Length {
    /// Sweeps of the agent, one a second.
    pub sweeps: u32,
    /// Rounds of each other program.
    pub rounds: u32,
}

/// CPU time of one round of each program on a node of one size.
pub struct Row {
    pub pods: usize,
    pub headroom: Option<Sweeps>,
    /// `sysctl` with the names of the 100 keys.
    pub named: Duration,
    /// `sysctl -a`, and how many keys that are here.
    pub all: Duration,
    pub all_keys: usize,
    /// `tuned-adm verify`, where TuneD is installed.
    pub verify: Option<Verify>,
    pub busy: f64,
}

/// The agent's.
pub struct Sweeps {
    /// CPU of one sweep: what the agent used, less what the same agent without keys used.
    pub each: Duration,
    /// Writes to the keys that the kernel saw meanwhile.
    pub writes: usize,
}

/// Measures all of them in the room.
pub fn run(room: &Room, pods: usize, headroom: Option<&Path>, length: Length) -> Outcome<Row> {
    eprintln!("sweeps without drift, {pods} pods' namespaces");
    let ticks = machine::CpuTicks::now()?;
    room.inside(|| {
        let headroom = headroom.map(|binary| sweeps(room, binary, length.sweeps)).transpose()?;
        let keys: Vec<String> = room.values(0).map(|(key, _)| key).collect();
        let arguments: Vec<&str> = keys.iter().map(String::as_str).collect();
        let (named, _) = sysctl(&arguments, length.rounds)?;
        let (all, all_keys) = sysctl(&["-a"], length.rounds)?;
        let verify = tuned::verify(room, length.rounds)?;
        let busy = machine::CpuTicks::now()?.busy_since(&ticks);
        Ok(Row { pods, headroom, named, all, all_keys, verify, busy })
    })
}

/// Two agents side by side, of which one has the keys.
fn sweeps(room: &Room, binary: &Path, count: u32) -> Outcome<Sweeps> {
    let scratch = crate::scratch()?;
    let start = |config: &str, second| Daemon::agent(&[], binary, config, scratch.path(), second);
    let with = start(&configuration(room.values(0), EVERY_SECOND), false)?;
    let without = start(&configuration(std::iter::empty(), EVERY_SECOND), true)?;
    // What they do only once is over then.
    stop::pause(Duration::from_secs(3))?;
    let files: Vec<String> = room.values(0).map(|(key, _)| key.replace('.', "/")).collect();
    let mut watch = WriteWatch::new(files.iter().map(String::as_str));
    let before = [with.cpu()?, without.cpu()?];
    stop::pause(Duration::from_secs(1) * count)?;
    let used = [with.cpu()?.used_since(&before[0]), without.cpu()?.used_since(&before[1])];
    let writes = watch.written().len();

    // The watch must see a write, or its silence says nothing.
    let (key, value) = room.values(0).next().ok_or("no keys")?;
    std::fs::write(path(&key), value.to_string())?;
    if watch.written().is_empty() {
        return Err("writes to the keys are not seen".into());
    }
    Ok(Sweeps { each: used[0].saturating_sub(used[1]) / count, writes })
}

/// CPU of one `sysctl` with these arguments, its start included, and the lines it prints.
fn sysctl(arguments: &[&str], rounds: u32) -> Outcome<(Duration, usize)> {
    let mut command = Command::new("sysctl");
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    // The round that is not counted warms the caches.
    let lines = command.output()?.stdout.split(|byte| *byte == b'\n').count() - 1;
    command.stdout(Stdio::null());
    let before = of_children()?;
    for _ in 0..rounds {
        stop::check()?;
        command.status()?;
    }
    Ok(((of_children()? - before) / rounds, lines))
}

/// CPU of one run of a program that asks another one, and of that other one.
pub fn asked(command: &mut Command, pid: u32, rounds: u32) -> Outcome<(Duration, Duration)> {
    let before = (of_children()?, Cpu::of(pid)?);
    for _ in 0..rounds {
        stop::check()?;
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            return Err(format!("{command:?}: {}: {said}", output.status).into());
        }
    }
    let used = Cpu::of(pid)?.used_since(&before.1);
    Ok(((of_children()? - before.0) / rounds, used / rounds))
}
