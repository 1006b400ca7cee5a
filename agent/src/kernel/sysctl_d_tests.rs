#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;

fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for directory in DIRECTORIES {
        if directory != "/lib/sysctl.d" {
            fs::create_dir_all(root.path().join(&directory[1..])).unwrap();
        }
    }
    symlink("usr/lib", root.path().join("lib")).unwrap();
    root
}

fn content<'f>(files: &'f Files, name: &str) -> &'f Content {
    &files.files.iter().find(|file| file.name.as_bytes() == name.as_bytes()).unwrap().content
}

#[test]
fn only_conf_files_are_read_each_directory_once() {
    let root = root();
    let write = |path: &str| fs::write(root.path().join(path), path).unwrap();
    for path in ["usr/lib/sysctl.d/b.conf", "usr/lib/sysctl.d/a.conf", "usr/lib/sysctl.d/README"] {
        write(path);
    }
    write("etc/sysctl.d/c.conf");
    write("etc/sysctl.conf");
    let found = read_all(root.path()).unwrap();
    let names: Vec<_> =
        found.files.iter().map(|file| (file.directory, file.name.to_string())).collect();
    let expected =
        [(Some(0), "c.conf"), (Some(3), "a.conf"), (Some(3), "b.conf"), (None, "sysctl.conf")];
    assert_eq!(names, expected.map(|(directory, name)| (directory, name.to_owned())));
    assert_eq!(found.directories, 4);
}

#[test]
fn links_stay_in_the_root_and_null_masks() {
    let root = root();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "a.b = 1").unwrap();
    let etc = root.path().join("etc/sysctl.d");
    for (name, target) in [
        ("null.conf", "/dev/null".into()),
        ("relative.conf", "../../dev/null".into()),
        ("out.conf", outside.path().join("secret")),
        ("up.conf", "../../../../../../../../../../../../etc/hostname".into()),
        ("conf.conf", "../sysctl.conf".into()),
        ("absolute.conf", PathBuf::from("/etc/sysctl.conf")),
        ("loop.conf", "loop.conf".into()),
        ("magic.conf", "/proc/self/root/etc/hostname".into()),
    ] {
        symlink(target, etc.join(name)).unwrap();
    }
    fs::write(root.path().join("etc/sysctl.conf"), "x").unwrap();
    let found = read_all(root.path()).unwrap();
    let x = Content::Bytes(b"x".to_vec());
    for (name, expected) in [
        ("null.conf", Content::Null),
        ("relative.conf", Content::Null),
        ("out.conf", Content::Nowhere),
        ("up.conf", Content::Nowhere),
        ("magic.conf", Content::Nowhere),
        ("conf.conf", x.clone()),
        ("absolute.conf", x),
    ] {
        assert_eq!(*content(&found, name), expected, "{name}");
    }
    assert!(
        matches!(content(&found, "loop.conf"), Content::Failed(error) if error.errno == Errno::ELOOP)
    );
}

#[test]
fn what_is_no_file_is_not_opened() {
    let root = root();
    let etc = root.path().join("etc/sysctl.d");
    mkfifo(&etc.join("fifo.conf"), Mode::S_IRWXU).unwrap();
    fs::create_dir(etc.join("directory.conf")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(etc.join("socket.conf")).unwrap();
    let found = read_all(root.path()).unwrap();
    for (name, what) in [("fifo", "a FIFO"), ("directory", "a directory"), ("socket", "a socket")] {
        match content(&found, &format!("{name}.conf")) {
            Content::Failed(error) => assert!(error.meaning.contains(what), "{error}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_large_file_is_cut() {
    let root = root();
    fs::write(root.path().join("etc/sysctl.d/a.conf"), vec![b'#'; LONGEST_FILE + 1]).unwrap();
    fs::write(root.path().join("etc/sysctl.d/b.conf"), vec![b'#'; LONGEST_FILE]).unwrap();
    let found = read_all(root.path()).unwrap();
    assert!(
        matches!(content(&found, "a.conf"), Content::Cut(bytes) if bytes.len() == LONGEST_FILE)
    );
    assert!(
        matches!(content(&found, "b.conf"), Content::Bytes(bytes) if bytes.len() == LONGEST_FILE)
    );
}

#[test]
fn nothing_there_is_no_error_and_no_root_is() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(read_all(root.path()).unwrap(), Files::default());
    assert_eq!(read_all(&root.path().join("none")).unwrap_err().errno, Errno::ENOENT);
}
