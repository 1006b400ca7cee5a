//! Everything at once: 1000 pods' namespaces on a bridge, 100 000 neighbor entries, kube-proxy's number
//! of rules, and all limits read by root with every capability.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use headroom::config::{PodNamespaces, Watch};
use headroom::kernel::tour::Tour;
use headroom::kernel::{kubepods, system};
use headroom::limits::neighbor::round::round;
use headroom::limits::netfilter::reader::Reader as Netfilter;
use headroom::limits::{self, Roots};
use headroom_tests::root_or_skip;

use crate::cost::Cost;
use crate::playground::{PREFIX, Playground};
use crate::programs::Daemon;
use crate::scrape::{Program, batch};
use crate::{Outcome, machine, stop};

/// As many rules as kube-proxy has for 1000 pods, in as many chains.
const RULES: usize = 23_000;
const CHAINS: usize = 1000;
/// Batches of scrapes: a slow reader that falls into one of them does not move the median.
const BATCHES: usize = 5;
/// Rounds of the readers of every scrape.
const CHEAP_ROUNDS: u32 = 200;
/// Share of a core that a slow reader may take: its interval stretches to stay below (design).
const SHARE: f64 = 0.0005;
/// Until the first round of each slow reader must be over.
const FIRST_ROUNDS: Duration = Duration::from_secs(60);
/// After them: what they needed was given back.
const SETTLED: Duration = Duration::from_secs(12);

/// How much of it, and for how long.
#[derive(Clone, Copy)]
pub struct Length {
    pub pods: usize,
    pub neighbors: usize,
    pub scrapes: usize,
    pub idle: Duration,
}

/// What one reader off the scrape's path costs.
pub struct Round {
    pub name: &'static str,
    /// CPU of the first round and of a later one.
    pub costs: [Duration; 2],
    /// How long it waits for the next one: its own interval, or longer.
    pub again: Duration,
}

/// What came of it.
pub struct Measured {
    pub length: Length,
    pub rules: usize,
    /// The agent, `node_exporter`, and that with its defaults.
    pub costs: [Option<Cost>; 3],
    /// Share of a core without scrapes, threads that have ended included.
    pub idle: f64,
    /// Of the machine, in that time.
    pub busy: f64,
    /// CPU of all readers that every scrape asks.
    pub cheap: Duration,
    pub rounds: Vec<Round>,
}

/// Fills the node, scrapes all programs by turns, leaves the agent alone, then asks each reader.
pub fn run(playground: &mut Playground, headroom: &Path, length: Length) -> Outcome<Measured> {
    // The neighbor tables are one for all: no test may count in them meanwhile.
    let _host = root_or_skip().ok_or("needs root")?;
    eprintln!("{} pods, {} neighbor entries", length.pods, length.neighbors);
    playground.add_pods(length.pods)?;
    let _processes = playground.populate_pods(length.pods, length.neighbors)?;
    let rules = Rules::add()?;
    crate::scrape::settle()?;

    let scratch = crate::scratch()?;
    let daemons = [
        Some(Daemon::dense(headroom, scratch.path())?),
        Some(Daemon::exporter(scratch.path())?),
        Some(Daemon::exporter_defaults(scratch.path())?),
    ];
    let [Some(agent), ..] = &daemons else { return Err("no agent".into()) };
    stop::until("the first round of every reader", FIRST_ROUNDS, || {
        let metrics = agent.get("/metrics")?;
        let has = |text: &str| metrics.windows(text.len()).any(|part| part == text.as_bytes());
        Ok(has("headroom_neighbor_scan_timestamp_seconds{") && has("backend=\"nftables\""))
    })?;
    stop::pause(SETTLED)?;

    eprintln!("{} s idle", length.idle.as_secs());
    let (before, ticks, begin) = (agent.own_cpu()?, machine::CpuTicks::now()?, Instant::now());
    stop::pause(length.idle)?;
    let used = agent.own_cpu()?.saturating_sub(before);
    let idle = used.as_secs_f64() / begin.elapsed().as_secs_f64();
    let busy = machine::CpuTicks::now()?.busy_since(&ticks);

    eprintln!("scrapes");
    let costs = scrapes(&daemons, length.scrapes, idle)?;
    drop(daemons);
    eprintln!("each reader");
    let (cheap, rounds) = readers()?;
    Ok(Measured { length, rules: rules.count, costs, idle, busy, cheap, rounds })
}

