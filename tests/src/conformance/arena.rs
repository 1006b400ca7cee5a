//! Where one run happens: a network namespace with some bridges, and a root directory that looks
//! like the machine's but has no `sysctl.d` files. Nothing of it is left when the run ends.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

use super::case::{Case, Content};
use crate::{HostLock, Mount, ip_batch, private_mounts};

/// A bridge needs no module and no partner. One has a dot in its name, as a VLAN has.
const INTERFACES: &str = "link add hr0 type bridge\nlink add hr1 type bridge\n\
                          link add hr0.100 type bridge\nlink add hub0 type bridge\n";

/// What the machine itself may have.
const CLEARED: [&str; 5] = [
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/usr/local/lib/sysctl.d",
];

/// Where Headroom's binary is in every arena.
pub const BINARY: &str = "/run/headroom-binary";

/// The root directory, namespaces and keys of the thread that has it.
pub struct Arena {
    // Mounted as long as this is here.
    mounts: Vec<Mount>,
}

impl Arena {
    /// Runs `work` in a new one, made as the case says. Every path means the arena's own there.
    pub fn with<T: Send>(
        host: &HostLock,
        case: &Case,
        headroom: &Path,
        work: impl FnOnce(&Self) -> T + Send,
    ) -> T {
        let directory = host.directory();
        private_mounts(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            ip_batch(INTERFACES);
            let mut arena = Self::enter(directory.path(), headroom);
            arena.lay_out(case);
            work(&arena)
        })
    }

    /// Makes the root directory under this one and goes there. It is the thread's alone.
    fn enter(directory: &Path, headroom: &Path) -> Self {
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
        let binary = root.join(BINARY.trim_start_matches('/'));
        fs::write(&binary, "").unwrap();
        mounts.push(Mount::bind(headroom, binary));
        // Before anything is removed or written: an absolute link leads nowhere else from here.
        chroot(&root).unwrap();
        chdir("/").unwrap();
        for path in CLEARED {
            let _ = fs::remove_file(path).or_else(|_| fs::remove_dir_all(path));
            assert!(!Path::new(path).exists(), "{path} is still there");
        }
        Self { mounts }
    }

    fn lay_out(&mut self, case: &Case) {
        for (path, content) in &case.files {
            match content {
                Content::File(text) => self.write(path, text),
                Content::Link(target) => {
                    make_parent(path);
                    symlink(target, path).unwrap();
                }
            }
        }
        for (path, value) in &case.before {
            fs::write(Path::new("/proc/sys").join(path), value)
                .unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
        }
        if case.read_only {
            let mount = Mount::bind("/proc/sys", "/proc/sys");
            mount.set_read_only(true);
            self.mounts.push(mount);
        }
    }

    /// Writes a file.
    #[expect(clippy::unused_self, reason = "only within an arena")]
    pub fn write(&self, path: &str, text: &str) {
        make_parent(path);
        fs::write(path, text).unwrap();
    }

    /// A program that is to run here.
    #[expect(clippy::unused_self, reason = "only within an arena")]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").current_dir("/");
        command
    }

    /// A key's value here, in one line with single spaces; what is wrong if it cannot be read.
    #[expect(clippy::unused_self, reason = "only within an arena")]
    pub fn value(&self, path: &str) -> String {
        match fs::read_to_string(Path::new("/proc/sys").join(path)) {
            Ok(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
            Err(error) => format!("({error})"),
        }
    }
}

fn make_parent(path: &str) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
}
