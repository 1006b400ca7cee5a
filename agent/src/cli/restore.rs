//! `headroom restore`: put the originals back.

use headroom::sysctl::restore::{Outcome, Restored};
use schemars::JsonSchema;
use serde::Serialize;

use super::output::{Tone, or_dash};
use super::{Common, Exit, fail, lock, out, output};

/// What was put back.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Always `headroom.restore/v1`.
    schema: &'static str,
    /// Key by key; empty if nothing was on record.
    keys: Vec<Restored>,
    /// What is wrong beside that, in words.
    notices: Vec<String>,
}

pub fn run(common: &Common) -> Exit {
    let loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let _lock = match lock(&loaded.config.state, "restore") {
        Ok(lock) => lock,
        Err(exit) => return exit,
    };
    let mut engine = match common.engine(&loaded.config, false) {
        Ok(engine) => engine,
        Err(why) => return fail(why),
    };
    let keys = match engine.restore(|_| true) {
        Ok(keys) => keys,
        Err(error) => return fail(error),
    };
    let notices = engine.ledger_notice().map(str::to_owned).into_iter().collect();
    let report = Report { schema: "headroom.restore/v1", keys, notices };
    print(common, &report);
    let failed = report.keys.iter().any(|key| matches!(key.outcome, Outcome::Failed { .. }));
    // A ledger that could not be read or kept may have had more to put back.
    if failed || !report.notices.is_empty() { Exit::Failed } else { Exit::Ok }
}

fn print(common: &Common, report: &Report) {
    let out = out(&common.format);
    if out.is_json() {
        return out.document(report);
    }
    for notice in &report.notices {
        output::error(notice);
    }
    if report.keys.is_empty() && !report.notices.is_empty() {
        return;
    }
    if report.keys.is_empty() {
        return out.line("nothing on record: no value was changed since this boot");
    }
    let rows: Vec<_> = report
        .keys
        .iter()
        .map(|key| {
            let (tone, words) = match &key.outcome {
                Outcome::Restored => (Tone::Good, "restored".to_owned()),
                Outcome::AlreadyThere => (Tone::Good, "was back already".to_owned()),
                Outcome::LeftAlone => {
                    (Tone::Notable, "left alone: another writer changed it since".to_owned())
                }
                Outcome::Gone => (Tone::Notable, "the key is gone".to_owned()),
                Outcome::Failed { reason } => {
                    (Tone::Bad, format!("failed, stays on record: {reason}"))
                }
            };
            let cells = vec![
                tone.symbol().to_owned(),
                key.key.to_string(),
                or_dash(key.found.as_ref()),
                key.original.clone(),
                words,
            ];
            (tone, cells)
        })
        .collect();
    out.table(&["", "KEY", "WAS", "ORIGINAL", "OUTCOME"], &rows);
}
