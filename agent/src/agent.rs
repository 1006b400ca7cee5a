//! Starts the tasks, supervises them, stops them.

mod appeared;
mod autogrow;
mod bridges;
mod config_watch;
mod limits;
mod listen;
mod neighbors;
mod netfilter;
pub mod once;
mod pods;
mod supervise;
mod sysctls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::config::load::{Loaded, Origin};
use crate::config::{Config, LogLevel};
use crate::kernel::inotify::Inotify;
use crate::kernel::state_dir::{self, LockError};
use crate::kernel::{sysctl_d, system};
use crate::node::{ConfigState, Node};
use crate::serve::http::Limits;
use crate::serve::metrics::Metrics;
use crate::serve::router::{Side, router};
use crate::sysctl::place::{Net, Place};
use appeared::Appeared;
use config_watch::Reload;
use supervise::Supervisor;

/// Everything must have ended this long after the order to stop.
const STOP_WITHIN: Duration = Duration::from_millis(1800);

/// Receive buffer for link events: a pod's creation and end is about 15 kB of them, so this holds
/// some 500 pods' worth while the agent does something else.
pub const EVENT_BUFFER: usize = 8 << 20;

/// The trees that the agent reads.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Usually `/proc`.
    pub proc: PathBuf,
    /// Usually `/sys`.
    pub sys: PathBuf,
    /// Where keys are written: `/host/proc/sys` in a container, else `/proc/sys`.
    pub sysctl: PathBuf,
    /// Where the host's `etc/sysctl.d` is, if that can be known.
    pub host: Option<PathBuf>,
}

impl Default for Roots {
    fn default() -> Self {
        let host = PathBuf::from("/host/proc/sys");
        let sysctl = if host.is_dir() { host } else { PathBuf::from("/proc/sys") };
        Self {
            proc: PathBuf::from("/proc"),
            sys: PathBuf::from("/sys"),
            sysctl,
            host: sysctl_d::default_root(),
        }
    }
}

/// What a start needs.
pub struct Start {
    /// The configuration to begin with.
    pub loaded: Loaded,
    /// The file it was named by, for loading it again.
    pub named: Option<PathBuf>,
    /// Where the kernel is.
    pub roots: Roots,
    /// Receive buffer for link events, in bytes.
    pub event_buffer: usize,
    /// Changes how much is logged.
    pub set_log_level: Box<dyn Fn(LogLevel) + Send>,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another agent, or a command that writes, holds the lock.
    #[error("another headroom is at work on this node: {0}")]
    Locked(LockError),
    /// The metrics could not be set up.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Signals could not be had.
    #[error("signals: {0}")]
    Signals(#[from] std::io::Error),
}

/// What every task is given.
#[derive(Clone)]
struct Context {
    node: Node,
    config: watch::Receiver<Arc<Config>>,
    roots: Arc<Roots>,
    place: Arc<Place>,
    event_buffer: usize,
    /// Shared by all that watch files; `None`: it cannot be had, and they look now and then.
    inotify: Option<Inotify>,
    /// For those who wait for keys that are not there yet.
    appeared: Appeared,
}

/// Runs the agent until it is told to stop. Nothing is rolled back then: values outlive a rollout.
pub async fn run(start: Start) -> Result<(), StartError> {
    let Start { loaded, named, roots, event_buffer, set_log_level } = start;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let _lock = lock(&loaded.config)?;

    let node = Node::default();
    let place = once::place(&loaded.config, &roots);
    introduce(&node, &loaded, &place, &roots);
    let metrics = Arc::new(Metrics::new(node.clone())?);
    let (send_config, config) = watch::channel(Arc::new(loaded.config.clone()));
    let context = Context {
        node: node.clone(),
        config,
        roots: Arc::new(roots),
        place: Arc::new(place),
        event_buffer,
        inotify: inotify(&node),
        appeared: Appeared::new(),
    };
    let mut supervisor = Supervisor::new(node);
    let reload = Arc::new(Reload::new(named, &loaded, send_config, set_log_level));
    let shared = reload.clone();
    let keep = move |context| config_watch::keep(context, shared.clone());
    supervisor.spawn("config", &context, keep);
    spawn_all(&mut supervisor, &context, &loaded.config, &metrics);

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = supervisor.watch() => {}
            _ = hangup.recv() => reload.force(),
        }
    }
    info!("stopping; the values stay as they are");
    supervisor.stop(STOP_WITHIN).await;
    Ok(())
}

