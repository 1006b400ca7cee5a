//! Naming pods by the processes in their namespaces, where no CNI result does.

use std::collections::BTreeSet;
use std::future::pending;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::Run;
use crate::kernel::net_processes::{self, ProcessesError, Seen};
use crate::kernel::netns::NsId;
use crate::kernel::system;
use crate::pods::naming::by_processes;
use crate::pods::register::{Register, Space};

/// A CNI result comes sooner than this, and the first process later than this at times: then it is
/// looked for again.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Looking takes this part of the time at the most.
const SHARE: u32 = 2000;

/// What is seen of the processes, and what that took of the processor.
type Look = (Result<Seen, ProcessesError>, Duration);

/// When the processes are looked at.
pub(super) struct Naming {
    proc_root: PathBuf,
    due: Option<Instant>,
    pause: Duration,
    /// No look before this: what the last one took.
    rested_at: Instant,
    looking: Option<JoinHandle<Look>>,
    /// When the last look began: what appeared later may have the inode of one that was looked for.
    began: Instant,
}

impl Naming {
    pub(super) fn new(proc_root: &Path) -> Self {
        Self {
            proc_root: proc_root.to_owned(),
            due: None,
            pause: FIRST,
            rested_at: Instant::now(),
            looking: None,
            began: Instant::now(),
        }
    }

    /// There is a namespace that no result names.
    pub(super) fn want(&mut self) {
        if self.looking.is_none() {
            self.pause = FIRST;
            let soon = (Instant::now() + FIRST).max(self.rested_at);
            self.due = Some(self.due.map_or(soon, |due| due.min(soon)));
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Begins a look, if one is due and there is something to look for.
    pub(super) fn start(&mut self, register: &Register, now: Instant) {
        if self.due.is_none_or(|due| due > now) || self.looking.is_some() {
            return;
        }
        self.due = None;
        let unnamed = register.spaces().filter(|(_, space)| space.pod.is_none());
        let wanted: BTreeSet<NsId> = unnamed.map(|(id, _)| *id).collect();
        if wanted.is_empty() {
            return;
        }
        self.began = now;
        let proc_root = self.proc_root.clone();
        self.looking = Some(tokio::task::spawn_blocking(move || {
            let before = system::thread_cpu_time();
            let seen = net_processes::look(&proc_root, &wanted);
            (seen, system::thread_cpu_time().saturating_sub(before))
        }));
    }

    /// What a look showed; waits until one ends.
    pub(super) async fn seen(&mut self) -> Result<Seen, ProcessesError> {
        let Some(looking) = &mut self.looking else { return pending().await };
        let looked = looking.await;
        self.looking = None;
        // A bug there costs the names alone.
        let (seen, cost) = looked.unwrap_or_else(|_| (Ok(Seen::default()), Duration::ZERO));
        self.rested_at = Instant::now() + cost * SHARE;
        self.due = Some((Instant::now() + self.pause).max(self.rested_at));
        self.pause = (self.pause * 2).min(LONGEST);
        seen
    }
}

impl Run {
    /// Takes in what the processes tell.
    pub(super) fn name_by(&mut self, seen: &Result<Seen, ProcessesError>) {
        let named = |space: &Space| space.is_named();
        let taken: BTreeSet<String> = self
            .register
            .spaces()
            .filter(|(_, space)| named(space))
            .filter_map(|(_, space)| space.pod.as_ref()?.uid.clone())
            .collect();
        let unnamed = self.register.spaces().filter(|(_, space)| space.pod.is_none());
        let unnamed: Vec<NsId> = unnamed.map(|(id, _)| *id).collect();
        if unnamed.is_empty() {
            self.naming.due = None;
        }
        for id in unnamed {
            let told = match seen {
                // Here and there one may be out of reach, such as a sandbox's init.
                Ok(seen) if seen.refused <= seen.looked_at => {
                    by_processes(seen.pods.get(&id), 0, &taken)
                }
                Ok(seen) => by_processes(seen.pods.get(&id), seen.refused, &taken),
                Err(error) => Err(error.to_string()),
            };
            let began = self.naming.began;
            let Some(space) = self.register.space_mut(id).filter(|it| it.appeared < began) else {
                continue;
            };
            match told {
                Ok(pod) => space.pod = Some(pod.into()),
                Err(why) => space.unnamed = Some(format!("no CNI result names it; {why}")),
            }
            self.publish_space(id);
        }
    }
}
