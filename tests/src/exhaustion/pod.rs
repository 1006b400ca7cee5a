//! A pod, as a process of its own: it takes what it is told to, says so, and keeps it until its
//! input ends, which it also does when the run is killed.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::inotify::{InitFlags, Inotify};

/// The first argument of a pod.
const ROLE: &str = "--pod";

/// A pod that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Pod {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Pod {
    /// Starts one. `Err`: what it wanted, the kernel refused, and it has let go of everything.
    pub fn start(program: &Path, kind: &str, args: &[String]) -> Result<Self, Errno> {
        let mut command = Command::new(program);
        command.args([ROLE, kind]).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut pod = Self { child, output };
        pod.answer().map(|()| pod)
    }

    /// Tells it something; what it says to that.
    pub fn ask(&mut self, what: &str) -> Result<(), Errno> {
        writeln!(self.child.stdin.as_ref().unwrap(), "{what}").unwrap();
        self.answer()
    }

    fn answer(&mut self) -> Result<(), Errno> {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        match line.trim_end().strip_prefix("refused ") {
            None if line == "ok\n" => Ok(()),
            None => panic!("a pod said {line:?} and ended: {:?}", self.child.wait()),
            Some(errno) => Err(Errno::from_raw(errno.parse().unwrap())),
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Plays a pod, if these are a pod's arguments.
#[must_use]
pub fn main(args: &[String]) -> Option<ExitCode> {
    let (role, args) = args.split_first()?;
    let (kind, args) = args.split_first().filter(|_| role == ROLE)?;
    let number = |at: usize| args[at].parse::<u32>().unwrap();
    match kind.as_str() {
        "threads" => threads(Path::new(&args[0]), number(1)),
        "inotify" => {
            as_user(number(0));
            many(number(1), || Inotify::init(InitFlags::empty()));
        }
        "files" => {
            as_user(number(0));
            many(number(1), || File::open("/dev/null").map_err(|error| errno_of(&error)));
        }
        "keys" => {
            as_user(number(0));
            keep(&join_session().and_then(|()| (1..number(1)).try_for_each(add_key)));
        }
        "netns" => many(number(0), net_namespace),
        "user-namespace" => super::net_namespaces::node(number(0), number(1).into()),
        other => panic!("{other}: no such pod"),
    }
    Some(ExitCode::SUCCESS)
}

/// Takes this many and keeps them, or says that it cannot.
fn many<T>(count: u32, make: impl Fn() -> Result<T, Errno>) {
    keep(&(0..count).map(|_| make()).collect::<Result<Vec<_>, _>>());
}

/// Says how it went, and keeps what there is until the input ends. What was refused has already
/// let go of the rest.
fn keep<T>(made: &Result<T, Errno>) {
    say(made.as_ref().map(drop).map_err(|errno| *errno));
    let _ = io::stdin().read(&mut [0]);
}

/// Says how something went.
pub fn say(how: Result<(), Errno>) {
    let mut output = io::stdout().lock();
    match how {
        Ok(()) => writeln!(output, "ok").unwrap(),
        Err(errno) => writeln!(output, "refused {}", errno as i32).unwrap(),
    }
    output.flush().unwrap();
}

pub fn errno_of(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_else(|| panic!("{error}")))
}

/// Gives up being root: several limits are per user, and root is exempt from one.
#[allow(unsafe_code)]
pub fn as_user(uid: u32) {
    // SAFETY: no pointers.
    let result = unsafe { libc::setresuid(uid, uid, uid) };
    Errno::result(result).unwrap();
}

/// Joins a control group and has this many threads there, the first one included.
fn threads(group: &Path, count: u32) {
    fs::write(group.join("cgroup.procs"), "0").unwrap();
    let mut wakers = Vec::new();
    let thread = |_| {
        let (waker, wait) = mpsc::channel::<()>();
        let builder = thread::Builder::new().stack_size(64 << 10);
        let handle = builder.spawn(move || wait.recv()).map_err(|error| errno_of(&error))?;
        wakers.push((waker, handle));
        Ok(())
    };
    let made = (1..count).try_for_each(thread);
    if made.is_err() {
        // Whoever is refused has let go of the rest.
        for (waker, handle) in wakers.drain(..) {
            drop(waker);
            let _ = handle.join();
        }
    }
    keep(&made);
}

/// A session keyring of its own, the way container runtimes join one: by name, within the quota.
#[allow(unsafe_code)]
fn join_session() -> Result<(), Errno> {
    let name = std::ffi::CString::new(format!("_ses.hrtest-{}", std::process::id())).unwrap();
    // SAFETY: the name is a C string that outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr())
    };
    Errno::result(result).map(drop)
}

#[allow(unsafe_code)]
fn add_key(number: u32) -> Result<(), Errno> {
    let description = std::ffi::CString::new(format!("hrtest-{number}")).unwrap();
    // SAFETY: the strings are C strings that outlive the call; the payload is four bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            description.as_ptr(),
            c"data".as_ptr(),
            4,
            libc::KEY_SPEC_SESSION_KEYRING,
        )
    };
    Errno::result(result).map(drop)
}

/// A network namespace, and a descriptor that keeps it when the next one is made.
fn net_namespace() -> Result<File, Errno> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    File::open("/proc/thread-self/ns/net").map_err(|error| errno_of(&error))
}
