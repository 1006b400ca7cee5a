//! The neighbor tables' tasks: the heart with its peak sampler, netlink, and the slow scan.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::supervise::{Failure, blocking, current, recovered};
use super::{Context, Roots};
use crate::config::Config;
use crate::kernel::neighbor::{self, Family, StatFile, Table};
use crate::kernel::netlink::DumpSocket;
use crate::kernel::netns;
use crate::kernel::tour::Tour;
use crate::limits::neighbor::round::{Round, round};
use crate::limits::neighbor::{Neighbor, Sampler};
use crate::limits::pod_conntrack::PodConntrack;
use crate::node::NodeState;
use crate::sysctl::place::Net;

/// Between two questions over netlink.
const NETLINK_EVERY: Duration = Duration::from_secs(10);
/// Between two looks whether the tables are known.
const KNOWN_EVERY: Duration = Duration::from_millis(200);
/// As many looks as the first answers of all sources take, and more.
const KNOWN_WITHIN: u32 = 100;
/// Share of a core that the scan may take: its interval stretches to stay below.
const SCAN_SHARE: f64 = 0.0005;

type SharedSampler = Option<Arc<Mutex<Sampler>>>;

/// The statistics exist in the initial network namespace alone; elsewhere netlink is the source.
fn sampler(context: &Context) -> SharedSampler {
    let initial = context.place.net == Net::Initial;
    initial.then(|| Arc::new(Mutex::new(Sampler::new(&context.roots.proc))))
}

fn sample(sampler: &SharedSampler, state: &mut NodeState, thresholds: bool) {
    let Some(sampler) = sampler else { return };
    let started = Instant::now();
    let mut sampler = sampler.lock().unwrap_or_else(PoisonError::into_inner);
    let result = sampler.sample(&mut state.neighbor, thresholds);
    let error = result.err().map(|error| error.to_string());
    if state.collected("neighbor", error.clone(), started.elapsed()) {
        match error {
            Some(reason) => warn!(reason, "neighbor statistics cannot be read"),
            None => info!("neighbor statistics can be read again"),
        }
    }
}

/// What a scrape reads: statistics and thresholds through kept descriptors. No lock that pod creation
/// holds is taken.
pub fn at_scrape(context: &Context) -> impl FnMut(&mut NodeState) + Send + 'static {
    let sampler = sampler(context);
    move |state| sample(&sampler, state, true)
}

/// The main loop's heart: every second it beats, and samples the peak.
pub async fn beat(context: Context) -> Result<(), Failure> {
    let sampler = sampler(&context);
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Growth compares with the thresholds of now.
        let grows = current(&context).autogrow.is_some();
        context.node.update(|state| {
            state.heartbeat = Some(Instant::now());
            sample(&sampler, state, grows);
            state.neighbor.iter_mut().for_each(crate::limits::neighbor::Neighbor::sample_peak);
        });
        recovered(&context.node, "heart");
    }
}

/// Asks netlink for both tables, at its own pace and beside the scrapes: on kernels before 7.2 it
/// takes RTNL.
pub async fn ask_netlink(context: Context) -> Result<(), Failure> {
    let mut asker = Asker { socket: None, proc_root: context.roots.proc.clone(), private: true };
    loop {
        let started = Instant::now();
        let (back, answer) = blocking(asker, Asker::ask).await?;
        asker = back;
        let error = answer.as_ref().err().cloned();
        let tables = answer.unwrap_or_default();
        let changed = context.node.update(|state| {
            for (neighbor, table) in state.neighbor.iter_mut().zip(tables) {
                neighbor.table = table;
            }
            state.collected("neighbor-netlink", error.clone(), started.elapsed())
        });
        if let (true, Some(reason)) = (changed, error) {
            warn!(reason, "neighbor tables over netlink");
        }
        recovered(&context.node, "neighbor-netlink");
        sleep(NETLINK_EVERY).await;
    }
}

struct Asker {
    socket: Option<DumpSocket>,
    proc_root: PathBuf,
    /// Whether a namespace of one's own is worth trying.
    private: bool,
}

impl Asker {
    fn ask(&mut self) -> Result<[Option<Table>; 2], String> {
        let mut tables = [None; 2];
        for (slot, family) in tables.iter_mut().zip(Family::ALL) {
            let before = self.fulls(family);
            let table = self.table(family)?;
            let after = self.fulls(family);
            cross_check(family, before, table, after)?;
            *slot = table;
        }
        Ok(tables)
    }

