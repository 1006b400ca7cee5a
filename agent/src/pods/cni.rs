//! Results of CNI plugins, as libcni keeps them in `/var/lib/cni/results`: a file for each network
//! of each pod, written when the plugins are done and before the pod's first container starts
//! (`libcni/api.go`, `cacheAdd`).

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

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
    /// It is of another kind or has none, as what old versions of libcni wrote.
    #[error("it is of another kind than cniCacheV1")]
    Kind,
}

/// What is looked at. All but the kind may be missing or of another type, and then says nothing: the
/// name must not depend on what one plugin of a chain made of its part.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    kind: Value,
    container_id: Value,
    /// Not there in what older versions wrote: the interfaces of the result tell it too.
    netns: Value,
    cni_args: Value,
    result: Value,
}

/// Reads a file of the cache.
pub fn parse(bytes: &[u8]) -> Result<CniResult, CniError> {
    let file: File = serde_json::from_slice(bytes)?;
    if file.kind != "cniCacheV1" {
        return Err(CniError::Kind);
    }
    let argument = |name| argument(&file.cni_args, name);
    let interfaces = elements(file.result.get("interfaces"));
    let sandboxes = interfaces.filter_map(|interface| interface.get("sandbox"));
    let sandboxes = sandboxes.chain([&file.netns]).filter_map(Value::as_str);
    let mut sandboxes: Vec<PathBuf> =
        sandboxes.filter(|path| path.starts_with('/')).map(PathBuf::from).collect();
    sandboxes.sort();
    sandboxes.dedup();
    Ok(CniResult {
        container: file.container_id.as_str().unwrap_or_default().to_owned(),
        namespace: argument("K8S_POD_NAMESPACE"),
        name: argument("K8S_POD_NAME"),
        uid: argument("K8S_POD_UID"),
        sandboxes,
        addresses: addresses(&file.result),
    })
}

fn elements(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

/// An argument of the runtime's, in whatever place (containerd writes them in random order). Two
/// that differ say nothing: plugins take the last, others the first.
fn argument(arguments: &Value, name: &str) -> Option<String> {
    let mut values =
        elements(Some(arguments)).filter_map(|pair| match pair.as_array()?.as_slice() {
            [known, value] if known == name => Some(value),
            _ => None,
        });
    let first = values.next()?;
    let value = first.as_str().filter(|value| !value.is_empty())?;
    values.all(|other| other == first).then(|| value.to_owned())
}

/// Of all versions: `ips` since 0.3.0, `ip4` and `ip6` before.
fn addresses(result: &Value) -> Vec<IpAddr> {
    let ips = elements(result.get("ips")).filter_map(|ip| ip.get("address"));
    let old = ["ip4", "ip6"].into_iter().filter_map(|family| result.get(family)?.get("ip"));
    let addresses = ips.chain(old).filter_map(|address| {
        let address: IpAddr = address.as_str()?.split('/').next()?.parse().ok()?;
        (!address.is_loopback()).then_some(address)
    });
    addresses.collect()
}

#[cfg(test)]
#[path = "cni_tests.rs"]
mod tests;
