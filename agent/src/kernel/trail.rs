//! What a path leads through.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many links as the kernel follows (`path_resolution(7)`).
const MOST_LINKS: usize = 40;

/// What to watch in order to notice that a path leads to another file, or to other content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trail {
    /// The directory of the file, and of each link on the way. Where the way breaks off, the
    /// directory in which it would go on.
    pub directories: BTreeSet<PathBuf>,
    /// The file itself, links followed. What is written into it where it is mounted at a second
    /// place too is an event of the file alone.
    pub file: Option<PathBuf>,
}

/// Follows a path. A directory that is renamed, or mounted over, on the way is not noticed.
#[must_use]
pub fn follow(path: &Path) -> Trail {
    let mut trail = Trail::default();
    // Only fails where the current directory is gone; then a relative path leads nowhere.
    let Ok(path) = std::path::absolute(path) else { return trail };
    let mut ahead = names(&path);
    let (mut at, mut links) = (PathBuf::from("/"), 0);
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let target = fs::symlink_metadata(&next).and_then(|meta| match meta.is_symlink() {
            true => fs::read_link(&next).map(Some),
            false => Ok(None),
        });
        match target {
            Ok(Some(target)) if links < MOST_LINKS => {
                links += 1;
                if target.is_absolute() {
                    trail.directories.insert(std::mem::replace(&mut at, PathBuf::from("/")));
                } else {
                    trail.directories.insert(at.clone());
                }
                for name in names(&target).into_iter().rev() {
                    ahead.push_front(name);
                }
            }
            Ok(None) if ahead.is_empty() => {
                trail.directories.insert(at);
                trail.file = Some(next);
                break;
            }
            Ok(None) => at = next,
            Ok(Some(_)) | Err(_) => {
                trail.directories.insert(at);
                break;
            }
        }
    }
    trail
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(name).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// The part of a trail below a directory.
    fn below(root: &Path, trail: &Trail) -> (Vec<String>, Option<String>) {
        let show = |path: &PathBuf| Some(path.strip_prefix(root).ok()?.display().to_string());
        (trail.directories.iter().filter_map(show).collect(), trail.file.as_ref().and_then(show))
    }

    #[test]
    fn a_path_is_followed_as_the_kernel_does() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        let path = |name: &str| root.join(name);
        fs::create_dir_all(path("map/..2026_1")).unwrap();
        fs::write(path("map/..2026_1/config.yaml"), "").unwrap();
        symlink("..2026_1", path("map/..data")).unwrap();
        symlink("..data/config.yaml", path("map/config.yaml")).unwrap();
        symlink(path("map/config.yaml"), path("elsewhere")).unwrap();
        symlink("map", path("through")).unwrap();
        symlink("loop", path("loop")).unwrap();
        symlink("map/../plain", path("up")).unwrap();
        fs::write(path("plain"), "").unwrap();

        let file = Some("map/..2026_1/config.yaml".to_owned());
        let known = |name: &str| below(&root, &follow(&path(name)));
        let seen = |directories: &[&str], file: Option<&str>| {
            let own = |text: &&str| (*text).to_owned();
            (directories.iter().map(own).collect::<Vec<_>>(), file.map(str::to_owned))
        };
        assert_eq!(known("map/config.yaml"), seen(&["map", "map/..2026_1"], file.as_deref()));
        assert_eq!(known("elsewhere"), seen(&["", "map", "map/..2026_1"], file.as_deref()));
        assert_eq!(known("through/config.yaml"), known("elsewhere"));
        assert_eq!(known("plain"), seen(&[""], Some("plain")));
        assert_eq!(known("up"), seen(&[""], Some("plain")));
        // What is not there yet appears where the way breaks off.
        assert_eq!(known("map/nosuch.yaml"), seen(&["map"], None));
        assert_eq!(known("nosuch/deep/config.yaml"), seen(&[""], None));
        assert_eq!(known("plain/config.yaml"), seen(&["plain"], None));
        assert_eq!(known("loop"), seen(&[""], None));
    }
}
