//! How many pods the kubelet runs: `maxPods`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::{About, Cadence, Cost, Exactness, Limit, Reader};
use crate::config::yaml::{self, Value};
use crate::kernel::kubelet::{self, Kubelet};
use crate::kernel::name::escape;
use crate::kernel::{node_file, system};
use crate::node::NodeState;

/// What the kubelet takes where nothing is set (`SetDefaults_KubeletConfiguration`).
const DEFAULT: u64 = 110;

/// Longest configuration that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// More files than any drop-in directory has.
const MOST_FILES: usize = 1000;

/// Why it is not known where pods run.
const UNSEEN: &str = "no kubelet and no configuration of one is seen: mount its configuration file \
                      read-only, or set limits.maxPods";

/// Where kubeadm and kind have the configuration.
pub const KUBEADM: &str = "/var/lib/kubelet/config.yaml";

/// Where the configuration is when the kubelet's command line is not seen: also OpenShift's, Amazon's
/// and Google's.
const KNOWN: [&str; 4] = [
    KUBEADM,
    "/etc/kubernetes/kubelet.conf",
    "/etc/kubernetes/kubelet/config.json",
    "/home/kubernetes/kubelet-config.yaml",
];

/// Pods of the kubelet.
pub static ABOUT: About = About {
    name: "max_pods",
    title: "maxPods",
    unit: "pods",
    scope: "the node",
    read: "limits.maxPods, else the kubelet's command line and configuration file",
    raised_by: Some("maxPods in the kubelet's configuration"),
    cost: Cost::Fixed(1.0),
    cost_why: "the kubelet counts pods, those on hostNetwork too",
    when_hit: "the pod stays Pending: `Too many pods`, or fails as `OutOfpods`",
    exactness: &[(
        "all",
        Exactness::LowerBound,
        "pods with a network namespace; those on hostNetwork are not seen in it",
    )],
    cadence: Cadence::Slow,
};

/// What configuration files say. `None`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `maxPods`; 0 is the default.
    pub max_pods: Option<u64>,
    /// `podsPerCore`; 0 is none.
    pub pods_per_core: Option<u64>,
}

impl Settings {
    /// These, and where they say nothing what an earlier file said.
    fn after(self, earlier: Self) -> Self {
        Self {
            max_pods: self.max_pods.or(earlier.max_pods),
            pods_per_core: self.pods_per_core.or(earlier.pods_per_core),
        }
    }

    /// What the kubelet makes of it (`nodestatus.MachineInfo`).
    #[must_use]
    pub fn pods(self, cpus: u64) -> u64 {
        let most = self.max_pods.filter(|pods| *pods > 0).unwrap_or(DEFAULT);
        match self.pods_per_core.filter(|pods| *pods > 0) {
            Some(pods) if cpus > 0 => most.min(pods.saturating_mul(cpus)),
            _ => most,
        }
    }
}

/// Reads a configuration file, YAML or JSON. `None`: it is of another kind.
pub fn parse(bytes: &[u8]) -> Result<Option<Settings>, String> {
    // What the kubelet takes and this parser does not, such as an anchor, is left out alone.
    let (root, problems) = yaml::parse_partial(bytes);
    let Some(root) = root else {
        return match problems.first() {
            Some(problem) => Err(problem.to_string()),
            None => Ok(None),
        };
    };
    let Value::Map(entries) = &root.value else { return Ok(None) };
    let scalar = |name: &str| {
        let is =
            |node: &yaml::Node| matches!(&node.value, Value::Scalar { text, .. } if text == name);
        match &entries.iter().find(|(key, _)| is(key))?.1.value {
            Value::Scalar { text, null: false, .. } => Some(text.as_str()),
            Value::Scalar { .. } => None,
            _ => Some(""),
        }
    };
    if scalar("kind") != Some("KubeletConfiguration") {
        return Ok(None);
    }
    let number = |name: &str| match scalar(name).map(str::parse) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(format!("{name} is no number of pods")),
    };
    Ok(Some(Settings { max_pods: number("maxPods")?, pods_per_core: number("podsPerCore")? }))
}

