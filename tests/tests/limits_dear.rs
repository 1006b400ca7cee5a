//! Limits that are too dear for every scrape, against the real kernel: driven to the refusal, what is
//! left being what was foretold.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, missing_docs)]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use headroom::kernel::mounts;
use headroom::limits::inotify::Inotify;
use headroom::limits::kubepods::Kubepods;
use headroom::limits::net_namespaces::NetNamespaces;
use headroom::limits::{Exactness, Limit, Reader, Roots};
use headroom_tests::cri::cgroups;
use headroom_tests::{Mount, Namespace, Pods, SavedSysctls, private_mounts, root_or_skip};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{ForkResult, Pid, fork};

const POD: &str = "0f1c2d3e-4a5b-4c6d-8e7f-90a1b2c3d4e5";
const OTHER_POD: &str = "11111111-4a5b-4c6d-8e7f-90a1b2c3d4e5";

fn roots(netns: Vec<PathBuf>) -> Roots {
    let cgroup = "/sys/fs/cgroup".into();
    Roots { proc: "/proc".into(), sys: "/sys".into(), cgroup, netns }
}

/// A process that has done something before it sleeps; gone when dropped, with all that it made.
struct Sleeper(Child, Vec<u8>);

impl Sleeper {
    /// `work` is done as this user, and answers one number. Whatever it opens stays open.
    #[allow(unsafe_code)]
    fn new(uid: u32, work: impl Fn() -> io::Result<u8> + Send + Sync + 'static) -> Self {
        let (mut answers, mut answer) = io::pipe().unwrap();
        let mut command = Command::new("sleep");
        command.arg("1000").stdout(Stdio::null()).uid(uid).process_group(0);
        // SAFETY: what `work` does is done in a process of one thread, which the C library has made
        // ready for memory to be allocated.
        unsafe { command.pre_exec(move || answer.write_all(&[work()?])) };
        let child = command.spawn().unwrap();
        drop(command);
        let mut told = Vec::new();
        answers.read_to_end(&mut told).unwrap();
        Self(child, told)
    }

    fn answer(&self) -> u64 {
        self.1[0].into()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
        // Those that it forked take a moment more.
        let deadline = Instant::now() + Duration::from_secs(5);
        while killpg(group, None).is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Another process that only waits, and ends with the one that calls this.
#[allow(unsafe_code)]
fn forked(first: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let (mut answers, mut answer) = io::pipe()?;
    // SAFETY: called in a process of one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            drop(answer);
            let mut failed = Vec::new();
            answers.read_to_end(&mut failed)?;
            let errno = failed.first().map(|errno| i32::from(*errno));
            errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
        }
        ForkResult::Child => {
            let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
            if let Err(error) = first() {
                let errno = error.raw_os_error().and_then(|errno| u8::try_from(errno).ok());
                let _ = answer.write_all(&[errno.unwrap_or(255)]);
                // SAFETY: ends this process, without anything that is the parent's.
                unsafe { libc::_exit(1) };
            }
            // What must not outlive this closes with it: the answer, and what `Command` waits for.
            let _ = nix::unistd::execvp(c"sleep", &[c"sleep", c"1000"]);
            // SAFETY: as above.
            unsafe { libc::_exit(1) };
        }
    }
}

/// How often this can be done until it is refused so.
fn until(errno: i32, most: u8, mut work: impl FnMut() -> io::Result<()>) -> io::Result<u8> {
    for count in 0..most {
        match work() {
            Err(error) if error.raw_os_error() == Some(errno) => return Ok(count),
            other => other?,
        }
    }
    Ok(most)
}

/// An inotify instance that outlives exec.
#[allow(unsafe_code)]
fn instance() -> io::Result<i32> {
    // SAFETY: no pointers.
    match unsafe { libc::inotify_init1(0) } {
        fd @ 0.. => Ok(fd),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code)]
fn watch(instance: i32, path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string that outlives the call.
    match unsafe { libc::inotify_add_watch(instance, path.as_ptr(), libc::IN_MODIFY) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn find<'a>(limits: &'a [Limit], name: &str, object: &str) -> Option<&'a Limit> {
    limits.iter().find(|limit| limit.about.name == name && limit.object == object)
}

