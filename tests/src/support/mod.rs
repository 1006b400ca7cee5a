//! One file a helper; `lib.rs` says how they go together.

pub mod cni;
pub mod command;
pub mod engine;
pub mod host;
pub mod mount;
pub mod namespace;
pub mod pods;
pub mod sysctl;
