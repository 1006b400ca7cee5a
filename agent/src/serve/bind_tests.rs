#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;
use std::os::unix::net as std_unix;

use super::*;
use crate::kernel::listeners::holder_of;

fn on_runtime(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_taken_port_names_its_holder() {
    on_runtime(async {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = first.local_addr().unwrap();
        let error = tcp(addr).unwrap_err();
        assert_eq!(error.errno(), Errno::EADDRINUSE);
        let holder = holder_of(Path::new("/proc"), addr).unwrap();
        assert_eq!(holder.pid, std::process::id());
        let words = format!("{addr} is taken by {} (pid {})", holder.comm, holder.pid);
        let seen = BindError::Taken { addr, holder: Some(holder) };
        assert_eq!(seen.to_string(), words);
        let unseen = BindError::Taken { addr, holder: None };
        assert_eq!(
            unseen.to_string(),
            format!("{addr} is taken by another process (not visible from here: no hostPID)")
        );
        // The wildcard is in the way of it, too.
        let error = tcp(SocketAddr::new([0, 0, 0, 0].into(), addr.port())).unwrap_err();
        assert!(matches!(error, BindError::Taken { .. }), "{error}");
        assert!(holder_of(Path::new("/proc"), addr).is_some());
        drop(first);
        tcp(addr).unwrap();
    });
}

#[test]
fn a_listener_cannot_be_joined_with_reuseport() {
    use nix::sys::socket::sockopt::{ReuseAddr, ReusePort};
    on_runtime(async {
        let first = tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let intruder = TcpSocket::new_v4().unwrap();
        setsockopt(&intruder, ReuseAddr, &true).unwrap();
        setsockopt(&intruder, ReusePort, &true).unwrap();
        let joined =
            intruder.bind(first.local_addr().unwrap()).and_then(|()| intruder.listen(1).map(drop));
        assert_eq!(joined.map_err(|error| of_io(&error)), Err(Errno::EADDRINUSE));
    });
}

#[test]
fn both_wildcards_can_be_listed() {
    on_runtime(async {
        let v4 = tcp("0.0.0.0:0".parse().unwrap()).unwrap();
        let port = v4.local_addr().unwrap().port();
        match tcp(SocketAddr::new(std::net::Ipv6Addr::UNSPECIFIED.into(), port)) {
            Ok(v6) => assert!(v6.local_addr().unwrap().is_ipv6()),
            Err(error) => assert_eq!(error.errno(), Errno::EAFNOSUPPORT, "{error}"),
        }
    });
}

#[test]
fn an_address_of_another_host_is_named() {
    on_runtime(async {
        let error = tcp("192.0.2.1:19879".parse().unwrap()).unwrap_err();
        assert_eq!(error.errno(), Errno::EADDRNOTAVAIL);
        assert!(
            error.to_string().starts_with("cannot listen on 192.0.2.1:19879: bind: EADDRNOTAVAIL")
        );
    });
}

#[test]
fn a_socket_is_private_and_its_directory_created() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/headroom/agent.sock");
        let listener = unix(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        // Readable to all or less, as the umask has it, and writable to the owner alone.
        assert_eq!(mode_of(path.parent().unwrap()) & !0o055, 0o700);
        // The address the kernel reports, as in `ss -xl`, is the path itself.
        assert_eq!(listener.local_addr().unwrap().as_pathname(), Some(path.as_path()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    });
}

#[test]
fn a_socket_is_private_from_the_first_moment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let socket = private_socket().unwrap();
    bind(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    assert_eq!(mode_of(&path), 0o600);
}

#[test]
fn a_stale_socket_is_replaced() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(std_unix::UnixListener::bind(&path).unwrap());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        let _listener = unix(&path).unwrap();
        assert_eq!(mode_of(&path), 0o600);
        std_unix::UnixStream::connect(&path).unwrap();
    });
}

#[test]
fn a_live_socket_is_left_alone() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let first = unix(&path).unwrap();
        let error = unix(&path).unwrap_err();
        assert!(matches!(error, BindError::Live { .. }), "{error}");
        std_unix::UnixStream::connect(&path).unwrap();
        drop(first);
        unix(&path).unwrap();

        let datagram = dir.path().join("datagram.sock");
        let _held = std_unix::UnixDatagram::bind(&datagram).unwrap();
        assert!(matches!(unix(&datagram), Err(BindError::Live { .. })));
    });
}

#[test]
fn a_socket_with_a_full_backlog_is_live() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let addr = UnixAddr::new(&path).unwrap();
        let busy = stream_socket().unwrap();
        bind(busy.as_raw_fd(), &addr).unwrap();
        listen(&busy, Backlog::new(0).unwrap()).unwrap();
        let waiting: Vec<OwnedFd> = (0..4)
            .map(|_| stream_socket().unwrap())
            .take_while(|fd| connect(fd.as_raw_fd(), &addr).is_ok())
            .collect();
        assert!(!waiting.is_empty() && waiting.len() < 4);
        assert!(matches!(unix(&path), Err(BindError::Live { .. })));
    });
}

#[test]
fn anything_else_at_the_path_is_refused() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "precious").unwrap();
        fs::create_dir(at("dir")).unwrap();
        drop(std_unix::UnixListener::bind(at("stale")).unwrap());
        symlink(at("stale"), at("link")).unwrap();
        for (name, kind) in
            [("file", "a regular file"), ("dir", "a directory"), ("link", "a symbolic link")]
        {
            let error = unix(&at(name)).unwrap_err();
            assert_eq!(error.errno(), Errno::ENOTSOCK);
            let expected = format!(
                "cannot listen on {}: {kind} is there, and only a stale socket is replaced",
                at(name).display()
            );
            assert_eq!(error.to_string(), expected);
        }
        assert_eq!(fs::read_to_string(at("file")).unwrap(), "precious");
        // A file where the directory should be.
        let error = unix(&at("file/agent.sock")).unwrap_err();
        assert!(matches!(error, BindError::Unix { step: "mkdir", .. }), "{error}");
    });
}

#[test]
fn a_path_too_long_is_named_as_such() {
    on_runtime(async {
        let dir = tempfile::tempdir().unwrap();
        let room = MAX_SOCKET_PATH - dir.path().as_os_str().len() - 1;
        let _fits = unix(&dir.path().join("x".repeat(room))).unwrap();
        let error = unix(&dir.path().join("x".repeat(room + 1))).unwrap_err();
        assert!(error.to_string().ends_with("has at most 107 bytes, this one has 108"), "{error}");
        assert_eq!(error.errno(), Errno::ENAMETOOLONG);
    });
}
