//! The commands of the real binary: exit codes, and what is printed where.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::process::{Command, Stdio};

use headroom_tests::agent_process::{Finished, Home, binary};
use headroom_tests::{HostLock, Namespace, root_or_skip};
use serde_json::Value;

const HEAD: &str = "apiVersion: headroom/v1\nkind: AgentConfig\n";

fn headroom(args: &[&str]) -> Finished {
    Finished::of(Command::new(binary()).args(args), b"")
}

/// `headroom check -` of these bytes.
fn check(document: &[u8]) -> Finished {
    Finished::of(Command::new(binary()).args(["check", "-"]), document)
}

/// A namespace with these keys wanted in it, and its values before.
struct Node {
    namespace: Namespace,
    #[expect(dead_code, reason = "held, and dropped last")]
    host: HostLock,
}

impl Node {
    fn new() -> Option<Self> {
        let host = root_or_skip()?;
        Some(Self { namespace: Namespace::new(&host), host })
    }

    fn home(&self, sysctls: &str) -> Home<'_> {
        let home = Home::inside(&self.namespace);
        home.configure(&format!("hostNetns: current\nsysctls: {{ {sysctls} }}\n"));
        home
    }
}

#[test]
fn wrong_usage_exits_2_and_help_0() {
    for args in [
        &[][..],
        &["nonsense"],
        &["run", "--nonsense"],
        &["run", "surplus"],
        &["run", "--event-buffer", "many"],
        &["check"],
        &["explain"],
        &["health"],
        &["health", "perhaps"],
        &["status", "-o", "xml"],
        &["status", "--color", "sometimes"],
        &["schema", "nonsense"],
        &["reference", "nonsense"],
    ] {
        let done = headroom(args);
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty(), "{args:?}: {done:?}");
    }
    let commands = [
        "run",
        "apply",
        "diff",
        "status",
        "explain",
        "check",
        "restore",
        "import",
        "privileges",
        "health",
    ];
    for command in commands.into_iter().chain(["schema", "reference"]) {
        let done = headroom(&[command, "--help"]);
        assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""), "{command}");
    }
    let help = headroom(&["--help"]);
    for command in commands {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}: {help:?}");
    }
    assert!(headroom(&["--version"]).stdout.starts_with("headroom "));
}

#[test]
fn a_named_configuration_that_does_not_exist_is_an_error() {
    for args in [
        &["run"][..],
        &["apply"],
        &["diff"],
        &["status"],
        &["restore"],
        &["explain", "net.core.somaxconn"],
    ] {
        // An agent that runs on this machine is not asked.
        let named = ["--config", "/nonexistent/headroom.yaml", "--socket", "/nonexistent/sock"];
        let done = headroom(&[args, &named].concat());
        assert_eq!(done.code, Some(2), "{args:?}: {done:?}");
        assert!(done.stderr.contains("/nonexistent/headroom.yaml"), "{args:?}: {done:?}");
        assert!(done.stderr.contains("does not exist"), "{args:?}: {done:?}");
    }
    let done = headroom(&["check", "/nonexistent/headroom.yaml"]);
    assert_eq!(done.code, Some(2), "{done:?}");
}

#[test]
fn check_tells_good_doubtful_and_bad_documents_apart() {
    let home = Home::new();
    let file = |name: &str, rest: &str| {
        fs::write(home.path(name), HEAD.to_owned() + rest).unwrap();
        home.path(name).to_str().unwrap().to_owned()
    };
    let good = file("good.yaml", "mode: observe\n");
    let doubtful = file("doubtful.yaml", "sysctls: { net.core.nosuchkey: 1 }\n");
    let bad = file("bad.yaml", "mode: sometimes\n");
    for (args, code) in [
        (&[good.as_str()][..], 0),
        (&["--strict", &good], 0),
        (&[&doubtful], 0),
        (&["--strict", &doubtful], 2),
        (&[&bad], 2),
        (&[&good, &doubtful], 0),
        (&[&good, &doubtful, &bad], 2),
        (&["--strict", &good, &doubtful], 2),
    ] {
        let done = headroom(&[&["check"], args].concat());
        assert_eq!(done.code, Some(code), "{args:?}: {done:?}");
        for name in args.iter().filter(|arg| arg.starts_with('/')) {
            assert!(done.stdout.contains(*name), "{name}: {done:?}");
        }
    }
    assert_eq!(check(format!("{HEAD}mode: observe\n").as_bytes()).code, Some(0));
    assert_eq!(check(format!("{HEAD}mode: sometimes\n").as_bytes()).code, Some(2));
}

