//! Debian's CNI plugins, run as libcni runs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::namespace::Namespace;
use crate::agent_process::Finished;

/// Where Debian has them.
const PLUGINS: &str = "/usr/lib/cni";

/// A network of the plugin `bridge` in a namespace that stands for the node.
#[derive(Debug)]
pub struct Cni<'a> {
    node: &'a Namespace,
    state: PathBuf,
}

impl<'a> Cni<'a> {
    /// A network whose leases are kept below `state`.
    #[must_use]
    pub fn new(node: &'a Namespace, state: &Path) -> Self {
        Self { node, state: state.to_owned() }
    }

    fn bridge(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "test", "type": "bridge", "bridge": "cni0",
            "ipam": {
                "type": "host-local", "dataDir": self.state,
                "ranges": [[{ "subnet": "10.98.0.0/20" }]],
            },
        })
    }

    /// Connects the namespace at `path`; the plugin's result.
    #[must_use]
    pub fn add(&self, id: &str, path: &Path) -> Value {
        let finished = self.run("ADD", "bridge", &self.bridge(), id, path);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.json()
    }

    /// Disconnects it.
    pub fn delete(&self, id: &str, path: &Path) {
        let finished = self.run("DEL", "bridge", &self.bridge(), id, path);
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }

    /// Runs the plugin `tuning` for a namespace, as the next in the chain.
    pub fn tune(&self, id: &str, path: &Path, sysctls: &Value) {
        let configuration = json!({
            "cniVersion": "1.0.0", "name": "test", "type": "tuning", "sysctl": sysctls,
            "dataDir": self.state,
            "prevResult": { "cniVersion": "1.0.0", "interfaces": [], "ips": [], "dns": {} },
        });
        let finished = self.run("ADD", "tuning", &configuration, id, path);
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }

    fn run(&self, verb: &str, plugin: &str, config: &Value, id: &str, path: &Path) -> Finished {
        let mut command = plugin_command(verb, plugin, id, path);
        self.node.run(|| Finished::of(&mut command, config.to_string().as_bytes()))
    }
}

/// Runs the plugin `host-local` as the plugin of a network does. It only makes files, and enters no
/// namespace.
#[must_use]
pub fn host_local(verb: &str, config: &Value, id: &str) -> Finished {
    let mut command = plugin_command(verb, "host-local", id, Path::new("/not/entered"));
    Finished::of(&mut command, config.to_string().as_bytes())
}

fn plugin_command(verb: &str, plugin: &str, id: &str, path: &Path) -> Command {
    let mut command = Command::new(Path::new(PLUGINS).join(plugin));
    command
        .env_clear()
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", path)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", PLUGINS)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command
}
