//! Judging `pods` and `podNamespaces`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::super::document::{MatchSpec, PodNamespacesSpec, PodPolicySpec};
use super::super::problem::{Position, Problem, Problems, push_index, push_key};
use super::{Spanned, absolute, sysctl};
use crate::config::PodNamespaces;
use crate::pods::policy::{Match, PodPolicy};
use crate::sysctl::catalogue::{self, NewNetns, Scope};
use crate::sysctl::glob::Subject;
use crate::sysctl::key::Key;
use crate::sysctl::policy::OnConflict;

/// Each directory costs a watch; a node has one, or one for each runtime.
const MOST_DIRECTORIES: usize = 8;
/// Metrics of each pod make a scrape dear.
const MOST_SERIES: u32 = 1000;

/// The policies that make sense.
pub(super) fn policies(
    specs: &[PodPolicySpec],
    allowed: &BTreeSet<Key>,
    problems: &mut Problems,
) -> Vec<PodPolicy> {
    let mut names: BTreeMap<&str, Position> = BTreeMap::new();
    let mut policies = Vec::new();
    // Keys that a policy for every pod decides, and where.
    let mut decided: BTreeMap<Key, usize> = BTreeMap::new();
    for (index, spec) in specs.iter().enumerate() {
        let mut path = "pods".to_owned();
        push_index(&mut path, index);
        let name = name(spec, &path, &mut names, problems);
        let matches = matches(&spec.r#match, &path, problems);
        let policies_of = keys(spec, &path, allowed, &mut decided, problems);
        if matches.is_every_pod() {
            for (key, policy) in &policies_of {
                decided.entry(key.clone()).or_insert(line(&policy.source));
            }
        }
        policies.push(PodPolicy { name, matches, policies: policies_of });
    }
    policies
}

fn line(source: &crate::sysctl::policy::Source) -> usize {
    match source {
        crate::sysctl::policy::Source::Config { line } => *line,
        crate::sysctl::policy::Source::Profile(_) => 0,
    }
}

/// Where something of a policy stands, for problems of the policy as a whole.
fn place(spec: &PodPolicySpec) -> Position {
    let name = spec.name.as_ref().map(|name| name.at);
    let key = spec.sysctls.keys().map(|key| key.at).min();
    name.or(key).unwrap_or(Position::new(1, 1))
}

fn name<'s>(
    spec: &'s PodPolicySpec,
    path: &str,
    names: &mut BTreeMap<&'s str, Position>,
    problems: &mut Problems,
) -> String {
    let mut report = |message: String| {
        problems.push(Problem::error("pod-policy", message).at(place(spec)).path(path));
    };
    let Some(name) = spec.name.as_ref().filter(|name| !name.trim().is_empty()) else {
        report("the policy has no name: give it one with `name:`, which status shows".to_owned());
        return String::new();
    };
    if let Some(first) = names.insert(name, name.at) {
        report(format!("the policy on line {} has the same name: give it another", first.line));
    }
    // It is shown as it is.
    crate::kernel::name::escape(name.as_bytes())
}

fn keys(
    spec: &PodPolicySpec,
    path: &str,
    allowed: &BTreeSet<Key>,
    decided: &mut BTreeMap<Key, usize>,
    problems: &mut Problems,
) -> BTreeMap<Key, crate::sysctl::policy::Policy> {
    let path = format!("{path}.sysctls");
    if spec.sysctls.is_empty() {
        let problem =
            Problem::error("pod-policy", "the policy names no key: give some under `sysctls:`");
        problems.push(problem.at(place(spec)).path(&path));
    }
    let mut places = BTreeMap::new();
    let mut policies = BTreeMap::new();
    for (name, entry) in &spec.sysctls {
        let mut key_path = path.clone();
        push_key(&mut key_path, name);
        if let Some(message) = misplaced(name) {
            problems.push(Problem::error("pod-key", message).at(name.at).path(&key_path));
            continue;
        }
        if entry.0.required.is_some() {
            let message = "`required` is for the node's keys: nothing about a pod makes the node \
                           unready; remove it";
            problems.push(Problem::error("pod-key", message).at(name.at).path(&key_path));
        }
        let Some((Subject::Key(key), mut policy)) =
            sysctl(&path, name, entry, allowed, &mut places, problems)
        else {
            continue;
        };
        if let Some(problem) = belongs_elsewhere(&key) {
            problems.push(problem.at(name.at).path(&key_path));
        }
        if let Some(line) = decided.get(&key) {
            let message = format!(
                "this never counts: the policy for every pod decides the key on line {line}; move \
                 this policy before that one"
            );
            problems.push(Problem::warning("shadowed", message).at(name.at).path(&key_path));
        }
        let on_conflict = entry.0.on_conflict.or(spec.on_conflict);
        policy.on_conflict = on_conflict.unwrap_or(OnConflict::Yield);
        policy.required = false;
        policies.insert(key, policy);
    }
    policies
}

