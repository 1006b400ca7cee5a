//! Namespaces on a thread, files below `/proc/sys`, links over netlink.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use headroom::kernel::errno::{Access, of_io};
use headroom::kernel::system;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns, unshare};
use rtnetlink::packet_route::link::LinkMessage;
use rtnetlink::{Handle, LinkBridge, LinkDummy, LinkIfb, LinkUnspec, LinkVeth};

/// What a file below `/proc/sys` answered: where it said no, and how.
pub type Answer<T> = Result<T, (Access, Errno)>;

/// Runs `work` on a thread of its own; a panic there is a panic here.
pub fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| scope.spawn(work).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `work` on a thread in namespaces of its own.
pub fn unshared<T: Send>(flags: CloneFlags, work: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        unshare(flags).unwrap();
        work()
    })
}

/// Runs `work` on a thread in a new network namespace, where nothing is up.
pub fn fresh<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    unshared(CloneFlags::CLONE_NEWNET, work)
}

/// Runs `work` in the network namespace of the process' main thread, which is the host's.
pub fn on_host<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let main = File::open(format!("/proc/{}/ns/net", std::process::id())).unwrap();
    on_thread(|| {
        setns(&main, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// The kernel's major and minor version.
pub fn kernel() -> (u32, u32) {
    system::kernel_version(&system::uname().0)
}

pub fn full(path: &str) -> PathBuf {
    Path::new("/proc/sys").join(path)
}

pub fn exists(path: &str) -> bool {
    full(path).exists()
}

/// Whether a file below `/proc/sys` is there. If not, `reason` must hold.
pub fn here(path: &str, why_not: &str, reason: bool) -> bool {
    if !exists(path) {
        assert!(reason, "{path} is absent, though not because {why_not}");
        eprintln!("not tested: {path} is absent because {why_not}");
    }
    exists(path)
}

/// Whether this kernel speaks IPv6.
pub fn has_ipv6() -> bool {
    let off = !Path::new("/proc/thread-self/net/if_inet6").exists();
    here("net/ipv6/conf", "IPv6 is off or its module is not loaded", off)
}

/// Whether connection tracking is there.
pub fn has_conntrack() -> bool {
    let off = !Path::new("/sys/module/nf_conntrack").exists();
    here("net/netfilter/nf_conntrack_max", "nf_conntrack is not loaded", off)
}

/// The whole text.
pub fn text(path: &str) -> Answer<String> {
    let mut file = File::open(full(path)).map_err(|error| (Access::Open, of_io(&error)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| (Access::Read, of_io(&error)))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The words of the value, with one space between two.
pub fn words(path: &str) -> Answer<String> {
    Ok(text(path)?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The value. Fails the test where it cannot be read.
pub fn read(path: &str) -> String {
    words(path).unwrap_or_else(|(access, errno)| panic!("{path}: {access:?}: {errno:?}"))
}

pub fn number(path: &str) -> i64 {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Opens the file for writing and does one `write(2)` of exactly this text.
pub fn write(path: &str, text: &str) -> Answer<usize> {
    let file = OpenOptions::new().write(true).open(full(path));
    let mut file = file.map_err(|error| (Access::Open, of_io(&error)))?;
    file.write(text.as_bytes()).map_err(|error| (Access::Write, of_io(&error)))
}

/// Writes a value that the kernel must take.
pub fn set(path: &str, value: impl ToString + Copy) {
    let value = value.to_string();
    assert_eq!(write(path, &value), Ok(value.len()), "{path} = {value}");
}

/// The kernel's answer to a value that it refuses.
pub fn refusal(path: &str, value: &str) -> Errno {
    match write(path, value) {
        Err((Access::Write, errno)) => errno,
        other => panic!("{path} = {value:?}: {other:?}"),
    }
}

/// The mode bits.
pub fn mode(path: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(full(path)).unwrap().permissions().mode() & 0o777
}

/// Does something over a route netlink socket of the calling thread's namespace.
pub fn netlink<T>(work: impl AsyncFnOnce(&Handle) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (connection, handle, _) = rtnetlink::new_connection().unwrap();
        tokio::spawn(connection);
        work(&handle).await
    })
}

/// Adds a link of whatever kind the kernel has. `false`: it has none of them, and said so.
pub fn add_link(name: &str) -> bool {
    let peer = format!("{name}p");
    let kinds = [
        LinkBridge::new(name).build(),
        LinkDummy::new(name).build(),
        LinkVeth::new(name, &peer).build(),
        LinkIfb::new(name).build(),
    ];
    for kind in kinds {
        match netlink(async |handle| handle.link().add(kind).execute().await) {
            Ok(()) => return true,
            // rtnl_newlink: no such kind, also after asking for its module.
            Err(rtnetlink::Error::NetlinkError(error))
                if error.raw_code() == -(Errno::EOPNOTSUPP as i32) => {}
            Err(error) => panic!("{name}: {error}"),
        }
    }
    assert!(!exists(&format!("net/ipv4/conf/{name}")));
    eprintln!("not tested: no module for a bridge, dummy, veth or ifb link");
    false
}

pub fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// Changes a link.
pub fn change_link(message: LinkMessage) {
    netlink(async |handle| handle.link().set(message).execute().await).unwrap();
}

pub fn set_mtu(name: &str, mtu: u32) {
    change_link(LinkUnspec::new_with_index(index(name)).mtu(mtu).build());
}

pub fn rename(name: &str, to: &str) {
    // What is up cannot be renamed before 6.2 (bd039b5ea2a9).
    change_link(LinkUnspec::new_with_index(index(name)).down().build());
    change_link(LinkUnspec::new_with_index(index(name)).name(to).build());
}

pub fn delete_link(name: &str) {
    netlink(async |handle| handle.link().del(index(name)).execute().await).unwrap();
}

pub fn add_address(name: &str, address: &str, length: u8) {
    let address = address.parse().unwrap();
    let add =
        async |handle: &Handle| handle.address().add(index(name), address, length).execute().await;
    netlink(add).unwrap();
}

/// An ignored test of this binary, to be run in a process of its own.
pub fn helper(name: &str, argument: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("HRTEST_HELPER", argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The argument of such a test; `None` where somebody else runs it.
pub fn helper_argument() -> Option<String> {
    std::env::var("HRTEST_HELPER").ok()
}

/// Waits for a helper. Fails the test where it failed, or ran no test.
pub fn finish(child: std::process::Child) {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// Waits until the other side closes its end.
pub fn wait_for_the_other_side() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// A process that only waits.
#[test]
#[ignore = "run by tests that need another process"]
fn wait() {
    if helper_argument().is_some() {
        wait_for_the_other_side();
    }
}

pub const CAP_NET_ADMIN: u32 = 12;
pub const CAP_SYS_RAWIO: u32 = 17;
pub const CAP_SYS_PTRACE: u32 = 19;
pub const CAP_SYS_ADMIN: u32 = 21;
pub const CAP_SYS_RESOURCE: u32 = 24;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

/// Effective, permitted and inheritable; first the low 32 bits, then the high ones
/// (`capget(2)`, version 3).
type CapabilitySets = [[u32; 3]; 2];

const VERSION_3: u32 = 0x2008_0522;

#[allow(unsafe_code)]
fn capabilities() -> CapabilitySets {
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    let mut sets = CapabilitySets::default();
    // SAFETY: both pointers are to structures of the layout that version 3 has.
    let result = unsafe { libc::syscall(libc::SYS_capget, &header, &mut sets) };
    assert_eq!(result, 0, "capget");
    sets
}

/// Whether the calling thread has a capability in force.
pub fn is_capable(capability: u32) -> bool {
    capabilities()[(capability / 32) as usize][0] & (1 << (capability % 32)) != 0
}

/// Gives up all capabilities but these, of those the calling thread has. For good.
#[allow(unsafe_code)]
fn keep_capabilities(keep: &[u32]) {
    let mut sets = capabilities();
    for (half, set) in sets.iter_mut().enumerate() {
        let kept = keep.iter().filter(|number| **number as usize / 32 == half);
        let mask = kept.fold(0, |mask, number| mask | 1 << (number % 32));
        *set = [set[1] & mask, set[1] & mask, 0];
    }
    let header = CapabilityHeader { version: VERSION_3, pid: 0 };
    // SAFETY: both pointers are to structures of the layout that version 3 has.
    let result = unsafe { libc::syscall(libc::SYS_capset, &header, &sets) };
    assert_eq!(result, 0, "capset");
}

/// Runs `work` on a thread of uid 0 that has these capabilities alone.
pub fn with_capabilities<T: Send>(keep: &[u32], work: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        keep_capabilities(keep);
        work()
    })
}

/// The same as another user.
#[allow(unsafe_code)]
pub fn as_user<T: Send>(uid: u32, keep: &[u32], work: impl FnOnce() -> T + Send) -> T {
    on_thread(|| {
        nix::sys::prctl::set_keepcaps(true).unwrap();
        // The system call: the C library's function would change all threads.
        // SAFETY: no pointers.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
        assert_eq!(result, 0, "setresuid");
        keep_capabilities(keep);
        work()
    })
}
