//! The HTTP server: an accept loop of our own over hyper's HTTP/1, and the manners every router
//! is given.
//!
//! `axum::serve` is not used: in 0.8 it installs no timer, so that hyper's header timeout is
//! inert, and on a port of the host's network any client could pin descriptors for ever and keep
//! the agent from ending.

use std::fmt;
use std::future::pending;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use axum::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use accept_errors::AcceptErrors;

mod accept_errors;

/// What open connections have, all together, to finish after the order to stop.
const GRACE: Duration = Duration::from_millis(1500);

/// hyper panics below this.
const MIN_HEAD: usize = 8192;

/// hyper adds the header timeout to the clock unchecked.
const MAX_HEADER_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What a client may cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How long a request's head may take to arrive, counted from the connection or from the end
    /// of the answer before; so also how long a connection may be silent or idle. At most a day.
    pub header_timeout: Duration,
    /// The longest request head in bytes, of which hyper also accepts at most 100 header lines.
    /// Also the size of a connection's read buffer. At least 8192.
    pub max_head: usize,
    /// Open connections of a listener. More wait in the kernel's backlog. At least 1.
    pub max_connections: usize,
    /// The age at which a connection is closed after the answer it is at, if any. It is cut off
    /// if that answer takes longer than `request_timeout` from then on (a client that does not
    /// read).
    pub max_age: Duration,
    /// How long a handler may take; then the answer is 503.
    pub request_timeout: Duration,
    /// Requests in handlers at the same time; above it the answer is 503 with `Retry-After: 1`.
    pub max_in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(5),
            max_head: 16 << 10,
            max_connections: 64,
            max_age: Duration::from_secs(120),
            request_timeout: Duration::from_secs(10),
            max_in_flight: 16,
        }
    }
}

/// A socket to accept connections from.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(listener) => match listener.local_addr() {
                Ok(addr) => write!(f, "{addr}"),
                Err(_) => f.write_str("tcp"),
            },
            Self::Unix(listener) => match listener.local_addr() {
                Ok(addr) => write!(f, "{addr:?}"), // which escapes the path
                Err(_) => f.write_str("unix"),
            },
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Answers requests until `shutdown` becomes true or its sender is gone.
///
/// Returns within 1.5 s of that, whatever clients and asynchronous handlers do: nothing more is
/// accepted, connections end after the answer they are at, the rest is dropped. A unix socket's
/// file stays; the next agent finds it stale and replaces it.
///
/// `app` should have gone through [`harden`], once for each listener.
pub async fn serve(
    listener: Listener,
    app: axum::Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    let at = listener.to_string();
    let slots = Arc::new(Semaphore::new(permits(limits.max_connections)));
    let server = Server { builder: builder(&limits), app, limits, shutdown: shutdown.clone() };
    let mut connections = JoinSet::new();
    let mut errors = AcceptErrors::default();
    let mut not_before = None;
    loop {
        let (slot, accepted) = tokio::select! {
            biased;
            () = stopped(&mut shutdown) => break,
            Some(ended) = connections.join_next() => {
                report(&at, ended);
                continue;
            }
            next = next(&listener, &slots, not_before) => next,
        };
        not_before = None;
        match accepted {
            Ok(stream) => {
                if let Some(failed) = errors.accepted(Instant::now()) {
                    tracing::info!(listener = %at, failed, "accepting connections again");
                }
                server.spawn(&mut connections, stream, slot);
            }
            Err(error) => not_before = errors.failed(&at, &error, Instant::now()),
        }
    }
    // From here on a connect is refused, instead of waiting for an answer that will not come.
    drop(listener);
    let drain = async {
        while let Some(ended) = connections.join_next().await {
            report(&at, ended);
        }
    };
    if timeout(GRACE, drain).await.is_err() {
        tracing::debug!(listener = %at, connections = connections.len(), "dropped at shutdown");
    }
    connections.shutdown().await;
}

/// The next connection. Safe to cancel: a permit goes back, the pause is up to a point in time,
/// and a connection not yet returned is still in the backlog.
async fn next(
    listener: &Listener,
    slots: &Arc<Semaphore>,
    not_before: Option<Instant>,
) -> (OwnedSemaphorePermit, io::Result<Stream>) {
    if let Some(instant) = not_before {
        sleep_until(instant).await;
    }
    // The slot comes first: what is above the cap stays in the kernel's backlog and costs no
    // descriptor.
    let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
        return pending().await; // only a closed semaphore fails, and nobody closes it
    };
    (slot, listener.accept().await)
}

/// What every connection needs.
struct Server {
    builder: http1::Builder,
    app: axum::Router,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
}

