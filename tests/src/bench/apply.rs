//! A first pass over 100 keys: `headroom apply` beside `sysctl -p` and `systemd-sysctl`.
//!
//! The keys are those of a [`Room`], so no value of the host changes. The programs are started
//! inside it by a thread that entered it: `ip netns exec` would add its own work to every time
//! measured.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::room::{Room, path};
use crate::{Outcome, stop};

/// systemd's program is not in the search path.
pub const SYSTEMD_SYSCTL: &str = "/lib/systemd/systemd-sysctl";

/// Five keys each make 100.
const INTERFACES: usize = 20;

/// The programs, in the order of [`Pass::times`].
#[derive(Clone, Copy, Debug)]
pub enum Tool {
    Headroom,
    Sysctl,
    SystemdSysctl,
}

const TOOLS: [Tool; 3] = [Tool::Headroom, Tool::Sysctl, Tool::SystemdSysctl];

/// Times of one variant.
pub struct Pass {
    pub variant: &'static str,
    /// Whole processes, spawn to exit, shortest first; empty for a program that is not there.
    pub times: [Vec<Duration>; 3],
    /// What `headroom apply` says its pass took, shortest first; empty if it does not say.
    pub inner: Vec<Duration>,
}

/// Both variants and how often each was run.
pub struct Passes {
    pub variants: [Pass; 2],
    pub runs: usize,
}

/// Runs both variants in a namespace of their own.
pub fn run(headroom: Option<&Path>, runs: usize) -> Outcome<Passes> {
    let room = Room::new("apply", INTERFACES)?;
    let variants = room.inside(|| {
        let mut bench = Bench::new(headroom, &room)?;
        Ok([
            bench.variant("nothing to change", runs, false)?,
            bench.variant("every value differs", runs, true)?,
        ])
    })?;
    Ok(Passes { variants, runs })
}

/// The files the programs read, and which of the two sets of values is in force.
struct Bench<'a> {
    headroom: Option<&'a Path>,
    room: &'a Room,
    scratch: TempDir,
    set: usize,
}

impl<'a> Bench<'a> {
    fn new(headroom: Option<&'a Path>, room: &'a Room) -> Outcome<Self> {
        let scratch = crate::scratch()?;
        for set in 0..2 {
            let (mut conf, mut yaml) = (String::new(), agent_config(scratch.path()));
            for (key, value) in room.values(set) {
                _ = writeln!(conf, "{key} = {value}");
                _ = writeln!(yaml, "  {key}: {value}");
            }
            std::fs::write(scratch.path().join(format!("{set}.conf")), conf)?;
            std::fs::write(scratch.path().join(format!("{set}.yaml")), yaml)?;
        }
        Ok(Self { headroom, room, scratch, set: 0 })
    }

    /// Runs all programs by turns, once more than counted: the first round warms the caches.
    fn variant(&mut self, variant: &'static str, runs: usize, toggle: bool) -> Outcome<Pass> {
        eprintln!("first pass over 100 keys, {variant}");
        let mut pass = Pass { variant, times: Default::default(), inner: Vec::new() };
        for round in 0..=runs {
            for tool in TOOLS {
                stop::check()?;
                let Some(mut command) = self.command(tool, toggle)? else {
                    continue;
                };
                let begin = Instant::now();
                let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
                let time = begin.elapsed();
                if let Some(problem) = self.problem(&output) {
                    self.give_up(tool, &format!("{tool:?}: {problem}"))?;
                    pass.times[tool as usize].clear();
                    pass.inner.clear();
                } else if round > 0 {
                    pass.times[tool as usize].push(time);
                    if matches!(tool, Tool::Headroom) {
                        pass.inner.extend(pass_time(&output.stdout));
                    }
                }
            }
        }
        pass.times.iter_mut().for_each(|times| times.sort());
        pass.inner.sort();
        Ok(pass)
    }

    /// The next run of `tool`, with the other set of values if it is to change something.
    fn command(&mut self, tool: Tool, toggle: bool) -> Outcome<Option<Command>> {
        let program = match tool {
            Tool::Headroom => self.headroom,
            Tool::Sysctl => Some(Path::new("sysctl")),
            Tool::SystemdSysctl => Some(Path::new(SYSTEMD_SYSCTL)),
        };
        let Some(program) = program else {
            return Ok(None);
        };
        if toggle {
            self.set = 1 - self.set;
        }
        let file = |ending: &str| self.scratch.path().join(format!("{}.{ending}", self.set));
        let mut command = Command::new(program);
        match tool {
            Tool::Headroom => {
                self.forget()?;
                command.args(["apply", "-o", "json", "--config"]).arg(file("yaml"))
            }
            Tool::Sysctl => command.arg("-p").arg(file("conf")),
            Tool::SystemdSysctl => command.arg(file("conf")),
        };
        command.stdin(Stdio::null());
        Ok(Some(command))
    }

    /// A *first* pass has no ledger yet.
    fn forget(&self) -> Outcome<()> {
        let state = self.scratch.path().join("state");
        if state.exists() {
            std::fs::remove_dir_all(state)?;
        }
        Ok(())
    }

    /// Why a run does not count: it failed, or the values are not what it was asked for.
    fn problem(&self, output: &std::process::Output) -> Option<String> {
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Some(format!("{}: {}", output.status, said.trim()));
        }
        let wrong = self.room.values(self.set).filter(|(key, value)| {
            std::fs::read_to_string(path(key)).ok().as_deref().map(str::trim)
                != Some(value.to_string().as_str())
        });
        let wrong = wrong.count();
        (wrong > 0).then(|| format!("{wrong} keys do not have their value afterwards"))
    }

    /// Headroom may fail and lose its column; without its rivals there is nothing to compare.
    fn give_up(&mut self, tool: Tool, problem: &str) -> Outcome<()> {
        if !matches!(tool, Tool::Headroom) {
            return Err(problem.into());
        }
        eprintln!("{problem}\nheadroom's column stays empty");
        self.headroom = None;
        Ok(())
    }
}

/// The agent's document without its keys.
fn agent_config(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "apiVersion: headroom/v1\n\
         kind: AgentConfig\n\
         mode: enforce\n\
         hostNetns: current\n\
         server: {{ listen: [\"127.0.0.1:19979\"], socket: {directory}/agent.sock }}\n\
         state: {directory}/state\n\
         sysctls:\n"
    )
}

/// `passMicros`, wherever in the answer it stands.
fn pass_time(answer: &[u8]) -> Option<Duration> {
    fn find(value: &serde_json::Value) -> Option<f64> {
        match value {
            serde_json::Value::Object(fields) => match fields.get("passMicros") {
                Some(found) => found.as_f64(),
                None => fields.values().find_map(find),
            },
            serde_json::Value::Array(items) => items.iter().find_map(find),
            _ => None,
        }
    }
    let answer = serde_json::from_slice(answer).ok()?;
    Some(Duration::from_secs_f64(find(&answer)?.max(0.0) / 1e6))
}