    /// Through a socket in an empty namespace where CAP_SYS_ADMIN allows one; else through a
    /// fresh socket for each question, since the answer's tail of one message a device is left
    /// unread.
    fn table(&mut self, family: Family) -> Result<Option<Table>, String> {
        if self.socket.is_none() && self.private {
            self.socket = match netns::socket_in_empty_netns() {
                Ok(socket) => Some(DumpSocket::over(socket).map_err(|error| error.to_string())?),
                Err(error) => {
                    debug!(reason = %error, "asking netlink from the host's namespace");
                    self.private = false;
                    None
                }
            };
        }
        let result = match &mut self.socket {
            Some(socket) => neighbor::table(socket, family),
            None => DumpSocket::open().and_then(|mut socket| neighbor::table(&mut socket, family)),
        };
        if result.is_err() {
            self.socket = None;
        }
        result.map_err(|error| error.to_string())
    }

    fn fulls(&self, family: Family) -> Option<u64> {
        StatFile::open(&self.proc_root, family).ok()?.read().ok()?.table_fulls
    }
}

/// Both sources count the same events, so netlink's number lies between two looks at the file's.
fn cross_check(
    family: Family,
    before: Option<u64>,
    table: Option<Table>,
    after: Option<u64>,
) -> Result<(), String> {
    let (Some(before), Some(table), Some(after)) = (before, table, after) else { return Ok(()) };
    if (before..=after).contains(&table.table_fulls) {
        return Ok(());
    }
    Err(format!(
        "{}: netlink says table_fulls {}, /proc/net/stat {before} to {after}: one of them is misread",
        family.table(),
        table.table_fulls
    ))
}

/// Scans the entries of every known namespace, slowly: each dump walks the kernel's whole table.
pub async fn scan(mut context: Context) -> Result<(), Failure> {
    let kernel = context.place.kernel;
    // What is scanned before they are known would be dropped, and the next round may be hours away.
    for _ in 0..KNOWN_WITHIN {
        let known = |table: &Neighbor| table.entries().is_some();
        if context.node.read(|state| state.neighbor.iter().any(known)) {
            break;
        }
        sleep(KNOWN_EVERY).await;
    }
    loop {
        let started = Instant::now();
        let config = current(&context);
        let tour = tour(&context.roots, &config);
        let watch = config.watch.clone();
        let ((), round) = blocking((), move |()| round(&tour, &watch, kernel)).await?;
        let round = round?;
        let cost = round.cost;
        publish(&context, round, started);
        recovered(&context.node, "neighbor-scan");
        let scanned = TokioInstant::now();
        loop {
            let wait = current(&context).watch.neighbor_scan.max(cost.div_f64(SCAN_SHARE));
            tokio::select! {
                () = sleep_until(scanned + wait) => break,
                changed = context.config.changed() => {
                    changed.map_err(|_| "the agent is stopping".to_owned())?;
                    // The wait may be hours, for pods that were looked for elsewhere.
                    let now = current(&context);
                    if now.pod_namespaces.directories != config.pod_namespaces.directories {
                        break;
                    }
                }
            }
        }
    }
}

/// Through pods' namespaces under a configuration.
pub fn tour(roots: &Roots, config: &Config) -> Tour {
    Tour { proc_root: roots.proc.clone(), directories: config.pod_namespaces.directories.clone() }
}

fn publish(context: &Context, round: Round, started: Instant) {
    let error = round.tables.iter().find_map(|scan| scan.as_ref().err().cloned());
    let changed = context.node.update(|state| {
        for (neighbor, scan) in state.neighbor.iter_mut().zip(round.tables) {
            // A family that this kernel was started without has no table to scan.
            neighbor.scan = scan.ok().filter(|_| neighbor.entries().is_some());
        }
        state.pod_conntrack = PodConntrack::after(state.pod_conntrack, round.conntrack);
        state.collected("neighbor-scan", error.clone(), started.elapsed())
    });
    if let (true, Some(reason)) = (changed, error) {
        warn!(reason, "neighbor entries cannot be scanned");
    }
    // Not a failure of the collector: without the capability the host's entries are still known.
    if let Some(Some(notice)) = context.node.notice("neighbor-scan", round.trouble) {
        warn!("{notice}");
    }
}
