//! Pods' network namespaces: finding them, naming their pods, applying pod policies in them.

pub mod apply;
pub mod cni;
pub mod fresh;
pub mod naming;
pub mod policy;
pub mod register;
pub mod restore;
pub mod state;
pub mod visit;
