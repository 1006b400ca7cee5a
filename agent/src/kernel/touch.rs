//! Who wrote which of the watched sysctl files, as it happens.
//!
//! A thread of its own reads the fanotify queue and looks each writer up at once, while it may
//! still live: the main thread may be late, and reading about another process may block, which it
//! must never do. It ends with the watcher, and what it found waits in a mailbox that holds each
//! file once.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::fstat;
use tokio::sync::Notify;

use super::errno::{Access, FileError, name_of};
use super::fanotify::{Batch, Group, Marks};
use super::inotify::{Inotify, Mask, Subscription, WatchId};
use super::sysctl_file::SysctlFile;
use super::who::{Lookup, Who};

/// Reads of the queue with somebody to look up that may follow each other at once, and how many a
/// second beyond that: who writes without end costs a tenth of a processor, not all of it.
const BURST: f64 = 2000.0;
const RATE: f64 = 1000.0;
/// How long the queue is left alone then; the kernel merges equal events meanwhile.
const PAUSE: Duration = Duration::from_millis(2);
/// Marks of vanished files that are kept before all marks are made anew.
const STALE: usize = 64;

/// A file, the same for every event and every descriptor of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(Id);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Id {
    Inode { device: u64, inode: u64 },
    Watch(WatchId),
}

/// How writes are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// fanotify: with the writer; own writes are left out.
    Fanotify,
    /// inotify: without the writer, own writes like all others.
    Inotify {
        /// Why not fanotify.
        reason: String,
    },
    /// Not at all.
    None {
        /// Why not.
        reason: String,
    },
}

/// What a watcher may use; all of it, unless a test says otherwise.
#[derive(Clone, Copy, Debug)]
pub struct May {
    /// fanotify.
    pub fanotify: bool,
    /// fanotify's pidfds, which Linux has since 5.15.
    pub pidfds: bool,
    /// fanotify's marks that go with their file, which Linux has since 5.19.
    pub evictable: bool,
}

impl Default for May {
    fn default() -> Self {
        Self { fanotify: true, pidfds: true, evictable: true }
    }
}

/// A file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Which.
    pub file: FileId,
    /// By whom; by several, the last.
    pub who: Who,
}

/// What happened since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touches {
    /// Files that were written, also with the value they had; each once. With inotify also files
    /// that were only opened with `O_TRUNC`, as a shell does.
    pub files: Vec<Touch>,
    /// Notifications were lost: any file may have been written.
    pub overflow: bool,
}

/// Sees writes to some sysctl files through the proc mount that they were opened on.
pub struct Watcher(Means);

enum Means {
    Fanotify(Box<Marked>),
    Inotify(Subscription),
    None,
}

impl Watcher {
    /// A watcher of no file yet, by the best means there are.
    #[must_use]
    pub fn new(inotify: Option<&Inotify>) -> (Self, Kind) {
        Self::with(May::default(), inotify)
    }

    /// A watcher that uses only what it may.
    #[must_use]
    pub fn with(may: May, inotify: Option<&Inotify>) -> (Self, Kind) {
        let reason = match may.fanotify.then(|| Marked::new(may)) {
            Some(Ok(marked)) => return (Self(Means::Fanotify(Box::new(marked))), Kind::Fanotify),
            Some(Err(reason)) => reason,
            None => "fanotify is not wanted".to_owned(),
        };
        match inotify {
            Some(inotify) => (Self(Means::Inotify(inotify.subscribe())), Kind::Inotify { reason }),
            None => (
                Self(Means::None),
                Kind::None { reason: format!("{reason}; nor is there inotify") },
            ),
        }
    }

    /// Watches a file from now on. Whoever drops the file removes it here.
    pub fn add(&mut self, file: &SysctlFile) -> Result<FileId, FileError> {
        match &mut self.0 {
            Means::Fanotify(marked) => marked.add(file).map_err(|errno| {
                FileError::new(Access::Open, file.path(), errno).meaning(match errno {
                    Errno::ENOENT => "the key vanished, and cannot be watched",
                    errno => errno.desc(),
                })
            }),
            Means::Inotify(subscription) => {
                // The descriptor, not the path: that may lead to another namespace's file, and
                // something may be mounted over it.
                let descriptor = file.as_fd().as_raw_fd();
                let path = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
                let watch = subscription.watch(&path, Mask::IN_MODIFY).map_err(|mut error| {
                    error.path = file.path().to_owned();
                    error
                })?;
                Ok(FileId(Id::Watch(watch)))
            }
            Means::None => Err(FileError::new(Access::Open, file.path(), Errno::EOPNOTSUPP)
                .meaning("nothing can be watched")),
        }
    }

