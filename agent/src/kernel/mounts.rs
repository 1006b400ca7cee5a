//! Mounts: files that are mounted by themselves, how mounts of others arrive here, and when.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::path::Path;

use procfs::process::{MountInfo, MountOptFields};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::errno::{Access, FileError, of_io};
use super::name::Name;

/// The mount whose mount point is this very file, links followed: which part of its file system
/// it shows. `None`: the file is no mount point.
pub fn root_at(proc_root: &Path, file: &Path) -> Result<Option<Name>, FileError> {
    let file = fs::canonicalize(file)
        .map_err(|error| FileError::new(Access::Open, file, of_io(&error)))?;
    let path = proc_root.join("self/mountinfo");
    let text =
        fs::read(&path).map_err(|error| FileError::new(Access::Read, path, of_io(&error)))?;
    Ok(root_in(&text, &file))
}

/// The same from the text of `mountinfo` (`proc_pid_mountinfo(5)`). Where several are mounted on
/// one another, the last line is the one that is seen.
#[must_use]
pub fn root_in(mountinfo: &[u8], mount_point: &Path) -> Option<Name> {
    let mount_point = as_shown(mount_point)?;
    let lines = mountinfo.split(|byte| *byte == b'\n');
    // A line that is not UTF-8 is about another path: this one is.
    let mut mounts = lines.filter_map(|line| MountInfo::from_line(str::from_utf8(line).ok()?).ok());
    let last = mounts.rfind(|mount| mount.mount_point == Path::new(&mount_point))?;
    Some(Name::from_bytes(last.root))
}

/// Whether what others mount below a directory is seen here too: whether the mount that the
/// directory is on receives events (`mount_namespaces(7)`: `shared:` or `master:`). `None` where it
/// cannot be told.
#[must_use]
pub fn receives(proc_root: &Path, directory: &Path) -> Option<bool> {
    let directory = fs::canonicalize(directory).ok()?;
    let text = fs::read(proc_root.join("self/mountinfo")).ok()?;
    receives_in(&text, &directory)
}

fn receives_in(mountinfo: &[u8], directory: &Path) -> Option<bool> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let mounts = lines.filter_map(|line| MountInfo::from_line(str::from_utf8(line).ok()?).ok());
    // The deepest one, and of several on one another the last.
    let above = mounts.filter(|mount| directory.starts_with(&mount.mount_point));
    let on = above.max_by_key(|mount| mount.mount_point.components().count())?;
    let receiving = |field: &MountOptFields| {
        matches!(field, MountOptFields::Shared(_) | MountOptFields::Master(_))
    };
    Some(on.opt_fields.iter().any(receiving))
}

/// The mounts of a mount namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// All that its root leads to.
    pub all: u64,
    /// Those that a kubelet or a container runtime makes for pods.
    pub of_pods: u64,
}

/// Counts the mounts that a `mountinfo` file tells, which is read piece by piece: it has some 370 kB
/// on a node with 1000 pods.
pub fn count(mountinfo: &Path) -> Result<Mounts, FileError> {
    let fail = |access, error: &std::io::Error| FileError::new(access, mountinfo, of_io(error));
    let file = File::open(mountinfo).map_err(|error| fail(Access::Open, &error))?;
    let mut lines = BufReader::with_capacity(16 << 10, file);
    let (mut mounts, mut line) = (Mounts::default(), Vec::new());
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).map_err(|error| fail(Access::Read, &error))? == 0 {
            return Ok(mounts);
        }
        mounts.all += 1;
        mounts.of_pods += u64::from(is_of_pod(&line));
    }
}

/// Whether a line is of a mount for a pod, by its mount point: the fifth field (`proc_pid_mountinfo(5)`).
#[must_use]
pub fn is_of_pod(line: &[u8]) -> bool {
    // The kubelet's volumes; containerd's shm and root file systems; CRI-O's; pods' namespaces.
    const PLACES: [&[u8]; 6] = [
        b"/kubelet/pods/",
        b"/io.containerd.grpc.v1.cri/",
        b"/io.containerd.runtime.v2.task/k8s.io/",
        b"/overlay-containers/",
        b"/containers/storage/overlay/",
        b"/netns/",
    ];
    let point = line.split(|byte| *byte == b' ').nth(4).unwrap_or_default();
    PLACES.iter().any(|place| point.windows(place.len()).any(|part| part == *place))
}

