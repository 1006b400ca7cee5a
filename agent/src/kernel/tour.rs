//! A round through pods' network namespaces: one thread enters one after the other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::thread::Builder;
use std::time::Duration;

use super::netns::{self, NetnsError, NsId};
use super::nsfs::{self, Found};
use super::{node_file, system};

/// Names in a directory that are looked at.
const MOST_NAMES: usize = 20_000;
/// What the deepest of a round's calls needs, and some.
const STACK: usize = 512 << 10;

/// Where to go.
#[derive(Clone, Debug)]
pub struct Tour {
    /// The proc file system.
    pub proc_root: PathBuf,
    /// Where runtimes keep the files that namespaces are mounted on.
    pub directories: Vec<PathBuf>,
}

/// How a round went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Toured {
    /// Pods' namespaces that were entered, each once.
    pub entered: u64,
    /// Those that are there, and could not be entered or worked in.
    pub failed: u64,
    /// Files on which no namespace is mounted, as far as this process can see, or that went away
    /// meanwhile.
    pub absent: u64,
    /// The first reason of a failure. Escaped.
    pub trouble: Option<String>,
}

/// What came of the work in one namespace.
#[derive(Debug)]
pub enum Work {
    /// It was done.
    Done,
    /// It could not be done there.
    Failed(String),
    /// It would not be done anywhere now: the rest of the round is left out.
    Stuck(String),
}

impl Tour {
    /// Runs `first` where the caller is, then `work` in each pod's namespace, all on a thread of
    /// their own, which ends with the round: a thread that entered a namespace never returns to
    /// other work. What that cost of a processor comes with it.
    pub fn run<T: Send>(
        &self,
        first: impl FnOnce() -> T + Send,
        work: impl FnMut(&mut T) -> Work + Send,
    ) -> Result<(T, Toured, Duration), NetnsError> {
        let round = || {
            let before = system::thread_cpu_time();
            let mut value = first();
            let toured = self.each(&mut value, work);
            (value, toured, system::thread_cpu_time().saturating_sub(before))
        };
        std::thread::scope(|scope| {
            Builder::new()
                .name("round".into())
                .stack_size(STACK)
                .spawn_scoped(scope, round)
                .map_err(NetnsError::Thread)?
                .join()
                .map_err(|_| NetnsError::Panicked)
        })
    }

    fn each<T>(&self, value: &mut T, mut work: impl FnMut(&mut T) -> Work) -> Toured {
        let mut toured = Toured::default();
        // Before the thread is anywhere else.
        let mut seen: BTreeSet<NsId> = netns::hosts(&self.proc_root).into_iter().collect();
        for path in self.files(&mut toured) {
            match self.enter(&path, &mut seen) {
                Ok(Entered::Elsewhere) => {}
                Ok(Entered::Absent) => toured.absent += 1,
                Ok(Entered::Here) => match work(value) {
                    Work::Done => toured.entered += 1,
                    Work::Failed(why) => toured.fail(why),
                    Work::Stuck(why) => {
                        toured.fail(why);
                        return toured;
                    }
                },
                Err(why) => toured.fail(why),
            }
        }
        toured
    }

    fn files(&self, toured: &mut Toured) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for directory in &self.directories {
            match node_file::list(directory, MOST_NAMES) {
                Ok(names) => {
                    files.extend(names.names.iter().map(|name| directory.join(name)));
                    if names.more {
                        toured.fail(format!("more than {MOST_NAMES} files in one directory"));
                    }
                }
                // No pod has been there since the boot.
                Err(error) if error.errno == nix::errno::Errno::ENOENT => {}
                Err(error) => toured.fail(error.to_string()),
            }
        }
        files
    }

    /// Opened late and closed early: a descriptor keeps the namespace alive.
    fn enter(&self, path: &Path, seen: &mut BTreeSet<NsId>) -> Result<Entered, String> {
        match nsfs::find(&self.proc_root, path).map_err(|error| error.to_string())? {
            Found::Netns(fd, id) if seen.insert(id) => {
                match netns::enter(&self.proc_root, fd, id) {
                    Ok(()) => Ok(Entered::Here),
                    Err(error) => Err(error.to_string()),
                }
            }
            Found::NotMounted | Found::Nothing => Ok(Entered::Absent),
            Found::Netns(..) | Found::Other(_) => Ok(Entered::Elsewhere),
        }
    }
}

enum Entered {
    Here,
    /// It is the host's, was visited already, or is no namespace.
    Elsewhere,
    Absent,
}

impl Toured {
    fn fail(&mut self, why: String) {
        self.failed += 1;
        self.trouble.get_or_insert(why);
    }

    /// How many known namespaces were left out.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.failed + self.absent
    }
}
