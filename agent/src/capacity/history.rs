//! What limits used while there were so many pods: a small bounded memory, and what it teaches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::{Exactness, Limit};

/// Points a limit's object has at the most: they are spread over the hour.
const POINTS: usize = 40;
/// Older ones say nothing of now.
const WINDOW: u32 = 3600;
/// Points that are nearer to each other than this say the same of a trend.
const SPACING: u32 = 60;
/// Objects that are remembered, so that nothing grows without bound.
const OBJECTS: usize = 256;
/// A refusal counts as one of now for this long.
const HIT_NOW: u32 = 300;
/// Fewer pods than this teach nothing: one of them could be an exception.
pub const ENOUGH_PODS: u64 = 8;
/// Time that a trend must last, and points it must have.
const TREND_LASTS: u32 = 900;
const TREND_POINTS: usize = 6;
/// By how much more of the pairs of points rise than fall (Kendall's tau) where a trend is real.
const TREND_TAU: f64 = 0.6;
/// How much of the maximum a trend must have taken: less is noise.
const TREND_SHARE: f64 = 0.01;

/// One reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    /// Seconds since the first one of all.
    at: u32,
    pods: u32,
    used: u64,
    /// Whether `used` is the kernel's own number, and no bound of it.
    exact: bool,
}

/// What is remembered of one object.
#[derive(Clone, Debug, Default)]
struct Series {
    points: Vec<Point>,
    /// When the last reading was made, of a limit that is read now and then.
    read_at: Option<Instant>,
    /// The counter of refusals, and when it last rose.
    hits: Option<u64>,
    hit_at: Option<u32>,
    /// The maximum, when it was last known.
    max: Option<u64>,
    cost: Option<f64>,
    /// What it grows by in a second.
    growth: Option<f64>,
    /// When it was last there.
    seen: u32,
}

/// What limits used over the last hour.
#[derive(Clone, Debug, Default)]
pub struct History {
    began: Option<Instant>,
    /// By limit and object.
    series: BTreeMap<&'static str, BTreeMap<String, Series>>,
}

impl History {
    /// Takes a reading in. A limit that was not read anew since the last time adds nothing.
    pub fn record(&mut self, limits: &[Limit], pods: Option<u64>, now: Instant) {
        let began = *self.began.get_or_insert(now);
        let at = seconds(now.saturating_duration_since(began));
        let mut known: usize = self.series.values().map(BTreeMap::len).sum();
        for limit in limits {
            let objects = self.series.entry(limit.about.name).or_default();
            if !objects.contains_key(&limit.object) {
                if known >= OBJECTS {
                    continue;
                }
                known += 1;
                objects.insert(limit.object.clone(), Series::default());
            }
            if let Some(series) = objects.get_mut(&limit.object) {
                series.record(limit, pods, at);
            }
        }
        for objects in self.series.values_mut() {
            objects.retain(|_, series| at.saturating_sub(series.seen) <= WINDOW);
        }
    }

    /// What one more pod added, as far as pods came or went and so showed it.
    #[must_use]
    pub fn cost(&self, limit: &Limit) -> Option<f64> {
        self.of(limit)?.cost
    }

    /// Whether the kernel refused because the limit was reached, a short time ago.
    #[must_use]
    pub fn hit_now(&self, limit: &Limit, now: Instant) -> bool {
        let Some(series) = self.of(limit) else { return false };
        let rose = limit.hits.zip(series.hits).is_some_and(|(now, before)| now > before);
        if limit.max.zip(series.max).is_some_and(|(now, before)| now > before) {
            return false;
        }
        let at = self.began.map_or(0, |began| seconds(now.saturating_duration_since(began)));
        rose || series.hit_at.is_some_and(|hit| at.saturating_sub(hit) <= HIT_NOW)
    }

    /// How long until the limit is full if it goes on as in the last hour; `None` where no trend
    /// is real.
    #[must_use]
    pub fn full_in(&self, limit: &Limit) -> Option<Duration> {
        let growth = self.of(limit)?.growth?;
        let left = limit.max?.checked_sub(limit.used?)?;
        Duration::try_from_secs_f64(left as f64 / growth).ok()
    }

    #[cfg(test)]
    pub(super) fn longest(&self) -> usize {
        let series = self.series.values().flat_map(BTreeMap::values);
        series.map(|series| series.points.len()).max().unwrap_or(0)
    }

    fn of(&self, limit: &Limit) -> Option<&Series> {
        self.series.get(limit.about.name)?.get(&limit.object)
    }
}

