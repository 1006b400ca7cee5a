#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

const UID: &str = "0f1c2d3e-4a5b-4c6d-8e7f-90a1b2c3d4e5";
const STATIC: &str = "5f7a9d2c4b8e1f3a6c0d9b8e7f6a5d4c";
const ID: &str = "3f2504e04f8911d39a0c0305e82c33013f2504e04f8911d39a0c0305e82c3301";

fn filled(text: &str) -> String {
    text.replace("UNDERSCORED", &UID.replace('-', "_"))
        .replace("UID", UID)
        .replace("STATIC", STATIC)
        .replace("ID", ID)
}

#[test]
fn pods_are_known_by_every_drivers_path() {
    for (path, uid, container) in [
        // containerd, systemd driver
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podUNDERSCORED.slice/cri-containerd-ID.scope",
            UID,
            Some(ID),
        ),
        ("/kubepods.slice/kubepods-podUNDERSCORED.slice/cri-containerd-ID.scope", UID, Some(ID)),
        // a static pod
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSTATIC.slice/cri-containerd-ID.scope",
            STATIC,
            Some(ID),
        ),
        // CRI-O, with the container's own cgroups below
        (
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podUNDERSCORED.slice/crio-ID.scope/container",
            UID,
            Some(ID),
        ),
        ("/kubepods.slice/kubepods-podUNDERSCORED.slice/crio-conmon-ID.scope", UID, Some(ID)),
        // cri-dockerd
        ("/kubepods.slice/kubepods-podUNDERSCORED.slice/docker-ID.scope", UID, Some(ID)),
        // cgroupfs driver
        ("/kubepods/burstable/podUID/ID", UID, Some(ID)),
        ("/kubepods/podUID/ID", UID, Some(ID)),
        ("/kubepods/besteffort/podUID/crio-ID", UID, Some(ID)),
        ("/kubepods/besteffort/podUID", UID, None),
        // the pod's own
        ("/kubepods.slice/kubepods-podUNDERSCORED.slice", UID, None),
        // a kind node, from its host
        (
            "/system.slice/docker-ID.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUNDERSCORED.slice/cri-containerd-ID.scope",
            UID,
            Some(ID),
        ),
        // k3s as a service with the cgroupfs driver
        ("/system.slice/k3s.service/kubepods/burstable/podUID/ID", UID, Some(ID)),
        // kubelet with the systemd driver, containerd without
        (
            "/system.slice/containerd.service/kubepods-burstable-podUNDERSCORED.slice:cri-containerd:ID",
            UID,
            Some(ID),
        ),
        // from another pod's cgroup namespace
        ("/../../kubepods-besteffort-podUNDERSCORED.slice/cri-containerd-ID.scope", UID, Some(ID)),
        ("/../../podUID/ID", UID, Some(ID)),
        ("/kubepods/burstable/podUID/ID (deleted)", UID, Some(ID)),
    ] {
        let path = filled(path);
        let found = place(path.as_bytes());
        let pod = found.pod.unwrap_or_else(|| unreachable!("{path}"));
        assert_eq!((pod.uid.as_str(), pod.container.as_deref()), (uid, container), "{path}");
        assert_eq!(found.unit, None, "{path}");
    }
}

#[test]
fn units_are_found_as_systemd_finds_them() {
    for (path, unit) in [
        ("/system.slice/cron.service", Some("cron.service")),
        ("/system.slice/system-getty.slice/getty@tty1.service", Some("getty@tty1.service")),
        ("/system.slice/systemd-udevd.service/udev", Some("systemd-udevd.service")),
        ("/init.scope", Some("init.scope")),
        ("/user.slice/user-1000.slice/session-3.scope", Some("session-3.scope")),
        (
            "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service",
            Some("user@1000.service"),
        ),
        ("/../../../system.slice/cron.service", Some("cron.service")),
        ("/system.slice/_cgroup.service", Some("cgroup.service")),
        ("/system.slice/a\u{1b}[1m.service", Some("a\\x1b[1m.service")),
        ("/system.slice/docker-ID.scope", Some("docker-ID.scope")),
        ("/machine.slice/libpod-ID.scope/container", Some("libpod-ID.scope")),
        ("/kubelet.slice/kubelet.service", Some("kubelet.service")),
        ("/docker/ID", None),
        ("/docker/ID/system.slice/cron.service", None),
        ("/system.slice", None),
        ("/system.slice/.service", None),
        ("/kubepods.slice/kubepods-podnothing.slice/x", None),
        ("/", None),
        ("", None),
        ("/..", None),
    ] {
        let found = place(filled(path).as_bytes());
        assert_eq!(found.unit, unit.map(filled), "{path}");
        assert_eq!(found.pod, None, "{path}");
    }
}

#[test]
fn the_line_that_says_most_is_taken() {
    let shown = |text: &str| {
        let found = parse(filled(text).as_bytes()).unwrap();
        (found.path, found.unit.is_some(), found.pod.is_some())
    };
    // v2
    assert_eq!(
        shown("0::/system.slice/cron.service\n"),
        ("/system.slice/cron.service".into(), true, false)
    );
    // v1 with systemd
    assert_eq!(
        shown(
            "3:cpuset:/\n2:cpu,cpuacct:/system.slice\n1:name=systemd:/system.slice/ssh.service\n"
        ),
        ("/system.slice/ssh.service".into(), true, false)
    );
    // hybrid, with and without a unit
    assert_eq!(
        shown(
            "2:pids:/user.slice\n1:name=systemd:/user.slice/user-0.slice/session-1.scope\n0::/\n"
        )
        .0,
        "/user.slice/user-0.slice/session-1.scope"
    );
    assert_eq!(
        shown("9:pids:/kubepods/podUID/ID\n1:name=systemd:/system.slice/x.service\n0::/\n").0,
        filled("/kubepods/podUID/ID")
    );
    assert_eq!(shown("9:pids:/\n0::/\n"), ("/".into(), false, false));
    assert_eq!(shown("4:cpu:/a:b\n").0, "/a:b");
    assert_eq!(parse(b""), None);
    assert_eq!(parse(b"nonsense"), None);
}

#[test]
fn a_long_path_is_cut() {
    let found = place("/x".repeat(600).as_bytes());
    assert_eq!(found.path.len(), LONGEST + 3);
    assert!(found.path.ends_with("..."));
}

proptest! {
    #[test]
    fn what_is_found_is_in_the_path(path in "(/(\\.\\.|[a-z.-]{0,9}|pod[0-9a-f_-]{30,40}(\\.slice)?|[0-9a-f]{10,70}(\\.scope|\\.service)?)){0,6}") {
        let found = place(path.as_bytes());
        if let Some(Pod { uid, container }) = &found.pod {
            prop_assert!(path.contains(uid) || path.contains(&uid.replace('-', "_")));
            prop_assert!(container.as_ref().is_none_or(|id| path.contains(id)));
            prop_assert!(found.unit.is_none());
        }
        prop_assert!(found.unit.is_none_or(|unit| path.contains(&unit)));
    }

    #[test]
    fn nothing_unprintable_comes_out(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        for cgroup in parse(&bytes).into_iter().chain([place(&bytes)]) {
            let texts = [Some(cgroup.path), cgroup.unit];
            prop_assert!(texts.iter().flatten().all(|text| text.bytes().all(|b| matches!(b, b' '..=b'~'))));
        }
    }
}
