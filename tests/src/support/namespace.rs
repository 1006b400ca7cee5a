//! A network namespace of a test's own.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};

use super::command::{batch_failures, ip, try_ip};
use super::host::{self, HostLock};

/// A network namespace, removed when it is dropped. Nothing in it is up, not even `lo`.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// A new one, named in `/run/netns`.
    #[must_use]
    pub fn new(host: &HostLock) -> Self {
        let name = host.unique_name();
        ip(["netns", "add", &name]);
        let fd = File::open(PathBuf::from(host::NETNS_DIRECTORY).join(&name)).unwrap();
        Self { name, fd: Arc::new(fd.into()) }
    }

    /// Its name for `ip -n`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(host::NETNS_DIRECTORY).join(&self.name)
    }

    /// Its descriptor, as `Netns::At` wants it. A copy that is kept keeps the namespace alive.
    #[must_use]
    pub fn fd(&self) -> Arc<OwnedFd> {
        self.fd.clone()
    }

    /// Runs `work` on a thread in the namespace; a panic there is a panic here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(entered).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Runs `ip` in the namespace. Fails the test where it fails.
    pub fn ip<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        self.try_ip(args).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs `ip` in the namespace; what it printed, or what it complained about.
    pub fn try_ip<A: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Result<String, String> {
        let inside = ["-n", &self.name].map(OsString::from).into_iter();
        try_ip(inside.chain(args.into_iter().map(|arg| arg.as_ref().to_owned())))
    }

    /// Runs the lines of `batch` with one `ip -batch`. Fails the test where one fails.
    pub fn ip_batch(&self, batch: impl AsRef<[u8]>) {
        let failures = self.ip_batch_failures(batch);
        assert_eq!(failures, "", "ip -batch");
    }

    /// Runs every line, whatever comes of it; all that `ip` complained about.
    pub fn ip_batch_failures(&self, batch: impl AsRef<[u8]>) -> String {
        batch_failures(&["-n", &self.name], batch.as_ref())
    }

    /// The value of a file below `/proc/sys`, as this namespace has it.
    #[must_use]
    pub fn read(&self, path: &str) -> String {
        let path = PathBuf::from("/proc/sys").join(path);
        let text = self.run(|| std::fs::read_to_string(&path));
        text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim_end().to_owned()
    }

    /// Writes a file below `/proc/sys` in this namespace, as another writer would.
    pub fn write(&self, path: &str, value: &str) {
        let path = PathBuf::from("/proc/sys").join(path);
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{} = {value}: {error}", path.display()));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let enter = format!("nsenter --net={}", self.path().display());
        match std::thread::panicking() {
            true if host::keep() => return eprintln!("kept: {enter}"),
            true => eprintln!("to look at it, set HEADROOM_KEEP_NAMESPACES=1 and: {enter}"),
            false => {}
        }
        if let Err(error) = try_ip(["netns", "delete", &self.name]) {
            eprintln!("{error}");
        }
    }
}
