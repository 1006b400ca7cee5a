//! Test support for what needs root and a real kernel: namespaces, sysctls and mounts of a test's
//! own, all gone when the test ends, also when it fails.
//!
//! A kernel test begins with
//!
//! ```no_run
//! # use headroom_tests::{Namespace, root_or_skip};
//! let Some(host) = root_or_skip() else { return };
//! let netns = Namespace::new(&host);
//! netns.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
//! assert_eq!(netns.read("net/core/somaxconn"), "4096");
//! ```
//!
//! - Neighbor tables, sysctls of the host and `/run/netns` are shared by everything on the
//!   machine, so whoever has the [`HostLock`] is alone: among threads, test binaries and runs.
//! - Without root a test fails and says so; `HEADROOM_SKIP_ROOT_TESTS=1` makes it return early.
//! - What a killed run left behind is removed by the next test of any run.
//! - Real pods are made with [`cri::Containerd`].
//! - `HEADROOM_KEEP_NAMESPACES=1` leaves a failed test's namespaces for looking at them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

pub mod agent_process;
pub mod conformance;
pub mod cri;
pub mod density;
pub mod exhaustion;
pub mod fuzz_targets;
mod support;

pub use support::cni::{Cni, host_local};
pub use support::command::{ip, ip_batch, try_ip};
pub use support::engine::{Rig, in_netns, key, max, min, one_of, pattern, value, with_conflict};
pub use support::host::{HostLock, root_or_skip};
pub use support::mount::{Mount, private_mounts};
pub use support::namespace::Namespace;
pub use support::pods::{self, Named, Pods};
pub use support::sysctl::{SavedSysctls, WriteWatch};
