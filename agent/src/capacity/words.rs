//! How many more pods fit, in words.

use super::{Capacity, CostFrom, Fit};
use crate::limits::Exactness;

/// A raised limit should be in use by no more than two thirds: pods come in bursts.
pub(super) const ROOM: f64 = 1.5;

impl Capacity {
    /// The sentence: how many more pods fit on the node, what stops the next one, and what would
    /// stop them if that were raised.
    #[must_use]
    pub fn sentence(&self, node: &str) -> String {
        let (Some(binding), Some(remaining)) = (self.binding(), self.remaining) else {
            return format!("{node}: how many more pods fit is not known");
        };
        let about = match binding.exactness() {
            Exactness::Exact => "",
            Exactness::LowerBound => "at least ",
            Exactness::UpperBound => "at most ",
            Exactness::Estimate => "about ",
        };
        let fits = match remaining {
            0 if about == "at least " => "at least 0 more pods".to_owned(),
            0 => "no more pods".to_owned(),
            1 => format!("{about}1 more pod"),
            more => format!("{about}{more} more pods"),
        };
        let hit = if binding.hit_now { ", and the kernel refuses now" } else { "" };
        let kept = match self.reserve {
            0 => String::new(),
            reserve => format!(" beside {reserve} that are kept free"),
        };
        let mut text = format!("{node} fits {fits}{kept}: {}{hit}.", binding.used());
        if let Some(then) = self.then(binding) {
            text += &format!(" {then}");
        }
        text
    }

    fn then(&self, binding: &Fit) -> Option<String> {
        let Some(raised_by) = binding.limit.raised_by else {
            return Some("Nothing raises it: more nodes, or pods that do not use it.".to_owned());
        };
        let next = self.next()?;
        let remaining = next.remaining?.saturating_sub(self.reserve);
        let then = format!("the next stop is {}: {remaining} more.", next.used());
        // What is no key has a form of its own, and no more of it helps than the next limit lets in.
        if raised_by.contains(' ') {
            return Some(format!("What raises it is {raised_by}; then {then}"));
        }
        let value = self.raise_to(binding, next)?;
        Some(format!("With {raised_by} at {value} {then}"))
    }

    /// A value with which the limit does not bind before the next one.
    fn raise_to(&self, binding: &Fit, next: &Fit) -> Option<u64> {
        let limit = &binding.limit;
        let max = limit.max?;
        let Some((used, cost)) = limit.used.zip(binding.cost) else {
            // It refuses, and that is all that is known.
            return max.checked_mul(2)?.checked_next_power_of_two();
        };
        let needed = (used as f64 + next.remaining? as f64 * cost.amount) * ROOM;
        (needed.ceil() as u64).max(max.saturating_add(1)).checked_next_power_of_two()
    }
}

impl Fit {
    /// The limit, what of it is used, and what a pod costs where that is not one.
    #[must_use]
    pub fn used(&self) -> String {
        let limit = &self.limit;
        let mut text = limit.named();
        if let (Some(used), Some(max)) = (limit.used, limit.max) {
            let at_most = match limit.exactness {
                Exactness::UpperBound => "at most ",
                Exactness::LowerBound => "at least ",
                Exactness::Exact | Exactness::Estimate => "",
            };
            text += &format!(" ({at_most}{used} of {max} {}", limit.unit);
            if let Some(cost) = self.cost.filter(|cost| cost.from != CostFrom::Fixed) {
                let from = match cost.from {
                    CostFrom::Prior => " assumed",
                    CostFrom::Floor => " at the least",
                    CostFrom::Fixed | CostFrom::Observed | CostFrom::Share => "",
                };
                text += &format!(", {} a pod{from}", number(cost.amount));
            }
            text.push(')');
        }
        text
    }
}

/// With one digit after the point.
pub(super) fn number(amount: f64) -> String {
    format!("{amount:.1}")
}
