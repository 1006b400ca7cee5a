//! Files of the node that others write: read without being held up, and no further than is sane.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::errno::{Access, FileError, of_io};

pub use super::state_dir::read;

/// Names in a directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// In no order.
    pub names: Vec<OsString>,
    /// Whether there are more than were asked for.
    pub more: bool,
}

/// At most `most` names in a directory.
pub fn list(directory: &Path, most: usize) -> Result<Names, FileError> {
    let fail = |error: &std::io::Error| FileError::new(Access::Read, directory, of_io(error));
    let mut found = Names::default();
    for entry in fs::read_dir(directory).map_err(|error| fail(&error))? {
        if found.names.len() == most {
            found.more = true;
            break;
        }
        found.names.push(entry.map_err(|error| fail(&error))?.file_name());
    }
    Ok(found)
}
