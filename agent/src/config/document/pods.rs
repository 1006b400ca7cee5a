//! The document's sections about pods, as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::PodNamespaces;
use super::super::de::Spanned;
use super::{Interval, PolicySpec};
use crate::sysctl::policy::OnConflict;

/// What is wanted in the network namespaces of some pods.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "PodPolicy", extend("required" = ["name", "sysctls"]))]
pub struct PodPolicySpec {
    /// Its name, unique among the policies: 1 to 63 letters, digits, `-`, `_` and `.`.
    #[schemars(with = "String")]
    pub name: Option<Spanned<String>>,
    /// Which pods it is for: all conditions must hold. Without any, every pod.
    #[serde(rename = "match")]
    pub matches: MatchSpec,
    /// Keys of a network namespace, all below `net.`: a value, or an object with value, oneOf,
    /// min, max, onConflict.
    pub sysctls: BTreeMap<Spanned<String>, PolicySpec>,
    /// What to do where somebody else sets a key of the pod: its securityContext, the kubelet, a
    /// CNI plugin, a process in the pod.
    pub on_conflict: OnConflict,
}

impl Default for PodPolicySpec {
    fn default() -> Self {
        Self {
            name: None,
            matches: MatchSpec::default(),
            sysctls: BTreeMap::new(),
            on_conflict: OnConflict::Yield,
        }
    }
}

/// Which pods a policy is for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Match")]
pub struct MatchSpec {
    /// Patterns of Kubernetes namespaces: `*` any characters, `?` one. Empty: every namespace.
    pub namespaces: Vec<Spanned<String>>,
    /// Patterns of pod names. Empty: every name.
    pub pods: Vec<Spanned<String>>,
    /// Labels with their values. They need the Kubernetes API, which this version does not ask: a
    /// policy with labels matches no pod.
    pub labels: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// Where pods' network namespaces are, and how they are looked after.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "PodNamespaces")]
pub struct PodNamespacesSpec {
    /// Directories that hold a file for each namespace, at most 8.
    #[schemars(length(min = 1, max = 8))]
    pub directories: Spanned<Vec<Spanned<String>>>,
    /// Directory of libcni's result cache, which names the pods.
    pub cni_cache: Spanned<String>,
    /// How often each pod's keys are looked at again, at the most.
    pub sweep: Interval,
    /// For how many pods there are metrics of their own, at most 1000.
    #[schemars(range(max = 1000))]
    pub per_pod_series: Spanned<u32>,
}

impl Default for PodNamespacesSpec {
    fn default() -> Self {
        let PodNamespaces { directories, cni_cache, sweep, .. } = PodNamespaces::default();
        let text = |path: std::path::PathBuf| Spanned::nowhere(path.to_string_lossy().into_owned());
        Self {
            directories: Spanned::nowhere(directories.into_iter().map(text).collect()),
            cni_cache: text(cni_cache),
            sweep: Interval(sweep),
            per_pod_series: Spanned::nowhere(0),
        }
    }
}
