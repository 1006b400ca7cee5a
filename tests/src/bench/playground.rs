//! The loads: neighbor entries in namespaces of their own, a bridge full of ports, veth churn.
//!
//! Everything is named `hrbench…` and goes away with [`Playground`]. Nothing is attached to an
//! interface of the host, so no packet leaves it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CloneFlags, setns};

use crate::{Outcome, stop};

/// What the directories in [`scratch_root`] start with.
pub const SCRATCH: &str = "hrbench-scratch-";
/// One prefix for every interface and namespace made here.
pub const PREFIX: &str = "hrbench";
/// The bridge whose ports are counted.
const BRIDGE: &str = "hrbench0";
/// A port of it, before its number.
const PORT: &str = "hrbench-p";
/// The bridge that the veth pairs of [`Churn`] come and go on.
const CHURN_BRIDGE: &str = "hrbench1";
/// Where `ip netns` keeps its namespaces.
pub const NAMESPACES: &str = "/run/netns";
/// Neighbor entries are spread over that many namespaces.
const NEIGHBOR_NAMESPACES: usize = 10;
/// The kernel's counters of the IPv4 neighbor table; first column, hexadecimal: entries.
pub const ARP_COUNTERS: &str = "/proc/net/stat/arp_cache";

/// Keys that are looked at in each pod's namespace.
const POD_KEYS: [&str; 5] = [
    "core/somaxconn",
    "ipv4/conf/eth0/tag",
    "ipv4/neigh/eth0/gc_stale_time",
    "ipv6/conf/eth0/disable_ipv6",
    "ipv6/neigh/eth0/gc_stale_time",
];

/// Numbers of bridge ports measured; the last is all that a Linux bridge takes.
pub const PORTS: [usize; 3] = [0, 500, 1023];
/// Numbers of neighbor entries measured.
pub const NEIGHBORS: [usize; 3] = [0, 10_000, 100_000];

/// Owner of all interfaces and namespaces of a run; dropping it removes them.
pub struct Playground {
    ports: usize,
    neighbors: usize,
}

impl Playground {
    /// Removes what an earlier run left and starts with nothing.
    pub fn new() -> Outcome<Self> {
        let mut playground = Self { ports: 0, neighbors: 0 };
        playground.clear()?;
        for name in ours(&scratch_root()) {
            if name.starts_with(SCRATCH) {
                std::fs::remove_dir_all(scratch_root().join(name))?;
            }
        }
        Ok(playground)
    }

    /// Brings the bridge to `target` ports, one of [`PORTS`].
    ///
    /// The other end of each port lives in one namespace a step, as a pod's would: removing a
    /// namespace removes its veth pairs at once, one by one they would take 20 s.
    pub fn set_ports(&mut self, target: usize) -> Outcome<()> {
        ensure_bridge(BRIDGE)?;
        for step in PORTS.windows(2) {
            let (from, to) = (step[0], step[1]);
            let namespace = format!("{PREFIX}-ports-{to}");
            if self.ports <= from && target >= to {
                ip(&["netns", "add", &namespace])?;
                batch(None, &port_commands(from..to, &namespace))?;
            } else if self.ports >= to && target <= from {
                ip(&["netns", "del", &namespace])?;
            }
        }
        self.ports = target;
        let directory = format!("/sys/class/net/{BRIDGE}/brif");
        stop::until("bridge ports", Duration::from_secs(60), || {
            Ok(std::fs::read_dir(&directory)?.count() == target)
        })
    }

    /// Adds permanent neighbor entries, half IPv4 and half IPv6, until there are `target`.
    ///
    /// Permanent ones are exempt from garbage collection: no threshold has to change for them.
    pub fn set_neighbors(&mut self, target: usize) -> Outcome<()> {
        let share = |total: usize| total / (2 * NEIGHBOR_NAMESPACES);
        for number in 0..NEIGHBOR_NAMESPACES {
            let namespace = format!("{PREFIX}-{number}");
            if !Path::new(NAMESPACES).join(&namespace).exists() {
                ip(&["netns", "add", &namespace])?;
                batch(Some(&namespace), NEIGHBOR_DEVICE)?;
            }
            let range = share(self.neighbors)..share(target);
            let script = neighbor_commands(number, range, "hrbench-v");
            batch(Some(&namespace), &script)?;
        }
        self.neighbors = target;
        let entries = arp_entries()?;
        if entries < target / 2 {
            return Err(format!("{entries} IPv4 neighbor entries instead of {}", target / 2).into());
        }
        Ok(())
    }

