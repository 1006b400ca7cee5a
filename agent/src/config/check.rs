//! Judging a document that has the right shape: what it says must make sense.

mod autogrow;
mod entry;
mod hazards;
mod limits;
mod pods;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use self::entry::Entries;
use super::de::Spanned;
use super::document::{API_VERSION, Address, Document, KIND, WatchSpec};
use super::problem::{Position, Problem, Problems, did_you_mean};
use super::{Config, Watch, profiles};
use crate::kernel::system;
use crate::sysctl::catalogue::{self, Refusal};
use crate::sysctl::glob::{Glob, Subject};
use crate::sysctl::key::Key;
use crate::sysctl::policy::{OnConflict, Policy};

/// The longest path of a unix socket: `sun_path` less its final NUL (`unix(7)`).
const LONGEST_SOCKET: usize = 107;

/// Each address costs a socket; a node has a few that are worth it.
const MOST_ADDRESSES: usize = 16;

/// Judges a document and makes the configuration of it. Problems are added; the configuration is
/// only to be used where none is an error.
pub fn check(document: Document, problems: &mut Problems) -> Config {
    version(&document, problems);
    let (profiles, mut policies) = profiles(&document.profiles, problems);
    let allowed = allowed(&document.allow_dangerous, problems);
    let mut entries = Entries::new("sysctls", OnConflict::Enforce, &allowed);
    let mut globs: Vec<(Position, Glob, Policy)> = Vec::new();
    for (name, spec) in &document.sysctls {
        match entries.judge(name, spec, problems) {
            // A later source replaces the whole policy.
            Some((Subject::Key(key), policy)) => drop(policies.insert(key, policy)),
            Some((Subject::Glob(glob), policy)) => globs.push((name.at, glob, policy)),
            None => {}
        }
    }
    globs.sort_by_key(|(at, ..)| *at);
    let globs: Vec<_> = globs.into_iter().map(|(_, glob, policy)| (glob, policy)).collect();
    let places = entries.keys().collect();
    hazards::look(&policies, &places, problems);
    let wanted = autogrow::Wanted { policies: &policies, globs: &globs, places: &places };
    let autogrow = autogrow::rule(&document.autogrow, &wanted, document.host_netns, problems);
    let state = state(document.state.as_ref(), problems);
    let socket = socket(document.server.socket.as_ref(), &state, problems);
    Config {
        mode: document.mode,
        host_netns: document.host_netns,
        log_level: document.log.level,
        log_format: document.log.format,
        profiles,
        policies,
        globs,
        pods: pods::policies(&document.pods, &allowed, problems),
        pod_namespaces: pods::namespaces(&document.pod_namespaces, problems),
        watch: watch(document.watch, problems),
        limits: limits::limits(&document.limits, problems),
        autogrow,
        listen: listen(&document.server.listen, problems),
        socket,
        state,
    }
}

fn version(document: &Document, problems: &mut Problems) {
    for (field, found, expected) in
        [("apiVersion", &document.api_version, API_VERSION), ("kind", &document.kind, KIND)]
    {
        match found {
            None if problems.iter().any(|problem| problem.path == field) => {}
            None => problems.push(
                Problem::error(
                    "missing-field",
                    format!("`{field}` is missing: write `{field}: {expected}`"),
                )
                .at(Position::new(1, 1)),
            ),
            Some(found) if found.value == expected => {}
            Some(found) => problems.push(
                Problem::error(
                    "unsupported-version",
                    format!(
                        "`{field}` is not one this version understands: write `{field}: {expected}`"
                    ),
                )
                .at(found.at)
                .path(field),
            ),
        }
    }
}

fn profiles(
    named: &[Spanned<String>],
    problems: &mut Problems,
) -> (Vec<String>, BTreeMap<Key, Policy>) {
    let mut chosen = Vec::new();
    let mut policies = BTreeMap::new();
    let mut places: BTreeMap<&str, Position> = BTreeMap::new();
    for name in named {
        // A profile is parsed whenever it is asked for, so each is asked for once.
        if let Some(first) = places.get(name.as_str()) {
            let message =
                format!("the same profile stands on line {}: keep one of them", first.line);
            let problem = Problem::error("duplicate-profile", message);
            problems.push(problem.at(name.at).path("profiles"));
            continue;
        }
        places.insert(name, name.at);
        let problem = match profiles::get(name) {
            Some(Ok(profile)) => {
                policies.extend(profile.policies());
                chosen.push(profile.name);
                continue;
            }
            Some(Err(inner)) => inner.into_iter().next(),
            None => {
                let known = profiles::names();
                let hint =
                    did_you_mean(name, &known).map(|name| format!(" (did you mean {name}?)"));
                Some(Problem::error(
                    "unknown-profile",
                    format!(
                        "there is no such profile{}; there are: {}",
                        hint.unwrap_or_default(),
                        known.join(", ")
                    ),
                ))
            }
        };
        if let Some(problem) = problem {
            problems.push(problem.at(name.at).path("profiles"));
        }
    }
    (chosen, policies)
}

