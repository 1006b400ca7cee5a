//! The host's `sysctl.d` files: read from beneath a root, and never from outside of it.
//!
//! What the files say is understood in `sysctl::disk`; here is only which there are and what they
//! hold. Any process of the host may put anything there, so nothing is opened that could hang or
//! act: a FIFO, a device, a link that leads out of the root.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::unistd::read;

use super::errno::{Access, FileError};
use super::name::{Name, escape};

/// Where files are looked for, the first before the others (`sysctl.d(5)`). The last is the same
/// directory as the one before it, unless the host is an old one whose `/lib` is no link.
pub const DIRECTORIES: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// What `sysctl --system` reads after all others, and systemd-sysctl only through a link.
pub const SYSCTL_CONF: &str = "/etc/sysctl.conf";

/// Largest file that is read.
pub const LONGEST_FILE: usize = 1 << 20;
/// Most files that are read.
pub const MOST_FILES: usize = 10_000;
/// Most bytes of all files together.
const MOST_BYTES: usize = 32 << 20;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Which of [`DIRECTORIES`] it is in; `None`: it is [`SYSCTL_CONF`].
    pub directory: Option<usize>,
    /// Its name there.
    pub name: Name,
    /// Where it leads, if it is a link.
    pub link: Option<PathBuf>,
    /// What it holds.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This.
    Bytes(Vec<u8>),
    /// The beginning of what it holds; the rest was not read.
    Cut(Vec<u8>),
    /// Nothing: it leads to `/dev/null`, to mask others of its name.
    Null,
    /// It is a link to nothing.
    Nowhere,
    /// It cannot be read, or is no file.
    Failed(FileError),
}

/// All files that there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// In the order of [`DIRECTORIES`], by name in each; [`SYSCTL_CONF`] last.
    pub files: Vec<Found>,
    /// How many directories there are.
    pub directories: usize,
    /// Directories that cannot be read.
    pub failed: Vec<FileError>,
    /// Whether there were more than [`MOST_FILES`].
    pub cut: bool,
}

/// Where the host's files are: `/host` where a container has them mounted there, else `/`. `None`
/// in a container that sees the host's `/proc/sys` and not its files: what is at `/` is the
/// image's.
#[must_use]
pub fn default_root() -> Option<PathBuf> {
    let host = Path::new("/host");
    let mounted = ["etc/sysctl.d", "usr/lib/sysctl.d"].iter().any(|dir| host.join(dir).is_dir());
    if mounted {
        return Some(host.to_owned());
    }
    (!host.join("proc/sys").is_dir()).then(|| PathBuf::from("/"))
}

/// Reads all of them.
pub fn read_all(root: &Path) -> Result<Files, FileError> {
    let root = Root::open(root)?;
    let mut found = Files::default();
    let mut seen = Vec::new();
    let mut budget = MOST_BYTES;
    for (index, directory) in DIRECTORIES.into_iter().enumerate() {
        let names = match root.directory(directory) {
            Ok(Some((id, names))) if !seen.contains(&id) => {
                seen.push(id);
                found.directories += 1;
                names
            }
            Ok(_) => continue,
            Err(error) => {
                found.failed.push(error);
                continue;
            }
        };
        for name in names {
            if found.files.len() >= MOST_FILES {
                found.cut = true;
                break;
            }
            let path = Path::new(directory).join(name.as_os_str());
            let (link, content) = root.file(&path, &mut budget);
            found.files.push(Found { directory: Some(index), name, link, content });
        }
    }
    let path = Path::new(SYSCTL_CONF);
    match root.file(path, &mut budget) {
        (None, Content::Nowhere) => {}
        (link, content) => {
            let name = Name::from_bytes(*b"sysctl.conf");
            found.files.push(Found { directory: None, name, link, content });
        }
    }
    Ok(found)
}

/// The names in a directory of keys beneath `root`, sorted; none where it is no directory.
pub fn keys(root: &Path, directory: &str) -> Vec<String> {
    let directory = if directory.is_empty() { "." } else { directory };
    let names = Root::open(root).and_then(|root| root.list(directory, |_| true));
    let Ok(Some((_, names))) = names else { return Vec::new() };
    names.iter().filter_map(|name| String::from_utf8(name.as_bytes().to_vec()).ok()).collect()
}

/// A directory that is `/` to all that is looked up in it (`openat2(2)`, `RESOLVE_IN_ROOT`).
struct Root {
    path: PathBuf,
    dir: OwnedFd,
}

/// Device and inode.
type Identity = (u64, u64);

