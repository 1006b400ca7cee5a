//! A visit to one namespace: a thread of its own enters it, does what is to be done, and ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tracing::info_span;

use super::apply::{Applied, ApplyError, Plan, apply};
use super::cni::CniResult;
use super::fresh::Fresh;
use super::naming;
use super::state::{Identity, IdentityFrom, PodKey};
use crate::kernel::errno::FileError;
use crate::kernel::netns::{self, NetnsError, NsId};
use crate::kernel::nsfs::{self, Found};
use crate::kernel::sysctl_file::OpenMode;
use crate::kernel::{addresses, system};
use crate::sysctl::key::Key;
use crate::sysctl::managed::show;
use crate::sysctl::state::State;

/// What the deepest of a visit's calls needs, and some.
const STACK: usize = 512 << 10;

/// What to do in a namespace.
pub struct Visit {
    /// The visit's number.
    pub number: u64,
    /// Which namespace.
    pub id: NsId,
    /// Its cookie, where an earlier visit told.
    pub cookie: Option<u64>,
    /// Where it is mounted: the first of them is opened.
    pub paths: Vec<PathBuf>,
    /// The host's namespaces, which are never entered.
    pub hosts: Arc<[NsId]>,
    /// The proc file system.
    pub proc_root: PathBuf,
    /// Whether its directory is not configured any more.
    pub leaving: bool,
    /// What is wanted.
    pub plan: Arc<Plan>,
    /// What untouched namespaces have.
    pub fresh: Arc<Fresh>,
    /// Whether `fresh` was measured after the visit was first asked for.
    pub sure: bool,
    /// Whose it is, if that is known.
    pub pod: Option<Identity>,
    /// CNI results that name its path.
    pub results: Vec<Arc<CniResult>>,
    /// What was found last, for a visit that only looks whether it is still so.
    pub sweep: Option<Arc<[PodKey]>>,
}

/// What came of a visit.
#[derive(Debug)]
pub struct Visited {
    /// The visit's number.
    pub number: u64,
    /// Which namespace.
    pub id: NsId,
    /// Whether its directory was not configured any more.
    pub leaving: bool,
    /// Its cookie: another one than expected says that it is another namespace, which has the inode
    /// of one that is gone.
    pub cookie: Option<u64>,
    /// Whose it is, or why that is not known.
    pub pod: Result<Identity, String>,
    /// What came of it.
    pub outcome: Outcome,
    /// Of the processor.
    pub cost: Duration,
}

/// What came of it.
#[derive(Debug)]
pub enum Outcome {
    /// Applied.
    Applied(Applied),
    /// A sweep found all as it was.
    Unchanged,
    /// The namespace is not at its first path any more.
    Gone,
    /// Another namespace has its path, and the inode that it had.
    Replaced,
    /// It is the kernel's initial one: the host's, whoever mounted it there.
    Host,
    /// To be done again once it is known what new namespaces have now.
    Stale,
    /// It could not be entered, or worked in.
    Failed(String),
}

