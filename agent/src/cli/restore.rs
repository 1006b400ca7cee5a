//! `headroom restore`: put the originals back.

use headroom::agent::once;
use headroom::pods::restore::{self as pods, RestoredPod};
use headroom::sysctl::restore::{Outcome, Restored};
use schemars::JsonSchema;
use serde::Serialize;

use super::output::{Output, Tone, or_dash};
use super::{Common, Exit, fail, lock, out, output};

/// What was put back.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Always `headroom.restore/v1`.
    schema: &'static str,
    /// Key by key; empty if nothing was on record.
    keys: Vec<Restored>,
    /// The same of pods' network namespaces.
    pods: Vec<RestoredPod>,
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
    let roots = common.roots();
    let kernel = once::place(&loaded.config, &roots).kernel;
    let pods = match once::pod_plan(&loaded.config, &roots, kernel) {
        Ok(plan) => pods::restore(&loaded.config, &roots.proc, &plan),
        Err(why) => return fail(why),
    };
    let notices = engine.ledger_notice().map(str::to_owned).into_iter().collect();
    let report = Report { schema: "headroom.restore/v1", keys, pods, notices };
    print(common, &report);
    let of_pods = report.pods.iter().flat_map(|pod| &pod.keys);
    let mut keys = report.keys.iter().chain(of_pods);
    let failed = keys.any(|key| matches!(key.outcome, Outcome::Failed { .. }))
        || report.pods.iter().any(|pod| pod.error.is_some());
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
    let nothing = report.keys.is_empty() && report.pods.is_empty();
    if nothing && !report.notices.is_empty() {
        return;
    }
    if nothing {
        return out.line("nothing on record: no value was changed since this boot");
    }
    if !report.keys.is_empty() {
        table(&out, &report.keys);
    }
    for pod in &report.pods {
        out.heading(&pod.path);
        match &pod.error {
            Some(error) => out.line(format_args!("{} {error}", out.paint(Tone::Bad, "✗"))),
            None => table(&out, &pod.keys),
        }
    }
}

fn table(out: &Output, keys: &[Restored]) {
    let rows: Vec<_> = keys
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
