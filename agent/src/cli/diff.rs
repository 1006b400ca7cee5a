//! `headroom diff`: what `apply` would change.

use std::time::Instant;

use headroom::sysctl::managed::show;
use headroom::sysctl::state::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::output::Tone;
use super::{Common, Exit, fail, out};

/// What would change.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diff {
    /// Always `headroom.diff/v1`.
    schema: &'static str,
    /// What would be written, in that order.
    changes: Vec<Change>,
    /// Keys that are not as wanted and could not be written.
    blocked: Vec<Blocked>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Change {
    key: String,
    from: String,
    to: String,
    want: String,
    source: String,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Blocked {
    key: String,
    state: State,
    want: String,
    required: bool,
    reason: Option<String>,
}

pub fn run(common: &Common) -> Exit {
    let loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    // Opened for writing, to know what would be denied; nothing is written.
    let mut engine = match common.engine(&loaded.config, false) {
        Ok(engine) => engine,
        Err(why) => return fail(why),
    };
    let planned = match engine.preview(Instant::now()) {
        Ok(planned) => planned,
        Err(error) => return fail(error),
    };
    let keys = engine.status();
    let changes = planned
        .iter()
        .map(|change| {
            // Also of a key that a pattern has found.
            let status = engine.status_of(&change.key);
            Change {
                key: change.key.to_string(),
                from: show(&change.from.to_string()),
                to: show(&change.to.to_string()),
                want: status.as_ref().map(|status| status.want.clone()).unwrap_or_default(),
                source: status.map(|status| status.source).unwrap_or_default(),
            }
        })
        .collect();
    let stuck = |state| {
        matches!(state, State::Unsupported | State::Pending | State::Denied | State::Rejected)
    };
    let blocked = keys.iter().filter(|status| stuck(status.state)).map(|status| Blocked {
        key: status.key.to_string(),
        state: status.state,
        want: status.want.clone(),
        required: status.required,
        reason: status.detail.clone(),
    });
    let diff = Diff { schema: "headroom.diff/v1", changes, blocked: blocked.collect() };
    print(common, &diff);
    if diff.changes.is_empty() { Exit::Ok } else { Exit::Differs }
}

fn print(common: &Common, diff: &Diff) {
    let out = out(&common.format);
    if out.is_json() {
        return out.document(diff);
    }
    if !diff.changes.is_empty() {
        let rows: Vec<_> = diff
            .changes
            .iter()
            .map(|change| {
                let cells = [&change.key, &change.from, &change.to, &change.want, &change.source];
                (Tone::Notable, cells.into_iter().cloned().collect())
            })
            .collect();
        out.table(&["KEY", "NOW", "WOULD BE", "WANT", "FROM"], &rows);
    }
    if !diff.blocked.is_empty() {
        let rows: Vec<_> = diff
            .blocked
            .iter()
            .map(|blocked| {
                let tone = if blocked.required { Tone::Bad } else { Tone::Notable };
                let reason = blocked.reason.clone().unwrap_or_default();
                (tone, vec![blocked.key.clone(), blocked.state.label().to_owned(), reason])
            })
            .collect();
        if !diff.changes.is_empty() {
            out.line("");
        }
        out.table(&["NOT POSSIBLE", "STATE", "WHY"], &rows);
    }
    if diff.changes.is_empty() && diff.blocked.is_empty() {
        out.line("nothing would change: every key is as wanted");
    } else if diff.changes.is_empty() {
        let blocked = diff.blocked.len();
        out.line(format_args!("\nnothing would change: {blocked} keys are not possible here"));
    }
}
