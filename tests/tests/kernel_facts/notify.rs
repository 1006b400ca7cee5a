//! Facts 8: what inotify and fanotify tell of writes below `/proc/sys`.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use headroom_tests::{Mount, private_mounts, root_or_skip};
use nix::errno::Errno;
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags as InotifyFlags, Inotify};

use super::support::{
    add_link, delete_link, exists, fresh, full, kernel, number, on_thread, refusal, set, write,
};

const SOMAXCONN: &str = "net/core/somaxconn";

/// An inotify instance that watches one path for everything.
fn watch(path: &Path) -> Inotify {
    let instance = Inotify::init(InotifyFlags::IN_CLOEXEC | InotifyFlags::IN_NONBLOCK).unwrap();
    let everything = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF;
    instance.add_watch(path, everything).unwrap();
    instance
}

/// What happened since the last look. The kernel queues an event before the system call that
/// caused it returns, so nothing has to be waited for.
fn events(instance: &Inotify) -> AddWatchFlags {
    let mut all = AddWatchFlags::empty();
    loop {
        match instance.read_events() {
            Ok(events) => events.iter().for_each(|event| all |= event.mask),
            Err(Errno::EAGAIN) => return all,
            Err(errno) => panic!("inotify: {errno}"),
        }
    }
}

const WRITTEN: AddWatchFlags = AddWatchFlags::IN_MODIFY.union(AddWatchFlags::IN_CLOSE_WRITE);
const OPENED: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE;
const NOTHING: AddWatchFlags = AddWatchFlags::empty();

/// Facts 8: inotify sees writers on the same procfs mount, also when the value stays the same. A
/// write that the kernel refuses shows only as the closing of a file that was open for writing.
#[test]
fn inotify_sees_writes_also_of_the_same_value_and_closings() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        let watch = watch(&full(SOMAXCONN));
        set(SOMAXCONN, 1025);
        assert_eq!(events(&watch), WRITTEN);
        set(SOMAXCONN, 1025);
        assert_eq!(events(&watch), WRITTEN, "the same value");
        assert_eq!(refusal(SOMAXCONN, "-1"), Errno::EINVAL);
        assert_eq!(events(&watch), OPENED, "refused");
        assert_eq!(number(SOMAXCONN), 1025);
        assert_eq!(events(&watch), NOTHING, "reading");
        assert_eq!(write(SOMAXCONN, ""), Ok(0));
        assert_eq!(events(&watch), OPENED, "an empty write");
        // Ignored, and yet a success (kernel.sysctl_writes_strict).
        let file = OpenOptions::new().write(true).open(full(SOMAXCONN)).unwrap();
        std::os::unix::fs::FileExt::write_at(&file, b"7", 1).unwrap();
        assert!(events(&watch).contains(AddWatchFlags::IN_MODIFY), "what is ignored shows too");
    });
}

/// Facts 8: seen through a bind of the same procfs mount, not through another procfs mount, which
/// has inodes of its own; and the watch is for one network namespace's file.
#[test]
fn inotify_sees_the_same_procfs_mount_and_namespace_alone() {
    let Some(host) = root_or_skip() else { return };
    let (bound, mounted) = (host.directory(), host.directory());
    fresh(|| {
        let watch = watch(&full(SOMAXCONN));
        private_mounts(|| {
            let _bind = Mount::bind("/proc/sys", bound.path());
            let _proc = Mount::file_system("proc", mounted.path(), "");
            fs::write(bound.path().join(SOMAXCONN), "1026").unwrap();
            assert_eq!(events(&watch) & WRITTEN, WRITTEN, "bound");
            fs::write(mounted.path().join("sys").join(SOMAXCONN), "1027").unwrap();
            assert_eq!(number(SOMAXCONN), 1027);
            // Every mount is an instance of its own since 5.8.
            assert_eq!(events(&watch), NOTHING, "mounted anew");
        });
        fresh(|| set(SOMAXCONN, 1028));
        assert_eq!(events(&watch), NOTHING, "another namespace's, under the same name");
    });
}

/// Facts 8: what the kernel itself does goes unseen: `ip_forward` rewriting the interfaces' switches,
/// and interfaces that come and go.
#[test]
fn inotify_does_not_see_what_the_kernel_does() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        set("net/ipv4/ip_forward", 0);
        let forwarding = watch(&full("net/ipv4/conf/lo/forwarding"));
        let all = watch(&full("net/ipv4/conf/all/forwarding"));
        let directory = watch(&full("net/ipv4/conf"));
        set("net/ipv4/ip_forward", 1);
        assert_eq!(number("net/ipv4/conf/lo/forwarding"), 1);
        assert_eq!(events(&forwarding), NOTHING);
        assert_eq!(events(&all), NOTHING, "nor the same value under its other name");
        if add_link("b0") {
            assert!(exists("net/ipv4/conf/b0"));
            delete_link("b0");
        }
        assert_eq!(events(&directory), NOTHING);
    });
}

