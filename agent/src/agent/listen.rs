//! Listening somewhere, and trying again where that cannot be had.

use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::Context;
use super::supervise::blocking;
use crate::kernel::listeners::holder_of;
use crate::kernel::name::escape;
use crate::kernel::state_dir;
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

/// Serves until the order to stop. A server that breaks is started again.
pub async fn serve(
    context: Context,
    place: Place,
    app: Router,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    let app = http::harden(app, &limits);
    let name = place.to_string();
    let node = &context.node;
    while let Some(listener) = bind(&context, &place, &name, &mut stop).await {
        node.update(|state| state.listeners.insert(name.clone(), Ok(())));
        info!(address = name, "listening");
        let served = http::serve(listener, app.clone(), limits.clone(), stop.clone());
        let broken = AssertUnwindSafe(served).catch_unwind().await.is_err();
        if *stop.borrow() {
            break;
        }
        let why = if broken { "the server panicked: this is a bug" } else { "the server ended" };
        error!(address = name, reason = why, "not serving");
        node.update(|state| state.listeners.insert(name.clone(), Err(format!("{name}: {why}"))));
        sleep(FIRST_PAUSE).await;
    }
    if let Place::Unix(path) = place {
        // Still under the agent's lock, so it is nobody else's.
        let _ = state_dir::remove(&path);
    }
}

/// Binds, trying again with a growing pause; `None`: told to stop.
async fn bind(
    context: &Context,
    place: &Place,
    name: &str,
    stop: &mut watch::Receiver<bool>,
) -> Option<Listener> {
    let mut pause = FIRST_PAUSE;
    let mut said = None;
    loop {
        match place.bind() {
            Ok(listener) => return Some(listener),
            Err(error) => {
                let errno = error.errno();
                // Once an episode: it will be tried again and again.
                if said != Some(errno) {
                    said = Some(errno);
                    let reason = with_holder(context, error).await.to_string();
                    let shown = reason.clone();
                    context
                        .node
                        .update(|state| state.listeners.insert(name.to_owned(), Err(shown)));
                    warn!(
                        address = name,
                        reason, "cannot listen; tuning goes on, and this is tried again"
                    );
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = stop.changed() => return None,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Names who holds a port. That takes a look at every process' descriptors.
async fn with_holder(context: &Context, error: BindError) -> BindError {
    let BindError::Taken { addr, .. } = error else { return error };
    let proc_root = context.roots.proc.clone();
    let found = blocking((), move |()| holder_of(&proc_root, addr)).await;
    BindError::Taken { addr, holder: found.ok().and_then(|(_, holder)| holder) }
}
