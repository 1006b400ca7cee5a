//! Control groups that a runtime leaves behind: as for a kubelet, the pods' own are its caller's
//! to remove, and the containers' are left when the runtime is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const ROOT: &str = "/sys/fs/cgroup";
/// In a test's directory: what it may have made, a path a line.
const LIST: &str = "cgroups";
/// The kernel may need a moment after the last process.
const PATIENCE: Duration = Duration::from_secs(5);

/// Writes down, before they are made, which of these paths and those above them do not exist yet.
pub fn remember(directory: &Path, path: &str) {
    let list = directory.join(LIST);
    let mut paths = fs::read_to_string(&list).unwrap_or_default();
    for above in Path::new(path).ancestors().filter(|above| above.parent().is_some()) {
        let line = format!("{}\n", above.display());
        if places(&line).next().is_none() {
            paths.push_str(&line);
        }
    }
    fs::write(list, paths).unwrap();
}

/// Removes what is written down in a test's directory, if nothing runs in it any more.
pub fn remove_remembered(directory: &Path) {
    let paths = fs::read_to_string(directory.join(LIST)).unwrap_or_default();
    let mut paths: Vec<&str> = paths.lines().collect();
    paths.sort_unstable_by_key(|path| std::cmp::Reverse(path.len()));
    paths.into_iter().for_each(remove);
}

/// Removes a control group and those in it, in every hierarchy.
pub fn remove(path: &str) {
    let deadline = Instant::now() + PATIENCE;
    for place in places(path) {
        while !remove_tree(&place) && Instant::now() < deadline {
            sleep(Duration::from_millis(10));
        }
    }
}

/// Where it is: one hierarchy, or one a controller.
fn places(path: &str) -> impl Iterator<Item = PathBuf> {
    let path = path.trim().trim_start_matches('/').to_owned();
    let roots = directories(Path::new(ROOT)).into_iter().chain([PathBuf::from(ROOT)]);
    roots.map(move |root| root.join(&path)).filter(|place| place.is_dir())
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    entries.map(|entry| entry.path()).collect()
}

fn remove_tree(path: &Path) -> bool {
    // Its files go with it.
    directories(path).iter().all(|below| remove_tree(below)) && fs::remove_dir(path).is_ok()
}
