//! A configuration that changes while the agent runs: nobody tells the agent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]
#![allow(missing_docs)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use headroom_tests::agent_process::{Agent, Finished, Home, binary};
use headroom_tests::{Mount, Namespace, Pods, SavedSysctls, private_mounts, root_or_skip};
use nix::sys::signal::Signal;

const SOMAXCONN: &str = "net/core/somaxconn";
const BACKLOG: &str = "net/ipv4/tcp_max_syn_backlog";

fn somaxconn(value: u32) -> String {
    format!("hostNetns: current\nsysctls: {{ net.core.somaxconn: {value} }}\n")
}

/// An agent whose configuration is elsewhere than in its home.
fn run_with(config: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["run", "--config"]).arg(config);
    command
}

fn wait_for(agent: &mut Agent<'_>, netns: &Namespace, value: u32) {
    let value = value.to_string();
    agent.wait_until(&format!("at {value}"), |_| netns.read(SOMAXCONN) == value);
}

fn reload_error(agent: &Agent<'_>) -> Option<String> {
    agent.status()["config"]["reloadError"].as_str().map(str::to_owned)
}

fn successful(agent: &Agent<'_>) -> Option<f64> {
    agent.metrics().value("headroom_config_last_reload_successful", &[])
}

fn wait_until_good(agent: &mut Agent<'_>) {
    agent.wait_until("good", |agent| {
        reload_error(agent).is_none() && successful(agent) == Some(1.0)
    });
}

fn wait_until_bad(agent: &mut Agent<'_>, why: &str) {
    agent.wait_until(why, |agent| reload_error(agent).is_some_and(|error| error.contains(why)));
    assert_eq!(successful(agent), Some(0.0));
    assert!(agent.status()["notices"].to_string().contains("configuration not reloaded"));
}

fn hash(agent: &Agent<'_>) -> String {
    agent.status()["config"]["hash"].as_str().unwrap().to_owned()
}

fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    fs::write(&next, content).unwrap();
    fs::rename(next, path).unwrap();
}

/// A ConfigMap's volume, updated as the kubelet does (`AtomicWriter`).
struct ConfigMap {
    directory: PathBuf,
    round: u32,
}

impl ConfigMap {
    fn new(directory: PathBuf, content: &str) -> Self {
        fs::create_dir(&directory).unwrap();
        let mut map = Self { directory, round: 0 };
        map.update(content);
        symlink("..data/config.yaml", map.file()).unwrap();
        map
    }

    fn file(&self) -> PathBuf {
        self.directory.join("config.yaml")
    }

    fn update(&mut self, content: &str) {
        let path = |name: &str| self.directory.join(name);
        let old = fs::read_link(path("..data"));
        self.round += 1;
        let new = format!("..2026_10_01_12_00_00.{}", self.round);
        fs::create_dir(path(&new)).unwrap();
        fs::write(path(&new).join("config.yaml"), content).unwrap();
        symlink(&new, path("..data_tmp")).unwrap();
        fs::rename(path("..data_tmp"), path("..data")).unwrap();
        if let Ok(old) = old {
            fs::remove_dir_all(self.directory.join(old)).unwrap();
        }
    }
}

#[test]
fn a_config_map_that_is_swapped_takes_effect_and_a_key_that_left_is_put_back() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let original = netns.read(SOMAXCONN);
    let home = Home::inside(&netns);
    let mut map = ConfigMap::new(home.path("map"), &home.document(&somaxconn(10000)));
    let mut agent = home.launch(run_with(&map.file()));
    agent.wait_until("ready", Agent::is_ready);
    let first = hash(&agent);
    for value in [10001, 10002, 10003] {
        map.update(&home.document(&somaxconn(value)));
        wait_for(&mut agent, &netns, value);
    }
    assert_ne!(hash(&agent), first);
    let other = "hostNetns: current\nsysctls: { net.ipv4.tcp_max_syn_backlog: 4321 }\n";
    map.update(&home.document(other));
    agent.wait_until("put back", |_| netns.read(SOMAXCONN) == original);
    agent.wait_until("set", |_| netns.read(BACKLOG) == "4321");
    wait_until_good(&mut agent);
    assert_eq!(agent.status()["notices"].to_string(), "[]");
}

