//! `headroom apply`: one pass over the host's keys.

use std::time::Instant;

use headroom::config::Mode;
use headroom::sysctl::policy::OnConflict;
use headroom::sysctl::state::KeyStatus;
use schemars::JsonSchema;
use serde::Serialize;

use super::status::key_rows;
use super::{Common, Exit, fail, lock, out, output};

/// What `apply` did.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Applied {
    /// Always `headroom.apply/v1`.
    schema: &'static str,
    /// Values put in force.
    set: u64,
    /// Values that could not be put in force.
    failed: u64,
    /// Whether every required key is met.
    met: bool,
    /// How long the pass took, with all its reads, writes and the ledger, in microseconds.
    pass_micros: u64,
    /// Every configured key after the pass.
    keys: Vec<KeyStatus>,
    /// What is wrong beside that, in words.
    notices: Vec<String>,
}

pub fn run(common: &Common) -> Exit {
    let loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let observe = loaded.config.mode == Mode::Observe;
    let _lock = match (observe, lock(&loaded.config.state, "apply")) {
        (_, Ok(lock)) => lock,
        (true, Err(_)) => None,
        (false, Err(exit)) => return exit,
    };
    let mut engine = match common.engine(&loaded.config, observe) {
        Ok(engine) => engine,
        Err(why) => return fail(why),
    };
    let started = Instant::now();
    if let Err(error) = engine.pass(started) {
        return fail(error);
    }
    let pass_micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let counters = engine.counters();
    let keys = engine.status();
    let excused = |key: &KeyStatus| !key.required || key.on_conflict != OnConflict::Enforce;
    let met = keys.iter().all(|key| key.in_sync || excused(key));
    let applied = Applied {
        schema: "headroom.apply/v1",
        set: counters.ok,
        failed: counters.rejected + counters.denied + counters.mismatch,
        met,
        pass_micros,
        keys,
        notices: engine.ledger_notice().map(str::to_owned).into_iter().collect(),
    };
    print(common, &applied, observe);
    if met { Exit::Ok } else { Exit::Differs }
}

fn print(common: &Common, applied: &Applied, observe: bool) {
    let out = out(&common.format);
    if out.is_json() {
        return out.document(applied);
    }
    out.table(&["", "KEY", "VALUE", "WANT", "STATE", ""], &key_rows(&applied.keys));
    for notice in &applied.notices {
        output::error(notice);
    }
    let mode = if observe { " (mode observe: nothing is written)" } else { "" };
    out.line(format_args!(
        "\n{} set, {} failed, {} of {} keys as wanted{mode}",
        applied.set,
        applied.failed,
        applied.keys.iter().filter(|key| key.in_sync).count(),
        applied.keys.len()
    ));
}
