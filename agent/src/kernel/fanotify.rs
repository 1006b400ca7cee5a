//! fanotify: which file was written, and by which process (`fanotify(7)`).

use std::os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::unistd::read;

/// Bytes of an event's own part (`struct fanotify_event_metadata`, version 3).
const METADATA: usize = 24;
/// Bytes of a record's heading (`struct fanotify_event_info_header`).
const HEADING: usize = 4;
/// One event with a pidfd. A batch of 64 holds at most 128 descriptors at once.
const BATCH: usize = 64 * (METADATA + HEADING + 4);

/// What the kernel says about the process behind an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pidfd<F> {
    /// It says the pid alone (before 5.15), or could not make a descriptor.
    Missing,
    /// The process had ended and been waited for when the event was read.
    Ended,
    /// A descriptor that stands for the process.
    Open(F),
}

/// An event as it lies in the buffer. Its descriptors are numbers: dropping it closes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// What happened.
    pub mask: u64,
    /// The file; none if the event is that the queue was full.
    pub file: Option<RawFd>,
    /// The process (not the thread); 0 if it has no pid in the reader's pid namespace.
    pub pid: i32,
    /// The process once more.
    pub pidfd: Pidfd<RawFd>,
}

/// The buffer does not hold what the kernel's header files say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed fanotify event")]
pub struct Malformed;

/// The events of a buffer; one that is malformed is the last item.
pub fn events(bytes: &[u8]) -> impl Iterator<Item = Result<RawEvent, Malformed>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some((event, after)) = event(rest) else {
            rest = &[];
            return Some(Err(Malformed));
        };
        rest = after;
        Some(Ok(event))
    })
}

fn event(bytes: &[u8]) -> Option<(RawEvent, &[u8])> {
    let length = u32::from_ne_bytes(field(bytes, 0)?) as usize;
    let [version] = field(bytes, 4)?;
    let metadata = usize::from(u16::from_ne_bytes(field(bytes, 6)?));
    if version != nix::sys::fanotify::FANOTIFY_METADATA_VERSION || metadata < METADATA {
        return None;
    }
    let (event, after) = bytes.split_at_checked(length)?;
    let records = event.get(metadata..)?;
    let file = i32::from_ne_bytes(field(event, 16)?);
    let event = RawEvent {
        mask: u64::from_ne_bytes(field(event, 8)?),
        file: (file >= 0).then_some(file),
        pid: i32::from_ne_bytes(field(event, 20)?),
        pidfd: pidfd(records),
    };
    Some((event, after))
}

/// The first pidfd record; the kernel writes one at most.
fn pidfd(mut records: &[u8]) -> Pidfd<RawFd> {
    while let (Some([kind]), Some(length)) = (field(records, 0), field(records, 2)) {
        let length = usize::from(u16::from_ne_bytes(length));
        let Some((record, rest)) = records.split_at_checked(length.max(HEADING)) else { break };
        if kind == libc::FAN_EVENT_INFO_TYPE_PIDFD {
            return match field(record, HEADING).map(i32::from_ne_bytes) {
                Some(fd) if fd >= 0 => Pidfd::Open(fd),
                Some(libc::FAN_NOPIDFD) => Pidfd::Ended,
                _ => Pidfd::Missing,
            };
        }
        records = rest;
    }
    Pidfd::Missing
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// An event whose descriptors are closed with it.
#[derive(Debug)]
pub struct Event {
    /// The file that was written.
    pub file: OwnedFd,
    /// The process; 0 if it has no pid in this process' pid namespace.
    pub pid: i32,
    /// The process once more.
    pub pidfd: Pidfd<OwnedFd>,
}

/// What one read gave.
#[derive(Debug, Default)]
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
    /// Events were lost.
    pub overflow: bool,
}

/// How the kernel keeps a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marks {
    /// With the inode: once the last descriptor of a vanished file is closed, the mark is gone
    /// too (since Linux 5.19).
    Evictable,
    /// For good: the mark keeps the inode of a vanished file, and a descriptor of that file
    /// cannot remove it (`fanotify_mark(2)` asks for read permission, and gets ENOENT).
    Pinning,
}

/// A group of marks and its queue. The queue is bounded (`fs.fanotify.max_queued_events`).
#[derive(Debug)]
pub struct Group(Fanotify);

impl Group {
    /// Makes a group. EPERM: CAP_SYS_ADMIN in the initial user namespace is missing.
    pub fn new(pidfds: bool) -> Result<Self, Errno> {
        // Unlimited marks: the limit is one for all of the user's groups, and the caller bounds
        // what it marks.
        let flags = InitFlags::FAN_CLASS_NOTIF
            | InitFlags::FAN_CLOEXEC
            | InitFlags::FAN_NONBLOCK
            | InitFlags::FAN_UNLIMITED_MARKS;
        let files = EventFFlags::O_RDONLY
            | EventFFlags::O_CLOEXEC
            | EventFFlags::O_LARGEFILE
            | EventFFlags::O_NONBLOCK;
        let group = |flags| Fanotify::init(flags, files).map(Self);
        match pidfds.then(|| group(flags | InitFlags::FAN_REPORT_PIDFD)) {
            // A kernel before 5.15 does not know the flag.
            None | Some(Err(Errno::EINVAL)) => group(flags),
            Some(other) => other,
        }
    }

