//! Limits, shutdown and running out of descriptors.
#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn slow_silent_and_idle_connections_are_closed() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..patient() };
    let server = Server::start(app(), limits);
    let (mut silent, mut slow, mut idle) = (server.connect(), server.connect(), server.connect());
    slow.write_all(b"GET /ok HTTP/1.1\r\nHost: ").unwrap();
    idle.write_all(GET_OK).unwrap();
    assert!(!read_all(&mut silent).contains("200"));
    assert!(!read_all(&mut slow).contains("200"));
    assert_eq!(read_all(&mut idle).matches("HTTP/1.1").count(), 1);
    // A trickle does not count as progress.
    let mut trickle = server.connect();
    let start = Instant::now();
    while trickle.write_all(b"G").is_ok() {
        assert!(start.elapsed() < GENEROUS);
        thread::sleep(Duration::from_millis(10));
    }
    server.stop();
}

#[test]
fn a_connection_ends_at_its_maximum_age() {
    let server = Server::start(app(), Limits { max_age: Duration::from_millis(50), ..patient() });
    let mut idle = server.connect();
    idle.write_all(GET_OK).unwrap();
    read_fine(&mut idle);
    assert_eq!(read_all(&mut idle), "");
    // A client that does not read is cut off once `request_timeout` has passed, too.
    let short = Duration::from_millis(50);
    let limits = Limits { max_age: short, request_timeout: short, max_connections: 1, ..patient() };
    let server = Server::start(app(), limits);
    let mut deaf = server.connect();
    deaf.write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    server.works();
    drop(deaf);
    server.stop();
}