fn count(limits: &[Limit], name: &str, uid: u32) -> u64 {
    find(limits, name, &format!("uid {uid}")).map_or(0, |limit| limit.used.unwrap())
}

/// Instances and watches that pods hold as this user.
fn of_pods(uid: u32) -> (u64, u64) {
    let scan = headroom::kernel::notify_groups::scan(Path::new("/proc"), true).unwrap();
    let parts = scan.pods.iter().filter(|((user, _), _)| *user == uid).map(|(_, part)| part);
    parts.fold((0, 0), |sum, part| (sum.0 + part.instances, sum.1 + part.watches))
}

/// Cgroups of a test's own in the hierarchy with the pids controller.
struct Cgroups {
    name: String,
    root: PathBuf,
    _remembered: tempfile::TempDir,
}

impl Cgroups {
    fn new(host: &headroom_tests::HostLock) -> Self {
        let (name, directory) = (host.unique_name(), host.directory());
        cgroups::remember(directory.path(), &name);
        let root = headroom::kernel::kubepods::hierarchy(Path::new("/sys/fs/cgroup")).join(&name);
        fs::create_dir(&root).unwrap();
        Self { name, root, _remembered: directory }
    }

    fn make(&self, path: &str) -> PathBuf {
        let mut made = self.root.clone();
        for name in Path::new(path) {
            // Of cgroup v2 only.
            let _ = fs::write(made.parent().unwrap().join("cgroup.subtree_control"), "+pids");
            let _ = fs::write(made.join("cgroup.subtree_control"), "+pids");
            made.push(name);
            fs::create_dir_all(&made).unwrap();
        }
        made
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        cgroups::remove(&self.name);
    }
}

#[test]
fn inotify_is_counted_once_for_whoever_made_it() {
    let Some(host) = root_or_skip() else { return };
    let cgroups = Cgroups::new(&host);
    let files = host.directory();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let paths: Vec<PathBuf> = (0..300).map(|n| files.path().join(n.to_string())).collect();
    paths.iter().for_each(|path| fs::write(path, "").unwrap());
    let max: u64 = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (uid, other) = (60_123, 60_124);
    let mut reader = Inotify::new(&roots(Vec::new()));
    assert_eq!(count(&reader.read(), "inotify_instances", uid), 0);

    // Twenty instances, one of them with watches; passed on and held twice.
    let holder = Sleeper::new(uid, move || {
        for n in 0..20 {
            let fd = instance()?;
            if n == 7 {
                paths.iter().try_for_each(|path| watch(fd, path))?;
            }
            // SAFETY: an open descriptor; the copy stays open.
            #[allow(unsafe_code)]
            unsafe {
                libc::dup(fd)
            };
        }
        forked(|| Ok(())).map(|()| 20)
    });
    let limits = reader.read();
    assert_eq!(count(&limits, "inotify_instances", uid), 20);
    assert_eq!(count(&limits, "inotify_watches", uid), 300);
    assert_eq!(of_pods(uid), (0, 0));

    // In a pod's cgroup it is a pod's. The copy that was passed on is not in one.
    let pod = cgroups.make(&format!("kubepods/burstable/pod{POD}/3f2504e04f8911d39a0c"));
    fs::write(pod.join("cgroup.procs"), holder.0.id().to_string()).unwrap();
    let limits = reader.read();
    assert_eq!(count(&limits, "inotify_instances", uid), 20);
    assert_eq!(count(&limits, "inotify_watches", uid), 300);
    assert_eq!(of_pods(uid), (20, 300));

    // Of another user's in a user namespace of its own, and of that one's below.
    let nested = Sleeper::new(other, move || {
        instance()?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        instance()?;
        // Who is nobody there may make none below. Files of a process that has changed its user are
        // root's, until it says so.
        nix::sys::prctl::set_dumpable(true)?;
        fs::write("/proc/self/uid_map", format!("0 {other} 1"))?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/gid_map", "0 0 1")?;
        unshare(CloneFlags::CLONE_NEWUSER)?;
        for _ in 0..3 {
            instance()?;
        }
        Ok(5)
    });
    assert_eq!(count(&reader.read(), "inotify_instances", other), 5);
    drop(nested);

    // What is left is what can be had.
    if let Ok(most @ 1..=200) = u8::try_from(max) {
        let all = Sleeper::new(uid, move || until(libc::EMFILE, most, || instance().map(drop)));
        assert_eq!(all.answer(), max - 20);
        assert_eq!(count(&reader.read(), "inotify_instances", uid), max);
    } else {
        eprintln!("not driven to the refusal: fs.inotify.max_user_instances is {max}");
    }
    drop(holder);
    assert_eq!(count(&reader.read(), "inotify_instances", uid), 0);
}