impl Root {
    fn open(path: &Path) -> Result<Self, FileError> {
        let dir = open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| FileError::new(Access::Open, path, errno))?;
        Ok(Self { path: path.to_owned(), dir })
    }

    fn at(&self, path: &Path, flags: OFlag) -> Result<OwnedFd, Errno> {
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        // EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether a `..` left
        // the root.
        let mut last = Errno::EAGAIN;
        for _ in 0..8 {
            match openat2(self.dir.as_fd(), path, how) {
                Err(errno @ (Errno::EAGAIN | Errno::EINTR)) => last = errno,
                other => return other,
            }
        }
        Err(last)
    }

    fn error(&self, access: Access, path: &Path, errno: Errno) -> FileError {
        let below = path.strip_prefix("/").unwrap_or(path);
        FileError::new(access, self.path.join(below), errno)
    }

    /// The `*.conf` in a directory, sorted by name; `None` where there is no such directory.
    fn directory(&self, path: &str) -> Result<Option<(Identity, Vec<Name>)>, FileError> {
        self.list(path, |name| name.ends_with(b".conf"))
    }

    fn list(
        &self,
        path: &str,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> Result<Option<(Identity, Vec<Name>)>, FileError> {
        let path = Path::new(path);
        let fail = |errno| self.error(Access::Open, path, errno);
        let fd = match self.at(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NONBLOCK) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            other => other.map_err(fail)?,
        };
        let stat = fstat(&fd).map_err(fail)?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(fd).map_err(fail)?.iter() {
            let entry = entry.map_err(|errno| self.error(Access::Read, path, errno))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && wanted(name) {
                names.push(Name::from_bytes(name));
            }
            if names.len() > MOST_FILES {
                break;
            }
        }
        names.sort();
        Ok(Some(((stat.st_dev, stat.st_ino), names)))
    }

    fn file(&self, path: &Path, budget: &mut usize) -> (Option<PathBuf>, Content) {
        let link = self.link(path);
        // In a container the host's /dev is not there to be followed.
        if link.as_ref().is_some_and(|target| leads_to_null(path, target)) {
            return (link, Content::Null);
        }
        let content = self.content(path, budget).unwrap_or_else(|errno| match errno {
            Errno::ENOENT => Content::Nowhere,
            _ => Content::Failed(self.error(Access::Open, path, errno)),
        });
        (link, content)
    }

    fn link(&self, path: &Path) -> Option<PathBuf> {
        let parent = self.at(path.parent()?, OFlag::O_PATH | OFlag::O_DIRECTORY).ok()?;
        readlinkat(&parent, path.file_name()?).ok().map(PathBuf::from)
    }

    fn content(&self, path: &Path, budget: &mut usize) -> Result<Content, Errno> {
        // Looked at before it is opened: opening a device can act, opening a FIFO can wait.
        let kind = fstat(self.at(path, OFlag::O_PATH)?)?;
        if is_null(&kind) {
            return Ok(Content::Null);
        }
        let no_file = |what: &str| {
            let error = self.error(Access::Open, path, Errno::EINVAL);
            Ok(Content::Failed(error.meaning(format!("it is {what}, not a file"))))
        };
        match kind_of(&kind) {
            SFlag::S_IFREG => {}
            SFlag::S_IFDIR => return no_file("a directory"),
            SFlag::S_IFIFO => return no_file("a FIFO"),
            SFlag::S_IFSOCK => return no_file("a socket"),
            _ => return no_file("a device"),
        }
        // Non-blocking, since it may have become something else meanwhile.
        let fd = self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?;
        if kind_of(&fstat(&fd)?) != SFlag::S_IFREG {
            return no_file("something that changes");
        }
        let longest = LONGEST_FILE.min(*budget);
        let (bytes, whole) = match read_up_to(&fd, longest) {
            Ok(read) => read,
            Err(errno) => return Ok(Content::Failed(self.error(Access::Read, path, errno))),
        };
        *budget -= bytes.len();
        Ok(if whole { Content::Bytes(bytes) } else { Content::Cut(bytes) })
    }
}

fn read_up_to(fd: &OwnedFd, longest: usize) -> Result<(Vec<u8>, bool), Errno> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 16 << 10];
    while bytes.len() <= longest {
        match read(fd, &mut buffer) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Ok((bytes, true)),
            Ok(count) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
    }
    bytes.truncate(longest);
    Ok((bytes, false))
}

fn kind_of(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// `/dev/null` is character device 1:3 (`Documentation/admin-guide/devices.txt`).
fn is_null(stat: &FileStat) -> bool {
    kind_of(stat) == SFlag::S_IFCHR && (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3)
}

/// Whether a link at `path` names `/dev/null`, by its text alone.
fn leads_to_null(path: &Path, target: &Path) -> bool {
    let mut parts: Vec<&OsStr> = Vec::new();
    for part in path.parent().into_iter().flat_map(Path::components).chain(target.components()) {
        match part {
            Component::RootDir | Component::Prefix(_) => parts.clear(),
            Component::CurDir => {}
            Component::ParentDir => {
                parts.pop();
            }
            Component::Normal(name) => parts.push(name),
        }
    }
    parts == ["dev", "null"]
}

/// A path for people.
#[must_use]
pub fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}

#[cfg(test)]
#[path = "sysctl_d_tests.rs"]
mod tests;
