//! Mounts that only one thread sees.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sched::{CloneFlags, unshare};

/// Runs `work` on a thread with a mount namespace of its own: what is mounted there, nobody else
/// sees, and it is gone with the thread. Threads that are started there see it too.
pub fn private_mounts<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let unshared = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        Mount::call(None, "/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
        work()
    };
    std::thread::scope(|scope| scope.spawn(unshared).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Something mounted at a path, to be made within [`private_mounts`]. Unmounted when dropped.
#[derive(Debug)]
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts a file or directory at a second place, which must exist.
    #[must_use]
    pub fn bind(source: impl AsRef<Path>, target: impl AsRef<Path>) -> Self {
        let (source, target) = (source.as_ref(), target.as_ref());
        Self::call(Some(source), target, None, libc::MS_BIND | libc::MS_REC, None).unwrap();
        Self(target.to_owned())
    }

    /// Mounts a file system at a directory.
    #[must_use]
    pub fn file_system(kind: &str, target: impl AsRef<Path>, options: &str) -> Self {
        Self::call(Some(Path::new(kind)), &target, Some(kind), 0, Some(options)).unwrap();
        Self(target.as_ref().to_owned())
    }

    /// Keeps it for as long as the mount namespace lives, and what is mounted below it is seen in
    /// copies of the namespace that are made from now on.
    pub fn share(self) {
        Self::call(None, &self.0, None, libc::MS_SHARED, None).unwrap();
        std::mem::forget(self);
    }

    /// Makes this mount read-only, or not.
    pub fn set_read_only(&self, read_only: bool) {
        let flag = if read_only { libc::MS_RDONLY } else { 0 };
        Self::call(None, &self.0, None, libc::MS_REMOUNT | libc::MS_BIND | flag, None).unwrap();
    }

    #[allow(unsafe_code)]
    fn call(
        source: Option<&Path>,
        target: impl AsRef<Path>,
        kind: Option<&str>,
        flags: libc::c_ulong,
        options: Option<&str>,
    ) -> io::Result<()> {
        let c = |bytes: &[u8]| CString::new(bytes).unwrap();
        let source = source.map(|path| c(path.as_os_str().as_bytes()));
        let target = c(target.as_ref().as_os_str().as_bytes());
        let kind = kind.map(|kind| c(kind.as_bytes()));
        let options = options.map(|options| c(options.as_bytes()));
        let pointer =
            |text: &Option<CString>| text.as_ref().map_or(std::ptr::null(), |t| t.as_ptr());
        // SAFETY: every pointer is null or a C string that outlives the call.
        let result = unsafe {
            libc::mount(
                pointer(&source),
                target.as_ptr(),
                pointer(&kind),
                flags,
                pointer(&options).cast(),
            )
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

/// Unmounts what is mounted at a path, if anything is.
#[allow(unsafe_code)]
pub(super) fn detach(path: &Path) {
    let target = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string that outlives the call.
    unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) };
}