fn inotify(node: &Node) -> Option<Inotify> {
    let made = Inotify::new().map_err(|error| {
        let notice = format!("files are looked at now and then instead of watched: {error}");
        warn!("{notice}");
        node.notice("inotify", Some(notice));
    });
    made.ok()
}

/// Two agents on one node would fight. A lock that cannot be kept for another reason is said, and
/// the work goes on.
fn lock(config: &Config) -> Result<Option<state_dir::Lock>, StartError> {
    match state_dir::lock(&config.state, &me("run")) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Held { .. }) => Err(StartError::Locked(error)),
        Err(LockError::File(error)) => {
            warn!(reason = %error, "no lock: a second agent would not be noticed");
            Ok(None)
        }
    }
}

/// How this process names itself in the lock.
#[must_use]
pub fn me(command: &str) -> String {
    let (_, node) = system::uname();
    format!("headroom {command} (pid {} on {node})", std::process::id())
}

fn introduce(node: &Node, loaded: &Loaded, place: &Place, roots: &Roots) {
    let (kernel, name) = system::uname();
    info!(
        version = env!("CARGO_PKG_VERSION"),
        revision = crate::serve::metrics::REVISION,
        node = name,
        kernel,
        config = loaded.origin.shown(),
        mode = loaded.config.mode.label(),
        profiles = loaded.config.profiles.join(","),
        keys = loaded.config.policies.len() + loaded.config.globs.len(),
        "headroom starts"
    );
    for problem in &loaded.warnings {
        warn!(config = loaded.origin.shown(), "{problem}");
    }
    if let Net::Wrong(evidence) = &place.net {
        error!(
            evidence,
            "wrong network namespace: no net.* key is written and no neighbor table is watched; run \
             with hostNetwork, or set `hostNetns: current` if this node is itself a container"
        );
    }
    node.update(|state| {
        state.node = name;
        state.kernel = kernel;
        state.cpus = system::cpus(&roots.sys);
        state.net = Some(place.net.clone());
        state.config = config_state(loaded);
        state.heartbeat = Some(Instant::now());
    });
}

/// What the picture says of a configuration.
#[must_use]
pub fn config_state(loaded: &Loaded) -> ConfigState {
    let (source, path) = match &loaded.origin {
        Origin::File(_) => ("file", Some(loaded.origin.shown())),
        Origin::Embedded => ("embedded", None),
    };
    ConfigState {
        source,
        path,
        hash: loaded.hash.clone(),
        mode: loaded.config.mode.label(),
        profiles: loaded.config.profiles.clone(),
        limits: loaded.config.limits.clone(),
        error: None,
        loaded_at: Some(SystemTime::now()),
    }
}

fn spawn_all(
    supervisor: &mut Supervisor,
    context: &Context,
    config: &Config,
    metrics: &Arc<Metrics>,
) {
    let right_place = !matches!(context.place.net, Net::Wrong(_));
    limits::prepare_scrape(context, right_place);
    supervisor.spawn("heart", context, neighbors::beat);
    supervisor.spawn("sysctl", context, sysctls::enforce);
    supervisor.spawn("pods", context, pods::keep);
    supervisor.spawn("modules", context, appeared::watch_modules);
    if right_place {
        supervisor.spawn("neighbor-netlink", context, neighbors::ask_netlink);
        supervisor.spawn("neighbor-scan", context, neighbors::scan);
        supervisor.spawn("bridges", context, bridges::watch);
        supervisor.spawn("netfilter", context, netfilter::count);
        supervisor.spawn("limits", context, limits::read_slowly);
        supervisor.spawn("capacity", context, limits::remember);
    }
    // TCP before the socket: where two agents start at once, the port decides.
    let limits = Limits::default();
    for address in &config.listen {
        let app = router(context.node.clone(), metrics.clone(), Side::Network);
        supervisor.serve(context, listen::Place::Tcp(*address), app, limits.clone());
    }
    let app = router(context.node.clone(), metrics.clone(), Side::Socket);
    supervisor.serve(context, listen::Place::Unix(config.socket.clone()), app, limits);
}
