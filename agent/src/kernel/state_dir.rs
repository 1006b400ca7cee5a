//! The state directory: the agent's lock, and files that are replaced whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::errno::{Access, FileError, of_io};
use super::name::escape;

/// The lock's holder is a line; more than this is not ours.
const LONGEST_HOLDER: u64 = 512;

/// Why the agent's lock could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("{} is locked by {holder}: stop it first", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// What the holder wrote about itself, escaped.
        holder: String,
    },
    /// The file could not be opened.
    #[error(transparent)]
    File(#[from] FileError),
}

/// The agent's lock, held until it is dropped, also by kill -9 (`flock(2)`).
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "held, not read")] Flock<File>);

/// Takes the lock in `directory`, which is created if needed. `me` is one line that names this
/// process to those who are refused.
pub fn lock(directory: &Path, me: &str) -> Result<Lock, LockError> {
    create(directory)?;
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|error| FileError::new(Access::Open, &path, of_io(&error)))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            // Only for humans: a failure to write it must not stop the agent.
            let _ =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{me}"));
            Ok(Lock(file))
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut holder = Vec::new();
            let _ = (&mut file).take(LONGEST_HOLDER).read_to_end(&mut holder);
            let holder = match holder.trim_ascii() {
                [] => "another process".to_owned(),
                bytes => escape(bytes),
            };
            Err(LockError::Held { path, holder })
        }
        Err((_, errno)) => Err(FileError::new(Access::Open, path, errno).into()),
    }
}

/// Creates the directory, for its owner alone. One that is there must belong to this user or to
/// root: in a shared `/tmp` somebody else could have made it first.
pub fn create(directory: &Path) -> Result<(), FileError> {
    let fail = |error: &io::Error| FileError::new(Access::Open, directory, of_io(error));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| fail(&error))?;
    let owner = fs::metadata(directory).map_err(|error| fail(&error))?.uid();
    if owner != 0 && owner != super::system::user_id() {
        return Err(FileError::new(Access::Open, directory, Errno::EACCES)
            .meaning(format!("it belongs to user {owner}")));
    }
    Ok(())
}

/// Reads a file of at most `longest` bytes; `None` if it does not exist. Anything but a file is
/// refused without waiting for it: a FIFO could give its content once, and only when asked by
/// somebody who has the time.
pub fn read(path: &Path, longest: u64) -> Result<Option<Vec<u8>>, FileError> {
    let fail = |error: &io::Error| FileError::new(Access::Read, path, of_io(error));
    let opened = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| fail(&error))?,
    };
    let meta = file.metadata().map_err(|error| fail(&error))?;
    if !meta.is_file() && !meta.is_dir() {
        return Err(
            FileError::new(Access::Read, path, Errno::EINVAL).meaning("it is not a regular file")
        );
    }
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes).map_err(|error| fail(&error))?;
    if bytes.len() as u64 > longest {
        return Err(FileError::new(Access::Read, path, Errno::EFBIG)
            .meaning(format!("it is longer than {longest} bytes")));
    }
    Ok(Some(bytes))
}

/// Replaces a file: a crash at any point leaves the old content or the new one.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), FileError> {
    let temporary = path.with_extension("new");
    write_synced(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path))
        // The rename itself is durable once its directory is.
        .and_then(|()| path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all()))
        .map_err(|error| {
            let _ = fs::remove_file(&temporary);
            FileError::new(Access::Write, path, of_io(&error))
        })
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The files in a directory; none where it cannot be read.
#[must_use]
pub fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Removes a file, such as a socket that nobody answers any more.
pub fn remove(path: &Path) -> Result<(), FileError> {
    fs::remove_file(path).map_err(|error| FileError::new(Access::Write, path, of_io(&error)))
}

/// Puts a file that makes no sense aside, so that it can be looked at.
pub fn set_aside(path: &Path) -> Result<PathBuf, FileError> {
    let aside = path.with_extension("unreadable");
    fs::rename(path, &aside)
        .map(|()| aside)
        .map_err(|error| FileError::new(Access::Write, path, of_io(&error)))
}
