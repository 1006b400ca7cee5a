//! Processes and threads of all pods: the control group above them.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headroom::limits::kubepods::Kubepods;

use super::eyes::{Eyes, roots};
use super::fill::fill;
use super::{Bench, Row};

/// Threads of a pod, and the lowered maximum.
const EACH: u32 = 5;
const MAX: u32 = 203;
/// The kernel may need a moment after the last process.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let group = Group(hierarchy().join(bench.host.unique_name()));
    let kubepods = group.make().map_err(|error| format!("{}: {error}", group.0.display()))?;
    fs::write(kubepods.join("pids.max"), MAX.to_string()).unwrap();
    let mut eyes = Eyes::of(Kubepods::at(&roots(), group.0.clone()));
    let args = [kubepods.display().to_string(), EACH.to_string()];
    let filled = fill(&bench.program, "threads", &args, || eyes.see("kubepods_pids", "kubepods"));
    Ok(Row {
        limit: "pids of the pods' control group",
        pod: format!("a process with {EACH} threads"),
        set_to: MAX.to_string(),
        predictions: filled.foretold.quarters(filled.fact.pods),
        fact: filled.fact,
        allowed: 1,
        note: None,
    })
}

/// Where control groups for pids are: v1 has a hierarchy for them.
fn hierarchy() -> PathBuf {
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join("pids");
    if own.join("tasks").exists() { own } else { root.to_owned() }
}

/// A control group of our own that stands for the whole hierarchy, with the kubelet's in it.
struct Group(PathBuf);

impl Group {
    fn make(&self) -> io::Result<PathBuf> {
        fs::create_dir(&self.0)?;
        // v2: a controller is handed down from level to level.
        for above in [hierarchy(), self.0.clone()] {
            let control = above.join("cgroup.subtree_control");
            if control.exists() {
                fs::write(control, "+pids")?;
            }
        }
        let kubepods = self.0.join("kubepods");
        fs::create_dir(&kubepods)?;
        Ok(kubepods)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        for path in [self.0.join("kubepods"), self.0.clone()] {
            while let Err(error) = fs::remove_dir(&path) {
                if error.kind() == ErrorKind::NotFound {
                    break;
                }
                if Instant::now() > deadline {
                    return eprintln!("{}: {error}", path.display());
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}
