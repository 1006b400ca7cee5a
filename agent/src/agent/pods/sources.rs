//! Where pods' namespaces and their names appear: directories that are watched, and read.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::publish::shown;
use crate::config::PodNamespaces;
use crate::kernel::inotify::{Inotify, Mask, Subscription, Touched, WatchId};
use crate::kernel::node_file;
use crate::pods::cni::{self, CniResult};
use crate::pods::naming::normalize;

/// A directory that is not there is looked for as often, beside the events of the one above it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// One that cannot be watched is read as often.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Names in a directory that are looked at.
const MOST_NAMES: usize = 20_000;

/// Something to look at.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A file of a directory of namespaces.
    Netns {
        /// Which.
        path: PathBuf,
        /// Whether it went away in between.
        gone: bool,
    },
    /// A directory of namespaces, by its place in the configuration: anything in it.
    Directory(usize),
    /// A CNI result names the namespace at this path.
    Result {
        /// The path below one of the directories.
        path: PathBuf,
    },
}

/// The directories.
pub struct Sources {
    subscription: Option<Subscription>,
    directories: Vec<Directory>,
    cache: Directory,
    /// Results by the file in the cache and by the namespaces that they name.
    files: HashMap<OsString, BTreeSet<PathBuf>>,
    results: HashMap<PathBuf, Vec<(OsString, Arc<CniResult>)>>,
    look_at: Option<Instant>,
}

struct Directory {
    path: PathBuf,
    watch: Option<WatchId>,
    /// The nearest directory above it that is there, while it is not.
    above: Option<WatchId>,
    /// Why it is not watched.
    trouble: Option<String>,
    /// Why not all of it was read.
    unread: Option<String>,
}

impl Sources {
    /// Begins to watch.
    pub fn new(inotify: Option<&Inotify>, spec: &PodNamespaces) -> Self {
        let directory = |path: &PathBuf| Directory {
            path: path.clone(),
            watch: None,
            above: None,
            trouble: None,
            unread: None,
        };
        Self {
            subscription: inotify.map(Inotify::subscribe_to_names),
            directories: spec.directories.iter().map(directory).collect(),
            cache: directory(&spec.cni_cache),
            files: HashMap::new(),
            results: HashMap::new(),
            look_at: Some(Instant::now()),
        }
    }

    /// What was touched; waits until something is.
    pub async fn next(&self) -> Touched {
        match &self.subscription {
            Some(subscription) => subscription.next().await,
            None => std::future::pending().await,
        }
    }

    /// What there is to look at.
    pub fn understand(&mut self, touched: Touched) -> Vec<Event> {
        for watch in &touched.ended {
            let ended = |directory: &&mut Directory| directory.watch == Some(*watch);
            for directory in self.directories.iter_mut().chain([&mut self.cache]).filter(ended) {
                directory.watch = None;
            }
            // One that was moved away goes on by itself.
            if let Some(subscription) = &self.subscription {
                subscription.forget(*watch);
            }
        }
        if touched.overflow {
            let mut events = self.look_again();
            events.extend(self.everything());
            return events;
        }
        let mut events = Vec::new();
        // Results first: of two that wait, the namespace is then named at its first visit.
        let (of_cache, of_netns): (BTreeMap<_, _>, BTreeMap<_, _>) =
            touched.names.into_iter().partition(|((watch, _), _)| self.cache.watch == Some(*watch));
        for (_, name) in of_cache.into_keys() {
            events.extend(self.read_result(&name));
        }
        for ((watch, name), mask) in of_netns {
            // One that is named twice, by another spelling, has one watch.
            let directories = self.directories.iter().filter(|one| one.watch == Some(watch));
            events.extend(directories.map(|directory| Event::Netns {
                path: directory.path.join(&name),
                gone: mask.intersects(Mask::IN_DELETE | Mask::IN_MOVED_FROM),
            }));
        }
        let above =
            |one: &Directory| one.above.is_some_and(|above| touched.watches.contains(&above));
        let above = self.directories.iter().chain([&self.cache]).any(above);
        if above || !touched.ended.is_empty() {
            events.extend(self.look_again());
        }
        if !touched.ended.is_empty() {
            // What was told of a directory that is gone now was not understood.
            events.extend(self.everything());
        }
        events
    }

