//! The running agent: what it keeps, what it says, how it starts and ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use headroom_tests::agent_process::{Agent, Finished, Home, binary};
use headroom_tests::{HostLock, Namespace, root_or_skip};
use nix::sys::signal::Signal;

const SOMAXCONN: &str = "net/core/somaxconn";
const NOBODY: u32 = 65534;

/// A namespace that stands for the node.
fn node(host: &HostLock) -> Namespace {
    Namespace::new(host)
}

fn wanted(sysctls: &str) -> String {
    format!("hostNetns: current\nwatch: {{ sysctlSweep: 1s }}\nsysctls: {{ {sysctls} }}\n")
}

fn drift(agent: &Agent<'_>) -> Option<f64> {
    agent.metrics().value("headroom_sysctl_drift_total", &[])
}

#[test]
fn a_sweep_puts_back_a_changed_value() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let original = netns.read(SOMAXCONN);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let mut agent = home.start();
    assert_eq!(netns.read(SOMAXCONN), "10000");
    let written = |agent: &Agent<'_>| {
        agent.metrics().value("headroom_sysctl_writes_total", &[("result", "ok")])
    };
    assert_eq!((drift(&agent), written(&agent)), (Some(0.0), Some(1.0)));
    let old = format!("old=\"{original}\"");
    assert_eq!(agent.log_with(&["set", "net.core.somaxconn", &old, "new=\"10000\""]).len(), 1);

    netns.write(SOMAXCONN, "777");
    agent.wait_until("the value back", |_| netns.read(SOMAXCONN) == "10000");
    agent.wait_until("the drift counted", |agent| drift(agent) == Some(1.0));
    assert_eq!(written(&agent), Some(2.0));
    assert_eq!(agent.log_with(&["set", "old=\"777\"", "new=\"10000\""]).len(), 1);
    assert_eq!(agent.log_with(&["drifted", "net.core.somaxconn", "777"]).len(), 1);
    let key = agent.key("net.core.somaxconn");
    assert_eq!((&key["state"], &key["original"]), (&"in-sync".into(), &original.into()));
}

/// Keys of a network namespace, none of them at its default.
const MANY: &str = "net.core.somaxconn: 10000, net.ipv4.tcp_rmem: \"4096 65536 50331648\", \
    net.ipv4.tcp_wmem: \"4096 65536 50331648\", net.ipv4.tcp_max_syn_backlog: 4321, \
    net.ipv4.ip_local_port_range: \"40000 60000\", net.ipv4.tcp_fin_timeout: 30, \
    net.ipv4.tcp_keepalive_time: 600, net.ipv4.ip_forward: 1, net.ipv4.tcp_syncookies: 2, \
    net.ipv4.conf.all.rp_filter: 2, net.ipv4.tcp_notsent_lowat: 16384, \
    net.ipv6.conf.all.forwarding: 1";

/// Everything that [`MANY`] writes, and what the kernel changes along with it.
const PATHS: [&str; 16] = [
    SOMAXCONN,
    "net/ipv4/tcp_rmem",
    "net/ipv4/tcp_wmem",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/ip_local_port_range",
    "net/ipv4/tcp_fin_timeout",
    "net/ipv4/tcp_keepalive_time",
    "net/ipv4/ip_forward",
    "net/ipv4/tcp_syncookies",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/lo/forwarding",
    "net/ipv4/conf/default/forwarding",
    "net/ipv4/tcp_notsent_lowat",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/lo/forwarding",
];

#[test]
fn fault_39_kill_9_at_any_moment_of_the_start_loses_no_original() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    // Not what ip_forward's own original would make of it.
    netns.write("net/ipv4/conf/lo/forwarding", "1");
    let originals = PATHS.map(|path| netns.read(path));
    let home = Home::inside(&netns);
    home.configure(&wanted(MANY));
    let started = Instant::now();
    let mut agent = home.launch(home.command(["run"]));
    // The last one that is written.
    agent.wait_until("done", |_| netns.read("net/ipv4/tcp_wmem").ends_with("50331648"));
    let whole = started.elapsed();
    agent.wait_until("ready", Agent::is_ready);
    let changed = |(path, was): (&&str, &String)| netns.read(path) != *was;
    assert_eq!(PATHS.iter().zip(&originals).filter(|both| changed(*both)).count(), 15);
    drop(agent);
    restores(&home, &netns, &originals, "a whole start");

    for round in 0..30 {
        // From before main to after the last write.
        let moment = whole.mul_f64(f64::from(round) / 24.0);
        let mut agent = home.launch(home.command(["run"]));
        sleep(moment);
        agent.kill9();
        restores(&home, &netns, &originals, &format!("round {round}, {moment:?}"));
    }
    // One after another, each on what the one before left.
    for round in 0..10 {
        let mut agent = home.launch(home.command(["run"]));
        sleep(whole.mul_f64(f64::from(round) / 8.0));
        agent.kill9();
    }
    restores(&home, &netns, &originals, "ten in a row");
}

