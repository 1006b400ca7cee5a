//! Asynchronous I/O: events that contexts of `io_setup(2)` have asked for, of the whole node.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// Events of asynchronous I/O.
pub static ABOUT: About = About {
    name: "aio",
    title: "asynchronous I/O",
    unit: "events",
    scope: "the node",
    read: "/proc/sys/fs/aio-nr",
    raised_by: Some("fs.aio-max-nr"),
    cost: Cost::Learned { prior: 0.0, floor: 0.0 },
    cost_why: "most pods use none; a database takes 1 000 to 10 000",
    when_hit: "`io_setup` fails with EAGAIN: databases do not start, or fall back to something slower",
    exactness: &[("all", Exactness::Exact, "`aio_nr`, which `ioctx_alloc` compares")],
    cadence: Cadence::Scrape,
};

/// Reads it.
#[derive(Debug)]
pub struct Aio {
    used: Kept,
    max: Kept,
}

impl Aio {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let file = |name| Kept::new(roots.proc.join("sys/fs").join(name));
        Self { used: file("aio-nr"), max: file("aio-max-nr") }
    }

    fn numbers(&mut self) -> Result<[u64; 2], FileError> {
        Ok([self.used.number()?, self.max.number()?])
    }
}

impl Reader for Aio {
    fn name(&self) -> &'static str {
        "aio"
    }

    fn read(&mut self) -> Vec<Limit> {
        Limit::read(&ABOUT, "", self.numbers()).into_iter().collect()
    }
}
