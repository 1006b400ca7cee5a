//! Pods and their containers.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::stat::fstat;

use super::messages::{
    CONTAINER_EXITED, ContainerConfig, ContainerId, ContainerMetadata, ContainerStatus,
    ContainerStatusResponse, CreateContainerRequest, DnsConfig, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceOption, PodSandboxConfig, PodSandboxId, PodSandboxMetadata, PodSandboxStatusRequest,
    PodSandboxStatusResponse, RunPodSandboxRequest, namespace_mode,
};
use super::{Containerd, cgroups, image};
use crate::agent_process::PATIENCE;

const PAUSE: Duration = Duration::from_millis(5);

/// What the kubelet knows of a pod.
#[derive(Clone, Debug, Default)]
pub struct PodSpec {
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// How often its sandbox was made before.
    pub attempt: u32,
    /// Its labels, besides those that the kubelet adds.
    pub labels: BTreeMap<String, String>,
    /// Its `securityContext.sysctls`.
    pub sysctls: BTreeMap<String, String>,
    /// Whether it has the node's network namespace.
    pub host_network: bool,
}

impl PodSpec {
    /// One of that name, with a uid that no other has in this process.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let uid = format!("7e570000-0000-4000-8000-{:08x}{count:04x}", std::process::id());
        Self { namespace: namespace.to_owned(), name: name.to_owned(), uid, ..Self::default() }
    }

    /// The same with one more of `securityContext.sysctls`.
    #[must_use]
    pub fn sysctl(mut self, key: &str, value: &str) -> Self {
        self.sysctls.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Its control group, as a kubelet with the cgroupfs driver names it.
    #[must_use]
    pub fn cgroup(&self) -> String {
        format!("/kubepods/besteffort/pod{}", self.uid)
    }

    fn options(&self) -> NamespaceOption {
        let network = if self.host_network { namespace_mode::NODE } else { namespace_mode::POD };
        NamespaceOption { network, pid: namespace_mode::CONTAINER }
    }

    fn labels(&self) -> HashMap<String, String> {
        let own = [("name", &self.name), ("namespace", &self.namespace), ("uid", &self.uid)];
        let own = own.map(|(what, value)| (format!("io.kubernetes.pod.{what}"), value.clone()));
        self.labels.clone().into_iter().chain(own).collect()
    }

    fn config(&self, logs: &Path) -> PodSandboxConfig {
        let Self { namespace, name, uid, attempt, .. } = self.clone();
        let directory = logs.join(format!("{namespace}_{name}_{uid}"));
        let context = LinuxSandboxSecurityContext { namespace_options: Some(self.options()) };
        PodSandboxConfig {
            hostname: if self.host_network { String::new() } else { name.clone() },
            metadata: Some(PodSandboxMetadata { name, uid, namespace, attempt }),
            log_directory: directory.to_str().unwrap().to_owned(),
            // Without one the host's file is read, which may lead to a directory below /run.
            dns_config: Some(DnsConfig { servers: vec!["127.0.0.1".to_owned()] }),
            labels: self.labels(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup(),
                security_context: Some(context),
                sysctls: self.sysctls.clone().into_iter().collect(),
            }),
        }
    }
}

impl Containerd {
    /// RunPodSandbox: the pod's namespaces and network are there when it returns, and no container
    /// yet.
    ///
    /// # Panics
    /// Where [`Containerd::try_run_pod`] has an error.
    #[must_use]
    pub fn run_pod(&self, spec: PodSpec) -> Pod<'_> {
        self.try_run_pod(spec).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same; what the runtime complained about.
    pub fn try_run_pod(&self, spec: PodSpec) -> Result<Pod<'_>, String> {
        self.remember_cgroup(&spec.cgroup());
        let config = spec.config(&self.logs());
        fs::create_dir_all(&config.log_directory).unwrap();
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let answer: PodSandboxId = self.client().call("RuntimeService/RunPodSandbox", &request)?;
        let id = answer.pod_sandbox_id;
        let mut pod = Pod { runtime: self, spec, config, id, netns: None, ip: String::new() };
        let status = pod.status()?;
        pod.ip = status.status.and_then(|status| status.network).unwrap_or_default().ip;
        // containerd's own, in JSON: runtimeSpec is what runc is given.
        let info: serde_json::Value =
            serde_json::from_str(&status.info["info"]).map_err(|error| error.to_string())?;
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array();
        let network = namespaces.into_iter().flatten().find(|one| one["type"] == "network");
        pod.netns = network.and_then(|one| one["path"].as_str()).map(PathBuf::from);
        Ok(pod)
    }
}

/// A pod that runs until it is deleted, or its runtime is dropped.
#[derive(Debug)]
pub struct Pod<'a> {
    runtime: &'a Containerd,
    spec: PodSpec,
    config: PodSandboxConfig,
    id: String,
    netns: Option<PathBuf>,
    ip: String,
}

impl<'a> Pod<'a> {
    /// What it was made of.
    #[must_use]
    pub fn spec(&self) -> &PodSpec {
        &self.spec
    }

    /// Its sandbox's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its address; empty with the node's network.
    #[must_use]
    pub fn ip(&self) -> &str {
        &self.ip
    }

    /// Its network namespace's path on the node; `None` with the node's.
    #[must_use]
    pub fn netns(&self) -> Option<&Path> {
        self.netns.as_deref()
    }

    /// Its network namespace. A copy that is kept keeps the namespace alive.
    #[must_use]
    pub fn netns_fd(&self) -> OwnedFd {
        let node = self.runtime.node();
        match &self.netns {
            Some(path) => node.enter(|| File::open(path)).unwrap().into(),
            None => node.network().fd().try_clone().unwrap(),
        }
    }

