//! Debian's kernels: fetched by apt into a directory of our own, unpacked, never installed.
//!
//! apt gets its own lists, cache and sources, so the machine's stay as they are; `dpkg-deb -x`
//! runs no maintainer script and touches no `/boot`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Outcome, files, run, text_of};

const MIRROR: &str = "http://deb.debian.org";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Which kernel is wanted, and where Debian has it.
pub struct Wanted {
    /// What it is called on the command line and in directories.
    pub name: &'static str,
    /// Archive and suite. Only these are asked, so the newest version in them is the one.
    suites: &'static [(&'static str, &'static str)],
    /// A package that depends on the newest kernel of its kind.
    package: &'static str,
}

/// The kernels that are compared. The cloud flavour has the same network code as the other one,
/// without drivers for hardware that no virtual machine has.
pub const WANTED: [Wanted; 3] = [
    Wanted {
        name: "6.1",
        suites: &[("debian", "bookworm"), ("debian-security", "bookworm-security")],
        package: "linux-image-cloud-amd64",
    },
    Wanted {
        name: "6.12",
        suites: &[("debian-security", "bookworm-security")],
        package: "linux-image-6.12-cloud-amd64",
    },
    Wanted {
        name: "newest",
        suites: &[("debian", "trixie-backports")],
        package: "linux-image-cloud-amd64",
    },
];

/// A kernel on disk.
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The Debian package it came in, and its version.
    pub package: String,
    /// The image to boot.
    pub image: PathBuf,
    /// `/lib/modules/<release>`, with `modules.dep`, nothing compressed.
    pub modules: PathBuf,
}

/// The kernel, fetched if it is not there yet. Remove the directory to look for a newer one.
pub fn get(wanted: &Wanted, cache: &Path) -> Outcome<Kernel> {
    let directory = cache.join("kernels").join(wanted.name);
    if !directory.join("package").exists() {
        let _ = fs::remove_dir_all(&directory);
        eprintln!("fetching {} from Debian", wanted.package);
        let package = fetch(wanted, &directory)?;
        unpack(&directory)?;
        // Last: a fetch that was cut short is begun anew.
        fs::write(directory.join("package"), package)?;
    }
    look(&directory)
}

fn look(directory: &Path) -> Outcome<Kernel> {
    let modules = fs::read_dir(directory.join("root/lib/modules"))?.next();
    let modules = modules.ok_or("the package has no modules")??.path();
    let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // In /boot up to Debian 12, beside the modules later.
    let places = [directory.join(format!("root/boot/vmlinuz-{release}")), modules.join("vmlinuz")];
    let image = places.into_iter().find(|path| path.exists()).ok_or("no kernel image")?;
    let package = fs::read_to_string(directory.join("package"))?;
    Ok(Kernel { release, package, image, modules })
}

/// Downloads the kernel's packages; the name and version of the one with the image.
fn fetch(wanted: &Wanted, directory: &Path) -> Outcome<String> {
    let packages = directory.join("packages");
    for path in ["apt/lists/partial", "apt/cache/archives/partial", "packages"] {
        fs::create_dir_all(directory.join(path))?;
    }
    let line = |(archive, suite): &(&str, &str)| {
        format!("deb [signed-by={KEYRING} arch=amd64] {MIRROR}/{archive} {suite} main\n")
    };
    let sources: String = wanted.suites.iter().map(line).collect();
    fs::write(directory.join("apt/sources.list"), sources)?;
    let apt = Apt(directory.canonicalize()?.join("apt"));
    run(&mut apt.command("apt-get", ["-qq", "update"]))?;

    // The package depends on the real one, and that, in newer Debian, on its parts.
    let mut names = vec![wanted.package.to_owned()];
    let mut at = 0;
    while let Some(name) = names.get(at) {
        for part in apt.parts(name)? {
            if !names.contains(&part) {
                names.push(part);
            }
        }
        at += 1;
    }
    let image = names.iter().skip(1).find(|name| name.starts_with("linux-image-"));
    let image = image.ok_or_else(|| format!("{} names no kernel", wanted.package))?;
    let version = apt.field(image, "Version")?;
    let wanted = ["-qq".to_owned(), "download".to_owned()].into_iter().chain(names[1..].to_vec());
    run(apt.command("apt-get", wanted).current_dir(&packages))?;
    Ok(format!("{image} {version}"))
}

/// apt with everything that it keeps in one directory.
struct Apt(PathBuf);

impl Apt {
    fn command<A: AsRef<str>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(program);
        let options = [
            format!("Dir::State={}", self.0.display()),
            format!("Dir::State::Lists={}", self.0.join("lists").display()),
            format!("Dir::Cache={}", self.0.join("cache").display()),
            format!("Dir::Etc::SourceList={}", self.0.join("sources.list").display()),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            // The build directory is not open to the user that apt would become.
            "APT::Sandbox::User=root".to_owned(),
        ];
        for option in options {
            command.args(["-o", &option]);
        }
        command.args(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        command
    }

    /// A field of a package's description, empty if it has none.
    fn field(&self, package: &str, field: &str) -> Outcome<String> {
        let shown =
            text_of(&mut self.command("apt-cache", ["show", "--no-all-versions", package]))?;
        let start = format!("{field}: ");
        let line = shown.lines().find_map(|line| line.strip_prefix(&start));
        Ok(line.unwrap_or_default().to_owned())
    }

    /// The packages of the same kernel that a package depends on.
    fn parts(&self, package: &str) -> Outcome<Vec<String>> {
        let depends = self.field(package, "Depends")?;
        let names = depends.split(',').filter_map(|one| one.split_whitespace().next());
        // Of the same kernel: named after it, and in exactly this version.
        let part = |name: &&str| name.starts_with("linux-") && name.contains(char::is_numeric);
        Ok(names.filter(part).map(str::to_owned).collect())
    }
}

fn unpack(directory: &Path) -> Outcome<()> {
    let root = directory.join("root");
    for package in files(&directory.join("packages"))? {
        run(Command::new("dpkg-deb").arg("-x").arg(package).arg(&root))?;
    }
    // Where Debian's /lib is a link to /usr/lib, packages no longer go through it.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    let modules = files(&root.join("lib/modules"))?;
    let compressed: Vec<_> =
        modules.iter().filter(|path| path.to_string_lossy().ends_with(".ko.xz")).collect();
    if !compressed.is_empty() {
        // busybox' modprobe is spared the unpacking; the signature is inside.
        run(Command::new("xz").arg("-d").args(compressed))?;
    }
    let release = fs::read_dir(root.join("lib/modules"))?.next().ok_or("no modules")??;
    // The package's script would do it at installation.
    run(Command::new("/sbin/depmod").arg("-b").arg(&root).arg(release.file_name()))
}
