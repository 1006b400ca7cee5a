//! Judging what the document says about pods.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, PathBuf};

use super::super::PodNamespaces;
use super::super::de::Spanned;
use super::super::document::{MatchSpec, PodNamespacesSpec, PodPolicySpec, PolicySpec};
use super::super::problem::{Position, Problem, Problems, Severity, escape, push_index};
use super::entry::Entries;
use super::{absolute, hazards};
use crate::pods::naming::normalize;
use crate::pods::policy::{Match, PodPolicy};
use crate::sysctl::catalogue::{self, Entry, Scope};
use crate::sysctl::glob::{Glob, Subject};
use crate::sysctl::key::Key;
use crate::sysctl::policy::Policy;

/// Each policy is held against each pod, and against those before it.
const MOST_POLICIES: usize = 100;

/// Each directory costs a watch and a look at all of its files.
const MOST_DIRECTORIES: usize = 8;

/// Ten series a pod are ten thousand: more is a database of pods, not metrics of a node.
const MOST_PER_POD_SERIES: u32 = 1000;

/// The longest name of a policy; of a Kubernetes namespace, which is a DNS label (RFC 1123).
const LONGEST_LABEL: usize = 63;

/// The longest name of a pod, which is a DNS subdomain.
const LONGEST_SUBDOMAIN: usize = 253;

/// The placeholder of the CNI plugin `tuning` for the interface that a pod got.
const CNI_PLACEHOLDER: &str = "IFNAME";

/// What is wanted in pods. Policies that are wrong are among them as far as they go: their
/// problems are errors.
pub fn policies(
    specs: &[Spanned<PodPolicySpec>],
    allowed: &BTreeSet<Key>,
    problems: &mut Problems,
) -> Vec<PodPolicy> {
    let mut names: BTreeMap<&str, Position> = BTreeMap::new();
    let mut earlier: Vec<(PodPolicy, Position)> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let mut path = "pods".to_owned();
        push_index(&mut path, index);
        if index == MOST_POLICIES {
            let message = format!("more than {MOST_POLICIES} policies: remove some");
            problems.push(Problem::error("too-many-policies", message).at(spec.at).path(path));
            break;
        }
        let name = name(spec, &path, &mut names, problems);
        let matches = matches(&spec.matches, &path, problems);
        let mut entries = Entries::new(format!("{path}.sysctls"), spec.on_conflict, allowed);
        let mut policies = BTreeMap::new();
        for (key, fields) in &spec.sysctls {
            policies.extend(entry(key, fields, &mut entries, problems));
        }
        nothing(spec, &path, problems);
        let places: BTreeMap<Key, Position> = entries.keys().collect();
        let mut warn = |key: &str, code, message: String| {
            let place = Key::parse(key).ok().and_then(|key| places.get(&key).copied());
            let Some(at) = place else { return };
            problems.push(Problem::warning(code, message).at(at).path(entries.path(key)));
        };
        hazards::siblings(&policies, &places, &mut warn);
        never_used(&earlier, &matches, &places, &mut warn);
        earlier.push((PodPolicy { name, matches, policies }, spec.at));
    }
    earlier.into_iter().map(|(policy, _)| policy).collect()
}

