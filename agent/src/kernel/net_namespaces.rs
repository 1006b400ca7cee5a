//! The network namespaces that there are, as far as processes and files lead to them, and who is charged
//! for each.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::net_processes::ProcessesError;
use super::netns::{self, Kind, NsId};
use super::nsfs::{self, Found};
use super::processes;
use super::user_ns::{Payer, Payers};

/// One pass looks at no more processes, and files of a directory.
const MOST: usize = 1 << 17;

/// What a pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Namespaces by the user who is charged, the initial one left out: nobody is charged for it.
    pub users: BTreeMap<u32, u64>,
    /// Processes whose namespace may not be seen.
    pub refused: u64,
}

/// Looks at the namespace of each process, and of each file in these directories. One that only a
/// descriptor, a socket, a thread or a mount elsewhere keeps is not seen, nor one in a directory that
/// cannot be listed.
pub fn look(proc_root: &Path, directories: &[PathBuf]) -> Result<Seen, ProcessesError> {
    let initial = match netns::is_in_initial(proc_root) {
        true => netns::own(proc_root, Kind::Net),
        false => id(&proc_root.join("1/ns/net")),
    };
    let mut looker = Looker {
        payers: Payers::new(proc_root)?,
        known: initial.into_iter().collect(),
        seen: Seen::default(),
    };
    for process in processes::of_host(proc_root)?.take(MOST) {
        let path = proc_root.join(process.to_string());
        match looker.process(&path) {
            // Also the answer of one that has just ended.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.exists() => {
                looker.seen.refused += 1;
            }
            // It ended.
            Ok(()) | Err(_) => {}
        }
    }
    for directory in directories {
        looker.directory(proc_root, directory);
    }
    Ok(looker.seen)
}

struct Looker {
    payers: Payers,
    known: BTreeSet<NsId>,
    seen: Seen,
}

impl Looker {
    fn process(&mut self, process: &Path) -> io::Result<()> {
        let path = process.join("ns/net");
        let id = id(&path)?;
        if !self.known.contains(&id) {
            self.take(id, File::open(&path)?)?;
        }
        Ok(())
    }

    fn directory(&mut self, proc_root: &Path, directory: &Path) {
        let entries = fs::read_dir(directory).into_iter().flatten().map_while(Result::ok);
        for entry in entries.take(MOST) {
            if let Ok(Found::Netns(file, id)) = nsfs::find(proc_root, &entry.path())
                && !self.known.contains(&id)
            {
                // Its owner cannot be told: it is gone by now.
                let _ = self.take(id, file);
            }
        }
    }

    fn take(&mut self, id: NsId, file: impl AsFd) -> io::Result<()> {
        // In the reader's own user namespace only root may make one (CAP_SYS_ADMIN).
        let user = match self.payers.of_owner(file)? {
            Payer::Maker => Some(0),
            Payer::User(user) => Some(user),
            Payer::Nobody => None,
        };
        self.known.insert(id);
        if let Some(user) = user {
            *self.seen.users.entry(user).or_default() += 1;
        }
        Ok(())
    }
}

fn id(path: &Path) -> io::Result<NsId> {
    let meta = fs::metadata(path)?;
    Ok(NsId { dev: meta.dev(), ino: meta.ino() })
}
