//! The document's `pods` and `podNamespaces`.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::de::Spanned;
use super::{Interval, PolicySpec};
use crate::config::PodNamespaces;
use crate::sysctl::policy::OnConflict;

/// What is wanted in the network namespaces of some pods.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodPolicySpec {
    /// A name of its own, by which `status` says which policy gave a value.
    #[schemars(with = "String", required)]
    pub name: Option<Spanned<String>>,
    /// Which pods it is for; without it, every pod.
    pub r#match: MatchSpec,
    /// Keys below `net.` that a pod's network namespace has of its own: a value, or an object with
    /// value, oneOf, min, max, onConflict.
    #[schemars(required)]
    pub sysctls: BTreeMap<Spanned<String>, PolicySpec>,
    /// What to do about values that somebody else set, as the pod's securityContext does: `yield`
    /// keeps them (the default), `enforce` overwrites them, `report` never writes.
    pub on_conflict: Option<OnConflict>,
}

/// Which pods a policy is for: all that is given must hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MatchSpec {
    /// Patterns of Kubernetes namespaces: `*` any characters, `?` one. None: every namespace.
    pub namespaces: Vec<Spanned<String>>,
    /// Patterns of pod names. None: every name.
    pub pods: Vec<Spanned<String>>,
    /// Labels that the pod must have. This version does not ask the Kubernetes API for them: a
    /// policy with labels matches no pod.
    pub labels: BTreeMap<Spanned<String>, String>,
}

/// Where pods' network namespaces are, and how they are looked after.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PodNamespacesSpec {
    /// Directories that hold a file for each namespace: where the container runtime mounts them.
    pub directories: Vec<Spanned<String>>,
    /// Directory of libcni's result cache, which names the pods.
    pub cni_cache: Spanned<String>,
    /// How often each pod's keys are looked at again, at the most.
    pub sweep: Interval,
    /// For how many pods there are metrics of their own: from 0 to 1000.
    pub per_pod_series: Spanned<u32>,
}

impl Default for PodNamespacesSpec {
    fn default() -> Self {
        let PodNamespaces { directories, cni_cache, sweep, .. } = PodNamespaces::default();
        let text = |path: std::path::PathBuf| Spanned::nowhere(path.display().to_string());
        Self {
            directories: directories.into_iter().map(text).collect(),
            cni_cache: text(cni_cache),
            sweep: Interval(Duration::from_secs(sweep.as_secs())),
            per_pod_series: Spanned::nowhere(0),
        }
    }
}