/// The batch of each program with the median CPU.
fn scrapes(daemons: &[Option<Daemon>; 3], scrapes: usize, idle: f64) -> Outcome<[Option<Cost>; 3]> {
    let [headroom, exporter, defaults] = daemons.each_ref().map(Option::as_ref);
    let mut batches = [Vec::new(), Vec::new()];
    batch([headroom, exporter], [idle, 0.0], 3)?;
    for _ in 0..BATCHES {
        let costs = batch([headroom, exporter], [idle, 0.0], scrapes)?;
        batches.iter_mut().zip(costs).for_each(|(all, cost)| all.extend(cost));
    }
    let [headroom, exporter] = batches.map(|mut all| {
        all.sort_by_key(|cost: &Cost| cost.cpu);
        let middle = all.len() / 2;
        (middle < all.len()).then(|| all.swap_remove(middle))
    });
    let [defaults] = batch([defaults], [0.0], 3)?;
    let mut costs = [const { None }; 3];
    costs[Program::Headroom as usize] = headroom;
    costs[Program::Exporter as usize] = exporter;
    costs[Program::ExporterDefaults as usize] = defaults;
    Ok(costs)
}

/// The agent's own readers, in this process: what they cost by themselves.
fn readers() -> Outcome<(Duration, Vec<Round>)> {
    let (proc, sys) = (PathBuf::from("/proc"), PathBuf::from("/sys"));
    let directories = PodNamespaces::default().directories;
    let cgroup = kubepods::cgroup_root(&sys);
    let roots = Roots { proc: proc.clone(), sys, cgroup, netns: directories.clone() };

    let mut cheap = limits::cheap(&roots);
    cheap.iter_mut().for_each(|reader| drop(reader.read()));
    let before = system::thread_cpu_time();
    for _ in 0..CHEAP_ROUNDS {
        cheap.iter_mut().for_each(|reader| drop(reader.read()));
    }
    let cheap = system::thread_cpu_time().saturating_sub(before) / CHEAP_ROUNDS;

    let mut rounds = Vec::new();
    let mut add = |name, every: Duration, costs: [Duration; 2]| {
        let again = every.max(costs[1].div_f64(SHARE));
        rounds.push(Round { name, costs, again });
    };
    let kernel = system::kernel_version(&system::uname().0);
    let watch = watch();
    let tour = Tour { proc_root: proc.clone(), directories };
    let scan = || -> Outcome<Duration> { Ok(round(&tour, &watch, kernel)?.cost) };
    add("neighbor entries, pods' connections", watch.neighbor_scan, [scan()?, scan()?]);
    let mut netfilter = Netfilter::new(&proc);
    let costs = [0; 2].map(|_| cost(|| drop(netfilter.read())));
    add("netfilter", Duration::from_secs(60), costs);
    for mut reader in limits::dear(&roots) {
        let costs = [0; 2].map(|_| cost(|| drop(reader.read())));
        add(reader.name(), reader.every(), costs);
    }
    Ok((cheap, rounds))
}

fn cost(work: impl FnOnce()) -> Duration {
    let before = system::thread_cpu_time();
    work();
    system::thread_cpu_time().saturating_sub(before)
}

/// The configuration's defaults.
fn watch() -> Watch {
    Watch {
        bridges: vec!["*".into()],
        bridge_port_limit: 1023,
        sysctl_sweep: Duration::from_secs(10),
        neighbor_scan: Duration::from_secs(60),
    }
}

/// A table of nftables that no packet ever comes to: it hangs on no hook.
struct Rules {
    count: usize,
}

impl Rules {
    fn add() -> Outcome<Self> {
        let mut script = String::new();
        _ = writeln!(
            script,
            "add table ip {PREFIX}\ndelete table ip {PREFIX}\ntable ip {PREFIX} {{"
        );
        for chain in 0..CHAINS {
            _ = writeln!(script, "chain c{chain} {{");
            for rule in 0..RULES / CHAINS {
                _ = writeln!(script, "ip daddr 10.0.{}.{rule} accept", chain % 256);
            }
            script += "}\n";
        }
        script += "}\n";
        let file = crate::scratch()?;
        let path = file.path().join("rules");
        std::fs::write(&path, script)?;
        let output = Command::new("nft").arg("-f").arg(&path).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("nft: {error}"))?;
        match output.status.success() {
            true => Ok(Self { count: RULES }),
            false => Err(format!("nft: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        let deleted = Command::new("nft").args(["delete", "table", "ip", PREFIX]).status();
        if !deleted.is_ok_and(|status| status.success()) {
            eprintln!("bench: nft delete table ip {PREFIX} failed");
        }
    }
}
