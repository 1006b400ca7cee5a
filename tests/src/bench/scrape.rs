//! What a scrape costs: sizes of the node times quiet or churning times programs.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::cost::{Answers, Cost};
use crate::cpu::Cpu;
use crate::playground::{Churn, NEIGHBORS, PORTS, Playground};
use crate::programs::Daemon;
use crate::{Outcome, machine, stop};

/// Scrapes before the ones that count.
const WARM_UP: usize = 3;
/// Scrapes of the peer that is only there for orientation.
const ORIENTATION: usize = 5;
/// Between two scrapes: long enough for a process to put away what the last one left.
const GAP: Duration = Duration::from_millis(20);

/// What is on the node while it is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    pub neighbors: usize,
    pub ports: usize,
    pub churn: bool,
}

/// The programs, in the order of [`Measured::costs`].
#[derive(Clone, Copy)]
pub enum Program {
    Headroom,
    Exporter,
    ExporterDefaults,
}

/// One scenario with all programs; a program that is not there has no cost.
pub struct Measured {
    pub scenario: Scenario,
    pub costs: [Option<Cost>; 3],
}

impl Measured {
    pub fn cost(&self, program: Program) -> Option<&Cost> {
        self.costs[program as usize].as_ref()
    }
}

/// All scenarios, and how fast the churn was.
pub struct Scrapes {
    pub measured: Vec<Measured>,
    pub scrapes: usize,
    pub churn_rate: f64,
    /// Share of the machine that was busy in each idle window without churn: others' work.
    pub background: Vec<f64>,
}

/// Measures every size, quiet and churning.
///
/// Ports go up, down, up: neighbor tables keep the size of their largest population, so entries
/// must only ever grow in a run, while taking ports away once costs little.
pub fn run(
    playground: &mut Playground,
    headroom: Option<&Path>,
    scrapes: usize,
) -> Outcome<Scrapes> {
    let scratch = crate::scratch()?;
    let daemons = [
        headroom.and_then(|binary| optional(Daemon::headroom(binary, scratch.path()))),
        Some(Daemon::exporter(scratch.path())?),
        Some(Daemon::exporter_defaults(scratch.path())?),
    ];
    let (mut measured, mut rates, mut background) = (Vec::new(), Vec::new(), Vec::new());
    for (round, neighbors) in NEIGHBORS.into_iter().enumerate() {
        playground.set_neighbors(neighbors)?;
        let mut steps = PORTS;
        if round % 2 == 1 {
            steps.reverse();
        }
        for ports in steps {
            playground.set_ports(ports)?;
            settle()?;
            for churn in [false, true] {
                let scenario = Scenario { neighbors, ports, churn };
                let (result, load) = measure(scenario, &daemons, scrapes)?;
                measured.push(result);
                match load {
                    Load::Churn(rate) => rates.push(rate),
                    Load::Quiet(busy) => background.push(busy),
                }
            }
        }
    }
    measured.sort_by_key(|one| (one.scenario.neighbors, one.scenario.ports, one.scenario.churn));
    let churn_rate = rates.iter().sum::<f64>() / rates.len() as f64;
    Ok(Scrapes { measured, scrapes, churn_rate, background })
}

/// Waits until the kernel has put away what was removed: the CPUs are idle, or 10 s are over.
pub fn settle() -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let before = machine::CpuTicks::now()?;
        stop::pause(Duration::from_secs(1))?;
        if machine::CpuTicks::now()?.busy_since(&before) < 0.05 || Instant::now() > end {
            return Ok(());
        }
    }
}

/// What else went on: pairs a second, or the share of the machine that was busy.
enum Load {
    Churn(f64),
    Quiet(f64),
}

/// The agent may be missing or not start: its column is empty then.
fn optional(daemon: Outcome<Daemon>) -> Option<Daemon> {
    daemon.inspect_err(|error| eprintln!("{error}\nheadroom's column stays empty")).ok()
}

/// One scenario: the idle window first, then the scrapes, the two that are compared by turns.
fn measure(
    scenario: Scenario,
    daemons: &[Option<Daemon>; 3],
    scrapes: usize,
) -> Outcome<(Measured, Load)> {
    let Scenario { neighbors, ports, churn } = scenario;
    let load = if churn { "churn" } else { "quiet" };
    eprintln!("{neighbors} neighbor entries, {ports} ports, {load}");
    let churn = if churn { Some(Churn::start()?) } else { None };
    for daemon in daemons.iter().flatten() {
        (0..WARM_UP).try_for_each(|_| daemon.scrape().map(drop))?;
    }
    let before = machine::CpuTicks::now()?;
    let idle = idle_shares(daemons, GAP * 2 * u32::try_from(scrapes)?)?;
    let busy = machine::CpuTicks::now()?.busy_since(&before);

    let [headroom, exporter, defaults] = daemons.each_ref().map(Option::as_ref);
    let [headroom, exporter] = batch([headroom, exporter], [idle[0], idle[1]], scrapes)?;
    let [defaults] = batch([defaults], [idle[2]], ORIENTATION)?;
    let load = churn.map_or(Load::Quiet(busy), |churn| Load::Churn(churn.rate()));
    Ok((Measured { scenario, costs: [headroom, exporter, defaults] }, load))
}

/// Share of a core that each process uses while nobody asks it anything.
fn idle_shares(daemons: &[Option<Daemon>; 3], length: Duration) -> Outcome<[f64; 3]> {
    let before = readings(&daemons.each_ref().map(Option::as_ref))?;
    let begin = Instant::now();
    stop::pause(length.max(Duration::from_secs(1)))?;
    let after = readings(&daemons.each_ref().map(Option::as_ref))?;
    let length = begin.elapsed().as_secs_f64();
    let mut shares = [0.0; 3];
    for (share, (before, after)) in shares.iter_mut().zip(before.iter().zip(&after)) {
        if let (Some(before), Some(after)) = (before, after) {
            *share = after.used_since(before).as_secs_f64() / length;
        }
    }
    Ok(shares)
}

/// Scrapes the given programs by turns, `scrapes` times each.
pub fn batch<const N: usize>(
    daemons: [Option<&Daemon>; N],
    idle: [f64; N],
    scrapes: usize,
) -> Outcome<[Option<Cost>; N]> {
    let mut answers = [const { Answers::new() }; N];
    let before = readings(&daemons)?;
    let begin = Instant::now();
    for _ in 0..scrapes {
        for (daemon, answers) in daemons.iter().zip(&mut answers) {
            let Some(daemon) = daemon else { continue };
            answers.add(&daemon.scrape()?);
            stop::pause(GAP)?;
        }
    }
    let length = begin.elapsed().as_secs_f64();
    let after = readings(&daemons)?;

    let mut costs = [const { None }; N];
    for (number, answers) in answers.into_iter().enumerate() {
        let (Some(daemon), Some(before), Some(after)) =
            (daemons[number], &before[number], &after[number])
        else {
            continue;
        };
        let used = after.used_since(before).as_secs_f64() - idle[number] * length;
        costs[number] = Some(Cost::new(daemon, answers, used, idle[number])?);
    }
    Ok(costs)
}

fn readings<const N: usize>(daemons: &[Option<&Daemon>; N]) -> Outcome<Vec<Option<Cpu>>> {
    daemons.iter().map(|daemon| daemon.map(Daemon::cpu).transpose()).collect()
}
