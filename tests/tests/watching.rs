//! Who writes a key, how that is noticed, and what comes of it: writers of every kind against each
//! kind of notification, and fights.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;

use headroom_tests::agent_process::{Agent, Finished, Home};
use headroom_tests::{Namespace, root_or_skip};
use nix::sys::signal::Signal;
use serde_json::Value;

const SOMAXCONN: &str = "net.core.somaxconn";
const FIN_TIMEOUT: &str = "net.ipv4.tcp_fin_timeout";
const LO_FORWARDING: &str = "net.ipv4.conf.lo.forwarding";
/// Without CAP_SYS_ADMIN there is no fanotify that names writers.
const WITHOUT_FANOTIFY: [&str; 3] = ["setpriv", "--bounding-set", "-sys_admin"];

/// A configuration under which the sweep comes once an hour, or every second.
fn document(sweep: &str, keys: &str) -> String {
    format!("hostNetns: current\nwatch: {{ sysctlSweep: {sweep} }}\nsysctls: {{ {keys} }}\n")
}

fn shell(netns: &Namespace, wrapper: &[&str], script: &str) {
    let mut words = wrapper.iter().copied().chain(["sh", "-c", script]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    let output = netns.run(|| command.output().unwrap());
    assert!(output.status.success(), "{command:?}: {output:?}");
}

fn last_write(agent: &Agent<'_>, key: &str) -> Value {
    agent.key(key)["lastWrite"]["who"].clone()
}

fn put_right(agent: &mut Agent<'_>, netns: &Namespace, what: &str) {
    agent.wait_until(what, |_| netns.read("net/core/somaxconn") == "10000");
    // The value is there before the agent has said so.
    agent.wait_until("said", |agent| agent.key(SOMAXCONN)["inSync"] == true);
}

#[test]
fn writers_that_notifications_show_are_put_right_at_once_and_named_where_they_can_be() {
    let Some(host) = root_or_skip() else { return };
    let write = |value: &str| format!("echo {value} > /proc/sys/net/core/somaxconn");
    // `exec` so that the shell itself is not the writer.
    let writers: [(&str, &[&str], String, &str); 5] = [
        ("a shell", &[], write("50"), "sh"),
        ("sysctl -w", &[], format!("exec sysctl -qw {SOMAXCONN}=51"), "sysctl"),
        ("one that ends at once", &[], format!("({}) & wait", write("52")), "sh"),
        ("another mount namespace", &["unshare", "-m"], write("53"), "sh"),
        ("another pid namespace", &["unshare", "-p", "-f"], write("54"), "sh"),
    ];
    for (kind, wrapper) in [("fanotify", &[][..]), ("inotify", &WITHOUT_FANOTIFY[..])] {
        let netns = Namespace::new(&host);
        let home = Home::inside(&netns);
        home.configure(&document("1h", &format!("{SOMAXCONN}: 10000, {FIN_TIMEOUT}: 90")));
        let mut agent = home.launch(home.wrapped(wrapper, ["run"]));
        agent.wait_until("ready", Agent::is_ready);
        let notifications = agent.status()["notifications"].clone();
        assert_eq!(notifications["by"], kind);
        assert_eq!(notifications["reason"].is_null(), kind == "fanotify", "{notifications}");
        let mut drifts = 0.0;
        for (writer, wrapper, script, name) in &writers {
            shell(&netns, wrapper, script);
            put_right(&mut agent, &netns, writer);
            drifts += 1.0;
            agent.wait_until(&format!("counted: {kind}: {writer}"), |agent| {
                agent.metrics().value("headroom_sysctl_drift_total", &[]) == Some(drifts)
            });
            let who = last_write(&agent, SOMAXCONN);
            match kind {
                // One that has ended may be gone, and then that is said.
                "fanotify" if who["kind"] == "gone" => assert!(who["pid"].as_i64().unwrap() > 0),
                "fanotify" => {
                    assert_eq!((&who["kind"], &who["name"]), (&"process".into(), &(*name).into()));
                    let command = who["command"].as_str().unwrap_or_default();
                    assert!(command.is_empty() || command.contains("somaxconn"), "{who}");
                }
                _ => assert_eq!(who["kind"], "unknown"),
            }
        }
        if kind == "fanotify" {
            let named = agent.log_with(&["drifted", SOMAXCONN, "by="]);
            assert_eq!(named.len(), writers.len(), "{named:#?}");
        } else {
            let said = home.run(["status"]).stdout;
            let (true_here, false_here) =
                ("only where the agent may use fanotify", "another mount");
            assert!(said.contains(true_here) && !said.contains(false_here), "{said}");
        }
        // The same value again is no drift, and no reason to write.
        shell(&netns, &[], &write("10000"));
        netns.write("net/ipv4/tcp_fin_timeout", "40");
        agent.wait_until("put right", |agent| {
            let scrape = agent.metrics();
            netns.read("net/ipv4/tcp_fin_timeout") == "90"
                && scrape.value("headroom_sysctl_drift_total", &[]) == Some(drifts + 1.0)
        });
        let written = agent.metrics().value("headroom_sysctl_writes_total", &[("result", "ok")]);
        assert_eq!(written, Some(drifts + 3.0), "the first pass, and each drift once");
    }
}

#[test]
fn what_no_notification_shows_is_caught_by_the_sweep() {
    let Some(host) = root_or_skip() else { return };
    let unseen: [(&str, &[&str], String, &str, &str); 2] = [
        (
            // As a container does, such as kube-proxy.
            "another procfs mount",
            &["unshare", "-p", "-f", "--mount-proc"],
            "echo 50 > /proc/sys/net/ipv4/tcp_fin_timeout".to_owned(),
            FIN_TIMEOUT,
            "50",
        ),
        (
            "the kernel itself",
            &[],
            "echo 1 > /proc/sys/net/ipv4/ip_forward".to_owned(),
            LO_FORWARDING,
            "1",
        ),
    ];
    for (kind, wrapper) in [("fanotify", &[][..]), ("inotify", &WITHOUT_FANOTIFY[..])] {
        let netns = Namespace::new(&host);
        netns.write("net/ipv4/ip_forward", "0");
        let home = Home::inside(&netns);
        let keys = format!("{SOMAXCONN}: 10000, {FIN_TIMEOUT}: 90, {LO_FORWARDING}: 0");
        home.configure(&document("1h", &keys));
        let mut agent = home.launch(home.wrapped(wrapper, ["run"]));
        agent.wait_until("ready", Agent::is_ready);
        assert_eq!(agent.status()["notifications"]["by"], kind);
        for (_, wrapper, script, ..) in &unseen {
            shell(&netns, wrapper, script);
        }
        // A write that is seen comes after them, so they were not.
        netns.write("net/core/somaxconn", "50");
        put_right(&mut agent, &netns, "put right");
        for (writer, _, _, key, value) in &unseen {
            let path = headroom_tests::key(key).path();
            assert_eq!(netns.read(path.to_str().unwrap()), *value, "{kind}: {writer}");
        }
        drop(agent);

        let netns = Namespace::new(&host);
        netns.write("net/ipv4/ip_forward", "0");
        let home = Home::inside(&netns);
        home.configure(&document("1s", &keys));
        let mut agent = home.launch(home.wrapped(wrapper, ["run"]));
        agent.wait_until("ready", Agent::is_ready);
        for (writer, wrapper, script, key, _) in &unseen {
            shell(&netns, wrapper, script);
            agent.wait_until(writer, |agent| {
                let now = agent.key(key);
                now["inSync"] == true && now["lastWrite"]["who"]["kind"] == "unknown"
            });
        }
    }
}

#[test]
fn fault_41_a_fight_is_told_with_both_values_the_writer_and_who_usually_writes_it() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    let keys = "net.ipv4.ip_forward: 1, net.core.somaxconn: 10000";
    home.configure(&document("1s", keys));
    let mut agent = home.start();
    let fight =
        "for n in 1 2 3 4 5 6 7 8; do echo 0 > /proc/sys/net/ipv4/ip_forward; sleep 0.2; done";
    shell(&netns, &[], fight);
    agent.wait_until("contested", |agent| agent.key("net.ipv4.ip_forward")["state"] == "contested");
    let key = agent.key("net.ipv4.ip_forward");
    let detail = key["detail"].as_str().unwrap();
    for part in ["now 0", "wanted 1", "last written by sh (pid", "often written by", "Docker"] {
        assert!(detail.contains(part), "{part}: {detail}");
    }
    assert_eq!(key["required"], true);
    assert!(!agent.is_ready(), "a required key that is contested");
    let status = home.run(["status"]);
    assert_eq!(status.code, Some(4));
    for part in ["contested", "WRITTEN BY OTHERS", "sh (pid"] {
        assert!(status.stdout.contains(part), "{part}: {}", status.stdout);
    }
    // Other keys are kept meanwhile.
    netns.write("net/core/somaxconn", "50");
    put_right(&mut agent, &netns, "put right");
}

