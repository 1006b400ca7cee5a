//! Limits of the whole node: processes, files, keys, terminals, asynchronous I/O, cgroups.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc;

use headroom::kernel::system::open_files_limit;
use headroom::limits::Exactness;
use headroom::limits::aio::Aio;
use headroom::limits::cgroups::Cgroups;
use headroom::limits::file_handles::FileHandles;
use headroom::limits::keys::Keys;
use headroom::limits::pids::Pids;
use headroom::limits::ptys::Ptys;
use headroom_tests::{Mount, SavedSysctls, private_mounts, root_or_skip};
use nix::libc;

use super::calls::{AioContext, add_key, as_user};
use super::{limit, number, remaining, roots, set};

/// Nobody's: so its keys are this test's.
const UID: u32 = 1_987_654_321;

fn refused<T>(result: Result<T, io::Error>) -> i32 {
    result.err().expect("it is refused").raw_os_error().unwrap()
}

#[test]
fn threads_are_counted_against_both_maxima() {
    let mut reader = Pids::new(&roots());
    let (send, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    std::thread::scope(|scope| {
        for _ in 0..500 {
            let small = std::thread::Builder::new().stack_size(64 << 10);
            let parked = || drop(wait.lock().map(|wait| wait.recv()));
            small.spawn_scoped(scope, parked).unwrap();
        }
        // What is running can only be more than what this test has.
        for (object, key, exactness) in [
            ("pid_max", "kernel/pid_max", Exactness::LowerBound),
            ("threads_max", "kernel/threads-max", Exactness::Exact),
        ] {
            let limit = limit(&mut reader, "pids", object);
            assert!((501..number(key)).contains(&limit.used.unwrap()), "{limit:?}");
            assert_eq!((limit.max, limit.exactness), (Some(number(key)), exactness));
        }
        drop(send);
    });
}

#[test]
fn keys_of_a_user_remain_as_many_as_it_says() {
    let Some(_host) = root_or_skip() else { return };
    let object = format!("uid {UID}");
    let mut reader = Keys::new(&roots());
    as_user(UID, || {
        // Makes the thread's keyring too.
        add_key("headroom-0", b"x").unwrap();
        let before = limit(&mut reader, "keys", &object);
        assert_eq!(before.raised_by, Some("kernel.keys.maxkeys"));
        let mut added = 0;
        let errno = loop {
            match add_key(&format!("headroom-{}", added + 1), b"x") {
                Ok(()) => added += 1,
                Err(error) => break error.raw_os_error(),
            }
        };
        assert_eq!(errno, Some(libc::EDQUOT));
        assert_eq!(added, remaining(&before));
        let full = limit(&mut reader, "keys", &object);
        assert_eq!((full.used, full.max), (Some(number("kernel/keys/maxkeys")), full.used));
    });
}

#[test]
fn bytes_in_keys_remain_as_many_as_it_says() {
    let Some(_host) = root_or_skip() else { return };
    let object = format!("uid {UID}");
    let mut reader = Keys::new(&roots());
    as_user(UID, || {
        add_key("headroom", b"x").unwrap();
        let left = usize::try_from(remaining(&limit(&mut reader, "key_bytes", &object))).unwrap();
        // A key takes its name, the 0 at its end, what it holds, and 4 bytes in its keyring
        // (KEYQUOTA_LINK_BYTES).
        let payload = vec![b'x'; left - "k".len() - 1 - 4];
        let more = [payload.as_slice(), b"x"].concat();
        assert_eq!(refused(add_key("k", &more)), libc::EDQUOT);
        // Older kernels, such as 6.1, keep the last byte (`key_payload_reserve` compared with >=).
        let kept = u64::from(add_key("k", &payload).is_err());
        if kept == 1 {
            add_key("k", &payload[1..]).unwrap();
        }
        assert_eq!(remaining(&limit(&mut reader, "key_bytes", &object)), kept);
    });
}

#[test]
fn terminals_of_containers_remain_as_many_as_it_says() {
    let Some(host) = root_or_skip() else { return };
    let _saved = SavedSysctls::new(&host, ["kernel/pty/max"]);
    let mut reader = Ptys::new(&roots());
    set("kernel/pty/max", number("kernel/pty/reserve") + number("kernel/pty/nr") + 20);
    let directory = host.directory();
    private_mounts(|| {
        let _devpts = Mount::file_system("devpts", directory.path(), "newinstance,ptmxmode=600");
        let open = || {
            let mut options = File::options();
            options.read(true).write(true).custom_flags(libc::O_NOCTTY);
            options.open(directory.path().join("ptmx"))
        };
        let said = remaining(&limit(&mut reader, "ptys", ""));
        let mut terminals = Vec::new();
        let errno = loop {
            match open() {
                Ok(terminal) => terminals.push(terminal),
                Err(error) => break error.raw_os_error(),
            }
        };
        assert_eq!(errno, Some(libc::ENOSPC));
        assert_eq!(terminals.len() as u64, said);
        assert_eq!(remaining(&limit(&mut reader, "ptys", "")), 0);
    });
}

#[test]
fn events_of_asynchronous_io_remain_as_many_as_it_says() {
    let Some(host) = root_or_skip() else { return };
    let _saved = SavedSysctls::new(&host, ["fs/aio-max-nr"]);
    let mut reader = Aio::new(&roots());
    set("fs/aio-max-nr", number("fs/aio-nr") + 1000);
    assert_eq!(remaining(&limit(&mut reader, "aio", "")), 1000);
    let _most = AioContext::new(600).unwrap();
    assert_eq!(remaining(&limit(&mut reader, "aio", "")), 400);
    assert_eq!(refused(AioContext::new(401).map(drop)), libc::EAGAIN);
    let _rest = AioContext::new(400).unwrap();
    assert_eq!(remaining(&limit(&mut reader, "aio", "")), 0);
}

/// Others on the machine open and close files meanwhile, though not this many.
#[test]
fn files_run_out_for_all_but_root_where_it_says() {
    const OTHERS: u64 = 1500;
    let Some(host) = root_or_skip() else { return };
    let _saved = SavedSysctls::new(&host, ["fs/file-max"]);
    let _ = open_files_limit();
    let mut reader = FileHandles::new(&roots());
    set("fs/file-max", number_of_files() + 6000);
    let opened = as_user(UID, || {
        let said = remaining(&limit(&mut reader, "file_handles", ""));
        let mut files = Vec::new();
        let errno = loop {
            match File::open("/dev/null") {
                Ok(file) => files.push(file),
                Err(error) => break error.raw_os_error(),
            }
        };
        assert_eq!(errno, Some(libc::ENFILE));
        assert!((files.len() as u64).abs_diff(said) < OTHERS, "{} of {said}", files.len());
        let full = limit(&mut reader, "file_handles", "");
        assert!(full.max.unwrap().abs_diff(full.used.unwrap()) < OTHERS, "{full:?}");
        files
    });
    File::open("/dev/null").expect("root is exempt");
    drop(opened);
}

fn number_of_files() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/file-nr").unwrap();
    text.split_ascii_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn memory_cgroups_are_counted() {
    let Some(host) = root_or_skip() else { return };
    let v1 = std::path::Path::new("/sys/fs/cgroup/memory");
    let root = if v1.is_dir() { v1 } else { std::path::Path::new("/sys/fs/cgroup") };
    let made = root.join(host.unique_name());
    let one = |n: u32| made.join(n.to_string());
    std::fs::create_dir(&made).unwrap();
    (0..200).for_each(|n| std::fs::create_dir(one(n)).unwrap());
    let limit = limit(&mut Cgroups::new(&roots()), "cgroups", "");
    (0..200).for_each(|n| std::fs::remove_dir(one(n)).unwrap());
    std::fs::remove_dir(&made).unwrap();
    // The root has an id too.
    assert!((202..65_535).contains(&limit.used.unwrap()), "{limit:?}");
    assert_eq!(limit.max, Some(65_535));
}