impl Visit {
    /// Starts the thread; what came of it is sent. A panic is a failure of this visit alone.
    pub fn start(self, done: UnboundedSender<Visited>) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("pod".into()).stack_size(STACK);
        thread.spawn(move || {
            let nothing = Visited::nothing(&self);
            let before = system::thread_cpu_time();
            let mut visited =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.make()))
                    .unwrap_or_else(|_| Visited {
                        outcome: Outcome::Failed("it panicked: this is a bug".to_owned()),
                        ..nothing
                    });
            visited.cost = system::thread_cpu_time().saturating_sub(before);
            // The agent may be stopping.
            let _ = done.send(visited);
        })?;
        Ok(())
    }

    fn make(self) -> Visited {
        let mut visited = Visited::nothing(&self);
        match self.enter() {
            Ok(true) => {}
            Ok(false) => return Visited { outcome: Outcome::Gone, ..visited },
            Err(reason) => return Visited { outcome: Outcome::Failed(reason), ..visited },
        }
        if netns::is_in_initial(&self.proc_root) {
            return Visited { outcome: Outcome::Host, ..visited };
        }
        match nsfs::cookie() {
            Ok(cookie) if self.cookie.is_some() && cookie != self.cookie => {
                return Visited { cookie, outcome: Outcome::Replaced, ..visited };
            }
            Ok(cookie) => visited.cookie = cookie,
            Err(errno) => {
                let why = format!("its cookie cannot be read: {}", errno.desc());
                return Visited { outcome: Outcome::Failed(why), ..visited };
            }
        }
        visited.pod = self.name();
        visited.outcome = self.work(visited.pod.as_ref().ok(), visited.cookie);
        visited
    }

    /// Opened late and closed early: a descriptor keeps the namespace alive.
    fn enter(&self) -> Result<bool, String> {
        let Some(path) = self.paths.first() else { return Ok(false) };
        let found = nsfs::find(&self.proc_root, path).map_err(|error| error.to_string())?;
        let Found::Netns(fd, id) = found else { return Ok(false) };
        if id != self.id {
            return Ok(false);
        }
        if self.hosts.contains(&id) {
            return Err("it is the host's own".to_owned());
        }
        match netns::enter(&self.proc_root, fd, id) {
            Ok(()) => Ok(true),
            Err(NetnsError::Elsewhere(_)) => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn name(&self) -> Result<Identity, String> {
        let by_result = |pod: &&Identity| pod.from == IdentityFrom::CniCache;
        if let Some(pod) = self.pod.as_ref().filter(by_result) {
            return Ok(pod.clone());
        }
        self.by_result().or_else(|why| self.pod.clone().ok_or(why))
    }

    fn by_result(&self) -> Result<Identity, String> {
        if self.results.is_empty() {
            return Err("no CNI result names it".to_owned());
        }
        let addresses = addresses::addresses()
            .map_err(|error| format!("its addresses cannot be read: {error}"))?;
        let results: Vec<&CniResult> = self.results.iter().map(AsRef::as_ref).collect();
        naming::by_result(&self.paths, &addresses, &results).map_err(|error| error.to_string())
    }

    fn work(&self, pod: Option<&Identity>, cookie: Option<u64>) -> Outcome {
        let _in = info_span!("pod", name = named(pod, self.id)).entered();
        let same_pod = pod == self.pod.as_ref();
        if same_pod && self.sweep.as_ref().is_some_and(|keys| self.is_as_before(keys)) {
            return Outcome::Unchanged;
        }
        let ledger = self.plan.ledger(self.id.ino, cookie);
        match apply(&self.plan, pod, &self.fresh, &ledger, self.sure) {
            Ok(applied) => Outcome::Applied(applied),
            Err(ApplyError::Stale) => Outcome::Stale,
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    /// Whether every key has the value that it had, and none waits for something.
    fn is_as_before(&self, keys: &[PodKey]) -> bool {
        let mut buffer = Vec::new();
        keys.iter().all(|known| {
            let settled = known.in_sync
                || matches!(known.state, State::Yielded | State::Observed | State::Unsupported);
            if !settled {
                return false;
            }
            let Some(value) = &known.value else { return known.state == State::Unsupported };
            let Ok(key) = Key::parse(&known.key) else { return false };
            let read = |buffer| -> Result<String, FileError> {
                let file =
                    self.plan.tree.open_key(key.as_str(), &key.path(), OpenMode::ReadOnly)?;
                Ok(show(&String::from_utf8_lossy(file.read(buffer)?)))
            };
            read(&mut buffer).is_ok_and(|now| now == *value)
        })
    }
}

impl Visited {
    fn nothing(visit: &Visit) -> Self {
        Self {
            number: visit.number,
            leaving: visit.leaving,
            id: visit.id,
            cookie: visit.cookie,
            pod: Err("it was not entered".to_owned()),
            outcome: Outcome::Gone,
            cost: Duration::ZERO,
        }
    }
}

/// What the log calls it.
#[must_use]
pub fn named(pod: Option<&Identity>, id: NsId) -> String {
    match (pod.and_then(Identity::names), pod.and_then(|pod| pod.uid.as_ref())) {
        (Some((namespace, name)), _) => format!("{namespace}/{name}"),
        (None, Some(uid)) => format!("uid {uid}"),
        (None, None) => format!("net:[{}]", id.ino),
    }
}
