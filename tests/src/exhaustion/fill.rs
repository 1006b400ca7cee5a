//! Pods that are processes, one after the other until the kernel refuses.

use std::path::Path;

use headroom::limits::Limit;
use nix::errno::Errno;

use super::pod::Pod;
use super::{Fact, Foretold};

/// More than any limit here lets in.
const ENDLESS: usize = 2000;

/// What came of it.
pub struct Filled {
    pub foretold: Foretold,
    pub fact: Fact,
    /// The pods that fitted.
    pub pods: Vec<Pod>,
}

/// Starts pods until one is refused. Before each, Headroom looks.
pub fn fill(
    program: &Path,
    kind: &str,
    args: &[String],
    mut look: impl FnMut() -> Option<Limit>,
) -> Filled {
    let mut foretold = Foretold::default();
    let mut pods = Vec::new();
    while pods.len() < ENDLESS {
        foretold.look(pods.len() as u64, look());
        match Pod::start(program, kind, args) {
            Ok(pod) => pods.push(pod),
            Err(errno) => {
                let fact = refused(pods.len(), errno);
                return Filled { foretold, fact, pods };
            }
        }
    }
    panic!("{kind}: {ENDLESS} pods, and the kernel refuses none");
}

pub fn refused(pods: usize, errno: Errno) -> Fact {
    Fact { pods: pods as u64, refusal: format!("{errno:?}") }
}

/// A user that nobody else on this machine is: users need no entry anywhere.
#[must_use]
pub fn nobody(number: u32) -> u32 {
    2_000_000_000 + std::process::id() % 10_000_000 * 10 + number
}
