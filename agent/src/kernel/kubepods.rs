//! The kubelet's cgroups: `kubepods`, a cgroup for each pod below it, and how many pids are in them.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup;
use super::errno::{Access, FileError, of_io};

/// `kubepods` is looked for so many levels down: a node in a container, seen from its host, is at
/// `/system.slice/docker-<id>.scope/kubelet.slice/kubelet-kubepods.slice`.
const DEEPEST: usize = 4;
/// Cgroups that are looked at for that.
const MOST_LOOKED_AT: usize = 4000;
/// Pods beyond these are not looked at.
const MOST_PODS: usize = 10_000;
/// Cgroups below a pod's for which refused forks are summed.
const MOST_BELOW: usize = 1000;

/// Where the host's cgroup file systems are: beneath `/host` where a container has them mounted there.
#[must_use]
pub fn cgroup_root(sys_root: &Path) -> PathBuf {
    let host = PathBuf::from("/host/sys/fs/cgroup");
    if host.is_dir() { host } else { sys_root.join("fs/cgroup") }
}

/// A pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodCgroup {
    /// The pod's uid: hexadecimal digits and dashes.
    pub uid: String,
    /// Where it is.
    pub path: PathBuf,
}

/// The pods that the kubelet runs, of any QoS class: those with a cgroup below `kubepods`.
/// `cgroup_root` is where the cgroup file systems are, usually `/sys/fs/cgroup`. `None`: no `kubepods`
/// is seen there.
pub fn pod_cgroups(cgroup_root: &Path) -> Result<Option<Vec<PodCgroup>>, FileError> {
    find(&hierarchy(cgroup_root)).map(|kubepods| pods(&kubepods)).transpose()
}

/// The hierarchy with the pids controller: the only one of cgroup v2, or v1's `pids`.
#[must_use]
pub fn hierarchy(cgroup_root: &Path) -> PathBuf {
    let v1 = cgroup_root.join("pids");
    if v1.join("cgroup.procs").exists() { v1 } else { cgroup_root.to_owned() }
}

/// The uppermost `kubepods` (cgroupfs driver) or `kubepods.slice` (systemd driver) in a hierarchy,
/// also below a `cgroupRoot` of the kubelet's configuration.
#[must_use]
pub fn find(hierarchy: &Path) -> Option<PathBuf> {
    let mut queue = VecDeque::from([(hierarchy.to_owned(), 0)]);
    let mut looked_at = 0;
    while let Some((path, depth)) = queue.pop_front() {
        // What ends while it is looked at has nothing.
        let below = children(&path).unwrap_or_default();
        if let Some(found) = below.iter().find(|path| is_kubepods(path)) {
            return Some(found.clone());
        }
        looked_at += below.len();
        if looked_at > MOST_LOOKED_AT {
            return None;
        }
        if depth + 1 < DEEPEST {
            queue.extend(below.into_iter().map(|path| (path, depth + 1)));
        }
    }
    None
}

fn is_kubepods(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".slice").unwrap_or(name);
    name.strip_suffix("kubepods").is_some_and(|before| before.is_empty() || before.ends_with('-'))
}

/// The pods below a `kubepods`: Guaranteed ones right there, those of the other QoS classes one level
/// below.
pub fn pods(kubepods: &Path) -> Result<Vec<PodCgroup>, FileError> {
    let mut found = Vec::new();
    for path in children(kubepods)? {
        match pod(path) {
            Ok(pod) => found.push(pod),
            Err(class) => {
                let below = children(&class).unwrap_or_default();
                found.extend(below.into_iter().filter_map(|path| pod(path).ok()));
            }
        }
        if found.len() >= MOST_PODS {
            break;
        }
    }
    Ok(found)
}

/// A pod, or the path back.
fn pod(path: PathBuf) -> Result<PodCgroup, PathBuf> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = path.file_name().map(|name| name.as_bytes()).unwrap_or_default();
    match cgroup::place(name).pod {
        Some(pod) => Ok(PodCgroup { uid: pod.uid, path }),
        None => Err(path),
    }
}

/// Pids (processes and threads) in a cgroup and all below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pids {
    /// `pids.current`.
    pub current: u64,
    /// `pids.max`.
    pub max: u64,
}

/// A cgroup's pids against its limit. `None`: it has no limit of its own, no such controller, or is
/// gone.
pub fn pids(cgroup: &Path) -> Result<Option<Pids>, FileError> {
    let Some(max) = number(&cgroup.join("pids.max"))? else { return Ok(None) };
    Ok(current(cgroup)?.map(|current| Pids { current, max }))
}

/// Pids in a cgroup and all below it. `None`: there is no such controller, or it is gone.
pub fn current(cgroup: &Path) -> Result<Option<u64>, FileError> {
    number(&cgroup.join("pids.current"))
}

/// How many forks were refused because of this cgroup's own limit, where the kernel tells that: since
/// Linux 6.11, on cgroup v2 (`pids.events.local`).
pub fn refused(cgroup: &Path) -> Result<Option<u64>, FileError> {
    events(&cgroup.join("pids.events.local"))
}