fn name<'s>(
    spec: &'s Spanned<PodPolicySpec>,
    path: &str,
    names: &mut BTreeMap<&'s str, Position>,
    problems: &mut Problems,
) -> String {
    let path = format!("{path}.name");
    let Some(name) = &spec.name else {
        if !problems.iter().any(|problem| problem.path == path) {
            let message = "a policy for pods needs a name, by which `status` can call it";
            problems.push(Problem::error("missing-field", message).at(spec.at).path(path));
        }
        return String::new();
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let problem = if let Some(first) = names.insert(name, name.at) {
        let message = format!("the policy on line {} has the same name", first.line);
        Problem::error("duplicate-name", message)
    } else if name.is_empty() || name.len() > LONGEST_LABEL || !name.bytes().all(known) {
        let message = format!("a name is 1 to {LONGEST_LABEL} letters, digits, `-`, `_` and `.`");
        Problem::error("name", message)
    } else {
        return name.value.clone();
    };
    problems.push(problem.at(name.at).path(path));
    name.value.clone()
}

fn matches(spec: &MatchSpec, path: &str, problems: &mut Problems) -> Match {
    let mut patterns = |given: &[Spanned<String>], field: &str, longest, dots| {
        for (index, pattern) in given.iter().enumerate() {
            if let Some(why) = never_matches(pattern, longest, dots) {
                let mut path = format!("{path}.match.{field}");
                push_index(&mut path, index);
                problems.push(Problem::error("pattern", why).at(pattern.at).path(path));
            }
        }
        given.iter().map(|pattern| pattern.value.clone()).collect()
    };
    let namespaces = patterns(&spec.namespaces, "namespaces", LONGEST_LABEL, false);
    let pods = patterns(&spec.pods, "pods", LONGEST_SUBDOMAIN, true);
    if let Some(first) = spec.labels.keys().map(|label| label.at).min() {
        let message = "labels need the Kubernetes API, which this version does not ask: until it does, \
                       this policy matches no pod";
        let problem = Problem::warning("labels", message);
        problems.push(problem.at(first).path(format!("{path}.match.labels")));
    }
    let labels = spec.labels.iter().map(|(key, value)| (key.value.clone(), value.value.clone()));
    Match { namespaces, pods, labels: labels.collect() }
}

/// Why no name that Kubernetes gives can match a pattern.
fn never_matches(pattern: &str, longest: usize, dots: bool) -> Option<String> {
    let wild = |byte: u8| matches!(byte, b'*' | b'?');
    let inner = |byte: u8| wild(byte) || matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    let allowed = |byte: u8| inner(byte) || byte == b'-' || (dots && byte == b'.');
    let bytes = pattern.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    let least = bytes.iter().filter(|byte| **byte != b'*').count();
    if bytes.is_empty() {
        Some("an empty pattern matches nothing: write * for every name".to_owned())
    } else if let Some(character) = pattern.chars().find(|c| !c.is_ascii() || !allowed(*c as u8)) {
        Some(format!(
            "`{}` is in no such name of Kubernetes: a pattern is of a-z, 0-9, -{}, * and ?",
            escape(character.to_string()),
            if dots { ", ." } else { "" }
        ))
    } else if !ends.into_iter().flatten().all(|byte| inner(*byte)) {
        Some("no name of Kubernetes begins or ends so: with a letter or a digit".to_owned())
    } else if ["..", ".-", "-."].iter().any(|pair| pattern.contains(pair)) {
        Some("no name of Kubernetes has two separators like this in a row".to_owned())
    } else if least > longest {
        Some(format!("this is longer than such a name can be, which is {longest} characters"))
    } else {
        None
    }
}

/// One key of a policy.
fn entry(
    name: &Spanned<String>,
    spec: &PolicySpec,
    entries: &mut Entries<'_>,
    problems: &mut Problems,
) -> Option<(Key, Policy)> {
    let path = entries.path(name);
    let mut report = |problem: Problem| problems.push(problem.at(name.at).path(&path));
    if name.split(['.', '/']).any(|part| part == CNI_PLACEHOLDER) {
        let message = "IFNAME is a placeholder of the CNI plugin `tuning`: write the interface's name in \
                       the pod, which is eth0 as a rule";
        report(Problem::error("placeholder", message));
        return None;
    }
    if Glob::is_pattern(name) {
        let message = "there are no patterns of keys for pods: write the interface's name in the pod, \
                       which is eth0 as a rule, or `all` or `default`";
        report(Problem::error("key-pattern", message));
        return None;
    }
    if spec.0.required.is_some() {
        let message = "a key in pods cannot be required: nothing in a pod holds the node's readiness \
                       back; remove the field";
        report(Problem::error("policy", message));
    }
    if let Some(problem) = Key::parse(name).ok().and_then(|key| not_of_a_pod(&key)) {
        let fatal = problem.severity == Severity::Error;
        report(problem);
        if fatal {
            return None;
        }
    }
    let (subject, policy) = entries.judge(name, spec, problems)?;
    match subject {
        Subject::Key(key) => Some((key, Policy { required: false, ..policy })),
        Subject::Glob(_) => None,
    }
}

/// Whether a key is not a pod's own, on every kernel or on older ones.
fn not_of_a_pod(key: &Key) -> Option<Problem> {
    let entry = catalogue::lookup(key);
    if !key.is_net() {
        let belongs = match entry.as_ref().map_or(Scope::Host, Entry::scope) {
            Scope::Ipc | Scope::Uts => {
                "set it with the pod's securityContext.sysctls, or the node's under `sysctls`"
            }
            _ => "set the node's under `sysctls`",
        };
        let message = format!("this is no key of a network namespace: {belongs}");
        return Some(Problem::error("not-per-pod", message));
    }
    let entry = entry?;
    if entry.scope() != Scope::Netns {
        let message = "this key has one value for the whole node, which no pod has of its own: set it \
                       under `sysctls`";
        return Some(Problem::error("not-per-pod", message));
    }
    // The kernel makes `neigh/default` in its first namespace alone (`neigh_sysctl_register`).
    let is_neigh = key.as_str().contains(".neigh.");
    if is_neigh && matches!(catalogue::interface(key.as_str()), Some("default" | "all")) {
        let message = "pods have this key of their interfaces alone: write neigh.eth0, or set the \
                       node's under `sysctls`";
        return Some(Problem::error("not-per-pod", message));
    }
    let (major, minor) = entry.namespaced_since()?;
    let message = format!(
        "pods have this key since Linux {major}.{minor}: an older node has one value for all, and leaves \
         its pods as they are"
    );
    Some(Problem::warning("newer-kernel", message))
}

/// A policy without keys does nothing.
fn nothing(spec: &Spanned<PodPolicySpec>, path: &str, problems: &mut Problems) {
    let path = format!("{path}.sysctls");
    // Keys that could not be read were there.
    if spec.sysctls.is_empty() && !problems.iter().any(|problem| problem.path.starts_with(&path)) {
        let message = "a policy for pods needs keys: name some under `sysctls`, or remove it";
        problems.push(Problem::error("missing-field", message).at(spec.at).path(path));
    }
}

/// Keys that an earlier policy always decides.
fn never_used(
    earlier: &[(PodPolicy, Position)],
    matches: &Match,
    places: &BTreeMap<Key, Position>,
    mut warn: impl FnMut(&str, &'static str, String),
) {
    let before = |(policy, _): &&(PodPolicy, Position)| {
        policy.matches.is_every_pod() || policy.matches == *matches
    };
    let before: Vec<_> = earlier.iter().filter(before).collect();
    for key in places.keys() {
        let first = before.iter().find(|(policy, _)| policy.policies.contains_key(key));
        if let Some((_, place)) = first {
            let message = format!(
                "this is never used: the policy on line {} comes first for every pod that this one \
                 matches; put this policy above it",
                place.line
            );
            warn(key.as_str(), "shadowed-key", message);
        }
    }
}

/// Where pods' namespaces are, and how they are looked after.
pub fn namespaces(spec: &PodNamespacesSpec, problems: &mut Problems) -> PodNamespaces {
    const PATH: &str = "podNamespaces.directories";
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in spec.directories.iter() {
        let path = below_root(directory, PATH, problems);
        let same = |known: &PathBuf| normalize(known) == normalize(&path);
        let problem = if directories.iter().any(same) {
            Problem::error("duplicate-path", "the same directory stands above: keep one of them")
        } else if directories.len() == MOST_DIRECTORIES {
            let message = format!("more than {MOST_DIRECTORIES} directories: remove some");
            Problem::error("too-many-directories", message)
        } else {
            directories.push(path);
            continue;
        };
        problems.push(problem.at(directory.at).path(PATH));
    }
    if directories.is_empty() && !problems.iter().any(|problem| problem.path.starts_with(PATH)) {
        let message = "without a directory no pod is found: name one, or remove the field";
        problems.push(Problem::error("missing-field", message).at(spec.directories.at).path(PATH));
    }
    if spec.per_pod_series.value > MOST_PER_POD_SERIES {
        let message = format!("metrics of their own for at most {MOST_PER_POD_SERIES} pods");
        let problem = Problem::error("value", message).at(spec.per_pod_series.at);
        problems.push(problem.path("podNamespaces.perPodSeries"));
    }
    PodNamespaces {
        directories,
        cni_cache: below_root(&spec.cni_cache, "podNamespaces.cniCache", problems),
        sweep: spec.sweep.0,
        per_pod_series: spec.per_pod_series.value as usize,
    }
}

/// A directory that is mounted into the agent's container: not the whole host.
fn below_root(path: &Spanned<String>, field: &str, problems: &mut Problems) -> PathBuf {
    let directory = absolute(path, field, problems);
    let parts = || directory.components().skip(1);
    if directory.has_root()
        && (parts().count() == 0 || parts().any(|it| it == Component::ParentDir))
    {
        let message = "name a directory of its own, without `..`: it is mounted into the container";
        problems.push(Problem::error("path", message).at(path.at).path(field));
    }
    directory
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
