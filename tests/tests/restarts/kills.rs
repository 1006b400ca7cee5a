//! The agent is killed again and again, in the middle of its work, and afterwards `restore` gives
//! back every original.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::time::{Duration, Instant};

use headroom_tests::agent_process::{Agent, Home};
use headroom_tests::{HostLock, Namespace, WriteWatch, root_or_skip};
use nix::sys::signal::Signal;

const ROUNDS: u64 = 200;

/// Keys of a namespace with the values that they have before or are to have. None is the
/// kernel's default where it has a choice.
const KEYS: [(&str, &[&str]); 45] = [
    ("net/core/somaxconn", &["4001", "5001", "10000"]),
    ("net/unix/max_dgram_qlen", &["20", "300", "512"]),
    ("net/ipv4/tcp_max_syn_backlog", &["300", "4321", "8000"]),
    ("net/ipv4/tcp_fin_timeout", &["30", "61", "90"]),
    ("net/ipv4/tcp_keepalive_time", &["300", "600", "7100"]),
    ("net/ipv4/tcp_keepalive_intvl", &["10", "20", "70"]),
    ("net/ipv4/tcp_keepalive_probes", &["3", "5", "8"]),
    ("net/ipv4/tcp_syncookies", &["0", "2"]),
    ("net/ipv4/tcp_notsent_lowat", &["16384", "65536", "131072"]),
    ("net/ipv4/tcp_retries2", &["6", "8", "14"]),
    ("net/ipv4/tcp_slow_start_after_idle", &["0", "1"]),
    ("net/ipv4/ip_no_pmtu_disc", &["1", "2"]),
    ("net/ipv4/igmp_max_memberships", &["21", "50", "70"]),
    // Rounded by the kernel where HZ is not 1000.
    ("net/ipv4/icmp_ratelimit", &["900", "1001", "2000"]),
    ("net/ipv4/tcp_rmem", &["4096 65536 7000000", "8192 65536 7000000", "8192 99999 33554432"]),
    ("net/ipv4/tcp_wmem", &["4096 65536 7000000", "8192 65536 7000000", "8192 99999 33554432"]),
    ("net/ipv4/ping_group_range", &["5 9", "0 100"]),
    ("net/ipv4/ip_local_reserved_ports", &["8080", "9000-9010,9100"]),
    // Two names of one value, of which the other one is finer.
    ("net/ipv4/neigh/b0/base_reachable_time", &["31", "77"]),
    ("net/ipv4/neigh/b1/retrans_time_ms", &["1001", "2003", "3000"]),
    // Reaches interfaces without a value of their own.
    ("net/ipv4/conf/default/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/default/arp_ignore", &["1", "2", "3"]),
    // Changed along by ip_forward.
    ("net/ipv4/conf/all/accept_redirects", &["0", "1"]),
    ("net/ipv4/conf/b0/forwarding", &["0", "1"]),
    ("net/ipv4/conf/b1/forwarding", &["0", "1"]),
    ("net/ipv4/conf/b2/forwarding", &["0", "1"]),
    ("net/ipv4/conf/f0/forwarding", &["0", "1"]),
    ("net/ipv4/conf/b0/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/b1/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/b2/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/f0/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/b0/rp_filter", &["1", "2"]),
    ("net/ipv4/conf/b1/rp_filter", &["1", "2"]),
    ("net/ipv4/conf/f0/arp_ignore", &["1", "2", "3"]),
    ("net/ipv6/conf/b0/forwarding", &["0", "1", "2"]),
    ("net/ipv6/conf/b1/forwarding", &["0", "1", "2"]),
    ("net/ipv6/conf/f0/forwarding", &["0", "1", "2"]),
    ("net/ipv6/conf/b0/disable_ipv6", &["0", "1"]),
    ("net/ipv6/conf/b1/disable_ipv6", &["0", "1"]),
    ("net/ipv6/conf/b0/hop_limit", &["33", "44", "55"]),
    ("net/ipv6/conf/b1/hop_limit", &["33", "44", "55"]),
    ("net/ipv6/conf/default/hop_limit", &["33", "44", "55"]),
    ("net/ipv4/ip_forward", &["0", "1"]),
    ("net/ipv6/conf/all/forwarding", &["0", "1", "2"]),
    ("net/ipv6/conf/all/disable_ipv6", &["0", "1"]),
];

/// A key and its patterns: the last that matches wins, and a key of its own before any.
const PATTERNS: [(&str, &[&str]); 4] = [
    ("net/ipv4/conf/*/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/b*/tag", &["3", "5", "7"]),
    ("net/ipv4/conf/*/rp_filter", &["1", "2"]),
    ("net/ipv4/conf/*/arp_ignore", &["1", "2", "3"]),
];

/// The kernel refuses a range that begins below the first unprivileged port, so they go together.
const PORTS: [(&str, &str); 3] =
    [("33000 60000", "1000"), ("40000 61000", "35000"), ("500 60000", "100")];
const RANGE: &str = "net/ipv4/ip_local_port_range";
const START: &str = "net/ipv4/ip_unprivileged_port_start";

