//! User namespaces: which user of this one the kernel charges for what another process makes.
//!
//! Limits of users (`ucounts`) are hierarchical: what is made in a user namespace is charged to the
//! creating user there, and to the user who made that namespace in the one above, and so on
//! (`inc_ucount`). So all that is in namespaces below this one counts for a user of this one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::netns::{self, Kind, NsId};
use super::processes;

/// Namespaces may be 32 deep (`create_user_ns`).
const DEEPEST: usize = 33;

/// Who is charged, by user namespace; each is looked at once.
#[derive(Debug)]
pub struct Payers {
    own: NsId,
    known: BTreeMap<NsId, Payer>,
}

/// Who is charged for what is made in a user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payer {
    /// Whoever makes it: it is the reader's own.
    Maker,
    /// A user of the reader's own namespace, who made one below it.
    User(u32),
    /// Nobody of the reader's own namespace.
    Nobody,
}

impl Payers {
    /// Nothing is known yet but the reader's own namespace.
    pub fn new(proc_root: &Path) -> io::Result<Self> {
        Ok(Self { own: netns::own(proc_root, Kind::User)?, known: BTreeMap::new() })
    }

    /// Who is charged for what a process makes, by what it is now: a process that has changed its user
    /// since goes by its new one. `None`: nobody here.
    pub fn of_process(&mut self, process: &Path) -> io::Result<Option<u32>> {
        match self.of_namespace(&process.join("ns/user"))? {
            Payer::Maker => processes::effective_uid(process).map(Some),
            Payer::User(user) => Ok(Some(user)),
            Payer::Nobody => Ok(None),
        }
    }

    /// Who is charged for what is made in the user namespace at this path.
    fn of_namespace(&mut self, path: &PathBuf) -> io::Result<Payer> {
        let meta = std::fs::metadata(path)?;
        let id = NsId { dev: meta.dev(), ino: meta.ino() };
        match self.seen(id) {
            Some(payer) => Ok(payer),
            None => self.look(File::open(path)?.into(), id),
        }
    }

    /// Who is charged for a namespace of another kind, by the user namespace that it belongs to.
    pub fn of_owner(&mut self, namespace: impl AsFd) -> io::Result<Payer> {
        match owning_user_ns(namespace) {
            Ok(owner) => {
                let id = id_of(&owner)?;
                self.seen(id).map_or_else(|| self.look(owner, id), Ok)
            }
            // Above the reader's own.
            Err(Errno::EPERM) => Ok(Payer::Nobody),
            Err(errno) => Err(errno.into()),
        }
    }

    fn seen(&self, id: NsId) -> Option<Payer> {
        if id == self.own { Some(Payer::Maker) } else { self.known.get(&id).copied() }
    }

    fn look(&mut self, namespace: OwnedFd, id: NsId) -> io::Result<Payer> {
        let payer = self.climb(namespace)?;
        self.known.insert(id, payer);
        Ok(payer)
    }

    /// From a namespace up to the one right below the reader's own: its maker is charged.
    fn climb(&self, mut namespace: OwnedFd) -> io::Result<Payer> {
        for _ in 0..DEEPEST {
            let above = match parent(&namespace) {
                Ok(above) => above,
                // There is none that this reader may see.
                Err(Errno::EPERM) => return Ok(Payer::Nobody),
                Err(errno) => return Err(errno.into()),
            };
            if id_of(&above)? == self.own {
                return Ok(Payer::User(maker(&namespace)?));
            }
            namespace = above;
        }
        Ok(Payer::Nobody)
    }
}

fn id_of(fd: &OwnedFd) -> nix::Result<NsId> {
    let stat = nix::sys::stat::fstat(fd)?;
    Ok(NsId { dev: stat.st_dev, ino: stat.st_ino })
}

/// `ioctl_ns(2)`.
#[allow(unsafe_code)]
fn owning_user_ns(namespace: impl AsFd) -> nix::Result<OwnedFd> {
    nix::ioctl_none!(ns_get_userns, 0xb7, 0x1);
    // SAFETY: the request takes no argument, and answers with a new descriptor that is nobody's.
    unsafe { ns_get_userns(namespace.as_fd().as_raw_fd()).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// `ioctl_ns(2)`.
#[allow(unsafe_code)]
fn parent(user_ns: &OwnedFd) -> nix::Result<OwnedFd> {
    nix::ioctl_none!(ns_get_parent, 0xb7, 0x2);
    // SAFETY: the request takes no argument, and answers with a new descriptor that is nobody's.
    unsafe { ns_get_parent(user_ns.as_raw_fd()).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// `ioctl_ns(2)`: the user who made a user namespace, as the reader's own has it.
#[allow(unsafe_code)]
fn maker(user_ns: &OwnedFd) -> nix::Result<u32> {
    nix::ioctl_read_bad!(ns_get_owner_uid, nix::request_code_none!(0xb7, 0x4), u32);
    let mut user = 0u32;
    // SAFETY: the kernel writes one uid_t where the pointer leads, to a live variable.
    unsafe { ns_get_owner_uid(user_ns.as_raw_fd(), &raw mut user)? };
    Ok(user)
}
