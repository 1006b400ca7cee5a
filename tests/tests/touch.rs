//! Who wrote a watched sysctl file: each kind of writer, seen with fanotify and with inotify.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headroom::kernel::inotify::Inotify;
use headroom::kernel::sysctl_file::{OpenMode, SysctlFile, SysctlTree};
use headroom::kernel::touch::{FileId, Kind, May, Touches, Watcher};
use headroom::kernel::who::{Process, Who};
use headroom_tests::{HostLock, Namespace, SavedSysctls, root_or_skip};
use nix::libc;
use tokio::runtime::Runtime;

/// Long enough for any machine: what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(30);

const SOMAXCONN: &str = "net/core/somaxconn";
const FIN_TIMEOUT: &str = "net/ipv4/tcp_fin_timeout";
/// Written after something that should not be seen: what was seen came before it.
const SENTINEL: &str = "net/ipv4/tcp_retries2";

const FANOTIFY: May = May { fanotify: true, pidfds: true, evictable: true };
/// As on Linux 5.10.
const OLD_FANOTIFY: May = May { fanotify: true, pidfds: false, evictable: false };
const INOTIFY: May = May { fanotify: false, pidfds: false, evictable: false };

/// A watcher of files of a namespace of its own.
struct Rig {
    may: May,
    files: BTreeMap<String, (FileId, SysctlFile)>,
    watcher: Watcher,
    netns: Namespace,
    // Last: the inotify instance reads on it.
    runtime: Runtime,
}

impl Rig {
    fn new(host: &HostLock, may: May) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inside = runtime.enter();
        let inotify = Inotify::new().unwrap();
        let (watcher, kind) = Watcher::with(may, Some(&inotify));
        assert_eq!(matches!(kind, Kind::Fanotify), may.fanotify, "{kind:?}");
        drop(inside);
        let netns = Namespace::new(host);
        let mut rig = Self { may, files: BTreeMap::new(), watcher, netns, runtime };
        for path in [SOMAXCONN, FIN_TIMEOUT, SENTINEL] {
            rig.add(path);
        }
        rig
    }

    fn add(&mut self, path: &str) {
        let file = self.open(path);
        let id = self.watcher.add(&file).unwrap();
        self.files.insert(path.to_owned(), (id, file));
    }

    fn open(&self, path: &str) -> SysctlFile {
        self.netns.run(|| {
            let tree = SysctlTree::open(Path::new("/proc/sys"), None).unwrap();
            tree.open_key(&path.replace('/', "."), Path::new(path), OpenMode::ReadWrite).unwrap()
        })
    }

    /// Starts a program in the namespace.
    fn start(&self, program: &[&str]) -> Child {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).stdin(Stdio::piped()).stdout(Stdio::null());
        self.netns.run(|| command.spawn()).unwrap_or_else(|error| panic!("{program:?}: {error}"))
    }

    /// Runs a program in the namespace to its end.
    fn run(&self, program: &[&str]) {
        assert!(self.start(program).wait().unwrap().success(), "{program:?}");
    }

    /// What is seen until `path` is.
    fn seen_until(&self, path: &str) -> BTreeMap<String, Who> {
        let mut seen = BTreeMap::new();
        while !seen.contains_key(path) {
            let touches = self.next();
            assert!(!touches.overflow);
            for touch in touches.files {
                let (path, _) =
                    self.files.iter().find(|(_, (id, _))| *id == touch.file).expect("known");
                seen.insert(path.clone(), touch.who);
            }
        }
        seen
    }

    fn next(&self) -> Touches {
        let next = async { tokio::time::timeout(PATIENCE, self.watcher.next()).await };
        self.runtime.block_on(next).expect("nothing was seen")
    }

    /// What is seen of what has happened until now.
    fn seen(&self) -> BTreeMap<String, Who> {
        self.run(&["sh", "-c", &format!("echo 15 > /proc/sys/{SENTINEL}")]);
        let mut seen = self.seen_until(SENTINEL);
        seen.remove(SENTINEL);
        seen
    }

    /// Runs a script that then waits, and tells who was seen to write [`SOMAXCONN`].
    fn writer(&self, program: &[&str]) -> Who {
        let mut child = self.start(program);
        let who = self.seen_until(SOMAXCONN).remove(SOMAXCONN).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(child.wait().unwrap().success());
        who
    }

    /// Checks who was named, with fanotify, and that nobody was with inotify.
    fn expect(&self, who: Who, check: impl FnOnce(Process)) {
        match who {
            Who::Process(process) if self.may.fanotify => check(*process),
            Who::Unknown if !self.may.fanotify => {}
            who => panic!("{who:?}"),
        }
    }
}

/// Writes, and lives until it is told to end.
fn script() -> String {
    format!("echo 5000 > /proc/sys/{SOMAXCONN}; read wait")
}

#[test]
fn a_shell_is_named_with_its_command_and_its_parent() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        let who = rig.writer(&["sh", "-c", &script()]);
        rig.expect(who, |process| {
            assert_eq!(process.name, "sh");
            assert_eq!(process.command.unwrap(), format!("sh -c {}", script()));
            assert!(process.cgroup.is_some());
            assert_eq!(process.parent.unwrap().pid, std::process::id().cast_signed());
        });
    }
}