/// Tells when anything was mounted or unmounted in this mount namespace.
pub struct MountEvents(AsyncFd<OwnedFd>);

impl MountEvents {
    /// Begins to listen. Needs a tokio runtime.
    #[allow(unsafe_code)]
    pub fn new(proc_root: &Path) -> std::io::Result<Self> {
        let file = File::open(proc_root.join("self/mountinfo"))?;
        // SAFETY: the descriptor is owned, and neither closed nor replaced while it is registered.
        let fd = unsafe { AsyncFd::register_with_interest(file.into(), Interest::PRIORITY) };
        Ok(Self(fd?))
    }

    /// Waits for the next change since the last call (`proc_pid_mounts(5)`: POLLPRI).
    pub async fn next(&self) -> std::io::Result<()> {
        self.0.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }
}

/// The kernel writes these four as octal (`show_mountinfo`).
fn as_shown(path: &Path) -> Option<String> {
    let shown = path.to_str()?.chars().map(|char| match char {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(char)),
        other => other.to_string(),
    });
    Some(shown.collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"\
22 28 0:20 / /proc rw,nosuid - proc proc rw
30 28 259:1 /a /etc/headroom ro - ext4 /dev/root rw
31 30 259:1 /var/x/config.yaml /etc/headroom/config.yaml ro - ext4 /dev/root rw
32 30 259:1 /var/\xff /etc/\xff ro - ext4 /dev/root rw
33 30 259:1 /var/y /etc/with\\040a\\134space ro master:1 - ext4 /dev/root rw
34 31 259:1 /var/kubelet/volume-subpaths/c/h/0 /etc/headroom/config.yaml ro - ext4 /dev/root rw
broken
";

    #[test]
    fn the_mount_that_is_seen_is_found() {
        let root = |path: &str| root_in(MOUNTINFO, Path::new(path)).map(|root| root.to_string());
        let of = |text: &str| Some(text.to_owned());
        assert_eq!(root("/etc/headroom/config.yaml"), of("/var/kubelet/volume-subpaths/c/h/0"));
        assert_eq!(root("/etc/with a\\space"), of("/var/y"));
        assert_eq!(root("/etc/headroom/other.yaml"), None);
        assert_eq!(root("/etc"), None);
        assert_eq!(root_in(b"", Path::new("/etc")), None);
    }

    #[test]
    fn mounts_are_counted_and_pods_are_told_by_their_mount_points() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mountinfo");
        std::fs::write(&path, MOUNTINFO).unwrap();
        assert_eq!(count(&path), Ok(Mounts { all: 7, of_pods: 0 }), "kubelet/... is only the root");
        std::fs::write(&path, b"").unwrap();
        assert_eq!(count(&path), Ok(Mounts::default()));
        assert!(count(&directory.path().join("none")).is_err());
        for (of_pod, point) in [
            (true, "/var/lib/kubelet/pods/0f1c/volumes/kubernetes.io~secret/x"),
            (true, "/run/containerd/io.containerd.grpc.v1.cri/sandboxes/1/shm"),
            (true, "/run/containerd/io.containerd.runtime.v2.task/k8s.io/1/rootfs"),
            (true, "/run/netns/cni-1"),
            (false, "/run/netns"),
            (false, "/run/containerd/io.containerd.runtime.v2.task/moby/1/rootfs"),
            (false, "/var/lib/kubelet"),
        ] {
            let line =
                format!("31 30 259:1 /var/lib/kubelet/pods/x {point} ro - ext4 /run/netns/x rw");
            assert_eq!(is_of_pod(line.as_bytes()), of_pod, "{point}");
        }
        assert!(!is_of_pod(b"") && !is_of_pod(b"a b c d"));
    }

    #[test]
    fn a_mount_that_receives_events_is_told_from_one_that_does_not() {
        let text = b"\
22 28 0:20 / / rw shared:1 - ext4 /dev/root rw
30 22 0:21 / /run rw - tmpfs tmpfs rw
31 30 0:21 /netns /run/netns rw master:7 - tmpfs tmpfs rw
";
        let receives = |path: &str| receives_in(text, Path::new(path));
        assert_eq!(receives("/run/netns"), Some(true));
        assert_eq!(receives("/run/netns-of-others"), Some(false));
        assert_eq!(receives("/run"), Some(false));
        assert_eq!(receives("/var/lib"), Some(true));
        assert_eq!(receives_in(b"", Path::new("/")), None);
    }
}