#[test]
fn restore_brings_back_an_interface_that_differed_from_the_switch() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    netns.write("net/ipv4/conf/lo/forwarding", "1");
    let originals = PATHS.map(|path| netns.read(path));
    let home = Home::inside(&netns);
    home.configure(&wanted("net.ipv4.ip_forward: 1"));
    assert_eq!(home.run(["apply"]).code, Some(0));
    restores(&home, &netns, &originals, "after apply");
}

fn restores(home: &Home<'_>, netns: &Namespace, originals: &[String], when: &str) {
    let done = home.run(["restore"]);
    assert_eq!(done.code, Some(0), "{when}: {done:?}");
    let now = PATHS.map(|path| netns.read(path));
    assert_eq!(now, originals, "{when}: {done:?}");
    assert!(!done.stdout.contains("left alone"), "{when}: {done:?}");
}

#[test]
fn fault_41_a_second_agent_refuses_and_names_the_first() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let mut agent = home.start();
    let holder = format!("headroom run (pid {} on ", agent.pid());
    for command in ["run", "apply", "restore"] {
        let done = home.run([command]);
        assert_eq!(done.code, Some(1), "{command}: {done:?}");
        assert!(done.stderr.contains(&holder), "{command}: {done:?}");
    }
    assert_eq!(netns.read(SOMAXCONN), "10000");
    // What only looks may look.
    for command in ["diff", "status"] {
        assert_eq!(home.run([command]).code, Some(0), "{command}");
    }
    agent.kill9();
    assert_eq!(home.run(["restore"]).code, Some(0), "a dead agent locks nobody out");
}

#[test]
fn fault_41_a_writer_that_does_not_give_up_is_contested() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let mut agent = home.start();
    agent.wait_until("contested", |agent| {
        if netns.read(SOMAXCONN) == "10000" {
            netns.write(SOMAXCONN, "777");
        }
        agent.key("net.core.somaxconn")["state"] == "contested"
    });
    assert_eq!(netns.read(SOMAXCONN), "777", "it does not go on");
    assert_eq!(drift(&agent), Some(6.0));
    assert!(!agent.is_ready());
    let labels = [("key", "net.core.somaxconn"), ("state", "contested")];
    assert_eq!(agent.metrics().value("headroom_sysctl_state_info", &labels), Some(1.0));
    assert!(agent.ask("/readyz").body.contains("another writer keeps changing it"));
    assert_eq!(agent.log_with(&["not as wanted", "contested"]).len(), 1);
}

#[test]
fn yield_takes_another_writers_value() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: { value: 10000, onConflict: yield }"));
    let mut agent = home.start();
    netns.write(SOMAXCONN, "777");
    agent.wait_until("yielded", |agent| agent.key("net.core.somaxconn")["state"] == "yielded");
    assert_eq!((netns.read(SOMAXCONN).as_str(), drift(&agent)), ("777", Some(1.0)));
    assert!(agent.is_ready());
}

#[test]
fn sigterm_ends_it_and_the_values_stay() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let mut agent = home.start();
    let mut half = agent.connect();
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
    let silent = agent.connect();
    assert_eq!(agent.terminate(), Some(0));
    drop((half, silent));
    assert_eq!(netns.read(SOMAXCONN), "10000");
    assert_eq!(agent.log_with(&["stopping"]).len(), 1);
    let mut agent = home.start();
    agent.signal(Signal::SIGINT);
    assert_eq!(agent.exit_code(), Some(0));
}

