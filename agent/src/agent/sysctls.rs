//! The sysctl task: the first pass, then whatever another process writes, and a sweep every few
//! seconds for what no notification tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::{info, warn};

use super::supervise::{Failure, blocking, current, recovered};
use super::{Context, once};
use crate::config::{Config, Mode};
use crate::kernel::netns::NetnsError;
use crate::kernel::touch::{Kind, Touches, Watcher};
use crate::node::Notifications;
use crate::sysctl::engine::Engine;
use crate::sysctl::glob::Subject;
use crate::sysctl::state::{AtBoot, KeyStatus, State};

/// How often the host's sysctl.d is read again.
const DISK_EVERY: Duration = Duration::from_secs(300);

/// Passes on notifications in each [`WINDOW`]: a process that writes without end does not keep
/// the agent busy. What comes meanwhile is put together.
const MOST: u32 = 50;
const WINDOW: Duration = Duration::from_secs(1);
/// While interfaces come and go all the time, looking for their keys takes a twentieth of the
/// time at the most.
const REST: u32 = 20;

/// What the next pass is about.
enum Work {
    /// All keys.
    Sweep,
    /// Keys that were written.
    Touched(Touches),
    /// Keys that may be there now.
    Appeared,
}

/// The engine, and what tells it of other writers.
struct Keeper {
    engine: Engine,
    watcher: Watcher,
}

impl Keeper {
    fn run(&mut self, work: &Work) -> Result<(), NetnsError> {
        let now = Instant::now();
        let Self { engine, watcher } = self;
        match work {
            Work::Sweep => engine.pass_watching(watcher, now),
            Work::Touched(touches) => engine.touched(watcher, touches, now),
            Work::Appeared => engine.appeared(watcher, now),
        }
    }
}

/// Keeps every key at its value.
pub async fn enforce(mut context: Context) -> Result<(), Failure> {
    let mut config = current(&context);
    let mut appeared = context.appeared.hear();
    let engine = start(&context, &config).await?;
    let mut keeper = Keeper { engine, watcher: watcher(&context) };
    let mut said: Vec<(String, State)> = Vec::new();
    let mut pace = Pace::new();
    let mut at_boot = Boot::default();
    let mut work = Work::Sweep;
    let mut sweep_at = TokioInstant::now();
    let mut rested_at = TokioInstant::now();
    loop {
        let (back, (result, work_done, took)) = blocking(keeper, move |keeper: &mut Keeper| {
            let started = Instant::now();
            let result = keeper.run(&work);
            (result, work, started.elapsed())
        })
        .await?;
        keeper = back;
        result.map_err(|error| error.to_string())?;
        publish(&context, &keeper.engine, &at_boot, &mut said, took);
        if at_boot.read.is_none_or(|read| read.elapsed() >= DISK_EVERY) {
            // After the first pass: the values come before what is known of other files.
            at_boot = boot(&context, &config, keeper.engine.status()).await?;
            publish(&context, &keeper.engine, &at_boot, &mut said, took);
        }
        match work_done {
            Work::Sweep => sweep_at = TokioInstant::now() + config.watch.sysctl_sweep,
            Work::Appeared => rested_at = TokioInstant::now() + took * REST,
            Work::Touched(_) => {}
        }
        recovered(&context.node, "sysctl");
        work = tokio::select! {
            () = sleep_until(sweep_at) => Work::Sweep,
            touches = pace.next(&keeper.watcher) => Work::Touched(touches),
            heard = async { sleep_until(rested_at).await; appeared.changed().await } => {
                heard.map_err(|_| "the agent is stopping".to_owned())?;
                Work::Appeared
            }
            changed = context.config.changed() => {
                changed.map_err(|_| "the agent is stopping".to_owned())?;
                config = current(&context);
                keeper = reconfigure(keeper, &config).await?;
                at_boot = Boot::default();
                Work::Sweep
            }
        };
    }
}

fn publish(
    context: &Context,
    engine: &Engine,
    at_boot: &Boot,
    said: &mut Vec<(String, State)>,
    took: Duration,
) {
    let mut keys = engine.status();
    for key in &mut keys {
        key.disk = at_boot.keys.get(&key.key).cloned();
    }
    say_changes(said, &keys);
    context.node.update(|state| {
        state.counters = engine.counters();
        state.ledger_notice = engine.ledger_notice().map(str::to_owned);
        state.keys = Some(keys);
        state.collected("sysctl", None, took);
    });
}