#[test]
fn a_file_that_is_edited_takes_effect_however_it_is_edited() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&somaxconn(10000));
    let mut agent = home.start();
    let config = home.config();
    let mut value = 10000;
    let mut next = |agent: &mut Agent<'_>, edit: &dyn Fn(&str)| {
        value += 1;
        edit(&home.document(&somaxconn(value)));
        wait_for(agent, &netns, value);
    };
    let write = |content: &str| fs::write(&config, content).unwrap();
    let remove_and_create = |content: &str| {
        fs::remove_file(&config).unwrap();
        write(content);
    };
    // Twice each: what is watched has to follow.
    for _ in 0..2 {
        next(&mut agent, &write);
        next(&mut agent, &|content| replace(&config, content));
        next(&mut agent, &remove_and_create);
    }
    // A link to somewhere else, and what happens there.
    fs::create_dir(home.path("elsewhere")).unwrap();
    let elsewhere = home.path("elsewhere/config");
    next(&mut agent, &|content| {
        fs::write(&elsewhere, content).unwrap();
        fs::remove_file(&config).unwrap();
        symlink("elsewhere/config", &config).unwrap();
    });
    for _ in 0..2 {
        next(&mut agent, &|content| fs::write(&elsewhere, content).unwrap());
        next(&mut agent, &|content| replace(&elsewhere, content));
    }
    // A directory on the way that is made anew.
    next(&mut agent, &|content| {
        fs::remove_dir_all(home.path("elsewhere")).unwrap();
        fs::create_dir(home.path("elsewhere")).unwrap();
        fs::write(&elsewhere, content).unwrap();
    });
    next(&mut agent, &|content| fs::write(&elsewhere, content).unwrap());
    wait_until_good(&mut agent);
}

#[test]
fn fault_36_a_bad_configuration_is_told_once_and_the_last_good_one_stays() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    let good = home.document(&somaxconn(10000));
    let mut map = ConfigMap::new(home.path("map"), &good);
    let mut agent = home.launch(run_with(&map.file()));
    agent.wait_until("ready", Agent::is_ready);
    let first = hash(&agent);

    let bad = home.document("mode: sometimes\n");
    map.update(&bad);
    wait_until_bad(&mut agent, "sometimes");
    let said = |agent: &Agent<'_>| agent.log_with(&["ERROR", "sometimes"]).len();
    assert_eq!((hash(&agent), said(&agent)), (first.clone(), 1));
    // The same once more: no news. What comes after it is.
    map.update(&bad);
    sleep(Duration::from_millis(600));
    map.update(&home.document("sysctls: { net.core.som"));
    wait_until_bad(&mut agent, "syntax");
    assert_eq!(said(&agent), 1);
    assert!(agent.is_ready());

    // Back to what is in force.
    map.update(&good);
    wait_until_good(&mut agent);
    assert_eq!(hash(&agent), first);
    assert_eq!(agent.log_with(&["again the one in force"]).len(), 1);
    assert_eq!(agent.log_with(&["configuration loaded"]).len(), 0);

    // From bad to another good one.
    map.update(&bad);
    wait_until_bad(&mut agent, "sometimes");
    map.update(&home.document(&somaxconn(10001)));
    wait_for(&mut agent, &netns, 10001);
    wait_until_good(&mut agent);

    // The key is taken out of the ConfigMap.
    fs::remove_file(map.file()).unwrap();
    wait_until_bad(&mut agent, "does not exist");
    // What would keep a reader waiting for ever.
    assert!(Command::new("mkfifo").arg(map.file()).status().unwrap().success());
    wait_until_bad(&mut agent, "not a regular file");
    let refused = home.enter(|| Finished::of(&mut run_with(&map.file()), b""));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert_eq!(netns.read(SOMAXCONN), "10001");
    fs::remove_file(map.file()).unwrap();
    symlink("..data/config.yaml", map.file()).unwrap();
    wait_until_good(&mut agent);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn fault_37_a_storm_of_writes_is_not_waited_out_and_ends_with_the_last_one() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&somaxconn(10000));
    let mut agent = home.start();
    let mut writes = 0;
    // However long it goes on, something is loaded meanwhile.
    while writes < 200 || agent.log_with(&["configuration loaded"]).is_empty() {
        writes += 1;
        let content = home.document(&somaxconn(20000 + writes % 1000));
        match writes % 3 {
            0 => fs::write(home.config(), content).unwrap(),
            1 => replace(&home.config(), &content),
            _ => home.configure("mode: sometimes\n"),
        }
        sleep(Duration::from_millis(10));
    }
    home.configure(&somaxconn(30000));
    wait_for(&mut agent, &netns, 30000);
    wait_until_good(&mut agent);
    assert!(agent.is_ready());
}

