//! Time in which work waited for a CPU: no limit, but what a dense node feels first.

use std::time::Duration;

use nix::errno::Errno;

use super::Roots;
use crate::kernel::counters;
use crate::kernel::errno::FileError;
use crate::kernel::kept::Kept;

/// Reads `/proc/pressure/cpu` (PSI).
#[derive(Debug)]
pub struct CpuPressure {
    file: Kept,
}

impl CpuPressure {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(roots: &Roots) -> Self {
        Self { file: Kept::new(roots.proc.join("pressure/cpu")) }
    }

    /// How long some task was ready and had no CPU, since boot. `None`: this kernel was built or
    /// started without PSI (CONFIG_PSI, `psi=0`).
    pub fn read(&mut self) -> Result<Option<Duration>, FileError> {
        match self.file.parsed(counters::pressure_some) {
            Ok(microseconds) => Ok(Some(Duration::from_micros(microseconds))),
            Err(error) if matches!(error.errno, Errno::ENOENT | Errno::EOPNOTSUPP) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
