//! The tools: how each of them is given a case.

use std::path::Path;
use std::process::Command;

use super::arena::{Arena, BINARY};
use super::case::Case;
use crate::agent_process::Finished;

/// Who is held to the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tool {
    /// `headroom import`, `headroom apply`.
    Headroom,
    /// `systemd-sysctl`.
    Systemd,
    /// `sysctl --system`.
    Procps,
    /// TuneD's sysctl plugin.
    Tuned,
}

/// All of them, in the order of the table.
pub const ALL: [Tool; 4] = [Tool::Headroom, Tool::Systemd, Tool::Procps, Tool::Tuned];

/// What a run came to.
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// What it printed.
    pub said: String,
}

const SYSTEMD: &str = "/lib/systemd/systemd-sysctl";
const PROCPS: &str = "/sbin/sysctl";
const TUNED: &str = "/usr/sbin/tuned";

/// TuneD wants one option at least: a key that no case looks at, with its default.
const IDLE_PROFILE: &str = "net.ipv4.ip_default_ttl=64\n";

impl Tool {
    /// All of them, in the order of the table.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &ALL
    }

    /// The head of its column.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Headroom => "headroom",
            Self::Systemd => "systemd-sysctl",
            Self::Procps => "procps",
            Self::Tuned => "tuned",
        }
    }

    /// Its version; `None`: it is not installed.
    #[must_use]
    pub fn version(self, headroom: &Path) -> Option<String> {
        let mut command = match self {
            Self::Headroom => Command::new(headroom),
            Self::Systemd => Command::new(SYSTEMD),
            Self::Procps => Command::new(PROCPS),
            Self::Tuned => Command::new(TUNED),
        };
        let output = command.arg("--version").output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
    }

    /// Why this case is no question for this tool.
    #[must_use]
    pub fn excuse(self, case: &Case) -> Option<&'static str> {
        if let Some((_, why)) = case.absent.iter().find(|(tool, _)| *tool == self) {
            return Some(why);
        }
        let speaks = match self {
            Self::Headroom => case.policy.is_some() || !case.files.is_empty(),
            Self::Tuned => case.profile.is_some() || !case.files.is_empty(),
            Self::Systemd | Self::Procps => !case.files.is_empty(),
        };
        if !speaks {
            return Some("has no such notion");
        }
        if self == Self::Tuned && case.want.values.is_empty() {
            return Some("documents no exit codes for its one-shot run");
        }
        None
    }

    /// Whether its exit code is judged: `tuned(8)` promises nothing of it.
    pub fn promises_exit_codes(self) -> bool {
        self != Self::Tuned
    }

    /// Runs it in the arena.
    pub fn run(self, arena: &Arena, case: &Case) -> Ran {
        match self {
            Self::Headroom => run_headroom(arena, case),
            Self::Systemd => self.finish(arena.command(SYSTEMD), case),
            Self::Procps => {
                let mut command = arena.command(PROCPS);
                command.arg("--system");
                self.finish(command, case)
            }
            Self::Tuned => {
                let section = case.profile.as_deref().unwrap_or(IDLE_PROFILE);
                // tuned-main.conf: "Without daemon it just applies tuning."
                // What the profile says is not to be said again by the files.
                let files = i32::from(case.profile.is_none());
                let settings =
                    format!("daemon = 0\ndynamic_tuning = 0\nreapply_sysctl = {files}\n");
                arena.write("/etc/tuned/tuned-main.conf", &settings);
                let profile = format!("[main]\nsummary=case\n\n[sysctl]\n{section}");
                arena.write("/etc/tuned/case/tuned.conf", &profile);
                arena.write("/run/tuned/.keep", "");
                let mut command = arena.command(TUNED);
                command.args(["--no-dbus", "--profile", "case"]);
                self.finish(command, case)
            }
        }
    }

    fn finish(self, mut command: Command, case: &Case) -> Ran {
        let own = case.arguments.iter().filter(|(tool, _)| *tool == self);
        command.args(own.map(|(_, argument)| argument));
        Finished::of(&mut command, b"").into()
    }
}

/// A policy is applied as it is; files are imported first.
fn run_headroom(arena: &Arena, case: &Case) -> Ran {
    let (policy, mut said) = match &case.policy {
        Some(policy) => (policy.clone(), String::new()),
        None => {
            let imported = Finished::of(arena.command(BINARY).args(["import", "--root", "/"]), b"");
            match imported.code {
                Some(0) => (imported.stdout, imported.stderr),
                _ => return imported.into(),
            }
        }
    };
    let document = document(&policy);
    arena.write("/run/policy.yaml", &document);
    let mut apply = arena.command(BINARY);
    apply.args(["apply", "--config", "/run/policy.yaml"]);
    let ran = Tool::Headroom.finish(apply, case);
    said += &ran.said;
    Ran { code: ran.code, said: format!("{said}\n--- policy\n{document}") }
}

/// The policy with what it does not say itself: the namespace is not the machine's first one.
fn document(policy: &str) -> String {
    let defaults = [
        "apiVersion: headroom/v1",
        "kind: AgentConfig",
        "hostNetns: current",
        "state: /run/headroom-state",
    ];
    let name = |line: &str| line.split_once(':').map_or("", |(name, _)| name).to_owned() + ":";
    let given = |default: &&str| policy.lines().any(|line| line.starts_with(&name(default)));
    let missing: Vec<_> = defaults.into_iter().filter(|default| !given(default)).collect();
    format!("{}\n{policy}", missing.join("\n"))
}

impl From<Finished> for Ran {
    fn from(finished: Finished) -> Self {
        // Killed by a signal: no tool ends like that.
        let code = finished.code.unwrap_or(-1);
        Self { code, said: finished.stdout + &finished.stderr }
    }
}
