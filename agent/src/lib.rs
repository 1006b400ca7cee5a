//! Headroom: the library behind the `headroom` binary.
pub mod agent;
pub mod capacity;
pub mod config;
pub mod kernel;
pub mod limits;
pub mod node;
pub mod pods;
pub mod serve;
pub mod sysctl;
