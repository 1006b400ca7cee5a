//! Headroom's own readers on the real kernel.

use std::path::PathBuf;

use headroom::limits::{Limit, Reader, Roots, cheap, dear};

/// Readers of the agent. The one that knows what is looked for is asked alone from then on.
pub struct Eyes {
    readers: Vec<Box<dyn Reader>>,
}

impl Eyes {
    /// All of them.
    #[must_use]
    pub fn new() -> Self {
        let roots = roots();
        Self { readers: cheap(&roots).into_iter().chain(dear(&roots)).collect() }
    }

    /// One of them.
    #[must_use]
    pub fn of(reader: impl Reader + 'static) -> Self {
        Self { readers: vec![Box::new(reader)] }
    }

    /// How a limit of an object is now. `None`: nobody reads it here.
    pub fn see(&mut self, name: &str, object: &str) -> Option<Limit> {
        let of = |limit: &Limit| limit.about.name == name;
        let (place, found) = self.readers.iter_mut().enumerate().find_map(|(place, reader)| {
            let found: Vec<Limit> = reader.read().into_iter().filter(of).collect();
            (!found.is_empty()).then_some((place, found))
        })?;
        self.readers.swap(0, place);
        self.readers.truncate(1);
        found.into_iter().find(|limit| limit.object == object)
    }
}

/// This machine's.
#[must_use]
pub fn roots() -> Roots {
    Roots {
        proc: PathBuf::from("/proc"),
        sys: PathBuf::from("/sys"),
        cgroup: PathBuf::from("/sys/fs/cgroup"),
        netns: vec![PathBuf::from("/run/netns")],
    }
}
