//! Other writers, while the engine is busy with something else.

use headroom::kernel::touch::{Kind, Watcher};

use super::*;

/// Another process writes, and is noticed.
fn written_by_a_shell(netns: &Namespace, rig: &mut Rig, watcher: &mut Watcher, value: &str) {
    let script = format!("echo {value} > /proc/sys/{}", file(SOMAXCONN));
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]);
    assert!(netns.run(|| shell.status().unwrap()).success());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let touches = runtime.block_on(watcher.next());
    rig.touched(watcher, &touches);
}

/// A contested key is not watched, so what the other writer does next is found by the sweep.
#[test]
fn the_writer_of_a_contested_key_stays_known() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let (mut watcher, kind) = Watcher::new(None);
    assert_eq!(kind, Kind::Fanotify);
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000")]);
    rig.sweep(&mut watcher);
    for value in ["51", "52", "53", "54", "55", "56"] {
        written_by_a_shell(&netns, &mut rig, &mut watcher, value);
    }
    let named = |rig: &Rig| {
        let status = rig.status(SOMAXCONN);
        assert_eq!(status.state, State::Contested);
        let detail = status.detail.unwrap();
        detail.contains("last written by sh (pid") || detail.contains("ended before it could be")
    };
    assert!(named(&rig), "{}", rig.detail(SOMAXCONN));
    rig.wait(61);
    rig.sweep(&mut watcher);
    assert_eq!(netns.read(&file(SOMAXCONN)), "10000", "tried again after the pause");
    netns.write(&file(SOMAXCONN), "57");
    rig.wait(10);
    rig.sweep(&mut watcher);
    assert_eq!(netns.read(&file(SOMAXCONN)), "57");
    assert!(named(&rig), "{}", rig.detail(SOMAXCONN));
}

/// A reload, and a start, look at all keys before the first pass of the new configuration.
#[test]
fn what_another_wrote_before_a_reload_is_still_its_doing() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let policies = || [with_conflict(value(SOMAXCONN, "10000"), Yield), value(FIN_TIMEOUT, "90")];
    let mut rig = Rig::at(&netns, state.path());
    rig.want(policies());
    rig.pass();
    for restart in [false, true] {
        netns.write(&file(SOMAXCONN), "50");
        netns.write(&file(FIN_TIMEOUT), "40");
        if restart {
            rig = Rig::at(&netns, state.path());
        }
        let before = rig.counters().drift;
        rig.want(policies());
        assert_eq!(rig.restore_unconfigured().len(), 0);
        rig.pass();
        assert_eq!(netns.read(&file(SOMAXCONN)), "50", "restart: {restart}");
        assert_eq!(rig.state(SOMAXCONN), State::Yielded);
        assert_eq!(netns.read(&file(FIN_TIMEOUT)), "90");
        assert_eq!(rig.counters().drift, before + 2, "restart: {restart}");
        netns.write(&file(SOMAXCONN), "10000");
        rig.wait(120);
        rig.pass();
    }
}

/// A write that changes others leads to a look at all keys, also where one key was written alone.
#[test]
fn what_another_wrote_before_a_write_that_changes_others_is_still_its_doing() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let (mut watcher, _) = Watcher::new(None);
    let mut rig = Rig::at(&netns, state.path());
    let yields = with_conflict(value(FIN_TIMEOUT, "90"), Yield);
    rig.want([yields, value("net.ipv4.conf.default.tag", "7"), value(SOMAXCONN, "10000")]);
    rig.sweep(&mut watcher);
    // By a writer that no notification shows, such as this process.
    netns.write(&file(FIN_TIMEOUT), "40");
    netns.write(&file("net.ipv4.conf.default.tag"), "0");
    netns.ip(["link", "add", "b0", "type", "bridge"]);
    rig.appeared();
    assert_eq!(netns.read(&file("net.ipv4.conf.default.tag")), "7");
    assert_eq!(netns.read(&file(FIN_TIMEOUT)), "40");
    assert_eq!(rig.state(FIN_TIMEOUT), State::Yielded);
}

/// Nobody fights where nothing is written.
#[test]
fn a_fight_is_over_when_nothing_is_written_any_more() {
    let Some(host) = root_or_skip() else { return };
    let (netns, state) = (Namespace::new(&host), host.directory());
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000")]);
    rig.pass();
    for _ in 0..6 {
        netns.write(&file(SOMAXCONN), "50");
        rig.pass();
    }
    assert_eq!(rig.state(SOMAXCONN), State::Contested);
    rig.engine.set_observe(true);
    rig.pass();
    assert_eq!(rig.state(SOMAXCONN), State::Observed);
}

/// Keeping the record takes a while, in which a runtime may set what a pod asks for.
#[test]
fn a_value_that_is_not_the_expected_one_by_the_time_of_the_write_is_left_alone() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let state = host.directory();
    let mut rig = Rig::at(&netns, state.path());
    rig.want([value(SOMAXCONN, "10000"), value(FIN_TIMEOUT, "20")]);
    rig.engine.preview(Instant::now()).unwrap();
    let expected = [(key(SOMAXCONN), Some("4096".into())), (key(FIN_TIMEOUT), Some("60".into()))];
    rig.engine.expect(expected.into());
    netns.write(&file(SOMAXCONN), "777");
    rig.pass();
    assert_eq!(netns.read(&file(SOMAXCONN)), "777");
    assert_eq!(netns.read(&file(FIN_TIMEOUT)), "20");
    assert!(rig.engine.was_overtaken());
    assert!(rig.engine.ledger().get(&key(SOMAXCONN)).is_none(), "it never was ours");
    // Once written, only what was written may be overwritten.
    netns.write(&file(FIN_TIMEOUT), "33");
    rig.pass();
    assert_eq!(netns.read(&file(FIN_TIMEOUT)), "33");
}
