//! Open files of the whole node. Root is exempt, so pods are another user's here.
//!
//! Everything else of the machine that is not root's meets the lowered maximum too, but only
//! once it is reached: from then on it is the moment until the refused pod has closed its files.

use super::eyes::Eyes;
use super::fill::{fill, nobody};
use super::{Bench, Row};
use crate::SavedSysctls;

/// Open files of a pod: what comes and goes on the machine meanwhile is far less.
const EACH: u64 = 300;
/// Pods for which there is room, and what the last one lacks.
const PODS: u64 = 40;
const SPARE: u64 = 500;

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let _saved = SavedSysctls::new(bench.host, ["fs/file-max"]);
    let now = std::fs::read_to_string("/proc/sys/fs/file-nr").unwrap();
    let now: u64 = now.split_whitespace().next().unwrap().parse().unwrap();
    let max = now + PODS * EACH + SPARE;
    let mut eyes = Eyes::new();
    std::fs::write("/proc/sys/fs/file-max", max.to_string()).unwrap();
    let uid = nobody(3).to_string();
    let filled =
        fill(&bench.program, "files", &[uid, EACH.to_string()], || eyes.see("file_handles", ""));
    Ok(Row {
        limit: "file handles of the node",
        pod: format!("a process with {EACH} open files"),
        set_to: format!("{} more than were in use", max - now),
        predictions: filled.foretold.quarters(filled.fact.pods),
        fact: filled.fact,
        allowed: 1,
        note: None,
    })
}
