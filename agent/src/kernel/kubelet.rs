//! The kubelet's process and the command line that it was started with.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::cgroup;

/// Longest command line that is read, in bytes.
const LONGEST: u64 = 64 * 1024;

/// What the command line says of the number of pods. A flag that is given twice counts as the last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelet {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--config-dir`.
    pub config_dir: Option<PathBuf>,
    /// `--max-pods`, which beats the files.
    pub max_pods: Option<u64>,
    /// `--pods-per-core`, which beats the files.
    pub pods_per_core: Option<u64>,
}

/// Reads a command line: arguments that end in NUL, as `/proc/<pid>/cmdline` has them.
#[must_use]
pub fn parse(cmdline: &[u8]) -> Kubelet {
    let mut found = Kubelet::default();
    let mut arguments = cmdline.split(|&byte| byte == 0).skip(1);
    while let Some(argument) = arguments.next() {
        let Some(flag) = argument.strip_prefix(b"--") else { continue };
        let sign = flag.iter().position(|&byte| byte == b'=');
        let (name, value) = match sign.and_then(|sign| flag.split_at_checked(sign)) {
            Some((name, value)) => (name, value.get(1..)),
            None => (flag, None),
        };
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse().ok();
        let path =
            |value: &[u8]| (!value.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(value)));
        // pflag: the value behind `=`, else the next argument.
        let mut value = || value.or_else(|| arguments.next()).unwrap_or_default();
        match name {
            b"config" => found.config = path(value()),
            b"config-dir" => found.config_dir = path(value()),
            b"max-pods" => found.max_pods = number(value()),
            b"pods-per-core" => found.pods_per_core = number(value()),
            _ => {}
        }
    }
    found
}

/// The node's kubelet, where its process is seen: that takes the host's PID namespace.
///
/// A process of that name that is somebody else's, or in a pod, or known to be in another network
/// namespace (a node that is a container on this machine), is none.
#[must_use]
pub fn find(proc_root: &Path) -> Option<Kubelet> {
    let own = netns(&proc_root.join("self"));
    for entry in fs::read_dir(proc_root).ok()?.flatten() {
        let process = entry.path();
        let number = |name: &OsStr| name.as_bytes().iter().all(u8::is_ascii_digit);
        if !number(&entry.file_name()) || !is_called(&process, b"kubelet\n") {
            continue;
        }
        let root = fs::metadata(&process).is_ok_and(|meta| meta.uid() == 0);
        let cgroup = fs::read(process.join("cgroup")).unwrap_or_default();
        let in_pod = cgroup::parse(&cgroup).is_some_and(|place| place.pod.is_some());
        let elsewhere = netns(&process).zip(own).is_some_and(|(its, own)| its != own);
        if root && !in_pod && !elsewhere {
            let mut cmdline = Vec::new();
            let file = File::open(process.join("cmdline"));
            // It ended.
            let Ok(read) = file.and_then(|file| file.take(LONGEST).read_to_end(&mut cmdline))
            else {
                continue;
            };
            if read > 0 {
                return Some(parse(&cmdline));
            }
        }
    }
    None
}

fn is_called(process: &Path, name: &[u8]) -> bool {
    fs::read(process.join("comm")).is_ok_and(|comm| comm == name)
}

/// `None`: it may not be seen (CAP_SYS_PTRACE).
fn netns(process: &Path) -> Option<u64> {
    fs::metadata(process.join("ns/net")).ok().map(|meta| meta.ino())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(arguments: &[&str]) -> Kubelet {
        let mut line = b"/usr/bin/kubelet\0".to_vec();
        for argument in arguments {
            line.extend([argument.as_bytes(), b"\0"].concat());
        }
        parse(&line)
    }

    #[test]
    fn flags_in_both_forms() {
        let kubelet =
            of(&["--v=2", "--config", "/a b.yaml", "--max-pods=110", "--max-pods", "250"]);
        assert_eq!(kubelet.config.as_deref(), Some(Path::new("/a b.yaml")));
        assert_eq!(kubelet.max_pods, Some(250));
        let kubelet =
            of(&["--config-dir=/etc/kubernetes/kubelet.conf.d", "--pods-per-core=4", "--config="]);
        assert_eq!((kubelet.config, kubelet.pods_per_core), (None, Some(4)));
        assert_eq!(kubelet.config_dir.unwrap(), Path::new("/etc/kubernetes/kubelet.conf.d"));
        assert_eq!(of(&["--max-pods", "x", "max-pods=3", "--max-pods-x=3"]), Kubelet::default());
        assert_eq!(of(&["--max-pods"]), Kubelet::default());
        assert_eq!(parse(b""), Kubelet::default());
    }

    #[test]
    fn a_kubelet_in_a_pod_is_not_the_nodes() {
        let proc = tempfile::tempdir().unwrap();
        let process = |pid: &str, comm: &str, cgroup: &str, pods: u32| {
            let directory = proc.path().join(pid);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(directory.join("cgroup"), cgroup).unwrap();
            let line = format!("/kubelet\0--max-pods={pods}\0");
            fs::write(directory.join("cmdline"), line).unwrap();
        };
        let pod = format!("0::/kubepods/pod{}/{}\n", "0".repeat(32), "a".repeat(64));
        process("7", "kubelet", &pod, 7);
        process("8", "kubelets", "0::/x.slice\n", 8);
        process("9x", "kubelet", "0::/x.slice\n", 9);
        assert_eq!(find(proc.path()), None);
        process("10", "kubelet", "0::/system.slice/kubelet.service\n", 10);
        let root = fs::metadata(proc.path()).unwrap().uid() == 0;
        assert_eq!(find(proc.path()).and_then(|kubelet| kubelet.max_pods), root.then_some(10));
    }

    proptest! {
        #[test]
        fn any_command_line(line in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&line);
        }

        #[test]
        fn the_last_flag_counts(numbers in proptest::collection::vec((any::<u32>(), any::<bool>()), 1..5)) {
            let mut line = b"kubelet\0".to_vec();
            for (number, sign) in &numbers {
                let sign = if *sign { '=' } else { '\0' };
                line.extend(format!("--max-pods{sign}{number}\0").into_bytes());
            }
            prop_assert_eq!(parse(&line).max_pods, numbers.last().map(|(number, _)| u64::from(*number)));
        }
    }
}
