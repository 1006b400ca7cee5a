//! The agent's one inotify instance, shared by all that watch files: uid 0 has 128 of them for
//! the whole node (`fs.inotify.max_user_instances`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::inotify::{InitFlags, Inotify as Instance, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

pub use nix::sys::inotify::AddWatchFlags as Mask;

use super::errno::{Access, FileError};

/// The instance.
#[derive(Clone)]
pub struct Inotify(Arc<Shared>);

struct Shared {
    instance: Arc<Instance>,
    owners: Arc<Owners>,
    reader: tokio::task::JoinHandle<()>,
}

/// One watched path. The kernel has one watch for each inode of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WatchId(i32);

/// What happened since the last look, however often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Watches whose path was touched.
    pub watches: BTreeSet<WatchId>,
    /// Of these, watches that ended: the inode is gone, or its file system was unmounted.
    pub ended: BTreeSet<WatchId>,
    /// What happened to which name in a watched directory, for subscriptions that ask for names.
    pub names: BTreeMap<(WatchId, OsString), Mask>,
    /// Events were lost: anything may have happened.
    pub overflow: bool,
}

impl Touched {
    fn name(&mut self, watch: WatchId, name: OsString, mask: Mask) {
        if self.names.len() < MOST_NAMES {
            *self.names.entry((watch, name)).or_insert(Mask::empty()) |= mask;
        } else {
            self.names.clear();
            self.overflow = true;
        }
    }
}

#[derive(Default)]
struct Mailbox {
    touched: Mutex<Touched>,
    arrived: Notify,
    names: bool,
}

/// `IN_MASK_ADD` (`inotify(7)`), which nix does not name: a second watch of an inode adds to the
/// first.
const ADD: Mask = Mask::from_bits_retain(nix::libc::IN_MASK_ADD);

/// Names that wait to be looked at. Beyond them the directory is read anew.
const MOST_NAMES: usize = 4096;

/// One watcher's share of the instance. Its watches end with it.
pub struct Subscription {
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
}

impl Inotify {
    /// Makes the instance. Needs a tokio runtime. EMFILE: this user has no instance left.
    pub fn new() -> Result<Self, FileError> {
        let fail = |errno| {
            FileError::new(Access::Open, "inotify", errno).meaning(match errno {
                Errno::EMFILE => {
                    "this user has no inotify instance left: raise fs.inotify.max_user_instances"
                }
                errno => errno.desc(),
            })
        };
        let instance =
            Instance::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(fail)?;
        let instance = Arc::new(instance);
        let owners = Arc::<Owners>::default();
        let descriptor =
            readable(instance.as_fd()).map_err(|error| fail(super::errno::of_io(&error)))?;
        let reader = tokio::spawn(read(descriptor, instance.clone(), owners.clone()));
        Ok(Self(Arc::new(Shared { instance, owners, reader })))
    }

    /// A share of it.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription { shared: self.0.clone(), mailbox: Arc::default() }
    }

    /// A share that is also told the names of what is touched in directories.
    #[must_use]
    pub fn subscribe_to_names(&self) -> Subscription {
        let mailbox = Arc::new(Mailbox { names: true, ..Mailbox::default() });
        Subscription { shared: self.0.clone(), mailbox }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Subscription {
    /// Watches a path. The kernel has one watch for each inode: who watches it too is told of what
    /// others want to know as well.
    pub fn watch(&self, path: &Path, what: Mask) -> Result<WatchId, FileError> {
        // Held over the call: the reader must not see an event before its owner is known.
        let mut owners = lock(&self.shared.owners);
        let watch = self.shared.instance.add_watch(path, what | ADD).map_err(|errno| {
            FileError::new(Access::Open, path, errno).meaning(match errno {
                Errno::ENOSPC => "no inotify watch is left: raise fs.inotify.max_user_watches",
                errno => errno.desc(),
            })
        })?;
        let owners = owners.entry(watch).or_default();
        if !owners.iter().any(|owner| Arc::ptr_eq(owner, &self.mailbox)) {
            owners.push(self.mailbox.clone());
        }
        Ok(WatchId(watch.as_raw()))
    }

    /// Ends a watch. One that ended by itself is no error.
    pub fn forget(&self, watch: WatchId) {
        let mut owners = lock(&self.shared.owners);
        let known = owners.keys().find(|known| known.as_raw() == watch.0).copied();
        if let Some(descriptor) = known {
            self.leave(&mut owners, descriptor);
        }
        let mut touched = lock(&self.mailbox.touched);
        touched.watches.remove(&watch);
        touched.ended.remove(&watch);
        touched.names.retain(|(of, _), _| *of != watch);
    }

    /// The watch ends with its last owner.
    fn leave(&self, all: &mut HashMap<WatchDescriptor, Vec<Arc<Mailbox>>>, watch: WatchDescriptor) {
        let Some(owners) = all.get_mut(&watch) else { return };
        let before = owners.len();
        owners.retain(|owner| !Arc::ptr_eq(owner, &self.mailbox));
        if owners.is_empty() && before > 0 {
            all.remove(&watch);
            let _ = self.shared.instance.rm_watch(watch);
        }
    }

    /// What happened since the last call; waits until something has.
    pub async fn next(&self) -> Touched {
        loop {
            let touched = self.take();
            if touched != Touched::default() {
                return touched;
            }
            self.mailbox.arrived.notified().await;
        }
    }

    /// What happened since the last call, without waiting.
    #[must_use]
    pub fn take(&self) -> Touched {
        std::mem::take(&mut lock(&self.mailbox.touched))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut owners = lock(&self.shared.owners);
        let all: Vec<WatchDescriptor> = owners.keys().copied().collect();
        for watch in all {
            self.leave(&mut owners, watch);
        }
    }
}

/// A descriptor's own copy, waited for by the runtime.
#[allow(unsafe_code)]
pub(super) fn readable(descriptor: BorrowedFd<'_>) -> std::io::Result<AsyncFd<OwnedFd>> {
    let copy = descriptor.try_clone_to_owned()?;
    // SAFETY: the descriptor is owned, and neither closed nor replaced while it is registered.
    unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE) }.map_err(Into::into)
}

