//! The configuration's task: notices that it changed, and loads it again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::sync::{Notify, watch};
use tokio::time::sleep_until;
use tracing::{error, info, warn};

use super::supervise::{Failure, blocking, recovered};
use super::{Context, config_state};
use crate::config::load::{Found, LoadError, Loaded, place};
use crate::config::problem::Severity;
use crate::config::watch::{Burst, Known, Look, look};
use crate::config::{Config, LogLevel};
use crate::kernel::inotify::{Mask, Subscription, WatchId};
use crate::kernel::{mounts, trail};
use crate::node::Node;

/// Events are wake-ups only, and some changes give none: a mount, a network file system, a
/// directory renamed far above the file.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Where nothing can be watched. A look is one small file read.
const LOOK_UNWATCHED: Duration = Duration::from_secs(5);

/// Names of the notices in [`crate::node::NodeState::notices`].
const MOUNT: &str = "config-mount";
const UNWATCHED: &str = "config-unwatched";
const AT_START: &str = "config-at-start";

/// What is shared by those who want a load and the task that does it. It outlives the task's
/// failures.
pub struct Reload {
    /// The file that was named on the command line.
    named: Option<PathBuf>,
    forced: Notify,
    known: Mutex<Known>,
    send: watch::Sender<Arc<Config>>,
    set_log_level: Mutex<Box<dyn Fn(LogLevel) + Send>>,
}

impl Reload {
    /// The state after the start.
    pub fn new(
        named: Option<PathBuf>,
        loaded: &Loaded,
        send: watch::Sender<Arc<Config>>,
        set_log_level: Box<dyn Fn(LogLevel) + Send>,
    ) -> Self {
        let known = Mutex::new(Known::after(loaded));
        let set_log_level = Mutex::new(set_log_level);
        Self { named, forced: Notify::new(), known, send, set_log_level }
    }

    /// Has the configuration loaded, whether it changed or not.
    pub fn force(&self) {
        self.forced.notify_one();
    }
}

/// Keeps the configuration in force up to date with its file. One load at a time.
pub async fn keep(context: Context, reload: Arc<Reload>) -> Result<(), Failure> {
    let subscription = context.inotify.as_ref().map(|inotify| inotify.subscribe());
    let mut watches = Watches { subscription: subscription.map(Arc::new), held: BTreeSet::new() };
    say_mount(&context, &reload).await?;
    let mut burst = Burst::default();
    // It may have changed before it was watched.
    let mut look_at = Instant::now();
    loop {
        let due = burst.due().map_or(look_at, |due| due.min(look_at));
        let forced = tokio::select! {
            () = watches.touched() => {
                burst.touch(Instant::now());
                continue;
            }
            () = reload.forced.notified() => true,
            () = sleep_until(due.into()) => false,
        };
        burst = Burst::default();
        // Watched first: what changes after the look is an event.
        let (back, watched) = renew(watches, reload.named.clone()).await?;
        watches = back;
        let every = match watched {
            Ok(()) if context.inotify.is_some() => LOOK_EVERY,
            _ => LOOK_UNWATCHED,
        };
        say_watched(&context.node, watched);
        look_again(&context, &reload, forced).await?;
        recovered(&context.node, "config");
        look_at = Instant::now() + every;
    }
}

/// What of the file system is watched. Links and directories are replaced, so after each look the
/// way to the file is followed anew.
struct Watches {
    subscription: Option<Arc<Subscription>>,
    held: BTreeSet<WatchId>,
}

impl Watches {
    async fn touched(&self) {
        match &self.subscription {
            Some(subscription) => {
                subscription.next().await;
            }
            None => std::future::pending().await,
        }
    }

    /// `Err`: some changes are not noticed, and why.
    fn renew(&mut self, named: Option<&std::path::Path>) -> Result<(), String> {
        let Some(subscription) = &self.subscription else { return Ok(()) };
        // A plain write ends with CLOSE_WRITE; before that the file is half of what it will be.
        let mask =
            Mask::IN_CLOSE_WRITE | Mask::IN_ATTRIB | Mask::IN_DELETE_SELF | Mask::IN_MOVE_SELF;
        let names = Mask::IN_CREATE | Mask::IN_DELETE | Mask::IN_MOVED_FROM | Mask::IN_MOVED_TO;
        let mut result = Ok(());
        let mut held = BTreeSet::new();
        let mut trail = trail::follow(place(named));
        // What changed while it was being watched may have led elsewhere.
        for _ in 0..3 {
            result = Ok(());
            let directories = trail.directories.iter().map(|path| (path, mask | names));
            for (path, mask) in directories.chain(trail.file.iter().map(|path| (path, mask))) {
                match subscription.watch(path, mask) {
                    Ok(watch) => {
                        held.insert(watch);
                    }
                    // Gone since; that is an event of the directory above.
                    Err(error) if error.errno == Errno::ENOENT => {}
                    Err(error) => result = Err(error.to_string()),
                }
            }
            let now = trail::follow(place(named));
            if now == trail {
                break;
            }
            trail = now;
        }
        for watch in self.held.difference(&held) {
            subscription.forget(*watch);
        }
        self.held = held;
        result
    }
}

async fn renew(
    watches: Watches,
    named: Option<PathBuf>,
) -> Result<(Watches, Result<(), String>), Failure> {
    blocking(watches, move |watches: &mut Watches| watches.renew(named.as_deref())).await
}

