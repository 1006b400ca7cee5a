//! Values of the host that a test changes, and seeing who writes them.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, FromRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::host::{self, HostLock};

/// Values of the host's `/proc/sys`, put back when dropped, or by the next test if this run is
/// killed.
#[derive(Debug)]
pub struct SavedSysctls {
    values: Vec<(PathBuf, String)>,
    journal: PathBuf,
}

impl SavedSysctls {
    /// Remembers the values of these files below `/proc/sys`. Keys that change each other, such
    /// as `vm/dirty_bytes` and `vm/dirty_ratio`, belong in one call.
    #[must_use]
    pub fn new<'a>(host: &HostLock, paths: impl IntoIterator<Item = &'a str>) -> Self {
        let paths = paths.into_iter().map(|path| Path::new("/proc/sys").join(path));
        let values: Vec<_> = paths.map(|path| (path.clone(), read(&path).unwrap())).collect();
        fs::create_dir_all(journals()).unwrap();
        let journal = journals().join(host.unique_name());
        fs::write(&journal, serde_json::to_vec(&values).unwrap()).unwrap();
        Self { values, journal }
    }
}

impl Drop for SavedSysctls {
    fn drop(&mut self) {
        restore(&self.values);
        let _ = fs::remove_file(&self.journal);
    }
}

fn journals() -> PathBuf {
    Path::new(host::DIRECTORY).join("saved")
}

pub(super) fn restore_leftovers() {
    for journal in fs::read_dir(journals()).into_iter().flatten().filter_map(Result::ok) {
        let saved = fs::read(journal.path()).ok();
        let values = saved.and_then(|bytes| serde_json::from_slice::<Vec<_>>(&bytes).ok());
        restore(&values.unwrap_or_default());
        let _ = fs::remove_file(journal.path());
    }
}

fn restore(values: &[(PathBuf, String)]) {
    let differs = |(path, value): &&(PathBuf, String)| read(path).ok().as_ref() != Some(value);
    // Twice: vm.dirty_bytes cannot be written back while it is 0, but writing vm.dirty_ratio
    // makes it so.
    for _ in 0..2 {
        for (path, value) in values.iter().filter(differs) {
            let _ = fs::write(path, value);
        }
    }
    for (path, value) in values.iter().filter(differs) {
        eprintln!("{} could not be put back to {value}", path.display());
    }
}

fn read(path: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(path)?.trim_end().to_owned())
}

/// Sees every write to some files below `/proc/sys` that the kernel took, also one that changes
/// nothing, and every closing of a descriptor that could have written (`inotify(7)`).
#[derive(Debug)]
pub struct WriteWatch {
    inotify: File,
    paths: Vec<(i32, String)>,
    #[expect(dead_code, reason = "open, so that the kernel keeps the inodes that are watched")]
    files: Vec<File>,
}

impl WriteWatch {
    /// Watches from now on. Call it in the network namespace whose files are meant.
    #[must_use]
    #[allow(unsafe_code)]
    pub fn new<'a>(paths: impl IntoIterator<Item = &'a str>) -> Self {
        // SAFETY: no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        assert!(fd >= 0, "inotify_init1: {}", io::Error::last_os_error());
        // SAFETY: a new descriptor that nothing else owns.
        let inotify = unsafe { File::from_raw_fd(fd) };
        let (mut watched, mut files) = (Vec::new(), Vec::new());
        for path in paths {
            let full = Path::new("/proc/sys").join(path);
            files.push(File::open(&full).unwrap());
            let name = std::ffi::CString::new(full.as_os_str().as_bytes()).unwrap();
            let mask = libc::IN_MODIFY | libc::IN_CLOSE_WRITE;
            // SAFETY: the name is a C string that outlives the call.
            let number = unsafe { libc::inotify_add_watch(fd, name.as_ptr(), mask) };
            assert!(number >= 0, "{}: {}", full.display(), io::Error::last_os_error());
            watched.push((number, path.to_owned()));
        }
        Self { inotify, paths: watched, files }
    }

    /// Waits until something has happened; whether it did in time.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> bool {
        let mut inotify = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        poll(&mut inotify, PollTimeout::try_from(patience).unwrap()).unwrap() > 0
    }

    /// The files written since the last call, in the order of the writes. Several writes to one
    /// file in a row may show as one.
    #[must_use]
    pub fn written(&mut self) -> Vec<String> {
        self.events(libc::IN_MODIFY)
    }

    /// The files that were closed by somebody who could have written them. Like [`Self::written`]
    /// it forgets everything else that has happened.
    #[must_use]
    pub fn closed_writable(&mut self) -> Vec<String> {
        self.events(libc::IN_CLOSE_WRITE)
    }

    fn events(&mut self, wanted: u32) -> Vec<String> {
        let mut found = Vec::new();
        let mut buffer = [0; 4096];
        // WouldBlock: nothing more.
        while let Ok(length) = self.inotify.read(&mut buffer) {
            let mut events = &buffer[..length];
            // struct inotify_event: wd, mask, cookie, length of the name that follows
            while let Some((header, rest)) = events.split_first_chunk::<16>() {
                let field = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
                let path = self.paths.iter().find(|(wd, _)| wd.cast_unsigned() == field(0));
                if let Some((_, path)) = path.filter(|_| field(4) & wanted != 0) {
                    found.push(path.clone());
                }
                events = &rest[field(12) as usize..];
            }
        }
        found
    }
}