fn reload_state(agent: &Agent<'_>) -> (Option<f64>, bool) {
    let good = agent.metrics().value("headroom_config_last_reload_successful", &[]);
    (good, agent.status()["config"]["reloadError"].is_null())
}

#[test]
fn sighup_loads_a_changed_file_and_keeps_the_last_good_one() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let original = netns.read(SOMAXCONN);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000, net.ipv4.tcp_max_syn_backlog: 4321"));
    let mut agent = home.start();
    let hash = agent.status()["config"]["hash"].clone();
    let backlog = || netns.read("net/ipv4/tcp_max_syn_backlog");
    assert_eq!(backlog(), "4321");

    // A key that is no longer there is put back, one that changed is written.
    home.configure(&wanted("net.ipv4.tcp_max_syn_backlog: 5432"));
    agent.signal(Signal::SIGHUP);
    agent.wait_until("reloaded", |_| backlog() == "5432" && netns.read(SOMAXCONN) == original);
    agent.wait_until("seen", |agent| agent.key("net.core.somaxconn").is_null());
    assert_eq!(reload_state(&agent), (Some(1.0), true));
    let good = agent.status()["config"]["hash"].clone();
    assert_ne!(good, hash);
    let info = [("hash", good.as_str().unwrap()), ("source", "file")];
    let scrape = agent.metrics();
    assert_eq!(scrape.value("headroom_config_info", &info), Some(1.0));
    assert_eq!(scrape.family("headroom_config_info").count(), 1, "the old one is gone");

    // Fault 36: whatever is wrong with a file, the last good one stays.
    for (what, broken) in [
        ("a wrong value", home.document("mode: sometimes\n").into_bytes()),
        ("empty", Vec::new()),
        ("cut off", home.document("sysctls: { net.core.som").into_bytes()),
        ("not UTF-8", b"\xff\xff\xff".to_vec()),
        ("too long", vec![b'#'; 2 << 20]),
        ("deep", vec![b'['; 10_000]),
    ] {
        fs::write(home.config(), broken).unwrap();
        agent.signal(Signal::SIGHUP);
        agent.wait_until("told", |agent| reload_state(agent) == (Some(0.0), false));
        let status = agent.status();
        assert_eq!(status["config"]["hash"], good, "{what}");
        let notices = status["notices"].to_string();
        assert!(notices.contains("configuration not reloaded"), "{what}: {notices}");
        assert_eq!(backlog(), "5432", "{what}");
        home.configure(&wanted("net.ipv4.tcp_max_syn_backlog: 5432"));
        agent.signal(Signal::SIGHUP);
        agent.wait_until("good again", |agent| reload_state(agent) == (Some(1.0), true));
    }
    fs::remove_file(home.config()).unwrap();
    agent.signal(Signal::SIGHUP);
    agent.wait_until("told", |agent| reload_state(agent) == (Some(0.0), false));
    assert!(agent.is_ready() && backlog() == "5432");
    assert!(agent.log_with(&["the last good one stays in force"]).len() >= 7);
}

#[test]
fn fault_37_a_storm_of_reloads_ends_with_the_last_file() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let original = netns.read(SOMAXCONN);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let mut agent = home.start();
    for round in 0..200 {
        let document = match round % 3 {
            0 => wanted(&format!("net.core.somaxconn: {}", 10_001 + round)),
            1 => "mode: sometimes\n".to_owned(),
            _ => wanted("net.ipv4.tcp_max_syn_backlog: 4321"),
        };
        // Replaced whole, as a ConfigMap is.
        fs::write(home.path("next"), home.document(&document)).unwrap();
        fs::rename(home.path("next"), home.config()).unwrap();
        agent.signal(Signal::SIGHUP);
        sleep(Duration::from_millis(3));
    }
    home.configure(&wanted("net.core.somaxconn: 20000"));
    agent.signal(Signal::SIGHUP);
    agent.wait_until("calm", |_| netns.read(SOMAXCONN) == "20000");
    agent.wait_until("good", |agent| reload_state(agent) == (Some(1.0), true));
    assert!(agent.is_ready());
    assert_eq!(agent.key("net.core.somaxconn")["original"], original);
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(home.run(["restore"]).code, Some(0));
    assert_eq!(netns.read(SOMAXCONN), original);
    assert_ne!(netns.read("net/ipv4/tcp_max_syn_backlog"), "4321");
}

