//! Who did it: a process, read from `/proc` while it may still live.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc;
use nix::sys::stat::Mode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cgroup::{self, Pod};
use super::fanotify::Pidfd;
use super::name::escape;

/// Most of a command line that is read, in bytes.
const COMMAND: usize = 256;
/// Most of a name: 15 bytes, of a kernel's worker 63.
const NAME: usize = 64;
/// Most of a `cgroup` file. v1 has about 13 lines.
const CGROUP: usize = 16 << 10;
/// Most of a `stat` file.
const STAT: usize = 1 << 10;
/// How long a command line may take. One that takes longer waits for the process' own memory,
/// such as a page of a dead network file system.
const PATIENCE: Duration = Duration::from_millis(100);

/// Who did something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Who {
    /// A process.
    Process(Box<Process>),
    /// A process that had ended before it could be looked at.
    Gone {
        /// The pid that it had.
        pid: i32,
    },
    /// A process in a pid namespace that the agent does not see into: it has no hostPID.
    Hidden,
    /// The notification names nobody, or there was none.
    Unknown,
}

/// A process. All texts are escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// Its name (`/proc/<pid>/comm`), empty where it cannot be read.
    pub name: String,
    /// Its command line, at most 256 bytes of it.
    pub command: Option<String>,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// The systemd unit.
    pub unit: Option<String>,
    /// The pod.
    pub pod: Option<Pod>,
    /// The process that started it, if that still runs.
    pub parent: Option<Parent>,
}

/// A process' parent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// Its pid.
    pub pid: i32,
    /// Its name, escaped.
    pub name: String,
}

/// One line: `sysctl (pid 123, run by bash, unit cron.service): sysctl -w vm.swappiness=1`.
impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(process) => process.fmt(f),
            Self::Gone { pid } => {
                write!(f, "a process that ended before it could be looked at (pid {pid})")
            }
            Self::Hidden => f.write_str("a process that the agent cannot see without hostPID"),
            Self::Unknown => f.write_str("an unknown process"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.name.is_empty() { "?" } else { &self.name };
        write!(f, "{name} (pid {}", self.pid)?;
        if let Some(parent) = &self.parent {
            write!(f, ", run by {}", parent.name)?;
        }
        match (&self.pod, &self.unit, &self.cgroup) {
            (Some(pod), _, _) => {
                write!(f, ", pod {}", pod.uid)?;
                if let Some(container) = &pod.container {
                    write!(f, ", container {}", container.get(..12).unwrap_or(container))?;
                }
            }
            (None, Some(unit), _) => write!(f, ", unit {unit}")?,
            (None, None, Some(path)) if path != "/" => write!(f, ", cgroup {path}")?,
            _ => {}
        }
        match &self.command {
            Some(command) => write!(f, "): {command}"),
            None => f.write_str(")"),
        }
    }
}

/// Looks processes up. What it reads may take the cgroup lock and the process' own memory: not
/// for the main thread.
#[derive(Debug)]
pub struct Lookup {
    proc_root: PathBuf,
    commands: Option<Commands>,
}

impl Lookup {
    /// For processes beneath `proc_root`, a mount of this process' own pid namespace.
    #[must_use]
    pub fn new(proc_root: impl Into<PathBuf>) -> Self {
        // Without that thread there are no command lines, and all the rest.
        Self { proc_root: proc_root.into(), commands: Commands::new().ok() }
    }

    /// Who has this pid. The pidfd, where there is one, tells a process from another one that got
    /// its pid after it; without it there is no telling, which takes a wrap of all pids meanwhile.
    pub fn who<F: AsFd>(&mut self, pid: i32, pidfd: &Pidfd<F>) -> Who {
        if pid <= 0 {
            return Who::Hidden;
        }
        if matches!(pidfd, Pidfd::Ended) {
            return Who::Gone { pid };
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&self.proc_root.join(pid.to_string()), flags, Mode::empty());
        if let Pidfd::Open(pidfd) = pidfd {
            // Asked after opening: had the pid been given away before, it would have ended.
            if !has_process(pidfd.as_fd()) {
                return Who::Gone { pid };
            }
            if directory.is_err() {
                // It runs, and /proc does not show it (hidepid).
                return Who::Process(Box::new(Process { pid, ..Process::default() }));
            }
        }
        // What is read through the directory is this process', or an error.
        match directory.map(|directory| self.read(pid, &directory)) {
            Ok(Some(process)) => Who::Process(Box::new(process)),
            Ok(None) | Err(_) => Who::Gone { pid },
        }
    }