#[test]
fn sighup_loads_what_has_not_changed() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&somaxconn(10000));
    let mut agent = home.start();
    for times in 1..=2 {
        agent.signal(Signal::SIGHUP);
        agent
            .wait_until("loaded", |agent| agent.log_with(&["configuration loaded"]).len() == times);
    }
}

#[test]
fn what_takes_effect_at_once_does_and_what_does_not_is_said() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    netns.ip(["link", "add", "br0", "type", "bridge"]);
    netns.ip(["link", "add", "br1", "type", "bridge"]);
    let home = Home::inside(&netns);
    home.configure(
        &(somaxconn(10000) + "watch: { sysctlSweep: 1h, neighborScan: 1h, bridges: [br0] }\n"),
    );
    let mut agent = home.start();
    let bridges = |agent: &Agent<'_>| agent.status()["bridges"].as_array().unwrap().len();
    agent.wait_until("watching one bridge", |agent| bridges(agent) == 1);
    let scanned = |agent: &Agent<'_>| {
        let name = "headroom_neighbor_scan_timestamp_seconds";
        agent.metrics().value(name, &[("family", "ipv4")])
    };
    let first = scanned(&agent);

    let watch = "watch: { sysctlSweep: 1s, neighborScan: 1s, bridges: [\"*\"] }\n";
    let log = "log: { level: debug, format: json }\n";
    home.configure(&(somaxconn(10001) + watch + log));
    wait_for(&mut agent, &netns, 10001);
    agent.wait_until("watching both", |agent| bridges(agent) == 2);
    agent.wait_until("scanned again", |agent| scanned(agent) > first);
    netns.write(SOMAXCONN, "777");
    wait_for(&mut agent, &netns, 10001);
    let restart = "takes effect only at the next start";
    assert_eq!(agent.log_with(&[restart, "log.format"]).len(), 1);
    assert!(agent.status()["notices"].to_string().contains("log.format"));
    netns.ip(["link", "add", "br2", "type", "bridge"]);
    agent.wait_until("watching a third", |agent| bridges(agent) == 3);

    home.configure(&(somaxconn(10002) + watch));
    wait_for(&mut agent, &netns, 10002);
    agent.wait_until("silent", |agent| !agent.status()["notices"].to_string().contains(restart));
}

/// The default configuration's place is the machine's own, so it is made anew for this test; and
/// the embedded default wants keys of the host, so none can be written.
#[test]
fn a_default_file_that_appears_takes_effect_and_stays_in_force_when_it_goes() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    private_mounts(|| {
        let keys = Mount::bind("/proc/sys", "/proc/sys");
        keys.set_read_only(true);
        let _etc = Mount::file_system("tmpfs", "/etc", "");
        let _run = Mount::file_system("tmpfs", "/run", "");
        let mut command = Command::new(binary());
        command.args(["run", "--socket"]).arg(home.socket());
        let mut agent = home.launch(command);
        agent.wait_until_it_answers();
        let source = |agent: &Agent<'_>| agent.status()["config"]["source"].clone();
        assert_eq!(source(&agent), "embedded");
        let embedded = hash(&agent);

        // First the directory, which is not there either.
        fs::create_dir("/etc/headroom").unwrap();
        let file = Path::new("/etc/headroom/config.yaml");
        fs::write(file, home.document("mode: sometimes\n")).unwrap();
        wait_until_bad(&mut agent, "sometimes");
        fs::remove_file(file).unwrap();
        wait_until_good(&mut agent);
        assert_eq!(hash(&agent), embedded, "the embedded default is in force all the time");

        let observe = home.document("mode: observe\n");
        fs::write(file, &observe).unwrap();
        agent.wait_until("loaded", |agent| source(agent) == "file");
        let loaded = hash(&agent);

        // To go back to writing because a file is gone would be the wrong way to be safe.
        for forced in [false, true] {
            fs::remove_file(file).unwrap();
            wait_until_bad(&mut agent, "the file is gone");
            if forced {
                agent.signal(Signal::SIGHUP);
                agent.wait_until("told", |agent| agent.log_with(&["the file is gone"]).len() == 3);
            }
            assert_eq!(hash(&agent), loaded);
            assert_eq!(agent.status()["config"]["mode"], "observe");
            fs::write(file, &observe).unwrap();
            wait_until_good(&mut agent);
        }

        fs::remove_dir_all("/etc/headroom").unwrap();
        wait_until_bad(&mut agent, "the file is gone");
        fs::create_dir("/etc/headroom").unwrap();
        fs::write(file, home.document("mode: observe\nlog: { level: debug }\n")).unwrap();
        agent.wait_until("another", |agent| hash(agent) != loaded);
        wait_until_good(&mut agent);
    });
}