#[test]
fn a_required_key_that_is_refused_is_not_ready() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted(
        "net.ipv4.tcp_congestion_control: nosuch, net.core.somaxconn: 10000, \
         net.ipv4.neigh.default.gc_thresh3: { min: 8192, required: false }",
    ));
    let mut agent = home.launch(home.command(["run"]));
    agent.wait_until_it_answers();
    agent.wait_until("past its first pass", |agent| agent.ask("/readyz/first-pass").status == 200);
    agent.wait_until("watching", |agent| agent.ask("/readyz/watchers").status == 200);
    assert_eq!(netns.read(SOMAXCONN), "10000", "one key's failure stops no other");
    assert_eq!(agent.key("net.ipv4.neigh.default.gc_thresh3")["state"], "unsupported");

    // Over TCP as the Kubernetes API server answers.
    let answer = agent.get("/readyz");
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.body,
        "[+]ping ok\n[+]config ok\n[+]host-netns ok\n[+]first-pass ok\n\
         [-]required-keys failed: reason withheld\n[+]watchers ok\n[+]tasks ok\n[+]listeners ok\n\
         readyz check failed\n"
    );
    assert_eq!(agent.get("/readyz?verbose").body, answer.body);
    let one = agent.get("/readyz/required-keys");
    assert_eq!((one.status, one.body.contains("reason withheld")), (500, true));
    assert_eq!(agent.get("/readyz/nothing").status, 404);
    let livez = agent.get("/livez");
    assert_eq!((livez.status, livez.body.as_str()), (200, "ok"));

    let excluded = agent.get("/readyz?verbose&exclude=required-keys&exclude=nothing");
    assert_eq!(excluded.status, 200);
    assert!(excluded.body.contains("[+]required-keys excluded: ok\n"), "{excluded:?}");
    let warning = "warn: some health checks cannot be excluded: no matches for \"nothing\"\n";
    assert!(excluded.body.contains(warning), "{excluded:?}");
    assert!(excluded.body.ends_with("readyz check passed\n"), "{excluded:?}");
    assert_eq!(agent.get("/readyz?exclude=required-keys").body, "ok");

    // On the socket with the reason.
    let reason = "net.ipv4.tcp_congestion_control is rejected: ";
    for path in ["/readyz", "/readyz/required-keys", "/healthz"] {
        let answer = agent.ask(path);
        assert_eq!(answer.status, 500, "{path}");
        assert!(answer.body.contains(reason), "{path}: {answer:?}");
        assert!(answer.body.contains("ENOENT"), "{path}: {answer:?}");
    }
    let health = home.run(["health", "ready"]);
    assert_eq!(health.code, Some(1));
    assert!(health.stdout.contains(reason), "{health:?}");
    assert_eq!(home.run(["health", "live"]).code, Some(0));
    let status = home.run(["status"]);
    assert_eq!(status.code, Some(4), "{status:?}");
    assert!(status.stdout.contains("not ready") && status.stdout.contains("rejected"));

    // Tried again on a new configuration.
    home.configure(&wanted("net.ipv4.tcp_congestion_control: { oneOf: [reno, cubic] }"));
    agent.signal(Signal::SIGHUP);
    agent.wait_until("ready", Agent::is_ready);
}

