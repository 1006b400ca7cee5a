//! Inotify and fanotify groups of all processes: the kernel has no counter to read.
//!
//! One pass over `/proc/*/fd`. What a group is charged to was settled when it was made
//! (`inotify_new_group`: the user namespace and effective user of its maker); what can be read is
//! who holds it now.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlinkat};
use nix::sys::stat::Mode;

use super::cgroup;
use super::errno::of_io;
use super::kcmp::{Descriptor, Distinct};
use super::net_processes::ProcessesError;
use super::processes;
use super::user_ns::Payers;

/// One pass looks at no more descriptors: some five seconds.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// What `/proc/<pid>/fd/<n>` leads to (`anon_inode_getfd` in `fs/notify`).
const INOTIFY: &[u8] = b"anon_inode:inotify";
const FANOTIFY: &[u8] = b"anon_inode:[fanotify]";

/// What a user holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Inotify instances.
    pub instances: u64,
    /// Their watches; 0 where they were not asked for.
    pub watches: u64,
    /// Fanotify groups.
    pub fanotify: u64,
}

/// What one user's processes in one pod hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Inotify instances.
    pub instances: u64,
    /// Their watches.
    pub watches: u64,
}

/// Pods whose parts are kept apart.
const MOST_PARTS: usize = 1 << 14;

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// By user of the reader's user namespace; one who holds nothing is not there.
    pub users: BTreeMap<u32, Held>,
    /// What of that each pod has, by user and the pod's uid.
    pub pods: BTreeMap<(u32, String), Part>,
    /// Descriptors that were looked at.
    pub descriptors: u64,
    /// Processes whose descriptors may not be seen.
    pub refused: u64,
    /// Whether some processes were left out because there were too many descriptors.
    pub cut: bool,
    /// Whether a group that several descriptors lead to may have counted several times.
    pub unsure: bool,
}

/// Looks at the descriptors of every process. Watches are read where that is asked for: the kernel
/// renders all of an instance at once, whatever is read of it, into memory that is charged to the
/// reader.
///
/// Threads that have a descriptor table of their own, and descriptors that are on their way through a
/// socket, are not seen.
pub fn scan(proc_root: &Path, watches: bool) -> Result<Scan, ProcessesError> {
    let mut scanner = Scanner {
        payers: Payers::new(proc_root)?,
        inotify: Distinct::default(),
        fanotify: Distinct::default(),
        buffer: vec![0; if watches { 16 << 10 } else { 0 }],
        scan: Scan::default(),
    };
    for process in processes::of_host(proc_root)? {
        if scanner.scan.descriptors >= MOST_DESCRIPTORS {
            scanner.scan.cut = true;
            break;
        }
        let path = proc_root.join(process.to_string());
        match scanner.look(process, &path) {
            Err(Errno::EACCES | Errno::EPERM) if path.exists() => scanner.scan.refused += 1,
            // It ended, at whatever point.
            Ok(()) | Err(_) => {}
        }
    }
    let unsure = scanner.inotify.is_unsure() || scanner.fanotify.is_unsure();
    Ok(Scan { unsure, ..scanner.scan })
}

struct Scanner {
    payers: Payers,
    inotify: Distinct,
    fanotify: Distinct,
    buffer: Vec<u8>,
    scan: Scan,
}

