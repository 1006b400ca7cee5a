//! Whose a namespace is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::cni::CniResult;
use super::state::{Identity, IdentityFrom};
use crate::kernel::cgroup::Pod;
use crate::kernel::name::escape;

/// Why it is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unnamed {
    /// No result names it.
    #[error("no CNI result names its path")]
    NoResult,
    /// The results are of a namespace that was there before, or their addresses are not set yet.
    #[error("no address of the CNI result is in the namespace")]
    NoAddress,
    /// They contradict each other.
    #[error("CNI results name different pods for it")]
    Contradiction,
    /// The results know no pod: nothing of Kubernetes asked for the network.
    #[error("the CNI result names no pod")]
    NoPod,
}

/// `/var/run` is a link to `/run` (Filesystem Hierarchy Standard 3.0, 5.13), and runtimes write
/// either.
#[must_use]
pub fn normalize(path: &Path) -> PathBuf {
    match path.strip_prefix("/var/run") {
        Ok(rest) => Path::new("/run").join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Whose a namespace is by CNI results: one counts that names a path of the namespace and has an
/// address that really is there.
pub fn by_result(
    paths: &[PathBuf],
    addresses: &[IpAddr],
    results: &[&CniResult],
) -> Result<Identity, Unnamed> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| normalize(path)).collect();
    let names = |result: &&&CniResult| {
        result.sandboxes.iter().any(|sandbox| paths.contains(&normalize(sandbox)))
    };
    let named: Vec<&CniResult> = results.iter().filter(names).copied().collect();
    if named.is_empty() {
        return Err(Unnamed::NoResult);
    }
    let proven = named
        .into_iter()
        .filter(|result| result.addresses.iter().any(|address| addresses.contains(address)));
    let mut identities = proven.map(identity);
    let first = identities.next().ok_or(Unnamed::NoAddress)?;
    if identities.any(|other| other != first) {
        return Err(Unnamed::Contradiction);
    }
    if first.names().is_none() && first.uid.is_none() {
        return Err(Unnamed::NoPod);
    }
    Ok(first)
}

/// Whose a namespace is by the cgroups of the processes in it, `None` if there are none: all that
/// are in a pod must be in the same. `taken`: uids of pods whose namespaces are known.
pub fn by_processes(
    pods: Option<&Vec<Pod>>,
    refused: usize,
    taken: &BTreeSet<String>,
) -> Result<Identity, String> {
    let Some(first) = pods.and_then(|pods| pods.first()) else {
        return Err(match (pods, refused) {
            (Some(_), _) => "no process in it is in a pod's cgroup".to_owned(),
            (None, 0) => "no process is in it".to_owned(),
            (None, refused) => format!(
                "no process is seen in it, and {refused} may not be looked at: CAP_SYS_PTRACE is \
                 needed"
            ),
        });
    };
    let pods = pods.into_iter().flatten();
    if pods.clone().any(|pod| pod.uid != first.uid) {
        return Err("processes of different pods are in it".to_owned());
    }
    if taken.contains(&first.uid) {
        return Err(format!("its processes are of pod {}, which has another one", first.uid));
    }
    let mut containers = pods.map(|pod| &pod.container);
    let one = containers.next().filter(|one| containers.all(|other| other == *one));
    Ok(Identity {
        uid: Some(escape(first.uid.as_bytes())),
        container: one.cloned().flatten(),
        from: IdentityFrom::Process,
        ..Identity::default()
    })
}

fn identity(result: &CniResult) -> Identity {
    let escaped = |text: &Option<String>| text.as_ref().map(|text| escape(text.as_bytes()));
    Identity {
        namespace: escaped(&result.namespace),
        name: escaped(&result.name),
        uid: escaped(&result.uid),
        container: (!result.container.is_empty()).then(|| escape(result.container.as_bytes())),
        from: IdentityFrom::CniCache,
    }
}

#[cfg(test)]
#[path = "naming_tests.rs"]
mod tests;