#[test]
fn in_a_wrong_network_namespace_it_says_so_and_writes_nothing() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let original = netns.read(SOMAXCONN);
    netns.ip(["link", "add", "br0", "type", "bridge"]);
    let home = Home::inside(&netns);
    home.configure("watch: { sysctlSweep: 1s }\nsysctls: { net.core.somaxconn: 10000 }\n");
    let mut agent = home.launch(home.command(["run"]));
    agent.wait_until_it_answers();
    agent.wait_until("past its first pass", |agent| agent.ask("/readyz/first-pass").status == 200);
    sleep(Duration::from_millis(1200)); // a sweep
    assert_eq!(netns.read(SOMAXCONN), original);
    let said = agent.log_with(&["wrong network namespace", "hostNetns: current"]);
    assert!(!said.is_empty());
    let answer = agent.get("/readyz");
    assert_eq!(answer.status, 500);
    assert!(answer.body.contains("[-]host-netns failed: reason withheld\n"), "{answer:?}");
    assert!(agent.ask("/readyz").body.contains("[-]host-netns failed: wrong network namespace ("));
    assert_eq!(agent.get("/livez").status, 200);
    let scrape = agent.metrics();
    assert_eq!(scrape.value("headroom_host_netns", &[]), Some(0.0));
    let about = |part: &str| scrape.names().filter(|name| name.contains(part)).count();
    assert_eq!((about("neighbor"), about("bridge"), about("limit")), (0, 0, 0));
    assert_eq!(agent.key("net.core.somaxconn")["state"], "unsupported");
    let status = agent.status();
    assert_eq!(status["hostNetns"]["state"], "wrong");
    assert_eq!(status["bridges"], serde_json::Value::Null, "not known, which is not none");
    assert_eq!(status["neighborTables"], serde_json::json!([]));
    assert_eq!(home.run(["apply"]).code, Some(1), "the agent has the lock");
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(home.run(["apply"]).code, Some(3));
    assert_eq!(netns.read(SOMAXCONN), original);
}

/// In the host's network namespace, and writing nothing.
const LOOKING: &str = "mode: observe\nprofiles: [dense-node]\n";

#[test]
fn fault_46_capabilities_that_are_missing_cost_what_they_give_and_no_more() {
    let Some(_host) = root_or_skip() else { return };
    for dropped in ["-all", "-sys_admin", "-net_admin", "-sys_ptrace", "-dac_override", "-chown"] {
        let home = Home::new();
        home.configure(LOOKING);
        let bounding = format!("--bounding-set={dropped}");
        let inherited = format!("--inh-caps={dropped}");
        let mut agent = home.launch(home.wrapped(&["setpriv", &bounding, &inherited], ["run"]));
        agent.wait_until(dropped, Agent::is_ready);
        let scrape = agent.metrics();
        for family in ["ipv4", "ipv6"] {
            let label = [("family", family)];
            for name in ["entries", "entries_peak", "gc_thresh3", "table_fulls_total"] {
                let name = format!("headroom_neighbor_{name}");
                assert!(scrape.value(&name, &label).is_some(), "{dropped}: {name} {family}");
            }
        }
        let failing: Vec<_> =
            scrape.family("headroom_collector_success").filter(|(_, ok)| *ok != 1.0).collect();
        assert_eq!(failing, [], "{dropped}");
        assert_eq!(agent.terminate(), Some(0), "{dropped}");
    }
}

