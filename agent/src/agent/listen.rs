//! Listening somewhere, and trying again where that cannot be had.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::kernel::name::escape;
use crate::kernel::state_dir;
use crate::node::Node;
use crate::serve::bind::{self, BindError};
use crate::serve::http::{self, Limits, Listener};

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where to listen.
#[derive(Clone, Debug)]
pub enum Place {
    /// An address and port.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => f.write_str(&escape(path.to_string_lossy().as_bytes())),
        }
    }
}

impl Place {
    fn bind(&self) -> Result<Listener, BindError> {
        match self {
            Self::Tcp(address) => bind::tcp(*address).map(Listener::Tcp),
            Self::Unix(path) => bind::unix(path).map(Listener::Unix),
        }
    }
}

/// Serves until the order to stop.
pub async fn serve(
    node: Node,
    place: Place,
    app: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let app = http::harden(app, &limits);
    let name = place.to_string();
    let mut pause = FIRST_PAUSE;
    let mut said = None;
    let listener = loop {
        match place.bind() {
            Ok(listener) => break listener,
            Err(error) => {
                let text = error.to_string();
                node.update(|state| state.listeners.insert(name.clone(), Err(text.clone())));
                // Once: it will be tried again and again.
                if said.as_ref() != Some(&text) {
                    warn!(
                        address = name,
                        reason = text,
                        "cannot listen; tuning goes on, and this is tried again"
                    );
                    said = Some(text);
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    };
    node.update(|state| state.listeners.insert(name.clone(), Ok(())));
    info!(address = name, "listening");
    http::serve(listener, app, limits, stop).await;
    if let Place::Unix(path) = place {
        // Still under the agent's lock, so it is nobody else's.
        let _ = state_dir::remove(&path);
    }
}
