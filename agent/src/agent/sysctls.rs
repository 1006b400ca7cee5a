//! The sysctl task: the first pass, then a sweep every few seconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::{info, warn};

use super::supervise::{Failure, blocking, current, recovered};
use super::{Context, once};
use crate::config::{Config, Mode};
use crate::sysctl::disk::Disk;
use crate::sysctl::engine::Engine;
use crate::sysctl::state::{KeyStatus, State};

/// How often the host's sysctl.d is read again.
const DISK_EVERY: Duration = Duration::from_secs(300);

/// Keeps every key at its value.
pub async fn enforce(mut context: Context) -> Result<(), Failure> {
    let mut config = current(&context);
    let mut engine = start(&context, &config).await?;
    let mut said: Vec<(String, State)> = Vec::new();
    let mut disk = read_disk(&context).await?;
    loop {
        let (back, (result, took)) = blocking(engine, |engine: &mut Engine| {
            let started = Instant::now();
            (engine.pass(started), started.elapsed())
        })
        .await?;
        engine = back;
        result.map_err(|error| error.to_string())?;
        if disk.read_at.elapsed() >= DISK_EVERY {
            disk = read_disk(&context).await?;
        }
        let mut keys = engine.status();
        once::note_disk(&disk.disk, &config, &mut keys);
        say_changes(&mut said, &keys);
        context.node.update(|state| {
            state.counters = engine.counters();
            state.ledger_notice = engine.ledger_notice().map(str::to_owned);
            state.keys = Some(keys);
            state.collected("sysctl", None, took);
        });
        recovered(&context.node, "sysctl");
        tokio::select! {
            () = sleep_until(TokioInstant::now() + config.watch.sysctl_sweep) => {}
            changed = context.config.changed() => {
                changed.map_err(|_| "the agent is stopping".to_owned())?;
                config = current(&context);
                engine = reconfigure(engine, &config).await?;
                disk = read_disk(&context).await?;
            }
        }
    }
}

/// What the host's sysctl.d said when it was last read.
struct Kept {
    disk: Disk,
    read_at: Instant,
}

/// Reads the host's sysctl.d. A file can be on a slow disk, so not on the main thread.
async fn read_disk(context: &Context) -> Result<Kept, Failure> {
    let roots = context.roots.clone();
    let (_, disk) = blocking((), move |()| once::disk(roots.host.as_deref())).await?;
    Ok(Kept { disk, read_at: Instant::now() })
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

async fn reconfigure(engine: Engine, config: &Arc<Config>) -> Result<Engine, Failure> {
    let config = config.clone();
    let (engine, ()) = blocking(engine, move |engine: &mut Engine| {
        engine.configure(config.policies.clone());
        engine.set_observe(config.mode == Mode::Observe);
        restore(engine, &config);
    })
    .await?;
    Ok(engine)
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
        if said.iter().any(|before| before == &(name.clone(), *state)) {
            continue;
        }
        if matches!(state, State::InSync | State::Normalized) || key.in_sync {
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