#[test]
fn root_without_any_capability_tunes_the_network() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let mut agent = home.launch(home.wrapped(&wrapper, ["run"]));
    agent.wait_until("ready", Agent::is_ready);
    assert_eq!(netns.read(SOMAXCONN), "10000");
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn as_nobody_it_watches_and_says_what_it_may_not() {
    let Some(_host) = root_or_skip() else { return };
    let home = Home::new();
    // Where nobody may go.
    let open = tempfile::Builder::new().prefix("headroom-test-").tempdir().unwrap();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(open.path(), 0o755);
    let (program, config) = (open.path().join("headroom"), open.path().join("config.yaml"));
    fs::copy(binary(), &program).unwrap();
    let runtime = open.path().join("runtime");
    fs::create_dir(&runtime).unwrap();
    chown(&runtime, Some(NOBODY), Some(NOBODY)).unwrap();
    fs::write(
        &config,
        format!(
            "apiVersion: headroom/v1\nkind: AgentConfig\nprofiles: [dense-node]\n\
             server: {{ listen: [\"{}\"] }}\n",
            home.address()
        ),
    )
    .unwrap();
    mode(&config, 0o644);

    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    command.args(["run", "--config"]).arg(&config).env("XDG_RUNTIME_DIR", &runtime);
    let mut agent = home.launch(command);
    agent.socket = runtime.join("headroom/agent.sock");
    agent.wait_until("ready", Agent::is_ready);
    assert!(runtime.join("headroom/lock").exists());
    assert_eq!(agent.get("/readyz").status, 200);

    let status = agent.status();
    let keys = status["keys"].as_array().unwrap();
    let unmet: Vec<_> = keys.iter().filter(|key| key["inSync"] == false).collect();
    for key in &unmet {
        let state = key["state"].as_str().unwrap();
        assert!(["denied", "pending", "unsupported"].contains(&state), "{key}");
        assert!(key["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{key}");
    }
    let denied = unmet.iter().filter(|key| key["state"] == "denied");
    assert!(denied.clone().all(|key| key["detail"].to_string().contains("EACCES")), "{unmet:?}");
    // Unless this machine meets the whole profile already.
    assert!(denied.count() > 0 || unmet.is_empty(), "{status:#}");
    let scrape = agent.metrics();
    for family in ["ipv4", "ipv6"] {
        assert!(scrape.value("headroom_neighbor_entries", &[("family", family)]).is_some());
    }
    assert_eq!(scrape.value("headroom_sysctl_writes_total", &[("result", "ok")]), Some(0.0));
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn fault_32_a_port_that_is_taken_is_named_and_taken_later() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let address = home.address();
    let taken = home.enter(|| TcpListener::bind(address).unwrap());
    let mut agent = home.launch(home.command(["run"]));
    agent.wait_until_it_answers();
    agent.wait_until("tuning", |_| netns.read(SOMAXCONN) == "10000");
    agent.wait_until("told", |agent| agent.ask("/readyz/listeners").status == 500);

    let holder = format!("(pid {})", std::process::id());
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    let reason = agent.ask("/readyz/listeners").body;
    for part in [address.to_string().as_str(), "is taken by", comm.trim(), &holder] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert_eq!(agent.ask("/livez").status, 200);
    let logged = agent.log_with(&["cannot listen", &address.to_string(), &holder]);
    assert_eq!(logged.len(), 1, "once, not at every attempt");
    assert_eq!(home.run(["health", "ready"]).code, Some(1));
    assert_eq!(home.run(["health", "live"]).code, Some(0));

    drop(taken);
    agent.wait_until("ready", Agent::is_ready);
    assert_eq!(agent.get("/readyz").body, "ok");
}

#[test]
fn fault_40_a_state_directory_that_cannot_be_used_is_said_and_no_more() {
    let Some(host) = root_or_skip() else { return };
    for (what, wrapper, state) in [
        ("cannot be created", "exec \"$@\"", "/proc/headroom/state"),
        ("is a file", "exec \"$@\"", "/etc/hostname"),
        ("read-only", "mount -t tmpfs -o ro none /mnt && exec \"$@\"", "/mnt"),
        // Room for the lock, and for nothing else.
        ("full", "mount -t tmpfs -o size=4k none /mnt && exec \"$@\"", "/mnt"),
    ] {
        let netns = node(&host);
        let original = netns.read(SOMAXCONN);
        let home = Home::inside(&netns);
        home.configure(&(wanted("net.core.somaxconn: 10000") + &format!("state: {state}\n")));
        let wrapper = ["unshare", "--mount", "sh", "-c", wrapper, "sh"];
        let mut agent = home.launch(home.wrapped(&wrapper, ["run"]));
        agent.wait_until("ready", Agent::is_ready);
        assert_eq!(netns.read(SOMAXCONN), "10000", "{what}");
        let notices = agent.status()["notices"].to_string();
        assert!(notices.contains("the ledger cannot be kept"), "{what}: {notices}");
        assert!(notices.contains(state), "{what}: {notices}");
        let said = agent.log_with(&["the ledger cannot be kept"]);
        // Reading and writing may fail for reasons of their own.
        assert!((1..=2).contains(&said.len()), "{what}: {said:?}");
        // In memory it is kept all the same.
        home.configure(&(wanted("net.ipv4.tcp_syncookies: 1") + &format!("state: {state}\n")));
        agent.signal(Signal::SIGHUP);
        agent.wait_until("put back", |_| netns.read(SOMAXCONN) == original);
        assert_eq!(agent.terminate(), Some(0), "{what}");
    }
}

#[test]
fn fault_40_a_ledger_that_makes_no_sense_is_put_aside() {
    let Some(host) = root_or_skip() else { return };
    for (what, content, said) in [
        ("cut off", "{\"version\": 1, \"bootId\"", "made no sense"),
        ("not text", "\u{0}\u{1}\u{2}", "made no sense"),
        ("later", "{\"version\": 7, \"what\": []}", "later version"),
    ] {
        let netns = node(&host);
        let home = Home::inside(&netns);
        home.configure(&wanted("net.core.somaxconn: 10000"));
        fs::create_dir(home.state()).unwrap();
        fs::write(home.state().join("ledger.json"), content).unwrap();
        let agent = home.start();
        assert_eq!(netns.read(SOMAXCONN), "10000", "{what}");
        assert_eq!(agent.log_with(&[said]).len(), 1, "{what}");
        let kept = ["ledger.json", "ledger.unreadable"]
            .map(|name| fs::read_to_string(home.state().join(name)).unwrap_or_default());
        assert!(kept.contains(&content.to_owned()), "{what}: {kept:?}");
    }
}

#[test]
fn fault_45_a_read_only_proc_sys_is_named_and_watching_goes_on() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let original = netns.read(SOMAXCONN);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let script = "mount --bind -o ro /proc/sys /proc/sys && exec \"$@\"";
    let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
    let mut agent = home.launch(home.wrapped(&wrapper, ["run"]));
    agent.wait_until_it_answers();
    agent.wait_until("told", |agent| agent.key("net.core.somaxconn")["state"] == "denied");
    let detail = agent.key("net.core.somaxconn")["detail"].to_string();
    assert!(detail.contains("EROFS") && detail.contains("/host/proc/sys"), "{detail}");
    assert!(agent.ask("/readyz").body.contains("mounted read-only"));
    assert_eq!(netns.read(SOMAXCONN), original);
    agent.wait_until("watching", |agent| agent.ask("/readyz/watchers").status == 200);

    home.configure(&(wanted("net.core.somaxconn: 10000") + "mode: observe\n"));
    agent.signal(Signal::SIGHUP);
    agent.wait_until("ready", Agent::is_ready);
    assert_eq!(agent.key("net.core.somaxconn")["state"], "observed");
}

