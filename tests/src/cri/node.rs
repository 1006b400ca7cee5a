//! A node of a test's own.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};

use crate::{HostLock, Mount, Namespace, private_mounts};

/// Three namespaces that are one machine to a container runtime:
///
/// - of network, so that no bridge, route or `ip_forward` of the host's is touched;
/// - of mounts, with an empty `/run` and `/var/lib` in memory (where `/run/netns`,
///   `/run/containerd`, `/var/lib/cni` and `/var/lib/containerd` are) and everything else as it is;
/// - of processes, whose first process ends with the test, however that ends, and all others with
///   it: containers, shims, the runtime.
///
/// The processes' mount namespace is another one, with a `/proc` of theirs; mounts below `/run`
/// reach [`Node::enter`]'s, as they reach a host's. So what is entered sees the pods' namespaces
/// and files, and the machine's `/proc`.
#[derive(Debug)]
pub struct Node {
    network: Namespace,
    mounts: OwnedFd,
    init: Child,
    shared: tempfile::TempDir,
}

impl Node {
    /// Makes one, where `sh` runs these lines first, with the path of [`Node::shared`] as `$1`;
    /// `fill` is given that path before.
    #[must_use]
    pub fn new(host: &HostLock, script: &str, fill: impl FnOnce(&Path)) -> Self {
        let (network, shared) = (Namespace::new(host), host.directory());
        fill(shared.path());
        network.ip(["link", "set", "lo", "up"]);
        // The shell is the first process: with it, all others are killed. The pipe's end tells it
        // that the test is over.
        let script = format!("{script}\nread -r line");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "unchanged", "--mount-proc"])
            .args(["--pid", "--fork", "--kill-child"])
            .args(["sh", "-c", &script, "sh"])
            .arg(shared.path())
            .stdin(Stdio::piped());
        let (mounts, init) = private_mounts(|| {
            mount(shared.path());
            let mounts = File::open("/proc/thread-self/ns/mnt").unwrap().into();
            let init = network.run(|| command.spawn());
            (mounts, init.unwrap_or_else(|error| panic!("unshare (util-linux): {error}")))
        });
        Self { network, mounts, init, shared }
    }

    /// Its network namespace.
    #[must_use]
    pub fn network(&self) -> &Namespace {
        &self.network
    }

    /// A directory that has the same path in the node and outside.
    #[must_use]
    pub fn shared(&self) -> &Path {
        self.shared.path()
    }

    /// Runs `work` on a thread with the node's network and mounts, and the machine's processes. A
    /// panic there is a panic here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.network.run(|| {
            // A file system context of the thread's own is what setns asks for.
            unshare(CloneFlags::CLONE_FS).unwrap();
            setns(&self.mounts, CloneFlags::CLONE_NEWNS).unwrap();
            work()
        })
    }

    /// Ends all its processes.
    pub(super) fn kill(&mut self) {
        drop(self.init.stdin.take());
        let _ = self.init.wait();
    }
}

/// Runs in the mount namespace that is to be the node's.
fn mount(shared: &Path) {
    let directory = File::open(shared).unwrap();
    Mount::file_system("tmpfs", "/run", "mode=755").share();
    Mount::file_system("tmpfs", "/var/lib", "mode=755").share();
    // As a `hostPath` of type DirectoryOrCreate makes them. Otherwise the first pod does, which an
    // agent may notice too late for that one.
    for directory in ["/run/netns", "/var/lib/cni/results"] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::create_dir_all(shared).unwrap();
    // By its descriptor, because its path leads to the new one.
    Mount::bind(format!("/proc/self/fd/{}", directory.as_raw_fd()), shared).share();
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