    fn read(&mut self, pid: i32, directory: &OwnedFd) -> Option<Process> {
        // The other thread reads it while this one reads the rest.
        let asked = file(directory, "cmdline")
            .is_some_and(|file| self.commands.as_mut().is_some_and(|commands| commands.ask(file)));
        let name = name(directory);
        let cgroup = file(directory, "cgroup")
            .and_then(|file| read(file, CGROUP))
            .and_then(|text| cgroup::parse(&text))
            .unwrap_or_default();
        let parent = self.parent(directory);
        let command = self
            .commands
            .as_mut()
            .filter(|_| asked)
            .and_then(Commands::answer)
            .and_then(|bytes| command_line(&bytes));
        let path = Some(cgroup.path).filter(|path| !path.is_empty());
        Some(Process {
            pid,
            name: name?,
            command,
            cgroup: path,
            unit: cgroup.unit,
            pod: cgroup.pod,
            parent,
        })
    }

    fn parent(&self, directory: &OwnedFd) -> Option<Parent> {
        let stat = read(file(directory, "stat")?, STAT)?;
        let pid = parent_of(&stat).filter(|pid| *pid > 0)?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let parent = open(&self.proc_root.join(pid.to_string()), flags, Mode::empty()).ok()?;
        Some(Parent { pid, name: name(&parent)? })
    }
}

/// `pid (name) state ppid …`, where the name may hold anything, also parentheses.
fn parent_of(stat: &[u8]) -> Option<i32> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn name(directory: &OwnedFd) -> Option<String> {
    let bytes = read(file(directory, "comm")?, NAME)?;
    Some(escape(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
}

/// Arguments with spaces between; none of a kernel thread, and of one that has just ended.
fn command_line(bytes: &[u8]) -> Option<String> {
    let cut = bytes.len() > COMMAND;
    let bytes = bytes.get(..COMMAND).unwrap_or(bytes);
    let end = bytes.iter().rposition(|&byte| byte != 0)? + 1;
    let words: Vec<u8> =
        bytes.iter().take(end).map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    let mut text = escape(&words);
    if cut {
        text.push_str("...");
    }
    Some(text)
}

fn file(directory: &OwnedFd, name: &str) -> Option<File> {
    openat(directory, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok().map(File::from)
}

/// `None`: the process has ended meanwhile.
fn read(file: File, longest: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(longest.min(1 << 10));
    file.take(longest as u64).read_to_end(&mut bytes).ok().map(|_| bytes)
}

/// Whether the process still has its pid: it runs, or nobody has waited for it yet.
#[allow(unsafe_code)]
fn has_process(pidfd: BorrowedFd<'_>) -> bool {
    let nothing = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: signal 0 sends nothing (`pidfd_send_signal(2)`), and the null pointer is allowed.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), 0, nothing, 0_u32) };
    // EPERM: it is there, and not ours to signal.
    result == 0 || Errno::last() != Errno::ESRCH
}

/// Reads command lines on a thread of its own, because that may hang for as long as the process
/// lives: `access_remote_vm` takes the process' mmap lock and faults its pages in. While one
/// hangs there are no others.
#[derive(Debug)]
struct Commands {
    files: Option<Sender<File>>,
    answers: Receiver<Option<Vec<u8>>>,
    hangs: bool,
    thread: Option<JoinHandle<()>>,
}

impl Commands {
    fn new() -> std::io::Result<Self> {
        let (files, requests) = channel::<File>();
        let (replies, answers) = channel();
        let work = move || {
            for file in requests {
                if replies.send(read(file, COMMAND + 1)).is_err() {
                    break;
                }
            }
        };
        let thread = std::thread::Builder::new().name("command-line".into()).spawn(work)?;
        Ok(Self { files: Some(files), answers, hangs: false, thread: Some(thread) })
    }

    /// Begins to read; false where one hangs. What was asked for must be waited for.
    fn ask(&mut self, file: File) -> bool {
        if self.hangs && self.answers.try_recv().is_err() {
            return false;
        }
        self.hangs = false;
        self.files.as_ref().is_some_and(|files| files.send(file).is_ok())
    }

    fn answer(&mut self) -> Option<Vec<u8>> {
        match self.answers.recv_timeout(PATIENCE) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.hangs = error == RecvTimeoutError::Timeout;
                None
            }
        }
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        self.files = None;
        // One that hangs ends by itself, at the latest with the process it reads.
        let idle = !self.hangs || self.answers.try_recv().is_ok();
        if let Some(thread) = self.thread.take().filter(|_| idle) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[path = "who_tests.rs"]
mod tests;
