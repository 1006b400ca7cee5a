//! How many objects the kernel's allocator has given out of one kind.

use std::path::Path;

/// Objects in a slab cache: never fewer than are in use. Each processor keeps some free ones that
/// count, and caches of like objects are merged. `None`: this kernel does not tell (CONFIG_SLUB_DEBUG),
/// or it is not to be read.
#[must_use]
pub fn objects(sys_root: &Path, cache: &str) -> Option<u64> {
    let path = sys_root.join("kernel/slab").join(cache).join("objects");
    // `153 N0=153`: the sum, then each memory node's.
    std::fs::read_to_string(path).ok()?.split_ascii_whitespace().next()?.parse().ok()
}
