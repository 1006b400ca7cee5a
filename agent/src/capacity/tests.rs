#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;
use crate::limits::{About, Cadence, bridge, neighbor};

static ABOUT: About = About {
    name: "test",
    title: "test",
    unit: "units",
    scope: "",
    read: "",
    raised_by: None,
    cost: Cost::Learned { prior: 2.0, floor: 1.0 },
    cost_why: "",
    when_hit: "",
    exactness: &[("all", Exactness::Exact, "")],
    cadence: Cadence::Scrape,
};

fn limit(used: u64, max: u64) -> Limit {
    Limit::of(&ABOUT, "it").with(used, max)
}

fn after(start: Instant, seconds: u64) -> Instant {
    start + Duration::from_secs(seconds)
}

#[test]
fn a_prior_until_pods_show_what_they_cost() {
    let mut history = History::default();
    let now = Instant::now();
    let fit = |limit: Limit, pods, history: &History| {
        let capacity = Capacity::of(vec![limit], Some(pods), history, 0, now);
        (capacity.remaining, capacity.fits[0].cost.unwrap())
    };
    let prior = PodCost { amount: 2.0, from: CostFrom::Prior };
    assert_eq!(fit(limit(10, 110), 4, &history), (Some(50), prior));
    let shared = Limit { of_pods: Some(40), ..limit(50, 110) };
    let share = PodCost { amount: 4.0, from: CostFrom::Share };
    assert_eq!(fit(shared, 10, &history), (Some(15), share));
    for pods in 0..=10 {
        history.record(&[limit(10 + 3 * pods, 110)], Some(pods), after(now, pods));
    }
    let observed = PodCost { amount: 3.0, from: CostFrom::Observed };
    assert_eq!(fit(limit(40, 110), 10, &history), (Some(23), observed));
}

#[test]
fn the_fewest_bind_and_what_was_hit_fits_none() {
    let now = Instant::now();
    let mut history = History::default();
    let fixed = |object: &str, used, hits| Limit {
        cost: Cost::Fixed(1.0),
        hits: Some(hits),
        ..Limit::of(&ABOUT, object).with(used, 100)
    };
    let limits = vec![fixed("a", 50, 0), fixed("b", 70, 3)];
    history.record(&limits, Some(5), now);
    let capacity = Capacity::of(limits.clone(), Some(5), &history, 4, now);
    assert_eq!((capacity.remaining, capacity.binding), (Some(26), Some(1)));
    assert_eq!(capacity.next().unwrap().limit.object, "a");
    let hit = vec![fixed("a", 50, 1), fixed("b", 70, 3)];
    let capacity = Capacity::of(hit.clone(), Some(5), &history, 0, now);
    assert_eq!(
        (capacity.remaining, capacity.binding),
        (Some(0), Some(0)),
        "before it is on record"
    );
    history.record(&hit, Some(5), after(now, 10));
    for (seconds, left) in [(20, 0), (300, 0), (311, 30)] {
        let capacity = Capacity::of(hit.clone(), Some(5), &history, 0, after(now, seconds));
        assert_eq!(capacity.remaining, Some(left), "after {seconds} s");
    }
}

#[test]
fn what_is_not_known_says_nothing() {
    let now = Instant::now();
    let limits = vec![
        Limit::unknown(&ABOUT, "a", "no right"),
        Limit { cost: Cost::NotByPods, ..limit(5, 5) },
        Limit { max: None, ..limit(5, 5) },
    ];
    let capacity = Capacity::of(limits, Some(5), &History::default(), 0, now);
    assert_eq!((capacity.remaining, capacity.binding), (None, None));
}

#[test]
fn a_refusal_overrides_what_is_not_known_and_ends_with_a_raise() {
    let now = Instant::now();
    let mut history = History::default();
    let full = |hits, max| Limit {
        hits: Some(hits),
        cost: Cost::Learned { prior: 0.0, floor: 0.0 },
        ..limit(100, max)
    };
    let left = |limit: Limit, history: &History| {
        Capacity::of(vec![limit], Some(5), history, 0, after(now, 20)).remaining
    };
    history.record(&[full(0, 100)], Some(5), now);
    assert_eq!(left(full(0, 100), &history), None, "what a pod costs is not known");
    assert_eq!(left(full(3, 100), &history), Some(0));
    history.record(&[full(3, 100)], Some(5), after(now, 10));
    assert_eq!(left(full(3, 100), &history), Some(0));
    let not_by_pods = Limit { cost: Cost::NotByPods, ..full(3, 100) };
    assert_eq!(left(not_by_pods, &history), None, "no pod is stopped by it");
    // One failed reading between two loses no refusal.
    history.record(&[Limit { hits: None, ..full(3, 100) }], Some(5), after(now, 12));
    assert_eq!(left(full(4, 100), &history), Some(0));
    assert_eq!(left(full(3, 400), &history), None, "raised just now");
    history.record(&[full(3, 400)], Some(5), after(now, 15));
    assert_eq!(left(full(3, 400), &history), None);
}

#[test]
fn pods_that_came_since_a_reading_have_taken_their_part() {
    let limit = Limit { cost: Cost::Fixed(1.0), pods_since: 30, ..limit(50, 100) };
    let capacity = Capacity::of(vec![limit], Some(80), &History::default(), 0, Instant::now());
    assert_eq!(capacity.remaining, Some(20));
}

#[test]
fn one_pod_that_has_much_is_not_taken_for_all() {
    use crate::limits::typical;
    assert_eq!(typical(vec![100], 12), Some(0.0), "eleven have none");
    assert_eq!(typical(vec![3; 20], 20), Some(3.0));
    assert_eq!(typical(vec![5000, 2, 2, 2, 2, 2, 2, 2, 2, 2], 10), Some(2.0));
    assert_eq!(typical(vec![10; 40], 100), Some(30.0 * 10.0 / 90.0));
    assert_eq!(typical(vec![5; 25], 250), Some(24.0 * 5.0 / 249.0), "few pods, but not one");
    assert_eq!(typical(vec![3; 7], 7), None, "too few to tell");
}

