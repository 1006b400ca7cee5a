//! Two writers, one key: noticing it, and not hammering.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How many times in [`WINDOW`] a key is put back before it is contested.
pub(super) const PATIENCE: usize = 5;
const WINDOW: Duration = Duration::from_secs(60);
const FIRST_WAIT: Duration = Duration::from_secs(60);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The record of putting one key back.
#[derive(Debug, Default)]
pub struct Fight {
    put_back: VecDeque<Instant>,
    truce: Option<Truce>,
}

#[derive(Clone, Copy, Debug)]
struct Truce {
    wait: Duration,
    until: Instant,
}

impl Fight {
    /// The key drifted; whether it may be put back now.
    ///
    /// More than five times within a minute is a fight: then one attempt is made each time the
    /// wait is over, and the wait doubles, up to ten minutes.
    pub fn may_put_back(&mut self, now: Instant) -> bool {
        match self.truce {
            Some(truce) if now < truce.until => false,
            Some(truce) => {
                let wait = (truce.wait * 2).min(LONGEST_WAIT);
                self.truce = Some(Truce { wait, until: now + wait });
                true
            }
            None => {
                self.put_back.retain(|&at| now.saturating_duration_since(at) < WINDOW);
                self.put_back.push_back(now);
                if self.put_back.len() > PATIENCE {
                    self.truce = Some(Truce { wait: FIRST_WAIT, until: now + FIRST_WAIT });
                    return false;
                }
                true
            }
        }
    }

    /// The key is as it should be: the fight is over once it stayed so for a whole wait.
    pub fn at_peace(&mut self, now: Instant) {
        if self.truce.is_some_and(|truce| now >= truce.until) {
            *self = Self::default();
        }
    }

    /// Whether writing is being held back, or was until a moment ago.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.truce.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_noticed_backed_off_from_and_forgotten() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut fight = Fight::default();
        for second in 0..5 {
            assert!(fight.may_put_back(at(second)));
        }
        assert!(!fight.may_put_back(at(5)) && fight.is_on(), "the sixth within a minute");
        assert!(!fight.may_put_back(at(64)));
        assert!(fight.may_put_back(at(65)), "one attempt after the wait");
        assert!(!fight.may_put_back(at(184)), "the wait has doubled");
        fight.at_peace(at(100));
        assert!(fight.is_on(), "peace must last as long as the wait");
        fight.at_peace(at(185));
        assert!(!fight.is_on() && fight.may_put_back(at(186)));
    }

    #[test]
    fn slow_drift_is_no_fight() {
        let start = Instant::now();
        let mut fight = Fight::default();
        for minute in 0..100 {
            assert!(fight.may_put_back(start + Duration::from_secs(minute * 13)));
        }
    }
}
