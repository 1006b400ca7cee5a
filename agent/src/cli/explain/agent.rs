//! What a running agent knows of a key.

use std::time::Duration;

use headroom::config::load::Loaded;
use headroom::serve::client;
use headroom::serve::status::Status;
use headroom::sysctl::glob::Subject;
use headroom::sysctl::marks::LastWrite;
use headroom::sysctl::state::KeyStatus;

/// A look from outside is there all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// What it told.
pub struct Told {
    /// The key's status, if it has a policy of its own and the agent's configuration is this one.
    pub status: Option<KeyStatus>,
    /// The last write by another process.
    pub last_write: Option<LastWrite>,
}

/// Asks the agent, where one answers and is not of another version.
pub fn ask(loaded: &Loaded, subject: &Subject) -> Option<Told> {
    let response = client::get(&loaded.config.socket, "/status.json", PATIENCE).ok()?;
    let status: Status = serde_json::from_slice(&response.body).ok()?;
    let keys = status.keys.unwrap_or_default();
    let own = keys.iter().find(|status| status.key == *subject).cloned();
    let members = keys.iter().filter_map(|status| match &status.key {
        Subject::Glob(_) => status.members.as_ref(),
        Subject::Key(_) => None,
    });
    let written =
        members.flat_map(|members| &members.written).find(|member| member.key == *subject);
    let last_write = match &own {
        Some(own) => own.last_write.clone(),
        None => written.map(|member| member.last_write.clone()),
    };
    Some(Told { status: own.filter(|_| status.config.hash == loaded.hash), last_write })
}
