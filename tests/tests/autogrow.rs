//! Neighbor tables that grow before they are full. Their thresholds are the whole kernel's, so
//! these tests lower them for a while.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use headroom::kernel::neighbor::{Family, StatFile};
use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{HostLock, Namespace, SavedSysctls, WriteWatch, root_or_skip};

/// Nothing else in these tests needs more than this.
const FIRST: u64 = 600;

fn path(family: Family, level: u8) -> String {
    format!("net/{}/neigh/default/gc_thresh{level}", family.label())
}

fn threshold(family: Family, level: u8) -> u64 {
    let text = fs::read_to_string(Path::new("/proc/sys").join(path(family, level))).unwrap();
    text.trim().parse().unwrap()
}

fn thresholds(family: Family) -> [u64; 3] {
    [1, 2, 3].map(|level| threshold(family, level))
}

fn set(family: Family, level: u8, value: u64) {
    fs::write(Path::new("/proc/sys").join(path(family, level)), value.to_string()).unwrap();
}

fn fulls(family: Family) -> u64 {
    StatFile::open(Path::new("/proc"), family).unwrap().read().unwrap().table_fulls.unwrap()
}

/// Both tables with room for [`FIRST`] entries, until it is dropped.
fn lowered(host: &HostLock) -> SavedSysctls {
    let paths = Family::ALL.map(|family| [3, 2, 1].map(|level| path(family, level))).concat();
    let saved = SavedSysctls::new(host, paths.iter().map(String::as_str));
    for family in Family::ALL {
        for (level, value) in [(1, 128), (2, FIRST / 2), (3, FIRST)] {
            set(family, level, value);
        }
    }
    saved
}