/// Another process writes these, a value that nobody else does.
const FOREIGN: [(&str, &str); 3] = [
    ("net/core/somaxconn", "777"),
    ("net/ipv4/tcp_fin_timeout", "47"),
    ("net/ipv4/tcp_rmem", "4097 70000 7000001"),
];

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }
}

/// All that can be changed, with what the kernel changes along.
fn paths() -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = KEYS.iter().map(|(path, _)| (*path).to_owned()).collect();
    paths.extend([RANGE, START].map(str::to_owned));
    for interface in ["all", "default", "lo", "b0", "b1", "b2", "f0"] {
        for leaf in ["forwarding", "tag", "rp_filter", "arp_ignore", "accept_redirects"] {
            paths.insert(format!("net/ipv4/conf/{interface}/{leaf}"));
        }
        for leaf in ["forwarding", "disable_ipv6", "hop_limit"] {
            paths.insert(format!("net/ipv6/conf/{interface}/{leaf}"));
        }
    }
    paths.insert("net/ipv4/neigh/b0/base_reachable_time_ms".to_owned());
    paths
}

fn values(netns: &Namespace, paths: &BTreeSet<String>) -> BTreeMap<String, String> {
    netns.run(|| {
        let read = |path: &String| {
            let text = fs::read_to_string(format!("/proc/sys/{path}"));
            let text = text.unwrap_or_else(|error| panic!("{path}: {error}"));
            (path.clone(), text.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        paths.iter().map(read).collect()
    })
}

/// Values that are not the kernel's, and one interface that has none of its own.
fn perturb(netns: &Namespace, random: &mut Random) {
    let _ = netns.try_ip(["link", "delete", "f0"]);
    let (range, start) = random.of(&PORTS);
    let mut values = vec![(START, "0"), (RANGE, range), (START, start)];
    // Switches first, then what they change.
    values.extend(KEYS.iter().rev().map(|(path, choices)| (*path, random.of(choices))));
    let of_fresh = |(path, _): &(&str, &str)| path.contains("/f0/");
    let write = |values: &[(&str, &str)]| {
        for (path, value) in values {
            fs::write(format!("/proc/sys/{path}"), value)
                .unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
        }
    };
    let (fresh, others): (Vec<_>, Vec<_>) = values.into_iter().partition(of_fresh);
    netns.run(|| write(&others));
    netns.ip(["link", "add", "f0", "type", "bridge"]);
    if random.one_in(3) {
        netns.run(|| write(&fresh));
    }
    if random.one_in(2) {
        let odd = ["31000", "31500", "77300"];
        netns.write("net/ipv4/neigh/b0/base_reachable_time_ms", random.of(&odd));
    }
}

/// A configuration of some of the keys, and how many it has.
fn configuration(random: &mut Random) -> (String, usize) {
    let (mut lines, mut count) = (String::new(), 0);
    let mut add = |path: &str, value: &str| {
        writeln!(lines, "  {path}: \"{value}\"").unwrap();
        count += 1;
    };
    let share = 1 + random.below(4);
    for (path, choices) in PATTERNS.iter().chain(&KEYS) {
        if random.below(4) < share {
            add(path, random.of(choices));
        }
    }
    if random.one_in(2) {
        let (range, start) = random.of(&PORTS);
        add(RANGE, range);
        add(START, start);
    }
    (format!("hostNetns: current\nsysctls:\n{lines}"), count)
}

/// How the kills came about.
#[derive(Debug, Default)]
struct Kills {
    all: u32,
    /// After the ledger was written and before it was written for the last time.
    inside: u32,
    /// Of these, how many times `restore` was killed. A start and a reload put back originals too.
    restores: u32,
}

struct Stage<'a> {
    home: &'a Home<'a>,
    netns: &'a Namespace,
    paths: BTreeSet<String>,
    random: Random,
    kills: Kills,
    /// What was done in this round, for whoever has to find out.
    story: Vec<String>,
    /// The ledger and the values after each kill.
    steps: Vec<(serde_json::Value, BTreeMap<String, String>)>,
}

impl Stage<'_> {
    fn watch(&self) -> WriteWatch {
        let state = self.home.state().to_str().unwrap().to_owned();
        let files = self.paths.iter().map(String::as_str).chain([state.as_str()]);
        self.netns.run(|| WriteWatch::new(files))
    }

    /// Kills it when it has written so many times, be it a key or the ledger, and a little later;
    /// or when it writes no more.
    fn kill(&mut self, command: &str, agent: &mut Agent<'_>, watch: &mut WriteWatch, keys: usize) {
        let writes = 1 + self.random.below(keys + 8);
        let later = Duration::from_micros(self.random.below(400) as u64);
        let mut written = 0;
        while written < writes
            && watch.wait(Duration::from_millis(if written == 0 { 2000 } else { 80 }))
        {
            written += watch.written().len();
        }
        let until = Instant::now() + later;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        agent.kill9();
        self.kills.all += 1;
        self.story.push(format!("killed after {written} writes of {writes}, {later:?} later"));
        self.count(command);
    }

    fn count(&mut self, command: &str) {
        let Some(records) = ledger(self.home) else { return };
        self.steps.push((records.clone(), values(self.netns, &self.paths)));
        let records = records.as_object().unwrap();
        let open = |record: &serde_json::Value| {
            record["stored"].is_null() && !record["intended"].is_null()
        };
        let inside = records.values().any(open);
        self.kills.inside += u32::from(inside);
        self.kills.restores += u32::from(inside && command == "restore");
    }

    /// What became of keys, kill by kill.
    fn history(&self, paths: &[&String], originals: &BTreeMap<String, String>) -> String {
        let mut lines = String::new();
        for path in paths {
            writeln!(lines, "{path}: original {}", originals[*path]).unwrap();
            for (records, values) in &self.steps {
                let record = &records[path.replace('/', ".")];
                writeln!(lines, "  now {}, on record {record}", values[*path]).unwrap();
            }
        }
        lines
    }

    fn round(&mut self) {
        let watch = &mut self.watch();
        for step in 0..=self.random.below(3) {
            let (document, keys) = configuration(&mut self.random);
            self.home.configure(&document);
            self.story.push(document);
            let home = self.home;
            // There is something to put back only after the first.
            let command = match self.random.below(if step == 0 { 6 } else { 9 }) {
                0 | 1 => "apply",
                2 | 3 => "run",
                4 | 5 => {
                    self.reload(watch);
                    continue;
                }
                _ => "restore",
            };
            self.story.push(command.to_owned());
            let _ = watch.written();
            let mut agent = home.launch(home.command([command]));
            self.kill(command, &mut agent, watch, keys);
        }
    }

    /// The agent runs, and is killed over the next configuration.
    fn reload(&mut self, watch: &mut WriteWatch) {
        let mut agent = self.home.start();
        let (document, keys) = configuration(&mut self.random);
        self.story.push(format!("reload\n{document}"));
        let _ = watch.written();
        self.home.configure(&document);
        agent.signal(Signal::SIGHUP);
        self.kill("run", &mut agent, watch, keys);
    }
}

