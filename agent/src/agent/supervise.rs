//! Tasks that fail are started again, with a growing pause, and are seen to have failed.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{error, info};

use super::{Context, listen};
use crate::node::Node;
use crate::serve::http::Limits;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A task that ran this long starts over with the first pause.
const SETTLED: Duration = Duration::from_secs(60);

/// Why a task ended: in words, for the log and `status`.
pub type Failure = String;

type Work = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Owns the agent's tasks.
pub struct Supervisor {
    node: Node,
    tasks: JoinSet<()>,
    servers: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Supervisor {
    /// A supervisor of nothing yet.
    pub fn new(node: Node) -> Self {
        Self { node, tasks: JoinSet::new(), servers: JoinSet::new(), stop: watch::channel(false).0 }
    }

    /// Starts a task, and starts it again whenever it fails or panics.
    pub fn spawn<W>(
        &mut self,
        name: &'static str,
        context: &Context,
        task: impl Fn(Context) -> W + Send + 'static,
    ) where
        W: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let context = context.clone();
        let make = move || -> Work { Box::pin(task(context.clone())) };
        self.tasks.spawn(keep_running(name, self.node.clone(), Box::new(make)));
    }

    /// Serves at a place until the order to stop, binding again with a growing pause where it
    /// cannot be had: a port that is taken does not stop tuning.
    pub fn serve(&mut self, context: &Context, place: listen::Place, app: Router, limits: Limits) {
        let stop = self.stop.subscribe();
        self.servers.spawn(listen::serve(context.clone(), place, app, limits, stop));
    }

    /// Ends only if a supervising task itself broke, which it does not.
    pub async fn watch(&mut self) {
        match self.tasks.join_next().await {
            Some(_) => error!("a supervisor ended: this is a bug"),
            None => std::future::pending().await,
        }
    }

    /// Stops everything within a bound.
    pub async fn stop(mut self, within: Duration) {
        self.tasks.abort_all();
        self.stop.send_replace(true);
        let servers = async { while self.servers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(within, servers).await;
    }
}

async fn keep_running(name: &'static str, node: Node, make: Box<dyn Fn() -> Work + Send>) {
    node.update(|state| {
        state.tasks.insert(name, Default::default());
    });
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        // A task of its own, so that a panic ends it alone.
        let mut one = JoinSet::new();
        one.spawn(make());
        let failure = describe(one.join_next().await);
        if started.elapsed() > SETTLED {
            pause = FIRST_PAUSE;
        }
        error!(
            task = name,
            reason = failure,
            again_in_ms = pause.as_millis() as u64,
            "a task failed"
        );
        node.update(|state| state.lost(name, failure));
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        node.update(|state| state.tasks.entry(name).or_default().restarts += 1);
    }
}

fn describe(ended: Option<Result<Result<(), Failure>, JoinError>>) -> Failure {
    match ended {
        Some(Ok(Err(failure))) => failure,
        Some(Err(error)) if error.is_panic() => "it panicked: this is a bug".to_owned(),
        _ => "it ended".to_owned(),
    }
}

/// Notes that a task does its work again.
pub fn recovered(node: &Node, name: &'static str) {
    let was = node.update(|state| state.tasks.get_mut(name).and_then(|task| task.failure.take()));
    if was.is_some() {
        info!(task = name, "the task works again");
    }
}

/// Runs what may block on a thread of its own, so that neither scrapes nor probes wait for it.
/// What was moved in comes back.
pub async fn blocking<T, R>(
    mut value: T,
    work: impl FnOnce(&mut T) -> R + Send + 'static,
) -> Result<(T, R), Failure>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut value);
        (value, result)
    });
    done.await.map_err(|error| match error.is_panic() {
        true => "it panicked: this is a bug".to_owned(),
        false => "it was stopped".to_owned(),
    })
}

/// The configuration that is in force now.
pub fn current(context: &Context) -> Arc<crate::config::Config> {
    context.config.borrow().clone()
}
