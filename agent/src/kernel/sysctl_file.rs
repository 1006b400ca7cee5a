//! Files under `/proc/sys`: opened safely, kept open, read with small buffers, written once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::sys::uio::{pread, pwrite};

use super::errno::{Access, FileError, sysctl_meaning};

/// First read size. The sysctl handler allocates what the reader offers (`proc_sys_call_handler`,
/// kvzalloc(count + 1)), so a small buffer is three times cheaper than a large one.
const FIRST_READ: usize = 128;
/// Longest value read. `ip_local_reserved_ports` is the longest there is: at most 5 digits and a
/// separator for each of 65 536 ports.
const LONGEST: usize = 1 << 19;

/// The `/proc/sys` trees an agent works through.
///
/// In a container the host's files are mounted one by one beneath `/host/proc/sys`; what is not
/// mounted there can still be read from the container's own read-only `/proc/sys`.
#[derive(Debug)]
pub struct SysctlTree {
    root: PathBuf,
    dir: OwnedFd,
    fallback: Option<(PathBuf, OwnedFd)>,
}

/// Whether a key is opened for reading alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Never writes, so it opens nothing that could.
    ReadOnly,
    /// Writes where it may; where it may not, the file is readable and `write` says why.
    ReadWrite,
}

/// One key's file, kept open.
///
/// A descriptor opened in a network namespace keeps pointing there, whichever namespace the
/// reading thread is in, and does not keep the namespace alive: once the key is gone it answers
/// ENOENT.
#[derive(Debug)]
pub struct SysctlFile {
    fd: OwnedFd,
    path: PathBuf,
    key: String,
    write_error: Option<FileError>,
}

/// What one `write(2)` did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The kernel said no.
    #[error(transparent)]
    Refused(#[from] FileError),
    /// The kernel took the beginning and left the rest: part of the value is in force.
    #[error("the kernel took {written} of {offered} bytes: part of the value is in force")]
    Short {
        /// Bytes taken.
        written: usize,
        /// Bytes offered.
        offered: usize,
    },
}

impl SysctlTree {
    /// Opens the tree at `root`. `fallback`, if any and different, serves reads of files that
    /// are not mounted beneath `root`.
    pub fn open(root: &Path, fallback: Option<&Path>) -> Result<Self, FileError> {
        let open_dir = |path: &Path| {
            open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|errno| FileError::new(Access::Open, path, errno))
        };
        let fallback = match fallback {
            Some(path) if path != root => Some((path.to_owned(), open_dir(path)?)),
            _ => None,
        };
        Ok(Self { root: root.to_owned(), dir: open_dir(root)?, fallback })
    }

    /// Where the tree is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Names in a directory below the root, in no order; of the fallback where the root lacks it.
    pub fn list(&self, directory: &str) -> io::Result<Vec<std::ffi::OsString>> {
        let first = list(&self.root.join(directory));
        match (&first, &self.fallback) {
            (Err(error), Some((root, _))) if error.kind() == io::ErrorKind::NotFound => {
                list(&root.join(directory))
            }
            _ => first,
        }
    }

    /// Opens the file of `key` at `path`, which is relative to the root.
    ///
    /// No spelling leads out of the tree: the kernel resolves beneath the root, follows no link,
    /// and what was opened must be on a proc file system (`openat2(2)`, since Linux 5.6).
    pub fn open_key(
        &self,
        key: &str,
        path: &Path,
        mode: OpenMode,
    ) -> Result<SysctlFile, FileError> {
        let first = self.open_at(&self.root, &self.dir, key, path, mode);
        let Some((root, dir)) = &self.fallback else { return first };
        let error = match first {
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::EACCES | Errno::EXDEV) => {
                error
            }
            other => return other,
        };
        let Ok(mut file) = self.open_at(root, dir, key, path, OpenMode::ReadOnly) else {
            return Err(error);
        };
        if mode == OpenMode::ReadWrite {
            let missing = self.root.join(path);
            let hint = format!(
                "it is not mounted: mount the host's /proc/sys/{} there, read-write",
                path.display()
            );
            file.write_error = Some(match error.errno {
                Errno::ENOENT => FileError::new(Access::Open, missing, Errno::ENOENT).meaning(hint),
                _ => error,
            });
        }
        Ok(file)
    }

    fn open_at(
        &self,
        root: &Path,
        dir: &OwnedFd,
        key: &str,
        path: &Path,
        mode: OpenMode,
    ) -> Result<SysctlFile, FileError> {
        let full = root.join(path);
        let fail = |access, errno| {
            FileError::new(access, full.clone(), errno).meaning(sysctl_meaning(access, errno, key))
        };
        let attempt = |flags: OFlag| {
            let how = OpenHow::new()
                .flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY | OFlag::O_NONBLOCK)
                .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
            openat2(dir.as_fd(), path, how)
        };
        let (fd, write_error) = match mode {
            OpenMode::ReadOnly => (attempt(OFlag::O_RDONLY), None),
            OpenMode::ReadWrite => match attempt(OFlag::O_RDWR) {
                Err(errno @ (Errno::EACCES | Errno::EROFS | Errno::EPERM)) => {
                    (attempt(OFlag::O_RDONLY), Some(fail(Access::Open, errno)))
                }
                other => (other, None),
            },
        };
        let fd = fd.map_err(|errno| match write_error.clone() {
            // Not readable either: the first refusal says more than the second.
            Some(error) if errno != Errno::ENOENT => error,
            _ => fail(Access::Open, errno),
        })?;
        let file_system = fstatfs(&fd).map_err(|errno| fail(Access::Open, errno))?;
        if file_system.filesystem_type() != PROC_SUPER_MAGIC {
            return Err(fail(Access::Open, Errno::EXDEV).meaning(
                "what is mounted there is no proc file system: mount the host's file there",
            ));
        }
        Ok(SysctlFile { fd, path: full, key: key.to_owned(), write_error })
    }
}

