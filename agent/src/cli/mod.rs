//! One file a command.

mod apply;
mod check;
mod diff;
mod explain;
mod health;
mod import;
mod log;
mod output;
mod plan;
mod privileges;
mod reference;
mod restore;
mod run;
mod schema;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use headroom::agent::{Roots, once};
use headroom::config::Config;
use headroom::config::check::default_state;
use headroom::config::load::{LoadError, Loaded, load};
use headroom::kernel::state_dir::{self, Lock, LockError};
use headroom::sysctl::engine::Engine;

use output::Output;

/// What a command came to. Where several apply, `Usage` goes before `Failed`, before `Degraded`,
/// before `Differs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Could not do its work.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Something differs from what is wanted.
    Differs = 3,
    /// Something does not work as it should.
    Degraded = 4,
}

/// Tunes the kernel of a Kubernetes node, keeps the values, and watches the limits of dense nodes
#[derive(Parser)]
#[command(
    name = "headroom",
    version,
    after_help = "Exit codes: 0 done, 1 could not do its work, 2 usage or configuration, 3 something differs, 4 degraded"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent
    Run {
        #[command(flatten)]
        common: Common,
        /// Receive buffer for link events, in bytes
        #[arg(long, hide = true, default_value_t = headroom::agent::EVENT_BUFFER)]
        event_buffer: usize,
    },
    /// Set the host's keys once, then end: for boot scripts and init containers
    Apply(Common),
    /// Show what `apply` would change
    Diff(Common),
    /// Show this node: how many more pods fit, limits, keys, pods, neighbor tables, bridges
    Status {
        /// List every pod's namespace, not only those that need a look
        #[arg(long)]
        pods: bool,
        /// List every limit, not only the fullest
        #[arg(long)]
        limits: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Tell what a node needs for so many pods, and where it would stop
    #[command(after_help = "Exit codes: 0 so many pods fit, 3 they do not as it is")]
    Plan {
        #[command(flatten)]
        asked: plan::Asked,
        #[command(flatten)]
        common: Common,
    },
    /// Tell what a key is, its value now, and what is wanted
    Explain {
        /// The key: net.core.somaxconn or net/core/somaxconn
        key: String,
        #[command(flatten)]
        common: Common,
    },
    /// Validate configurations
    Check {
        /// Configuration files; `-` is standard input
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Treat warnings as errors
        #[arg(long)]
        strict: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Put the values back that were in force before the agent changed them
    Restore(Common),
    /// Turn a host's sysctl.d into a configuration
    Import {
        /// Where the host's files are. Default: /host where they are mounted there, else /
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
        #[command(flatten)]
        format: Format,
    },
    /// Show which mounts, capabilities and namespaces a configuration needs, and why
    Privileges(Common),
    /// Ask the agent whether it is alive or ready
    Health {
        /// What to ask
        which: Which,
        /// How long to wait for the answer; the probe's own timeout should be longer. On a node
        /// without a free CPU an answer takes seconds
        #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = humantime::parse_duration)]
        timeout: std::time::Duration,
        #[command(flatten)]
        common: Common,
    },
    /// Print a generated page of the documentation
    #[command(hide = true)]
    Reference {
        /// Which page
        page: reference::Page,
    },
    /// Print the JSON Schema of the configuration or of a command's JSON
    Schema {
        /// Of what
        #[arg(default_value = "config")]
        of: schema::Of,
    },
}

#[derive(Args)]
struct Common {
    /// The configuration. Default: /etc/headroom/config.yaml, else the embedded one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The agent's unix socket. Default: as configured
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Where keys are written. Default: /host/proc/sys where it exists, else /proc/sys
    #[arg(long, value_name = "DIR")]
    sysctl_root: Option<PathBuf>,
    /// Where the host's sysctl.d is looked for. Default: /host where it is mounted there, else /
    #[arg(long, value_name = "DIR")]
    host_root: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

#[derive(Args)]
struct Format {
    /// The form of the output
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: OutputFormat,
    /// When to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, ValueEnum)]
enum Which {
    Live,
    Ready,
}

/// Runs the command that was asked for.
pub fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Run { common, event_buffer } => run::run(&common, event_buffer),
        Command::Apply(common) => apply::run(&common),
        Command::Diff(common) => diff::run(&common),
        Command::Status { pods, limits, common } => {
            status::run(&common, &status::All { pods, limits })
        }
        Command::Plan { asked, common } => plan::run(&asked, &common),
        Command::Explain { key, common } => explain::run(&key, &common),
        Command::Check { files, strict, format } => check::run(&files, strict, &format),
        Command::Restore(common) => restore::run(&common),
        Command::Import { root, format } => import::run(root, &format),
        Command::Privileges(common) => privileges::run(&common),
        Command::Health { which, timeout, common } => health::run(which, timeout, &common),
        Command::Reference { page } => reference::run(page),
        Command::Schema { of } => schema::run(of),
    };
    ExitCode::from(exit as u8)
}

impl Common {
    fn roots(&self) -> Roots {
        let mut roots = Roots::default();
        if let Some(sysctl) = &self.sysctl_root {
            roots.sysctl.clone_from(sysctl);
        }
        if self.host_root.is_some() {
            roots.host.clone_from(&self.host_root);
        }
        roots
    }

    /// An engine over a configuration's keys. `observe`: it only looks.
    fn engine(&self, config: &Config, observe: bool) -> Result<Engine, String> {
        let roots = self.roots();
        once::engine(config, &roots, once::place(config, &roots), observe, false)
    }

    /// Loads the configuration; prints everything that is wrong with it.
    fn load(&self) -> Result<Loaded, Exit> {
        let mut loaded = load(self.config.as_deref()).map_err(|error| complain(&error))?;
        if let Some(socket) = &self.socket {
            loaded.config.socket = socket.clone();
        }
        Ok(loaded)
    }

    /// Where the agent answers. A configuration that is broken must not keep a probe from asking
    /// the agent, which goes on with the last good one; one that is named and not there is an
    /// error all the same.
    fn socket(&self) -> Result<PathBuf, Exit> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        match load(self.config.as_deref()) {
            Ok(loaded) => Ok(loaded.config.socket),
            Err(error) if error.is_missing() => Err(complain(&error)),
            Err(error) => Ok(error.socket.unwrap_or_else(|| default_state().join("agent.sock"))),
        }
    }
}

fn complain(error: &LoadError) -> Exit {
    output::error(error);
    Exit::Usage
}

/// Prints why a command cannot do its work.
fn fail(why: impl std::fmt::Display) -> Exit {
    output::error(&format_args!("headroom: {why}"));
    Exit::Failed
}

fn out(format: &Format) -> Output {
    Output::new(format)
}

/// A lock for a command that writes: refused while an agent runs, which is named. One that cannot
/// be kept for another reason is said, and the work goes on, as it does in the agent.
fn lock(state: &Path, command: &str) -> Result<Option<Lock>, Exit> {
    match state_dir::lock(state, &headroom::agent::me(command)) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Held { .. }) => Err(fail(error)),
        Err(LockError::File(error)) => {
            output::error(&format_args!("no lock, an agent would not be noticed: {error}"));
            Ok(None)
        }
    }
}
