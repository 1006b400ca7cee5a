//! `headroom privileges`: what a configuration needs of the agent's container.

use headroom::config::privileges::{self, Need};
use schemars::JsonSchema;
use serde::Serialize;

use super::output::Tone;
use super::{Common, Exit, out};

/// What is needed.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Needed {
    /// Always `headroom.privileges/v1`.
    schema: &'static str,
    /// The configuration's path, or `embedded`.
    config: String,
    #[serde(flatten)]
    privileges: privileges::Privileges,
}

pub fn run(common: &Common) -> Exit {
    let loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let needed = Needed {
        schema: "headroom.privileges/v1",
        config: loaded.origin.shown(),
        privileges: privileges::of(&loaded.config),
    };
    let out = out(&common.format);
    if out.is_json() {
        out.document(&needed);
        return Exit::Ok;
    }
    let rows = |needs: &[Need]| -> Vec<(Tone, Vec<String>)> {
        let row = |need: &Need| (Tone::Plain, vec![need.grant.to_string(), reasons(need)]);
        needs.iter().map(row).collect()
    };
    out.heading(&format!("NEEDED by {}", needed.config));
    out.table(&["", ""], &rows(&needed.privileges.required));
    out.line("");
    out.heading("WOULD GIVE MORE");
    out.table(&["", ""], &rows(&needed.privileges.optional));
    Exit::Ok
}

/// Of many keys the first few.
fn reasons(need: &Need) -> String {
    const MOST: usize = 4;
    let shown = need.because.iter().take(MOST).cloned().collect::<Vec<_>>().join("; ");
    match need.because.len().checked_sub(MOST).filter(|more| *more > 0) {
        Some(more) => format!("{shown}; and {more} more"),
        None => shown,
    }
}
