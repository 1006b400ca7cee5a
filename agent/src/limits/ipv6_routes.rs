//! IPv6 routes of the host's network namespace, on kernels that bound them.

use super::{About, Cadence, Cost, Exactness, Limit, Reader, Roots};
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;
use crate::kernel::system;

/// `net.ipv6.route.max_size` that bounds nothing: INT_MAX.
const NO_LIMIT: u64 = i32::MAX as u64;

/// IPv6 routes.
pub static ABOUT: About = About {
    name: "ipv6_routes",
    title: "IPv6 routes",
    unit: "entries",
    scope: "each network namespace; shown of the host's, on kernels before 6.3 where it is not INT_MAX",
    read: "/proc/net/rt6_stats",
    raised_by: Some("net.ipv6.route.max_size"),
    cost: Cost::Learned { prior: 3.0, floor: 0.0 },
    cost_why: "three routes a pod in the host's namespace: its address, link-local and multicast on its veth",
    when_hit: "connections over IPv6 fail with ENETUNREACH: `Network is unreachable`; pods' interfaces get \
               no route",
    exactness: &[
        (
            "before 6.3",
            Exactness::Exact,
            "dst entries, the sixth field, which `ip6_dst_gc` compares; a stable release that has the \
             change of 6.3 and a max_size set by hand compares nothing, which cannot be seen",
        ),
        ("from 6.3", Exactness::Exact, "nothing is compared, whatever max_size says: left out"),
    ],
    cadence: Cadence::Scrape,
};

/// Reads it.
#[derive(Debug)]
pub struct Ipv6Routes {
    stats: Kept,
    max: Kept,
    bounded: bool,
}

impl Ipv6Routes {
    /// For this kernel. Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        let (release, _) = system::uname();
        Self::of_kernel(roots, system::kernel_version(&release))
    }

    /// For a kernel: 6.3 removed the comparison (af6d10345ca7).
    #[must_use]
    pub fn of_kernel(roots: &Roots, kernel: (u32, u32)) -> Self {
        Self {
            stats: Kept::new(roots.proc.join("net/rt6_stats")),
            max: Kept::new(roots.proc.join("sys/net/ipv6/route/max_size")),
            bounded: kernel < (6, 3),
        }
    }

    fn numbers(&mut self, max: u64) -> Result<[u64; 2], FileError> {
        Ok([self.stats.parsed(counters::ipv6_dst_entries)?, max])
    }
}

impl Reader for Ipv6Routes {
    fn name(&self) -> &'static str {
        "ipv6_routes"
    }

    fn read(&mut self) -> Vec<Limit> {
        if !self.bounded {
            return Vec::new();
        }
        let numbers = match self.max.number() {
            Ok(max) if max >= NO_LIMIT => return Vec::new(),
            Ok(max) => self.numbers(max),
            Err(error) => Err(error),
        };
        Limit::read(&ABOUT, "host", numbers).into_iter().collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_a_limit_only_where_the_kernel_compares_them() {
        let proc = tempfile::tempdir().unwrap();
        let route = proc.path().join("sys/net/ipv6/route");
        std::fs::create_dir_all(&route).unwrap();
        std::fs::create_dir_all(proc.path().join("net")).unwrap();
        let stats = "0009 0006 01a4 0007 0000 0fa0 4a3f\n";
        std::fs::write(proc.path().join("net/rt6_stats"), stats).unwrap();
        let roots =
            Roots { proc: proc.path().to_owned(), sys: proc.path().to_owned(), ..Roots::default() };
        for (kernel, max, shown) in [
            ((6, 2), "4096\n", Some((Some(4000), Some(4096)))),
            ((6, 2), "2147483647\n", None),
            ((6, 3), "4096\n", None),
        ] {
            std::fs::write(route.join("max_size"), max).unwrap();
            let limit = Ipv6Routes::of_kernel(&roots, kernel).read().pop();
            assert_eq!(limit.map(|limit| (limit.used, limit.max)), shown, "{kernel:?} {max}");
        }
    }
}