#[test]
fn sysctl_that_has_ended_and_was_not_waited_for_is_named() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        let mut child = rig.start(&["sysctl", "-w", "net.core.somaxconn=5000"]);
        let who = rig.seen_until(SOMAXCONN).remove(SOMAXCONN).unwrap();
        rig.expect(who, |process| {
            assert_eq!((process.name.as_str(), process.pid), ("sysctl", child.id().cast_signed()));
        });
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn a_process_that_ends_at_once_is_named_or_gone_and_never_another() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        for _ in 0..20 {
            let mut child = rig.start(&["sysctl", "-w", "net.core.somaxconn=5000"]);
            let pid = child.id().cast_signed();
            assert!(child.wait().unwrap().success());
            match rig.seen_until(SOMAXCONN).remove(SOMAXCONN).unwrap() {
                Who::Gone { pid: gone } if may.fanotify => assert_eq!(gone, pid),
                who => rig.expect(who, |process| {
                    assert_eq!((process.name.as_str(), process.pid), ("sysctl", pid));
                }),
            }
        }
    }
}

#[test]
fn writers_in_other_namespaces_are_seen_through_the_same_procfs() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        for unshare in [&["unshare", "--mount"][..], &["unshare", "--pid", "--fork"]] {
            let who = rig.writer(&[unshare, &["sh", "-c", &script()]].concat());
            rig.expect(who, |process| {
                assert_eq!(process.name, "sh", "{unshare:?}");
                // Its pid here, not the 1 that it has in its own namespace.
                assert!(process.pid > 1);
            });
        }
    }
}

/// What the sweep is for.
#[test]
fn writers_on_another_procfs_and_the_kernel_itself_are_not_seen() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, INOTIFY] {
        let mut rig = Rig::new(&host, may);
        rig.add("net/ipv4/conf/lo/forwarding");
        let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c"];
        let write = format!("echo 5000 > /proc/sys/{SOMAXCONN}");
        rig.run(&[&unshare[..], &[&write]].concat());
        assert_eq!(rig.netns.read(SOMAXCONN), "5000");
        rig.netns.write("net/ipv4/ip_forward", "1");
        assert_eq!(rig.netns.read("net/ipv4/conf/lo/forwarding"), "1");
        assert_eq!(rig.seen(), BTreeMap::new());
    }
}

#[test]
fn own_writes_are_left_out_where_the_kernel_tells_them() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        rig.files[SOMAXCONN].1.write("5000").unwrap();
        // By path, from another thread.
        rig.netns.write(FIN_TIMEOUT, "50");
        let seen = rig.seen();
        match may.fanotify {
            true => assert_eq!(seen, BTreeMap::new()),
            false => assert!(seen.keys().eq([SOMAXCONN, FIN_TIMEOUT]), "{seen:?}"),
        }
    }
}

#[test]
fn writes_that_change_nothing_are_seen_and_reads_are_not() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        let same = format!("echo 4096 > /proc/sys/{SOMAXCONN}");
        let refused = format!("! echo nonsense > /proc/sys/{FIN_TIMEOUT}");
        for script in [same, refused] {
            rig.run(&["sh", "-c", &format!("exec 2> /dev/null; {script}")]);
        }
        // O_TRUNC, as a shell opens, counts as a write for inotify.
        let refused = (!may.fanotify).then_some(FIN_TIMEOUT);
        assert!(rig.seen().keys().eq([SOMAXCONN].into_iter().chain(refused)));
        let script = format!("cat /proc/sys/{SOMAXCONN} /proc/sys/{FIN_TIMEOUT}");
        rig.run(&["sh", "-c", &script]);
        assert_eq!(rig.seen(), BTreeMap::new());
    }
}

#[test]
fn each_file_is_one_file_in_one_namespace() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, INOTIFY] {
        let mut rig = Rig::new(&host, may);
        let again = rig.open(SOMAXCONN);
        assert_eq!(rig.watcher.add(&again).unwrap(), rig.files[SOMAXCONN].0);
        // The same key elsewhere is another file.
        let other = Namespace::new(&host);
        let write = format!("echo 5000 > /proc/sys/{SOMAXCONN}");
        let mut command = Command::new("sh");
        assert!(other.run(|| command.args(["-c", &write]).status()).unwrap().success());
        assert_eq!(rig.seen(), BTreeMap::new());
    }
}

#[test]
fn a_file_that_was_removed_is_not_seen_any_more() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let mut rig = Rig::new(&host, may);
        let write = format!("echo 5000 > /proc/sys/{SOMAXCONN}");
        // Seen, and not taken yet.
        rig.run(&["sh", "-c", &write]);
        let (id, file) = rig.files.remove(SOMAXCONN).unwrap();
        rig.watcher.remove(id, Some(&file));
        rig.run(&["sh", "-c", &write]);
        assert_eq!(rig.seen(), BTreeMap::new());
    }
}

