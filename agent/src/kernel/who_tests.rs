#![allow(clippy::unwrap_used)]

use std::os::fd::FromRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// A fixture tree beneath which pid 7 is a process.
fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = root.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    root
}

fn look(root: &Path, pid: i32) -> Who {
    Lookup::new(root).who(pid, &Pidfd::<OwnedFd>::Missing)
}

#[test]
fn a_process_is_named_with_its_unit_its_parent_and_its_command() {
    let root = tree(&[
        ("7/comm", b"sysctl\n"),
        ("7/cmdline", b"sysctl\0-w\0net.core.somaxconn=1\0"),
        ("7/cgroup", b"0::/system.slice/cron.service\n"),
        ("7/stat", b"7 (a) b) S 6 7 7 0"),
        ("6/comm", b"sh\n"),
    ]);
    let who = look(root.path(), 7);
    assert_eq!(
        who.to_string(),
        "sysctl (pid 7, run by sh, unit cron.service): sysctl -w net.core.somaxconn=1"
    );
    let json = serde_json::to_value(&who).unwrap();
    assert_eq!(json["kind"], "process");
    assert_eq!(json["parent"]["name"], "sh");
    assert_eq!(serde_json::from_value::<Who>(json).unwrap(), who);
}

#[test]
fn nothing_a_process_chose_is_shown_unescaped_or_unbounded() {
    let long = vec![b'x'; 5000];
    let root = tree(&[
        ("7/comm", b"\x1b[31m\n"),
        ("7/cmdline", &[b"a\0\0b\nc\xff", &long[..]].concat()),
        ("7/cgroup", b"0::/docker/x\n"),
    ]);
    let Who::Process(process) = look(root.path(), 7) else { unreachable!() };
    assert_eq!(process.name, "\\x1b[31m");
    let command = process.command.clone().unwrap();
    assert!(command.starts_with("a  b\\x0ac\\xffxx") && command.ends_with("xx..."), "{command}");
    assert_eq!(command.len(), 256 + 2 * 3 + 3);
    assert!(process.to_string().starts_with("\\x1b[31m (pid 7, cgroup /docker/x): a  b"));
}

#[test]
fn what_cannot_be_read_is_left_out_and_what_is_gone_is_said_to_be() {
    let root = tree(&[("7/comm", b"kworker/0:1\n"), ("7/cmdline", b""), ("7/cgroup", b"0::/\n")]);
    assert_eq!(look(root.path(), 7).to_string(), "kworker/0:1 (pid 7)");
    assert_eq!(look(root.path(), 8), Who::Gone { pid: 8 });
    assert_eq!(look(root.path(), 0), Who::Hidden);
    assert_eq!(Lookup::new("/proc").who(1, &Pidfd::<OwnedFd>::Ended), Who::Gone { pid: 1 });
    assert_eq!(command_line(b"\0\0"), None);
    assert_eq!(serde_json::to_string(&Who::Unknown).unwrap(), r#"{"kind":"unknown"}"#);
    assert_eq!(serde_json::to_string(&Who::Gone { pid: 8 }).unwrap(), r#"{"kind":"gone","pid":8}"#);
}

#[allow(unsafe_code)]
fn pidfd(pid: u32) -> OwnedFd {
    // SAFETY: no pointers; a new descriptor that nothing else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
    }
}

#[test]
fn a_zombie_is_still_named_and_one_that_was_waited_for_is_gone() {
    let mut child = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let handle = Pidfd::Open(pidfd(child.id()));
    let mut lookup = Lookup::new("/proc");

    let Who::Process(process) = lookup.who(pid, &handle) else { unreachable!() };
    // Between fork and exec the name is this test's.
    assert!(!process.name.is_empty());
    assert_eq!(process.parent.unwrap().pid, i32::try_from(std::process::id()).unwrap());

    child.kill().unwrap();
    let ended = format!("/proc/{pid}/stat");
    while !std::fs::read_to_string(&ended).unwrap().contains(") Z") {
        std::thread::yield_now();
    }
    let Who::Process(process) = lookup.who(pid, &handle) else { unreachable!() };
    assert_eq!((process.name.as_str(), process.command), ("sleep", None));

    child.wait().unwrap();
    assert_eq!(lookup.who(pid, &handle), Who::Gone { pid });
    // As if the pid had been given to another process.
    let other = Pidfd::Open(match handle {
        Pidfd::Open(fd) => fd,
        _ => unreachable!(),
    });
    let mine = i32::try_from(std::process::id()).unwrap();
    assert_eq!(lookup.who(mine, &other), Who::Gone { pid: mine });
}

#[test]
fn a_command_line_that_hangs_stalls_the_first_look_alone() {
    let root = tree(&[("7/comm", b"stuck\n"), ("8/comm", b"fine\n"), ("8/cmdline", b"fine\0")]);
    // A pipe that nobody writes hangs like the memory of a process whose file system is dead.
    let pipe = root.path().join("7/cmdline");
    nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let writer = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut lookup = Lookup::new(root.path());
    let unnamed = &Pidfd::<OwnedFd>::Missing;
    assert_eq!(lookup.who(7, unnamed).to_string(), "stuck (pid 7)");
    assert_eq!(lookup.who(8, unnamed).to_string(), "fine (pid 8)");
    drop(writer);
    // Once it no longer hangs, command lines are read again.
    while lookup.who(8, unnamed).to_string() != "fine (pid 8): fine" {
        std::thread::yield_now();
    }
}
