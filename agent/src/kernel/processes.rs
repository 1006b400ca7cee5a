//! The processes that there are, and what `/proc/<pid>/status` says of one.

use std::fs;
use std::io;
use std::path::Path;

use super::net_processes::ProcessesError;
use super::netns::{self, Kind};

/// `CAP_SYS_PTRACE` of `include/uapi/linux/capability.h`.
const CAP_SYS_PTRACE: u64 = 1 << 19;

/// The ids of all processes of the host, as a rule rising. Refuses where only those of a container
/// would be seen.
pub fn of_host(proc_root: &Path) -> Result<impl Iterator<Item = u32> + use<>, ProcessesError> {
    if !netns::is_initial(proc_root, Kind::Pid) {
        return Err(ProcessesError::OwnPidNamespace);
    }
    let entries = fs::read_dir(proc_root)?.map_while(Result::ok);
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()))
}

/// Whether this thread may look into processes of others: has `CAP_SYS_PTRACE` in effect.
#[must_use]
pub fn may_look(proc_root: &Path) -> bool {
    let status = fs::read(proc_root.join("thread-self/status")).unwrap_or_default();
    let effective = word(&status, b"CapEff:", 0);
    effective.and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0) & CAP_SYS_PTRACE != 0
}

/// A process' effective user id, as the reader's user namespace has it.
pub fn effective_uid(process: &Path) -> io::Result<u32> {
    let status = fs::read(process.join("status"))?;
    effective_uid_in(&status).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The same from the text of `status` (`proc_pid_status(5)`: real, effective, saved, file system).
#[must_use]
pub fn effective_uid_in(status: &[u8]) -> Option<u32> {
    word(status, b"Uid:", 1)?.parse().ok()
}

/// A word of the line that begins so. The name of the process, which anyone may choose, has its line
/// breaks escaped (`proc_task_name`).
fn word<'a>(status: &'a [u8], begin: &[u8], place: usize) -> Option<&'a str> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let rest = lines.find_map(|line| line.strip_prefix(begin))?;
    std::str::from_utf8(rest).ok()?.split_ascii_whitespace().nth(place)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_effective_user_is_the_second() {
        let status = b"Name:\tUid:\t7 7\nUmask:\t0022\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\n";
        assert_eq!(effective_uid_in(status), Some(2));
        for broken in [&b""[..], b"Uid:", b"Uid:\t1", b"Uid:\t1\t-2", b"Uid:\t1\t\xff"] {
            assert_eq!(effective_uid_in(broken), None, "{broken:?}");
        }
        assert_eq!(word(b"CapEff:\t000001ff\n", b"CapEff:", 0), Some("000001ff"));
    }

    proptest! {
        #[test]
        fn the_user_is_found_behind_whatever_lines(
            before in prop::collection::vec("[A-TV-Z][a-z]{0,5}:\t.{0,20}", 0..5),
            user: u32,
        ) {
            let status = format!("{}\nUid:\t0\t{user}\t0\t0\nGid:\t1\t1\t1\t1\n", before.join("\n"));
            prop_assert_eq!(effective_uid_in(status.as_bytes()), Some(user));
        }
    }
}
