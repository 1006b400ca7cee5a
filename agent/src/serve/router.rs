//! The routes.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::health::{self, Answer};
use super::metrics::Metrics;
use super::status::Status;
use crate::node::{Check, Checks, Node};

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Over the network: reasons are withheld.
    Network,
    /// Over the unix socket, so root: everything is told.
    Socket,
}

#[derive(Clone)]
struct Shared {
    node: Node,
    metrics: Arc<Metrics>,
    reveal: bool,
}

/// The routes of one side:
///
/// - `/`: what there is
/// - `/metrics`: Prometheus' text format, 0.0.4
/// - `/livez`, `/readyz`, `/healthz`: as the Kubernetes API server answers them, with
///   `?verbose`, `?exclude=NAME` and `/readyz/NAME`
/// - `/status.json`: the whole picture; on the socket only
pub fn router(node: Node, metrics: Arc<Metrics>, side: Side) -> Router {
    let reveal = side == Side::Socket;
    let mut router = Router::new()
        .route("/", get(index))
        .route("/metrics", get(scrape))
        .route("/livez", get(|state, query| all(state, query, "livez", Checks::Live)))
        .route("/readyz", get(|state, query| all(state, query, "readyz", Checks::Ready)))
        .route("/healthz", get(|state, query| all(state, query, "healthz", Checks::Ready)))
        .route("/livez/{name}", get(|state, name| one(state, name, Checks::Live)))
        .route("/readyz/{name}", get(|state, name| one(state, name, Checks::Ready)))
        .route("/healthz/{name}", get(|state, name| one(state, name, Checks::Ready)));
    if reveal {
        router = router.route("/status.json", get(status));
    }
    router.with_state(Shared { node, metrics, reveal })
}

async fn index() -> String {
    format!("headroom {}\n\n/metrics\n/livez\n/readyz\n/healthz\n", env!("CARGO_PKG_VERSION"))
}

async fn scrape(State(shared): State<Shared>) -> Response {
    match shared.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn status(State(shared): State<Shared>) -> Response {
    let status = shared.node.fresh(|state| Status::of(state, true));
    match serde_json::to_vec(&status) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => {
            tracing::error!(%error, "cannot render the status");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

type Pairs = Query<Vec<(String, String)>>;

async fn all(
    State(shared): State<Shared>,
    Query(pairs): Pairs,
    endpoint: &'static str,
    which: Checks,
) -> Response {
    let checks = checks(&shared, which);
    respond(health::answer(endpoint, &checks, &health::Query::parse(pairs), shared.reveal))
}

async fn one(State(shared): State<Shared>, Path(name): Path<String>, which: Checks) -> Response {
    match health::answer_one(&checks(&shared, which), &name, shared.reveal) {
        Some(answer) => respond(answer),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn checks(shared: &Shared, which: Checks) -> Vec<Check> {
    shared.node.read(|state| state.checks(which, Instant::now()))
}

fn respond(Answer { status, body }: Answer) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, body).into_response()
}
