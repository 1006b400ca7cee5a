//! The sysctl task: the first pass, then whatever another process writes, and a sweep every few
//! seconds for what no notification tells.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::{info, warn};

use super::autogrow::{self, Floors, Grower, Taken};
use super::once::InPods;
use super::supervise::{Failure, blocking, current, recovered};
use super::{Context, once};
use crate::config::{Config, Mode};
use crate::kernel::netns::NetnsError;
use crate::kernel::system;
use crate::kernel::touch::{Kind, Touches, Watcher};
use crate::node::{Node, Notifications};
use crate::sysctl::engine::Engine;
use crate::sysctl::glob::{Glob, Subject};
use crate::sysctl::key::Key;
use crate::sysctl::policy::Policy;
use crate::sysctl::state::{AtBoot, KeyStatus, State};

/// How often the host's sysctl.d is read again.
const DISK_EVERY: Duration = Duration::from_secs(300);

/// Passes on notifications in each [`WINDOW`]: a process that writes without end does not keep
/// the agent busy. What comes meanwhile is put together.
const MOST: u32 = 50;
const WINDOW: Duration = Duration::from_secs(1);
/// And of the time they take a tenth at the most, however many keys there are.
const SHARE: u32 = 10;
/// While interfaces come and go all the time, looking for their keys takes a twentieth of the
/// time at the most.
const REST: u32 = 20;

/// Between two looks at tables that may grow: as often as their entries are sampled.
const LOOK_AT_TABLES: Duration = Duration::from_secs(1);

/// What the next pass is about.
enum Work {
    /// All keys.
    Sweep,
    /// Keys that were written.
    Touched(Touches),
    /// Keys that may be there now, or those of an interface.
    Links,
    /// All keys: a module came or went.
    Modules,
    /// All keys: a table is to grow.
    Grow(Steps),
    /// None: what is known of the host's files is new.
    Nothing,
}

/// What the engine is to keep from now on, and why.
struct Steps {
    policies: BTreeMap<Key, Policy>,
    globs: Vec<(Glob, Policy)>,
    taken: Vec<Taken>,
}

/// The engine, and what tells it of other writers.
struct Keeper {
    engine: Engine,
    watcher: Watcher,
    /// Looked at once for each configuration.
    in_pods: InPods,
    /// What tables had grown to when the configuration came into force.
    floors: Floors,
}

impl Keeper {
    fn run(&mut self, work: &Work) -> Result<(), NetnsError> {
        let now = Instant::now();
        let Self { engine, watcher, .. } = self;
        match work {
            Work::Sweep | Work::Modules => engine.pass_watching(watcher, now),
            Work::Touched(touches) => engine.touched(watcher, touches, now),
            Work::Links => engine.appeared(watcher, now),
            Work::Grow(Steps { policies, globs, .. }) => {
                engine.configure(policies.clone(), globs.clone());
                engine.pass_watching(watcher, now)
            }
            Work::Nothing => Ok(()),
        }
    }
}