    /// When to look again by itself: for directories that are not there, or cannot be watched.
    pub fn look_at(&self) -> Option<Instant> {
        self.look_at
    }

    /// Watches what is not watched yet. What there is to look at because of that.
    pub fn look_again(&mut self) -> Vec<Event> {
        let netns = Mask::IN_CREATE | Mask::IN_MOVED_TO | Mask::IN_DELETE | Mask::IN_MOVED_FROM;
        let cache =
            Mask::IN_CLOSE_WRITE | Mask::IN_MOVED_TO | Mask::IN_DELETE | Mask::IN_MOVED_FROM;
        let mut events = Vec::new();
        let mut missing = false;
        if self.cache.begin(self.subscription.as_ref(), cache) || self.cache.is_unwatched() {
            events.extend(self.read_results());
        }
        missing |= self.cache.watch.is_none();
        for index in 0..self.directories.len() {
            let Some(directory) = self.directories.get_mut(index) else { continue };
            if directory.begin(self.subscription.as_ref(), netns) || directory.is_unwatched() {
                events.push(Event::Directory(index));
            }
            missing |= directory.watch.is_none();
        }
        let there = self.directories.iter().chain([&self.cache]).any(Directory::is_unwatched);
        let pause = if there { READ_AGAIN } else { LOOK_AGAIN };
        self.look_at = missing.then(|| Instant::now() + pause);
        events
    }

    fn everything(&mut self) -> Vec<Event> {
        let mut events = self.read_results();
        events.extend((0..self.directories.len()).map(Event::Directory));
        events
    }

    /// The files of a directory, in order, and whether there are more; `None` where it cannot be read.
    pub fn list(&mut self, index: usize) -> Option<(Vec<PathBuf>, bool)> {
        let directory = self.directories.get_mut(index)?;
        match node_file::list(&directory.path, MOST_NAMES) {
            Ok(names) => {
                let path = shown(&directory.path);
                directory.unread =
                    names.more.then(|| format!("{path} has more than {MOST_NAMES} files"));
                let mut paths: Vec<PathBuf> =
                    names.names.iter().map(|name| directory.path.join(name)).collect();
                paths.sort();
                Some((paths, names.more))
            }
            // Said already.
            Err(error) if error.errno == nix::errno::Errno::ENOENT => {
                directory.unread = None;
                Some((Vec::new(), false))
            }
            // It may still be there.
            Err(error) => {
                directory.unread = Some(error.to_string());
                None
            }
        }
    }

    /// The results that name a namespace at one of these paths.
    pub fn results(&self, paths: &[PathBuf]) -> Vec<Arc<CniResult>> {
        let named = paths.iter().filter_map(|path| self.results.get(&normalize(path)));
        named.flatten().map(|(_, result)| result.clone()).collect()
    }

    /// They named it, and are not needed any more.
    pub fn forget_results(&mut self, paths: &[PathBuf]) {
        for path in paths.iter().map(|path| normalize(path)) {
            for (name, _) in self.results.remove(&path).into_iter().flatten() {
                let Some(named) = self.files.get_mut(&name) else { continue };
                named.remove(&path);
                if named.is_empty() {
                    self.files.remove(&name);
                }
            }
        }
    }

    /// Whether all that lies in the directories of namespaces is known.
    pub fn all_read(&self) -> bool {
        self.directories.iter().all(|one| one.trouble.is_none() && one.unread.is_none())
    }

    /// What is wrong.
    pub fn troubles(&self) -> impl Iterator<Item = &str> {
        let all = self.directories.iter().chain([&self.cache]);
        all.flat_map(|one| one.trouble.iter().chain(&one.unread)).map(String::as_str)
    }

