//! Kernel modules that come and go. None can be loaded here: the kernel sends the event all the
//! same where CAP_SYS_ADMIN asks for it (`uevent_net_rcv_skb`), as its own, in that network
//! namespace.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::os::fd::{AsRawFd as _, OwnedFd};

use headroom::kernel::name::Name;
use headroom::kernel::uevents::{ModuleEvent, ModuleEvents};
use headroom_tests::agent_process::Home;
use headroom_tests::{Namespace, root_or_skip};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sendto, socket,
};

fn event(action: &str, name: &str) -> Vec<u8> {
    let path = format!("/module/{name}");
    format!("{action}@{path}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=module\0").into_bytes()
}

/// A sender in the calling thread's network namespace.
struct Sender(OwnedFd);

impl Sender {
    fn new() -> Self {
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let flags = SockFlag::SOCK_CLOEXEC;
        Self(socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).unwrap())
    }

    /// Has the kernel send it: header of a netlink message, then the event.
    fn by_kernel(&self, event: &[u8]) {
        let mut message = (16 + event.len() as u32).to_ne_bytes().to_vec();
        message.extend([16, 0, 1, 0]); // a type of its own, NLM_F_REQUEST
        message.extend([0; 8]);
        message.extend(event);
        self.send(&message, 0);
    }

    /// Sends it to the kernel's listeners directly.
    fn forged(&self, event: &[u8]) {
        self.send(event, 1);
    }

    fn send(&self, bytes: &[u8], group: u32) {
        let to = NetlinkAddr::new(0, group);
        sendto(self.0.as_raw_fd(), bytes, &to, MsgFlags::empty()).unwrap();
    }
}

#[test]
fn the_kernels_word_is_taken_and_nobody_elses() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let name = |name: &str| Name::from_bytes(name);
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut events = ModuleEvents::subscribe().unwrap();
            let sender = Sender::new();
            sender.forged(&event("add", "forged"));
            sender.by_kernel(b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM=net\0");
            sender.by_kernel(&event("change", "br_netfilter"));
            sender.by_kernel(&event("add", "br_netfilter"));
            sender.by_kernel(&event("remove", "br_netfilter"));
            let appeared = ModuleEvent::Appeared(name("br_netfilter"));
            assert_eq!(events.next().await.unwrap(), appeared);
            assert_eq!(events.next().await.unwrap(), ModuleEvent::Gone(name("br_netfilter")));

            // More than the buffer holds: said once, and when there is room again it goes on.
            for _ in 0..5000 {
                sender.by_kernel(&event("add", "many"));
            }
            assert_eq!(events.next().await.unwrap(), ModuleEvent::Overrun);
            let last = ModuleEvent::Appeared(name("last"));
            loop {
                sender.by_kernel(&event("add", "last"));
                let next = events.next().await.unwrap();
                if next == last {
                    break;
                }
                assert_eq!(next, ModuleEvent::Appeared(name("many")));
            }
        });
    });
}

#[test]
fn the_agent_hears_of_modules_in_its_network_namespace() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure("hostNetns: current\nlog: { level: debug }\n");
    let mut agent = home.start();
    let sender = netns.run(Sender::new);
    sender.by_kernel(&event("add", "br_netfilter"));
    agent.wait_until("told", |agent| {
        agent.log_with(&["module loaded", "module=br_netfilter"]).len() == 1
    });
    sender.by_kernel(&event("remove", "x\x1b[31m"));
    agent.wait_until("told", |agent| agent.log_with(&["module removed", "x\\x1b[31m"]).len() == 1);
    assert!(agent.is_ready());
}