/// Keeps every key at its value.
pub async fn enforce(mut context: Context) -> Result<(), Failure> {
    let mut config = current(&context);
    let mut appeared = context.appeared.hear();
    let mut heard = *appeared.borrow();
    let (engine, in_pods, floors) = start(&context, &config).await?;
    let mut keeper = Keeper { engine, watcher: watcher(&context), in_pods, floors };
    let mut grower = Grower::new(None, &context, &config, floors);
    let mut look_at = TokioInstant::now();
    let mut said = BTreeMap::new();
    let mut pace = Pace::new();
    let mut at_boot = Boot::default();
    let mut reading: Option<(Arc<Config>, JoinHandle<Boot>)> = None;
    let mut work = Work::Sweep;
    let mut sweep_at = TokioInstant::now();
    let mut rested_at = TokioInstant::now();
    loop {
        let (back, (result, work_done, pass)) = blocking(keeper, move |keeper: &mut Keeper| {
            let (started, before) = (Instant::now(), system::thread_cpu_time());
            let result = keeper.run(&work);
            // Here, because it takes its time where patterns have thousands of keys.
            let mut keys = keeper.engine.status();
            once::note_pods(&keeper.in_pods, &mut keys);
            let cost = system::thread_cpu_time().saturating_sub(before);
            (result, work, Pass { keys, took: started.elapsed(), cost })
        })
        .await?;
        keeper = back;
        result.map_err(|error| error.to_string())?;
        publish(&context, &keeper.engine, &at_boot, &mut said, &pass);
        if reading.is_none() && at_boot.read.is_none_or(|read| read.elapsed() >= DISK_EVERY) {
            // After the first pass: the values come before what is known of other files.
            reading = Some((config.clone(), boot(&context, &config, pass.keys.clone())));
        }
        match work_done {
            Work::Sweep => sweep_at = TokioInstant::now() + config.watch.sysctl_sweep,
            Work::Links | Work::Modules => rested_at = TokioInstant::now() + pass.took * REST,
            Work::Touched(_) => pace.spent += pass.cost,
            Work::Grow(Steps { taken, .. }) => {
                if let Some(grower) = &mut grower {
                    grower.settle(&context.node, &taken, &pass.keys, config.mode);
                }
            }
            Work::Nothing => {}
        }
        recovered(&context.node, "sysctl");
        work = tokio::select! {
            read = async { Some((&mut reading.as_mut()?.1).await) }, if reading.is_some() => {
                let meant = reading.take().is_some_and(|(meant, _)| Arc::ptr_eq(&meant, &config));
                at_boot = match read {
                    Some(Ok(boot)) if meant => boot,
                    // A bug there costs what it would have told.
                    Some(Err(_)) => Boot { read: Some(Instant::now()), ..Boot::default() },
                    _ => Boot::default(),
                };
                Work::Nothing
            }
            () = sleep_until(sweep_at) => Work::Sweep,
            touches = pace.next(&keeper.watcher) => Work::Touched(touches),
            steps = growing(&context.node, &config, &mut grower, &mut look_at) => Work::Grow(steps),
            changed = async { sleep_until(rested_at).await; appeared.changed().await } => {
                changed.map_err(|_| "the agent is stopping".to_owned())?;
                let before = std::mem::replace(&mut heard, *appeared.borrow_and_update());
                if before.modules == heard.modules { Work::Links } else { Work::Modules }
            }
            changed = context.config.changed() => {
                changed.map_err(|_| "the agent is stopping".to_owned())?;
                config = current(&context);
                keeper = reconfigure(&context, keeper, &config).await?;
                grower = Grower::new(grower, &context, &config, keeper.floors);
                at_boot = Boot::default();
                Work::Sweep
            }
        };
    }
}

/// What a pass came to.
struct Pass {
    keys: Vec<KeyStatus>,
    took: Duration,
    /// Of the processor.
    cost: Duration,
}

fn publish(
    context: &Context,
    engine: &Engine,
    at_boot: &Boot,
    said: &mut BTreeMap<String, State>,
    pass: &Pass,
) {
    let mut keys = pass.keys.clone();
    for key in &mut keys {
        key.disk = at_boot.keys.get(&key.key).cloned();
    }
    say_changes(said, &keys);
    if let Some(Some(notice)) = context.node.notice("keys-unwatched", engine.unwatched()) {
        warn!("{notice}");
    }
    context.node.update(|state| {
        state.counters = engine.counters();
        state.ledger_notice = engine.ledger_notice().map(str::to_owned);
        state.keys = Some(keys);
        state.collected("sysctl", None, pass.took);
    });
}

/// What the host's files set to something else at boot.
#[derive(Default)]
struct Boot {
    keys: BTreeMap<Subject, AtBoot>,
    read: Option<Instant>,
}