/// How many forks were refused in a cgroup and those below it. Where [`refused`] does not tell, a
/// refusal is counted where the fork was tried, and it may have been for the limit of any cgroup above.
pub fn refused_below(cgroup: &Path) -> Result<u64, FileError> {
    let (mut sum, mut looked_at) = (0, 0);
    let mut queue = vec![cgroup.to_owned()];
    while let Some(path) = queue.pop() {
        looked_at += 1;
        if looked_at > MOST_BELOW {
            break;
        }
        sum += events(&path.join("pids.events"))?.unwrap_or(0);
        queue.extend(children(&path).unwrap_or_default());
    }
    Ok(sum)
}

fn events(path: &Path) -> Result<Option<u64>, FileError> {
    Ok(text(path)?.and_then(|text| max_event(&text)))
}

/// The number in the line `max <number>`.
fn max_event(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("max ")).and_then(|number| number.parse().ok())
}

/// `None`: `max`, or no such file.
fn number(path: &Path) -> Result<Option<u64>, FileError> {
    Ok(text(path)?.and_then(|text| text.trim_ascii_end().parse().ok()))
}

/// `None`: there is no such file, or the cgroup is gone (ENODEV).
fn text(path: &Path) -> Result<Option<String>, FileError> {
    use nix::errno::Errno;
    match fs::read_to_string(path).map_err(|error| of_io(&error)) {
        Ok(text) => Ok(Some(text)),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(None),
        Err(errno) => Err(FileError::new(Access::Read, path, errno)),
    }
}

/// The cgroups right below one. Links are none: v1 has some beside its hierarchies.
fn children(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    let fail = |error: &std::io::Error| FileError::new(Access::Read, path, of_io(error));
    let entries = fs::read_dir(path).map_err(|error| fail(&error))?.map_while(Result::ok);
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = directories.map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UID: &str = "0f1c2d3e-4a5b-4c6d-8e7f-90a1b2c3d4e5";

    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            let path = path.replace("UNDERSCORED", &UID.replace('-', "_")).replace("UID", UID);
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        root
    }

    #[test]
    fn kubepods_is_found_by_every_driver() {
        for (path, found) in [
            ("kubepods/burstable/podUID/x", "kubepods"),
            ("kubepods.slice/kubepods-podUNDERSCORED.slice", "kubepods.slice"),
            ("system.slice/k3s.service/kubepods/podUID", "system.slice/k3s.service/kubepods"),
            (
                "a.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podUNDERSCORED.slice",
                "a.slice/docker-1.scope/kubelet.slice/kubelet-kubepods.slice",
            ),
        ] {
            let root = tree(&[path, "system.slice/other.service", "notkubepods"]);
            assert_eq!(find(root.path()), Some(root.path().join(found)), "{path}");
            let pods = pod_cgroups(root.path()).unwrap().unwrap();
            assert_eq!(pods.len(), 1, "{path}");
            assert_eq!(pods[0].uid, UID);
        }
        let none = tree(&["system.slice/x.service", "a/b/c/d/kubepods"]);
        assert_eq!(find(none.path()), None);
        assert_eq!(pod_cgroups(none.path()).unwrap(), None);
    }

    #[test]
    fn v1_is_told_from_v2() {
        let root = tree(&["pids", "memory"]);
        assert_eq!(hierarchy(root.path()), root.path());
        fs::write(root.path().join("pids/cgroup.procs"), "").unwrap();
        assert_eq!(hierarchy(root.path()), root.path().join("pids"));
    }

    #[test]
    fn no_limit_is_none_and_what_is_missing_is_none() {
        let root = tree(&["pod"]);
        let pod = root.path().join("pod");
        assert_eq!(pids(&pod).unwrap(), None);
        fs::write(pod.join("pids.current"), "3\n").unwrap();
        fs::write(pod.join("pids.max"), "max\n").unwrap();
        assert_eq!(pids(&pod).unwrap(), None);
        fs::write(pod.join("pids.max"), "5\n").unwrap();
        assert_eq!(pids(&pod).unwrap(), Some(Pids { current: 3, max: 5 }));
        assert_eq!((refused(&pod).unwrap(), refused_below(&pod).unwrap()), (None, 0));
        fs::write(pod.join("pids.events"), "max 7\n").unwrap();
        assert_eq!(refused_below(&pod).unwrap(), 7);
        fs::write(pod.join("pids.events.local"), "max 2\n").unwrap();
        assert_eq!(refused(&pod).unwrap(), Some(2));
    }

    proptest! {
        #[test]
        fn the_event_is_the_line_of_its_name(before in "([a-z_]{1,9} [0-9]{1,3}\n){0,3}", count: u64) {
            prop_assume!(!before.lines().any(|line| line.starts_with("max ")));
            prop_assert_eq!(max_event(&format!("{before}max {count}\n")), Some(count));
            prop_assert_eq!(max_event(&before), None);
        }
    }
}