#[test]
fn a_trend_is_said_where_it_is_real() {
    let start = Instant::now();
    let run = |used: &dyn Fn(u64) -> u64, minutes: u64| {
        let mut history = History::default();
        for minute in 0..=minutes {
            let limit = limit(used(minute), 1000);
            history.record(&[limit], Some(10), after(start, minute * 60));
        }
        history.full_in(&limit(used(minutes), 1000)).map(|time| time.as_secs())
    };
    assert_eq!(run(&|minute| 100 + minute * 10, 30), Some(60 * 60));
    assert_eq!(run(&|minute| 100 + minute * 10, 10), None, "too short");
    assert_eq!(run(&|minute| 100 + minute % 7, 60), None, "up and down");
    assert_eq!(run(&|minute| 500 - minute, 60), None, "it falls");
    assert_eq!(run(&|minute| 100 + minute / 30, 60), None, "next to nothing");
    assert_eq!(run(&|minute| if minute == 30 { 900 } else { 100 }, 60), None, "one peak");
}

#[test]
fn what_was_not_read_anew_teaches_nothing() {
    let now = Instant::now();
    let mut history = History::default();
    for pods in 0..20 {
        let limit = Limit { read_at: Some(now), ..limit(10, 100) };
        history.record(&[limit], Some(pods), after(now, pods * 10));
    }
    assert_eq!(history.cost(&limit(10, 100)), None);
}

#[test]
fn bounds_and_exact_readings_are_not_mixed() {
    let now = Instant::now();
    let mut history = History::default();
    let read = |used, exactness| [Limit { exactness, ..limit(used, 1000) }];
    for pods in 0..20 {
        let bound = read(500 + 7 * pods, Exactness::UpperBound);
        history.record(&bound, Some(pods), after(now, pods * 20));
    }
    assert_eq!(history.cost(&limit(0, 1)), Some(7.0), "better than nothing");
    for pods in 20..40 {
        history.record(&read(2 * pods, Exactness::Exact), Some(pods), after(now, pods * 20));
        let bound = read(500 + 7 * pods, Exactness::UpperBound);
        history.record(&bound, Some(pods), after(now, pods * 20 + 10));
    }
    assert_eq!(history.cost(&limit(0, 1)), Some(2.0));
}

#[test]
fn a_reading_counts_for_the_pods_there_were_then() {
    let now = Instant::now();
    let mut history = History::default();
    for round in 0..20 {
        let then = Some(round * 2);
        let limit = Limit { pods_then: then, ..limit(round * 6, 1000) };
        history.record(&[limit], Some(round * 2 + round % 3), after(now, round * 20));
    }
    assert_eq!(history.cost(&limit(0, 1)), Some(3.0));
    let share = Limit { of_pods: Some(40), pods_then: Some(10), ..limit(40, 100) };
    let cost = cost(&share, Some(20), &History::default());
    assert_eq!(cost, Some(PodCost { amount: 4.0, from: CostFrom::Share }));
}

#[test]
fn the_sentence_says_what_stops_the_next_pod_and_what_would_come_then() {
    let now = Instant::now();
    let table = Limit {
        raised_by: Some("net.ipv4.neigh.default.gc_thresh3"),
        of_pods: Some(978),
        ..Limit::of(&neighbor::ABOUT, "ipv4").with(978, 1024)
    };
    let bridge = |ports| Limit::of(&bridge::ABOUT, "cni0").with(ports, 1023);
    let say =
        |limits| Capacity::of(limits, Some(489), &History::default(), 0, now).sentence("node-7");
    assert_eq!(
        say(vec![table.clone(), bridge(489)]),
        "node-7 fits about 23 more pods: IPv4 neighbor table (978 of 1024 pinned entries, 2.0 a pod). \
         With net.ipv4.neigh.default.gc_thresh3 at 4096 the next stop is bridge cni0 (489 of 1023 \
         ports): 534 more."
    );
    assert_eq!(
        say(vec![table, bridge(1023)]),
        "node-7 fits no more pods: bridge cni0 (1023 of 1023 ports). Nothing raises it: more nodes, \
         or pods that do not use it."
    );
    assert_eq!(say(vec![]), "node-7: how many more pods fit is not known");
}

proptest! {
    /// Up to a fifth of the readings that count, those of the upper half here, may be far off and do
    /// not move what a pod costs.
    #[test]
    fn wild_readings_do_not_move_the_cost(
        cost in 1u64..20,
        base in 0u64..500,
        wild in proptest::collection::btree_map(0u64..40, 0u64..100_000, 0..5),
    ) {
        let start = Instant::now();
        let mut history = History::default();
        for pods in 0..40 {
            let used = wild.get(&pods).copied().unwrap_or(base + cost * pods);
            history.record(&[limit(used, 1 << 20)], Some(pods), after(start, pods * 10));
        }
        prop_assert_eq!(history.cost(&limit(0, 1)), Some(cost as f64));
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// However long it goes on, what is remembered stays small.
    #[test]
    fn memory_is_bounded(steps in proptest::collection::vec((0u64..400, 0u64..90), 0..300)) {
        let start = Instant::now();
        let mut history = History::default();
        let mut at = 0;
        for (pods, pause) in steps {
            at += pause;
            history.record(&[limit(pods, 1000)], Some(pods), after(start, at));
            prop_assert!(history.longest() <= 40);
        }
    }
}