/// The kernel frees what a namespace had some time after its end (`cleanup_net`): entries of an earlier
/// test would take the room of this one's. A machine with many of its own goes on with them.
fn wait_for_room() {
    let entries =
        |family| StatFile::open(Path::new("/proc"), family).unwrap().read().unwrap().entries;
    for _ in 0..600 {
        if Family::ALL.into_iter().all(|family| entries(family).is_none_or(|entries| entries < 40))
        {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A namespace with the interface `v0`, whose entries stay reachable for hours: their timers hold a
/// reference, so no collection frees them.
fn with_interface(host: &HostLock) -> Namespace {
    wait_for_room();
    let netns = Namespace::new(host);
    netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    for family in Family::ALL {
        netns.write(&format!("net/{}/neigh/v0/base_reachable_time_ms", family.label()), "36000000");
    }
    netns
}

/// Adds this many neighbors; how many the kernel refused.
fn add(netns: &Namespace, family: Family, range: std::ops::Range<usize>, how: &str) -> usize {
    let batch = range.fold(String::new(), |mut batch, number| {
        let address = match family {
            Family::Ipv4 => format!("10.1.{}.{}", number / 250, number % 250 + 1),
            Family::Ipv6 => format!("fd00::1:{number:x}"),
        };
        writeln!(batch, "neigh add {address} lladdr 02:00:00:00:00:01 dev v0 {how}").unwrap();
        batch
    });
    netns.ip_batch_failures(batch).matches("No buffer space available").count()
}

fn growing(ceiling: u64) -> String {
    format!(
        "watch: {{ neighborScan: 1s }}\nautogrow: {{ neighbor: {{ at: 0.75, ceiling: {ceiling} }} }}\n"
    )
}

fn steps(agent: &Agent<'_>, family: Family) -> Option<f64> {
    agent.metrics().value("headroom_autogrow_steps_total", &[("family", family.label())])
}

fn growth(agent: &Agent<'_>, family: Family) -> serde_json::Value {
    let tables = agent.status()["autogrow"]["tables"].clone();
    let mut tables = tables.as_array().cloned().unwrap_or_default().into_iter();
    tables.find(|table| table["family"] == family.label()).unwrap_or_default()
}

/// Looks this many times at both tables: each beat of the agent's heart samples them.
fn let_it_look(agent: &mut Agent<'_>, rounds: usize) {
    for _ in 0..rounds {
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(agent.try_ask("/livez").is_ok());
    }
}

#[test]
fn a_table_grows_before_it_is_full_up_to_its_ceiling_and_is_put_back() {
    let Some(host) = root_or_skip() else { return };
    let saved = lowered(&host);
    let netns = with_interface(&host);
    let family = Family::Ipv4;
    let home = Home::new();
    home.configure(&growing(1500));
    let mut agent = home.start();
    assert_eq!(Family::ALL.map(|family| steps(&agent, family)), [Some(0.0); 2]);
    // So that it sees the kernel collect by force when gc_thresh2 is passed.
    let_it_look(&mut agent, 3);
    let before = fulls(family);
    assert_eq!(add(&netns, family, 0..420, "nud reachable"), 0);
    agent.wait_until("not worth a step yet", |_| thresholds(family) == [128, FIRST / 2, FIRST]);
    assert_eq!(add(&netns, family, 420..500, "nud reachable"), 0);
    agent.wait_until("grown", |_| thresholds(family) == [128, FIRST, 2 * FIRST]);
    agent.wait_until("counted", |agent| steps(agent, family) == Some(1.0));
    assert_eq!(add(&netns, family, 500..990, "nud reachable"), 0);
    // It collects by force at most every 5 s.
    let_it_look(&mut agent, 7);
    assert_eq!(add(&netns, family, 990..1000, "nud reachable"), 0);
    agent.wait_until("at its ceiling", |_| thresholds(family) == [128, 750, 1500]);
    agent.wait_until("said", |agent| growth(agent, family)["atMost"] == true);
    assert_eq!(growth(&agent, family)["bound"], "ceiling");
    assert_eq!((growth(&agent, family)["grownTo"].as_u64(), fulls(family)), (Some(1500), before));
    assert_eq!(agent.log_with(&["the neighbor table grows", "ipv4"]).len(), 2);
    let text = home.run(["status"]).stdout;
    assert!(text.contains("no further than 1500: the configured ceiling"), "{text}");
    let key = "net.ipv4.neigh.default.gc_thresh3";
    assert_eq!(agent.key(key)["source"], "autogrow");
    let text = home.run(["explain", key]).stdout;
    assert!(text.contains("autogrow"), "{text}");

    // No further, however full.
    assert!(add(&netns, family, 1000..1600, "nud reachable") > 0);
    let_it_look(&mut agent, 12);
    assert_eq!(thresholds(family), [128, 750, 1500]);
    assert_eq!((steps(&agent, family), steps(&agent, Family::Ipv6)), (Some(2.0), Some(0.0)));
    assert_eq!(thresholds(Family::Ipv6), [128, FIRST / 2, FIRST]);

    // What has grown stays over a restart, and whatever else is configured.
    agent.kill9();
    drop(agent);
    let mut agent = home.start();
    assert_eq!(thresholds(family), [128, 750, 1500]);
    assert_eq!(growth(&agent, family)["grownTo"], 1500);
    let more = growing(1500) + "sysctls: { net.ipv4.neigh.default.gc_thresh3: { min: 800 } }\n";
    home.configure(&more);
    agent.wait_until("loaded", |agent| !agent.log_with(&["configuration loaded"]).is_empty());
    agent.wait_until("looked at", |agent| growth(agent, family)["grownTo"] == 1500);
    assert_eq!(thresholds(family), [128, 750, 1500]);

    // Then what the configuration makes of the originals.
    netns.ip(["neigh", "flush", "dev", "v0", "nud", "all"]);
    let paths = [1, 2, 3].map(|level| path(family, level));
    let mut writes = WriteWatch::new(paths.iter().map(String::as_str));
    home.configure("sysctls: { net.ipv4.neigh.default.gc_thresh3: { min: 800 } }\n");
    agent.wait_until("put back", |_| thresholds(family) == [128, FIRST / 2, 800]);
    assert_eq!(writes.written(), paths[1..], "the lower one first, each once");
    agent.wait_until("off", |agent| steps(agent, family).is_none());
    assert!(agent.status()["autogrow"].is_null());
    home.configure("sysctls: {}\n");
    agent.wait_until("put back", |_| thresholds(family) == [128, FIRST / 2, FIRST]);
    drop(agent);
    drop(saved);
}

#[test]
fn a_refusal_is_answered_at_once_for_both_families_and_a_start_without_growth_puts_back() {
    let Some(host) = root_or_skip() else { return };
    let _saved = lowered(&host);
    let netns = with_interface(&host);
    let home = Home::new();
    // No scan comes in time, and IPv6's upper bound says nothing.
    home.configure("watch: { neighborScan: 1h }\nautogrow: { neighbor: { at: 0.95 } }\n");
    let mut agent = home.start();
    // Their counters were seen.
    let_it_look(&mut agent, 3);
    for family in Family::ALL {
        assert!(add(&netns, family, 0..1000, "nud reachable") > 0, "{family:?}");
        agent.wait_until("grown", |_| thresholds(family) == [128, FIRST, 2 * FIRST]);
    }
    agent.wait_until("said", |agent| {
        agent.log_with(&["the neighbor table grows", "refused"]).len() == 2
    });
    assert_eq!(agent.terminate(), Some(0));
    drop(agent);
    home.configure("sysctls: {}\n");
    let agent = home.start();
    for family in Family::ALL {
        assert_eq!(thresholds(family), [128, FIRST / 2, FIRST]);
    }
    drop(agent);
}

#[test]
fn entries_that_do_not_count_make_no_step() {
    let Some(host) = root_or_skip() else { return };
    let _saved = lowered(&host);
    let netns = with_interface(&host);
    let home = Home::new();
    home.configure(&growing(65_536));
    let mut agent = home.start();
    for family in Family::ALL {
        assert_eq!(add(&netns, family, 0..4000, "nud permanent"), 0);
        // Some that do, fewer than gc_thresh2.
        assert_eq!(add(&netns, family, 4000..4100, "nud reachable"), 0);
    }
    let_it_look(&mut agent, 12);
    for family in Family::ALL {
        assert_eq!(thresholds(family), [128, FIRST / 2, FIRST]);
        assert_eq!(steps(&agent, family), Some(0.0));
    }
    assert_eq!(agent.log_with(&["grow"]).len(), 0);
}

#[test]
fn observed_it_says_what_it_would_do_and_writes_nothing() {
    let Some(host) = root_or_skip() else { return };
    let _saved = lowered(&host);
    let netns = with_interface(&host);
    let family = Family::Ipv4;
    let home = Home::new();
    home.configure(&("mode: observe\n".to_owned() + &growing(65_536)));
    let mut agent = home.start();
    let paths = Family::ALL.map(|family| [1, 2, 3].map(|level| path(family, level))).concat();
    let mut writes = WriteWatch::new(paths.iter().map(String::as_str));
    assert_eq!(add(&netns, family, 0..550, "nud reachable"), 0);
    agent.wait_until("said", |agent| agent.log_with(&["would grow", "ipv4"]).len() == 1);
    let_it_look(&mut agent, 12);
    assert_eq!(agent.log_with(&["would grow"]).len(), 1, "one line a step");
    assert_eq!(thresholds(family), [128, FIRST / 2, FIRST]);
    assert_eq!((writes.written(), steps(&agent, family)), (Vec::new(), Some(0.0)));
    assert_eq!(agent.key("net.ipv4.neigh.default.gc_thresh3")["state"], "observed");
}

#[test]
fn where_the_thresholds_are_not_the_nodes_it_says_so() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&("hostNetns: current\n".to_owned() + &growing(65_536)));
    let agent = home.start();
    let why = agent.status()["autogrow"]["unavailable"].as_str().unwrap().to_owned();
    assert!(why.contains("initial network namespace"), "{why}");
    assert_eq!(agent.log_with(&["autogrow does nothing here"]).len(), 1);
    let text = home.run(["status"]).stdout;
    assert!(text.contains("autogrow at 75 % does nothing"), "{text}");
}
