//! inotify instances of a user.

use super::eyes::Eyes;
use super::fill::{fill, nobody};
use super::{Bench, Row};

/// Instances of a pod, as of one with a `tail -F` in each of its containers.
const EACH: u32 = 3;

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let uid = nobody(1);
    let user = format!("uid {uid}");
    let mut eyes = Eyes::new();
    let max = std::fs::read_to_string("/proc/sys/fs/inotify/max_user_instances").unwrap();
    let filled = fill(&bench.program, "inotify", &[uid.to_string(), EACH.to_string()], || {
        eyes.see("inotify_instances", &user)
    });
    Ok(Row {
        limit: "inotify instances of a user",
        pod: format!("a process with {EACH} instances"),
        set_to: max.trim().to_owned(),
        predictions: filled.foretold.quarters(filled.fact.pods),
        fact: filled.fact,
        allowed: 1,
        note: None,
    })
}
