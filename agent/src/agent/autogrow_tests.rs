#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::load::{EMBEDDED, Origin, judge};

const THRESH3: &str = "net.ipv4.neigh.default.gc_thresh3";

fn config(body: &str) -> Config {
    let head = "apiVersion: headroom/v1\nkind: AgentConfig\nautogrow: { neighbor: {} }\n";
    judge(Origin::Embedded, format!("{head}{body}").as_bytes()).unwrap().config
}

fn want(floors: &Floors, config: &Config) -> Option<(String, Source)> {
    let policies = floors.policies(config);
    let policy = policies.get(&Key::parse(THRESH3).unwrap())?;
    Some((policy.want.to_string(), policy.source.clone()))
}

#[test]
fn the_larger_floor_wins_and_a_max_stays() {
    let grown = Floors([[Some(2048), Some(4096)], [None, None]]);
    for (body, expected, by_growth) in [
        ("", ">= 4096", true),
        ("sysctls: { net.ipv4.neigh.default.gc_thresh3: { min: 2048 } }", ">= 4096", true),
        ("sysctls: { net.ipv4.neigh.default.gc_thresh3: { min: 8192 } }", ">= 8192", false),
        ("profiles: [dense-node]", ">= 8192", false),
        ("sysctls: { net.ipv4.neigh.default.gc_thresh3: { max: 9999 } }", "4096 .. 9999", true),
        ("sysctls: { net.ipv4.neigh.default.gc_thresh3: { max: 3000 } }", "3000 .. 3000", true),
        ("sysctls: { net.ipv4.neigh.*.gc_thresh3: { min: 1, max: 5000 } }", "4096 .. 5000", true),
    ] {
        let config = config(body);
        let (want, source) = want(&grown, &config).unwrap();
        assert_eq!((want.as_str(), source == Source::Autogrow), (expected, by_growth), "{body}");
    }
    let config = config("");
    assert_eq!(want(&Floors::default(), &config), None, "nothing has grown");
    let policies = grown.policies(&config);
    let names: Vec<&str> = policies.keys().map(Key::as_str).collect();
    assert_eq!(names, ["net.ipv4.neigh.default.gc_thresh2", THRESH3], "and never gc_thresh1");
    assert!(policies.values().all(|policy| !policy.required));
}

#[test]
fn a_required_key_stays_required_and_another_writers_rights_stay_theirs() {
    let body = "sysctls: { net.ipv4.neigh.default.gc_thresh3: { min: 9, onConflict: yield } }";
    let grown = Floors([[None, Some(4096)], [None, None]]);
    let policies = grown.policies(&config(body));
    let policy = policies.get(&Key::parse(THRESH3).unwrap()).unwrap();
    assert_eq!((policy.on_conflict, policy.required), (OnConflict::Yield, true));
}

#[test]
fn off_is_what_the_embedded_configuration_has() {
    let config = judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap().config;
    assert_eq!(config.autogrow, None);
    assert_eq!(Floors::default().policies(&config), config.policies);
}
