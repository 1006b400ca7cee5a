//! What the kernel does with sysctls and namespaces, as far as the agent counts on it, asked of
//! the kernel that the tests run on.
//!
//! "facts 3.3" and the like name the section of the project's notes that a test holds the kernel
//! to. The binary needs nothing but root, `/proc` and `/sys`, so that it also runs in a bare
//! virtual machine: it makes its namespaces by `unshare(2)` and its links over netlink. Where a
//! kernel's version or configuration decides, the test finds out which and expects what that kernel
//! should do; where a key is absent for a reason that it knows, it says so on stderr.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod addresses;
mod capabilities;
mod catalogue;
mod conf;
mod coupling;
mod errno;
mod grammar;
mod listening;
mod newns;
mod notify;
mod paths;
mod pods;
mod support;