fn say_watched(node: &Node, watched: Result<(), String>) {
    let notice = watched.err().map(|reason| {
        let seconds = LOOK_UNWATCHED.as_secs();
        format!("the configuration is looked at every {seconds} s instead of watched: {reason}")
    });
    if let Some(notice) = node.notice(UNWATCHED, notice) {
        match notice {
            Some(notice) => warn!("{notice}"),
            None => info!("the configuration is watched again"),
        }
    }
}

async fn look_again(context: &Context, reload: &Reload, forced: bool) -> Result<(), Failure> {
    let (named, mut known) = (reload.named.clone(), lock(&reload.known).clone());
    // A hostile document takes a moment to judge.
    let (known, came_to) = blocking((), move |()| {
        let came_to = look(&mut known, Found::at(named.as_deref()), named.as_deref(), forced);
        (known, came_to)
    })
    .await?
    .1;
    match came_to {
        Look::Same => return Ok(()),
        Look::Back => {
            context.node.update(|state| state.config.error = None);
            info!("the configuration is again the one in force");
        }
        Look::Good(loaded) => take(&context.node, reload, *loaded),
        Look::Bad(failed) => refuse(&context.node, &failed),
    }
    *lock(&reload.known) = known;
    Ok(())
}

/// What is wrong with it is said; the last good one stays.
fn refuse(node: &Node, failed: &LoadError) {
    for problem in &failed.problems {
        match problem.severity {
            Severity::Error => error!(config = failed.origin.shown(), "{problem}"),
            Severity::Warning => warn!(config = failed.origin.shown(), "{problem}"),
        }
    }
    warn!("the configuration was not loaded: the last good one stays in force");
    node.update(|state| state.config.error = Some(failed.to_string().replace('\n', "; ")));
}

fn take(node: &Node, reload: &Reload, mut loaded: Loaded) {
    for problem in &loaded.warnings {
        warn!(config = loaded.origin.shown(), "{problem}");
    }
    keep_fixed(node, &mut loaded.config, &reload.send.borrow());
    node.update(|state| state.config = config_state(&loaded));
    info!(config = loaded.origin.shown(), hash = loaded.hash, "configuration loaded");
    lock(&reload.set_log_level)(loaded.config.log_level);
    reload.send.send_replace(Arc::new(loaded.config));
}

/// What takes effect only at a start stays as it was at this one.
fn keep_fixed(node: &Node, new: &mut Config, running: &Config) {
    let mut changed = Vec::new();
    let mut keep = |name, differs: bool| {
        if differs {
            changed.push(name);
        }
    };
    keep("server.listen", new.listen != running.listen);
    keep("state", new.state != running.state);
    keep("hostNetns", new.host_netns != running.host_netns);
    keep("log.format", new.log_format != running.log_format);
    // The socket may have been named on the command line; then what the file says does not matter.
    new.socket.clone_from(&running.socket);
    new.listen.clone_from(&running.listen);
    new.state.clone_from(&running.state);
    new.host_netns = running.host_netns;
    new.log_format = running.log_format;
    for field in &changed {
        warn!(field, "changed, but takes effect only at the next start");
    }
    let fields = changed.join(", ");
    let notice = format!("changed, but takes effect only at the next start: {fields}");
    node.notice(AT_START, (!changed.is_empty()).then_some(notice));
}

/// A file that is a mount of its own does not show what is done to the directory it came from.
async fn say_mount(context: &Context, reload: &Reload) -> Result<(), Failure> {
    let (proc_root, named) = (context.roots.proc.clone(), reload.named.clone());
    let root =
        blocking((), move |()| mounts::root_at(&proc_root, place(named.as_deref()))).await?.1;
    // A file that is not there, or a proc that cannot be read: nothing to say.
    let notice = root.ok().flatten().map(|root| mount_notice(root.as_bytes()));
    if let Some(Some(notice)) = context.node.notice(MOUNT, notice.map(str::to_owned)) {
        warn!(config = place(reload.named.as_deref()).display().to_string(), "{notice}");
    }
    Ok(())
}

fn mount_notice(root: &[u8]) -> &'static str {
    if by_kubelet(&String::from_utf8_lossy(root)) {
        "the configuration's file is mounted by itself (subPath), and the kubelet never updates \
         such a mount: changes take effect only when the pod is made anew; mount the ConfigMap as \
         a directory, without subPath"
    } else {
        "the configuration's file is mounted by itself: what is written into it is noticed, a file \
         that replaces it is not; mount its directory instead"
    }
}

/// The kubelet's volumes (`pkg/volume/util/subpath`), by their place below its root directory, or,
/// where that is a tmpfs, by the time stamp in `..2006_01_02_15_04_05.1` (`atomic_writer.go`).
fn by_kubelet(root: &str) -> bool {
    let volumes = ["/volume-subpaths/", "/kubernetes.io~configmap/", "/kubernetes.io~projected/"];
    let stamped = |name: &str| name.strip_prefix("..").is_some_and(|rest| rest.starts_with("20"));
    volumes.iter().any(|volume| root.contains(volume)) || root.split('/').any(stamped)
}

/// Every value behind these locks is written whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_mounts_are_told_from_others() {
        for (root, kubelet) in [
            ("/var/lib/kubelet/pods/1/volume-subpaths/config/headroom/0", true),
            (
                "/lib/kubelet/pods/1/volumes/kubernetes.io~configmap/config/..2026_10_01_12_00_00.1/config.yaml",
                true,
            ),
            ("/..2026_10_01_12_00_00.123/config.yaml//deleted", true),
            ("/srv/headroom/config.yaml", false),
            ("/srv/..hidden/config.yaml", false),
        ] {
            assert_eq!(by_kubelet(root), kubelet, "{root}");
        }
    }
}
