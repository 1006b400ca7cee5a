//! The IPv4 neighbor table at its default thresholds: pods that talk, in the two shapes of
//! [`crate::density`].

use super::{Bench, Fact, Prediction, Row};
use crate::density::{self, Shape};

const DEFAULT: [u64; 3] = [128, 512, 1024];
const RAISED: [u64; 3] = [2048, 4096, 8192];

/// The node talks to every pod.
pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    Ok(of(bench, Shape::Node, "a namespace on a bridge that the node talks to"))
}

/// And every pod to five others.
pub fn drive_peers(bench: &Bench<'_>) -> Result<Row, String> {
    Ok(of(bench, Shape::Peers, "the same, and it talks to five others on the bridge"))
}

fn of(bench: &Bench<'_>, shape: Shape, pod: &str) -> Row {
    let run = density::run(bench.host, shape, DEFAULT, RAISED);
    let predictions = [25, 50, 75].map(|percent| {
        let said = run.foretold(percent, false);
        Prediction {
            pods: said.asked_at,
            remaining: Some(said.first_refused - 1 - said.asked_at),
            cost: Some((said.cost, said.from)),
        }
    });
    let fitted = run.first_refused - 1;
    let then = run.after_raising();
    let next = then.binding().map(|fit| fit.limit.about.title);
    Row {
        limit: "IPv4 neighbor table",
        pod: pod.to_owned(),
        set_to: format!("{DEFAULT:?}, the default").replace(['[', ']'], ""),
        predictions: predictions.to_vec(),
        fact: Fact { pods: fitted, refusal: "`table_fulls` rose".to_owned() },
        // Who talks to whom differs from pod to pod: 3 %, and three pods at the least.
        allowed: (run.first_refused * 3).div_ceil(100).max(3),
        note: next.map(|next| {
            let more = then.remaining.unwrap_or_default();
            format!("with {RAISED:?} the next stop, says Headroom, is the {next}: {more} more pods")
                .replace(['[', ']'], "")
        }),
    }
}
