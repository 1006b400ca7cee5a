//! What Headroom says while pods come, and what came of it.

use std::time::{Duration, Instant};

use headroom::capacity::{Capacity, CostFrom, History};
use headroom::limits::Limit;

/// Pods come at this pace, as far as Headroom's memory is concerned.
const PACE: Duration = Duration::from_secs(10);

/// What Headroom says with so many pods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Pods that run.
    pub pods: u64,
    /// More that fit. `None`: it does not know.
    pub remaining: Option<u64>,
    /// What a pod costs, and where that is known from.
    pub cost: Option<(f64, CostFrom)>,
}

impl Prediction {
    /// Pods that fit on the node altogether.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        Some(self.pods + self.remaining?)
    }
}

/// Everything that was foretold, a prediction for each number of pods that was looked at.
#[derive(Debug)]
pub struct Foretold {
    history: History,
    now: Instant,
    all: Vec<Prediction>,
}

impl Default for Foretold {
    fn default() -> Self {
        Self { history: History::default(), now: Instant::now(), all: Vec::new() }
    }
}

impl Foretold {
    /// Takes a reading in, as the agent does, and asks how many more pods fit. Where the limit
    /// could not be read, nothing is foretold.
    pub fn look(&mut self, pods: u64, limit: Option<Limit>) -> Prediction {
        if let Some(Limit { about, unknown: Some(why), .. }) = &limit {
            panic!("{}: {why}", about.name);
        }
        self.now += PACE;
        let limits: Vec<Limit> = limit.into_iter().collect();
        self.history.record(&limits, Some(pods), self.now);
        let capacity = Capacity::of(limits, Some(pods), &self.history, 0, self.now);
        let cost = capacity.fits.first().and_then(|fit| fit.cost);
        let cost = cost.map(|cost| (cost.amount, cost.from));
        let prediction = Prediction { pods, remaining: capacity.remaining, cost };
        self.all.push(prediction);
        prediction
    }

    /// What was said at the largest number of pods that is not above this.
    fn at(&self, pods: u64) -> Option<Prediction> {
        self.all.iter().rfind(|prediction| prediction.pods <= pods).copied()
    }

    /// What was said at a quarter, a half and three quarters of what really fitted.
    #[must_use]
    pub fn quarters(&self, fitted: u64) -> Vec<Prediction> {
        [1, 2, 3].into_iter().filter_map(|quarter| self.at(fitted * quarter / 4)).collect()
    }

    /// What was said at every hundred pods.
    #[must_use]
    pub fn hundreds(&self) -> Vec<Prediction> {
        let hundred = |prediction: &&Prediction| prediction.pods.is_multiple_of(100);
        self.all.iter().filter(hundred).copied().collect()
    }
}

/// Where the kernel really refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Pods that fitted.
    pub pods: u64,
    /// What the next one met: an errno, or a counter that rose.
    pub refusal: String,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What was driven to its end.
    pub limit: &'static str,
    /// What a pod was.
    pub pod: String,
    /// What the limit was.
    pub set_to: String,
    /// What Headroom said on the way.
    pub predictions: Vec<Prediction>,
    /// How it ended.
    pub fact: Fact,
    /// Pods that a prediction may be off: none where the kernel's own rules say what a pod costs.
    pub allowed: u64,
    /// What else was seen.
    pub note: Option<String>,
}

impl Row {
    /// By how many pods the worst prediction was wrong. `None`: something was not foretold.
    #[must_use]
    pub fn difference(&self) -> Option<i64> {
        let off = |prediction: &Prediction| {
            let total = i64::try_from(prediction.total()?).ok()?;
            Some(total - i64::try_from(self.fact.pods).ok()?)
        };
        let all = self.predictions.iter().map(off).collect::<Option<Vec<_>>>()?;
        all.into_iter().max_by_key(|off| off.abs())
    }

    /// Whether everything was foretold, and well enough.
    #[must_use]
    pub fn is_as_foretold(&self) -> bool {
        self.difference().is_some_and(|off| off.unsigned_abs() <= self.allowed)
    }
}