#[test]
fn what_the_kernel_could_not_keep_is_said_to_be_lost() {
    let Some(host) = root_or_skip() else { return };
    let queues = ["fs/fanotify/max_queued_events", "fs/inotify/max_queued_events"];
    let _saved = SavedSysctls::new(&host, queues);
    for queue in queues {
        // A group keeps what it found when it was made: with 0 no event has room.
        fs::write(Path::new("/proc/sys").join(queue), "0").unwrap();
    }
    for may in [FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        let write = format!("echo 5000 > /proc/sys/{SOMAXCONN}");
        rig.run(&["sh", "-c", &write]);
        let touches = rig.next();
        assert!(touches.overflow && touches.files.is_empty(), "{touches:?}");
    }
}

/// Marks of a group, as the kernel shows them.
fn marks() -> usize {
    let groups = descriptors("anon_inode:[fanotify]");
    assert_eq!(groups.len(), 1);
    let info = Path::new("/proc/self/fdinfo").join(groups[0].file_name().unwrap());
    fs::read_to_string(info).unwrap().matches("fanotify ino:").count()
}

/// This process' descriptors of something that is called so.
fn descriptors(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| {
        fs::read_link(path).is_ok_and(|link| link.to_string_lossy().starts_with(name))
    };
    entries.filter(named).collect()
}

#[test]
fn files_that_vanish_leave_no_mark_behind() {
    let Some(host) = root_or_skip() else { return };
    for may in [FANOTIFY, OLD_FANOTIFY] {
        let mut rig = Rig::new(&host, may);
        rig.netns.ip(["link", "add", "v0", "type", "bridge"]);
        let mut gone = Vec::new();
        for family in ["ipv4", "ipv6"] {
            let directory = PathBuf::from(format!("/proc/sys/net/{family}/conf/v0"));
            let entries = rig.netns.run(|| fs::read_dir(directory).unwrap().collect::<Vec<_>>());
            for entry in entries {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                gone.push(format!("net/{family}/conf/v0/{name}"));
            }
        }
        gone.truncate(70);
        assert_eq!(gone.len(), 70);
        let live = marks();
        assert_eq!(live, rig.files.len());
        gone.iter().for_each(|path| rig.add(path));
        assert_eq!(marks(), live + gone.len());
        rig.netns.ip(["link", "delete", "v0"]);
        for path in &gone {
            let (id, file) = rig.files.remove(path).unwrap();
            rig.watcher.remove(id, Some(&file));
        }
        if may.evictable {
            assert_eq!(marks(), live);
        } else {
            // The 64th was one too many, and those that follow are not marked anew.
            assert_eq!(marks(), live);
            let touches = rig.next();
            assert!(touches.overflow && touches.files.is_empty(), "{touches:?}");
        }
        let who = rig.writer(&["sh", "-c", &script()]);
        rig.expect(who, |process| assert_eq!(process.name, "sh"));
    }
}

#[test]
fn nothing_is_left_of_a_watcher() {
    let Some(host) = root_or_skip() else { return };
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let names = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("comm")));
        let ours = |name: &String| matches!(name.trim(), "touch" | "command-line");
        names.filter_map(Result::ok).filter(ours).count()
    };
    let open = || {
        ["anon_inode:[fanotify]", "anon_inode:[pidfd]", "pidfd:", "/proc/sys", "anon_inode:inotify"]
            .map(|name| descriptors(name).len())
    };
    for may in [FANOTIFY, OLD_FANOTIFY, INOTIFY] {
        let rig = Rig::new(&host, may);
        for _ in 0..3 {
            rig.writer(&["sh", "-c", &script()]);
        }
        // Events that nobody looks at: the inotify instance and its own writes too.
        rig.netns.write(FIN_TIMEOUT, "50");
        if may.fanotify {
            assert_eq!(threads(), 2);
        }
        drop(rig);
        assert_eq!(threads(), 0);
        assert_eq!(open(), [0; 5], "{may:?}");
    }
}

#[test]
#[allow(unsafe_code)]
fn without_the_right_to_fanotify_inotify_does_and_says_why() {
    let Some(host) = root_or_skip() else { return };
    let rig = Rig::new(&host, INOTIFY);
    let inside = rig.runtime.enter();
    let inotify = Inotify::new().unwrap();
    let unprivileged = || {
        // SAFETY: no pointers. The bare system call changes this thread alone, which ends here.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
        (Watcher::new(Some(&inotify)).1, Watcher::new(None).1)
    };
    let kinds = std::thread::scope(|scope| scope.spawn(unprivileged).join().unwrap());
    let reason = "fanotify: EPERM: CAP_SYS_ADMIN is missing".to_owned();
    let neither = format!("{reason}; nor is there inotify");
    assert_eq!(kinds, (Kind::Inotify { reason }, Kind::None { reason: neither }));
    drop(inside);

    let (mut nothing, _) = Watcher::with(INOTIFY, None);
    let error = nothing.add(&rig.files[SOMAXCONN].1).unwrap_err();
    assert!(error.to_string().contains("nothing can be watched"), "{error}");
}
