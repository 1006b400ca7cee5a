//! Pseudo-terminals, of the whole node.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// Pseudo-terminals.
pub static ABOUT: About = About {
    name: "ptys",
    title: "pseudo-terminals",
    unit: "terminals",
    scope: "the node, for containers",
    read: "/proc/sys/kernel/pty",
    raised_by: Some("kernel.pty.max"),
    cost: Cost::NotByPods,
    cost_why: "one for each container with `tty: true` and each `kubectl exec -t`",
    when_hit: "opening /dev/ptmx fails with ENOSPC: `kubectl exec -t` and containers with a tty fail",
    exactness: &[(
        "all",
        Exactness::Exact,
        "`pty_count` against max less reserve less 1 (`devpts_new_index`): the reserve is for the \
         host's first devpts alone",
    )],
    cadence: Cadence::Scrape,
};

/// Reads it.
#[derive(Debug)]
pub struct Ptys {
    used: Kept,
    max: Kept,
    reserve: Kept,
}

impl Ptys {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let file = |name| Kept::new(roots.proc.join("sys/kernel/pty").join(name));
        Self { used: file("nr"), max: file("max"), reserve: file("reserve") }
    }

    fn numbers(&mut self) -> Result<[u64; 2], FileError> {
        let max = self.max.number()?.saturating_sub(self.reserve.number()?);
        // One that makes the count equal to it is refused.
        Ok([self.used.number()?, max.saturating_sub(1)])
    }
}

impl Reader for Ptys {
    fn name(&self) -> &'static str {
        "ptys"
    }

    fn read(&mut self) -> Vec<Limit> {
        Limit::read(&ABOUT, "", self.numbers()).into_iter().collect()
    }
}
