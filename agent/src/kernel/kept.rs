//! Small files of `/proc` and `/sys` that are read again and again: kept open, read with one small
//! buffer.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::counters;
use super::errno::{Access, FileError, of_io};

/// First read size: what the reader offers is what some handlers allocate.
const FIRST: usize = 128;
/// No file that is read this way is longer.
const LONGEST: usize = 1 << 20;

/// A file, opened when it is first read and again after an error. It always shows what the namespace
/// of the thread that opened it has.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl Kept {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), file: None, buffer: Vec::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says now, as bytes.
    pub fn bytes(&mut self) -> Result<&[u8], FileError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.path).map_err(|error| self.error(Access::Open, &error))?,
        };
        let length = self.fill(&file)?;
        self.file = Some(file);
        Ok(self.buffer.get(..length).unwrap_or_default())
    }

    /// What it says now. Bytes that are no UTF-8 are an error.
    pub fn text(&mut self) -> Result<&str, FileError> {
        let path = self.path.clone();
        std::str::from_utf8(self.bytes()?).map_err(|_| {
            FileError::new(Access::Read, path, Errno::EILSEQ).meaning("it is not text")
        })
    }

    /// The number that the file consists of.
    pub fn number(&mut self) -> Result<u64, FileError> {
        self.field(0)
    }

    /// The number at a place among its words, the first being 0.
    pub fn field(&mut self, place: usize) -> Result<u64, FileError> {
        let [number] = self.fields([place])?;
        Ok(number)
    }

    /// The numbers at places among its words, of one reading.
    pub fn fields<const N: usize>(&mut self, places: [usize; N]) -> Result<[u64; N], FileError> {
        self.parsed(|text| counters::words(text, places)).map_err(|error| match error.errno {
            Errno::EINVAL => {
                error.meaning(match places.map(|place| (place + 1).to_string()).join(", ") {
                    one if N == 1 => format!("word {one} is no number"),
                    several => format!("one of the words {several} is no number"),
                })
            }
            _ => error,
        })
    }

    /// What a parser makes of it.
    pub fn parsed<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, FileError> {
        let parsed = parse(self.text()?);
        parsed.ok_or_else(|| {
            FileError::new(Access::Read, self.path.clone(), Errno::EINVAL)
                .meaning("it is not in the format that is known")
        })
    }

    fn fill(&mut self, file: &File) -> Result<usize, FileError> {
        let mut length = 0;
        loop {
            if self.buffer.len() == length {
                self.buffer.resize((length * 2).max(FIRST), 0);
            }
            let free = self.buffer.get_mut(length..).unwrap_or_default();
            match file.read_at(free, length as u64) {
                Ok(0) => return Ok(length),
                Ok(_) if length > LONGEST => {
                    let error = FileError::new(Access::Read, self.path.clone(), Errno::EFBIG);
                    return Err(error);
                }
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Access::Read, &error)),
            }
        }
    }

    fn error(&self, access: Access, error: &std::io::Error) -> FileError {
        FileError::new(access, self.path.clone(), of_io(error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_anew_each_time_and_says_where_a_number_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut kept = Kept::new(&path);
        assert_eq!(kept.text().unwrap_err().errno, Errno::ENOENT);
        std::fs::write(&path, "7 x 9\n").unwrap();
        assert_eq!((kept.number().unwrap(), kept.field(2).unwrap()), (7, 9));
        let error = kept.field(1).unwrap_err().to_string();
        assert!(error.ends_with("word 2 is no number"), "{error}");
        std::fs::write(&path, "line\n".repeat(1000)).unwrap();
        assert_eq!(kept.text().unwrap().len(), 5000);
        std::fs::write(&path, [0xff]).unwrap();
        assert!(kept.text().is_err());
    }
}