#[test]
fn yield_takes_anothers_value_and_report_never_writes_and_both_name_the_writer() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&document(
        "1h",
        &format!(
            "{SOMAXCONN}: {{ value: 10000, onConflict: yield }}, \
             {FIN_TIMEOUT}: {{ value: 90, onConflict: report }}"
        ),
    ));
    let mut agent = home.start();
    netns.write("net/ipv4/tcp_fin_timeout", "40");
    shell(&netns, &[], &format!("exec sysctl -qw {SOMAXCONN}=50"));
    agent.wait_until("yielded", |agent| agent.key(SOMAXCONN)["state"] == "yielded");
    assert_eq!(netns.read("net/core/somaxconn"), "50");
    assert_eq!(netns.read("net/ipv4/tcp_fin_timeout"), "40");
    let detail = agent.key(SOMAXCONN)["detail"].to_string();
    assert!(detail.contains("last written by"), "{detail}");
    let reported = agent.key(FIN_TIMEOUT);
    assert_eq!((&reported["state"], &reported["inSync"]), (&"observed".into(), &false.into()));
    assert_eq!(reported["lastWrite"]["who"]["kind"], "process", "{reported}");
    assert!(agent.is_ready());
    // A new configuration that asks the same does not take it back either.
    agent.signal(Signal::SIGHUP);
    agent.wait_until("loaded", |agent| !agent.log_with(&["configuration"]).is_empty());
    netns.write("net/core/somaxconn", "60");
    agent.wait_until("seen", |agent| agent.key(SOMAXCONN)["actual"] == "60");
    assert_eq!(agent.key(SOMAXCONN)["state"], "yielded");
}

