//! Putting the originals of pods' keys back, where no agent runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::apply::Plan;
use crate::config::Config;
use crate::kernel::name::escape;
use crate::kernel::netns::{self, Netns, NsId};
use crate::kernel::nsfs::{self, Found};
use crate::kernel::{node_file, state_dir};
use crate::sysctl::engine::Engine;
use crate::sysctl::ledger::Ledger;
use crate::sysctl::place::{Net, Place};
use crate::sysctl::restore::Restored;

/// Files looked at in a directory.
const MOST: usize = 20_000;

/// What was put back in one namespace.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestoredPod {
    /// Where the namespace is, escaped.
    pub path: String,
    /// Key by key.
    pub keys: Vec<Restored>,
    /// Why nothing could be done there.
    pub error: Option<String>,
}

/// Puts back what is on record of every namespace that is found.
#[must_use]
pub fn restore(config: &Config, proc_root: &Path, plan: &Plan) -> Vec<RestoredPod> {
    let on_record: BTreeSet<PathBuf> = state_dir::files(&plan.ledgers).into_iter().collect();
    let hosts = netns::hosts(proc_root);
    let mut seen: BTreeSet<NsId> = BTreeSet::new();
    let mut restored = Vec::new();
    if on_record.is_empty() {
        return restored;
    }
    for directory in &config.pod_namespaces.directories {
        let names = node_file::list(directory, MOST).unwrap_or_default().names;
        for path in names.iter().map(|name| directory.join(name)) {
            let Ok(Found::Netns(fd, id)) = nsfs::find(proc_root, &path) else { continue };
            let prefix = format!("{}-", id.ino);
            let recorded = |ledger: &PathBuf| {
                ledger.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            };
            if hosts.contains(&id) || !seen.insert(id) || !on_record.iter().any(recorded) {
                continue;
            }
            let visit = || in_namespace(proc_root, fd, id, plan, &on_record);
            let visited = std::thread::scope(|scope| scope.spawn(visit).join());
            let result = visited.unwrap_or_else(|_| Err("it panicked: this is a bug".to_owned()));
            let path = escape(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()));
            match result {
                Ok(keys) if keys.is_empty() => {}
                Ok(keys) => restored.push(RestoredPod { path, keys, error: None }),
                Err(error) => {
                    let error = Some(error);
                    restored.push(RestoredPod { path, error, ..RestoredPod::default() });
                }
            }
        }
    }
    restored
}

/// On a thread of its own, which ends there.
fn in_namespace(
    proc_root: &Path,
    fd: std::os::fd::OwnedFd,
    id: NsId,
    plan: &Plan,
    on_record: &BTreeSet<PathBuf>,
) -> Result<Vec<Restored>, String> {
    netns::enter(proc_root, fd, id).map_err(|error| error.to_string())?;
    if netns::is_in_initial(proc_root) {
        return Ok(Vec::new());
    }
    let cookie = nsfs::cookie().map_err(|errno| errno.desc().to_owned())?;
    let path = plan.ledger(id.ino, cookie);
    if !on_record.contains(&path) {
        return Ok(Vec::new());
    }
    let (ledger, notice) = Ledger::at(path.clone(), &plan.boot);
    if let Some(notice) = notice {
        return Err(notice.to_string());
    }
    let place = Place { net: Net::Given, ipc: false, pid: false, uts: false, kernel: plan.kernel };
    let mut engine = Engine::new(place, plan.tree.clone(), Netns::Own, false, ledger).quietly();
    let restored = engine.restore(|_| true).map_err(|error| error.to_string())?;
    if engine.ledger().is_empty() {
        state_dir::remove(&path).map_err(|error| error.to_string())?;
    }
    Ok(restored)
}
