//! Results of CNI plugins, as libcni keeps them in `/var/lib/cni/results`: a file for each network
//! of each pod, written when the plugins are done and before the pod's first container starts
//! (`libcni/api.go`, `cacheAdd`).

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Longest file that is read, in bytes.
pub const LONGEST: u64 = 1 << 20;

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniResult {
    /// The id of the sandbox.
    pub container: String,
    /// The pod's Kubernetes namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub name: Option<String>,
    /// The pod's uid.
    pub uid: Option<String>,
    /// Paths of the network namespace.
    pub sandboxes: Vec<PathBuf>,
    /// The pod's addresses, but loopback ones.
    pub addresses: Vec<IpAddr>,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// It is no JSON document of the expected form; it may be half written.
    #[error("it is no result of a CNI plugin: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another kind.
    #[error("it is of another kind than cniCacheV1")]
    Kind,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    kind: String,
    #[serde(default)]
    container_id: String,
    /// Since libcni 1.1 or so.
    #[serde(default)]
    netns: Option<String>,
    #[serde(default)]
    cni_args: Option<Vec<(String, String)>>,
    #[serde(default)]
    result: Option<PluginResult>,
}

#[derive(Default, Deserialize)]
struct PluginResult {
    #[serde(default)]
    interfaces: Option<Vec<Interface>>,
    #[serde(default)]
    ips: Option<Vec<Ip>>,
    /// Specification 0.2.0.
    #[serde(default)]
    ip4: Option<OldIp>,
    #[serde(default)]
    ip6: Option<OldIp>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    sandbox: Option<String>,
}

#[derive(Deserialize)]
struct Ip {
    address: String,
}

#[derive(Deserialize)]
struct OldIp {
    ip: String,
}

/// Reads a file of the cache.
pub fn parse(bytes: &[u8]) -> Result<CniResult, CniError> {
    let file: File = serde_json::from_slice(bytes)?;
    if file.kind != "cniCacheV1" {
        return Err(CniError::Kind);
    }
    let result = file.result.unwrap_or_default();
    let mut arguments = file.cni_args.unwrap_or_default();
    let mut argument = |name: &str| {
        let found = arguments.iter_mut().find(|(known, _)| known == name);
        found.map(|(_, value)| std::mem::take(value)).filter(|value| !value.is_empty())
    };
    let (namespace, name, uid) =
        (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME"), argument("K8S_POD_UID"));
    let interfaces = result.interfaces.into_iter().flatten();
    let sandboxes = interfaces.filter_map(|interface| interface.sandbox).chain(file.netns);
    let mut sandboxes: Vec<PathBuf> =
        sandboxes.filter(|path| path.starts_with('/')).map(PathBuf::from).collect();
    sandboxes.sort();
    sandboxes.dedup();
    let addresses = result.ips.into_iter().flatten().map(|ip| ip.address);
    let addresses =
        addresses.chain([result.ip4, result.ip6].into_iter().flatten().map(|old| old.ip));
    let addresses = addresses.filter_map(|address| {
        let address: IpAddr = address.split('/').next()?.parse().ok()?;
        (!address.is_loopback()).then_some(address)
    });
    Ok(CniResult {
        container: file.container_id,
        namespace,
        name,
        uid,
        sandboxes,
        addresses: addresses.collect(),
    })
}