#[test]
fn without_the_capability_nothing_is_said_of_inotify() {
    let Some(_host) = root_or_skip() else { return };
    let limits = without_capabilities(|| Inotify::new(&roots(Vec::new())).read());
    let instances = find(&limits, "inotify_instances", "all uids").unwrap();
    assert_eq!((instances.used, instances.max.is_some()), (None, true));
    let why = instances.unknown.as_ref().unwrap();
    assert!(why.ends_with("capability SYS_PTRACE is needed"), "{why}");
    // Of the network namespaces a bound is still to be had, where the kernel tells it.
    let limits = without_capabilities(|| NetNamespaces::new(&roots(Vec::new())).read());
    assert_eq!(limits.len(), 1);
    let bound = Path::new("/sys/kernel/slab/net_namespace/objects").exists();
    assert_eq!(limits[0].used.is_some(), bound);
    assert!(limits[0].exactness == Exactness::UpperBound || limits[0].unknown.is_some());
}

/// As uid 0 that has given up what it could.
#[allow(unsafe_code)]
fn without_capabilities<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let dropped = || {
        // `struct __user_cap_header_struct` of version 3, this thread, and empty sets.
        let (header, sets) = ([0x2008_0522u32, 0], [0u32; 6]);
        // SAFETY: both lead to arrays of the size that this version has.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        assert_eq!(result, 0, "capset: {}", io::Error::last_os_error());
        work()
    };
    std::thread::scope(|scope| scope.spawn(dropped).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[test]
fn network_namespaces_count_for_the_user_who_is_charged() {
    let Some(host) = root_or_skip() else { return };
    let mut pods = Pods::new(&host);
    let mut reader = NetNamespaces::new(&roots(vec![pods.netns()]));
    let mut used = |uid: u32| -> u64 {
        let limits = reader.read();
        let found = find(&limits, "net_namespaces", &format!("uid {uid}"));
        found.map_or(0, |limit| limit.used.unwrap())
    };
    let (uid, before) = (60_125, used(0));
    assert_eq!(used(uid), 0);
    // In a user namespace, whose limit is lowered: five, each with a process, and not one more.
    let rootless = Sleeper::new(uid, || {
        unshare(CloneFlags::CLONE_NEWUSER)?;
        fs::write("/proc/sys/user/max_net_namespaces", "5")?;
        let another = || forked(|| Ok(unshare(CloneFlags::CLONE_NEWNET)?));
        until(libc::ENOSPC, 20, another)
    });
    assert_eq!(rootless.answer(), 5);
    assert_eq!((used(uid), used(0)), (5, before));
    // Two of pods, one of which is mounted twice, one a process has; and one that is elsewhere.
    pods.create("cni-1");
    pods.create("cni-2");
    pods.mount(pods.path("cni-1"), "again");
    fs::write(pods.path("none"), "").unwrap();
    assert_eq!(used(0), before + 2);
    let elsewhere = Namespace::new(&host);
    assert_eq!(used(0), before + 2);
    let inside = elsewhere.fd();
    let process = Sleeper::new(0, move || {
        nix::sched::setns(&inside, CloneFlags::CLONE_NEWNET)?;
        Ok(0)
    });
    assert_eq!(used(0), before + 3);
    drop((process, rootless));
    assert_eq!((used(uid), used(0)), (0, before + 2));
}

#[test]
fn mounts_are_refused_where_it_was_foretold() {
    let Some(host) = root_or_skip() else { return };
    let directory = host.directory();
    // The limit is everybody's: room is left for what the host may do meanwhile.
    let used = mounts::count(Path::new("/proc/1/mountinfo")).unwrap().all;
    let max = used + 200;
    let saved = SavedSysctls::new(&host, ["fs/mount-max"]);
    let possible = private_mounts(|| {
        let _own = Mount::file_system("tmpfs", directory.path(), "");
        let before = mounts::count(Path::new("/proc/thread-self/mountinfo")).unwrap().all;
        fs::write("/proc/sys/fs/mount-max", max.to_string()).unwrap();
        let foretold = max - before;
        let made = until(libc::ENOSPC, 250, || bind(directory.path())).unwrap();
        drop(saved);
        let after = mounts::count(Path::new("/proc/thread-self/mountinfo")).unwrap().all;
        assert_eq!(after, before + u64::from(made));
        (foretold, u64::from(made))
    });
    let (foretold, made) = possible;
    eprintln!("foretold {foretold}, made {made}");
    // The first root is a mount that nobody sees.
    assert!(made == foretold || made + 1 == foretold, "foretold {foretold}, made {made}");
}

#[allow(unsafe_code)]
fn bind(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let (place, none) = (path.as_ptr(), std::ptr::null());
    // SAFETY: C strings that outlive the call, or null.
    match unsafe { libc::mount(place, place, none, libc::MS_BIND, none.cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[test]
fn pids_of_pods_are_those_of_their_cgroups() {
    let Some(host) = root_or_skip() else { return };
    let cgroups = Cgroups::new(&host);
    let mut reader = Kubepods::at(&roots(Vec::new()), cgroups.root.clone());
    assert_eq!(reader.read(), [], "no kubelet");
    let container = cgroups.make(&format!("kubepods/burstable/pod{POD}/3f2504e04f8911d39a0c"));
    let pod = container.parent().unwrap().to_owned();
    let kubepods = pod.parent().unwrap().parent().unwrap().to_owned();
    let other = cgroups.make(&format!("kubepods/pod{OTHER_POD}"));
    assert_eq!(reader.read(), [], "no limit is none");
    fs::write(kubepods.join("pids.max"), "100").unwrap();
    fs::write(other.join("pids.max"), "1000").unwrap();
    fs::write(pod.join("pids.max"), "6").unwrap();

    let forks = |container: PathBuf| {
        move || {
            fs::write(container.join("cgroup.procs"), "0")?;
            until(libc::EAGAIN, 200, || forked(|| Ok(())))
        }
    };
    let full = Sleeper::new(0, forks(container.clone()));
    assert_eq!(full.answer(), 5, "and itself");
    let limits = reader.read();
    let all = find(&limits, "kubepods_pids", "kubepods").unwrap();
    assert_eq!((all.used, all.max), (Some(6), Some(100)));
    let fullest = find(&limits, "pod_pids", &format!("pod {POD}")).unwrap();
    assert_eq!((fullest.used, fullest.max, fullest.hits), (Some(6), Some(6), Some(1)));
    assert_eq!(limits.len(), 2);

    // All of them together: what is left is what can be had.
    let rest = Sleeper::new(0, forks(other.clone()));
    assert_eq!(rest.answer() + 1, 94);
    let limits = reader.read();
    let all = find(&limits, "kubepods_pids", "kubepods").unwrap();
    assert_eq!((all.used, all.max), (Some(100), Some(100)));
    // Where the kernel tells it.
    assert!(all.hits.is_none_or(|hits| hits == 1), "{:?}", all.hits);
    let found = headroom::kernel::kubepods::pod_cgroups(&cgroups.root).unwrap().unwrap();
    let uids: Vec<&str> = found.iter().map(|pod| pod.uid.as_str()).collect();
    assert_eq!(uids, [POD, OTHER_POD]);
}

/// What a pass costs, for the record: run by name, with `--ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn what_the_readers_cost() {
    for mut reader in headroom::limits::dear(&roots(Vec::new())) {
        let before = headroom::kernel::system::thread_cpu_time();
        let found = reader.read();
        let cost = headroom::kernel::system::thread_cpu_time().saturating_sub(before);
        eprintln!("{}: {cost:?} {found:#?}", reader.name());
    }
}
