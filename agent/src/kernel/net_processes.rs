//! The processes in network namespaces, and the pods that they are part of.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::cgroup::{self, Pod};
use super::netns::{self, Kind, NsId};

/// What was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// For each wanted namespace in which there are processes, the pods of those that are in one.
    pub pods: BTreeMap<NsId, Vec<Pod>>,
    /// Processes whose namespaces were seen.
    pub looked_at: usize,
    /// Processes whose namespaces may not be seen: CAP_SYS_PTRACE is missing.
    pub refused: usize,
}

/// Why nothing can be seen.
#[derive(Debug, thiserror::Error)]
pub enum ProcessesError {
    /// Only processes of this container would be seen.
    #[error("the host's processes are not seen: hostPID: true is needed")]
    OwnPidNamespace,
    /// The proc file system cannot be read.
    #[error("the processes cannot be listed: {0}")]
    Proc(#[from] io::Error),
}

/// Looks at every process once, and enters nothing. A process of the host in a pod's cgroup is not
/// in the pod's namespace, and so is not seen here; one that is in the namespace and in no pod's
/// cgroup says nothing.
pub fn look(proc_root: &Path, wanted: &BTreeSet<NsId>) -> Result<Seen, ProcessesError> {
    if !netns::is_initial(proc_root, Kind::Pid) {
        return Err(ProcessesError::OwnPidNamespace);
    }
    let mut seen = Seen::default();
    for entry in fs::read_dir(proc_root)? {
        let entry = entry?;
        let is_process = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
        if !entry.file_name().to_str().is_some_and(is_process) {
            continue;
        }
        let process = entry.path();
        match netns_of(&process) {
            Ok(id) if wanted.contains(&id) => {
                seen.looked_at += 1;
                let pods = seen.pods.entry(id).or_default();
                pods.extend(pod_of(&process, id));
            }
            // EACCES is also the answer of one that has just ended (`proc_ns_get_link`).
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                seen.refused += usize::from(process.exists());
            }
            Ok(_) => seen.looked_at += 1,
            // It ended.
            Err(_) => {}
        }
    }
    Ok(seen)
}

fn netns_of(process: &Path) -> io::Result<NsId> {
    let meta = fs::metadata(process.join("ns/net"))?;
    Ok(NsId { dev: meta.dev(), ino: meta.ino() })
}

/// The process can end in between, and its id be another's: the namespace is looked at again.
fn pod_of(process: &Path, id: NsId) -> Option<Pod> {
    let file = fs::read(process.join("cgroup")).ok()?;
    let pod = cgroup::parse(&file)?.pod?;
    netns_of(process).is_ok_and(|now| now == id).then_some(pod)
}
