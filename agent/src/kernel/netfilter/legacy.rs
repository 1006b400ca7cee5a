//! iptables' own tables, called legacy since nftables: what `iptables-legacy` makes.
//!
//! A table is asked for only where the kernel lists it: asking makes a table that is not there, and
//! puts its hooks into every packet's way (`xt_request_find_table_lock`).

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::Family;
use crate::kernel::errno::{Access, FileError, of_io};
use crate::kernel::name::{Name, escape};
use crate::kernel::netlink::{u16_at, u32_at};

// include/uapi/linux/netfilter_ipv4/ip_tables.h: IPT_BASE_CTL; netfilter_ipv6/ has the same.
const SO_GET_INFO: libc::c_int = 64;
const SO_GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`, with its NUL.
const TABLE_NAME: usize = 32;
/// `NF_INET_NUMHOOKS`.
const HOOKS: usize = 5;
/// `struct ipt_getinfo`.
const INFO: usize = TABLE_NAME + 4 * (1 + 2 * HOOKS + 2);
/// `struct ipt_get_entries`: name and size, then entries aligned to 8.
const ENTRIES_AT: usize = 40;
/// `struct xt_entry_target` begins with its size, and has its name here.
const TARGET_NAME: std::ops::Range<usize> = 2..31;
/// What follows it: in a target `ERROR` the chain's name (`struct xt_error_target`).
const ERROR_NAME: std::ops::Range<usize> = 32..62;
/// No table that is read whole is larger: the agent's memory holds it for a moment.
pub const LARGEST: u32 = 16 << 20;

/// Why a table could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LegacyError {
    /// The socket could not be made.
    #[error("a socket for iptables: {errno:?}: {}", errno.desc())]
    Socket {
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel refused.
    #[error("table {}: {errno:?}: {}", table, errno.desc())]
    Refused {
        /// The table, escaped.
        table: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The answer made no sense.
    #[error("table {table}: malformed answer")]
    Malformed {
        /// The table, escaped.
        table: String,
    },
}

/// What there is to know of a table without reading it. It takes the kernel microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The hooks with a built-in chain, a bit each.
    valid_hooks: u32,
    /// Where each built-in chain begins.
    hook_entry: [u32; HOOKS],
    /// Where each has its policy.
    underflow: [u32; HOOKS],
    /// Entries: rules, a policy for each built-in chain, two for each chain of a user's (its name
    /// and its return), and one at the end.
    pub entries: u32,
    /// Their bytes.
    pub size: u32,
}

impl LegacyError {
    /// The kernel's answer, where there is one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Socket { errno } | Self::Refused { errno, .. } => Some(*errno),
            Self::Malformed { .. } => None,
        }
    }
}

impl Info {
    /// What the kernel answered.
    #[must_use]
    pub fn parse(answer: &[u8]) -> Option<Self> {
        let number = |index: usize| u32_at(answer, TABLE_NAME + 4 * index);
        let mut info = Self {
            valid_hooks: number(0)?,
            hook_entry: [0; HOOKS],
            underflow: [0; HOOKS],
            entries: number(1 + 2 * HOOKS)?,
            size: number(2 + 2 * HOOKS)?,
        };
        for (hook, (begin, policy)) in
            info.hook_entry.iter_mut().zip(&mut info.underflow).enumerate()
        {
            (*begin, *policy) = (number(1 + hook)?, number(1 + HOOKS + hook)?);
        }
        Some(info)
    }

    /// No table of this many entries has more rules; it has fewer where there are user chains.
    #[must_use]
    pub fn most_rules(&self) -> u64 {
        u64::from(self.entries).saturating_sub(1 + u64::from(self.valid_hooks.count_ones()))
    }

    fn is_at(&self, places: &[u32; HOOKS], offset: usize) -> bool {
        let valid = |hook: usize| self.valid_hooks & (1 << hook) != 0;
        places.iter().enumerate().any(|(hook, &at)| valid(hook) && at as usize == offset)
    }
}

/// One chain of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<'a> {
    /// Its name; `None`: a built-in one.
    pub name: Option<&'a [u8]>,
    /// Its rules: neither its policy nor its return.
    pub rules: u64,
}

/// The tables that the calling thread's network namespace has; none where the kernel has no such
/// tables at all.
pub fn tables(proc_root: &Path, family: Family) -> Result<Vec<Name>, FileError> {
    let file = match family {
        Family::Ipv4 => "thread-self/net/ip_tables_names",
        Family::Ipv6 => "thread-self/net/ip6_tables_names",
        Family::Inet => return Ok(Vec::new()),
    };
    let path = proc_root.join(file);
    let mut names = Vec::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut names));
    match read {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(FileError::new(Access::Read, &path, of_io(&error))),
        Ok(_) => {
            let lines = names.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            Ok(lines.map(Name::from_bytes).collect())
        }
    }
}

/// A socket of one family, in the network namespace of the thread that opened it. Any of its
/// sockets takes these options: a raw one would need CAP_NET_RAW.
pub struct Legacy {
    socket: OwnedFd,
    level: libc::c_int,
}

impl Legacy {
    /// For IPv6 where `six`, else for IPv4.
    pub fn open(six: bool) -> Result<Self, LegacyError> {
        let (family, level) = match six {
            false => (AddressFamily::Inet, libc::IPPROTO_IP),
            true => (AddressFamily::Inet6, libc::IPPROTO_IPV6),
        };
        let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
        Ok(Self { socket: socket.map_err(|errno| LegacyError::Socket { errno })?, level })
    }

    /// Of a table that [`tables`] lists. Needs CAP_NET_ADMIN.
    pub fn info(&self, table: &Name) -> Result<Info, LegacyError> {
        let mut answer = request(table, INFO);
        self.get(SO_GET_INFO, table, &mut answer)?;
        Info::parse(&answer).ok_or_else(|| LegacyError::Malformed { table: table.to_string() })
    }

    /// The whole table, which the kernel cannot hand out in parts. EAGAIN: it has changed since.
    pub fn entries(&self, table: &Name, info: &Info) -> Result<Entries, LegacyError> {
        let mut answer = request(table, ENTRIES_AT + info.size as usize);
        if let Some(size) = answer.get_mut(TABLE_NAME..TABLE_NAME + 4) {
            size.copy_from_slice(&info.size.to_ne_bytes());
        }
        self.get(SO_GET_ENTRIES, table, &mut answer)?;
        Ok(Entries { answer, six: self.level == libc::IPPROTO_IPV6 })
    }

    #[allow(unsafe_code)]
    fn get(&self, option: libc::c_int, table: &Name, answer: &mut [u8]) -> Result<(), LegacyError> {
        let refused = |errno| LegacyError::Refused { table: escape(table.as_bytes()), errno };
        let mut length =
            libc::socklen_t::try_from(answer.len()).map_err(|_| refused(Errno::EFBIG))?;
        // SAFETY: the kernel reads and writes at most `length` bytes, which the slice has.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                self.level,
                option,
                answer.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(()) } else { Err(refused(Errno::last())) }
    }
}

/// A zeroed answer that begins with the table's name.
fn request(table: &Name, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    // Its NUL is what is left.
    for (to, from) in bytes.iter_mut().take(TABLE_NAME - 1).zip(table.as_bytes()) {
        *to = *from;
    }
    bytes
}

/// A table's entries.
pub struct Entries {
    answer: Vec<u8>,
    six: bool,
}

impl Entries {
    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.answer.get(ENTRIES_AT..).unwrap_or_default()
    }

    /// Counts the rules of each chain; `None`: the entries make no sense.
    #[must_use]
    pub fn chains(&self, info: &Info, each: impl FnMut(Chain<'_>)) -> Option<()> {
        chains(self.six, info, self.bytes(), each)
    }
}

/// Counts the rules of each chain of a table's entries. A chain of a user's begins with an entry
/// whose target is `ERROR` and names it, and ends with a return; a built-in one begins where `info`
/// says, and its policy is where `info` says. The last entry is an `ERROR` as well.
#[must_use]
pub fn chains(
    six: bool,
    info: &Info,
    entries: &[u8],
    mut each: impl FnMut(Chain<'_>),
) -> Option<()> {
    // struct ipt_entry and ip6t_entry: the address part, nfcache, then target_offset and next_offset.
    let (shortest, offsets) = if six { (168, 140) } else { (112, 88) };
    let mut open: Option<Chain<'_>> = None;
    let mut close = |chain: Option<Chain<'_>>| {
        if let Some(chain) = chain {
            let last = u64::from(chain.name.is_some());
            each(Chain { rules: chain.rules.saturating_sub(last), ..chain });
        }
    };
    let mut offset = 0;
    while offset < entries.len() {
        let rest = entries.get(offset..)?;
        let (target, next) = (u16_at(rest, offsets)? as usize, u16_at(rest, offsets + 2)? as usize);
        (next >= shortest).then_some(())?;
        let target = rest.get(..next)?.get(target..)?;
        if info.is_at(&info.hook_entry, offset) {
            close(open.replace(Chain { name: None, rules: 0 }));
        }
        if text(target.get(TARGET_NAME)?) == b"ERROR" {
            let name = text(target.get(ERROR_NAME)?);
            let ends = offset + next == entries.len();
            close(std::mem::replace(
                &mut open,
                (!ends).then_some(Chain { name: Some(name), rules: 0 }),
            ));
        } else if let Some(chain) = &mut open
            && !info.is_at(&info.underflow, offset)
        {
            chain.rules += 1;
        }
        offset += next;
    }
    close(open);
    Some(())
}

/// Up to its NUL.
fn text(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == 0).next().unwrap_or_default()
}
