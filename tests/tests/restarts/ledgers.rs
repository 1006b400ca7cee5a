//! Ledgers that cannot be used as they are, and what an agent that was killed leaves behind.

use std::fs;

use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{HostLock, Mount, Namespace, private_mounts, root_or_skip};

const SOMAXCONN: &str = "net/core/somaxconn";

fn home<'a>(netns: &'a Namespace) -> Home<'a> {
    let home = Home::inside(netns);
    home.configure("hostNetns: current\nsysctls: { net.core.somaxconn: 10000 }\n");
    fs::create_dir(home.state()).unwrap();
    home
}

fn node(host: &HostLock) -> Namespace {
    Namespace::new(host)
}

/// What it may have had to put back is not known, so it has not done its work.
#[test]
fn fault_40_restore_fails_where_the_ledger_makes_no_sense() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    for (content, said, kept) in [
        ("{\"version\": 1, \"bootId\"", "made no sense", "ledger.unreadable"),
        ("{\"version\": 7, \"what\": []}", "later version", "ledger.json"),
    ] {
        let home = home(&netns);
        fs::write(home.state().join("ledger.json"), content).unwrap();
        let done = home.run(["restore"]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(said), "{done:?}");
        assert_eq!(fs::read_to_string(home.state().join(kept)).unwrap(), content);
        // Tuning goes on, and says it too.
        fs::write(home.state().join("ledger.json"), content).unwrap();
        let done = home.run(["apply"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(done.stderr.contains(said), "{done:?}");
        assert_eq!(netns.read(SOMAXCONN), "10000");
        netns.write(SOMAXCONN, "4096");
    }
}

/// The values that it knew died with that boot, and so did what the agent had written.
#[test]
fn a_ledger_of_another_boot_is_forgotten() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    netns.write(SOMAXCONN, "5000");
    let home = home(&netns);
    let ledger = serde_json::json!({
        "version": 1,
        "bootId": "00000000-0000-0000-0000-000000000000",
        "keys": { "net.core.somaxconn":
            { "original": "4096", "intended": "5000", "stored": "5000" } },
    });
    fs::write(home.state().join("ledger.json"), ledger.to_string()).unwrap();
    let done = home.run(["restore"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("nothing on record"), "{done:?}");
    assert_eq!(home.run(["apply"]).code, Some(0));
    assert_eq!(netns.read(SOMAXCONN), "10000");
    assert_eq!(home.run(["restore"]).code, Some(0));
    assert_eq!(netns.read(SOMAXCONN), "5000");
}

#[test]
fn fault_40_without_room_or_right_for_the_ledger_commands_do_their_work_and_say_so() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    private_mounts(|| {
        let home = home(&netns);
        let mount = Mount::file_system("tmpfs", home.state(), "size=16k");
        assert_eq!(home.run(["apply"]).code, Some(0));
        let filler = home.state().join("filler");
        fs::write(&filler, [0; 4096]).unwrap();
        let _ = fs::write(home.state().join("filler2"), [0; 16384]);

        let done = home.run(["restore"]);
        assert_eq!(netns.read(SOMAXCONN), "4096", "{done:?}");
        assert_eq!(done.code, Some(1), "it is still on record: {done:?}");
        assert!(done.stderr.contains("ENOSPC"), "{done:?}");
        assert_eq!(home.run(["apply"]).code, Some(0), "its original is on record already");
        assert_eq!(netns.read(SOMAXCONN), "10000");

        fs::remove_file(home.state().join("filler2")).unwrap();
        mount.set_read_only(true);
        let done = home.run(["restore"]);
        assert_eq!(netns.read(SOMAXCONN), "4096", "{done:?}");
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains("EROFS"), "{done:?}");
        let done = home.run(["apply"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(netns.read(SOMAXCONN), "10000", "{done:?}");

        mount.set_read_only(false);
        let done = home.run(["restore"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(netns.read(SOMAXCONN), "4096");
        assert!(home.run(["restore"]).stdout.contains("nothing on record"));
    });
}

/// The lock goes with the process, and nobody answers at the socket that it left.
#[test]
fn fault_39_after_kill_9_the_next_agent_starts_at_once() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = home(&netns);
    for round in 0..3 {
        let mut agent = home.start();
        assert!(agent.is_ready(), "round {round}: it answers at its socket");
        assert_eq!(agent.log_with(&["drifted"]), Vec::<String>::new());
        let refused = home.run(["run"]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        let first = format!("locked by headroom run (pid {} on ", agent.pid());
        assert!(refused.stderr.contains(&first), "{refused:?}");
        assert!(agent.is_ready(), "round {round}: the second one has taken nothing from it");
        agent.kill9();
        assert!(home.socket().exists(), "it had no time to remove it");
        assert!(!Agent::is_ready(&agent));
    }
    assert_eq!(home.run(["restore"]).code, Some(0));
    assert_eq!(netns.read(SOMAXCONN), "4096");
}