    /// Watches a file no more; it may have vanished. Give the file where it is still open.
    pub fn remove(&mut self, id: FileId, file: Option<&SysctlFile>) {
        match (&mut self.0, id.0) {
            (Means::Fanotify(marked), _) => marked.remove(id, file),
            (Means::Inotify(subscription), Id::Watch(watch)) => subscription.forget(watch),
            _ => {}
        }
    }

    /// What happened since the last call, without waiting.
    #[must_use]
    pub fn take(&self) -> Touches {
        match &self.0 {
            Means::Fanotify(marked) => marked.mailbox.take(),
            Means::Inotify(subscription) => from_inotify(subscription.take()),
            Means::None => Touches::default(),
        }
    }

    /// What happened since the last call; waits until something has. May be dropped while it
    /// waits: nothing is lost.
    pub async fn next(&self) -> Touches {
        match &self.0 {
            Means::Fanotify(marked) => marked.mailbox.next().await,
            Means::Inotify(subscription) => from_inotify(subscription.next().await),
            Means::None => std::future::pending().await,
        }
    }
}

fn from_inotify(touched: super::inotify::Touched) -> Touches {
    let touch = |watch| Touch { file: FileId(Id::Watch(watch)), who: Who::Unknown };
    Touches { files: touched.watches.into_iter().map(touch).collect(), overflow: touched.overflow }
}

/// The files that are marked, and the thread that reads about them.
struct Marked {
    group: Arc<Group>,
    marks: Marks,
    mailbox: Arc<Mailbox>,
    /// Where marks pin: descriptors to remove them by, and to make them anew.
    pinned: BTreeMap<FileId, OwnedFd>,
    stale: usize,
    stop: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl Marked {
    fn new(may: May) -> Result<Self, String> {
        let group = Group::new(may.pidfds).map_err(|errno| {
            let meaning = match errno {
                Errno::EPERM => "CAP_SYS_ADMIN is missing",
                Errno::EMFILE => "raise fs.fanotify.max_user_groups",
                Errno::ENOSYS => "this kernel or this sandbox has none",
                errno => errno.desc(),
            };
            format!("fanotify: {}: {meaning}", name_of(errno))
        })?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let stop = EventFd::from_flags(flags).map_err(|errno| format!("eventfd: {errno}"))?;
        let (group, stop, mailbox) = (Arc::new(group), Arc::new(stop), Arc::<Mailbox>::default());
        let reader = Reader { group: group.clone(), stop: stop.clone(), mailbox: mailbox.clone() };
        let thread = std::thread::Builder::new()
            .name("touch".into())
            .spawn(move || reader.run())
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        Ok(Self {
            group,
            marks: if may.evictable { Marks::Evictable } else { Marks::Pinning },
            mailbox,
            pinned: BTreeMap::new(),
            stale: 0,
            stop,
            thread: Some(thread),
        })
    }

    fn add(&mut self, file: &SysctlFile) -> Result<FileId, Errno> {
        let id = identify(file)?;
        // Before the mark: an event must not come before its file is known.
        self.mailbox.lock().known.insert(id);
        self.mark(id, file).inspect_err(|_| self.mailbox.forget(id))?;
        Ok(id)
    }

    fn mark(&mut self, id: FileId, file: &SysctlFile) -> Result<(), Errno> {
        if self.marks == Marks::Evictable {
            match self.group.add(file.as_fd(), Marks::Evictable) {
                // A kernel before 5.19 does not know the flag.
                Err(Errno::EINVAL) => self.marks = Marks::Pinning,
                other => return other,
            }
        }
        let copy = file.as_fd().try_clone_to_owned();
        self.pinned.insert(id, copy.map_err(|error| super::errno::of_io(&error))?);
        self.group.add(file.as_fd(), Marks::Pinning)
    }

    fn remove(&mut self, id: FileId, file: Option<&SysctlFile>) {
        self.mailbox.forget(id);
        if self.marks == Marks::Evictable {
            // Of a file that has vanished the mark goes with the last descriptor.
            let _ = file.map(|file| self.group.remove(file.as_fd()));
            return;
        }
        let Some(copy) = self.pinned.remove(&id) else { return };
        if self.group.remove(copy.as_fd()) == Err(Errno::ENOENT) {
            self.stale += 1;
        }
        if self.stale >= STALE {
            self.renew(&copy);
        }
    }

    /// The only way to be rid of the marks of vanished files where marks pin.
    fn renew(&mut self, anything: &OwnedFd) {
        if self.group.clear(anything.as_fd()).is_err() {
            return;
        }
        self.stale = 0;
        for copy in self.pinned.values() {
            // One that has just vanished needs no mark.
            let _ = self.group.add(copy.as_fd(), Marks::Pinning);
        }
        // Meanwhile a write could have gone unseen.
        self.mailbox.put_overflow();
    }
}

impl Drop for Marked {
    fn drop(&mut self) {
        let _ = self.stop.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What nobody has taken yet.
#[derive(Default)]
struct Mailbox {
    pending: Mutex<Pending>,
    arrived: Notify,
}

#[derive(Default)]
struct Pending {
    known: BTreeSet<FileId>,
    files: BTreeMap<FileId, Who>,
    overflow: bool,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every value behind this lock is written whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, file: FileId, who: Who) {
        let mut pending = self.lock();
        if pending.known.contains(&file) {
            pending.files.insert(file, who);
            drop(pending);
            self.arrived.notify_one();
        }
    }

    fn put_overflow(&self) {
        self.lock().overflow = true;
        self.arrived.notify_one();
    }

    fn forget(&self, file: FileId) {
        let mut pending = self.lock();
        pending.known.remove(&file);
        pending.files.remove(&file);
    }

    async fn next(&self) -> Touches {
        loop {
            let touches = self.take();
            if touches != Touches::default() {
                return touches;
            }
            self.arrived.notified().await;
        }
    }

    fn take(&self) -> Touches {
        let mut pending = self.lock();
        let files = std::mem::take(&mut pending.files);
        Touches {
            files: files.into_iter().map(|(file, who)| Touch { file, who }).collect(),
            overflow: std::mem::take(&mut pending.overflow),
        }
    }
}

/// What the thread works with.
struct Reader {
    group: Arc<Group>,
    stop: Arc<EventFd>,
    mailbox: Arc<Mailbox>,
}

impl Reader {
    fn run(&self) {
        let mut lookup = Lookup::new("/proc");
        let mut pace = Pace { spare: BURST, since: Instant::now() };
        while self.wait(pace.pause()) {
            match self.group.read() {
                Ok(batch) if self.hand_on(&batch, &mut lookup) => pace.spent(),
                // Nothing, or nothing but own writes; or it was about a file that has vanished,
                // where there is nothing to put right.
                Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOENT) => {}
                Err(_) => {
                    self.mailbox.put_overflow();
                    pace.spent();
                }
            }
        }
    }

