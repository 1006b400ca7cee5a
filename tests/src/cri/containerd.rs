//! Debian's containerd on a [`Node`].

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::messages::{
    ImageSpec, ImageStatusRequest, ImageStatusResponse, ListPodSandboxResponse, PodSandbox,
    VersionResponse,
};
use super::{Client, Node, cgroups, image};
use crate::HostLock;
use crate::agent_process::PATIENCE;

/// What differs from how most nodes are set up.
#[derive(Clone, Debug, Default)]
pub struct Settings<'a> {
    /// What CNI's `tuning` plugin sets in every pod.
    pub tuning: &'a [(&'a str, &'a str)],
}

/// A running containerd, with the test's image and a CNI network; gone with all its pods when it is
/// dropped.
#[derive(Debug)]
pub struct Containerd {
    node: Node,
    client: Client,
    /// One at a time writes down control groups.
    remembering: Mutex<()>,
}

/// Every path is containerd's default, but for the socket, which is to be reached from outside.
/// Lowering `oom_score_adj` needs CAP_SYS_RESOURCE, which a machine may lack; AppArmor is the
/// host's, and the node has no systemd.
const CONFIGURATION: &str = r#"
version = 2
# It would make /opt/containerd.
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart"]
[grpc]
  address = "DIRECTORY/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  disable_apparmor = true
  restrict_oom_score_adj = true
  sandbox_image = "IMAGE"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "DIRECTORY/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#;

const SCRIPT: &str =
    r#"containerd --config "$1/containerd.toml" < /dev/null > "$1/containerd.log" 2>&1 &"#;

impl Containerd {
    /// Starts it as most nodes have it.
    #[must_use]
    pub fn start(host: &HostLock) -> Self {
        Self::start_with(host, &Settings::default())
    }

    /// Starts it with settings of one's own.
    #[must_use]
    pub fn start_with(host: &HostLock, settings: &Settings<'_>) -> Self {
        let node = Node::new(host, SCRIPT, |shared| {
            let configuration = CONFIGURATION.replace("DIRECTORY", shared.to_str().unwrap());
            let configuration = configuration.replace("IMAGE", image::NAME);
            fs::write(shared.join("containerd.toml"), configuration).unwrap();
            fs::create_dir(shared.join("cni")).unwrap();
            let network = network(settings).to_string();
            fs::write(shared.join("cni/10-pods.conflist"), network).unwrap();
        });
        let client = Client::new(&node.shared().join("containerd.sock"));
        let runtime = Self { node, client, remembering: Mutex::new(()) };
        runtime.load_image();
        runtime
    }

    fn load_image(&self) {
        let directory = self.node.shared().join("image");
        fs::create_dir(&directory).unwrap();
        let archive = image::build(&directory);
        self.wait_until("listening", || self.version().is_ok());
        let socket = self.node.shared().join("containerd.sock");
        let mut import = Command::new("ctr");
        import.arg("--address").arg(socket).args(["--namespace", "k8s.io", "image", "import"]);
        image::done(import.arg(archive));
        // The runtime hears of it by an event.
        let spec = ImageSpec { image: image::NAME.to_owned() };
        let request = ImageStatusRequest { image: Some(spec) };
        self.wait_until("aware of its image", || {
            let answer: Result<ImageStatusResponse, _> =
                self.client.call("ImageService/ImageStatus", &request);
            answer.is_ok_and(|answer| answer.image.is_some())
        });
    }

    fn wait_until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "containerd is not {what}:\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    /// Its version.
    pub fn version(&self) -> Result<String, String> {
        let version: VersionResponse = self.client.call("RuntimeService/Version", &())?;
        Ok(format!("{} {}", version.runtime_name, version.runtime_version))
    }

    /// The sandboxes it has.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<PodSandbox> {
        let list: Result<ListPodSandboxResponse, _> =
            self.client.call("RuntimeService/ListPodSandbox", &());
        list.unwrap().items
    }

    /// The node it runs on.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its socket.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        let log = fs::read(self.node.shared().join("containerd.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The results that libcni keeps of its pods' attachments to the network.
    #[must_use]
    pub fn cni_results(&self) -> Vec<Value> {
        self.node.enter(|| {
            let entries = fs::read_dir("/var/lib/cni/results").into_iter().flatten();
            let texts = entries.filter_map(|entry| fs::read(entry.unwrap().path()).ok());
            texts.filter_map(|text| serde_json::from_slice(&text).ok()).collect()
        })
    }

    /// The directory of all pods' logs.
    pub(super) fn logs(&self) -> PathBuf {
        self.node.shared().join("pods")
    }

    pub(super) fn remember_cgroup(&self, path: &str) {
        let _one = self.remembering.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        cgroups::remember(self.node.shared(), path);
    }
}

/// What CNI does to each pod. The bridge is in the node's network namespace.
fn network(settings: &Settings<'_>) -> Value {
    let bridge = json!({
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": true,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.87.0.0/22" }]] },
    });
    let mut plugins = vec![bridge];
    if !settings.tuning.is_empty() {
        let values = settings.tuning.iter().map(|(key, value)| ((*key).to_owned(), json!(value)));
        let values: serde_json::Map<String, Value> = values.collect();
        plugins.push(json!({ "type": "tuning", "sysctl": values }));
    }
    json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": plugins })
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let warnings = log.lines().filter(|line| !line.contains("level=info"));
            let warnings: Vec<&str> = warnings.collect();
            eprintln!("containerd's log, but for level=info:\n{}", warnings.join("\n"));
        }
        self.node.kill();
        cgroups::remove_remembered(self.node.shared());
    }
}