    /// Asks for events of writes to a file. EINVAL: a kernel before 5.19 has no evictable marks.
    pub fn add(&self, file: BorrowedFd<'_>, marks: Marks) -> Result<(), Errno> {
        match marks {
            Marks::Evictable => {
                self.mark(MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_EVICTABLE, file)
            }
            Marks::Pinning => self.mark(MarkFlags::FAN_MARK_ADD, file),
        }
    }

    /// Asks for no more events of a file. ENOENT: it has vanished.
    pub fn remove(&self, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.mark(MarkFlags::FAN_MARK_REMOVE, file)
    }

    /// Asks for no more events at all.
    pub fn clear(&self, anything: BorrowedFd<'_>) -> Result<(), Errno> {
        let nothing = MaskFlags::empty();
        self.0.mark(MarkFlags::FAN_MARK_FLUSH, nothing, anything, None::<&Path>)
    }

    fn mark(&self, flags: MarkFlags, file: BorrowedFd<'_>) -> Result<(), Errno> {
        self.0.mark(flags, MaskFlags::FAN_MODIFY, file, None::<&Path>)
    }

    /// Reads what is queued, up to 64 events. EAGAIN: nothing. Any other error is about the one
    /// event that would have come next, which is lost (ENOENT: its file has vanished; EMFILE).
    #[allow(unsafe_code)]
    pub fn read(&self) -> Result<Batch, Errno> {
        let mut buffer = [0; BATCH];
        let count = read(&self.0, &mut buffer)?;
        let mut batch = Batch::default();
        // SAFETY: the kernel made these descriptors for this read, and they are taken from the
        // buffer once.
        let own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        for event in events(buffer.get(..count).unwrap_or_default()) {
            let Ok(event) = event else {
                batch.overflow = true;
                break;
            };
            let pidfd = match event.pidfd {
                Pidfd::Open(fd) => Pidfd::Open(own(fd)),
                Pidfd::Ended => Pidfd::Ended,
                Pidfd::Missing => Pidfd::Missing,
            };
            batch.overflow |= event.mask & libc::FAN_Q_OVERFLOW != 0;
            if let Some(file) = event.file.map(own) {
                batch.events.push(Event { file, pid: event.pid, pidfd });
            }
        }
        Ok(batch)
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn metadata(length: u32, mask: u64, file: i32, pid: i32) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(24_u16.to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend(file.to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        bytes
    }

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + content.len()).unwrap();
        [&[kind, 0][..], &length.to_ne_bytes(), content].concat()
    }

    #[test]
    fn events_with_and_without_a_pidfd_are_read() {
        let modified = libc::FAN_MODIFY;
        let bytes = [
            metadata(24, modified, 5, 123),
            metadata(32, modified, 6, 124),
            record(4, &7_i32.to_ne_bytes()),
            metadata(32, modified, 8, 125),
            record(4, &(-1_i32).to_ne_bytes()),
            // Another record first, whatever it may be.
            metadata(44, modified, 9, 0),
            record(1, &[0; 8]),
            record(4, &(-2_i32).to_ne_bytes()),
            metadata(24, libc::FAN_Q_OVERFLOW, -1, 0),
        ]
        .concat();
        let found: Vec<_> =
            events(&bytes).map(|event| event.map(|e| (e.file, e.pid, e.pidfd))).collect();
        assert_eq!(
            found,
            [
                Ok((Some(5), 123, Pidfd::Missing)),
                Ok((Some(6), 124, Pidfd::Open(7))),
                Ok((Some(8), 125, Pidfd::Ended)),
                Ok((Some(9), 0, Pidfd::Missing)),
                Ok((None, 0, Pidfd::Missing)),
            ]
        );
    }

    #[test]
    fn what_is_malformed_is_the_last_and_hides_nothing_before_it() {
        let good = metadata(24, 2, 5, 123);
        let mut other_version = good.clone();
        other_version[4] = 4;
        for bad in [
            metadata(0, 2, 5, 1),
            metadata(23, 2, 5, 1),
            metadata(25, 2, 5, 1),
            metadata(u32::MAX, 2, 5, 1),
            other_version,
            vec![24],
        ] {
            let bytes = [&good[..], &bad, &good].concat();
            let end = if bad.len() == 1 { good.len() + 1 } else { good.len() + bad.len() };
            let bytes = if bad.starts_with(&25_u32.to_ne_bytes()) { &bytes[..end] } else { &bytes };
            let found: Vec<_> = events(bytes).collect();
            assert_eq!(found.len(), 2, "{bad:?}");
            assert!(found[0].is_ok() && found[1] == Err(Malformed), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_at_most_one_event_for_each_24(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let found: Vec<_> = events(&bytes).collect();
            prop_assert!(found.len() <= bytes.len() / METADATA + 1);
            prop_assert!(found.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