type Owners = Mutex<HashMap<WatchDescriptor, Vec<Arc<Mailbox>>>>;

/// Hands on what the kernel says. Bounded: a mailbox holds each watch once.
async fn read(descriptor: AsyncFd<OwnedFd>, instance: Arc<Instance>, owners: Arc<Owners>) {
    while let Ok(mut ready) = descriptor.readable().await {
        match instance.read_events() {
            Ok(events) => {
                let mut owners = lock(&owners);
                for event in events {
                    deliver(&mut owners, event.wd, event.mask, event.name.as_ref());
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => ready.clear_ready(),
        }
    }
}

fn deliver(
    owners: &mut HashMap<WatchDescriptor, Vec<Arc<Mailbox>>>,
    watch: WatchDescriptor,
    mask: Mask,
    name: Option<&OsString>,
) {
    if mask.contains(Mask::IN_Q_OVERFLOW) {
        for owner in owners.values().flatten() {
            lock(&owner.touched).overflow = true;
            owner.arrived.notify_one();
        }
        return;
    }
    // None of one that was forgotten while its event was on its way.
    for owner in owners.get(&watch).into_iter().flatten() {
        let id = WatchId(watch.as_raw());
        let mut touched = lock(&owner.touched);
        touched.watches.insert(id);
        if let Some(name) = name.filter(|_| owner.names) {
            touched.name(id, name.clone(), mask);
        }
        // One that was moved away is at its path no more.
        if mask.intersects(Mask::IN_IGNORED | Mask::IN_MOVE_SELF) {
            touched.ended.insert(id);
        }
        drop(touched);
        owner.arrived.notify_one();
    }
    if mask.contains(Mask::IN_IGNORED) {
        owners.remove(&watch);
    }
}

/// Every value behind these locks is written whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_told_to_those_who_ask_with_all_that_happened_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let names = inotify.subscribe_to_names();
        let watch = names.watch(directory.path(), Mask::IN_CREATE | Mask::IN_DELETE).unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut seen = Mask::empty();
        while !seen.contains(Mask::IN_CREATE | Mask::IN_DELETE) {
            seen |= names.next().await.names[&(watch, "a".into())];
        }
    }

    #[tokio::test]
    async fn a_path_that_two_watch_is_watched_until_the_last_forgets_it() {
        let directory = tempfile::tempdir().unwrap();
        let inotify = Inotify::new().unwrap();
        let (first, second) = (inotify.subscribe(), inotify.subscribe());
        let watch = first.watch(directory.path(), Mask::IN_CREATE).unwrap();
        assert_eq!(second.watch(directory.path(), Mask::IN_DELETE).unwrap(), watch);
        std::fs::write(directory.path().join("a"), "").unwrap();
        assert_eq!(first.next().await.watches, [watch].into());
        assert_eq!(second.next().await.watches, [watch].into());
        drop(first);
        std::fs::remove_file(directory.path().join("a")).unwrap();
        assert_eq!(second.next().await.watches, [watch].into());
        second.forget(watch);
        assert!(lock(&inotify.0.owners).is_empty());
    }

    #[test]
    fn too_many_names_are_an_overflow() {
        let mut touched = Touched::default();
        for number in 0..=MOST_NAMES {
            touched.name(WatchId(1), number.to_string().into(), Mask::IN_CREATE);
        }
        assert!(touched.overflow && touched.names.is_empty());
    }

    #[tokio::test]
    async fn each_subscription_hears_of_its_own_paths_once_however_often_they_are_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["a", "b"] {
            std::fs::write(path(name), "").unwrap();
        }
        let inotify = Inotify::new().unwrap();
        let (first, second) = (inotify.subscribe(), inotify.subscribe());
        let a = first.watch(&path("a"), Mask::IN_MODIFY).unwrap();
        let b = second.watch(&path("b"), Mask::IN_MODIFY).unwrap();
        for _ in 0..3 {
            std::fs::write(path("a"), "x").unwrap();
        }
        assert_eq!(first.next().await.watches, [a].into());
        std::fs::write(path("b"), "x").unwrap();
        assert_eq!(second.next().await.watches, [b].into());
        assert_eq!(first.take(), Touched::default());

        std::fs::remove_file(path("a")).unwrap();
        let gone = first.next().await;
        assert_eq!((gone.watches, gone.ended), ([a].into(), [a].into()));
        std::fs::write(path("b"), "x").unwrap();
        while lock(&second.mailbox.touched).watches.is_empty() {
            tokio::task::yield_now().await;
        }
        second.forget(b);
        std::fs::write(path("b"), "y").unwrap();
        tokio::task::yield_now().await;
        assert_eq!(second.take(), Touched::default());
    }
}
