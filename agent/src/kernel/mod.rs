//! The only room that touches the kernel: small adapters that return plain data.
//!
//! Nothing here knows a policy or a metric. Every adapter takes the root it reads, so that a
//! parser can be shown a fixture tree. `unsafe` is allowed here and nowhere else.

pub mod addresses;
pub mod cgroup;
pub mod conntrack_stat;
pub mod counters;
pub mod errno;
pub mod fanotify;
mod gate;
pub mod inotify;
pub mod kcmp;
pub mod kept;
pub mod kubelet;
pub mod kubepods;
pub mod links;
pub mod listeners;
pub mod mounts;
pub mod name;
pub mod neighbor;
pub mod net_namespaces;
pub mod net_processes;
pub mod netfilter;
pub mod netlink;
pub mod netns;
pub mod node_file;
pub mod notify_groups;
pub mod nsfs;
pub mod processes;
pub mod slab;
pub mod state_dir;
pub mod sysctl_d;
pub mod sysctl_file;
pub mod system;
pub mod touch;
pub mod tour;
pub mod trail;
pub mod uevents;
pub mod user_ns;
pub mod who;
