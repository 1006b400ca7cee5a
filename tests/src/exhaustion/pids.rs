//! Processes and threads of all pods: the control group above them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::eyes::Eyes;
use super::fill::fill;
use super::{Bench, Row};

/// Threads of a pod, and the lowered maximum.
const EACH: u32 = 5;
const MAX: u32 = 203;
/// The kernel may need a moment after the last process.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn drive(bench: &Bench<'_>) -> Result<Row, String> {
    let group = Group::new(&bench.host.unique_name())?;
    // Where a kubelet's group for all pods would be, in a tree of our own.
    let sys = bench.host.directory();
    let above = sys.path().join("fs/cgroup").join(&group.below);
    fs::create_dir_all(&above).unwrap();
    symlink(&group.path, above.join("kubepods")).unwrap();
    fs::write(group.path.join("pids.max"), MAX.to_string()).unwrap();
    let mut eyes = Eyes::at(sys.path());
    let args = [group.path.display().to_string(), EACH.to_string()];
    let filled = fill(&bench.program, "threads", &args, || eyes.see("kubepods_pids", |_| true));
    let row = Row {
        limit: "pids of the pods' control group",
        pod: format!("a process with {EACH} threads"),
        set_to: MAX.to_string(),
        predictions: filled.foretold.quarters(filled.fact.pods),
        fact: filled.fact,
        note: None,
    };
    super::pod::end_all(filled.pods);
    Ok(row)
}

/// A control group of our own for pids.
struct Group {
    path: PathBuf,
    /// The hierarchy, below `/sys/fs/cgroup`: empty where there is one for all controllers.
    below: PathBuf,
}

impl Group {
    fn new(name: &str) -> Result<Self, String> {
        let root = Path::new("/sys/fs/cgroup");
        let below = if root.join("pids/tasks").exists() { "pids" } else { "" };
        let hierarchy = root.join(below);
        if below.is_empty() {
            let control = hierarchy.join("cgroup.subtree_control");
            fs::write(&control, "+pids")
                .map_err(|error| format!("{}: {error}", control.display()))?;
        }
        let path = hierarchy.join(name);
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self { path, below: below.into() })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = fs::remove_dir(&self.path) {
            if Instant::now() > deadline {
                return eprintln!("{}: {error}", self.path.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
