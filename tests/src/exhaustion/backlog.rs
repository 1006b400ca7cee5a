//! The CPU backlog: one broadcast of the node on a bridge, of which a port's copy is lost.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use headroom::config::profiles;
use headroom::limits::{Limit, ask_all, cheap, cpu_backlog};
use headroom::node::NodeState;
use headroom::sysctl::policy::Want;
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;

use super::eyes::{Eyes, roots};
use super::{Bench, Fact, Foretold, Row, bridge};
use crate::{Namespace, SavedSysctls};

const KEY: &str = "net.core.netdev_max_backlog";
const FILE: &str = "net/core/netdev_max_backlog";
/// The kernel's default.
const DEFAULT: u64 = 1000;
/// Ports that fit whatever the kernel's arithmetic is, and those of a bridge that is all but full.
const FEW: u64 = 980;
const MANY: u64 = 1020;
/// Until softirqs have taken everything from their queues.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let _saved = SavedSysctls::new(bench.host, [FILE]);
    set(DEFAULT);
    let netns = Namespace::new(bench.host);
    netns.write("net/ipv6/conf/default/disable_ipv6", "1");
    netns.ip(["link", "add", "br0", "up", "type", "bridge"]);
    let mut foretold = Foretold::default();
    let mut there = 0;
    make_ready(&netns);
    let mut grow = |to: u64, foretold: &mut Foretold| {
        let join = |n| format!("link set v{n} master br0\n");
        netns.ip_batch((there..to).map(join).collect::<String>());
        there = to;
        foretold.look(to, limit(&netns))
    };
    for ports in [FEW / 4, FEW / 2, FEW * 3 / 4] {
        grow(ports, &mut foretold);
    }
    // One port more until a copy is lost.
    let fitted = (FEW..MANY).find(|ports| {
        grow(*ports, &mut foretold);
        broadcast(&netns) > 0
    });
    let Some(first_loss) = fitted else {
        return Err(format!("one broadcast to {MANY} ports loses nothing here"));
    };
    let said = grow(MANY, &mut foretold).remaining;
    let before = counted();
    let lost = broadcast(&netns);
    let counted = counted().zip(before).map(|(now, before)| now - before);
    if (said, counted) != (Some(0), Some(lost)) {
        return Err(format!("{lost} copies are lost; Headroom said {said:?}, counts {counted:?}"));
    }
    let value = profile()?;
    set(value);
    let lost_then = broadcast(&netns);
    let fitted = first_loss - 1;
    Ok(Row {
        limit: "CPU backlog, one broadcast of the node on a bridge",
        pod: "a veth on the bridge".to_owned(),
        set_to: format!("{DEFAULT}, the default"),
        predictions: foretold.quarters(fitted),
        fact: Fact { pods: fitted, refusal: "softnet `dropped` rose".to_owned() },
        allowed: 0,
        note: Some(format!(
            "at {MANY} ports, of which Headroom says that they are too many, one broadcast loses {lost} \
             copies, and Headroom counts as many; at {value}, the value of the profile `dense-node`, \
             it loses {lost_then}"
        )),
    })
}

fn set(value: u64) {
    fs::write(format!("/proc/sys/{FILE}"), value.to_string()).unwrap();
}

/// Makes veth pairs that only have to join the bridge: what is up already forwards from then on, of
/// what comes up later the bridge hears some time after.
fn make_ready(netns: &Namespace) {
    let pair =
        |n| format!("link add v{n} type veth peer name p{n}\nlink set p{n} up\nlink set v{n} up\n");
    netns.ip_batch((0..MANY).map(pair).collect::<String>());
    let up = || netns.ip(["-o", "link", "show", "type", "veth"]).matches("state UP").count();
    let deadline = Instant::now() + PATIENCE;
    while up() < 2 * usize::try_from(MANY).unwrap() {
        assert!(Instant::now() < deadline, "not all veth pairs are up");
        sleep(Duration::from_millis(10));
    }
}

/// What the profile has for it.
fn profile() -> Result<u64, String> {
    let profile = profiles::get("dense-node").and_then(Result::ok).ok_or("no profile")?;
    let (_, policy) =
        profile.policies().find(|(key, _)| key.to_string() == KEY).ok_or("not in the profile")?;
    match policy.want {
        Want::Bounds { min: Some(min), .. } => min.parse().map_err(|_| min),
        _ => Err("no bound".to_owned()),
    }
}

/// How Headroom sees it.
fn limit(netns: &Namespace) -> Option<Limit> {
    let mut node = NodeState { bridges: Some(vec![bridge::look(netns)]), ..NodeState::default() };
    ask_all(&mut cheap(&roots()), &mut node);
    cpu_backlog::limits(&node).pop()
}

/// The lost frames that Headroom counts.
fn counted() -> Option<u64> {
    Eyes::new().see(cpu_backlog::QUEUE.name, "")?.hits
}

/// Sends one broadcast from the bridge itself; how many copies of it were lost.
fn broadcast(netns: &Namespace) -> u64 {
    let before = drops();
    netns.run(send);
    let deadline = Instant::now() + PATIENCE;
    while softnet(11) > 0 {
        assert!(Instant::now() < deadline, "the backlog does not drain");
        sleep(Duration::from_millis(1));
    }
    drops() - before
}

fn drops() -> u64 {
    softnet(1)
}

/// A column of `/proc/net/softnet_stat`, summed over CPUs: 1 is `dropped`, 11 the length of both
/// queues (5.14, 5.10 has no such column).
fn softnet(column: usize) -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let value = |line: &str| Some(u64::from_str_radix(line.split(' ').nth(column)?, 16).unwrap());
    text.lines().filter_map(value).sum()
}

/// A frame to all, of an EtherType for experiments (IEEE 802, 0x88b5): nobody answers.
#[allow(unsafe_code)]
fn send() {
    let index = if_nametoindex("br0").unwrap();
    // SAFETY: no pointers.
    let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    Errno::result(socket).unwrap();
    // SAFETY: all zero is a valid address.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = 0x88b5_u16.to_be();
    address.sll_ifindex = index.cast_signed();
    address.sll_halen = 6;
    address.sll_addr = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0];
    let frame = [0_u8; 46];
    // SAFETY: the frame and the address outlive the call and are as long as it is told.
    let sent = unsafe {
        libc::sendto(
            socket,
            frame.as_ptr().cast(),
            frame.len(),
            0,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    // The bridge says ENOBUFS where the first copy was lost already, which is none of ours.
    let sent = Errno::result(sent);
    // SAFETY: it is ours and not used again.
    unsafe { libc::close(socket) };
    assert_eq!(sent, Ok(46));
}
