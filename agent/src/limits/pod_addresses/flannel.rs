//! The plugin `flannel`: it has host-local give the addresses of the subnet that its daemon wrote down
//! (flannel-io/cni-plugin, `getDelegateIPAM` and `loadFlannelSubnetEnv`).

use std::path::PathBuf;

use serde_json::{Value, json};

use super::host_local::{HostLocal, Unreadable, host_local, refused, shown, text};
use crate::config::cidr::{Cidr, CidrError};

/// Directory of what the daemon writes down.
pub const DIRECTORY: &str = "/run/flannel";

/// Where the daemon writes it down unless the plugin is told otherwise.
pub const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// What the plugin was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flannel {
    /// Where the node's subnets are.
    pub subnet_file: PathBuf,
    network: String,
    /// What host-local is told beside the ranges.
    ipam: Value,
}

impl Flannel {
    /// `plugin`: its part of the configuration. `network`: its name.
    pub(super) fn new(plugin: &Value, network: &str) -> Result<Self, Unreadable> {
        let subnet_file = PathBuf::from(text(plugin, "subnetFile").unwrap_or(SUBNET_FILE));
        if !super::host_local::is_plain(&subnet_file) {
            return refused("its `subnetFile` is no absolute path");
        }
        let ipam = plugin.get("ipam").filter(|ipam| ipam.is_object()).cloned();
        let ipam = ipam.unwrap_or_else(|| json!({}));
        Ok(Self { subnet_file, network: network.to_owned(), ipam })
    }

    /// With what the subnet file says: `FLANNEL_SUBNET=10.42.0.1/24`, where the address is the bridge's.
    pub fn with(&self, subnet_file: &[u8]) -> Result<HostLocal, Unreadable> {
        let file = String::from_utf8_lossy(subnet_file);
        let subnet = |name| {
            let mut lines = file.lines().filter_map(|line| line.split_once('='));
            lines.rfind(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let mut ranges = Vec::new();
        let families = ["FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"].into_iter().filter_map(subnet);
        for text in families {
            match Cidr::parse(text) {
                Ok(subnet) | Err(CidrError::HostBits(subnet)) => {
                    ranges.push(json!([{ "subnet": subnet.to_string() }]));
                }
                Err(CidrError::Syntax) => {
                    return refused(format!("flannel's subnet `{}` is none", shown(text)));
                }
            }
        }
        let mut ipam = self.ipam.clone();
        if let Some(fields) = ipam.as_object_mut() {
            fields.insert("ranges".to_owned(), Value::Array(ranges));
        }
        host_local(&ipam, &self.network)
    }
}