/// What is on record; `None`: there is no ledger.
fn ledger(home: &Home<'_>) -> Option<serde_json::Value> {
    let bytes = fs::read(home.state().join("ledger.json")).ok()?;
    let mut ledger: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    Some(ledger["keys"].take())
}

fn node(host: &HostLock) -> Namespace {
    let netns = Namespace::new(host);
    for name in ["b0", "b1", "b2"] {
        netns.ip(["link", "add", name, "type", "bridge"]);
    }
    netns
}

#[test]
fn fault_39_killed_200_times_in_the_middle_of_its_work_every_original_comes_back() {
    let Some(host) = root_or_skip() else { return };
    let netns = node(&host);
    let home = Home::inside(&netns);
    fs::create_dir(home.state()).unwrap();
    let given = std::env::var("HEADROOM_SEED").ok().map(|text| text.parse::<u64>().unwrap());
    let mut stage = Stage {
        home: &home,
        netns: &netns,
        paths: paths(),
        random: Random(0),
        kills: Kills::default(),
        story: Vec::new(),
        steps: Vec::new(),
    };
    let started = Instant::now();
    for round in 0..ROUNDS {
        let seed = given.unwrap_or(0x5eed_0000_0000_0001) + round;
        stage.random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        stage.story.clear();
        stage.steps.clear();
        perturb(&netns, &mut stage.random);
        let originals = values(&netns, &stage.paths);
        stage.round();
        let foreign = stage.random.one_in(8).then(|| stage.random.of(&FOREIGN));
        if let Some((path, value)) = foreign {
            netns.write(path, value);
            stage.round();
        }
        let done = home.run(["restore"]);
        let mut now = values(&netns, &stage.paths);
        let mut left = ledger(&home).unwrap_or_default();
        if let Some((path, _)) = foreign {
            // Theirs, or put back after the agent had overwritten it: either may be, also where no
            // agent came as far as to write a ledger.
            now.insert(path.to_owned(), originals[path].clone());
            if let Some(records) = left.as_object_mut() {
                records.remove(&path.replace('/', "."));
            }
        }
        let lost: Vec<&String> =
            originals.keys().filter(|path| now[*path] != originals[*path]).collect();
        let empty = left.as_object().is_none_or(serde_json::Map::is_empty);
        let well = done.code == Some(0) && lost.is_empty() && empty;
        assert!(
            well,
            "round {round}, HEADROOM_SEED={seed}, not back: {lost:?}\n{}\n{}ledger: {left:#}\n{}{}",
            stage.story.join("\n"),
            stage.history(&lost, &originals),
            done.stdout,
            done.stderr,
        );
        if foreign.is_some() {
            // What another writer took over stays on record.
            let _ = fs::remove_file(home.state().join("ledger.json"));
        }
    }
    let kills = stage.kills;
    eprintln!("{ROUNDS} rounds in {:?}: {kills:?}", started.elapsed());
    assert!(kills.inside >= kills.all / 5 && kills.restores > 0, "{kills:?}");
}
