//! Pods' network namespaces as a container runtime keeps them, and libcni's results, in
//! directories of a test's own.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::sched::{CloneFlags, setns, unshare};

use serde_json::Value;

use super::host::HostLock;
use super::mount::{self, Mount};
use crate::agent_process::Agent;

/// The directories. All that was made in them is gone when this is dropped.
#[derive(Debug)]
pub struct Pods {
    mounts: BTreeMap<PathBuf, Mount>,
    directory: tempfile::TempDir,
}

/// Whose namespace a CNI result says it is.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The Kubernetes namespace.
    pub namespace: &'a str,
    /// The pod's name.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

impl Pods {
    /// Empty ones.
    #[must_use]
    pub fn new(host: &HostLock) -> Self {
        let pods = Self { mounts: BTreeMap::new(), directory: host.directory() };
        fs::create_dir(pods.netns()).unwrap();
        fs::create_dir(pods.cache()).unwrap();
        pods
    }

    /// The directory of namespaces.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        self.directory.path().join("netns")
    }

    /// The directory of CNI results.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.directory.path().join("cni")
    }

    /// The configuration that has the agent look there.
    #[must_use]
    pub fn configuration(&self) -> String {
        format!(
            "hostNetns: current\npodNamespaces: {{ directories: [{}], cniCache: {}, sweep: 1s }}\n",
            self.netns().display(),
            self.cache().display()
        )
    }

    /// Where a namespace is, or would be.
    #[must_use]
    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.netns().join(name.as_ref())
    }

    /// Makes a namespace the way containerd does: an empty file, then the mount on it.
    pub fn create(&mut self, name: impl AsRef<OsStr>) {
        let _ = self.create_after(name, || ());
    }

    /// The same the way CRI-O does: what the pod asks for is done in the namespace before anybody
    /// can find it. The moment before it was mounted.
    pub fn create_after(&mut self, name: impl AsRef<OsStr>, work: impl FnOnce() + Send) -> Instant {
        let path = self.path(name);
        let (since, mount) = std::thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                work();
                File::create_new(&path).unwrap();
                (Instant::now(), Mount::bind("/proc/thread-self/ns/net", &path))
            });
            made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        self.mounts.insert(path, mount);
        since
    }

    /// Mounts what is at `source` under another name.
    pub fn mount(&mut self, source: impl AsRef<Path>, name: impl AsRef<OsStr>) {
        let path = self.path(name);
        File::create_new(&path).unwrap();
        self.mounts.insert(path.clone(), Mount::bind(source, &path));
    }

    /// Removes a namespace the way runtimes do: unmounts it, and removes the file.
    pub fn remove(&mut self, name: impl AsRef<OsStr>) {
        let path = self.path(name);
        drop(self.mounts.remove(&path));
        fs::remove_file(path).unwrap();
    }

    /// Removes all of them.
    pub fn remove_all(&mut self) {
        for (path, mount) in std::mem::take(&mut self.mounts) {
            drop(mount);
            let _ = fs::remove_file(path);
        }
    }

    /// Runs `work` on a thread in a namespace.
    pub fn run<T: Send>(&self, name: impl AsRef<OsStr>, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path(name)).unwrap();
        let entered = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// The value of a file below `/proc/sys`, as a namespace has it.
    #[must_use]
    pub fn read(&self, name: impl AsRef<OsStr>, file: &str) -> String {
        let path = Path::new("/proc/sys").join(file);
        self.run(name, || fs::read_to_string(&path)).unwrap().trim_end().to_owned()
    }

    /// Writes a file below `/proc/sys` in a namespace, as another writer would.
    pub fn write(&self, name: impl AsRef<OsStr>, file: &str, value: &str) {
        let path = Path::new("/proc/sys").join(file);
        self.run(name, || fs::write(&path, value)).unwrap();
    }

    /// Gives a namespace an interface `eth0` with an address, as a CNI plugin does.
    pub fn connect(&self, name: impl AsRef<OsStr>, address: Ipv4Addr) {
        let address = format!("{address}/24");
        self.run(name, || {
            super::command::ip(["link", "add", "eth0", "type", "veth", "peer", "name", "peer0"]);
            super::command::ip(["address", "add", &address, "dev", "eth0"]);
        });
    }

    /// Writes the CNI result of a namespace with one address.
    pub fn result(&self, name: impl AsRef<OsStr>, pod: Named<'_>, address: Ipv4Addr) {
        let sandbox = self.path(&name);
        let result = serde_json::json!({
            "cniVersion": "1.0.0",
            "interfaces": [
                { "name": "cni0", "mac": "aa:bb:cc:dd:ee:ff" },
                { "name": "eth0", "mac": "aa:bb:cc:dd:ee:fe", "sandbox": sandbox.to_str().unwrap() },
            ],
            "ips": [{ "interface": 1, "address": format!("{address}/24") }],
            "dns": {},
        });
        self.cache_result(name, pod, &result);
    }

    /// Writes a plugin's result of a namespace, as libcni does at the end of ADD.
    pub fn cache_result(&self, name: impl AsRef<OsStr>, pod: Named<'_>, result: &Value) {
        let document = serde_json::json!({
            "kind": "cniCacheV1",
            "containerId": format!("{:0>64}", pod.uid.replace('-', "")),
            "config": "eyJjbmlWZXJzaW9uIjoiMS4wLjAifQ==",
            "ifName": "eth0",
            "networkName": "test",
            "cniArgs": [
                ["IgnoreUnknown", "1"],
                ["K8S_POD_NAMESPACE", pod.namespace],
                ["K8S_POD_NAME", pod.name],
                ["K8S_POD_INFRA_CONTAINER_ID", "0"],
                ["K8S_POD_UID", pod.uid],
            ],
            "result": result,
        });
        fs::write(self.cached(name), document.to_string()).unwrap();
    }

    /// Where the result of a namespace is, or would be.
    #[must_use]
    pub fn cached(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.cache().join(format!("test-{}-eth0", name.as_ref().to_string_lossy()))
    }

    /// A descriptor of a namespace, which keeps it alive.
    #[must_use]
    pub fn open(&self, name: impl AsRef<OsStr>) -> Arc<File> {
        Arc::new(File::open(self.path(name)).unwrap())
    }
}

/// A namespace in the agent's picture, by its file; null if it is not there.
#[must_use]
pub fn shown(agent: &Agent<'_>, pods: &Pods, name: &str) -> Value {
    let path = pods.path(name);
    let status = agent.status();
    let mut all = status["pods"]["namespaces"].as_array().into_iter().flatten();
    all.find(|one| one["path"] == path.to_str().unwrap()).cloned().unwrap_or_default()
}

/// A key of a namespace in the picture; null if it is not there.
#[must_use]
pub fn key(namespace: &Value, name: &str) -> Value {
    let mut keys = namespace["keys"].as_array().into_iter().flatten();
    keys.find(|key| key["key"] == name).cloned().unwrap_or_default()
}

/// Waits until the agent says this of a namespace.
pub fn wait_for_state(agent: &mut Agent<'_>, pods: &Pods, name: &str, state: &str) {
    agent
        .wait_until(&format!("{name} {state}"), |agent| shown(agent, pods, name)["state"] == state);
}

/// Unmounts what a killed run left in the directory of its pods.
pub(super) fn unmount_leftovers(directory: &Path) {
    for entry in fs::read_dir(directory.join("netns")).into_iter().flatten().flatten() {
        mount::detach(&entry.path());
    }
}
