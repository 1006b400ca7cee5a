//! Test support.
pub mod fuzz_targets;