#[test]
fn fault_50_a_log_that_nobody_reads_stops_nothing() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    for closed in [true, false] {
        let home = Home::inside(&netns);
        home.configure(&wanted("net.core.somaxconn: 10000"));
        // A reader that is gone, and one that never reads.
        let script = match closed {
            true => "exec \"$@\" 2> >(exec true)",
            false => "exec \"$@\" 2> >(exec sleep 20 >/dev/null 2>&1)",
        };
        let mut agent = home.launch(home.wrapped(&["bash", "-c", script, "bash"], ["run"]));
        agent.wait_until("ready", Agent::is_ready);
        // Far more than a pipe and the agent's own queue hold: a warning for each of these keys.
        let unknown: String =
            (0..90).map(|n| format!(", vm.no{n}: {{ value: 1, required: false }}")).collect();
        home.configure(&wanted(&format!("net.core.somaxconn: 10000{unknown}")));
        for _ in 0..25 {
            agent.signal(Signal::SIGHUP);
            for _ in 0..5 {
                assert_eq!(agent.ask("/livez").status, 200);
            }
        }
        netns.write(SOMAXCONN, "777");
        agent.wait_until("the value back", |_| netns.read(SOMAXCONN) == "10000");
        assert_eq!(agent.terminate(), Some(0));
    }
}

#[test]
fn fault_50_without_standard_descriptors_and_with_umask_077() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    home.configure(&wanted("net.core.somaxconn: 10000"));
    let script = "umask 077; exec \"$@\" <&- >&- 2>&-";
    let mut agent = home.launch(home.wrapped(&["sh", "-c", script, "sh"], ["run"]));
    agent.wait_until("ready", Agent::is_ready);
    assert_eq!(netns.read(SOMAXCONN), "10000");
    let mode = fs::metadata(home.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn the_sockets_alone_answer_where_nothing_is_listened_on() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    let server = format!("server: {{ listen: [], socket: {} }}\n", home.socket().display());
    home.configure(&(wanted("net.core.somaxconn: 10000") + &server));
    let agent = home.start();
    let done: Finished = home.run(["health", "ready"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.ends_with("readyz check passed\n"), "{done:?}");
    let address = home.address();
    assert!(home.enter(|| std::net::TcpStream::connect(address)).is_err());
    drop(agent);
}