    /// Waits for an event, after a pause; false if it is time to end.
    fn wait(&self, pause: Option<Duration>) -> bool {
        let stop = || PollFd::new(self.stop.as_fd(), PollFlags::POLLIN);
        let stopped = |fds: &mut [PollFd<'_>], timeout| {
            let _ = poll(fds, timeout);
            fds.first().and_then(PollFd::any).unwrap_or(false)
        };
        if let Some(pause) = pause {
            let timeout = PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO);
            if stopped(&mut [stop()], timeout) {
                return false;
            }
        }
        let events = PollFd::new(self.group.as_fd(), PollFlags::POLLIN);
        !stopped(&mut [stop(), events], PollTimeout::NONE)
    }

    /// Whether there was anything to hand on.
    fn hand_on(&self, batch: &Batch, lookup: &mut Lookup) -> bool {
        let own = std::process::id().cast_signed();
        // One process in one batch is one process.
        let mut known = BTreeMap::<i32, Who>::new();
        for event in &batch.events {
            // The event names the process, not the thread (no FAN_REPORT_TID).
            let Some(file) = identify(&event.file).ok().filter(|_| event.pid != own) else {
                continue;
            };
            let who = known.entry(event.pid).or_insert_with(|| lookup.who(event.pid, &event.pidfd));
            self.mailbox.put(file, who.clone());
        }
        if batch.overflow {
            self.mailbox.put_overflow();
        }
        batch.overflow || !known.is_empty()
    }
}

/// Slows a reader down whose work never ends.
struct Pace {
    spare: f64,
    since: Instant,
}

impl Pace {
    fn spent(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_secs_f64() * RATE;
        self.since = now;
        self.spare = (self.spare + earned).min(BURST) - 1.0;
    }

    fn pause(&self) -> Option<Duration> {
        (self.spare < 0.0).then_some(PAUSE)
    }
}

/// By inode: of a file that has vanished this fails with ENOENT (`proc_sys_getattr`).
fn identify(file: impl AsFd) -> Result<FileId, Errno> {
    let stat = fstat(file)?;
    Ok(FileId(Id::Inode { device: stat.st_dev, inode: stat.st_ino }))
}