#[test]
fn a_file_that_is_mounted_by_itself_is_said() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    let mounted = home.path("mounted.yaml");
    fs::write(&mounted, "").unwrap();
    private_mounts(|| {
        let volume = home.path("kubernetes.io~configmap");
        fs::create_dir(&volume).unwrap();
        let mut map = ConfigMap::new(volume.join("config"), &home.document(&somaxconn(10000)));
        {
            let _mount = Mount::bind(map.file(), &mounted);
            let mut agent = home.launch(run_with(&mounted));
            agent.wait_until("ready", Agent::is_ready);
            assert_eq!(agent.log_with(&["WARN", "subPath", "as a directory"]).len(), 1);
            assert!(agent.status()["notices"].to_string().contains("subPath"));
            let shown = home.enter(|| {
                let mut status = Command::new(binary());
                Finished::of(status.arg("status").arg("--config").arg(&mounted), b"")
            });
            assert!(shown.stderr.contains("subPath"), "{shown:?}");
            // Which is true: what the kubelet does is not even seen by a forced load.
            let before = hash(&agent);
            map.update(&home.document(&somaxconn(10001)));
            agent.signal(Signal::SIGHUP);
            agent
                .wait_until("loaded", |agent| agent.log_with(&["configuration loaded"]).len() == 1);
            assert_eq!(hash(&agent), before);
        }
        // A directory is how it should be.
        let mut agent = home.launch(run_with(&map.file()));
        agent.wait_until("ready", Agent::is_ready);
        assert_eq!(agent.status()["notices"].to_string(), "[]");
        drop(agent);

        let source = home.path("source.yaml");
        fs::write(&source, home.document(&somaxconn(10002))).unwrap();
        let _mount = Mount::bind(&source, &mounted);
        let mut agent = home.launch(run_with(&mounted));
        agent.wait_until("ready", Agent::is_ready);
        assert_eq!(agent.log_with(&["WARN", "mount its directory instead"]).len(), 1);
        // What is written at the other place is an event of the file.
        fs::write(&source, home.document(&somaxconn(10003))).unwrap();
        wait_for(&mut agent, &netns, 10003);
    });
}

#[test]
fn pods_are_looked_for_where_the_configuration_says_now() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let (before, mut after) = (Pods::new(&host), Pods::new(&host));
    (0..40).for_each(|number| after.create(format!("pod-{number}")));
    let home = Home::inside(&netns);
    home.configure(&before.configuration());
    let mut agent = home.start();
    let scanned = |agent: &Agent<'_>| {
        agent.metrics().value("headroom_neighbor_scan_namespaces", &[("state", "scanned")])
    };
    let used = |agent: &Agent<'_>| {
        let labels = [("limit", "net_namespaces"), ("object", "uid 0")];
        agent.metrics().value("headroom_limit_used", &labels)
    };
    let pods = |agent: &Agent<'_>| agent.status()["capacity"]["pods"].as_u64();
    agent.wait_until("looked at", |agent| {
        scanned(agent) == Some(1.0) && used(agent).is_some() && pods(agent) == Some(0)
    });
    let first = used(&agent).unwrap();
    home.configure(&after.configuration());
    agent.wait_until("counting", |agent| pods(agent) == Some(40));
    agent.wait_until("scanning", |agent| scanned(agent) == Some(41.0));
    // Others' namespaces may come and go.
    agent.wait_until("following", |agent| used(agent).is_some_and(|used| used > first + 20.0));
}

#[test]
fn without_inotify_it_is_looked_at_instead() {
    let Some(host) = root_or_skip() else { return };
    let netns = Namespace::new(&host);
    let home = Home::inside(&netns);
    home.configure(&somaxconn(10000));
    let instances = "fs/inotify/max_user_instances";
    let saved = SavedSysctls::new(&host, [instances]);
    fs::write(Path::new("/proc/sys").join(instances), "0").unwrap();
    let mut agent = home.launch(home.command(["run"]));
    agent.wait_until("ready", Agent::is_ready);
    drop(saved);
    let said = ["EMFILE", "instead of watched", "fs.inotify.max_user_instances"];
    assert_eq!(agent.log_with(&said).len(), 1);
    assert!(agent.status()["notices"].to_string().contains("instead of watched"));
    home.configure(&somaxconn(10001));
    wait_for(&mut agent, &netns, 10001);
}
