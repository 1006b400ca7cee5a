//! The order of writes: final values only, and never a state in between that hurts.

use super::key::Key;
use super::value::Value;

/// One value to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which of the engine's keys.
    pub index: usize,
    /// The key.
    pub key: Key,
    /// The value now.
    pub from: Value,
    /// The value to be.
    pub to: Value,
}

/// Sorts changes so that each can be written as it comes.
///
/// - Forwarding first: `inet_forward_change` rewrites every interface's `conf`, so what else is
///   wanted there comes after it.
/// - `gc_thresh3`, `2`, `1` when raising, then `1`, `2`, `3` when lowering: no moment in which a
///   lower threshold is above a higher one.
/// - `ip_unprivileged_port_start` must never be above `ip_local_port_range`'s low end: the kernel
///   refuses either write, so the one that makes room goes first.
/// - The rest by name, so that the order is the same every time.
pub fn order(changes: &mut [Change]) {
    changes.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.key.cmp(&b.key)));
}

fn rank(change: &Change) -> (u8, u8) {
    let raised = change.to.ints() > change.from.ints();
    let key = change.key.as_str();
    match key {
        "net.ipv4.ip_forward" => (0, 0),
        "net.ipv4.conf.all.forwarding" | "net.ipv6.conf.all.forwarding" => (0, 1),
        "net.ipv4.ip_unprivileged_port_start" => (if raised { 3 } else { 1 }, 0),
        "net.ipv4.ip_local_port_range" => (2, 0),
        _ => match threshold(key) {
            Some(level) if raised => (1, 3 - level),
            Some(level) => (2, level),
            None => (2, 0),
        },
    }
}

/// 1, 2 or 3 for a neighbor table's threshold.
#[must_use]
pub fn threshold(key: &str) -> Option<u8> {
    let rest = key.strip_prefix("net.ipv4.").or_else(|| key.strip_prefix("net.ipv6."))?;
    match rest.strip_prefix("neigh.default.gc_thresh")? {
        "1" => Some(1),
        "2" => Some(2),
        "3" => Some(3),
        _ => None,
    }
}

/// Keys whose values decide together whether a write is accepted, beside the catalogue's
/// siblings: when one of them changes, a rejected key is worth another attempt.
#[must_use]
pub fn related(key: &str) -> &'static [&'static str] {
    match key {
        "net.ipv4.ip_local_port_range" => &["net.ipv4.ip_unprivileged_port_start"],
        "net.ipv4.ip_unprivileged_port_start" => &["net.ipv4.ip_local_port_range"],
        "kernel.sched_rt_runtime_us" => &["kernel.sched_rt_period_us"],
        "kernel.sched_rt_period_us" => &["kernel.sched_rt_runtime_us"],
        "net.ipv4.tcp_congestion_control" => &["net.ipv4.tcp_available_congestion_control"],
        _ => &[],
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change(key: &str, from: &[i128], to: &[i128]) -> Change {
        Change {
            index: 0,
            key: Key::parse(key).unwrap(),
            from: Value::Ints(from.to_vec()),
            to: Value::Ints(to.to_vec()),
        }
    }

    fn names(changes: &[Change]) -> Vec<&str> {
        changes.iter().map(|change| change.key.as_str().rsplit('.').next().unwrap()).collect()
    }

    #[test]
    fn port_range_and_unprivileged_start_make_room_for_each_other() {
        const RANGE: &str = "net.ipv4.ip_local_port_range";
        const START: &str = "net.ipv4.ip_unprivileged_port_start";
        let mut down =
            [change(RANGE, &[32768, 60999], &[512, 60999]), change(START, &[1024], &[100])];
        order(&mut down);
        assert_eq!(names(&down), ["ip_unprivileged_port_start", "ip_local_port_range"]);
        let mut up =
            [change(START, &[1024], &[40000]), change(RANGE, &[32768, 60999], &[50000, 60999])];
        order(&mut up);
        assert_eq!(names(&up), ["ip_local_port_range", "ip_unprivileged_port_start"]);
    }

    #[test]
    fn forwarding_comes_first() {
        let mut changes = [
            change("net.ipv4.conf.all.accept_redirects", &[1], &[0]),
            change("net.ipv4.ip_forward", &[0], &[1]),
        ];
        order(&mut changes);
        assert_eq!(names(&changes), ["ip_forward", "accept_redirects"]);
    }

    proptest! {
        /// Fault 7: from thresholds in order to thresholds in order, there is never a moment in
        /// which a lower one is above a higher one.
        #[test]
        fn fault_07_thresholds_never_cross(mut from in [0i128..9, 0..9, 0..9], mut to in [0i128..9, 0..9, 0..9]) {
            from.sort_unstable();
            to.sort_unstable();
            let mut changes: Vec<Change> = (0..3).filter(|&i| from[i] != to[i]).map(|i| {
                change(&format!("net.ipv4.neigh.default.gc_thresh{}", i + 1), &[from[i]], &[to[i]])
            }).collect();
            order(&mut changes);
            let mut now = from;
            for change in &changes {
                let level = usize::from(threshold(change.key.as_str()).unwrap());
                now[level - 1] = change.to.ints().unwrap()[0];
                prop_assert!(now[0] <= now[1] && now[1] <= now[2], "{now:?} while {from:?} -> {to:?}");
            }
            prop_assert_eq!(now, to);
        }
    }
}