    /// Adds the namespaces of `count` pods, each with one end of a veth pair whose other end is a
    /// port of the bridge.
    ///
    /// Keys are read in each: the kernel finds a file below `/proc/sys/net` in one list of the
    /// entries of all namespaces that were looked at, so a namespace that nobody looks into costs
    /// nothing.
    pub fn add_pods(&mut self, count: usize) -> Outcome<()> {
        if count == 0 {
            return Ok(());
        }
        ensure_bridge(BRIDGE)?;
        let mut script = String::new();
        for pod in 0..count {
            _ = writeln!(script, "netns add {PREFIX}-n{pod}");
        }
        batch(None, &script)?;
        script.clear();
        for pod in 0..count {
            _ = writeln!(
                script,
                "link add {PORT}{pod} master {BRIDGE} type veth peer name eth0 netns {PREFIX}-n{pod}"
            );
        }
        batch(None, &script)?;
        let look = || {
            for pod in 0..count {
                stop::check()?;
                let namespace = File::open(format!("{NAMESPACES}/{PREFIX}-n{pod}"))?;
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
                for key in POD_KEYS {
                    std::fs::read(Path::new("/proc/sys/net").join(key))?;
                }
            }
            Ok(())
        };
        on_a_thread(look)
    }

    /// Gives each of `count` pods a process, and all of them together `neighbors` entries, as
    /// [`Self::set_neighbors`] makes them.
    pub fn populate_pods(&mut self, count: usize, neighbors: usize) -> Outcome<Processes> {
        let mut processes = Processes(Vec::new());
        let inside = || {
            for pod in 0..count {
                stop::check()?;
                setns(
                    File::open(format!("{NAMESPACES}/{PREFIX}-n{pod}"))?,
                    CloneFlags::CLONE_NEWNET,
                )?;
                let neighbors = neighbor_commands(pod, 0..neighbors / (2 * count), "eth0");
                batch(None, &(POD_DEVICE.to_owned() + &neighbors))?;
                processes.0.push(Command::new("sleep").arg(LIFE).stdin(Stdio::null()).spawn()?);
            }
            Ok(())
        };
        on_a_thread(inside)?;
        Ok(processes)
    }

    /// Removes everything with our prefix, whoever made it.
    pub fn clear(&mut self) -> Outcome<()> {
        (self.ports, self.neighbors) = (0, 0);
        let namespaces = ours(Path::new(NAMESPACES));
        let lines = namespaces.iter().map(|namespace| format!("netns del {namespace}\n"));
        batch(None, &lines.collect::<String>())?;
        // A namespace's veth pairs go a moment after it, the bridges only when told.
        let begin = Instant::now();
        loop {
            let left = ours(Path::new("/sys/class/net"));
            if left.is_empty() {
                return Ok(());
            }
            if begin.elapsed() > Duration::from_secs(90) {
                return Err(format!("could not remove {}", left.join(" ")).into());
            }
            let patient = begin.elapsed() < Duration::from_secs(15);
            let direct = left.iter().filter(|name| !patient || !name.starts_with(PORT));
            let mut script = String::new();
            direct.for_each(|name| _ = writeln!(script, "link del {name}"));
            _ = batch(None, &script); // what it could not remove is seen in the next round
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("bench: cleanup: {error}");
        }
    }
}

/// For what enters namespaces: the thread ends with it.
fn on_a_thread(work: impl FnOnce() -> Outcome<()> + Send) -> Outcome<()> {
    std::thread::scope(|scope| {
        let panicked = |_| Err("the thread that enters namespaces panicked".into());
        scope.spawn(work).join().unwrap_or_else(panicked)
    })
}

/// A pod's process ends by itself after so many seconds, should the run be killed.
const LIFE: &str = "900";

/// Processes of pods; dropping it ends them.
pub struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            _ = child.kill();
        }
        for child in &mut self.0 {
            _ = child.wait();
        }
    }
}

/// Creates and deletes veth pairs on a bridge of their own until dropped, as pods would.
pub struct Churn {
    ip: Child,
    feeder: Option<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    cycles: Arc<AtomicU64>,
    since: Instant,
}

