#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;

use super::*;
use crate::config;

const KIND: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn of(body: &str) -> Settings {
    parse(format!("{KIND}{body}").as_bytes()).unwrap().unwrap()
}

#[test]
fn what_the_file_says_and_what_it_leaves_out() {
    assert_eq!(of("").pods(4), 110);
    assert_eq!(of("maxPods: 250\nevictionHard: { memory.available: 100Mi }\n").pods(4), 250);
    assert_eq!(of("maxPods: 0\n").pods(4), 110);
    assert_eq!(of("maxPods: null\n").pods(4), 110);
    assert_eq!(of("maxPods: 250\npodsPerCore: 10\n").pods(4), 40);
    assert_eq!(of("maxPods: 20\npodsPerCore: 10\n").pods(4), 20);
    assert_eq!(of("podsPerCore: 10\n").pods(0), 110, "the cores are not known");
    let json = br#"{"kind":"KubeletConfiguration","maxPods":17}"#;
    assert_eq!(parse(json).unwrap().unwrap().pods(4), 17);
    // kubeadm's kubeconfig is where OpenShift has the configuration.
    assert_eq!(parse(b"apiVersion: v1\nkind: Config\n").unwrap(), None);
    assert_eq!(parse(b"").unwrap(), None);
    assert_eq!(parse(b"[1]").unwrap(), None);
    for bad in ["maxPods: many\n", "maxPods: -1\n", "maxPods: [1]\n", "podsPerCore: x\n"] {
        assert!(parse(format!("{KIND}{bad}").as_bytes()).is_err(), "{bad}");
    }
    assert!(parse(b"kind: [").unwrap_err().contains("not valid YAML"));
}

/// A node's files, and a kubelet with these arguments.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn kubelet(&self, arguments: &[&str]) {
        self.write("proc/7/comm", "kubelet\n");
        self.write("proc/7/cgroup", "0::/system.slice/kubelet.service\n");
        self.write("proc/7/cmdline", &format!("kubelet\0{}\0", arguments.join("\0")));
    }

    fn read(&self) -> Vec<Limit> {
        self.write("sys/devices/system/cpu/online", "0-3\n");
        let [proc, sys] = ["proc", "sys"].map(|name| self.0.path().join(name));
        MaxPods::new(&proc, &sys, self.0.path()).read()
    }

    fn max(&self) -> Option<u64> {
        self.read().first().unwrap().max
    }
}

#[test]
fn where_the_kubelet_is_not_seen_its_file_is_looked_for() {
    let node = Fixture::new();
    assert_eq!(node.read(), [], "no kubelet");
    node.write("etc/kubernetes/kubelet.conf", "apiVersion: v1\nkind: Config\n");
    assert_eq!(node.read(), []);
    node.write("etc/kubernetes/kubelet.conf", &format!("{KIND}maxPods: 250\n"));
    assert_eq!(node.max(), Some(250));
    node.write("var/lib/kubelet/config.yaml", &format!("{KIND}podsPerCore: 5\n"));
    assert_eq!(node.max(), Some(20));
    node.write("var/lib/kubelet/config.yaml", "kind: [\x1b\n");
    let limit = node.read().remove(0);
    let why = limit.unknown.unwrap();
    assert_eq!(limit.max, None);
    assert!(why.starts_with("/var/lib/kubelet/config.yaml: ") && !why.contains('\x1b'), "{why}");
}

/// Only root's process is the node's kubelet, so the rest needs root.
#[test]
fn the_command_line_beats_files_and_names_them() {
    if !system::is_root() {
        return;
    }
    let node = Fixture::new();
    node.write("var/lib/kubelet/config.yaml", &format!("{KIND}maxPods: 9\n"));
    node.kubelet(&[]);
    assert_eq!(node.max(), Some(110), "it reads no file");
    node.kubelet(&["--config=/etc/k.yaml"]);
    assert!(node.read().remove(0).unknown.unwrap().contains("/etc/k.yaml is not here"));
    node.write("etc/k.yaml", &format!("{KIND}maxPods: 300\n"));
    assert_eq!(node.max(), Some(300));
    node.kubelet(&["--config=/etc/k.yaml", "--config-dir=/etc/k.d"]);
    assert!(node.read().remove(0).unknown.unwrap().contains("limits.maxPods"));
    node.write("etc/k.d/10.conf", &format!("{KIND}maxPods: 310\npodsPerCore: 70\n"));
    node.write("etc/k.d/20.conf", &format!("{KIND}maxPods: 320\n"));
    node.write("etc/k.d/30.yaml", "junk: [");
    assert_eq!(node.max(), Some(280));
    node.kubelet(&["--config=/etc/k.yaml", "--config-dir=/etc/k.d", "--max-pods", "50"]);
    assert_eq!(node.max(), Some(50));
}

#[test]
fn the_configuration_beats_what_was_found_and_pods_use_it() {
    let mut node = NodeState { pod_count: Some(0), ..NodeState::default() };
    assert_eq!(limits(&node), []);
    node.pod_count = None;
    let found = Limit { max: Some(110), ..Limit::of(&ABOUT, "") };
    node.limits.insert(ABOUT.name, vec![found]);
    let limit = limits(&node).remove(0);
    assert_eq!((limit.used, limit.max), (None, Some(110)));
    assert!(limit.unknown.is_some(), "nothing unknown is 0");
    node.pod_count = Some(7);
    node.config.limits = config::Limits { max_pods: Some(500), ..config::Limits::default() };
    let limit = limits(&node).remove(0);
    assert_eq!((limit.used, limit.max, limit.unknown), (Some(7), Some(500), None));
    node.limits.insert(ABOUT.name, vec![Limit::unknown(&ABOUT, "", "why")]);
    assert_eq!(limits(&node)[0].max, Some(500));
    node.config.limits.max_pods = None;
    assert_eq!(limits(&node)[0].unknown.as_deref(), Some("why"));
    let all = super::super::all(&node).into_iter().filter(|limit| *limit.about == ABOUT);
    assert_eq!(limits(&node).len(), all.count());
    // Where no kubelet is seen, that is no news unless pods run.
    node.limits.clear();
    assert!(limits(&node)[0].unknown.is_some());
    node.pod_count = Some(0);
    assert_eq!(limits(&node), []);
}

proptest! {
    #[test]
    fn any_text(text in "(kind: KubeletConfiguration\n)?\\PC{0,80}") {
        let _ = parse(text.as_bytes());
    }
}
