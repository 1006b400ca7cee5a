#![allow(clippy::unwrap_used)]

use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::kernel::neighbor::{EntryCounts, TableStat};
use crate::limits::neighbor::Scan;

const AT: u64 = 750;

fn demand(used: u64) -> Demand {
    Demand { used: Some((used, Basis::Pinned)), full: false }
}

fn thresholds(step: Option<Step>) -> Option<(u64, u64)> {
    step.map(|step| (step.thresh2, step.thresh3))
}

#[test]
fn a_table_doubles_when_it_is_three_quarters_full_or_refused_an_entry() {
    let from = [128, 512, 1024];
    let full = Demand { used: Some((3, Basis::Pinned)), full: true };
    let unknown = Demand::default();
    for (demand, most, expected) in [
        (demand(767), 65_536, None),
        (demand(768), 65_536, Some((1024, 2048))),
        (demand(9999), 65_536, Some((1024, 2048))),
        (demand(768), 1500, Some((750, 1500))),
        (demand(1024), 1024, None),
        (demand(1024), 512, None),
        (full, 65_536, Some((1024, 2048))),
        (full, 1024, None),
        (unknown, 65_536, None),
        (Demand { full: true, ..unknown }, 65_536, Some((1024, 2048))),
    ] {
        assert_eq!(thresholds(step(demand, from, AT, most)), expected, "{demand:?} {most}");
    }
    // Somebody keeps gc_thresh2 higher than half.
    assert_eq!(thresholds(step(demand(999), [128, 1024, 1024], AT, 1500)), Some((1024, 1500)));
    assert_eq!(step(demand(0), [0, 0, 0], AT, 1024), None, "nothing to double");
}

#[test]
fn the_nearest_bound_is_named() {
    let rule = Rule { at: AT, ceiling: 65_536 };
    assert_eq!(rule.most(8 << 30, None), (65_536, Bound::Ceiling));
    assert_eq!(rule.most(1 << 30, None), (20_971, Bound::Memory));
    assert_eq!(rule.most(1 << 30, Some(4096)), (4096, Bound::Max));
}

/// A table with gc_thresh 128/512/1024.
fn table(entries: u64, fulls: u64, forced: u64) -> Neighbor {
    let stat = TableStat {
        entries: Some(entries),
        table_fulls: Some(fulls),
        forced_gc_runs: Some(forced),
        ..TableStat::default()
    };
    Neighbor { stat: Some(stat), thresholds: Some([128, 512, 1024]), ..Neighbor::default() }
}

fn scanned(
    mut table: Neighbor,
    entries: u64,
    exempt: u64,
    pinned: u64,
    complete: bool,
) -> Neighbor {
    let counts = EntryCounts { entries, exempt, pinned };
    table.scan = Some(Scan {
        counts,
        of_pods: None,
        pods: 0,
        scanned: 1,
        skipped: 0,
        complete,
        at: SystemTime::UNIX_EPOCH,
        read_at: std::time::Instant::now(),
    });
    table
}

fn used(trail: &mut Trail, family: Family, table: &Neighbor) -> Option<u64> {
    trail.look(family, table, AT).unwrap().used.map(|(used, _)| used)
}

#[test]
fn an_upper_bound_counts_for_ipv4_once_the_kernel_collects_by_force() {
    let mut trail = Trail::default();
    let mut ipv4 = |table| used(&mut trail, Family::Ipv4, &table);
    assert_eq!(ipv4(table(900, 0, 7)), None, "collections of before are none of now");
    assert_eq!(ipv4(table(20_000, 0, 7)), None, "all of them exempt, as far as is known");
    assert_eq!(ipv4(table(20_000, 0, 8)), Some(20_000));
    assert_eq!(ipv4(table(20_001, 0, 8)), Some(20_001), "it stays so");
    assert_eq!(ipv4(table(400, 0, 9)), None, "the kernel's count is below gc_thresh2 again");
    assert_eq!(ipv4(table(900, 0, 9)), None);

    let mut trail = Trail::default();
    for forced in 0..3 {
        assert_eq!(used(&mut trail, Family::Ipv6, &table(900, 0, forced)), None);
    }
}

