//! Real pods without a kubelet: Debian's containerd and CNI plugins, asked over the Container
//! Runtime Interface for what the kubelet asks.
//!
//! ```no_run
//! # use headroom_tests::{cri::{Containerd, PodSpec}, root_or_skip};
//! let Some(host) = root_or_skip() else { return };
//! let runtime = Containerd::start(&host);
//! let pod = runtime.run_pod(PodSpec::new("default", "web-0"));
//! assert_eq!(pod.run(&["print", "net/core/somaxconn"]), "4096\n");
//! ```
//!
//! - All of it happens on a [`Node`]: namespaces of a test's own, in which every path of containerd
//!   and CNI is the usual one, and with which everything is gone. Only control groups and a
//!   directory of logs are the machine's.
//! - An agent is put beside it with `Home::on(runtime.node())` and `hostNetns: current`: it has the
//!   node's network and mounts, and the machine's processes.
//! - What pods run is `programs/pod.rs`, built by the test.

mod burst;
pub mod cgroups;
mod client;
mod containerd;
pub mod image;
pub mod messages;
mod node;
mod pod;

pub use burst::Burst;
pub use client::Client;
pub use containerd::{Containerd, Settings};
pub use node::Node;
pub use pod::{Container, Pod, PodSpec};
