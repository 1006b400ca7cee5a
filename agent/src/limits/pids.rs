//! Threads of the whole node: each takes a process id, and counts against `threads-max`.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::kept::Kept;
use crate::kernel::system;

/// Threads.
pub static ABOUT: About = About {
    name: "pids",
    title: "thread limit",
    unit: "threads",
    scope: "the node; `pid_max` and `threads_max` are two limits of the same number",
    read: "/proc/loadavg",
    raised_by: Some("kernel.pid_max"),
    cost: Cost::Learned { prior: 13.0, floor: 2.0 },
    cost_why: "about 13 a pod until more is known: some 10 of the container runtime's shim, the pause \
               container's and the application's own; never fewer than the two of its containers",
    when_hit: "fork and clone fail with EAGAIN: `Resource temporarily unavailable`, everywhere on the node",
    exactness: &[
        ("all", Exactness::Exact, "threads_max: `nr_threads`, which `copy_process` compares"),
        (
            "all",
            Exactness::LowerBound,
            "pid_max: a number also stays taken by a process group or session that outlived its \
             leader, and the first 300 are not given out again",
        ),
    ],
    cadence: Cadence::Scrape,
};

/// Why `pid_max` is not known.
const OTHER_NAMESPACE: &str = "since Linux 6.14 each PID namespace has its own kernel.pid_max, and the \
                               agent is not in the node's: run it with hostPID";

/// Reads both.
#[derive(Debug)]
pub struct Pids {
    threads: Kept,
    pid_max: Kept,
    threads_max: Kept,
    /// Whether the `pid_max` that can be read is the node's.
    of_node: bool,
}

impl Pids {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let (release, _) = system::uname();
        let shared = system::kernel_version(&release) < (6, 14);
        let file = |name| Kept::new(roots.proc.join(name));
        Self {
            threads: file("loadavg"),
            pid_max: file("sys/kernel/pid_max"),
            threads_max: file("sys/kernel/threads-max"),
            of_node: shared || system::in_initial_pid_namespace(&roots.proc),
        }
    }
}

impl Reader for Pids {
    fn name(&self) -> &'static str {
        "pids"
    }

    fn read(&mut self) -> Vec<Limit> {
        let threads = self.threads.parsed(counters::threads);
        let against = |file: &mut Kept| Ok([threads.clone()?, file.number()?]);
        let ids = if self.of_node {
            Limit::read(&ABOUT, "pid_max", against(&mut self.pid_max))
        } else {
            Some(Limit::unknown(&ABOUT, "pid_max", OTHER_NAMESPACE))
        };
        let threads = Limit::read(&ABOUT, "threads_max", against(&mut self.threads_max));
        let ids = ids.map(|ids| Limit { exactness: Exactness::LowerBound, ..ids });
        let threads = threads.map(|threads| Limit {
            exactness: Exactness::Exact,
            raised_by: Some("kernel.threads-max"),
            ..threads
        });
        ids.into_iter().chain(threads).collect()
    }
}