impl SysctlFile {
    /// The value, without the final line end. `buffer` is reused between calls.
    pub fn read<'b>(&self, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], FileError> {
        let mut size = FIRST_READ;
        loop {
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            let offered = buffer.get_mut(..size).unwrap_or_default();
            let count = match pread(&self.fd, offered, 0) {
                Err(Errno::EINTR) => continue,
                other => other.map_err(|errno| self.error(Access::Read, errno))?,
            };
            // A sysctl handler answers a read at an offset with end of file, so a value that
            // filled the buffer is read again from its start with a larger one.
            if count < size || size >= LONGEST {
                let text = buffer.get(..count).unwrap_or_default();
                return Ok(text.strip_suffix(b"\n").unwrap_or(text));
            }
            size *= 2;
        }
    }

    /// Writes the whole value with exactly one system call at offset 0: the kernel ignores
    /// anything after the first write (`kernel.sysctl_writes_strict`).
    pub fn write(&self, value: &str) -> Result<(), WriteError> {
        if let Some(error) = &self.write_error {
            return Err(error.clone().into());
        }
        let mut line = String::with_capacity(value.len() + 1);
        line.push_str(value);
        line.push('\n');
        let written = loop {
            match pwrite(&self.fd, line.as_bytes(), 0) {
                // The handler did not run: proc_sys_call_handler never sleeps half-way.
                Err(Errno::EINTR) => {}
                other => break other.map_err(|errno| self.error(Access::Write, errno))?,
            }
        };
        // The line end is not part of the value; some handlers leave it.
        if written < value.len() {
            return Err(WriteError::Short { written, offered: line.len() });
        }
        Ok(())
    }

    /// Why writing is impossible, where that is known already.
    #[must_use]
    pub fn write_error(&self) -> Option<&FileError> {
        self.write_error.as_ref()
    }

    /// Whether the file's mode lets root write, however the tree is mounted.
    #[must_use]
    pub fn is_for_writing(&self) -> bool {
        fstat(&self.fd).is_ok_and(|stat| stat.st_mode & 0o200 != 0)
    }

    /// The file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, access: Access, errno: Errno) -> FileError {
        FileError::new(access, self.path.clone(), errno)
            .meaning(sysctl_meaning(access, errno, &self.key))
    }
}

impl AsFd for SysctlFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Names in a directory of keys, for completing what a user typed. Empty where it cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    std::fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
}
