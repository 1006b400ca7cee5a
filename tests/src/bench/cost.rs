//! What one program needed in one scenario, from its answers and from `/proc`.

use std::time::Duration;

use crate::Outcome;
use crate::programs::{Daemon, Scrape};

/// The answers of a batch, as they come.
pub struct Answers {
    walls: Vec<Duration>,
    unqueued: Vec<Duration>,
    series: Vec<usize>,
    bytes: usize,
}

impl Answers {
    pub const fn new() -> Self {
        Self { walls: Vec::new(), unqueued: Vec::new(), series: Vec::new(), bytes: 0 }
    }

    pub fn add(&mut self, scrape: &Scrape) {
        let lines = scrape.body.split(|byte| *byte == b'\n');
        let series = lines.filter(|line| !line.is_empty() && line[0] != b'#').count();
        self.walls.push(scrape.wall);
        self.unqueued.push(scrape.unqueued);
        self.series.push(series);
        self.bytes = self.bytes.max(scrape.body.len());
    }
}

/// What one program needed in one scenario.
pub struct Cost {
    /// Wall time of each scrape, shortest first.
    walls: Vec<Duration>,
    /// The longest scrape, time spent waiting for a CPU left out.
    pub worst_unqueued: Duration,
    /// CPU time of one scrape: the mean, without what the process uses unasked.
    pub cpu: Duration,
    /// Share of one core that the process uses unasked.
    pub idle: f64,
    /// Series of the longest answer and of the shortest one.
    pub series: usize,
    pub fewest_series: usize,
    pub bytes: usize,
    pub rss_kib: u64,
    pub anonymous_kib: u64,
}

impl Cost {
    /// `used` is CPU seconds of all scrapes together; there must be at least one.
    pub fn new(daemon: &Daemon, answers: Answers, used: f64, idle: f64) -> Outcome<Self> {
        let mut walls = answers.walls;
        walls.sort();
        let scrapes = walls.len() as f64;
        Ok(Self {
            walls,
            worst_unqueued: answers.unqueued.into_iter().max().unwrap_or_default(),
            cpu: Duration::from_secs_f64(used.max(0.0) / scrapes),
            idle,
            series: answers.series.iter().copied().max().unwrap_or_default(),
            fewest_series: answers.series.iter().copied().min().unwrap_or_default(),
            bytes: answers.bytes,
            rss_kib: daemon.memory_kib("VmRSS")?,
            anonymous_kib: daemon.memory_kib("RssAnon")?,
        })
    }

    pub fn median(&self) -> Duration {
        self.walls[self.walls.len() / 2]
    }

    pub fn worst(&self) -> Duration {
        self.walls[self.walls.len() - 1]
    }
}