impl Churn {
    /// Starts one `ip -batch` and the thread that feeds it.
    pub fn start() -> Outcome<Self> {
        ensure_bridge(CHURN_BRIDGE)?;
        let mut ip = ip_command()
            .args(["-force", "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut input = ip.stdin.take().ok_or("ip without a standard input")?;
        // A small pipe: `ip` is at most a few pairs behind, and stops soon after the feeder.
        fcntl(&input, FcntlArg::F_SETPIPE_SZ(4096))?;
        let (stop, cycles) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let feeder = std::thread::spawn({
            let (stop, cycles) = (Arc::clone(&stop), Arc::clone(&cycles));
            move || {
                while !stop.load(Ordering::Relaxed) && input.write_all(CHURN_CYCLE).is_ok() {
                    cycles.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { ip, feeder: Some(feeder), stop, cycles, since: Instant::now() })
    }

    /// Pairs created and deleted a second so far.
    pub fn rate(&self) -> f64 {
        self.cycles.load(Ordering::Relaxed) as f64 / self.since.elapsed().as_secs_f64()
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(feeder) = self.feeder.take() {
            _ = feeder.join();
        }
        _ = self.ip.wait();
    }
}

/// One life of a pod's interface.
const CHURN_CYCLE: &[u8] = b"link add hrbench-c type veth peer name hrbench-d\n\
    link set hrbench-c master hrbench1 up\n\
    link set hrbench-d up\n\
    link del hrbench-c\n";

/// A device that entries can hang on: a veth pair with both ends in the namespace.
const NEIGHBOR_DEVICE: &str = "link add hrbench-v type veth peer name hrbench-w\n\
    link set hrbench-v addrgenmode none\n\
    link set hrbench-w addrgenmode none\n\
    link set hrbench-v up\n\
    link set hrbench-w up\n";

/// The pod's end of its pair.
const POD_DEVICE: &str = "link set eth0 addrgenmode none\nlink set eth0 up\n";

/// Ports `range` of the bridge; they stay down, so that no flood of multicast disturbs the run.
fn port_commands(range: std::ops::Range<usize>, namespace: &str) -> String {
    let mut script = String::new();
    for port in range {
        _ = writeln!(
            script,
            "link add {PORT}{port} master {BRIDGE} type veth peer name hrbench-q{port} netns {namespace}"
        );
    }
    script
}

/// Entries `range` of namespace `number`, one IPv4 and one IPv6 each.
fn neighbor_commands(number: usize, range: std::ops::Range<usize>, device: &str) -> String {
    let network = number % 256;
    let mut script = String::new();
    for entry in range {
        let (high, low) = (entry / 256, entry % 256);
        let mac = format!("02:00:00:{network:02x}:{high:02x}:{low:02x}");
        for address in [format!("10.{network}.{high}.{low}"), format!("fd00:{number:x}::{entry:x}")]
        {
            _ = writeln!(script, "neigh replace {address} lladdr {mac} dev {device} nud permanent");
        }
    }
    script
}

/// Entries of the IPv4 neighbor table, of all namespaces.
fn arp_entries() -> Outcome<usize> {
    let text = std::fs::read_to_string(ARP_COUNTERS)?;
    let first = text.lines().nth(1).and_then(|line| line.split_whitespace().next());
    Ok(usize::from_str_radix(first.ok_or("no neighbor counters")?, 16)?)
}

fn ensure_bridge(name: &str) -> Outcome<()> {
    if Path::new("/sys/class/net").join(name).exists() {
        return Ok(());
    }
    ip(&["link", "add", name, "type", "bridge"])?;
    ip(&["link", "set", name, "addrgenmode", "none"])?;
    ip(&["link", "set", name, "up"])
}

/// Where programs keep their files: in memory, as an agent's state is on a node, since `/run` is a
/// tmpfs there and need not be one here.
pub fn scratch_root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// Names with our prefix in a directory; none where it does not exist.
pub fn ours(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(PREFIX)).collect()
}

/// `ip` in a process group of its own: Ctrl-C must not hit it in the middle of the cleanup.
fn ip_command() -> Command {
    let mut command = Command::new("ip");
    command.process_group(0);
    command
}

/// Runs one `ip` command.
pub fn ip(arguments: &[&str]) -> Outcome<()> {
    let output = ip_command().args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(format!("ip {}: {}", arguments.join(" "), reason.trim()).into())
}

/// Runs a script of `ip` commands in one process, in `namespace` if there is one.
///
/// It goes on after an error, so that one name that is gone does not stop a cleanup, and fails
/// afterwards.
pub fn batch(namespace: Option<&str>, script: &str) -> Outcome<()> {
    let mut command = ip_command();
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    let mut child = command
        .args(["-force", "-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("ip: {error}"))?;
    let written =
        child.stdin.take().ok_or("ip without a standard input")?.write_all(script.as_bytes());
    let status = child.wait()?;
    written?;
    if status.success() { Ok(()) } else { Err(format!("ip -batch: {status}").into()) }
}