/// What the host's files set to something else at boot.
#[derive(Default)]
struct Boot {
    keys: BTreeMap<Subject, AtBoot>,
    read: Option<Instant>,
}

/// Reads the host's sysctl.d. A file can be on a slow disk, so not on the main thread.
async fn boot(
    context: &Context,
    config: &Arc<Config>,
    keys: Vec<KeyStatus>,
) -> Result<Boot, Failure> {
    let (roots, config) = (context.roots.clone(), config.clone());
    let (keys, ()) = blocking(keys, move |keys: &mut Vec<KeyStatus>| {
        once::note_disk(&once::disk(roots.host.as_deref()), &config, keys);
    })
    .await?;
    let noted = keys.into_iter().filter_map(|key| Some((key.key, key.disk?)));
    Ok(Boot { keys: noted.collect(), read: Some(Instant::now()) })
}

/// By the best means there are: fanotify names the writer, and takes CAP_SYS_ADMIN.
fn watcher(context: &Context) -> Watcher {
    let (watcher, kind) = Watcher::new(context.inotify.as_ref());
    let (by, reason) = match kind {
        Kind::Fanotify => ("fanotify", None),
        Kind::Inotify { reason } => ("inotify", Some(format!("writers are not named: {reason}"))),
        Kind::None { reason } => {
            ("none", Some(format!("writes are found by the sweep alone: {reason}")))
        }
    };
    info!(by, reason, "watching the keys' files");
    let notifications = Notifications { by: by.to_owned(), reason };
    context.node.update(|state| state.notifications = Some(notifications));
    watcher
}

/// Bounds how often notifications are acted on.
struct Pace {
    begun: TokioInstant,
    passes: u32,
}

impl Pace {
    fn new() -> Self {
        Self { begun: TokioInstant::now(), passes: 0 }
    }

    /// What was written, as soon as another pass is due. May be dropped while it waits.
    async fn next(&mut self, watcher: &Watcher) -> Touches {
        if self.begun.elapsed() >= WINDOW {
            *self = Self::new();
        }
        if self.passes >= MOST {
            sleep_until(self.begun + WINDOW).await;
            *self = Self::new();
        }
        let touches = watcher.next().await;
        self.passes += 1;
        touches
    }
}

/// Opens what there is to open, and puts back what an earlier run changed and the configuration no
/// longer names. Files and writes can wait for RTNL, so not on the main thread.
async fn start(context: &Context, config: &Arc<Config>) -> Result<Engine, Failure> {
    let (roots, place) = (context.roots.clone(), (*context.place).clone());
    let config = config.clone();
    let (_, engine) = blocking((), move |()| {
        let observe = config.mode == Mode::Observe;
        let mut engine = once::engine(&config, &roots, place, observe)?;
        restore(&mut engine, &config);
        Ok::<_, Failure>(engine)
    })
    .await?;
    engine
}

async fn reconfigure(keeper: Keeper, config: &Arc<Config>) -> Result<Keeper, Failure> {
    let config = config.clone();
    let (keeper, ()) = blocking(keeper, move |Keeper { engine, .. }: &mut Keeper| {
        engine.configure(config.policies.clone(), config.globs.clone());
        engine.set_observe(config.mode == Mode::Observe);
        restore(engine, &config);
    })
    .await?;
    Ok(keeper)
}

fn restore(engine: &mut Engine, config: &Config) {
    if config.mode == Mode::Observe {
        return;
    }
    if let Err(error) = engine.restore_unconfigured() {
        warn!(reason = %error, "originals of keys that are no longer configured were not put back");
    }
}

/// One line for each key that came into another state. Writes have lines of their own.
fn say_changes(said: &mut Vec<(String, State)>, keys: &[KeyStatus]) {
    let now: Vec<(String, State)> =
        keys.iter().map(|key| (key.key.to_string(), key.state)).collect();
    for (key, (name, state)) in keys.iter().zip(&now) {
        // First, so that nothing is searched in the common case.
        if matches!(state, State::InSync | State::Normalized) || key.in_sync {
            continue;
        }
        if said.iter().any(|(before, was)| before == name && was == state) {
            continue;
        }
        let (state, value) = (state.label(), key.actual.as_deref());
        let (want, reason) = (key.want.as_str(), key.detail.as_deref());
        if key.required {
            warn!(key = name, state, value, want, reason, "not as wanted");
        } else {
            info!(key = name, state, value, want, reason, "not as wanted");
        }
    }
    *said = now;
}
