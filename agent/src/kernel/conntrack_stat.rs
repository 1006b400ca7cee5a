//! Connections tracked in the calling thread's network namespace: each has a count of its own.

use std::path::Path;

use nix::errno::Errno;

use super::counters;
use super::errno::FileError;
use super::kept::Kept;

/// What one namespace has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// Connections.
    pub entries: u64,
    /// Connections refused or given up because the table was full, since the namespace is there; 0
    /// where the kernel does not say.
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

/// One line a processor: `entries` is the namespace's on every line, the others are to be summed
/// (`ct_cpu_seq_show`). A clash of two packets counts as `drop` and as `insert_failed`, and is no full
/// table.
#[must_use]
pub fn parse(text: &str) -> Option<Tracked> {
    let names = ["drop", "early_drop", "insert_failed"];
    let [drop, early_drop, insert_failed] =
        counters::columns(text, names)?.map(Option::unwrap_or_default);
    let (second, _) = text.match_indices('\n').nth(1).unwrap_or((text.len(), ""));
    let first = text.get(..second)?;
    let [entries] = counters::columns(first, ["entries"])?;
    let drops = drop.saturating_sub(insert_failed).saturating_add(early_drop);
    first.lines().nth(1)?;
    Some(Tracked { entries: entries?, drops })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn drops_are_summed_and_the_count_is_on_every_line() {
        let text = "entries  clashres insert_failed drop early_drop\n\
                    0000000a 00 1 00000003 7\n0000000a 00 1 10 7\n";
        assert_eq!(parse(text), Some(Tracked { entries: 10, drops: 0x13 - 2 + 14 }));
        assert_eq!(parse("entries\nff\n"), Some(Tracked { entries: 255, drops: 0 }));
        for text in ["", "entries drop\n", "entries drop\nx 1\n", "entries drop\n1\n", "drop\n1\n"]
        {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(entries|drop|early_drop|insert_failed|[ 0-9a-f\\n]){0,60}") {
            let _ = parse(&text);
        }
    }
}
