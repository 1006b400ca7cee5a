//! `kcmp(2)`: whether two descriptors are of one open file, also in different processes. It is the only
//! thing that tells anonymous files apart: all of them have one inode.

use std::cmp::Ordering;

use nix::errno::Errno;
use nix::libc;

/// `KCMP_FILE` of `include/uapi/linux/kcmp.h`.
const KCMP_FILE: libc::c_int = 0;

/// A descriptor of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The process.
    pub process: u32,
    /// The descriptor's number there.
    pub number: u32,
}

/// Compares the open files of two descriptors. The order means nothing, and is the same until the next
/// boot. Needs CAP_SYS_PTRACE, and a kernel with CONFIG_KCMP (before 5.12 CONFIG_CHECKPOINT_RESTORE).
#[allow(unsafe_code)]
pub fn compare(a: Descriptor, b: Descriptor) -> nix::Result<Ordering> {
    // SAFETY: the call takes numbers alone.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            libc::c_long::from(a.process),
            libc::c_long::from(b.process),
            libc::c_long::from(KCMP_FILE),
            libc::c_long::from(a.number),
            libc::c_long::from(b.number),
        )
    };
    match Errno::result(answer)? {
        0 => Ok(Ordering::Equal),
        1 => Ok(Ordering::Less),
        2 => Ok(Ordering::Greater),
        _ => Err(Errno::ENOTSUP),
    }
}

/// Open files that were seen, each by the first descriptor of it.
#[derive(Debug, Default)]
pub struct Distinct {
    known: Vec<Descriptor>,
    unsure: bool,
}

impl Distinct {
    /// Beyond so many, each descriptor counts as a file of its own: 256 kB.
    const MOST: usize = 1 << 15;

    /// Whether this descriptor's open file is one that was not seen before.
    pub fn is_new(&mut self, descriptor: Descriptor) -> bool {
        let (mut low, mut high) = (0, self.known.len());
        while low < high {
            let middle = low.midpoint(high);
            let Some(known) = self.known.get(middle) else { break };
            match compare(descriptor, *known) {
                Ok(Ordering::Equal) => return false,
                Ok(Ordering::Less) => high = middle,
                Ok(Ordering::Greater) => low = middle + 1,
                Err(errno) => {
                    // One of the two was closed meanwhile: a file counted twice at the worst.
                    self.unsure |= !matches!(errno, Errno::EBADF | Errno::ESRCH);
                    break;
                }
            }
        }
        if self.known.len() < Self::MOST {
            self.known.insert(low, descriptor);
        } else {
            self.unsure = true;
        }
        true
    }

    /// Whether descriptors of one file may have been taken for files of their own: no `kcmp(2)` here.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.unsure
    }
}
