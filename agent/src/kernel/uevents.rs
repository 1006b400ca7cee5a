//! Kernel modules that come and go, as the kernel tells udev.
//!
//! The event is sent before the module's own code has run (`load_module` in `kernel/module/main.c`:
//! `mod_sysfs_setup` comes before `do_init_module`), so what a module brings along is there a
//! little later.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_KOBJECT_UEVENT};
use nix::errno::Errno;
use nix::libc::{self, sock_filter, sock_fprog};
use tokio::io::unix::AsyncFd;

use super::errno::of_io;
use super::inotify::readable;
use super::name::Name;

/// The kernel's own messages; udev's rewritten ones are in group 2.
const KERNEL_GROUP: u32 = 1;
/// `UEVENT_BUFFER_SIZE` is 2048, and the header in front of it a path.
const LONGEST: usize = 8192;
/// `MODULE_NAME_LEN` is 64 less a long.
const LONGEST_NAME: usize = 64;

/// What happened to a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleEvent {
    /// It is being loaded: its code runs in a moment.
    Appeared(Name),
    /// It was removed.
    Gone(Name),
    /// The kernel dropped events because the socket's buffer was full.
    Overrun,
}

/// Events of all modules. Needs no capability. They arrive in every network namespace that belongs
/// to the initial user namespace (`uevent_net_broadcast_untagged` in `lib/kobject_uevent.c`); in
/// others none do.
pub struct ModuleEvents {
    socket: Socket,
    readable: AsyncFd<OwnedFd>,
}

impl ModuleEvents {
    /// Subscribes. Needs a tokio runtime.
    pub fn subscribe() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_KOBJECT_UEVENT)?;
        // Before the first message can arrive. Without it the agent wakes for every interface of
        // every pod, which is the same to what is told.
        let _ = modules_only(socket.as_fd());
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, KERNEL_GROUP))?;
        let readable = readable(socket.as_fd())?;
        Ok(Self { socket, readable })
    }

    /// The next event. An error is the socket's end.
    pub async fn next(&mut self) -> io::Result<ModuleEvent> {
        let mut buffer = Vec::with_capacity(LONGEST);
        loop {
            let mut ready = self.readable.readable().await?;
            buffer.clear();
            match self.socket.recv_from(&mut buffer, 0) {
                // Another process may send to the group too, if it has CAP_NET_ADMIN.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => {
                    if let Some(event) = parse(&buffer) {
                        return Ok(event);
                    }
                }
                Err(error) => match of_io(&error) {
                    Errno::EAGAIN => ready.clear_ready(),
                    Errno::EINTR => {}
                    Errno::ENOBUFS => return Ok(ModuleEvent::Overrun),
                    _ => return Err(error),
                },
            }
        }
    }
}

/// What a message says of a module; `None`: it is about something else, or makes no sense.
///
/// `ACTION@DEVPATH`, then `KEY=VALUE`, each ended by a zero (`kobject_uevent_env`).
#[must_use]
pub fn parse(message: &[u8]) -> Option<ModuleEvent> {
    let message = message.get(..LONGEST).unwrap_or(message);
    let mut fields = message.split(|byte| *byte == 0);
    let header = fields.next()?;
    if !fields.any(|field| field == b"SUBSYSTEM=module") {
        return None;
    }
    let name = |prefix: &[u8]| {
        let name = header.strip_prefix(prefix)?;
        let plausible = (1..=LONGEST_NAME).contains(&name.len()) && !name.contains(&b'/');
        plausible.then(|| Name::from_bytes(name))
    };
    let appeared = name(b"add@/module/").map(ModuleEvent::Appeared);
    appeared.or_else(|| name(b"remove@/module/").map(ModuleEvent::Gone))
}

/// Has the kernel drop what does not begin like a module's event (`socket(7)`,
/// SO_ATTACH_FILTER).
fn modules_only(socket: BorrowedFd<'_>) -> io::Result<()> {
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    let answer = |length| statement(libc::BPF_RET | libc::BPF_K, length);
    // Jumps are counted from the next instruction; a load beyond the message drops it.
    let mut program = [
        load(0),
        if_equal(b"add@", 0, 2),
        load(4),
        if_equal(b"/mod", 6, 5),
        if_equal(b"remo", 0, 4),
        load(4),
        if_equal(b"ve@/", 0, 2),
        load(8),
        if_equal(b"modu", 1, 0),
        answer(0),
        answer(u32::MAX),
    ];
    attach(socket, &mut program)
}

fn statement(code: u32, k: u32) -> sock_filter {
    // Every code is below 256.
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn if_equal(text: &[u8; 4], then: u8, otherwise: u8) -> sock_filter {
    let code = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    sock_filter { jt: then, jf: otherwise, ..statement(code, u32::from_be_bytes(*text)) }
}

#[allow(unsafe_code)]
fn attach(socket: BorrowedFd<'_>, program: &mut [sock_filter]) -> io::Result<()> {
    let program = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which lives until after the call, and its length is
    // that of the slice.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(header: &[u8], subsystem: &str) -> Vec<u8> {
        let rest = format!("\0ACTION=x\0DEVPATH=/x\0SUBSYSTEM={subsystem}\0SEQNUM=891\0");
        [header, rest.as_bytes()].concat()
    }

    #[test]
    fn only_modules_are_told() {
        let name = || Name::from_bytes("br_netfilter");
        for (header, subsystem, told) in [
            ("add@/module/br_netfilter", "module", Some(ModuleEvent::Appeared(name()))),
            ("remove@/module/br_netfilter", "module", Some(ModuleEvent::Gone(name()))),
            ("change@/module/br_netfilter", "module", None),
            ("add@/module/br_netfilter", "drivers", None),
            ("add@/module/br_netfilter/holders", "module", None),
            ("add@/module/", "module", None),
            ("add@/devices/virtual/net/module", "net", None),
            ("libudev", "module", None),
            ("", "module", None),
        ] {
            assert_eq!(parse(&message(header.as_bytes(), subsystem)), told, "{header}");
        }
        assert_eq!(parse(b"add@/module/br_netfilter"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn every_name_is_told_as_it_is(name in proptest::collection::vec(1u8..=255, 1..70)) {
            let told = parse(&message(&[b"add@/module/", &name[..]].concat(), "module"));
            let good = name.len() <= LONGEST_NAME && !name.contains(&b'/');
            prop_assert_eq!(told, good.then(|| ModuleEvent::Appeared(Name::from_bytes(name))));
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
