#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use nix::unistd::mkfifo;

use super::*;

fn refusal(path: &Path) -> (Errno, String) {
    let error = read(path, 8).unwrap_err();
    assert_eq!(error.path, path);
    (error.errno, error.meaning)
}

#[test]
fn a_file_is_read_up_to_its_limit_and_not_beyond() {
    let made = tempfile::tempdir().unwrap();
    let path = made.path().join(OsStr::from_bytes(b"\xff\n"));
    assert_eq!(read(&path, 8).unwrap(), None);
    for text in ["", "1234567", "12345678"] {
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path, 8).unwrap().unwrap(), text.as_bytes());
    }
    fs::write(&path, "123456789").unwrap();
    assert_eq!(refusal(&path).0, Errno::EFBIG);
}

#[test]
fn only_a_regular_file_is_opened() {
    let made = tempfile::tempdir().unwrap();
    let at = |name: &str| made.path().join(name);
    fs::write(at("file"), "text").unwrap();
    symlink("file", at("link")).unwrap();
    symlink("absent", at("dangling")).unwrap();
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    for (path, what) in [
        (at("link"), "a link"),
        (at("dangling"), "a link"),
        (at("fifo"), "a FIFO"),
        (at("socket"), "a socket"),
        (made.path().to_owned(), "a directory"),
        ("/dev/null".into(), "a device"),
    ] {
        assert_eq!(refusal(&path), (Errno::EINVAL, format!("it is {what}, not a file")));
    }
}

#[test]
fn a_directory_is_listed_up_to_a_limit() {
    let made = tempfile::tempdir().unwrap();
    let odd = OsStr::from_bytes(b"\xff\n");
    fs::write(made.path().join("a"), "").unwrap();
    fs::write(made.path().join(odd), "").unwrap();
    let listed = |most| {
        let names = list(made.path(), most).unwrap();
        (names.names.into_iter().collect::<BTreeSet<_>>(), names.more)
    };
    let both = ["a".into(), odd.to_owned()].into();
    assert_eq!(listed(3), (both, false));
    assert!(!listed(2).1);
    assert_eq!((listed(1).0.len(), listed(1).1), (1, true));
    let absent = list(&made.path().join("absent"), 1).unwrap_err();
    assert_eq!(absent.errno, Errno::ENOENT);
}