fn allowed(named: &[Spanned<String>], problems: &mut Problems) -> BTreeSet<Key> {
    let mut allowed = BTreeSet::new();
    for name in named {
        let problem = match Key::parse(name) {
            Err(error) => Problem::error(error.code(), error.to_string()),
            Ok(key) => match catalogue::refusal(&key) {
                Some(Refusal::Dangerous) => {
                    allowed.insert(key);
                    continue;
                }
                Some(_) => Problem::error(
                    "key-refused",
                    "this key cannot be allowed: it stores no value to keep",
                ),
                None => {
                    Problem::warning("needless-allowance", "this key is not on the refused list")
                }
            },
        };
        problems.push(problem.at(name.at).path("allowDangerous"));
    }
    allowed
}

fn watch(spec: WatchSpec, problems: &mut Problems) -> Watch {
    let limit = u64::from(spec.bridge_port_limit.value);
    if !(1..=65535).contains(&limit) {
        let problem = Problem::error(
            "value",
            "a bridge has 1 to 65535 ports; 1023 unless the kernel was changed",
        );
        problems.push(problem.at(spec.bridge_port_limit.at).path("watch.bridgePortLimit"));
    }
    Watch {
        bridges: spec.bridges,
        bridge_port_limit: limit,
        sysctl_sweep: spec.sysctl_sweep.0,
        neighbor_scan: spec.neighbor_scan.0,
    }
}

fn listen(addresses: &[Spanned<Address>], problems: &mut Problems) -> Vec<SocketAddr> {
    let mut seen = BTreeSet::new();
    for (index, address) in addresses.iter().enumerate() {
        let problem = if index == MOST_ADDRESSES {
            let message = format!("more than {MOST_ADDRESSES} addresses: remove some");
            Problem::error("too-many-addresses", message)
        } else if !seen.insert(address.0) {
            Problem::error(
                "duplicate-address",
                "the same address stands above, and can be bound once: keep one of them",
            )
        } else {
            continue;
        };
        problems.push(problem.at(address.at).path("server.listen"));
    }
    addresses.iter().map(|address| address.0).collect()
}

fn state(given: Option<&Spanned<String>>, problems: &mut Problems) -> PathBuf {
    match given {
        Some(path) => absolute(path, "state", problems),
        None => default_state(),
    }
}

/// The state directory of an agent that runs as root, where none is configured.
pub const ROOT_STATE: &str = "/run/headroom";

/// `/run/headroom`, or without root a directory of the user's own.
#[must_use]
pub fn default_state() -> PathBuf {
    let user = std::env::var_os("XDG_RUNTIME_DIR").filter(|_| !system::is_root());
    match user {
        Some(directory) => Path::new(&directory).join("headroom"),
        None if system::is_root() => PathBuf::from(ROOT_STATE),
        None => std::env::temp_dir().join(format!("headroom-{}", system::user_id())),
    }
}

fn socket(given: Option<&Spanned<String>>, state: &Path, problems: &mut Problems) -> PathBuf {
    let Some(path) = given else { return state.join("agent.sock") };
    let socket = absolute(path, "server.socket", problems);
    if path.len() > LONGEST_SOCKET {
        let message = format!(
            "the path of a unix socket has at most {LONGEST_SOCKET} bytes, this has {}",
            path.len()
        );
        problems.push(Problem::error("path", message).at(path.at).path("server.socket"));
    }
    socket
}

fn absolute(path: &Spanned<String>, field: &str, problems: &mut Problems) -> PathBuf {
    let absolute = path.starts_with('/') && !path.contains('\0');
    if !absolute {
        let problem = Problem::error("path", "this must be an absolute path");
        problems.push(problem.at(path.at).path(field));
    }
    PathBuf::from(&path.value)
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
