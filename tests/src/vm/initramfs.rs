//! All that the virtual machine has: an archive that its kernel unpacks into memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::archive::Archive;
use crate::build::Test;
use crate::kernels::Kernel;
use crate::{Outcome, files, text_of};

const BUSYBOX: &str = "/bin/busybox";
/// Programs that busybox has not, or in a lesser form: shells (its own prefers what is built in),
/// iproute2's, util-linux' and procps'.
const PROGRAMS: [&str; 9] = [
    "/bin/bash",
    "/bin/dash",
    "/bin/ip",
    "/bin/mount",
    "/bin/umount",
    "/usr/bin/nsenter",
    "/usr/bin/setpriv",
    "/usr/bin/unshare",
    "/sbin/sysctl",
];

/// What runs first in the virtual machine. Lines that begin with `@@` are read outside.
const INIT: &str = r#"#!/bin/sh
export PATH=/sbin:/bin HOME=/tmp HEADROOM_VM=1 HEADROOM_BIN=/headroom RUST_TEST_THREADS=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
ln -s /proc/self/fd /dev/fd
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
hostname "$(cat /etc/hostname)"
# iproute2 needs a descriptor for each namespace that a batch names.
ulimit -n 20000
echo "@@ kernel $(uname -r)"
echo "@@ begin NAME"
"/NAME.test" --show-output </dev/null
echo "@@ end NAME $?"
poweroff -f
"#;

/// Builds the archive for a kernel and one test binary. Its file is not called like the test: what
/// a process is called tests look at.
pub fn build(kernel: &Kernel, headroom: &Path, (name, test): &Test) -> Outcome<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["/proc", "/sys", "/dev", "/run", "/tmp", "/mnt", "/var"] {
        archive.directory(directory);
    }
    // What the kernel gives the first program as its input and output.
    archive.device("/dev/console", 5, 1);
    archive.file("/etc/hostname", b"vm\n");
    archive.file("/init", INIT.replace("NAME", name).as_bytes());
    for program in PROGRAMS {
        dynamic(&mut archive, program)?;
    }
    archive.link("/bin/sh", "dash");
    busybox(&mut archive)?;
    modules(&mut archive, kernel)?;
    archive.file("/headroom", &fs::read(headroom)?);
    archive.file(&format!("/{name}.test"), &fs::read(test)?);
    Ok(archive.finish())
}

/// The usual programs, `modprobe` among them.
fn busybox(archive: &mut Archive) -> Outcome<()> {
    archive.file("/bin/busybox", &fs::read(BUSYBOX)?);
    for name in text_of(Command::new(BUSYBOX).arg("--list"))?.lines() {
        archive.link(&format!("/bin/{name}"), "busybox");
    }
    // Where the kernel looks when it wants a module (kernel.modprobe).
    archive.link("/sbin/modprobe", "../bin/busybox");
    Ok(())
}

/// A program of this machine with the libraries it needs, in the places where it looks for them.
fn dynamic(archive: &mut Archive, program: &str) -> Outcome<()> {
    let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
    archive.file(&format!("/bin/{name}"), &fs::read(program)?);
    for line in text_of(Command::new("ldd").arg(program))?.lines() {
        let library = line.split_whitespace().find(|word| word.starts_with('/'));
        if let Some(library) = library {
            archive.file(library, &fs::read(library)?);
        }
    }
    Ok(())
}

/// The modules of the network, those they need, and overlayfs; the lists that `modprobe` reads.
fn modules(archive: &mut Archive, kernel: &Kernel) -> Outcome<()> {
    let inside = format!("/lib/modules/{}", kernel.release);
    let text = fs::read_to_string(kernel.modules.join("modules.dep"))?;
    let needs = dependencies(&text);
    let mut wanted: Vec<&str> = needs.keys().copied().filter(|path| is_wanted(path)).collect();
    let mut taken = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        if taken.insert(path) {
            wanted.extend(needs.get(path).into_iter().flatten());
            archive.file(&format!("{inside}/{path}"), &fs::read(kernel.modules.join(path))?);
        }
    }
    for list in files(&kernel.modules)?.iter().filter(|path| is_list(path, &kernel.modules)) {
        let name = list.file_name().unwrap_or_default().to_string_lossy();
        archive.file(&format!("{inside}/{name}"), &fs::read(list)?);
    }
    Ok(())
}

fn is_wanted(path: &str) -> bool {
    let driver = path.strip_prefix("kernel/drivers/net/");
    path.starts_with("kernel/net/")
        || driver.is_some_and(|rest| rest.starts_with("vxlan/") || !rest.contains('/'))
        || path.starts_with("kernel/fs/overlayfs/")
}

fn is_list(path: &Path, modules: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.parent() == Some(modules) && name.starts_with("modules.") && !name.ends_with(".bin")
}

/// `modules.dep`: a module, a colon, and all that it needs, itself or through others.
fn dependencies(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let entries = text.lines().filter_map(|line| line.split_once(':'));
    entries.map(|(module, needs)| (module, needs.split_whitespace().collect())).collect()
}

#[cfg(test)]
mod tests {
    use super::{dependencies, is_wanted};

    #[test]
    fn modules_are_read_with_their_needs() {
        let text = "kernel/net/a.ko: kernel/lib/b.ko kernel/lib/c.ko\nkernel/lib/b.ko:\n";
        let needs = dependencies(text);
        assert_eq!(needs["kernel/net/a.ko"], ["kernel/lib/b.ko", "kernel/lib/c.ko"]);
        assert!(needs["kernel/lib/b.ko"].is_empty());
        let wanted = ["net/netfilter/x.ko", "drivers/net/dummy.ko", "drivers/net/vxlan/vxlan.ko"];
        assert!(wanted.iter().all(|path| is_wanted(&format!("kernel/{path}"))));
        let others = ["drivers/net/ethernet/x.ko", "drivers/gpu/x.ko", "lib/crc.ko"];
        assert!(!others.iter().any(|path| is_wanted(&format!("kernel/{path}"))));
    }
}
