//! Between the thread that reads notifications and whoever acts on them: bounded, since it holds
//! each file once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{FileId, Touch, Touches};
use crate::kernel::who::Who;

/// What nobody has taken yet.
#[derive(Default)]
pub(super) struct Mailbox {
    pending: Mutex<Pending>,
    arrived: Notify,
}

#[derive(Default)]
pub(super) struct Pending {
    pub(super) known: BTreeSet<FileId>,
    files: BTreeMap<FileId, Who>,
    overflow: bool,
}

impl Mailbox {
    pub(super) fn lock(&self) -> MutexGuard<'_, Pending> {
        // Every value behind this lock is written whole.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, file: FileId, who: Who) {
        let mut pending = self.lock();
        if pending.known.contains(&file) {
            pending.files.insert(file, who);
            drop(pending);
            self.arrived.notify_one();
        }
    }

    pub(super) fn put_overflow(&self) {
        self.lock().overflow = true;
        self.arrived.notify_one();
    }

    pub(super) fn forget(&self, file: FileId) {
        let mut pending = self.lock();
        pending.known.remove(&file);
        pending.files.remove(&file);
    }

    pub(super) async fn next(&self) -> Touches {
        loop {
            let touches = self.take();
            if touches != Touches::default() {
                return touches;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) fn take(&self) -> Touches {
        let mut pending = self.lock();
        let files = std::mem::take(&mut pending.files);
        Touches {
            files: files.into_iter().map(|(file, who)| Touch { file, who }).collect(),
            overflow: std::mem::take(&mut pending.overflow),
        }
    }
}
