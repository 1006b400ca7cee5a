//! Facts 3.1: what a program that runs already has of a key that is changed: `listen(2)` and
//! `socket(2)` read some keys once.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use headroom::sysctl::effect::{Moment, takes_effect};
use headroom::sysctl::key::Key;
use headroom_tests::root_or_skip;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket, sockopt};

use super::support::{fresh, netlink, set, write};

const SOMAXCONN: &str = "net/core/somaxconn";

/// A TCP socket bound to a port of its own on the loopback, and not listening yet.
fn bound() -> OwnedFd {
    let socket =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address = nix::sys::socket::SockaddrIn::new(127, 0, 0, 1, 0);
    nix::sys::socket::bind(socket.as_raw_fd(), &address).unwrap();
    socket
}

/// `listen(2)` with the largest backlog, as servers call it.
#[allow(unsafe_code)]
fn listen(socket: &impl AsRawFd) {
    // SAFETY: no pointers.
    let result = unsafe { libc::listen(socket.as_raw_fd(), 65_535) };
    assert_eq!(result, 0, "listen: {}", std::io::Error::last_os_error());
}

/// The longest accept queue, which `ss -ltn` shows as Send-Q: `tcp_get_info` gives it as
/// `tcpi_sacked` of a listener.
#[allow(unsafe_code)]
fn backlog(socket: &OwnedFd) -> u32 {
    // SAFETY: a structure of integers.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).unwrap();
    // SAFETY: both pointers are to values that outlive the call, the length is that of the first.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0, "TCP_INFO: {}", std::io::Error::last_os_error());
    info.tcpi_sacked
}

fn with_loopback<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    fresh(|| {
        netlink(async |handle| {
            use rtnetlink::LinkUnspec;
            let up = LinkUnspec::new_with_index(1).up().build();
            handle.link().set(up).execute().await.unwrap();
        });
        work()
    })
}

fn read_at(path: &str) -> Option<Moment> {
    takes_effect(&Key::parse(path).unwrap()).map(|effect| effect.read_at)
}

/// `__sys_listen` takes the smaller of the two, once.
#[test]
fn a_listener_keeps_its_backlog_until_it_listens_again() {
    let Some(_host) = root_or_skip() else { return };
    assert_eq!(read_at(SOMAXCONN), Some(Moment::Listen));
    with_loopback(|| {
        set(SOMAXCONN, 7);
        let socket = bound();
        listen(&socket);
        assert_eq!(backlog(&socket), 7);
        set(SOMAXCONN, 4000);
        assert_eq!(backlog(&socket), 7, "what listens already does not see it");
        listen(&socket);
        assert_eq!(backlog(&socket), 4000);
        // Down as well: it is no bound on what listens.
        set(SOMAXCONN, 5);
        assert_eq!(backlog(&socket), 4000);
    });
}

/// The queue that a burst fills is the one of the listener, whatever the key says by then.
#[test]
fn a_burst_overflows_the_queue_that_the_listener_began_with() {
    let Some(_host) = root_or_skip() else { return };
    with_loopback(|| {
        set(SOMAXCONN, 2);
        let socket = bound();
        listen(&socket);
        set(SOMAXCONN, 4000);
        let listener = TcpListener::from(socket);
        let before = overflows();
        let address = listener.local_addr().unwrap();
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        let connect = || TcpStream::connect(address);
        // The kernel lets one more than the backlog in (`sk_acceptq_is_full`).
        let in_queue: Vec<_> = (0..3).map(|_| connect().unwrap()).collect();
        assert_eq!((in_queue.len(), overflows()), (3, before));
        // Its SYN is dropped: it would wait for minutes.
        let _one_too_many = TcpStream::connect_timeout(&address, Duration::from_millis(100));
        assert!(overflows() > before, "ListenOverflows stands still");
        listen(&listener);
        let now = overflows();
        let more: Vec<_> = (0..20).map(|_| connect().unwrap()).collect();
        assert_eq!((more.len(), overflows()), (20, now));
    });
}

/// `ListenOverflows` of the namespace.
fn overflows() -> u64 {
    // /proc/net is that of the main thread.
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let mut pairs = names.split_whitespace().zip(values.split_whitespace());
    pairs.find(|(name, _)| *name == "ListenOverflows").unwrap().1.parse().unwrap()
}

/// `tcp_init_sock` reads the middle of three, once.
#[test]
fn a_socket_keeps_the_buffer_it_was_opened_with() {
    let Some(_host) = root_or_skip() else { return };
    assert_eq!(read_at("net/ipv4/tcp_rmem"), Some(Moment::Socket));
    fresh(|| {
        let open =
            || socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
        let before = open();
        let size = getsockopt(&before, sockopt::RcvBuf).unwrap();
        let value = "4096 200000 6291456";
        assert_eq!(write("net/ipv4/tcp_rmem", value), Ok(value.len()));
        assert_eq!(getsockopt(&before, sockopt::RcvBuf).unwrap(), size);
        assert_eq!(getsockopt(&open(), sockopt::RcvBuf).unwrap(), 200_000);
    });
}