    /// Runs `work` on a thread in its network namespace; a panic there is a panic here.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let netns = self.netns_fd();
        let entered = || {
            setns(netns, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A file below `/proc/sys`, as it is in its network namespace.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        let text = self.enter(|| fs::read_to_string(Path::new("/proc/sys").join(path)));
        text.unwrap_or_else(|error| panic!("{path}: {error}")).trim_end().to_owned()
    }

    /// Its processes, as the machine numbers them: all that have its network namespace.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let wanted = fstat(self.netns_fd()).unwrap();
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let has = |process: &u32| {
            fs::metadata(format!("/proc/{process}/ns/net"))
                .is_ok_and(|one| (one.dev(), one.ino()) == (wanted.st_dev, wanted.st_ino))
        };
        numbers.filter(has).collect()
    }

    /// PodSandboxStatus, with all that the runtime has to say.
    pub fn status(&self) -> Result<PodSandboxStatusResponse, String> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: true };
        self.runtime.client().call("RuntimeService/PodSandboxStatus", &request)
    }

    /// Runs a container to its end; what it printed.
    ///
    /// # Panics
    /// Where it does not end well.
    #[must_use]
    pub fn run(&self, args: &[&str]) -> String {
        self.start(args).finish()
    }

    /// CreateContainer and StartContainer of the image's program with these arguments.
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Container<'a> {
        self.create(args).and_then(Container::started).unwrap_or_else(|error| panic!("{error}"))
    }

    fn create(&self, args: &[&str]) -> Result<Container<'a>, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{count}", args[0]);
        let log = format!("{name}/0.log");
        fs::create_dir(Path::new(&self.config.log_directory).join(&name)).unwrap();
        let path = Path::new(&self.config.log_directory).join(&log);
        let mut labels = self.spec.labels();
        labels.insert("io.kubernetes.container.name".to_owned(), name.clone());
        let context =
            LinuxContainerSecurityContext { namespace_options: Some(self.spec.options()) };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name, attempt: 0 }),
            image: Some(ImageSpec { image: image::NAME.to_owned() }),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            labels,
            log_path: log,
            linux: Some(LinuxContainerConfig { security_context: Some(context) }),
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: self.id.clone(),
            config: Some(config),
            sandbox_config: Some(self.config.clone()),
        };
        let id: ContainerId =
            self.runtime.client().call("RuntimeService/CreateContainer", &request)?;
        Ok(Container { runtime: self.runtime, id, log: path })
    }

    /// Stops and removes it, as the kubelet does with a pod that is deleted.
    ///
    /// # Panics
    /// Where the runtime complains.
    pub fn delete(self) {
        self.remove().unwrap_or_else(|error| panic!("{error}"));
    }

    fn remove(&self) -> Result<(), String> {
        let id = PodSandboxId { pod_sandbox_id: self.id.clone() };
        let client = self.runtime.client();
        let () = client.call("RuntimeService/StopPodSandbox", &id)?;
        let () = client.call("RuntimeService/RemovePodSandbox", &id)?;
        cgroups::remove(&self.spec.cgroup());
        Ok(())
    }
}

/// A container that was started; gone with its pod.
#[derive(Debug)]
pub struct Container<'a> {
    runtime: &'a Containerd,
    id: ContainerId,
    log: PathBuf,
}

impl Container<'_> {
    fn started(self) -> Result<Self, String> {
        let () = self.runtime.client().call("RuntimeService/StartContainer", &self.id)?;
        Ok(self)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id.container_id
    }

    /// ContainerStatus.
    #[must_use]
    pub fn status(&self) -> ContainerStatus {
        let answer: Result<ContainerStatusResponse, _> =
            self.runtime.client().call("RuntimeService/ContainerStatus", &self.id);
        answer.unwrap_or_else(|error| panic!("{error}")).status.unwrap()
    }

    /// What it has printed so far.
    ///
    /// # Panics
    /// Where its log is not as the kubelet wants it (kubernetes/design-proposals-archive,
    /// node/kubelet-cri-logging.md): `TIME STREAM TAGS TEXT`.
    #[must_use]
    pub fn output(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole
            .map(|line| {
                let text = line.splitn(4, ' ').nth(3);
                text.unwrap_or_else(|| panic!("{}: {line:?}", self.log.display()))
            })
            .collect()
    }

    /// Waits until it has printed this line.
    pub fn wait_for(&self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.output().lines().any(|line| line == wanted) {
            let status = self.status();
            assert_ne!(status.state, CONTAINER_EXITED, "{status:?}: {}", self.output());
            assert!(Instant::now() < deadline, "{wanted:?} is not in {:?}", self.output());
            sleep(PAUSE);
        }
    }

    /// Waits until it has ended; what it printed.
    ///
    /// # Panics
    /// Where it does not end well.
    #[must_use]
    pub fn finish(self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if status.state == CONTAINER_EXITED {
                assert_eq!(status.exit_code, 0, "{status:?}: {}", self.output());
                return self.output();
            }
            assert!(Instant::now() < deadline, "it does not end: {status:?}");
            sleep(PAUSE);
        }
    }

    /// Kills and removes it.
    pub fn delete(self) {
        let client = self.runtime.client();
        let stopped: Result<(), _> = client.call("RuntimeService/StopContainer", &self.id);
        let removed =
            stopped.and_then(|()| client.call::<()>("RuntimeService/RemoveContainer", &self.id));
        removed.unwrap_or_else(|error| panic!("{error}"));
    }
}
