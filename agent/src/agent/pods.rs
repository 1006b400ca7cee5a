//! The pods' task: finds pods' network namespaces, names their pods, and has policies applied in
//! them.

mod fresh;
mod naming;
mod publish;
mod sources;
mod visits;

use std::collections::{BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep_until;

use super::supervise::{Failure, current, recovered};
use super::{Context, once};
use crate::config::Config;
use crate::kernel::mounts::MountEvents;
use crate::kernel::netns::{self, NsId};
use crate::kernel::nsfs::{self, Found};
use crate::kernel::{mounts, state_dir, system};
use crate::pods::apply::Plan;
use crate::pods::fresh::Fresh;
use crate::pods::register::{MISSING_AFTER, Purpose, Register, Slot, Space};
use crate::pods::state::{PodKey, PodState, Pods};
use crate::pods::visit::Visited;
use crate::sysctl::place::Net;
use sources::{Event, Sources};

/// Where what new namespaces have cannot be measured, it is tried again after this.
const MEASURE_AGAIN: Duration = Duration::from_secs(30);

/// Keeps the policies in force in pods' namespaces.
pub async fn keep(mut context: Context) -> Result<(), Failure> {
    loop {
        let config = current(&context);
        if matches!(context.place.net, Net::Wrong(_)) {
            // Said by the check of the host's namespace: which one is the host's is not known.
        } else if is_wanted(&config) {
            Run::start(&context, config).await?.run(&mut context).await?;
        }
        context.node.update(|state| state.pods = None);
        recovered(&context.node, "pods");
        context.config.changed().await.map_err(|_| "the agent is stopping".to_owned())?;
    }
}

/// Also where the configuration has no policies for pods any more: their originals are put back.
fn is_wanted(config: &Config) -> bool {
    !config.pods.is_empty() || !state_dir::files(&config.state.join(once::LEDGERS)).is_empty()
}

/// Visits after which memory is given back as soon as there is nothing to do.
const BURST: u32 = 200;

/// One run, from the first look at the directories on.
struct Run {
    context: Context,
    config: Arc<Config>,
    plan: Arc<Plan>,
    fresh: Arc<Fresh>,
    /// Why what new namespaces have could not be measured, and when that is tried again.
    unmeasured: Option<(String, Instant)>,
    hosts: Arc<[NsId]>,
    register: Register,
    sources: Sources,
    mount_events: Option<MountEvents>,
    done: (UnboundedSender<Visited>, UnboundedReceiver<Visited>),
    running: usize,
    /// Namespaces of directories that are not configured any more: their originals are put back.
    leaving: BTreeSet<NsId>,
    /// Namespaces that wait until what new ones have was measured anew.
    stale: Vec<NsId>,
    /// Outcomes of late: most pods share one.
    outcomes: VecDeque<Arc<[PodKey]>>,
    /// When the next sweep visit may begin.
    rested_at: Instant,
    /// When the directories are read anew, whatever the events say.
    relist_at: Instant,
    naming: naming::Naming,
    /// Whether ledgers of namespaces that are gone were removed.
    tidied: bool,
    /// Visits since memory was given back.
    visits: u32,
}

impl Run {
    async fn start(context: &Context, config: Arc<Config>) -> Result<Self, Failure> {
        let plan = Arc::new(once::pod_plan(&config, &context.roots, context.place.kernel)?);
        let hosts: Arc<[NsId]> = netns::hosts(&context.roots.proc).into();
        if hosts.is_empty() {
            return Err("the agent's own network namespace cannot be told".to_owned());
        }
        let now = Instant::now();
        let mut run = Self {
            context: context.clone(),
            plan,
            fresh: Arc::default(),
            unmeasured: None,
            hosts,
            register: Register::default(),
            sources: Sources::new(context.inotify.as_ref(), &config.pod_namespaces),
            mount_events: MountEvents::new(&context.roots.proc).ok(),
            done: unbounded_channel(),
            running: 0,
            leaving: BTreeSet::new(),
            stale: Vec::new(),
            outcomes: VecDeque::new(),
            rested_at: now,
            relist_at: now,
            naming: naming::Naming::new(&context.roots.proc),
            tidied: false,
            visits: 0,
            config,
        };
        run.reset_picture();
        run.measure().await?;
        run.relist(true);
        Ok(run)
    }

    async fn run(mut self, context: &mut Context) -> Result<(), Failure> {
        let mut appeared = context.appeared.hear();
        let mut modules = appeared.borrow_and_update().modules;
        recovered(&context.node, "pods");
        loop {
            self.start_visits();
            let waits = self.register.first_due(Purpose::Apply).is_some();
            if self.register.is_idle() && self.stale.is_empty() {
                if self.visits >= BURST {
                    self.visits = 0;
                    system::give_back_memory();
                }
                self.tidy();
                // What could not be put back is tried again.
                if self.config.pods.is_empty() && !waits {
                    return Ok(());
                }
            }
            let now = Instant::now();
            let expecting = self.register.first_waiting().is_some();
            let timer = self.next_timer();
            tokio::select! {
                touched = self.sources.next() => {
                    let events = self.sources.understand(touched);
                    self.handle(events, Instant::now());
                }
                // A mount gives no event in the directory of its mount point.
                Ok(()) = changed(self.mount_events.as_ref()), if expecting => {
                    for path in self.register.expecting(now) {
                        self.look(&path, Instant::now(), false);
                    }
                }
                Some(visited) = self.done.1.recv() => {
                    self.visited(visited);
                    while let Ok(visited) = self.done.1.try_recv() {
                        self.visited(visited);
                    }
                    self.refresh_stale().await?;
                }
                seen = self.naming.seen() => self.name_by(&seen),
                () = sleep_until(timer.into()) => self.on_timer().await?,
                changed = appeared.changed() => {
                    changed.map_err(|_| "the agent is stopping".to_owned())?;
                    let now = appeared.borrow_and_update().modules;
                    if now != modules && self.fresh.lacks_some() {
                        self.reapply().await?;
                    }
                    modules = now;
                }
                changed = context.config.changed() => {
                    changed.map_err(|_| "the agent is stopping".to_owned())?;
                    self.reconfigure(current(context)).await?;
                }
            }
        }
    }

    fn next_timer(&self) -> Instant {
        let sweep = self.register.first_due(Purpose::Sweep).map(|(at, _)| at.max(self.rested_at));
        let soon = self.register.first_due(Purpose::Apply).map(|(at, _)| at);
        let measure = self.unmeasured.as_ref().map(|(_, at)| *at);
        let times = [sweep, soon, measure, self.register.first_waiting(), self.naming.due()];
        let first = times.into_iter().flatten().min();
        let listed = self.sources.look_at().unwrap_or(self.relist_at).min(self.relist_at);
        first.map_or(listed, |first| first.min(listed))
    }

    async fn on_timer(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        for path in self.register.take_waiting(now) {
            self.look(&path, now, false);
        }
        if self.sources.look_at().is_some_and(|at| at <= now) {
            let events = self.sources.look_again();
            self.handle(events, now);
        }
        if self.relist_at <= now {
            self.relist(false);
        }
        while self.register.start_due(Purpose::Apply, now) {}
        if self.rested_at <= now && self.register.start_due(Purpose::Sweep, now) {
            // Until it is known what it cost.
            self.rested_at = now + self.config.pod_namespaces.sweep;
        }
        if self.unmeasured.as_ref().is_some_and(|(_, at)| *at <= now) {
            self.reapply().await?;
        }
        self.naming.start(&self.register, now);
        Ok(())
    }

    fn handle(&mut self, events: Vec<Event>, now: Instant) {
        for event in events {
            match event {
                Event::Netns { path, gone } => {
                    if gone {
                        self.was_gone(&path);
                    }
                    self.look(&path, now, false);
                }
                Event::Directory(index) => self.list(index, false),
                Event::Result { path } => self.result_of(&path, now),
            }
        }
        self.say_trouble();
    }

    fn relist(&mut self, late: bool) {
        self.relist_at = Instant::now() + self.config.pod_namespaces.sweep;
        let events = self.sources.look_again();
        self.handle_results(events);
        for index in 0..self.config.pod_namespaces.directories.len() {
            self.list(index, late);
        }
        self.say_trouble();
    }

    /// Names before namespaces, so that those that are there are named at their first visit.
    fn handle_results(&mut self, events: Vec<Event>) {
        let now = Instant::now();
        let results = events.into_iter().filter(|event| matches!(event, Event::Result { .. }));
        self.handle(results.collect(), now);
    }

    /// Looks at every file of a directory, and forgets what is not there any more.
    fn list(&mut self, index: usize, late: bool) {
        let Some(directory) = self.config.pod_namespaces.directories.get(index).cloned() else {
            return;
        };
        let Some((paths, more)) = self.sources.list(index) else { return };
        let known = self.register.paths().filter(|path| path.parent() == Some(&directory));
        let mut gone: Vec<PathBuf> =
            known.filter(|path| paths.binary_search(path).is_err()).cloned().collect();
        if more {
            let proc_root = &self.context.roots.proc;
            // It may be among those that were not read.
            let nothing = |path: &Path| matches!(nsfs::find(proc_root, path), Ok(Found::Nothing));
            gone.retain(|path| nothing(path));
        }
        gone.iter().for_each(|path| self.forget(path));
        let now = Instant::now();
        paths.iter().for_each(|path| self.look(path, now, late));
    }

    /// Looks at what lies at a path.
    fn look(&mut self, path: &Path, now: Instant, late: bool) {
        let found = nsfs::find(&self.context.roots.proc, path);
        let before = self.register.slot(path).cloned();
        // An error of the moment says nothing of what is there.
        if found.is_err() && matches!(before, Some(Slot::Netns(_))) {
            return;
        }
        if let (Some(Slot::Netns(known)), found) = (&before, &found)
            && !matches!(found, Ok(Found::Netns(_, id)) if id == known)
        {
            self.forget(path);
        }
        match found {
            Ok(Found::Nothing) => return self.forget(path),
            Ok(Found::NotMounted) => self.register.wait(path, now, late),
            Ok(Found::Other(what)) => {
                self.register.skip(path, PodState::SkippedNotNetns, format!("it is {what}"));
            }
            Ok(Found::Netns(_, id)) if self.hosts.contains(&id) => {
                let why = "it is the host's own network namespace".to_owned();
                self.register.skip(path, PodState::SkippedHost, why);
            }
            Ok(Found::Netns(fd, id)) => {
                drop(fd);
                self.is_elsewhere(path, id, now);
                self.register.netns(path, id, now, late);
            }
            Err(error) => {
                // Of the moment, perhaps: until it is known, the file waits for it to pass.
                let passes = [Errno::EMFILE, Errno::ENFILE, Errno::ENOMEM, Errno::EINTR];
                match passes.contains(&error.errno) {
                    true => self.register.wait(path, now, late),
                    false => self.register.skip(path, PodState::Failed, error.to_string()),
                }
            }
        }
        self.publish(path);
    }

    /// A namespace that is known at other paths may be gone from these, and this be another one with
    /// its inode.
    fn is_elsewhere(&mut self, path: &Path, id: NsId, now: Instant) {
        let Some(space) = self.register.space(id) else { return };
        if space.paths.iter().any(|known| known == path) {
            return;
        }
        for known in space.paths.clone() {
            self.look(&known, now, false);
        }
        self.register.want(id, Purpose::Apply, true);
    }

    /// A file went away, and may be there again. What is mounted there then can be another namespace
    /// though the inode is the same: the cookie tells at the next visit, on kernels that have it.
    fn was_gone(&mut self, path: &Path) {
        let Some(Slot::Netns(id)) = self.register.slot(path).cloned() else { return };
        let visited = |space: &Space| space.last.is_some() && space.cookie.is_none();
        if self.register.space(id).is_some_and(visited) {
            self.forget(path);
        } else {
            self.register.want(id, Purpose::Apply, true);
        }
    }

    fn forget(&mut self, path: &Path) {
        if let Some((id, space)) = self.register.forget(path) {
            self.leaving.remove(&id);
            visits::remove_ledger(&self.plan, id, space.cookie);
        }
        self.unpublish(path);
    }

    /// A CNI result names the namespace at a path.
    fn result_of(&mut self, path: &Path, now: Instant) {
        let Some(Slot::Netns(id)) = self.register.slot(path).cloned() else { return };
        let Some(space) = self.register.space_mut(id).filter(|space| !space.is_named()) else {
            return;
        };
        space.named_at.get_or_insert(now);
        self.register.want(id, Purpose::Apply, true);
    }

    async fn reconfigure(&mut self, config: Arc<Config>) -> Result<(), Failure> {
        let before = std::mem::replace(&mut self.config, config);
        self.plan =
            Arc::new(once::pod_plan(&self.config, &self.context.roots, self.context.place.kernel)?);
        self.context.node.update(|state| {
            if let Some(pods) = &mut state.pods {
                pods.per_pod_series = self.config.pod_namespaces.per_pod_series;
            }
        });
        if before.pod_namespaces != self.config.pod_namespaces {
            let spec = &self.config.pod_namespaces;
            self.sources = Sources::new(self.context.inotify.as_ref(), spec);
            let directories = spec.directories.clone();
            let elsewhere = self.register.paths().filter(|path| {
                !directories.iter().any(|directory| path.parent() == Some(directory))
            });
            let elsewhere: BTreeSet<PathBuf> = elsewhere.cloned().collect();
            self.leave(&elsewhere);
            self.relist(true);
        }
        self.reapply().await
    }

    /// Of namespaces that are found nowhere else the originals are put back before they are forgotten.
    fn leave(&mut self, elsewhere: &BTreeSet<PathBuf>) {
        self.leaving.clear();
        for path in elsewhere {
            let id = match self.register.slot(path) {
                Some(Slot::Netns(id)) => Some(*id),
                _ => None,
            };
            let space = id.and_then(|id| self.register.space(id));
            match (id, space) {
                (Some(id), Some(space)) if space.paths.iter().all(|it| elsewhere.contains(it)) => {
                    self.leaving.insert(id);
                }
                _ => {
                    self.register.forget(path);
                    self.unpublish(path);
                    if let Some(id) = id {
                        self.publish_space(id);
                    }
                }
            }
        }
    }

    fn start_visits(&mut self) {
        visits::start(self);
    }
}

async fn changed(events: Option<&MountEvents>) -> std::io::Result<()> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}