    fn read_results(&mut self) -> Vec<Event> {
        let names = match node_file::list(&self.cache.path, MOST_NAMES) {
            Ok(names) => names.names,
            Err(error) => {
                let gone = error.errno == nix::errno::Errno::ENOENT;
                self.cache.unread = (!gone).then(|| error.to_string());
                if gone {
                    self.files.clear();
                    self.results.clear();
                }
                return Vec::new();
            }
        };
        self.cache.unread = None;
        let there: BTreeSet<&OsString> = names.iter().collect();
        let gone: Vec<OsString> =
            self.files.keys().filter(|name| !there.contains(name)).cloned().collect();
        gone.iter().for_each(|name| self.forget_file(name));
        names.iter().flat_map(|name| self.read_result(name)).collect()
    }

    fn forget_file(&mut self, name: &OsStr) {
        for path in self.files.remove(name).into_iter().flatten() {
            let Some(results) = self.results.get_mut(&path) else { continue };
            results.retain(|(known, _)| known != name);
            if results.is_empty() {
                self.results.remove(&path);
            }
        }
    }

    /// Reads one file of the cache. One that is half written is read again when it is closed.
    fn read_result(&mut self, name: &OsStr) -> Vec<Event> {
        self.forget_file(name);
        let path = self.cache.path.join(name);
        let Ok(Some(bytes)) = node_file::read(&path, cni::LONGEST) else { return Vec::new() };
        let Ok(result) = cni::parse(&bytes) else { return Vec::new() };
        // That of the loopback network says nothing that is not everywhere.
        if result.addresses.is_empty() {
            return Vec::new();
        }
        let result = Arc::new(result);
        let mut events = Vec::new();
        // A path that is there in both spellings is one.
        let sandboxes: BTreeSet<PathBuf> =
            result.sandboxes.iter().map(|path| normalize(path)).collect();
        for sandbox in &sandboxes {
            let known = self
                .directories
                .iter()
                .find(|one| Some(normalize(&one.path).as_path()) == sandbox.parent());
            events.extend(
                known
                    .zip(sandbox.file_name())
                    .map(|(directory, name)| Event::Result { path: directory.path.join(name) }),
            );
            let results = self.results.entry(sandbox.clone()).or_default();
            results.push((name.to_owned(), result.clone()));
        }
        if !sandboxes.is_empty() {
            self.files.insert(name.to_owned(), sandboxes);
        }
        events
    }
}

impl Directory {
    /// The first pod of a node makes the directory, and what is made in it a moment later is not to
    /// be late.
    fn watch_above(&mut self, subscription: Option<&Subscription>) {
        let Some(subscription) = subscription else { return };
        let made = Mask::IN_CREATE | Mask::IN_MOVED_TO | Mask::IN_ONLYDIR;
        let mut ancestors = self.path.ancestors().skip(1);
        let found = ancestors.find_map(|above| subscription.watch(above, made).ok());
        self.above = found;
    }

    /// Whether it is there, and nothing tells of what happens in it.
    fn is_unwatched(&self) -> bool {
        self.watch.is_none() && node_file::is_directory(&self.path)
    }

    /// Begins to watch it, if it is not watched. Whether it is watched only now.
    fn begin(&mut self, subscription: Option<&Subscription>, what: Mask) -> bool {
        if self.watch.is_some() {
            return false;
        }
        if !node_file::is_directory(&self.path) {
            self.trouble = Some(format!("{} does not exist", shown(&self.path)));
            self.watch_above(subscription);
            // It may have been made before that.
            if !node_file::is_directory(&self.path) {
                return false;
            }
        }
        self.trouble = None;
        // Its watch stays: it may be another directory's.
        self.above = None;
        let ended = Mask::IN_DELETE_SELF | Mask::IN_MOVE_SELF | Mask::IN_ONLYDIR;
        match subscription.map(|subscription| subscription.watch(&self.path, what | ended)) {
            Some(Ok(watch)) => self.watch = Some(watch),
            Some(Err(error)) => self.trouble = Some(error.to_string()),
            None => {}
        }
        self.watch.is_some()
    }
}

#[cfg(test)]
#[path = "sources_tests.rs"]
mod tests;