impl Series {
    fn record(&mut self, limit: &Limit, pods: Option<u64>, at: u32) {
        self.seen = at;
        if let (Some(before), Some(now)) = (self.hits, limit.hits)
            && now > before
        {
            self.hit_at = Some(at);
        }
        self.hits = limit.hits.or(self.hits);
        // Raised: what it refused before says nothing any more.
        if limit.max.zip(self.max).is_some_and(|(now, before)| now > before) {
            self.hit_at = None;
        }
        self.max = limit.max.or(self.max);
        let stale = limit.read_at.is_some() && limit.read_at == self.read_at;
        self.read_at = limit.read_at.or(self.read_at);
        let pods = limit.pods_then.or(pods);
        let (Some(used), Some(pods), false) = (limit.used, pods, stale) else { return };
        let pods = u32::try_from(pods).unwrap_or(u32::MAX);
        self.points.retain(|point| at.saturating_sub(point.at) <= WINDOW);
        // A bound is another number than the kernel's: together they would teach nonsense.
        let exact = limit.exactness == Exactness::Exact;
        if exact {
            self.points.retain(|point| point.exact);
        } else if self.points.iter().any(|point| point.exact) {
            return;
        }
        // Between two points at the same number of pods there is nothing to learn of a pod, and of a
        // trend only with time.
        let mut last = self.points.iter().rev();
        if let (Some(one), Some(other)) = (last.next(), last.next())
            && one.pods == pods
            && other.pods == pods
            && one.at.saturating_sub(other.at) < SPACING
        {
            self.points.pop();
        }
        self.points.push(Point { at, pods, used, exact });
        self.thin();
        self.cost = cost(&self.points);
        self.growth = growth(&self.points, limit.max);
    }

    /// Forgets the point whose neighbors are nearest to each other: what is left still spans the
    /// whole time.
    fn thin(&mut self) {
        if self.points.len() <= POINTS {
            return;
        }
        let gap = |window: &[Point]| match window {
            [before, _, after] => after.at - before.at,
            _ => u32::MAX,
        };
        let gaps = self.points.windows(3).enumerate();
        if let Some((place, _)) = gaps.min_by_key(|(_, window)| gap(window)) {
            self.points.remove(place + 1);
        }
    }
}

/// The slope of used over pods: the median of the slopes between points that are well apart
/// (Theil and Sen), which up to a fifth of wild points do not move.
fn cost(points: &[Point]) -> Option<f64> {
    let most = points.iter().map(|point| point.pods).max()?;
    let least = points.iter().map(|point| point.pods).min()?;
    let spread = most - least;
    // A few pods more or less on a full node are lost in the noise of all others.
    if u64::from(spread) < ENOUGH_PODS / 2
        || u64::from(most) < ENOUGH_PODS
        || f64::from(spread) < 0.1 * f64::from(most)
    {
        return None;
    }
    // With few pods each has few to talk to: what one added then is not what one adds now.
    let points: Vec<Point> =
        points.iter().copied().filter(|point| point.pods.saturating_mul(2) >= most).collect();
    let apart = (spread.min(most / 2) / 3).max(1);
    let slopes = pairs(&points).filter(|(one, other)| one.pods.abs_diff(other.pods) >= apart).map(
        |(one, other)| {
            (other.used as f64 - one.used as f64) / (f64::from(other.pods) - f64::from(one.pods))
        },
    );
    median(slopes.collect())
}

/// What is used more in a second, where that is a trend: most pairs of points agree, for long
/// enough, and it is more than noise.
fn growth(points: &[Point], max: Option<u64>) -> Option<f64> {
    let (first, last) = (points.first()?, points.last()?);
    if points.len() < TREND_POINTS || last.at - first.at < TREND_LASTS {
        return None;
    }
    let (mut agree, mut all) = (0.0, 0.0);
    let mut slopes = Vec::new();
    for (one, other) in pairs(points).filter(|(one, other)| other.at > one.at) {
        let rise = other.used as f64 - one.used as f64;
        agree += if rise == 0.0 { 0.0 } else { rise.signum() };
        all += 1.0;
        slopes.push(rise / f64::from(other.at - one.at));
    }
    let slope = median(slopes)?;
    let taken = slope * f64::from(last.at - first.at);
    let real =
        slope > 0.0 && agree / all >= TREND_TAU && taken >= (max? as f64 * TREND_SHARE).max(1.0);
    real.then_some(slope)
}

fn pairs(points: &[Point]) -> impl Iterator<Item = (&Point, &Point)> {
    let later = |index: usize| points.get(index + 1..).unwrap_or_default();
    points
        .iter()
        .enumerate()
        .flat_map(move |(index, one)| later(index).iter().map(move |other| (one, other)))
}

fn median(mut numbers: Vec<f64>) -> Option<f64> {
    let middle = numbers.len() / 2;
    if numbers.is_empty() {
        return None;
    }
    let (_, median, _) = numbers.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}
