//! The picture of pods' namespaces, kept up to date one by one.

use std::path::Path;
use std::time::{Duration, Instant};

use tracing::warn;

use super::{MISSING_AFTER, Pods, Run, Slot, mounts, netns};
use crate::kernel::netns::NsId;
use crate::pods::register::Space;
use crate::pods::state::{PodNamespace, PodState};

/// Name of the notice in [`crate::node::NodeState::notices`].
const NOTICE: &str = "pods";

impl Run {
    pub(super) fn reset_picture(&self) {
        let per_pod_series = self.config.pod_namespaces.per_pod_series;
        self.context.node.update(|state| {
            // Counters outlive a failure of the task.
            let before = state.pods.take().unwrap_or_default();
            let namespaces = Default::default();
            state.pods = Some(Pods { namespaces, per_pod_series, unknown: false, ..before });
            state.collected("pods", None, Duration::ZERO);
        });
    }

    /// Shows what is at a path. A namespace is shown at the path it was first found at.
    pub(super) fn publish(&self, path: &Path) {
        let shown = match self.register.slot(path) {
            None => return self.unpublish(path),
            Some(Slot::Netns(id)) => match self.register.space(*id) {
                Some(space) if space.paths.first().is_some_and(|first| first == path) => {
                    of_space(*id, space)
                }
                _ => return self.unpublish(path),
            },
            Some(Slot::Waiting { since, late, .. }) => {
                let waited = Instant::now().saturating_duration_since(*since);
                let missing = waited >= MISSING_AFTER;
                let shown = match missing.then(|| self.not_mounted(path)) {
                    Some((state, detail)) => nothing(path, state, Some(detail)),
                    None => nothing(path, PodState::Found, None),
                };
                PodNamespace { late: *late, ..shown }
            }
            Some(Slot::Skipped(state, why)) => nothing(path, *state, Some(why.clone())),
        };
        self.context.node.update(|state| {
            if let Some(pods) = &mut state.pods {
                pods.namespaces.insert(shown.path.clone(), shown);
            }
        });
    }

    pub(super) fn publish_space(&self, id: NsId) {
        if let Some(path) = self.register.space(id).and_then(|space| space.paths.first()) {
            self.publish(path);
        }
    }

    pub(super) fn unpublish(&self, path: &Path) {
        self.context.node.update(|state| {
            if let Some(pods) = &mut state.pods {
                pods.namespaces.remove(shown(path).as_str());
            }
        });
    }

    fn not_mounted(&self, path: &Path) -> (PodState, String) {
        let directory = path.parent().unwrap_or(path);
        let proc_root = &self.context.roots.proc;
        match mounts::receives(proc_root, directory) {
            Some(false) if !netns::shares_mounts_with_init(proc_root) => {
                let why = format!(
                    "no namespace is mounted there as far as the agent can see: mountPropagation: \
                 HostToContainer is missing on the mount of {}, or the file was left over",
                    shown(directory)
                );
                (PodState::SkippedNotMounted, why)
            }
            _ => {
                let why = "no namespace is mounted there: a file that was left over";
                (PodState::SkippedNotNetns, why.to_owned())
            }
        }
    }

    /// Says what is in the way of all pods at once.
    pub(super) fn say_trouble(&self) {
        let mut troubles: Vec<String> = Vec::new();
        troubles.extend(self.unmeasured.iter().map(|(why, _)| {
            format!("pods' namespaces: what a new one has cannot be measured: {why}")
        }));
        troubles.extend(self.sources.troubles().map(|why| format!("pods' namespaces: {why}")));
        let notice = (!troubles.is_empty()).then(|| troubles.join("; "));
        if let Some(Some(notice)) = self.context.node.notice(NOTICE, notice) {
            warn!("{notice}");
        }
    }
}

fn of_space(id: NsId, space: &Space) -> PodNamespace {
    let mut paths = space.paths.iter().map(|path| shown(path));
    let last = space.last.as_ref();
    PodNamespace {
        path: paths.next().unwrap_or_default().into(),
        also: paths.collect(),
        inode: Some(id.ino),
        state: last.map_or(PodState::Found, |last| last.state),
        detail: last.and_then(|last| last.detail.clone()),
        pod: space.pod.clone(),
        unnamed: space.unnamed.clone().filter(|_| space.pod.is_none()),
        late: space.late,
        keys: last.map(|last| last.keys.clone()).unwrap_or_else(|| [].into()),
    }
}

fn nothing(path: &Path, state: PodState, detail: Option<String>) -> PodNamespace {
    PodNamespace {
        path: shown(path).into(),
        also: Vec::new(),
        inode: None,
        state,
        detail,
        pod: None,
        unnamed: None,
        late: false,
        keys: [].into(),
    }
}

/// A path, escaped.
pub(super) fn shown(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    crate::kernel::name::escape(path.as_os_str().as_bytes())
}
