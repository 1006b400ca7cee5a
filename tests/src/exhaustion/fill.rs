//! Pods that are processes, one after the other until the kernel refuses.

use std::path::Path;

use headroom::limits::Limit;
use nix::errno::Errno;

use super::pod::Pod;
use super::{Fact, Foretold};

/// More than any limit here lets in.
const ENDLESS: u64 = 2000;

/// What came of it.
pub struct Filled {
    /// What Headroom said before each pod.
    pub foretold: Foretold,
    /// How it ended.
    pub fact: Fact,
}

/// Starts pods until one is refused, and ends them. Before each, Headroom looks.
pub fn fill(
    program: &Path,
    kind: &str,
    args: &[String],
    look: impl FnMut() -> Option<Limit>,
) -> Filled {
    let mut pods = Vec::new();
    let start = || {
        pods.push(Pod::start(program, kind, args)?);
        Ok(())
    };
    fill_with(kind, start, look)
}

/// The same with pods that are started in another way.
pub fn fill_with(
    kind: &str,
    mut start: impl FnMut() -> Result<(), Errno>,
    mut look: impl FnMut() -> Option<Limit>,
) -> Filled {
    let mut foretold = Foretold::default();
    for pods in 0..ENDLESS {
        foretold.look(pods, look());
        if let Err(errno) = start() {
            return Filled { foretold, fact: Fact { pods, refusal: format!("{errno:?}") } };
        }
    }
    panic!("{kind}: {ENDLESS} pods, and the kernel refuses none");
}

/// A user that nobody else on this machine is: users need no entry anywhere.
#[must_use]
pub fn nobody(number: u32) -> u32 {
    2_000_000_000 + std::process::id() % 10_000_000 * 10 + number
}
