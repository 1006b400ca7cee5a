#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{ErrorKind, Read as _, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as Client};
use std::path::Path;
use std::sync::{Mutex, mpsc};
use std::thread;

use axum::routing::get;
use nix::errno::Errno;

use super::*;
use crate::serve::{bind, client};

#[path = "http_limits_tests.rs"]
mod limits;

/// Long enough to mean "never" wherever it decides a verdict.
const GENEROUS: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// What the server's thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// A server in a thread of its own, with a current-thread runtime as the agent has it.
struct Server {
    addr: SocketAddr,
    stop: watch::Sender<bool>,
    ended: mpsc::Receiver<()>,
    log: Log,
}

impl Server {
    fn start(app: axum::Router, limits: Limits) -> Self {
        Self::start_on(app, limits, None)
    }

    fn start_on(app: axum::Router, limits: Limits, unix: Option<&Path>) -> Self {
        let (stop, stopping) = watch::channel(false);
        let (started, starting) = mpsc::channel();
        let (ending, ended) = mpsc::channel();
        let log = Log::default();
        let (writer, unix) = (log.clone(), unix.map(Path::to_owned));
        thread::spawn(move || {
            let subscriber = tracing_subscriber::fmt()
                .with_ansi(false)
                .with_max_level(tracing::Level::INFO)
                .with_writer(move || writer.clone())
                .finish();
            let _guard = tracing::subscriber::set_default(subscriber);
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut addr = SocketAddr::from(([127, 0, 0, 1], 0));
                let listener = if let Some(path) = unix {
                    Listener::Unix(bind::unix(&path).unwrap())
                } else {
                    let listener = bind::tcp(addr).unwrap();
                    addr = listener.local_addr().unwrap();
                    Listener::Tcp(listener)
                };
                started.send(addr).unwrap();
                serve(listener, harden(app, &limits), limits, stopping).await;
                ending.send(()).unwrap();
            });
        });
        Self { addr: starting.recv_timeout(GENEROUS).unwrap(), stop, ended, log }
    }

    fn connect(&self) -> Client {
        let client = Client::connect(self.addr).unwrap();
        client.set_read_timeout(Some(GENEROUS)).unwrap();
        client.set_write_timeout(Some(GENEROUS)).unwrap();
        client
    }

    /// Sends bytes on a new connection and reads until the server closes it.
    fn exchange(&self, request: &[u8]) -> String {
        let mut client = self.connect();
        let _ = client.write_all(request); // the server may close before it has it all
        read_all(&mut client)
    }

    fn request(&self, method: &str, path: &str) -> String {
        self.exchange(
            format!("{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes(),
        )
    }

    fn works(&self) {
        let answer = self.request("GET", "/ok");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nfine\n"), "{answer}");
    }

    /// Stops the server: it must end, whatever is going on.
    fn stop(&self) {
        self.stop.send(true).unwrap();
        self.ended.recv_timeout(GENEROUS).unwrap();
        assert!(Client::connect(self.addr).is_err());
    }
}

/// Everything until the end; a reset is an end, too; silence is not.
fn read_all(client: &mut Client) -> String {
    let mut answer = Vec::new();
    if let Err(error) = client.read_to_end(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "not closed by the server");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// One answer with the body `fine\n` on a connection that stays open.
fn read_fine(client: &mut Client) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nfine\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
}

const GET_OK: &[u8] = b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n";

fn app() -> axum::Router {
    axum::Router::new()
        .route("/ok", get(|| async { "fine\n" }))
        .route("/large", get(|| async { "x".repeat(8 << 20) }))
        .route("/never", get(pending::<()>))
        .route(
            "/panic",
            get(|| async {
                if true {
                    panic!("oh\x1b no")
                }
            }),
        )
}

/// Times that no test reaches, so that a test sets only the one it is about.
fn patient() -> Limits {
    Limits { header_timeout: HOUR, max_age: HOUR, request_timeout: HOUR, ..Limits::default() }
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("closed")
}

fn headers_of(answer: &str) -> Vec<String> {
    let head = answer.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().filter(|line| !line.starts_with("date:"));
    let mut lines: Vec<String> = lines.map(str::to_ascii_lowercase).collect();
    lines.sort();
    lines
}

