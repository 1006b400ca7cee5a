//! How many pods fit a neighbor table, foretold and found.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use headroom::capacity::CostFrom;
use headroom_tests::density::{Density, Shape, run, table};
use headroom_tests::root_or_skip;

const DEFAULT: [u64; 3] = [128, 512, 1024];
const RAISED: [u64; 3] = [2048, 4096, 8192];

/// Within 3 % of the pod that was refused, or three pods.
fn foretold(run: &Density) {
    for (percent, followed) in [25, 50, 75].into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let said = run.foretold(percent, followed);
        println!(
            "{:?} {percent} % followed={followed}: {said:?} of {}",
            run.shape, run.first_refused
        );
        let off = said.first_refused.abs_diff(run.first_refused);
        let allowed = (run.first_refused as f64 * 0.03).max(3.0);
        assert!(off as f64 <= allowed, "{said:?}, refused was {}", run.first_refused);
        let expected = if followed { CostFrom::Observed } else { CostFrom::Share };
        assert_eq!(said.from, expected);
    }
    println!("{}", table(std::slice::from_ref(run)));
}

#[test]
fn the_first_pod_that_meets_a_full_table_is_foretold_where_the_node_talks_to_all() {
    let Some(host) = root_or_skip() else { return };
    let run = run(&host, Shape::Node, DEFAULT, RAISED);
    foretold(&run);
    // The story of the article: the next stop is the bridge, and nothing raises that.
    let then = run.after_raising();
    let binding = then.binding().unwrap();
    assert_eq!(binding.limit.about.name, "bridge_ports");
    assert_eq!(binding.limit.raised_by, None);
    assert_eq!(binding.remaining, Some(1023 - binding.limit.used.unwrap()));
}

#[test]
fn the_first_pod_that_meets_a_full_table_is_foretold_where_pods_talk_to_five_peers() {
    let Some(host) = root_or_skip() else { return };
    foretold(&run(&host, Shape::Peers, DEFAULT, RAISED));
}
