//! Files of the node that others write: read without being held up, and no further than is sane.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::errno::{Access, FileError, of_io};

/// Reads a file of at most `longest` bytes; `None` if it does not exist. Only a regular one, and
/// not through a link: nothing is opened that could hang or act.
pub fn read(path: &Path, longest: u64) -> Result<Option<Vec<u8>>, FileError> {
    // Looked at before it is opened: opening a device can act. And again after it, since it may
    // have become something else meanwhile.
    let opening = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let opened = regular(path, OFlag::O_PATH).and_then(|_| regular(path, opening));
    let file = match opened {
        Err(error) if error.errno == Errno::ENOENT => return Ok(None),
        other => other?,
    };
    let fail = |errno| FileError::new(Access::Read, path, errno);
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes).map_err(|error| fail(of_io(&error)))?;
    if bytes.len() as u64 > longest {
        return Err(fail(Errno::EFBIG).meaning(format!("it is longer than {longest} bytes")));
    }
    Ok(Some(bytes))
}

fn regular(path: &Path, flags: OFlag) -> Result<File, FileError> {
    let fail = |errno| FileError::new(Access::Open, path, errno);
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fd = open(path, flags, Mode::empty()).map_err(fail)?;
    let kind = SFlag::from_bits_truncate(fstat(&fd).map_err(fail)?.st_mode) & SFlag::S_IFMT;
    let what = match kind {
        SFlag::S_IFREG => return Ok(File::from(fd)),
        SFlag::S_IFDIR => "a directory",
        SFlag::S_IFLNK => "a link",
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        _ => "a device",
    };
    Err(fail(Errno::EINVAL).meaning(format!("it is {what}, not a file")))
}

/// Names in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// In no order.
    pub names: Vec<OsString>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// Whether a directory is there.
#[must_use]
pub fn is_directory(path: &Path) -> bool {
    path.is_dir()
}

/// Shows the names in a directory one by one, but those of directories, in no order. With more than
/// `most` it fails.
pub fn each(
    directory: &Path,
    most: usize,
    mut show: impl FnMut(&std::ffi::OsStr),
) -> Result<(), FileError> {
    let fail = |error: &std::io::Error| FileError::new(Access::Read, directory, of_io(error));
    for (index, entry) in fs::read_dir(directory).map_err(|error| fail(&error))?.enumerate() {
        if index == most {
            let error = FileError::new(Access::Read, directory, Errno::EFBIG);
            return Err(error.meaning(format!("it has more than {most} entries")));
        }
        let entry = entry.map_err(|error| fail(&error))?;
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            show(&entry.file_name());
        }
    }
    Ok(())
}

/// At most `most` names in a directory.
pub fn list(directory: &Path, most: usize) -> Result<Names, FileError> {
    let fail = |error: &std::io::Error| FileError::new(Access::Read, directory, of_io(error));
    let mut found = Names::default();
    for entry in fs::read_dir(directory).map_err(|error| fail(&error))? {
        if found.names.len() == most {
            found.more = true;
            break;
        }
        found.names.push(entry.map_err(|error| fail(&error))?.file_name());
    }
    Ok(found)
}

#[cfg(test)]
#[path = "node_file_tests.rs"]
mod tests;
