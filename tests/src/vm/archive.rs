//! The archive that a kernel unpacks into its first file system: cpio, "new ASCII" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive that grows.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<String>,
    inodes: u32,
}

impl Archive {
    /// Adds a file that may be run, unless something of that name is there.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.add(path, PROGRAM, (0, 0), content);
    }

    /// Adds a symbolic link, unless something of that name is there.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, LINK, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE, (major, minor), b"");
    }

    /// Adds a directory, and those above it: the kernel makes none by itself.
    pub fn directory(&mut self, path: &str) {
        for (end, _) in format!("{path}/").match_indices('/').filter(|(end, _)| *end > 0) {
            if self.paths.insert(path[..end].to_owned()) {
                self.entry(&path[..end], DIRECTORY, (0, 0), b"");
            }
        }
    }

    fn add(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
        if self.paths.insert(path.to_owned()) {
            self.entry(path, mode, device, content);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        let name = path.trim_start_matches('/');
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, uid, gid, links, mtime, size, device, of the node, name's size, no checksum
        let fields = [self.inodes, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// The finished archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), b"");
        self.bytes
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::Archive;

    /// Names, modes and contents, as the kernel's `init/initramfs.c` reads them.
    fn read(bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let (mut at, mut found) = (0, Vec::new());
        loop {
            assert_eq!(&bytes[at..at + 6], b"070701", "{at}");
            let field = |number: usize| {
                let start = at + 6 + 8 * number;
                u32::from_str_radix(std::str::from_utf8(&bytes[start..start + 8]).unwrap(), 16)
                    .unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = at + 110;
            let content = (name + name_size).next_multiple_of(4);
            let text = String::from_utf8(bytes[name..name + name_size - 1].to_vec()).unwrap();
            if text == "TRAILER!!!" {
                return found;
            }
            found.push((text, mode, bytes[content..content + size].to_vec()));
            at = (content + size).next_multiple_of(4);
        }
    }

    #[test]
    fn what_goes_in_is_found_with_its_directories_before_it() {
        let mut archive = Archive::default();
        archive.directory("/proc");
        archive.file("/sbin/a/program", b"12345");
        archive.file("/sbin/other", b"");
        archive.link("/sbin/other", "twice");
        archive.link("/sbin/link", "a/program");
        archive.device("/dev/console", 5, 1);
        let found = read(&archive.finish());
        let names: Vec<_> = found.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            names,
            [
                ("proc", 0o040_755),
                ("sbin", 0o040_755),
                ("sbin/a", 0o040_755),
                ("sbin/a/program", 0o100_755),
                ("sbin/other", 0o100_755),
                ("sbin/link", 0o120_777),
                ("dev", 0o040_755),
                ("dev/console", 0o020_600),
            ]
        );
        assert_eq!(found[3].2, b"12345");
        assert_eq!(found[5].2, b"a/program");
    }
}
