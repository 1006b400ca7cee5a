#![allow(clippy::unwrap_used)]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::thread;

use super::*;

const GENEROUS: Duration = Duration::from_secs(30);

/// Answers one connection with these bytes, and closes it after having read the request.
fn answer(bytes: impl Into<Vec<u8>>) -> Result<Response, ClientError> {
    let bytes = bytes.into();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            request.push(byte[0]);
        }
        // The client may have seen enough before all is written.
        let _ = stream.write_all(&bytes);
        String::from_utf8(request).unwrap()
    });
    let result = get(&path, "/healthz?x=1", GENEROUS);
    let request = server.join().unwrap();
    assert!(request.starts_with("GET /healthz?x=1 HTTP/1.1\r\n"), "{request}");
    result
}

fn ok(bytes: impl Into<Vec<u8>>) -> (u16, String) {
    let response = answer(bytes).unwrap();
    (response.status, String::from_utf8(response.body).unwrap())
}

#[test]
fn framings_are_understood() {
    assert_eq!(ok("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi and more"), (200, "hi".into()));
    assert_eq!(ok("HTTP/1.0 404\nX: y:z\n\nuntil the end"), (404, "until the end".into()));
    assert_eq!(ok("HTTP/1.1 204 \r\ncontent-length: 5\r\n\r\n"), (204, String::new()));
    assert_eq!(
        ok("HTTP/1.1 500 Oh no\r\nTRANSFER-ENCODING:  Chunked \r\n\r\n\
            3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n"),
        (500, "abc0123456789".into())
    );
}

#[test]
fn large_bodies_arrive_and_larger_ones_do_not() {
    let mut large = format!("HTTP/1.1 200 OK\r\nContent-Length: {MAX_BODY}\r\n\r\n").into_bytes();
    large.resize(large.len() + MAX_BODY, b'x');
    assert_eq!(answer(large).unwrap().body.len(), MAX_BODY);

    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", MAX_BODY + 1);
    assert!(matches!(answer(announced), Err(ClientError::TooLarge)));
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(endless.len() + MAX_BODY + 1, b'x');
    assert!(matches!(answer(endless), Err(ClientError::TooLarge)));
    let chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n";
    let mut chunk = chunk.to_owned().into_bytes();
    chunk.resize(chunk.len() + MAX_BODY + 1, b'x');
    assert!(matches!(answer(chunk), Err(ClientError::TooLarge)));
}

#[test]
fn garbage_is_an_error() {
    let head = "HTTP/1.1 200 OK\r\n";
    let many = "A: b\r\n".repeat(MAX_HEADERS + 1);
    for garbage in [
        "SSH-2.0-OpenSSH_9.9\r\n".to_owned(),
        "HTTP/2 200 OK\r\n\r\n".into(),
        "HTTP/1.1\r\n\r\n".into(),
        "HTTP/1.1 2000 OK\r\n\r\n".into(),
        "HTTP/1.1 +20 OK\r\n\r\n".into(),
        "HTTP/1.1 099 OK\r\n\r\n".into(),
        "HTTP/1.1 100 Continue\r\n\r\n".into(),
        "\0\u{fffd}\n".into(),
        "x".repeat(2 * MAX_LINE),
        format!("{head}no colon\r\n\r\n"),
        format!("{head}{many}\r\n"),
        format!("{head}Content-Length: \r\n\r\n"),
        format!("{head}Content-Length: -1\r\n\r\n"),
        format!("{head}Content-Length: 99999999999999999999999\r\n\r\n"),
        format!("{head}Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        format!("{head}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n11111111111111111\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n{many}\r\n"),
    ] {
        let error = answer(garbage.as_str()).unwrap_err();
        assert!(matches!(error, ClientError::Malformed(_)), "{garbage:?}: {error}");
    }
}

#[test]
fn an_answer_cut_short_is_an_error() {
    let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    for cut in 0..whole.len() {
        assert!(matches!(answer(&whole[..cut]), Err(ClientError::Closed)), "{cut}");
    }
    let short = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab";
    assert!(matches!(answer(short), Err(ClientError::Closed)));
}

#[test]
fn missing_and_left_over_sockets_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let error = get(&path, "/", GENEROUS).unwrap_err();
    assert!(matches!(error, ClientError::NoSocket(_)));
    let text = error.to_string();
    assert!(text.starts_with(&format!("no agent answers on {}: is it running?", path.display())));
    drop(UnixListener::bind(&path).unwrap());
    assert!(matches!(get(&path, "/", GENEROUS), Err(ClientError::Refused(_))));
    let long = dir.path().join("x".repeat(200));
    assert!(matches!(
        get(&long, "/", GENEROUS),
        Err(ClientError::Io { errno: Errno::ENAMETOOLONG, .. })
    ));
}

#[test]
fn the_deadline_is_for_the_whole_exchange() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let short = Duration::from_millis(50);
    // Nobody accepts: the kernel lets us connect, and nothing comes.
    assert!(matches!(get(&path, "/", short), Err(ClientError::Timeout { .. })));
    assert!(matches!(get(&path, "/", Duration::ZERO), Err(ClientError::Timeout { .. })));
    let (forgotten, _) = listener.accept().unwrap();
    drop(forgotten);
    // One byte now and then keeps every single read short, but not the sum.
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(matches!(get(&path, "/", short), Err(ClientError::Timeout { .. })));
    server.join().unwrap();
}

#[test]
fn a_full_backlog_is_a_timeout() {
    use nix::sys::socket::{Backlog, bind, listen};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let open = || socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None);
    let addr = UnixAddr::new(&path).unwrap();
    let busy = open().unwrap();
    bind(busy.as_raw_fd(), &addr).unwrap();
    listen(&busy, Backlog::new(0).unwrap()).unwrap();
    let waiting: Vec<OwnedFd> = (0..4)
        .map(|_| open().unwrap())
        .take_while(|fd| connect(fd.as_raw_fd(), &addr).is_ok())
        .collect();
    assert!(waiting.len() < 4);
    let result = get(&path, "/", Duration::from_millis(50));
    assert!(matches!(result, Err(ClientError::Timeout { .. })), "{result:?}");
}

#[test]
fn a_request_cannot_be_smuggled_through_the_path() {
    for path in ["", "status", "/a b", "/a\r\nX: y", "/é"] {
        let result = get(Path::new("/nonexistent"), path, GENEROUS);
        assert!(matches!(result, Err(ClientError::BadPath(_))), "{path:?}");
    }
}
