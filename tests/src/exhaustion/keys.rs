//! Keys of a user.

use super::eyes::Eyes;
use super::fill::{fill, nobody};
use super::{Bench, Row};

/// Keys of a pod: the session keyring of its container, and one in it.
const EACH: u32 = 2;

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let uid = nobody(2);
    let user = format!("uid {uid}");
    let mut eyes = Eyes::new();
    let max = std::fs::read_to_string("/proc/sys/kernel/keys/maxkeys").unwrap();
    let filled = fill(&bench.program, "keys", &[uid.to_string(), EACH.to_string()], || {
        eyes.see("keys", &user)
    });
    Ok(Row {
        limit: "keys of a user",
        pod: format!("a process with a session keyring and {} key in it", EACH - 1),
        set_to: max.trim().to_owned(),
        predictions: filled.foretold.quarters(filled.fact.pods),
        fact: filled.fact,
        allowed: 1,
        note: None,
    })
}