#[test]
fn pinned_entries_count_for_both_families() {
    for family in Family::ALL {
        let of = |entries, pinned, complete| {
            let table = scanned(table(entries, 0, 3), 900, 20, pinned, complete);
            used(&mut Trail::default(), family, &table)
        };
        assert_eq!(of(900, 800, true), Some(800));
        assert_eq!(of(900, 100, true), Some(100));
        // A few that came since the scan count as pinned; of more, or of what it did not see, that
        // is not known.
        assert_eq!(of(901, 800, true), Some(801));
        assert_eq!(of(9000, 768, false), Some(768));
        assert_eq!(of(931, 767, true), None);
        assert_eq!(of(9000, 767, false), None);
        assert_eq!(of(90, 800, false), None, "most are gone again");
    }
}

#[test]
fn where_gc_thresh2_is_too_high_to_tell_the_upper_bound_has_to_do() {
    let mut late = table(900, 0, 0);
    late.thresholds = Some([128, 1000, 1024]);
    assert_eq!(used(&mut Trail::default(), Family::Ipv4, &late), Some(900));
    let late = scanned(late, 500, 400, 0, false);
    assert_eq!(used(&mut Trail::default(), Family::Ipv4, &late), Some(500), "less known exempt");
}

#[test]
fn a_refusal_counts_under_the_thresholds_that_it_happened_under() {
    for family in Family::ALL {
        let mut trail = Trail::default();
        let mut full = |table: Neighbor| trail.look(family, &table, AT).unwrap().full;
        assert!(!full(table(100, 5, 0)), "of before the first look");
        assert!(!full(table(100, 5, 0)));
        assert!(full(table(100, 6, 0)));
        assert!(full(table(100, 6, 0)), "until there was a step");
        let mut grown = table(100, 7, 0);
        grown.thresholds = Some([128, 1024, 2048]);
        assert!(!full(grown.clone()), "may have happened before");
        assert!(!full(grown));
    }
}

#[test]
fn steps_are_ten_seconds_apart() {
    let mut trail = Trail::default();
    let start = Instant::now();
    assert!(trail.rested(start));
    trail.stepped(start);
    assert!(!trail.rested(start) && !trail.rested(start + PAUSE - Duration::from_millis(1)));
    assert!(trail.rested(start + PAUSE));
}

#[test]
fn a_table_without_numbers_asks_for_nothing() {
    assert_eq!(Trail::default().look(Family::Ipv4, &Neighbor::default(), AT), None);
    let mut none = table(5, 0, 0);
    none.thresholds = Some([0, 0, 0]);
    assert_eq!(Trail::default().look(Family::Ipv4, &none, AT), None);
}

proptest! {
    #[test]
    fn a_step_only_raises_within_its_bounds(
        used in 0u64..300_000, full: bool, thresh2 in 0u64..200_000, thresh3 in 0u64..200_000,
        at in 500u64..=950, most in 0u64..200_000, more in 0u64..100_000,
    ) {
        let now = [128, thresh2, thresh3];
        let of = |used, most| step(Demand { used: Some((used, Basis::Entries)), full }, now, at, most);
        if let Some(step) = of(used, most) {
            prop_assert_eq!(step.from, thresh3);
            prop_assert!(step.thresh3 > thresh3 && step.thresh3 <= most);
            prop_assert!(step.thresh3 <= 2 * thresh3);
            prop_assert!(step.thresh2 <= step.thresh3 && step.thresh2 >= step.thresh3 / 2);
            // A floor below what is there raises nothing, and lowers nothing.
            prop_assert!(step.thresh2 >= thresh2.min(step.thresh3));
            prop_assert!(full || used * 1000 >= thresh3 * at);
        }
        let to = |step: Option<Step>| step.map_or(thresh3, |step| step.thresh3);
        prop_assert!(to(of(used + more, most)) >= to(of(used, most)), "with more entries");
        prop_assert!(to(of(used, most + more)) >= to(of(used, most)), "with more room");
    }

    /// Whatever comes, it ends at the bound, in as many steps as doubling takes.
    #[test]
    fn growth_ends(thresh3 in 1u64..4096, most in 1u64..1_048_576) {
        let mut now = [128, thresh3 / 2, thresh3];
        let mut steps = 0;
        while let Some(step) = step(Demand { used: None, full: true }, now, AT, most) {
            now = [128, step.thresh2, step.thresh3];
            steps += 1;
            prop_assert!(steps <= 20);
        }
        prop_assert!(now[2] == most.max(thresh3));
    }
}