impl Server {
    fn spawn(&self, connections: &mut JoinSet<()>, stream: Stream, slot: OwnedSemaphorePermit) {
        match stream {
            Stream::Tcp(stream) => {
                // Fails only when the client is gone already, which its connection will notice.
                let _ = stream.set_nodelay(true);
                connections.spawn(self.connection(stream, slot));
            }
            Stream::Unix(stream) => {
                connections.spawn(self.connection(stream, slot));
            }
        }
    }

    /// Drives one connection to its end; the slot is free when this is done or dropped.
    fn connection<I>(
        &self,
        stream: I,
        slot: OwnedSemaphorePermit,
    ) -> impl Future<Output = ()> + Send + use<I>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.app.clone());
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let (max_age, linger) = (self.limits.max_age, self.limits.request_timeout);
        let mut shutdown = self.shutdown.clone();
        async move {
            let _slot = slot;
            let mut connection = pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => Some(ended),
                () = sleep(max_age) => None,
                () = stopped(&mut shutdown) => None,
            };
            let ended = match ended {
                Some(ended) => Ok(ended),
                None => {
                    connection.as_mut().graceful_shutdown();
                    timeout(linger, connection).await
                }
            };
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(error = ?error, "connection failed"),
                Err(_) => tracing::debug!("connection cut off at its maximum age"),
            }
        }
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new()) // without it the header timeout does nothing
        .header_read_timeout(limits.header_timeout.min(MAX_HEADER_TIMEOUT))
        .max_buf_size(limits.max_head.max(MIN_HEAD))
        // `printf 'GET …' | nc` closes its half and still wants the answer.
        .half_close(true)
        .keep_alive(true);
    builder
}

fn permits(count: usize) -> usize {
    count.clamp(1, Semaphore::MAX_PERMITS)
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it whoever could give the order.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

fn report(at: &str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        // Handlers are caught in `harden`; this is a body or hyper itself.
        tracing::error!(listener = %at, error = ?error, "a connection's task panicked");
    }
}

/// Gives a router its manners: GET and HEAD only, a time limit, a limit of concurrent requests,
/// no sniffing, no caching, no request bodies, and a 500 instead of a lost connection if a
/// handler panics.
///
/// Covers the routes and the fallback that `router` has at this point, so it comes last; the
/// limit of concurrent requests is shared by all clones of the result.
pub fn harden(router: axum::Router, limits: &Limits) -> axum::Router {
    let gate = Gate {
        in_flight: Arc::new(Semaphore::new(permits(limits.max_in_flight))),
        timeout: limits.request_timeout,
    };
    router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let gate = gate.clone();
        async move { gate.pass(request, next).await }
    }))
}

#[derive(Clone)]
struct Gate {
    in_flight: Arc<Semaphore>,
    timeout: Duration,
}

impl Gate {
    async fn pass(&self, request: Request, next: Next) -> Response {
        let is_head = request.method() == Method::HEAD;
        let mut response = self.answer(request, next).await;
        let length = response.body().size_hint().exact();
        let headers = response.headers_mut();
        if let (true, Some(length)) = (is_head, length) {
            // hyper leaves an empty body's length out here, but not in the answer to GET.
            headers.entry(CONTENT_LENGTH).or_insert(length.into());
        }
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn answer(&self, request: Request, next: Next) -> Response {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let allow = [(ALLOW, "GET, HEAD")];
            return (StatusCode::METHOD_NOT_ALLOWED, allow, "only GET and HEAD\n").into_response();
        }
        let Ok(_permit) = self.in_flight.try_acquire() else {
            let retry = [(RETRY_AFTER, "1")];
            return (StatusCode::SERVICE_UNAVAILABLE, retry, "too many requests at once\n")
                .into_response();
        };
        // A body is not read: hyper closes the connection behind the answer if there is one.
        let (parts, _body) = request.into_parts();
        let uri = parts.uri.clone();
        let handler = next.run(Request::from_parts(parts, Body::empty()));
        // Unwind safety: the future is dropped and never polled again; what handlers share
        // guards itself.
        match timeout(self.timeout, AssertUnwindSafe(handler).catch_unwind()).await {
            Ok(Ok(response)) => response,
            Ok(Err(panic)) => {
                let path: String = uri.path().chars().take(128).collect();
                let panic = panic_text(panic.as_ref());
                tracing::error!(path = ?path, panic = ?panic, "a request handler panicked");
                (StatusCode::INTERNAL_SERVER_ERROR, "internal error\n").into_response()
            }
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "timed out\n").into_response(),
        }
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "not a text",
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