/// Each problem of a document, as `LINE:COLUMN: severity[code]`.
fn problems(done: &Finished) -> Vec<String> {
    let place = |line: &str| {
        let (_, rest) = line.split_once(" -:")?;
        Some(rest.split_once(']')?.0.to_owned() + "]")
    };
    done.stdout.lines().filter_map(place).collect()
}

#[test]
fn check_tells_all_errors_at_once_and_where_they_are() {
    let done = check(
        b"apiVersion: headroom/v2\nkind: AgentConfig\nmode: sometimes\nsysctls:\n  net.core.somaxconn: [1]\n  \
          kernel.core_pattern: \"|/bin/x\"\n  vm/../x: 1\n  vm.max_map_count: { min: 1, value: 2 }\n  \
          net.ipv4.tcp_syncookies: 0200\n  net.ipv4.tcp_rmem: 4096\nwatch: { sysctlSweep: 10 }\nextra: 1\n",
    );
    assert_eq!(done.code, Some(2));
    let found = problems(&done);
    let lines: Vec<&str> = found.iter().map(|problem| problem.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["1", "3", "5", "6", "7", "8", "9", "10", "11", "12"], "{done:?}");
    assert!(found.iter().all(|problem| problem.contains(": error[")), "{done:?}");
}

#[test]
fn fault_08_outgoing_ports_that_listeners_need_are_warned_about() {
    let home = Home::new();
    let key = "net.ipv4.ip_local_port_range: \"1024 65535\"";
    home.configure(&format!("sysctls: {{ {key} }}\n"));
    let config = home.config();
    let config = config.to_str().unwrap();
    let done = headroom(&["check", config]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("warning[port-collision]"), "{done:?}");
    assert!(done.stdout.contains("30000-32767 (NodePorts)"), "{done:?}");
    assert_eq!(headroom(&["check", "--strict", config]).code, Some(2));

    let reserved = "2379-2380,6443,9100,10248-10250,10255-10256,19879,30000-32767";
    home.configure(&format!(
        "sysctls: {{ {key}, net.ipv4.ip_local_reserved_ports: \"{reserved}\" }}\n"
    ));
    let done = headroom(&["check", "--strict", config]);
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn fault_36_hostile_documents_are_refused_by_name() {
    let huge = HEAD.to_owned() + &"# filling\n".repeat(120_000);
    let wide = format!("{HEAD}sysctls: {{ {} }}\n", "a.b: 1, ".repeat(60_000));
    let aliases: String = (1..40).map(|n| format!("a{n}: &a{n} [*a{0},*a{0}]\n", n - 1)).collect();
    let bomb = format!("{HEAD}a0: &a0 [x,x]\n{aliases}");
    let deep_flow = format!("{HEAD}x: {}", "[".repeat(10_000));
    let deep_map = format!("{HEAD}x: {}", "{a: ".repeat(10_000));
    let deep_list = format!("{HEAD}x:\n{}", "- ".repeat(10_000));
    let utf16: Vec<u8> = HEAD.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (what, document, code) in [
        ("nothing", b"".as_slice(), "missing-field"),
        ("only a comment", b"# nothing\n", "missing-field"),
        ("null", b"~\n", "missing-field"),
        ("a list", b"- a\n", "error["),
        ("more than 1 MiB", huge.as_bytes(), "too-large"),
        ("many keys", wide.as_bytes(), "error["),
        ("aliases of aliases", bomb.as_bytes(), "anchor-or-alias"),
        ("deep lists", deep_flow.as_bytes(), "too-deep"),
        ("deep maps", deep_map.as_bytes(), "too-deep"),
        ("deep block lists", deep_list.as_bytes(), "too-deep"),
        ("a field twice", b"mode: observe\nmode: enforce\n", "duplicate-key"),
        (
            "a key twice",
            b"sysctls: { net.core.somaxconn: 1, net/core/somaxconn: 2 }\n",
            "duplicate-key",
        ),
        ("a tab", b"sysctls:\n\tnet.core.somaxconn: 1\n", "syntax"),
        ("not UTF-8", b"mode: \"\xff\"\n", "invalid-utf8"),
        ("UTF-16", &utf16, "unsupported-encoding"),
        ("two documents", b"mode: observe\n---\nmode: enforce\n", "error["),
        ("a NUL", b"mode: \0\n", "error["),
        ("an open quote", b"mode: \"observe\n", "syntax"),
        ("an escape sequence in a key", b"\"\\e[31m\\n\\u202e\": 1\n", "unknown-field"),
    ] {
        let done = check(document);
        assert_eq!(done.code, Some(2), "{what}: {done:?}");
        assert!(done.stdout.contains(code), "{what}: {}", done.stdout);
        let control = |char: char| char.is_control() && char != '\n' || char == '\u{202e}';
        assert!(!done.stdout.contains(control), "{what}: {:?}", done.stdout);
        assert!(done.stdout.len() < 200_000, "{what}: {} bytes", done.stdout.len());
    }
    // A byte order mark is no fault, and moves nothing.
    assert_eq!(check(format!("\u{feff}{HEAD}").as_bytes()).code, Some(0));
    let shifted =
        check(b"\xef\xbb\xbfmode: sometimes\napiVersion: headroom/v1\nkind: AgentConfig\n");
    assert_eq!(problems(&shifted), ["1:7: error[unknown-variant]"], "{shifted:?}");
    for path in ["/dev/zero", "/", "/proc/self/mem"] {
        let done = headroom(&["check", path]);
        assert_eq!(done.code, Some(2), "{path}: {done:?}");
        assert!(done.stdout.contains("unreadable"), "{path}: {done:?}");
    }
}

#[test]
fn a_syntax_error_does_not_hide_the_fields_before_it() {
    let done = check(format!("{HEAD}sysctls:\n\tnet.core.somaxconn: 1\n").as_bytes());
    assert_eq!(problems(&done), ["4:2: error[syntax]"], "{done:?}");
}

#[test]
fn apply_diff_and_restore() {
    let Some(node) = Node::new() else { return };
    let netns = &node.namespace;
    let before = ["net/core/somaxconn", "net/ipv4/tcp_rmem"].map(|path| netns.read(path));
    let home = node.home("net.core.somaxconn: 10000, net.ipv4.tcp_rmem: { min: \"_ _ 50331648\" }");

    let done = home.run(["restore"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("nothing on record"), "{done:?}");

    let diff = home.run(["diff"]);
    assert_eq!(diff.code, Some(3), "{diff:?}");
    for part in ["net.core.somaxconn", "10000", "net.ipv4.tcp_rmem", "50331648"] {
        assert!(diff.stdout.contains(part), "{part}: {diff:?}");
    }
    assert_eq!(netns.read("net/core/somaxconn"), before[0], "diff only looks");
    assert_eq!(home.run(["status"]).code, Some(3), "what is not as wanted");

    let applied = home.run(["apply"]);
    assert_eq!(applied.code, Some(0), "{applied:?}");
    assert!(applied.stdout.contains("2 set, 0 failed, 2 of 2 keys as wanted"), "{applied:?}");
    assert_eq!(netns.read("net/core/somaxconn"), "10000");
    assert!(netns.read("net/ipv4/tcp_rmem").ends_with("50331648"));

    let again = home.run(["apply"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stdout.contains("0 set, 0 failed, 2 of 2 keys as wanted"), "{again:?}");
    let diff = home.run(["diff"]);
    assert_eq!(diff.code, Some(0), "{diff:?}");
    assert!(diff.stdout.contains("nothing"), "{diff:?}");
    let status = home.run(["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.stdout.contains("no agent answers"), "{status:?}");

    let restored = home.run(["restore"]);
    assert_eq!(restored.code, Some(0), "{restored:?}");
    let after = ["net/core/somaxconn", "net/ipv4/tcp_rmem"].map(|path| netns.read(path));
    assert_eq!(after, before);
    let done = home.run(["restore"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("nothing on record"), "{done:?}");
}

#[test]
fn restore_leaves_what_another_writer_changed() {
    let Some(node) = Node::new() else { return };
    let home = node.home("net.core.somaxconn: 10000");
    assert_eq!(home.run(["apply"]).code, Some(0));
    node.namespace.write("net/core/somaxconn", "777");
    let done = home.run(["restore"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.contains("left alone"), "{done:?}");
    assert_eq!(node.namespace.read("net/core/somaxconn"), "777");
}

/// A node that is itself a container cannot have them, and nobody can mend that there.
#[test]
fn keys_of_the_initial_namespace_are_not_held_against_a_node_in_a_container() {
    let Some(node) = Node::new() else { return };
    let home = node.home("net.ipv4.neigh.default.gc_thresh3: 8192");
    let done = home.run(["apply", "-o", "json"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.json()["keys"][0]["state"], "unsupported");
}

/// A right that turns out to be missing at the write: said, and not taken for another writer.
#[test]
fn a_missing_capability_is_denied_and_exits_3() {
    let Some(node) = Node::new() else { return };
    let home = node.home("net.ipv4.ip_forward: 1");
    let mut command = std::process::Command::new("setpriv");
    let inner = home.command(["apply", "-o", "json"]);
    command.args(["--bounding-set=-net_admin"]).arg(inner.get_program()).args(inner.get_args());
    let output = node.namespace.run(move || command.output().unwrap());
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let applied: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(applied["keys"][0]["state"], "denied", "{applied}");
    assert!(applied["keys"][0]["detail"].as_str().unwrap().contains("CAP_NET_ADMIN"), "{applied}");
    assert_eq!(applied["keys"][0]["original"], Value::Null, "never ours: {applied}");
}

/// What the kernel refused is not taken for its rounding, nor recorded as ours.
#[test]
fn a_refused_value_of_a_key_that_rounds_is_rejected() {
    let Some(node) = Node::new() else { return };
    let home = node.home("net.ipv4.tcp_child_ehash_entries: 99999999");
    for _ in 0..2 {
        let done = home.run(["apply", "-o", "json"]);
        assert_eq!(done.code, Some(3), "{done:?}");
        assert_eq!(done.json()["keys"][0]["state"], "rejected", "{done:?}");
    }
    let done = home.run(["restore"]);
    assert!(done.stdout.contains("nothing on record"), "{done:?}");
}

/// One write to an `all` switch reaches every interface; what differed there comes back.
#[test]
fn every_interface_comes_back_after_an_all_switch() {
    let Some(node) = Node::new() else { return };
    node.namespace.ip(["link", "add", "v0", "type", "veth", "peer", "name", "v1"]);
    let switches = ["net.ipv6.conf.all.disable_ipv6: 1", "net.ipv4.conf.all.forwarding: 1"];
    for (switch, own) in
        switches.iter().zip(["ipv6/conf/v0/disable_ipv6", "ipv4/conf/v0/forwarding"])
    {
        let own = format!("net/{own}");
        node.namespace.write(&own, "1");
        let home = node.home(switch);
        let redirects = node.namespace.read("net/ipv4/conf/all/accept_redirects");
        assert_eq!(home.run(["apply"]).code, Some(0), "{switch}");
        let done = home.run(["restore"]);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(node.namespace.read(&own), "1", "{switch}: {done:?}");
        assert_eq!(node.namespace.read("net/ipv4/conf/v1/forwarding"), "0", "{switch}");
        assert_eq!(
            node.namespace.read("net/ipv4/conf/all/accept_redirects"),
            redirects,
            "{switch}"
        );
    }
}

#[test]
fn apply_exits_3_where_a_required_key_is_not_met() {
    let Some(node) = Node::new() else { return };
    for (key, state) in [
        ("net.ipv4.tcp_congestion_control: nosuch", "rejected"),
        ("net.ipv4.conf.nosuch0.rp_filter: 1", "pending"),
        ("net.core.somaxconn: -1", "rejected"),
    ] {
        let home = node.home(&format!("{key}, net.ipv4.tcp_max_syn_backlog: 4321"));
        let done = home.run(["apply", "-o", "json"]);
        assert_eq!(done.code, Some(3), "{key}: {done:?}");
        let applied = done.json();
        let states: Vec<_> =
            applied["keys"].as_array().unwrap().iter().map(|key| &key["state"]).collect();
        assert!(states.contains(&&Value::from(state)), "{key}: {applied}");
        assert_eq!(applied["met"], false);
        // One key's failure never stops another's.
        assert_eq!(node.namespace.read("net/ipv4/tcp_max_syn_backlog"), "4321", "{key}");
        assert_eq!(home.run(["restore"]).code, Some(0), "{key}");
        assert_ne!(node.namespace.read("net/ipv4/tcp_max_syn_backlog"), "4321", "{key}");

        let (name, value) = key.split_once(": ").unwrap();
        let optional = node.home(&format!("{name}: {{ value: {value}, required: false }}"));
        assert_eq!(optional.run(["apply"]).code, Some(0), "{key}, not required");
        let observed = node.home(key);
        observed.configure(&format!("hostNetns: current\nmode: observe\nsysctls: {{ {key} }}\n"));
        assert_eq!(observed.run(["apply"]).code, Some(0), "{key}, observed");
    }
}

#[test]
fn explain_knows_keys_and_tells_what_is_none() {
    let home = Home::new();
    home.configure("sysctls: { net.core.somaxconn: { min: 5 } }\n");
    for (key, code, part) in [
        ("net.core.somaxconn", 0, "accept queue"),
        ("net.core.somaxconn", 0, "a policy under `pods`"),
        ("net.core.somaxconn", 0, "read when a program calls listen()"),
        ("net.core.rmem_max", 0, "cannot be set for a pod"),
        ("net.ipv4.tcp_rmem", 0, "reaches pods created after it"),
        ("net/core/somaxconn", 0, "accept queue"),
        ("/proc/sys/net/core/somaxconn", 0, ">= 5"),
        ("net.core.somaxcon", 0, "did you mean net.core.somaxconn"),
        ("vm.nothing_like_it", 0, "not in the catalogue"),
        ("net.ipv4.route.flush", 0, "net.ipv4.route.flush"),
    ] {
        let done = home.run(["explain", key]);
        assert_eq!(done.code, Some(code), "{key}: {done:?}");
        assert!(done.stdout.contains(part), "{key}: {done:?}");
    }
    let long = "a".repeat(5000);
    for key in ["", "..", "../etc/passwd", "net/../../x", "a\x1b[31m\nb", "/etc/passwd", &long] {
        let done = home.run(["explain", key]);
        assert_eq!(done.code, Some(2), "{key:?}: {done:?}");
        let clean = |text: &str| !text.contains(|c: char| c.is_control() && c != '\n');
        assert!(clean(&done.stderr) && done.stderr.lines().count() == 1, "{key:?}: {done:?}");
    }
}

#[test]
fn status_says_which_keys_of_the_host_do_not_reach_pods() {
    let home = Home::new();
    home.configure(
        "hostNetns: current\nmode: observe\nprofiles: []\nsysctls: { net.core.somaxconn: { min: 5 }, \
         net.ipv4.tcp_rmem: { min: \"_ _ 5\" }, net.ipv6.conf.all.forwarding: 0 }\n",
    );
    let status = home.run(["status"]).stdout;
    let said: Vec<&str> = status.lines().filter(|line| line.contains("pods have")).collect();
    assert_eq!(said, ["! net.core.somaxconn: pods have their own: add a pods policy"]);
    let keys = home.run(["status", "-o", "json"]).json()["keys"].clone();
    let gets = |name: &str| {
        let key = keys.as_array().unwrap().iter().find(|key| key["key"] == name).unwrap();
        key["pods"].as_str().map(str::to_owned)
    };
    assert_eq!(gets("net.core.somaxconn").as_deref(), Some("own"));
    assert_eq!(gets("net.ipv4.tcp_rmem").as_deref(), Some("copied"));
    assert_eq!(gets("net.ipv6.conf.all.forwarding").as_deref(), Some("own"));
}

#[test]
fn without_an_agent() {
    let Some(node) = Node::new() else { return };
    let home = node.home("");
    for which in ["live", "ready"] {
        let done = home.run(["health", which]);
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains("no agent answers"), "{done:?}");
        assert!(done.stderr.contains(home.socket().to_str().unwrap()), "{done:?}");
    }
    // A left-over socket is no agent either.
    drop(std::os::unix::net::UnixListener::bind(home.socket()).unwrap());
    assert_eq!(home.run(["health", "live"]).code, Some(1));
    let status = home.run(["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    // Without `hostNetns: current` this is not the node's namespace.
    home.configure("sysctls: {}\n");
    let status = home.run(["status"]);
    assert_eq!(status.code, Some(4), "{status:?}");
    assert!(status.stdout.contains("wrong network namespace"), "{status:?}");
    // A configuration that is broken does not keep a probe from asking.
    home.configure("mode: sometimes\n");
    let socket = home.socket();
    let done = home.run(["health", "live", "--socket", socket.to_str().unwrap()]);
    assert_eq!(done.code, Some(1), "{done:?}");
}

#[test]
fn json_of_every_command_is_as_its_schema_says() {
    let Some(node) = Node::new() else { return };
    let home = node.home(
        "net.core.somaxconn: 10000, net.ipv4.tcp_rmem: { min: \"_ _ 50331648\" }, \
         net.ipv4.tcp_congestion_control: { value: nosuch, required: false }, \
         net.ipv4.conf.nosuch0.rp_filter: { value: 1, required: false }",
    );
    fs::write(home.path("bad.yaml"), "mode: sometimes\nmode: observe\n").unwrap();
    let (good, bad) = (home.config(), home.path("bad.yaml"));
    let files = [good.to_str().unwrap(), bad.to_str().unwrap(), "/nonexistent"];
    let checked =
        Finished::of(Command::new(binary()).args(["check", "-o", "json"]).args(files), b"");
    conforms("check", &checked);
    fs::create_dir_all(home.path("etc/sysctl.d")).unwrap();
    let lines = "net.core.somaxconn = 1\n-net.ipv4.conf.*.rp_filter = 2\nkernel.core_pattern = x\n";
    fs::write(home.path("etc/sysctl.d/a.conf"), lines).unwrap();
    let root = home.path("");
    conforms("import", &headroom(&["import", "-o", "json", "--root", root.to_str().unwrap()]));
    for (command, name) in [
        (&["diff"][..], "diff"),
        (&["status"], "status"),
        (&["explain", "net.core.somaxconn"], "explain"),
        (&["explain", "net.core.nothing"], "explain"),
        (&["explain", "net.ipv4.conf.all.forwarding"], "explain"),
        (&["apply"], "apply"),
        (&["diff"], "diff"),
        (&["restore"], "restore"),
        (&["restore"], "restore"),
    ] {
        conforms(name, &home.run(command.iter().chain(&["-o", "json"])));
    }
    let agent = home.start();
    conforms("status", &home.run(["status", "-o", "json"]));
    drop(agent);
    conforms("restore", &home.run(["restore", "-o", "json"]));
    let plan =
        ["plan", "--offline", "--pods", "1000", "--services", "9", "--cores", "4", "-o", "json"];
    conforms("plan", &home.run(plan));
    let config = headroom(&["schema"]).json();
    assert_eq!(config, headroom(&["schema", "config"]).json());
    for field in ["apiVersion", "mode", "sysctls", "watch", "server", "state"] {
        assert!(config["properties"][field].is_object(), "{field}");
    }
}

fn conforms(name: &str, done: &Finished) {
    let document = done.json();
    assert_eq!(document["schema"], format!("headroom.{name}/v1"));
    assert_eq!(done.stderr, "", "{name}");
    let schema = headroom(&["schema", name]).json();
    let mut wrong = Vec::new();
    judge(&schema, &schema, &document, name, &mut wrong);
    assert_eq!(wrong, Vec::<String>::new(), "{document:#}");
}

/// As much of JSON Schema as the schemas use. Beyond it: a document has no property that its
/// schema does not name.
fn judge(root: &Value, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.strip_prefix('#').unwrap());
        judge(root, target.unwrap_or_else(|| panic!("{at}: {name}")), value, at, wrong);
    }
    if let Some(options) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fits = |option: &&Value| {
            let mut inner = Vec::new();
            // The properties beside the choice are not the choice's.
            let whole = merged(schema, option);
            judge(root, &whole, value, at, &mut inner);
            inner.is_empty()
        };
        if options.iter().filter(fits).count() != 1 {
            wrong.push(format!("{at}: none or several of the choices"));
        }
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        wrong.push(format!("{at}: {value} is none of {allowed:?}"));
    }
    if !schema["const"].is_null() && schema["const"] != *value {
        wrong.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = types.contains(&is) || (is == "integer" && types.contains(&"number"));
    if !types.is_empty() && !fits {
        wrong.push(format!("{at}: {value} is no {types:?}"));
    }
    for item in value.as_array().into_iter().flatten().filter(|_| schema["items"].is_object()) {
        judge(root, &schema["items"], item, &format!("{at}[]"), wrong);
    }
    let Some(object) = value.as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(required) {
            wrong.push(format!("{at}: {required} is missing"));
        }
    }
    let Some(properties) = schema["properties"].as_object() else { return };
    for (name, value) in object {
        match properties.get(name) {
            Some(schema) => judge(root, schema, value, &format!("{at}.{name}"), wrong),
            None => wrong.push(format!("{at}: {name} is not in the schema")),
        }
    }
}

/// A choice, with the properties that stand beside all choices.
fn merged(schema: &Value, option: &Value) -> Value {
    let mut whole = schema.clone();
    let object = whole.as_object_mut().unwrap();
    object.retain(|name, _| name != "oneOf" && name != "anyOf");
    for (name, value) in option.as_object().unwrap() {
        match (object.get_mut(name), value) {
            (Some(Value::Object(known)), Value::Object(more)) => known.extend(more.clone()),
            (Some(Value::Array(known)), Value::Array(more)) => known.extend(more.clone()),
            _ => drop(object.insert(name.clone(), value.clone())),
        }
    }
    whole
}

#[test]
fn colour_only_where_it_is_wanted() {
    let home = Home::new();
    home.configure("mode: observe\n");
    let config = home.config();
    let config = config.to_str().unwrap();
    let run = |args: &[&str], environment: &[(&str, &str)]| {
        let mut command = Command::new(binary());
        command.args(["check", config]).args(args).env_remove("NO_COLOR").env("TERM", "xterm");
        Finished::of(command.envs(environment.iter().copied()), b"").stdout.contains('\x1b')
    };
    assert!(!run(&[], &[]), "not into a pipe");
    assert!(run(&["--color", "always"], &[]));
    assert!(!run(&["--color", "never"], &[]));

    // script(1) gives it a terminal.
    let terminal = |args: &str, environment: &[(&str, &str)]| {
        let mut command = Command::new("script");
        let line = format!("{} check {config} {args}", binary().display());
        command.args(["-qec", &line, "/dev/null"]).env_remove("NO_COLOR").env("TERM", "xterm");
        let done = Finished::of(command.envs(environment.iter().copied()), b"");
        assert_eq!(done.code, Some(0), "{done:?}");
        done.stdout.contains("\x1b[3")
    };
    assert!(terminal("", &[]));
    assert!(!terminal("", &[("NO_COLOR", "1")]));
    assert!(terminal("", &[("NO_COLOR", "")]), "an empty NO_COLOR says nothing");
    assert!(!terminal("", &[("TERM", "dumb")]));
    assert!(!terminal("--color never", &[]));
    assert!(terminal("--color always", &[("NO_COLOR", "1"), ("TERM", "dumb")]));
}

#[test]
fn fault_50_hostile_environments() {
    let home = Home::new();
    home.configure("mode: observe\nsysctls: { net.core.somaxconn: 1 }\n");
    let config = home.config();
    let config = config.to_str().unwrap();
    let check = format!("{} check {config}", binary().display());
    let all = [
        check.clone(),
        check.clone() + " -o json",
        format!("{} explain net.core.somaxconn --config {config}", binary().display()),
        format!("{} diff --config {config}", binary().display()),
        format!("{} status --config {config}", binary().display()),
        format!("{} reference keys", binary().display()),
        format!("{} schema status", binary().display()),
        format!("{} --help", binary().display()),
        format!("{} nonsense", binary().display()),
    ];
    let shell = |script: &str| Finished::of(Command::new("bash").args(["-c", script]), b"");
    for line in &all {
        let expected = shell(&format!("{line} >/dev/null 2>&1; echo $?")).stdout;
        // Readers that are gone, and no descriptors at all: the exit code stays, nothing panics.
        for script in [
            format!("{line} 2>&1 | head -c 0 >/dev/null; echo ${{PIPESTATUS[0]}}"),
            format!("{line} > >(exec true) 2>&1; echo $?"),
            format!("( {line} <&- >&- 2>&- ); echo $?"),
            format!("{line} >/dev/full 2>&1; echo $?"),
        ] {
            let done = shell(&script);
            assert_eq!(done.stdout.trim(), expected.trim(), "{script}: {done:?}");
            assert_eq!(done.stderr, "", "{script}");
        }
    }

    let huge = "x".repeat(120_000);
    let mut command = Command::new(binary());
    command.args(["check", config]).env_clear();
    for number in 0..10 {
        command.env(format!("FILLING_{number}"), &huge);
    }
    let weird = [
        ("TERM", "dumb"),
        ("LANG", "zz_ZZ.\u{7f}"),
        ("LC_ALL", "tr_TR"),
        ("TZ", ":/dev/zero"),
        ("HOME", ""),
        ("RUST_LOG", "\u{1b}[31m"),
        ("XDG_RUNTIME_DIR", "/nonexistent\u{1b}"),
    ];
    let done = Finished::of(command.envs(weird), b"");
    assert_eq!(done.code, Some(0), "{done:?}");
    let done = Finished::of(
        Command::new(binary()).args(["check", config]).env_clear().stdin(Stdio::null()),
        b"",
    );
    assert_eq!(done.code, Some(0), "{done:?}");
}

#[test]
fn fault_50_a_command_under_umask_077_leaves_nothing_that_others_can_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(node) = Node::new() else { return };
    let home = node.home("net.core.somaxconn: 10000");
    for umask in ["077", "000"] {
        let script = format!("umask {umask}; exec \"$@\"");
        let mut command = home.wrapped(&["sh", "-c", &script, "sh"], ["apply"]);
        let done = home.enter(|| Finished::of(&mut command, b""));
        assert_eq!(done.code, Some(0), "{done:?}");
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(home.state()), 0o700, "umask {umask}");
        for entry in fs::read_dir(home.state()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(path.clone()), 0o600, "{}, umask {umask}", path.display());
        }
        assert_eq!(home.run(["restore"]).code, Some(0));
    }
}

#[test]
fn privileges_are_told_for_a_configuration() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("config.yaml");
    let config = file.to_str().unwrap();
    let pods = "pods: [{ name: a, match: { pods: [a] }, sysctls: { net.core.somaxconn: 1 } }]\n";
    fs::write(&file, format!("{HEAD}{pods}")).unwrap();
    let told = headroom(&["privileges", "--config", config]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    for part in ["capability SYS_ADMIN", "HostToContainer", "(net.core.somaxconn)", "OPTIONAL"] {
        assert!(told.stdout.contains(part), "{part}: {told:?}");
    }
    let json = headroom(&["privileges", "--config", config, "-o", "json"]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["schema"], "headroom.privileges/v1");
    let required = json["required"].as_array().unwrap();
    let state = required.iter().find(|need| need["hostPath"] == "/run/headroom");
    assert_eq!(state.unwrap()["readOnly"], false, "root's, whoever asks: {required:?}");
    fs::write(&file, format!("{HEAD}pods: [{{ name: a }}]\n")).unwrap();
    let refused = headroom(&["privileges", "--config", config]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
}