/// Facts 8: a watch whose file is made anew with its interface goes stale, and says nothing.
#[test]
fn inotify_watches_go_stale_silently() {
    let Some(_host) = root_or_skip() else { return };
    const TAG: &str = "net/ipv4/conf/b0/tag";
    fresh(|| {
        if !add_link("b0") {
            return;
        }
        let watch = watch(&full(TAG));
        set(TAG, 7);
        assert_eq!(events(&watch), WRITTEN);
        delete_link("b0");
        assert!(add_link("b0"));
        assert_eq!(events(&watch), NOTHING, "no word of the end");
        set(TAG, 8);
        assert_eq!(events(&watch), NOTHING);
    });
}

/// A fanotify group with one mark, or why there is none.
fn mark(flags: MarkFlags, path: &Path) -> Result<Fanotify, Errno> {
    let init = InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK;
    let group = Fanotify::init(init, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)?;
    let root = fs::File::open("/").unwrap();
    group.mark(flags | MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_MODIFY, root.as_fd(), Some(path))?;
    Ok(group)
}

/// The files that were written, and by whom.
fn writes(group: &Fanotify) -> BTreeSet<(PathBuf, i32)> {
    let mut found = BTreeSet::new();
    loop {
        match group.read_events() {
            Ok(events) => found.extend(events.iter().map(|event| {
                let fd = std::os::fd::AsRawFd::as_raw_fd(&event.fd().unwrap());
                (fs::read_link(format!("/proc/thread-self/fd/{fd}")).unwrap(), event.pid())
            })),
            Err(Errno::EAGAIN) => return found,
            Err(errno) => panic!("fanotify: {errno}"),
        }
    }
}

/// Facts 8: fanotify tells the writer's process, by a mark on the file, on the mount or on the file
/// system; of the kernel's own changes it tells nothing either.
#[test]
fn fanotify_names_the_writer() {
    let Some(host) = root_or_skip() else { return };
    let mounted = host.directory();
    let own = i32::try_from(std::process::id()).unwrap();
    fresh(|| {
        private_mounts(|| {
            // An instance that nobody else writes through.
            let _proc = Mount::file_system("proc", mounted.path(), "");
            let at = |key: &str| mounted.path().join("sys").join(key);
            let put = |key: &str, text: &str| {
                let mut file = OpenOptions::new().write(true).open(at(key)).unwrap();
                let _ = file.write(text.as_bytes());
            };
            put("net/ipv4/ip_forward", "0");
            for flags in
                [MarkFlags::empty(), MarkFlags::FAN_MARK_MOUNT, MarkFlags::FAN_MARK_FILESYSTEM]
            {
                let group = match mark(flags, &at(SOMAXCONN)) {
                    Err(Errno::ENOSYS) => {
                        assert!(!exists("fs/fanotify"), "there since 5.13, if at all");
                        return eprintln!("not tested: fanotify is not compiled in");
                    }
                    other => other.unwrap(),
                };
                put(SOMAXCONN, "1025");
                let seen = BTreeSet::from([(at(SOMAXCONN), own)]);
                assert_eq!(writes(&group), seen, "{flags:?}");
                put(SOMAXCONN, "1025");
                assert_eq!(writes(&group), seen, "the same value, {flags:?}");
                put(SOMAXCONN, "-1");
                assert_eq!(writes(&group), BTreeSet::new(), "refused, {flags:?}");
                set(SOMAXCONN, 1026);
                assert_eq!(writes(&group), BTreeSet::new(), "another procfs mount, {flags:?}");
                // One writer, many files: only what was written, not what the kernel changes.
                put("net/ipv4/ip_forward", "1");
                put("net/ipv4/ip_forward", "0");
                let forward = BTreeSet::from([(at("net/ipv4/ip_forward"), own)]);
                let expected = if flags.is_empty() { BTreeSet::new() } else { forward };
                assert_eq!(writes(&group), expected, "{flags:?}");
            }
        });
    });
}

/// Facts 8: another process is named by its own number, also when it is gone already.
#[test]
fn fanotify_names_a_writer_that_is_gone() {
    let Some(_host) = root_or_skip() else { return };
    fresh(|| {
        let group = match mark(MarkFlags::empty(), &full(SOMAXCONN)) {
            Err(Errno::ENOSYS) => {
                assert!(kernel() < (5, 13) || !exists("fs/fanotify"));
                return eprintln!("not tested: fanotify is not compiled in");
            }
            other => other.unwrap(),
        };
        let child = super::support::helper("notify::write_once", "").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        super::support::finish(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        assert_eq!(writes(&group), BTreeSet::from([(full(SOMAXCONN), pid)]));
    });
}

#[test]
#[ignore = "run by fanotify_names_a_writer_that_is_gone"]
fn write_once() {
    if super::support::helper_argument().is_some() {
        // On a thread, as programs may: the event names the process.
        on_thread(|| set(SOMAXCONN, 1030));
    }
}
