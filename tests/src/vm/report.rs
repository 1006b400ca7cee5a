//! The document: how each kernel did, and where they differ.

use crate::kernels::Kernel;
use crate::results::Results;

/// The whole document.
pub fn document(all: &[(Kernel, Results)]) -> String {
    format!("{} kernels\n", all.len())
}
