//! Open files, of the whole node.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::kept::Kept;

/// What systemd sets `fs.file-max` to, and so what says that there is no limit: LONG_MAX.
const NO_LIMIT: u64 = i64::MAX as u64;

/// Open files.
pub static ABOUT: About = About {
    name: "file_handles",
    title: "open files",
    unit: "open files",
    scope: "the node",
    read: "/proc/sys/fs/file-nr",
    raised_by: Some("fs.file-max"),
    cost: Cost::Learned { prior: 0.0, floor: 0.0 },
    cost_why: "what the pods here open; systemd takes the limit away, so it rarely matters",
    when_hit: "ENFILE at every open, socket or pipe, except for root (CAP_SYS_ADMIN)",
    exactness: &[("all", Exactness::Exact, "`nr_files`, which `alloc_empty_file` compares")],
    cadence: Cadence::Scrape,
};

/// Reads it.
#[derive(Debug)]
pub struct FileHandles {
    file: Kept,
}

impl FileHandles {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { file: Kept::new(roots.proc.join("sys/fs/file-nr")) }
    }
}

impl Reader for FileHandles {
    fn name(&self) -> &'static str {
        "file_handles"
    }

    fn read(&mut self) -> Vec<Limit> {
        // The second word is 0 since Linux 2.6.
        let limit = Limit::read(&ABOUT, "", self.file.fields([0, 2]));
        limit.map(without_no_limit).into_iter().collect()
    }
}

fn without_no_limit(mut limit: Limit) -> Limit {
    if limit.max.is_some_and(|max| max >= NO_LIMIT) {
        (limit.max, limit.cost) = (None, Cost::NotByPods);
    }
    limit
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_foretold_where_systemd_took_the_limit_away() {
        let proc = tempfile::tempdir().unwrap();
        let fs = proc.path().join("sys/fs");
        std::fs::create_dir_all(&fs).unwrap();
        let roots =
            Roots { proc: proc.path().to_owned(), sys: proc.path().to_owned(), ..Roots::default() };
        let mut reader = FileHandles::new(&roots);
        for (text, max, cost) in [
            ("557\t0\t2466170\n", Some(2_466_170), ABOUT.cost),
            ("557\t0\t9223372036854775807\n", None, Cost::NotByPods),
        ] {
            std::fs::write(fs.join("file-nr"), text).unwrap();
            let limit = reader.read().remove(0);
            assert_eq!((limit.used, limit.max, limit.cost), (Some(557), max, cost));
        }
        std::fs::write(fs.join("file-nr"), "557\n").unwrap();
        let limit = reader.read().remove(0);
        assert_eq!((limit.used, limit.max), (None, None));
        assert!(limit.unknown.unwrap().contains("file-nr"));
    }
}
