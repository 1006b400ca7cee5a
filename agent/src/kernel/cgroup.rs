//! `/proc/<pid>/cgroup`: the systemd unit, or the pod and container, that a process is part of.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::escape;

/// Longest path shown, in bytes. A pod's within a kind node has about 330.
const LONGEST: usize = 512;

/// Where a process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// The path, escaped and cut.
    pub path: String,
    /// The systemd unit, escaped. A pod's containers have none.
    pub unit: Option<String>,
    /// The pod.
    pub pod: Option<Pod>,
}

/// A pod, as its cgroup names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its uid; of a static pod the hash that the kubelet uses as one.
    pub uid: String,
    /// The container's id in the runtime.
    pub container: Option<String>,
}

/// Reads the file: v1, v2 or both, a line for each hierarchy. Of these the one that says most,
/// because a process need not be at the same place in all of them. `None`: it has no line.
#[must_use]
pub fn parse(file: &[u8]) -> Option<Cgroup> {
    let mut best: Option<([bool; 5], Cgroup)> = None;
    for line in file.split(|&byte| byte == b'\n') {
        // hierarchy:controllers:path, where the path may hold colons
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let cgroup = place(path);
        let managed = controllers.is_empty() || controllers == b"name=systemd";
        let container = cgroup.pod.as_ref().is_some_and(|pod| pod.container.is_some());
        let says =
            [container, cgroup.pod.is_some(), cgroup.unit.is_some(), cgroup.path != "/", managed];
        if best.as_ref().is_none_or(|(most, _)| says > *most) {
            best = Some((says, cgroup));
        }
    }
    best.map(|(_, cgroup)| cgroup)
}

/// What a path says. It may begin with `/..`, as seen from another cgroup namespace.
#[must_use]
pub fn place(path: &[u8]) -> Cgroup {
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    let pod = pod(path);
    let unit = if pod.is_some() { None } else { unit(path) };
    let mut shown = escape(path.get(..LONGEST).unwrap_or(path));
    if path.len() > LONGEST {
        shown.push_str("...");
    }
    Cgroup { path: shown, unit, pod }
}

/// The first pod on the way, and the first container in it.
fn pod(path: &[u8]) -> Option<Pod> {
    // A colon where containerd has the cgroupfs driver and the kubelet the systemd one:
    // `kubepods-pod<uid>.slice:cri-containerd:<id>`.
    let mut segments = path.split(|byte| matches!(byte, b'/' | b':'));
    let uid = segments.by_ref().find_map(pod_uid)?;
    Some(Pod { uid, container: segments.find_map(container_id) })
}

/// `pod<uid>` (cgroupfs driver) or `kubepods-burstable-pod<uid>.slice` (systemd driver, which
/// writes `_` for `-`).
fn pod_uid(segment: &[u8]) -> Option<String> {
    let segment = std::str::from_utf8(segment).ok()?;
    let name = segment.strip_suffix(".slice").unwrap_or(segment);
    // No hexadecimal digit is a p.
    let (before, uid) = name.rsplit_once("pod")?;
    let uid = uid.replace('_', "-");
    ((before.is_empty() || before.ends_with('-')) && is_uid(&uid)).then_some(uid)
}

/// A UUID, or the 32 digits of a static pod's hash.
fn is_uid(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut parts = text.split('-');
    let uuid = [8, 4, 4, 4, 12]
        .iter()
        .all(|&length| parts.next().is_some_and(|part| part.len() == length && hex(part)))
        && parts.next().is_none();
    uuid || text.len() == 32 && hex(text)
}

/// `<id>`, `cri-containerd-<id>.scope`, `crio-<id>.scope`, `docker-<id>.scope`.
fn container_id(segment: &[u8]) -> Option<String> {
    let segment = std::str::from_utf8(segment).ok()?;
    let name = segment.strip_suffix(".scope").unwrap_or(segment);
    let id = name.rsplit('-').next()?;
    let digits = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (digits && (12..=64).contains(&id.len())).then(|| id.to_owned())
}

/// The system's unit, as systemd finds it (`cg_path_get_unit`): what follows the slices. Of a
/// user's own units that is `user@<uid>.service`.
fn unit(path: &[u8]) -> Option<String> {
    let mut segments = path.split(|&byte| byte == b'/');
    let first = segments.find(|segment| {
        !(segment.is_empty() || *segment == b".." || segment.ends_with(b".slice"))
    })?;
    // systemd puts `_` before a name that the kernel could take for a file of its own.
    let name = first.strip_prefix(b"_").unwrap_or(first);
    let suffixes: [&[u8]; 5] = [b".service", b".scope", b".socket", b".mount", b".swap"];
    suffixes
        .iter()
        .any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
        .then(|| escape(name))
}

#[cfg(test)]
#[path = "cgroup_tests.rs"]
mod tests;