/// Finds the kubelet's settings.
#[derive(Debug)]
pub struct MaxPods {
    proc: PathBuf,
    sys: PathBuf,
    root: PathBuf,
}

impl MaxPods {
    /// `root`: where the node's files are, usually `/`.
    #[must_use]
    pub fn new(proc: &Path, sys: &Path, root: impl Into<PathBuf>) -> Self {
        Self { proc: proc.to_owned(), sys: sys.to_owned(), root: root.into() }
    }

    /// What is set. `None`: there is no kubelet here.
    fn settings(&self) -> Result<Option<Settings>, String> {
        let Some(kubelet) = kubelet::find(&self.proc) else { return self.known() };
        let mut settings = Settings::default();
        for path in kubelet.config.clone().into_iter().chain(self.drop_ins(&kubelet)?) {
            let shown = escape(path.to_string_lossy().as_bytes());
            let read = self.file(&path)?.ok_or_else(|| {
                format!("the kubelet's configuration {shown} is not here: mount it read-only, or set limits.maxPods")
            })?;
            settings = read.after(settings);
        }
        let flags = Settings { max_pods: kubelet.max_pods, pods_per_core: kubelet.pods_per_core };
        Ok(Some(flags.after(settings)))
    }

    /// Of a kubelet that is not seen.
    fn known(&self) -> Result<Option<Settings>, String> {
        for path in KNOWN {
            if let Some(settings) = self.file(Path::new(path))? {
                return Ok(Some(settings));
            }
        }
        Ok(None)
    }

    /// Files of `--config-dir`, in the order in which the kubelet reads them: `*.conf`, by name.
    fn drop_ins(&self, kubelet: &Kubelet) -> Result<Vec<PathBuf>, String> {
        let Some(directory) = &kubelet.config_dir else { return Ok(Vec::new()) };
        let mut names: Vec<OsString> = Vec::new();
        let note = |name: &OsStr| {
            if Path::new(name).extension().is_some_and(|it| it == "conf") {
                names.push(name.to_owned());
            }
        };
        node_file::each(&self.path(directory), MOST_FILES, note)
            .map_err(|error| format!("{error}: mount it read-only, or set limits.maxPods"))?;
        names.sort();
        Ok(names.into_iter().map(|name| directory.join(name)).collect())
    }

    /// What a file says. `None`: it is not there, or of another kind.
    fn file(&self, path: &Path) -> Result<Option<Settings>, String> {
        let shown = escape(path.to_string_lossy().as_bytes());
        match node_file::read(&self.path(path), LONGEST) {
            Ok(Some(bytes)) => parse(&bytes).map_err(|why| format!("{shown}: {why}")),
            Ok(None) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A path of the node.
    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Reader for MaxPods {
    fn name(&self) -> &'static str {
        ABOUT.name
    }

    fn read(&mut self) -> Vec<Limit> {
        let cpus = system::cpus(&self.sys).unwrap_or(0);
        match self.settings() {
            Ok(Some(settings)) => {
                vec![Limit { max: Some(settings.pods(cpus)), ..Limit::of(&ABOUT, "") }]
            }
            Ok(None) => Vec::new(),
            Err(why) => vec![Limit::unknown(&ABOUT, "", why)],
        }
    }
}

/// As the configuration says, else as the kubelet was found to be set; used by the pods that run.
#[must_use]
pub fn limits(node: &NodeState) -> Vec<Limit> {
    let found = node.limits.get(ABOUT.name).into_iter().flatten().next();
    let limit = match (node.config.limits.max_pods, found) {
        (Some(max), _) => Limit { max: Some(max), ..Limit::of(&ABOUT, "") },
        (None, Some(found)) => found.clone(),
        (None, None) => return super::unless_without_pods(&ABOUT, UNSEEN, node),
    };
    vec![if limit.max.is_some() { super::by_pods(limit, node) } else { limit }]
}

#[cfg(test)]
#[path = "max_pods_tests.rs"]
mod tests;