#[test]
fn get_and_head_are_answered_alike() {
    let server = Server::start(app(), patient());
    server.works();
    for (path, code, length) in [
        ("/ok", "200", Some(5)),
        ("/large", "200", Some(8 << 20)),
        ("/nowhere", "404", Some(0)),
        ("/panic", "500", None),
    ] {
        let (get, head) = (server.request("GET", path), server.request("HEAD", path));
        assert_eq!((status(&get), status(&head)), (code, code));
        assert_eq!(headers_of(&get), headers_of(&head), "{path}");
        assert!(head.ends_with("\r\n\r\n"), "{head}");
        let headers = headers_of(&get);
        assert!(headers.contains(&"x-content-type-options: nosniff".to_owned()), "{headers:?}");
        assert!(headers.contains(&"cache-control: no-store".to_owned()), "{headers:?}");
        if let Some(length) = length {
            assert!(headers.contains(&format!("content-length: {length}")), "{headers:?}");
            assert_eq!(get.split_once("\r\n\r\n").unwrap().1.len(), length);
        }
    }
    assert!(server.exchange(b"GET /ok HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nfine\n"));
    server.stop();
}

#[test]
fn every_other_method_is_refused_on_every_path() {
    let server = Server::start(app(), patient());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW", "get"] {
        for path in ["/ok", "/nowhere", "/never"] {
            let answer = server.request(method, path);
            assert_eq!(status(&answer), "405", "{method} {path}: {answer}");
            assert!(headers_of(&answer).contains(&"allow: get, head".to_owned()), "{answer}");
        }
    }
    assert_eq!(
        status(&server.exchange(b"CONNECT a:1 HTTP/1.1\r\nConnection: close\r\n\r\n")),
        "405"
    );
    server.stop();
}

#[test]
fn request_bodies_are_not_read() {
    let server = Server::start(app(), patient());
    // The announced body never comes; the answer and the end of the connection do.
    for method in ["GET", "POST"] {
        for extra in ["", "Expect: 100-continue\r\n"] {
            let answer = server.exchange(
                format!(
                    "{method} /ok HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999\r\n{extra}\r\nab"
                )
                .as_bytes(),
            );
            let code = if method == "GET" { "200" } else { "405" };
            assert_eq!(status(&answer), code, "{method} {extra}: {answer}");
        }
    }
    server.stop();
}

#[test]
fn other_protocols_and_oversized_heads_are_turned_away() {
    let server = Server::start(app(), patient());
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(64 << 10));
    let endless_line = vec![b'a'; 64 << 10];
    let many = format!("GET /ok HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(10_000));
    let few_bytes_many = format!("GET /ok HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(101));
    let large_header = format!("GET /ok HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(64 << 10));
    for hostile in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03random bytes and so on",
        b"\0\0\0\0\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked, x\r\n\r\n",
        b"GET /ok HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET / ok HTTP/1.1\r\n\r\n",
        b"GET /ok HTTP/9.9\r\n\r\n",
        long_line.as_bytes(),
        &endless_line,
        many.as_bytes(),
        few_bytes_many.as_bytes(),
        large_header.as_bytes(),
    ] {
        let answer = server.exchange(hostile);
        let start = String::from_utf8_lossy(&hostile[..hostile.len().min(40)]);
        assert!(
            matches!(status(&answer).as_bytes(), [b'4', ..] | b"closed"),
            "{start:?}: {answer}"
        );
        server.works();
    }
    server.stop();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(app(), patient());
    let mut client = server.connect();
    client.write_all(&GET_OK.repeat(50)).unwrap();
    client.write_all(b"HEAD /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let answers = read_all(&mut client);
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 50);
    assert_eq!(answers.matches("fine\n").count(), 50);
    assert!(answers.rfind("HTTP/1.1 404") > answers.rfind("fine\n"));
    server.stop();
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let server = Server::start(app(), patient());
    let mut client = server.connect();
    client.write_all(GET_OK).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(read_all(&mut client).ends_with("fine\n"));
    let mut silent = server.connect();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_all(&mut silent), "");
    server.stop();
}
