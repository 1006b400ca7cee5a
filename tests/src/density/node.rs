//! A node's bridge and its pods, each a namespace with one end of a veth pair. Nothing but the pods
//! hangs on the bridge, so no packet leaves it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::libc;

use super::table_fulls;
use super::talk::{Talker, Talks};
use crate::{HostLock, Pods, ip, ip_batch, try_ip};

/// Its name. Whoever has the lock of the host is alone.
pub const BRIDGE: &str = "hrtestbr0";
/// A network for benchmarks (RFC 2544), which no host should have.
const NETWORK: [u8; 2] = [198, 18];
const NODE: Ipv4Addr = Ipv4Addr::new(NETWORK[0], NETWORK[1], 255, 254);
/// Tries to have two talk, each for as long as a talker waits.
const TRIES: usize = 200;

/// The node.
pub struct Node {
    // In the order of their end: sockets keep namespaces alive.
    talks: Talks,
    talkers: Vec<Talker>,
    itself: Option<Talker>,
    pods: Pods,
}

impl Node {
    /// A bridge, and no pod yet.
    pub fn new(host: &HostLock) -> Self {
        // A killed run's.
        let _ = try_ip(["link", "delete", BRIDGE]);
        let pods = Pods::new(host);
        ip(["link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"]);
        let mut node = Self { talks: Talks::new(), talkers: Vec::new(), itself: None, pods };
        ip(["address", "add", &format!("{NODE}/16"), "dev", BRIDGE]);
        ip(["link", "set", BRIDGE, "up"]);
        node.itself = Some(Talker::new(NODE));
        node
    }

    /// Where the pods' namespaces are.
    pub fn directory(&self) -> PathBuf {
        self.pods.netns()
    }

    /// How many pods there are.
    pub fn pods(&self) -> usize {
        self.talkers.len()
    }

    /// Starts pods. They have said nothing yet.
    pub fn add(&mut self, count: usize) {
        let first = self.talkers.len();
        let mut batch = String::new();
        for pod in first..first + count {
            let mut talker = None;
            self.pods.create_after(pod.to_string(), || {
                for conf in ["all", "default"] {
                    let path = format!("/proc/sys/net/ipv6/conf/{conf}/disable_ipv6");
                    // A kernel without IPv6 needs none of it.
                    let _ = fs::write(path, "1");
                }
                talker = Some(Talker::new(address(pod)));
            });
            self.talkers.extend(talker);
            let path = self.pods.path(pod.to_string());
            let (port, path) = (port(pod), path.display());
            writeln!(
                batch,
                "link add {port} master {BRIDGE} type veth peer name eth0 netns {path}\n\
                 link set {port} up"
            )
            .unwrap();
        }
        ip_batch(batch);
        for talker in &self.talkers[first..] {
            bring_up(&talker.socket, talker.address).unwrap();
        }
    }

    /// Has the node and a pod talk from now on; whether they could.
    pub fn talk_to(&self, pod: usize) -> bool {
        let node = self.itself.as_ref().expect("made with the node");
        self.begin((usize::MAX, pod), node, &self.talkers[pod])
    }

    /// Has two pods talk from now on; whether they could.
    pub fn talk(&self, one: usize, other: usize) -> bool {
        self.begin((one, other), &self.talkers[one], &self.talkers[other])
    }

    /// They could where both got an answer, and the table refused nobody anything meanwhile.
    fn begin(&self, pair: (usize, usize), one: &Talker, other: &Talker) -> bool {
        let before = table_fulls();
        let answered = (0..TRIES).any(|_| table_fulls() > before || one.asks(other));
        if table_fulls() > before {
            return false;
        }
        assert!(answered, "{} and {} cannot talk", one.address, other.address);
        self.talks.begin(pair, one, other);
        true
    }

    /// Two pods talk no more. What a collection would take half a minute later goes now.
    pub fn end(&self, one: usize, other: usize) {
        self.talks.end((one, other));
        for (from, to) in [(one, other), (other, one)] {
            forget(&self.talkers[from].socket, self.talkers[to].address).unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.talks.stop();
        self.talkers.clear();
        self.itself = None;
        // The pairs go with their namespaces, at once; one by one it takes long.
        self.pods.remove_all();
        let left =
            || fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif")).map_or(0, Iterator::count);
        let until = Instant::now() + Duration::from_secs(60);
        while left() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        if let Err(error) = try_ip(["link", "delete", BRIDGE]) {
            eprintln!("{error}");
        }
    }
}

fn port(pod: usize) -> String {
    format!("hrtest-p{pod}")
}

fn address(pod: usize) -> Ipv4Addr {
    let [high, low] = u16::try_from(pod + 1).unwrap().to_be_bytes();
    Ipv4Addr::new(NETWORK[0], NETWORK[1], high, low)
}

/// Gives `eth0` of the socket's namespace its address, as `ip` would: `netdevice(7)`.
fn bring_up(socket: &UdpSocket, address: Ipv4Addr) -> io::Result<()> {
    let network = Ipv4Addr::new(255, 255, 0, 0);
    ioctl(socket, libc::SIOCSIFADDR, &mut interface(of(address)))?;
    ioctl(socket, libc::SIOCSIFNETMASK, &mut interface(of(network)))?;
    let flags = libc::__c_anonymous_ifr_ifru { ifru_flags: libc::IFF_UP as libc::c_short };
    ioctl(socket, libc::SIOCSIFFLAGS, &mut interface(flags))
}

/// Removes a neighbor from the socket's namespace: `arp(7)`.
fn forget(socket: &UdpSocket, neighbor: Ipv4Addr) -> io::Result<()> {
    let unset = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let mut request = libc::arpreq {
        arp_pa: sockaddr(neighbor),
        arp_ha: unset,
        arp_flags: 0,
        arp_netmask: unset,
        arp_dev: [0; 16],
    };
    name(&mut request.arp_dev);
    match ioctl(socket, libc::SIOCDARP, &mut request) {
        // It went by itself.
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        other => other,
    }
}

fn of(address: Ipv4Addr) -> libc::__c_anonymous_ifr_ifru {
    libc::__c_anonymous_ifr_ifru { ifru_addr: sockaddr(address) }
}

fn sockaddr(address: Ipv4Addr) -> libc::sockaddr {
    // struct sockaddr_in: port, address
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn interface(request: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut interface = libc::ifreq { ifr_name: [0; 16], ifr_ifru: request };
    name(&mut interface.ifr_name);
    interface
}

fn name(into: &mut [libc::c_char; 16]) {
    for (to, from) in into.iter_mut().zip(b"eth0") {
        *to = *from as libc::c_char;
    }
}

#[allow(unsafe_code)]
fn ioctl<T>(socket: &UdpSocket, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: these requests take a pointer to a struct ifreq or arpreq, which lives.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, argument as *mut T) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
