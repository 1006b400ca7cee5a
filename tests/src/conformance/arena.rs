//! Where one run happens: a network namespace with three bridges, and a root directory that looks
//! like the machine's but has no `sysctl.d` files. Nothing of it is left when the run ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::case::{Case, Content};
use crate::{HostLock, Mount, ip_batch, private_mounts};

/// A bridge needs no module and no partner. The last one has a dot in its name, as a VLAN has.
const INTERFACES: &str = "link add hr0 type bridge\nlink add hr1 type bridge\n\
                          link add hr0.100 type bridge\nlink add hub0 type bridge\n";

/// What the machine itself may have.
const CLEARED: [&str; 5] = [
    "etc/sysctl.conf",
    "etc/sysctl.d",
    "lib/sysctl.d",
    "usr/lib/sysctl.d",
    "usr/local/lib/sysctl.d",
];

/// A root directory, to be used on the thread that made it.
pub struct Arena {
    root: PathBuf,
    mounts: Vec<Mount>,
}

impl Arena {
    /// Runs `work` in a new one, made as the case says.
    pub fn with<T: Send>(host: &HostLock, case: &Case, work: impl FnOnce(&Self) -> T + Send) -> T {
        let directory = host.directory();
        private_mounts(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let mut arena = Self::new(directory.path());
            ip_batch(INTERFACES);
            arena.lay_out(case);
            let result = work(&arena);
            // The last mounted first.
            while arena.mounts.pop().is_some() {}
            result
        })
    }

    fn new(directory: &Path) -> Self {
        let mut mounts = vec![Mount::file_system("tmpfs", directory, "")];
        let [root, upper, work] = ["root", "upper", "work"].map(|name| directory.join(name));
        for made in [&root, &upper, &work] {
            fs::create_dir(made).unwrap();
        }
        let layers = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mounts.push(Mount::file_system("overlay", &root, &layers));
        for temporary in ["run", "tmp"] {
            mounts.push(Mount::file_system("tmpfs", root.join(temporary), ""));
        }
        mounts.push(Mount::file_system("proc", root.join("proc"), ""));
        mounts.push(Mount::bind("/dev", root.join("dev")));
        for path in CLEARED.map(|path| root.join(path)) {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            assert!(!path.exists(), "{} is still there", path.display());
        }
        Self { root, mounts }
    }

    fn lay_out(&mut self, case: &Case) {
        for (path, content) in &case.files {
            match content {
                Content::File(text) => self.write(path, text),
                Content::Link(target) => symlink(target, self.made(path)).unwrap(),
            }
        }
        for (path, value) in &case.before {
            fs::write(Path::new("/proc/sys").join(path), value)
                .unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
        }
        if case.read_only {
            let keys = self.root.join("proc/sys");
            let mount = Mount::bind(&keys, &keys);
            mount.set_read_only(true);
            self.mounts.push(mount);
        }
    }

    /// A path below the root, whose directory exists.
    fn made(&self, path: &str) -> PathBuf {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Writes a file below the root.
    pub fn write(&self, path: &str, text: &str) {
        fs::write(self.made(path), text).unwrap();
    }

    /// A file below the root.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    /// Shows a program of the machine, wherever it is, at a path below the root.
    pub fn lend(&self, program: &Path, path: &str) -> Mount {
        self.write(path, "");
        Mount::bind(program, self.root.join(path))
    }

    /// A program that sees the arena's root as its own.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.root).arg(program).env("LC_ALL", "C").current_dir("/");
        command
    }

    /// A key's value here, in one line with single spaces; what is wrong if it cannot be read.
    pub fn value(&self, path: &str) -> String {
        match fs::read_to_string(Path::new("/proc/sys").join(path)) {
            Ok(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Err(error) => format!("({error})"),
        }
    }
}
