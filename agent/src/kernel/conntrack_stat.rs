//! Connections tracked in the calling thread's network namespace: each has a count of its own.

use std::path::Path;

use nix::errno::Errno;

use super::errno::FileError;
use super::kept::Kept;

/// What one namespace has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// Connections.
    pub entries: u64,
    /// Packets dropped because the table was full, since the namespace is there; 0 where the
    /// kernel does not say.
    pub drops: u64,
}

/// The most that a namespace may have, which is one number for all. `None`: connections are not
/// tracked here, or there is no maximum (0, up to Linux 6.18).
pub fn max(proc_root: &Path) -> Result<Option<u64>, FileError> {
    let max = Kept::new(proc_root.join("sys/net/netfilter/nf_conntrack_max")).number();
    match max {
        Ok(max) => Ok(Some(max).filter(|max| *max > 0)),
        Err(error) if error.errno == Errno::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// The calling thread's namespace. The statistics first, which has both numbers: below
/// `/proc/sys/net` a name is looked for among those of all namespaces (`proc_sys_compare`). It is
/// there with CONFIG_NF_CONNTRACK_PROCFS.
pub fn tracked(proc_root: &Path) -> Result<Tracked, FileError> {
    let mut stat = Kept::new(proc_root.join("thread-self/net/stat/nf_conntrack"));
    match stat.text() {
        Ok(text) => {
            if let Some(tracked) = parse(text) {
                return Ok(tracked);
            }
        }
        Err(error) if error.errno == Errno::ENOENT => {}
        Err(error) => return Err(error),
    }
    let mut count = Kept::new(proc_root.join("sys/net/netfilter/nf_conntrack_count"));
    Ok(Tracked { entries: count.number()?, drops: 0 })
}

/// One line a processor, hexadecimal: `entries` is the namespace's on every line, the others are to
/// be summed (`ct_cpu_seq_show`).
#[must_use]
pub fn parse(text: &str) -> Option<Tracked> {
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let column = |name| header.iter().position(|column| *column == name);
    let (entries, drop) = (column("entries")?, column("drop")?);
    let mut tracked = None;
    for line in lines {
        let field = |place| u64::from_str_radix(line.split_ascii_whitespace().nth(place)?, 16).ok();
        let tracked = tracked.get_or_insert(Tracked::default());
        tracked.entries = field(entries)?;
        tracked.drops = tracked.drops.wrapping_add(field(drop)?);
    }
    tracked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_summed_and_the_count_is_on_every_line() {
        let text = "entries  clashres drop early_drop\n0000000a 00 00000003 7\n0000000a 00 10 7\n";
        assert_eq!(parse(text), Some(Tracked { entries: 10, drops: 0x13 }));
        for text in ["", "entries drop\n", "entries drop\nx 1\n", "entries drop\n1\n", "drop\n1\n"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
