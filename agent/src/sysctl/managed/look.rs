//! Reading a key: its file may be missing, gone, another interface's, or not for writing.

use nix::errno::Errno;

use super::{Managed, Obstacle};
use crate::kernel::errno::FileError;
use crate::kernel::links;
use crate::kernel::sysctl_file::{OpenMode, SysctlFile, SysctlTree};
use crate::sysctl::catalogue;
use crate::sysctl::fight::Fight;
use crate::sysctl::ledger::Ledger;
use crate::sysctl::place::{Absent, Place};
use crate::sysctl::policy::Goal;
use crate::sysctl::value::Shape;

/// Whether a key is the one that was there before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is, or never was.
    Same,
    /// Its file is gone, or another one has taken its place, as when an interface is made anew.
    Gone {
        /// The index of the interface that it was of, if of any.
        interface: Option<u32>,
    },
    /// So it is, but the interface lives on, with its values, under another name.
    Renamed {
        /// The name in the key.
        before: String,
        /// The name now.
        now: String,
    },
}

impl Managed {
    /// Reads the key.
    pub fn look(
        &mut self,
        place: &Place,
        tree: &SysctlTree,
        mode: OpenMode,
        buffer: &mut Vec<u8>,
    ) -> Seen {
        if let Some(why) = place.unsupported(&self.key, self.entry.as_ref()) {
            self.stop(Obstacle::Unsupported(why));
            return Seen::Same;
        }
        // A kept descriptor is cheap. One that may not write is opened anew each time: mounts can
        // change under it.
        let writable =
            |file: &SysctlFile| mode == OpenMode::ReadOnly || file.write_error().is_none();
        let kept = self.file.take().filter(writable);
        let (bytes, replaced) =
            match kept.as_ref().map(|file| file.read(buffer).map(<[u8]>::to_vec)) {
                Some(Ok(bytes)) => {
                    self.file = kept;
                    (Ok(bytes), Seen::Same)
                }
                Some(Err(error)) => {
                    let seen = if error.errno == Errno::ENOENT { self.left() } else { Seen::Same };
                    (self.open_and_read(tree, mode, buffer), seen)
                }
                None => (self.open_and_read(tree, mode, buffer), Seen::Same),
            };
        if replaced != Seen::Same {
            self.start_over();
        }
        match bytes {
            Ok(bytes) => {
                self.take(&bytes);
                replaced
            }
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::ENOTDIR) => {
                self.start_over();
                self.stop(match place.absent(&self.key, self.entry.as_ref()) {
                    Absent::ForGood(why) => Obstacle::Unsupported(why),
                    Absent::Elsewhere(why) => Obstacle::Elsewhere(why),
                    Absent::Yet => Obstacle::Pending(error.meaning),
                });
                if replaced == Seen::Same {
                    Seen::Gone { interface: self.interface }
                } else {
                    replaced
                }
            }
            Err(error) => {
                self.stop(Obstacle::Denied(error.to_string()));
                replaced
            }
        }
    }

    /// Whether the interface is gone, or has another name.
    pub(in crate::sysctl) fn has_left(&self) -> bool {
        match &self.file {
            Some(file) => file.read(&mut Vec::new()).is_err(),
            None => {
                let name = catalogue::interface(self.key.as_str()).unwrap_or_default();
                !matches!(name, "all" | "default")
                    && links::index_of(&name.replace('/', ".")).is_none()
            }
        }
    }

    /// What became of the interface whose file is gone. A rename takes the values along.
    pub(in crate::sysctl) fn left(&self) -> Seen {
        let before = catalogue::interface(self.key.as_str()).map(|name| name.replace('/', "."));
        let now = self.interface.and_then(links::key_name_of);
        match (before, now) {
            (Some(before), Some(now)) if before != now => Seen::Renamed { before, now },
            _ => Seen::Gone { interface: self.interface },
        }
    }

    /// Forgets what another file of this name went through.
    fn start_over(&mut self) {
        self.held = None;
        self.rounded = None;
        self.yielded = false;
        self.drifted = false;
        self.ever_met = false;
        self.met_text = None;
        self.fight = Fight::default();
    }

    /// Takes up what an earlier run noted: what the kernel made of a value that it rounds.
    pub fn recall(&mut self, ledger: &Ledger) {
        let rounds = self.entry.is_some_and(|entry| entry.has("rounds"));
        if let (true, None, Some(shape)) = (rounds, &self.rounded, self.shape)
            && let Some(record) = ledger.get(&self.key).filter(|record| record.rounded)
            && let (Some(asked), Some(stored)) = (&record.intended, &record.stored)
        {
            self.rounded = Some((shape.read(asked), shape.read(stored)));
        }
    }

    fn open_and_read(
        &mut self,
        tree: &SysctlTree,
        mode: OpenMode,
        buffer: &mut Vec<u8>,
    ) -> Result<Vec<u8>, FileError> {
        let file = tree.open_key(self.key.as_str(), &self.key.path(), mode)?;
        self.mark = None;
        self.interface = match catalogue::interface(self.key.as_str()) {
            None | Some("all" | "default") => None,
            Some(interface) => links::index_of(&interface.replace('/', ".")),
        };
        let bytes = match file.read(buffer) {
            Ok(bytes) => bytes.to_vec(),
            // A secret that was never set: readable as nothing.
            Err(error) if error.errno == Errno::EIO => Vec::new(),
            Err(error) => return Err(error),
        };
        self.file = Some(file);
        Ok(bytes)
    }

    fn take(&mut self, bytes: &[u8]) {
        self.obstacle = None;
        let same = self.text.as_deref().is_some_and(|text| text.as_bytes() == bytes);
        if !same || self.goal.is_none() {
            let raw = String::from_utf8_lossy(bytes).into_owned();
            let shape = *self.shape.get_or_insert_with(|| Shape::learn(&raw));
            self.actual = Some(shape.read(&raw));
            if self.goal.is_none() {
                self.goal = self.policy.want.compile(shape).ok();
            }
            self.text = Some(raw);
        }
        if let Some(why) = self.unfit() {
            self.obstacle = Some(Obstacle::Unfit(why));
        } else if let Some(error) = self.file.as_ref().and_then(SysctlFile::write_error) {
            self.obstacle = Some(Obstacle::Denied(error.to_string()));
        }
    }

    /// Why the policy cannot be held against what the file shows, if so.
    fn unfit(&self) -> Option<String> {
        let (shape, actual) = (self.shape?, self.actual.as_ref()?);
        match &self.goal {
            None => self.policy.want.compile(shape).err().map(|error| error.to_string()),
            Some(_) if matches!((shape, actual.ints()), (Shape::Ints(count), Some(ints)) if ints.len() != count) =>
            {
                let shown = self.shown().unwrap_or_default();
                Some(format!(
                    "this kernel shows another number of fields than is known of it: {shown}"
                ))
            }
            Some(Goal::Bounds { .. }) if actual.ints().is_none() => {
                let shown = self.shown().unwrap_or_default();
                Some(format!("min and max need integers, and the kernel shows `{shown}`"))
            }
            Some(_) => None,
        }
    }

    fn stop(&mut self, obstacle: Obstacle) {
        self.close();
        self.text = None;
        self.actual = None;
        self.drifted = false;
        self.obstacle = Some(obstacle);
    }
}