/// Reads the host's sysctl.d. A file can be on a disk that is slow or hangs, so nothing waits for
/// it.
fn boot(context: &Context, config: &Arc<Config>, mut keys: Vec<KeyStatus>) -> JoinHandle<Boot> {
    let (roots, config) = (context.roots.clone(), config.clone());
    tokio::task::spawn_blocking(move || {
        once::note_disk(&once::disk(roots.host.as_deref()), &config, &mut keys);
        let noted = keys.into_iter().filter_map(|key| Some((key.key, key.disk?)));
        Boot { keys: noted.collect(), read: Some(Instant::now()) }
    })
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
    spent: Duration,
}

impl Pace {
    fn new() -> Self {
        Self { begun: TokioInstant::now(), passes: 0, spent: Duration::ZERO }
    }

    /// What was written, as soon as another pass is due. May be dropped while it waits.
    async fn next(&mut self, watcher: &Watcher) -> Touches {
        let ends = self.begun + WINDOW.max(self.spent * SHARE);
        if self.passes >= MOST || self.spent * SHARE >= WINDOW {
            sleep_until(ends).await;
        }
        if TokioInstant::now() >= ends {
            *self = Self::new();
        }
        let touches = watcher.next().await;
        self.passes += 1;
        touches
    }
}

/// Opens what there is to open, and puts back what an earlier run changed and the configuration no
/// longer names. Files and writes can wait for RTNL, so not on the main thread.
async fn start(
    context: &Context,
    config: &Arc<Config>,
) -> Result<(Engine, InPods, Floors), Failure> {
    let (roots, place) = (context.roots.clone(), (*context.place).clone());
    let config = config.clone();
    let (_, started) = blocking((), move |()| {
        let observe = config.mode == Mode::Observe;
        let in_pods = once::in_pods(&config, &roots, place.kernel);
        let mut engine = once::engine(&config, &roots, place, observe, true)?;
        restore(&mut engine, &config);
        let floors = Floors::on_record(&engine, &config);
        Ok::<_, Failure>((engine, in_pods, floors))
    })
    .await?;
    started
}

async fn reconfigure(
    context: &Context,
    keeper: Keeper,
    config: &Arc<Config>,
) -> Result<Keeper, Failure> {
    let (roots, kernel, config) = (context.roots.clone(), context.place.kernel, config.clone());
    let (keeper, ()) =
        blocking(keeper, move |Keeper { engine, in_pods, floors, .. }: &mut Keeper| {
            *in_pods = once::in_pods(&config, &roots, kernel);
            *floors = Floors::on_record(engine, &config);
            engine.configure(floors.policies(&config), config.globs.clone());
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
    let shrunk = autogrow::put_back(engine, config);
    if let Err(error) = shrunk.and_then(|()| engine.restore_unconfigured()) {
        warn!(reason = %error, "originals of keys that are no longer configured were not put back");
    }
}

/// Waits until a table is to grow. May be dropped while it waits.
async fn growing(
    node: &Node,
    config: &Config,
    grower: &mut Option<Grower>,
    look_at: &mut TokioInstant,
) -> Steps {
    let Some(grower) = grower else { return std::future::pending().await };
    loop {
        sleep_until(*look_at).await;
        *look_at = TokioInstant::now() + LOOK_AT_TABLES;
        let taken = grower.look(node, config, Instant::now());
        if !taken.is_empty() {
            return Steps { policies: grower.policies(config), globs: config.globs.clone(), taken };
        }
    }
}

/// One line for each key that came into another state. Writes have lines of their own.
fn say_changes(said: &mut BTreeMap<String, State>, keys: &[KeyStatus]) {
    let mut now = BTreeMap::new();
    for key in keys {
        let name = key.key.to_string();
        let before = said.get(&name);
        now.insert(name, key.state);
        if before == Some(&key.state)
            || matches!(key.state, State::InSync | State::Normalized)
            || key.in_sync
        {
            continue;
        }
        let name = key.key.as_str();
        let (state, value) = (key.state.label(), key.actual.as_deref());
        let (want, reason) = (key.want.as_str(), key.detail.as_deref());
        if key.required {
            warn!(key = name, state, value, want, reason, "not as wanted");
        } else {
            info!(key = name, state, value, want, reason, "not as wanted");
        }
    }
    *said = now;
}
