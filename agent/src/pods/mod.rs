//! Pods' network namespaces: finding them, naming their pods, applying pod policies in them.

pub mod policy;
pub mod state;