impl Scanner {
    fn look(&mut self, process: u32, path: &Path) -> nix::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = open(&path.join("fd"), flags, Mode::empty())?;
        let mut names = Dir::from_fd(directory.try_clone().map_err(|error| of_io(&error))?)?;
        // Who holds them: looked at where there is a group.
        let mut holder = None;
        for entry in names.iter() {
            let entry = entry?;
            let Some(number) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok())
            else {
                continue;
            };
            self.scan.descriptors += 1;
            // Not stat(2): that would ask file systems, and could wait for a server.
            let target = match readlinkat(&directory, entry.file_name()) {
                Err(Errno::ENOENT) => continue,
                other => other?,
            };
            let descriptor = Descriptor { process, number };
            let instance = match target.as_bytes() {
                INOTIFY if self.inotify.is_new(descriptor) => true,
                FANOTIFY if self.fanotify.is_new(descriptor) => false,
                _ => continue,
            };
            if holder.is_none() {
                holder = Some(self.holder(path)?);
            }
            if let Some(holder) = &holder {
                self.count(path, number, instance, holder);
            }
        }
        Ok(())
    }

    /// The user who is charged, and the uid of the pod.
    fn holder(&mut self, path: &Path) -> nix::Result<(Option<u32>, Option<String>)> {
        let user = self.payers.of_process(path).map_err(|error| of_io(&error))?;
        let cgroup = std::fs::read(path.join("cgroup")).ok().and_then(|file| cgroup::parse(&file));
        Ok((user, cgroup.and_then(|cgroup| Some(cgroup.pod?.uid))))
    }

    fn count(
        &mut self,
        path: &Path,
        number: u32,
        instance: bool,
        (user, pod): &(Option<u32>, Option<String>),
    ) {
        let Some(user) = *user else { return };
        let watches = match instance && !self.buffer.is_empty() {
            true => self.watches(path.join("fdinfo").join(number.to_string())),
            false => 0,
        };
        let held = self.scan.users.entry(user).or_default();
        held.watches += watches;
        held.instances += u64::from(instance);
        held.fanotify += u64::from(!instance);
        if let Some(pod) = pod.as_ref().filter(|_| self.scan.pods.len() < MOST_PARTS) {
            let part = self.scan.pods.entry((user, pod.clone())).or_default();
            part.instances += u64::from(instance);
            part.watches += watches;
        }
    }

    /// None, where it was closed meanwhile.
    fn watches(&mut self, fdinfo: PathBuf) -> u64 {
        let Ok(mut file) = File::open(fdinfo) else { return 0 };
        let mut watches = Watches::default();
        while let Ok(length @ 1..) = file.read(&mut self.buffer) {
            watches.feed(self.buffer.get(..length).unwrap_or_default());
        }
        watches.count()
    }
}

/// Counts the watches in `/proc/<pid>/fdinfo/<n>`, piece by piece: lines `inotify wd:…`
/// (`inotify_fdinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watches {
    count: u64,
    matched: Matched,
}

/// How much of a line has matched so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Matched {
    Bytes(usize),
    /// It is another line, or has counted.
    No,
}

impl Default for Matched {
    fn default() -> Self {
        Self::Bytes(0)
    }
}

impl Watches {
    const BEGIN: &[u8] = b"inotify wd:";

    /// Takes in what comes next.
    pub fn feed(&mut self, piece: &[u8]) {
        for byte in piece {
            self.matched = match (self.matched, byte) {
                (_, b'\n') => Matched::Bytes(0),
                (Matched::Bytes(at), byte) if Self::BEGIN.get(at) == Some(byte) => {
                    self.count += u64::from(at + 1 == Self::BEGIN.len());
                    Matched::Bytes(at + 1)
                }
                _ => Matched::No,
            };
        }
    }

    /// How many there were so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn watches_are_the_lines_that_say_so() {
        let text = b"pos:\t0\nflags:\t02000000\nmnt_id:\t17\nino:\t1038\n\
            inotify wd:2 ino:abae69 sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8 \
            fhandle-type:1 f_handle:69aeab00e2fdb6d0\n\
            inotify wd:1 ino:1 sdev:3 mask:2 ignored_mask:0\ninotify w\n inotify wd:3\n";
        let mut watches = Watches::default();
        watches.feed(text);
        assert_eq!(watches.count(), 2);
    }

    proptest! {
        /// However the text comes apart, and as slow and obvious counting has it.
        #[test]
        fn pieces_do_not_matter(
            lines in prop::collection::vec("(inotify wd:[0-9a-f]{0,4} ino:1|inotify w?|pos:\t0|inotify wd:)?", 0..20),
            size in 1usize..40,
        ) {
            let text = lines.join("\n");
            let mut watches = Watches::default();
            text.as_bytes().chunks(size).for_each(|piece| watches.feed(piece));
            let expected = lines.iter().filter(|line| line.starts_with("inotify wd:")).count();
            prop_assert_eq!(watches.count(), expected as u64);
        }
    }
}