#[test]
fn the_connection_cap_holds_and_recovers() {
    let server = Server::start(app(), Limits { max_connections: 2, ..patient() });
    let (mut first, mut second) = (server.connect(), server.connect());
    for client in [&mut first, &mut second] {
        client.write_all(GET_OK).unwrap();
        read_fine(client);
    }
    let mut third = server.connect(); // by the kernel, into the backlog
    third.write_all(GET_OK).unwrap();
    third.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = third.read(&mut [0]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    // The other two are served all the while.
    second.write_all(GET_OK).unwrap();
    read_fine(&mut second);
    drop(first);
    third.set_read_timeout(Some(GENEROUS)).unwrap();
    read_fine(&mut third);
    server.stop();
}

#[test]
fn requests_in_flight_are_limited() {
    let (entered, entering) = mpsc::channel();
    let (entered, release) = (Arc::new(Mutex::new(entered)), Arc::new(Semaphore::new(0)));
    let hold = Arc::clone(&release);
    let slow = move || {
        entered.lock().unwrap().send(()).unwrap();
        let hold = Arc::clone(&hold);
        async move {
            hold.acquire().await.unwrap().forget();
            "fine\n"
        }
    };
    let limits = Limits { max_in_flight: 2, ..patient() };
    let server = Server::start(app().route("/slow", get(slow)), limits);
    let mut held = [server.connect(), server.connect()];
    for client in &mut held {
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        entering.recv_timeout(GENEROUS).unwrap();
    }
    let refused = server.request("GET", "/ok");
    assert_eq!(status(&refused), "503");
    assert!(headers_of(&refused).contains(&"retry-after: 1".to_owned()), "{refused}");
    assert!(headers_of(&refused).contains(&"cache-control: no-store".to_owned()), "{refused}");
    let [mut first, mut stays] = held;
    release.add_permits(1); // to the first that came
    read_fine(&mut first);
    server.works();
    // An answer that is being prepared is given, also when the order to stop comes before it.
    server.stop.send(true).unwrap();
    release.add_permits(1);
    read_fine(&mut stays);
    server.ended.recv_timeout(GENEROUS).unwrap();
}

#[test]
fn a_handler_that_takes_too_long_is_503() {
    let limits =
        Limits { request_timeout: Duration::from_millis(50), max_in_flight: 1, ..patient() };
    let server = Server::start(app(), limits);
    for _ in 0..3 {
        assert_eq!(status(&server.request("GET", "/never")), "503");
    }
    server.works();
    server.stop();
}

#[test]
fn a_panicking_handler_is_a_500_and_one_log_line() {
    let server = Server::start(app(), Limits { max_in_flight: 1, ..patient() });
    let mut client = server.connect();
    client.write_all(b"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    client.write_all(b"GET /ok HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let answers = read_all(&mut client);
    assert_eq!(status(&answers), "500");
    assert!(answers.ends_with("\r\n\r\nfine\n"), "{answers}");
    server.stop();
    let log = server.log.text();
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains("ERROR") && log.contains("a request handler panicked"), "{log}");
    assert!(log.contains("\"/panic\"") && !log.contains('\x1b'), "{log:?}");
}

#[test]
fn shutdown_ends_whatever_clients_do() {
    let server = Server::start(app(), patient());
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    clients[1].write_all(b"GET /ok HTTP/1.1\r\nHo").unwrap();
    clients[2].write_all(GET_OK).unwrap();
    read_fine(&mut clients[2]);
    clients[3].write_all(b"GET /never HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    clients[4].write_all(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    clients[4].read_exact(&mut [0]).unwrap(); // and no more
    server.works();
    server.stop();
    for client in &mut clients[..4] {
        assert!(!read_all(client).contains("200"));
    }
}

#[test]
fn a_lost_sender_is_the_order_to_stop() {
    let Server { stop, ended, .. } = Server::start(app(), patient());
    drop(stop);
    ended.recv_timeout(GENEROUS).unwrap();
}

#[test]
fn the_client_gets_answers_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let server = Server::start_on(app(), patient(), Some(&path));
    let response = |at| client::get(&path, at, GENEROUS).unwrap();
    assert_eq!(response("/ok"), client::Response { status: 200, body: b"fine\n".to_vec() });
    assert_eq!(response("/panic").status, 500);
    assert_eq!(response("/panic").body, b"internal error\n");
    assert_eq!(response("/large").body.len(), 8 << 20);
    assert_eq!(response("/nowhere").status, 404);
    server.stop.send(true).unwrap();
    server.ended.recv_timeout(GENEROUS).unwrap();
    assert!(matches!(client::get(&path, "/ok", GENEROUS), Err(client::ClientError::Refused(_))));
}

#[test]
fn limits_out_of_range_do_not_panic() {
    let least = Limits { max_head: 0, max_connections: 0, max_in_flight: 0, ..patient() };
    let most = Limits {
        header_timeout: Duration::MAX,
        max_head: usize::MAX,
        max_connections: usize::MAX,
        max_age: Duration::MAX,
        request_timeout: Duration::MAX,
        max_in_flight: usize::MAX,
    };
    for limits in [least, most] {
        let server = Server::start(app(), limits);
        server.works();
        server.stop();
    }
}

#[test]
fn accept_errors_are_told_apart_and_logged_once() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let mut errors = AcceptErrors::default();
    let start = Instant::now();
    let pause = |errors: &mut AcceptErrors, errno: Errno| {
        errors.failed("here", &errno.into(), start).map(|until| (until - start).as_millis())
    };
    for errno in [Errno::ECONNABORTED, Errno::ECONNRESET, Errno::EPERM, Errno::EINTR] {
        assert_eq!(pause(&mut errors, errno), None);
    }
    assert_eq!(errors.accepted(start), None);
    let pauses: Vec<u128> = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM]
        .into_iter()
        .cycle()
        .take(8)
        .map(|errno| pause(&mut errors, errno).unwrap())
        .collect();
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    // A success ends the pauses at once, but the episode only after a while.
    assert_eq!(errors.accepted(start), None);
    assert_eq!(pause(&mut errors, Errno::EMFILE), Some(100));
    assert_eq!(log.text().lines().count(), 1, "{}", log.text());
    assert!(log.text().contains("EMFILE"), "{}", log.text());
    assert_eq!(errors.accepted(start + AcceptErrors::MAX_PAUSE), Some(9));
    assert_eq!(errors.accepted(start + HOUR), None);
    // Neither an unheard-of error nor endless aborted connections make the loop spin.
    assert_eq!(pause(&mut errors, Errno::EINVAL), Some(100));
    assert_eq!(log.text().lines().count(), 2);
    let aborted = (0..5000).filter(|_| pause(&mut errors, Errno::ECONNABORTED).is_none()).count();
    assert_eq!(aborted, AcceptErrors::MAX_ABORTED as usize);
}

/// Runs [`out_of_descriptors`] in a process with few descriptors.
#[test]
fn the_server_survives_running_out_of_descriptors() {
    let output = std::process::Command::new("/bin/sh")
        .args(["-c", "ulimit -n 40 && exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", concat!(module_path!(), "::out_of_descriptors")].map(|arg| {
            arg.split_once("::").map_or(arg, |(_, path)| path) // without the crate's name
        }))
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{output:?}");
}

#[test]
#[ignore = "run by the_server_survives_running_out_of_descriptors"]
fn out_of_descriptors() {
    let server = Server::start(app(), patient());
    server.works();
    let mut kept = server.connect();
    kept.write_all(GET_OK).unwrap();
    read_fine(&mut kept);
    let mut ballast = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        ballast.push(file);
        assert!(ballast.len() < 1000, "there is no limit");
    }
    ballast.pop();
    let mut waiting = server.connect(); // takes the last one; accept finds none
    waiting.write_all(GET_OK).unwrap();
    let start = Instant::now();
    while !server.log.text().contains("EMFILE") {
        assert!(start.elapsed() < GENEROUS);
        thread::sleep(Duration::from_millis(10));
    }
    // Who is connected is served: the liveness probe keeps its connection, or has a socket of its own.
    kept.write_all(GET_OK).unwrap();
    read_fine(&mut kept);
    drop(ballast);
    read_fine(&mut waiting);
    server.works();
    server.stop();
    let log = server.log.text();
    assert_eq!(log.matches("EMFILE").count(), 1, "{log}");
}
