//! `headroom privileges`: what a configuration needs of the node, and why.

use headroom::config::Config;
use headroom::config::check::{ROOT_STATE, default_state};
use headroom::config::privileges::{
    Grant, Mount, Need, Privileges, Propagation, Reason, privileges,
};
use schemars::JsonSchema;
use serde::Serialize;

use super::output::{Output, Tone};
use super::{Common, Exit, out};

/// Keys that are shown of many.
const SHOWN_KEYS: usize = 3;

/// What a configuration needs.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Needed {
    /// Always `headroom.privileges/v1`.
    schema: &'static str,
    /// The configuration's file, escaped, or `embedded default`.
    config: String,
    #[serde(flatten)]
    privileges: Privileges,
}

pub fn run(common: &Common) -> Exit {
    let loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let privileges = privileges(&as_root(loaded.config));
    let needed =
        Needed { schema: "headroom.privileges/v1", config: loaded.origin.shown(), privileges };
    let out = out(&common.format);
    if out.is_json() {
        out.document(&needed);
    } else {
        print(&out, &needed);
    }
    Exit::Ok
}

/// The agent runs as root, whoever asks: its default state directory is root's.
fn as_root(mut config: Config) -> Config {
    let mine = default_state();
    if config.state == mine {
        if let Ok(rest) = config.socket.strip_prefix(&mine) {
            config.socket = std::path::Path::new(ROOT_STATE).join(rest);
        }
        config.state = ROOT_STATE.into();
    }
    config
}

fn print(out: &Output, needed: &Needed) {
    out.line(format_args!("config {}", needed.config));
    section(out, "REQUIRED", &needed.privileges.required);
    section(out, "OPTIONAL  would also give", &needed.privileges.optional);
}

fn section(out: &Output, title: &str, needs: &[Need]) {
    if needs.is_empty() {
        return;
    }
    out.line("");
    out.heading(title);
    let rows: Vec<_> = needs.iter().flat_map(rows).collect();
    out.table(&["NEEDS", "AT", "FOR"], &rows);
}

/// A row for each reason.
fn rows(need: &Need) -> Vec<(Tone, Vec<String>)> {
    let (mut what, mut at) = what(&need.grant);
    let asked = need.why.iter().any(|why| why.asked);
    let row = |why: &Reason| {
        let also = if asked && !why.asked { "also: " } else { "" };
        let text = match why.keys.as_slice() {
            [] => format!("{also}{}", why.reason),
            some => format!("{also}{} ({})", why.reason, keys(some)),
        };
        // What and where stand in the first one only.
        (Tone::Plain, vec![std::mem::take(&mut what), std::mem::take(&mut at), text])
    };
    need.why.iter().map(row).collect()
}

fn keys(keys: &[String]) -> String {
    let shown: Vec<&str> = keys.iter().take(SHOWN_KEYS).map(String::as_str).collect();
    match keys.len().saturating_sub(SHOWN_KEYS) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What, and for a mount where in the container.
fn what(grant: &Grant) -> (String, String) {
    match grant {
        Grant::User { uid } => (format!("uid {uid}"), String::new()),
        Grant::HostNamespace { name } => (format!("{name}: true"), String::new()),
        Grant::Capability { name } => (format!("capability {name}"), String::new()),
        Grant::Mount(mount) => shown(mount),
    }
}

fn shown(mount: &Mount) -> (String, String) {
    let access = if mount.read_only { "read-only" } else { "read-write" };
    let later = match mount.propagation {
        Propagation::None => "",
        Propagation::HostToContainer => ", HostToContainer",
    };
    let host = mount.host_path.as_deref().unwrap_or("an emptyDir");
    (format!("mount {host}"), format!("{} {access}{later}", mount.mount_path))
}
