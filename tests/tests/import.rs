//! `headroom import`, and what `explain` and `status` say of the host's files: the real binary over
//! roots that the tests build.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use headroom_tests::agent_process::{Agent, Finished, Home, binary};
use headroom_tests::{Namespace, root_or_skip};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

/// A host's files.
struct Host(tempfile::TempDir);

impl Host {
    fn new(files: &[(&str, &str)]) -> Self {
        let host = Self(tempfile::Builder::new().prefix("headroom-test-").tempdir().unwrap());
        for (path, text) in files {
            host.write(path, text);
        }
        host
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn root(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    fn import(&self, args: &[&str]) -> Finished {
        import(&[&["--root", self.root()], args].concat())
    }
}

fn import(args: &[&str]) -> Finished {
    Finished::of(Command::new(binary()).arg("import").args(args), b"")
}

/// The lines below `sysctls:`, without what is around them.
fn policies(done: &Finished) -> Vec<&str> {
    let lines = done.stdout.lines().skip_while(|line| !line.starts_with("sysctls:"));
    lines.skip(1).map(str::trim).collect()
}

fn is_accepted(done: &Finished) {
    let check = Finished::of(Command::new(binary()).args(["check", "-"]), done.stdout.as_bytes());
    assert_eq!(check.code, Some(0), "{}\n{}", check.stdout, done.stdout);
}

#[test]
fn a_host_becomes_a_configuration() {
    let host = Host::new(&[
        (
            "usr/lib/sysctl.d/50-default.conf",
            "# vendor\nnet.core.somaxconn = 4096\nvm.swappiness=1",
        ),
        ("usr/lib/sysctl.d/60-masked.conf", "net.core.netdev_max_backlog = 1\n"),
        ("usr/lib/sysctl.d/70-null.conf", "net.core.optmem_max = 1\n"),
        ("usr/local/lib/sysctl.d/80-local.conf", "net/ipv4/tcp_rmem = 4096\t131072\t 6291456\r\n"),
        ("run/sysctl.d/65-run.conf", "-net.netfilter.nf_conntrack_max = 0x100000\r\n"),
        ("etc/sysctl.d/60-masked.conf", ""),
        (
            "etc/sysctl.d/90-own.conf",
            "; mine\n\n  net.core.somaxconn=  10000  \nkernel.core_pattern = |/x y",
        ),
        ("etc/sysctl.d/README", "not.read = 1\n"),
        ("etc/sysctl.conf", "net.core.somaxconn = 7\nvm.max_map_count = 262144\n"),
    ]);
    symlink("/dev/null", host.path("etc/sysctl.d/70-null.conf")).unwrap();
    symlink("../sysctl.conf", host.path("etc/sysctl.d/99-sysctl.conf")).unwrap();
    symlink("usr/lib", host.path("lib")).unwrap();
    let done = host.import(&[]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{done:?}");
    assert_eq!(
        policies(&done),
        [
            "# left out: this key can run code, open the host or stop it: if it is wanted all the same, name it under allowDangerous",
            "# kernel.core_pattern: \"|/x y\" # /etc/sysctl.d/90-own.conf:4",
            "# before it /usr/lib/sysctl.d/50-default.conf:2 sets 4096",
            "# before it /etc/sysctl.d/90-own.conf:3 sets 10000",
            "net.core.somaxconn: \"7\" # /etc/sysctl.d/99-sysctl.conf:1",
            "net.ipv4.tcp_rmem: \"4096 131072 6291456\" # /usr/local/lib/sysctl.d/80-local.conf:1",
            "# written as 0x100000",
            "net.netfilter.nf_conntrack_max: { value: \"1048576\", required: false } # /run/sysctl.d/65-run.conf:1",
            "vm.max_map_count: \"262144\" # /etc/sysctl.d/99-sysctl.conf:2",
            "vm.swappiness: \"1\" # /usr/lib/sysctl.d/50-default.conf:3",
        ],
        "{}",
        done.stdout
    );
    for part in [
        "/etc/sysctl.d/99-sysctl.conf -> ../sysctl.conf\n",
        "/usr/lib/sysctl.d/60-masked.conf (not read: /etc/sysctl.d/60-masked.conf masks it)\n",
        "/etc/sysctl.conf (read by `sysctl --system` only)\n",
    ] {
        assert!(done.stdout.contains(part), "{part}: {}", done.stdout);
    }
    is_accepted(&done);
    assert_eq!(done.stdout, host.import(&[]).stdout, "the same twice");
}

#[test]
fn patterns_and_exclusions_keep_their_meaning() {
    let host = Host::new(&[(
        "etc/sysctl.d/a.conf",
        "net.ipv4.conf.*.rp_filter = 2\n-net.ipv4.conf.eth0/1.rp_filter\nnet.ipv4.conf.all.rp_filter = 1\n\
         vm.dirty_[br]*o = 5\nnet.core.[sw]* = 1\n",
    )]);
    for path in ["vm/dirty_ratio", "vm/dirty_background_ratio", "net/core/wmem_max"] {
        host.write(&format!("proc/sys/{path}"), "0");
    }
    let done = host.import(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(
        policies(&done),
        [
            "net.ipv4.conf.*.rp_filter: \"2\" # /etc/sysctl.d/a.conf:1",
            "# matches net.core.[sw]* now; what appears later is not set",
            "net.core.wmem_max: \"1\" # /etc/sysctl.d/a.conf:5",
            "net.ipv4.conf.all.rp_filter: \"1\" # /etc/sysctl.d/a.conf:3",
            "# excluded from net.ipv4.conf.*.rp_filter: looked at, never written",
            "net.ipv4.conf.eth0/1.rp_filter: { value: \"2\", onConflict: report, required: false } # /etc/sysctl.d/a.conf:2",
            "# matches vm.dirty_[br]*o now; what appears later is not set",
            "vm.dirty_background_ratio: \"5\" # /etc/sysctl.d/a.conf:4",
            "# matches vm.dirty_[br]*o now; what appears later is not set",
            "vm.dirty_ratio: \"5\" # /etc/sysctl.d/a.conf:4",
        ],
        "{}",
        done.stdout
    );
    is_accepted(&done);
}

#[test]
fn what_is_wrong_is_told_by_file_and_line() {
    let host = Host::new(&[(
        "etc/sysctl.d/a.conf",
        "net..core.somaxconn = 1\nnonsense\x1b[31m\n= 7\nvm.swappiness = 5\n",
    )]);
    let done = host.import(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let lines: Vec<&str> = done.stderr.lines().collect();
    let [respelled, nonsense, nothing] = lines[..] else { panic!("{done:?}") };
    assert!(respelled.starts_with(
        "/etc/sysctl.d/a.conf:1: `net..core.somaxconn` is read as net.core.somaxconn"
    ));
    assert!(nonsense.starts_with("/etc/sysctl.d/a.conf:2: `nonsense\\x1b[31m` is no assignment"));
    assert!(nothing.starts_with("/etc/sysctl.d/a.conf:3: there is no key"));
    assert_eq!(policies(&done).len(), 2, "{done:?}");
    is_accepted(&done);
}

/// Nothing hangs, nothing leads out, and what was not read is said.
#[test]
fn what_cannot_be_read_exits_1_and_the_rest_is_imported() {
    let outside = Host::new(&[("secret", "net.core.somaxconn = 666\n")]);
    let host = Host::new(&[("etc/sysctl.d/a.conf", "vm.swappiness = 5\n")]);
    let etc = |name: &str| host.path("etc/sysctl.d").join(name);
    mkfifo(&etc("fifo.conf"), Mode::S_IRWXU).unwrap();
    symlink(outside.path("secret"), etc("out.conf")).unwrap();
    symlink("../../../../../../../../../../etc/hostname", etc("up.conf")).unwrap();
    symlink("loop.conf", etc("loop.conf")).unwrap();
    fs::create_dir(etc("directory.conf")).unwrap();
    let done = host.import(&[]);
    assert_eq!(done.code, Some(1), "{done:?}");
    for name in ["fifo", "out", "up", "loop", "directory"] {
        let told = done.stderr.lines().filter(|line| line.contains(&format!("/{name}.conf: ")));
        assert_eq!(told.count(), 1, "{name}: {}", done.stderr);
    }
    assert_eq!(policies(&done), ["vm.swappiness: \"5\" # /etc/sysctl.d/a.conf:1"], "{done:?}");
    assert!(!done.stdout.contains("666"));
    is_accepted(&done);
}

/// Root reads everything, so as another user.
#[test]
fn an_unreadable_file_exits_1() {
    let Some(_host) = root_or_skip() else { return };
    let host =
        Host::new(&[("etc/sysctl.d/a.conf", "x.y = 1\n"), ("etc/sysctl.d/b.conf", "x.z = 1\n")]);
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(&host.path(""), 0o755);
    mode(&host.path("etc/sysctl.d/a.conf"), 0o600);
    // The binary may be where only root gets.
    let copy = host.path("headroom");
    fs::copy(binary(), &copy).unwrap();
    mode(&copy, 0o755);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--clear-groups"]).arg(&copy);
    let done = Finished::of(command.args(["import", "--root", host.root()]), b"");
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("a.conf") && done.stderr.contains("EACCES"), "{done:?}");
    assert_eq!(policies(&done), ["x.z: \"1\" # /etc/sysctl.d/b.conf:1"], "{done:?}");
}

#[test]
fn nothing_found_is_said_and_no_root_is_an_error() {
    let host = Host::new(&[]);
    let done = host.import(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stderr.contains("no sysctl.d"), "{done:?}");
    assert!(done.stdout.ends_with("sysctls: {}\n"), "{done:?}");
    is_accepted(&done);
    let done = import(&["--root", "/nonexistent"]);
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.stderr.contains("/nonexistent"), "{done:?}");
    for wrong in [&["surplus"][..], &["--root"], &["-o", "yaml"]] {
        assert_eq!(import(wrong).code, Some(2), "{wrong:?}");
    }
}

/// Whatever this machine has, and it is only read.
#[test]
fn this_machines_own_files_are_imported() {
    let done = import(&["--root", "/"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    is_accepted(&done);
}

#[test]
fn json_has_the_document_and_what_it_is_made_of() {
    let host = Host::new(&[
        ("etc/sysctl.d/a.conf", "net.core.somaxconn = 010\nvm.drop_caches = 3\nnonsense\n"),
        ("run/sysctl.d/a.conf", ""),
    ]);
    let done = host.import(&["-o", "json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let json = done.json();
    assert_eq!(json["schema"], "headroom.import/v1");
    assert_eq!(json["files"][1]["maskedBy"], "/etc/sysctl.d/a.conf");
    assert_eq!(json["keys"][0]["key"], "net.core.somaxconn");
    assert_eq!(json["keys"][0]["value"], "8");
    assert_eq!(json["keys"][0]["refused"], serde_json::Value::Null);
    assert!(json["keys"][1]["refused"].is_string());
    assert_eq!(json["problems"][0]["line"], 3);
    assert_eq!(json["document"], host.import(&[]).stdout);
}

#[test]
fn explain_and_status_name_the_line_that_wins_at_boot() {
    let Some(lock) = root_or_skip() else { return };
    let namespace = Namespace::new(&lock);
    let home = Home::inside(&namespace);
    home.configure(
        "hostNetns: current\nsysctls: { net.core.somaxconn: { min: 5000 }, net.ipv4.tcp_fin_timeout: 30 }\n",
    );
    let host = Host::new(&[
        ("etc/sysctl.d/10-a.conf", "net.core.somaxconn = 1024\nnet.ipv4.tcp_fin_timeout = 0x1e\n"),
        ("usr/lib/sysctl.d/20-b.conf", "\nnet/core/somaxconn = 2048\n"),
        ("etc/sysctl.conf", "net.core.somaxconn = 9999\n"),
    ]);
    let root = ["--host-root", host.root()];
    let run = |args: &[&str]| home.run(args.iter().chain(&root));
    let json = run(&["explain", "net.core.somaxconn", "-o", "json"]).json();
    let files: Vec<_> = json["files"].as_array().unwrap().iter().collect();
    assert_eq!(files.len(), 3, "{json:#}");
    let wins: Vec<_> = files.iter().map(|file| file["wins"] == true).collect();
    assert_eq!(wins, [false, true, false], "{json:#}");
    assert_eq!(files[1]["file"], "/usr/lib/sysctl.d/20-b.conf");
    assert_eq!((&files[1]["line"], &files[1]["value"]), (&2.into(), &"2048".into()));
    assert!(files[2]["note"].as_str().unwrap().contains("wins under `sysctl --system`"));
    assert_eq!(json["policy"]["disk"]["value"], "2048");
    let text = run(&["explain", "net.core.somaxconn"]).stdout;
    assert!(
        text.contains("/usr/lib/sysctl.d/20-b.conf:2 sets 2048 (wins at boot; not what is wanted)"),
        "{text}"
    );
    let text = run(&["explain", "net.ipv4.tcp_fin_timeout"]).stdout;
    assert!(text.contains("10-a.conf:2 sets 0x1e (wins at boot)"), "{text}");

    let status = run(&["status"]).stdout;
    let (_, section) = status.split_once("SET TO SOMETHING ELSE AT BOOT").expect(&status);
    let section = section.split("\n\n").next().unwrap();
    assert_eq!(section.lines().count(), 3, "{status}");
    for part in ["net.core.somaxconn", "2048", ">= 5000", "/usr/lib/sysctl.d/20-b.conf:2"] {
        assert!(section.contains(part), "{part}: {status}");
    }
    // A pattern of the configuration, and lines about keys that it means.
    host.write(
        "etc/sysctl.d/30-c.conf",
        "net.ipv4.conf.*.rp_filter = 2\nnet.ipv4.conf.all.rp_filter = 1\n",
    );
    for (value, expected) in [("2", Some("1")), ("1", Some("2"))] {
        let globs =
            format!("hostNetns: current\nsysctls: {{ net.ipv4.conf.*.rp_filter: {value} }}\n");
        home.configure(&globs);
        let json = run(&["status", "-o", "json"]).json();
        assert_eq!(json["keys"][0]["disk"]["value"].as_str(), expected, "{json:#}");
    }
    home.configure(
        "hostNetns: current\nsysctls: { net.core.somaxconn: { min: 5000 }, net.ipv4.tcp_fin_timeout: 30 }\n",
    );
    let mut command = home.command(["run"]);
    command.args(root);
    let mut agent = home.launch(command);
    agent.wait_until("ready", Agent::is_ready);
    agent.wait_until("told of the line", |agent| {
        agent.key("net.core.somaxconn")["disk"]["value"] == "2048"
    });
    assert_eq!(agent.key("net.core.somaxconn")["disk"]["line"], 2);
    assert_eq!(agent.key("net.ipv4.tcp_fin_timeout")["disk"], serde_json::Value::Null);
}