/// A hostile process' name and command line reach no line, label or terminal unescaped.
#[test]
fn fault_13_a_hostile_writer_is_named_on_one_printable_line() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&document("1h", &format!("{SOMAXCONN}: 10000")));
    let mut agent = home.start();
    let script = "printf '\\033[31m\\nx\"\\\\' > /proc/$$/comm; \
                  echo 50 > /proc/sys/net/core/somaxconn; sleep 0.2 # \u{1b}[2J\n#\u{202e}";
    shell(&netns, &[], script);
    put_right(&mut agent, &netns, "put right");
    let lines = agent.log_with(&["drifted"]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    // A quoted field doubles the backslashes of what is escaped already.
    assert!(lines[0].contains("\\\\x1b[31m\\\\x0ax"), "{lines:?}");
    let status = home.run(["status"]);
    assert!(status.stdout.contains("\\x1b[31m"), "{}", status.stdout);
    for text in [&lines[0], &status.stdout] {
        let bad = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(bad), "{text:?}");
    }
    assert!(!agent.ask("/metrics").body.contains("x1b"), "never in a label");
}

/// A cgroup of the test's own, removed when it is dropped; with the way to it.
struct Cgroup(Vec<PathBuf>);

impl Cgroup {
    fn new(path: &str) -> Self {
        let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let root = Path::new(if v2 { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" });
        let mut made = Self(Vec::new());
        let mut directory = root.to_owned();
        for part in Path::new(path) {
            directory.push(part);
            if !directory.exists() {
                std::fs::create_dir(&directory).unwrap();
                made.0.push(directory.clone());
            }
        }
        assert!(!made.0.is_empty(), "{path} is there already");
        made
    }

    fn procs(&self) -> String {
        self.0.last().unwrap().join("cgroup.procs").display().to_string()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for directory in self.0.iter().rev() {
            // A process that has just ended may still be counted.
            for _ in 0..100 {
                if std::fs::remove_dir(directory).is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn a_writer_is_named_with_its_systemd_unit_or_its_pod_and_container() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&document("1h", &format!("{SOMAXCONN}: 10000")));
    let mut agent = home.start();
    let uid = "0f0e0d0c-1111-2222-3333-444455556666";
    let container = "0123456789abcdef".repeat(4);
    let pod = Cgroup::new(&format!("hrtest-kubepods/burstable/pod{uid}/{container}"));
    let unit = Cgroup::new("hrtest.slice/hrtest-writer.service");
    let write = |cgroup: &Cgroup, value: u32| {
        // What follows the write keeps the writer alive until it has been looked at.
        let script = format!(
            "echo $$ > {}; echo {value} > /proc/sys/net/core/somaxconn; sleep 0.2",
            cgroup.procs()
        );
        shell(&netns, &[], &script);
    };
    write(&pod, 50);
    put_right(&mut agent, &netns, "put right");
    let who = last_write(&agent, SOMAXCONN);
    assert_eq!((&who["pod"]["uid"], &who["pod"]["container"]), (&uid.into(), &container.into()));
    let line = agent.log_with(&["drifted", &format!("pod {uid}"), "container 0123456789ab"]);
    assert_eq!(line.len(), 1, "{:?}", agent.log());
    write(&unit, 51);
    put_right(&mut agent, &netns, "put right");
    assert_eq!(last_write(&agent, SOMAXCONN)["unit"], "hrtest-writer.service");
    let explained = home.run(["explain", SOMAXCONN]);
    assert!(explained.stdout.contains("unit hrtest-writer.service"), "{}", explained.stdout);
    let explained = home.run(["explain", SOMAXCONN, "-o", "json"]).json();
    assert_eq!(explained["lastWrite"]["who"]["unit"], "hrtest-writer.service");
    assert_eq!(explained["measured"]["found"], "own");
}

/// The ledger is one namespace's: in another the same keys are others.
#[test]
fn restore_in_another_network_namespace_touches_neither_it_nor_the_ledger() {
    let Some(host) = root_or_skip() else { return };
    let (netns, other) = (Namespace::new(&host), Namespace::new(&host));
    let home = Home::inside(&netns);
    home.configure(&document("1h", &format!("{SOMAXCONN}: 10000")));
    drop(home.start());
    other.write("net/core/somaxconn", "10000");
    let ledger = std::fs::read(home.state().join("ledger.json")).unwrap();
    let mut command = home.command(["restore"]);
    let elsewhere = other.run(|| Finished::of(&mut command, b""));
    assert_eq!(elsewhere.code, Some(1), "{elsewhere:?}");
    assert!(elsewhere.stderr.contains("of another network namespace"), "{elsewhere:?}");
    assert_eq!(other.read("net/core/somaxconn"), "10000");
    assert_eq!(std::fs::read(home.state().join("ledger.json")).unwrap(), ledger);
    let back = home.run(["restore"]);
    assert_eq!((back.code, netns.read("net/core/somaxconn").as_str()), (Some(0), "4096"));

    // An agent is started where the node is: a node that is a container begins anew.
    drop(home.start());
    let mut command = home.command(["apply"]);
    let applied = other.run(|| Finished::of(&mut command, b""));
    assert!(applied.stderr.contains("of another network namespace"), "{applied:?}");
}

/// What a real interface's key is, and nothing about a key that is not there.
#[test]
fn explain_measures_what_holds_of_every_interface() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "add", "b0", "type", "bridge"]);
    let home = Home::inside(&netns);
    home.configure(&document("1h", ""));
    let measured = |key: &str| home.run(["explain", key, "-o", "json"]).json()["measured"].clone();
    assert_eq!(measured("net.ipv4.conf.b0.rp_filter")["found"], "own");
    assert_eq!(measured("net.ipv4.conf.*.rp_filter")["found"], "own");
    assert!(measured("net.core.somaxcon").is_null());
}