/// Why something is no key of a pod's network namespace, by its spelling alone.
fn misplaced(name: &str) -> Option<&'static str> {
    if name.contains("IFNAME") {
        return Some(
            "IFNAME is the CNI tuning plugin's: write the interface, which is eth0 in a pod",
        );
    }
    if name.contains(['*', '?', '[']) {
        return Some(
            "a pattern cannot be used here: name the interface, which is eth0 in a pod, or `all` or \
             `default`",
        );
    }
    if !name.starts_with("net.") && !name.starts_with("net/") {
        return Some(
            "this is no key of a network namespace: only keys below net. can be set for pods; set it \
             under `sysctls`",
        );
    }
    None
}

/// Whether a key is not a network namespace's own, as far as the catalogue knows. The agent looks
/// at the kernel, too, before it writes.
fn belongs_elsewhere(key: &Key) -> Option<Problem> {
    let entry = catalogue::lookup(key)?;
    let shared = entry.has("shared") || matches!(entry.new_netns(), Some(NewNetns::Global));
    if let (Some((major, minor)), Scope::Netns) = (entry.namespaced_since(), entry.scope()) {
        let message = format!(
            "before Linux {major}.{minor} this is one value for the node, and then it is not written \
             in pods"
        );
        return Some(Problem::warning("pod-key", message));
    }
    if entry.scope() != Scope::Netns && entry.new_netns() != Some(NewNetns::Global) && !shared {
        let message =
            "this is one value for the node, which pods do not have: set it under `sysctls`";
        return Some(Problem::error("pod-key", message));
    }
    shared.then(|| {
        let message = "this is the node's value, which pods see and cannot have of their own: set it \
                       under `sysctls`";
        Problem::error("pod-key", message)
    })
}

fn matches(spec: &MatchSpec, path: &str, problems: &mut Problems) -> Match {
    let mut patterns = |given: &[Spanned<String>], field: &str, what: &str| -> Vec<String> {
        for pattern in given {
            let fits = |byte: u8| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.*?".contains(&byte)
            };
            if pattern.is_empty() || pattern.len() > 253 || !pattern.bytes().all(fits) {
                let message = format!(
                    "no {what} can match: names in Kubernetes have lower-case letters, digits, `-` \
                     and `.`; in a pattern `*` stands for any characters and `?` for one"
                );
                let problem = Problem::error("pod-match", message);
                problems.push(problem.at(pattern.at).path(format!("{path}.match.{field}")));
            }
        }
        given.iter().map(|pattern| pattern.value.clone()).collect()
    };
    let namespaces = patterns(&spec.namespaces, "namespaces", "namespace");
    let pods = patterns(&spec.pods, "pods", "pod");
    if let Some(label) = spec.labels.keys().map(|label| label.at).min() {
        let message = "labels are known to the Kubernetes API alone, which this version does not ask: \
                       the policy matches no pod";
        let problem = Problem::warning("pod-labels", message);
        problems.push(problem.at(label).path(format!("{path}.match.labels")));
    }
    let labels = spec.labels.iter().map(|(name, value)| (name.value.clone(), value.clone()));
    Match { namespaces, pods, labels: labels.collect() }
}

/// Where the namespaces are.
pub(super) fn namespaces(spec: &PodNamespacesSpec, problems: &mut Problems) -> PodNamespaces {
    let mut directories: Vec<PathBuf> = Vec::new();
    for (index, directory) in spec.directories.iter().enumerate() {
        let path = absolute(directory, "podNamespaces.directories", problems);
        let problem = if directories.contains(&path) {
            "the same directory stands above: keep one of them".to_owned()
        } else if index == MOST_DIRECTORIES {
            format!("more than {MOST_DIRECTORIES} directories: remove some")
        } else {
            directories.push(path);
            continue;
        };
        let problem = Problem::error("pod-namespaces", problem);
        problems.push(problem.at(directory.at).path("podNamespaces.directories"));
    }
    if directories.is_empty() && problems.iter().all(|it| it.path != "podNamespaces.directories") {
        let problem = Problem::error(
            "pod-namespaces",
            "there is no directory to find namespaces in: name one, or leave the field out for \
             /var/run/netns",
        );
        problems.push(problem.at(Position::new(1, 1)).path("podNamespaces.directories"));
    }
    if spec.per_pod_series.value > MOST_SERIES {
        let message = format!("at most {MOST_SERIES}: each pod is a series of metrics");
        let problem = Problem::error("value", message);
        problems.push(problem.at(spec.per_pod_series.at).path("podNamespaces.perPodSeries"));
    }
    PodNamespaces {
        directories,
        cni_cache: absolute(&spec.cni_cache, "podNamespaces.cniCache", problems),
        sweep: spec.sweep.0,
        per_pod_series: spec.per_pod_series.value as usize,
    }
}
