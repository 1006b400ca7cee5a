//! Headroom's own readers on the real kernel.

use std::path::{Path, PathBuf};

use headroom::limits::{Limit, Reader, Roots, cheap, dear};

/// The readers of the agent; the one that was wanted once is asked alone from then on.
pub struct Eyes {
    readers: Vec<Box<dyn Reader>>,
}

impl Eyes {
    /// On this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/sys"))
    }

    /// With another `/sys`.
    #[must_use]
    pub fn at(sys: &Path) -> Self {
        let roots = Roots { proc: PathBuf::from("/proc"), sys: sys.to_owned() };
        let readers = cheap(&roots).into_iter().chain(dear(&roots)).collect();
        Self { readers }
    }

    /// How a limit is now, of the first object that `is` it. `None`: nobody reads such a limit here.
    pub fn see(&mut self, name: &str, is: impl Fn(&str) -> bool) -> Option<Limit> {
        let of = |limit: &Limit| limit.about.name == name;
        let (place, found) = self.readers.iter_mut().enumerate().find_map(|(place, reader)| {
            let found: Vec<Limit> = reader.read().into_iter().filter(of).collect();
            (!found.is_empty()).then_some((place, found))
        })?;
        self.readers.swap(0, place);
        self.readers.truncate(1);
        found.into_iter().find(|limit| is(&limit.object))
    }
}
