//! How soon a pod's namespace is tuned while pods are made as fast as they can be, and what that
//! costs beside the CNI plugin `tuning`.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use headroom_tests::{Cni, Named, Namespace, Pods, root_or_skip};
use serde_json::{Value, json};

use crate::programs::Daemon;
use crate::{Outcome, cpu, machine, stop};

/// Longer than the slowest pod takes by far: then it was not tuned at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a value that is to change.
const LOOK: Duration = Duration::from_micros(50);
/// Ten keys, as a policy may have them.
const KEYS: [(&str, &str); 10] = [
    ("net.core.somaxconn", "10000"),
    ("net.ipv4.ip_local_port_range", "1024\t65535"),
    ("net.ipv4.tcp_fin_timeout", "30"),
    ("net.ipv4.tcp_keepalive_intvl", "15"),
    ("net.ipv4.tcp_keepalive_probes", "5"),
    ("net.ipv4.tcp_keepalive_time", "600"),
    ("net.ipv4.tcp_max_syn_backlog", "8192"),
    ("net.ipv4.tcp_syn_retries", "4"),
    ("net.ipv4.tcp_synack_retries", "3"),
    ("net.ipv4.tcp_tw_reuse", "1"),
];

/// How soon.
pub struct Latencies {
    pub pods: usize,
    /// From the namespace's mount until a key of the policy for every pod had its value.
    pub from_namespace: Vec<Duration>,
    /// From the CNI result until a key of a policy by name had its value.
    pub from_result: Vec<Duration>,
    /// Pods made in a second.
    pub rate: f64,
    /// Of the machine, the makers included.
    pub busy: f64,
    /// Of the agent, with all pods there.
    pub resident_kib: u64,
}

/// What ten keys cost.
pub struct Cost {
    /// Namespaces that were there already.
    pub beside: usize,
    /// CPU of one namespace.
    pub headroom: Duration,
    /// The same by the plugin.
    pub tuning: Duration,
}

/// What came of it.
pub struct Measured {
    pub latencies: Latencies,
    pub costs: [Cost; 2],
}

/// Makes `count` pods, and tunes `count / 5` bare namespaces before and after.
pub fn run(headroom: &Path, count: usize) -> Outcome<Measured> {
    let host = root_or_skip().ok_or("needs root")?;
    let node = Namespace::new(&host);
    node.ip(["link", "set", "lo", "up"]);
    let mut pods = Pods::new(&host);
    let leases = host.directory();
    let cni = Cni::new(&node, leases.path());
    let first = cost(&node, &mut pods, &cni, headroom, "before", count / 5, 0)?;
    eprintln!("{count} pods of the CNI plugin bridge");
    let latencies = latencies(&node, &mut pods, &cni, headroom, count)?;
    let then = cost(&node, &mut pods, &cni, headroom, "after", count / 5, count)?;
    Ok(Measured { latencies, costs: [first, then] })
}

/// A value that is to change, and since when.
struct Awaited {
    file: File,
    value: &'static str,
    since: Instant,
}

fn latencies(
    node: &Namespace,
    pods: &mut Pods,
    cni: &Cni<'_>,
    headroom: &Path,
    count: usize,
) -> Outcome<Latencies> {
    let scratch = crate::scratch()?;
    let config = pods.configuration().replace("sweep: 1s", "sweep: 5m")
        + "pods:
  - { name: web, match: { namespaces: [web] }, sysctls: { net.ipv4.conf.eth0.rp_filter: 2 } }
  - { name: all, sysctls: { net.core.somaxconn: 10000, net.ipv4.tcp_syn_retries: 4 } }
";
    let agent = node.run(|| Daemon::agent(&[], headroom, &config, scratch.path(), false))?;
    let (of_namespace, of_result) = (Watcher::start(), Watcher::start());
    let ticks = machine::CpuTicks::now()?;
    let started = Instant::now();
    for number in 0..count {
        stop::check()?;
        let name = format!("pod-{number}");
        let mut file = None;
        let since = pods.create_after(&name, || {
            file = Some(File::open("/proc/sys/net/core/somaxconn"));
        });
        let file = file.ok_or("not made")??;
        of_namespace.send.send(Awaited { file, value: "10000\n", since })?;
        let path = pods.path(&name);
        let result = cni.add(&name, &path);
        let file = pods.run(&name, || File::open("/proc/sys/net/ipv4/conf/eth0/rp_filter"))?;
        let uid = format!("00000000-0000-4000-8000-{number:012}");
        let since = Instant::now();
        pods.cache_result(&name, Named { namespace: "web", name: &name, uid: &uid }, &result);
        of_result.send.send(Awaited { file, value: "2\n", since })?;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    let busy = machine::CpuTicks::now()?.busy_since(&ticks);
    let from_namespace = of_namespace.times(count)?;
    let from_result = of_result.times(count)?;
    let resident_kib = agent.memory_kib("VmRSS")?;
    Ok(Latencies { pods: count, from_namespace, from_result, rate, busy, resident_kib })
}

/// Looks at values until they change, each on its turn but all of them in every round.
struct Watcher {
    send: Sender<Awaited>,
    times: Receiver<Option<Duration>>,
}

impl Watcher {
    fn start() -> Self {
        let (send, receive) = channel();
        let (tell, times) = channel();
        std::thread::spawn(move || watch(&receive, &tell));
        Self { send, times }
    }

    fn times(self, count: usize) -> Outcome<Vec<Duration>> {
        drop(self.send);
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            times.push(self.times.recv()?.ok_or("a pod was not tuned")?);
        }
        times.sort();
        Ok(times)
    }
}

fn watch(receive: &Receiver<Awaited>, tell: &Sender<Option<Duration>>) {
    let mut waiting: Vec<Awaited> = Vec::new();
    let mut buffer = [0; 64];
    loop {
        let more = if waiting.is_empty() { receive.recv().ok() } else { receive.try_recv().ok() };
        match more {
            Some(one) => waiting.push(one),
            None if waiting.is_empty() => return,
            None => {}
        }
        waiting.retain(|one| {
            let length = one.file.read_at(&mut buffer, 0).unwrap_or_default();
            let took = one.since.elapsed();
            let reached = buffer.get(..length) == Some(one.value.as_bytes());
            if reached || took > PATIENCE {
                let _ = tell.send(reached.then_some(took));
            }
            !reached && took <= PATIENCE
        });
        std::thread::sleep(LOOK);
    }
}

fn cost(
    node: &Namespace,
    pods: &mut Pods,
    cni: &Cni<'_>,
    headroom: &Path,
    name: &str,
    count: usize,
    beside: usize,
) -> Outcome<Cost> {
    eprintln!("ten keys in {count} namespaces beside {beside}");
    let names = |who: &str| -> Vec<String> {
        (0..count).map(|number| format!("{name}-{who}-{number}")).collect()
    };
    let sysctls: Value =
        KEYS.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let by_plugin = names("plugin");
    for name in &by_plugin {
        pods.create(name);
    }
    let before = cpu::of_children()?;
    for name in &by_plugin {
        stop::check()?;
        cni.tune(name, &pods.path(name), &sysctls);
    }
    let tuning = cpu::of_children()?.saturating_sub(before) / count as u32;
    for name in &by_plugin {
        assert_eq!(pods.read(name, "net/core/somaxconn"), "10000");
        pods.remove(name);
    }
    let keys: Vec<String> = KEYS.iter().map(|(key, value)| format!("{key}: {value:?}")).collect();
    let policy = format!("pods: [{{ name: all, sysctls: {{ {} }} }}]\n", keys.join(", "));
    let config = pods.configuration().replace("sweep: 1s", "sweep: 5m") + &policy;
    let scratch = crate::scratch()?;
    let agent = node.run(|| Daemon::agent(&[], headroom, &config, scratch.path(), false))?;
    stop::pause(Duration::from_secs(2))?;
    let before = node.run(|| agent.own_cpu())?;
    let by_agent = names("agent");
    for name in &by_agent {
        stop::check()?;
        pods.create(name);
    }
    let last = by_agent.last().ok_or("no namespace")?;
    stop::until("tuned", PATIENCE, || Ok(pods.read(last, "net/ipv4/tcp_tw_reuse") == "1"))?;
    stop::pause(Duration::from_secs(1))?;
    let headroom = node.run(|| agent.own_cpu())?.saturating_sub(before) / count as u32;
    drop(agent);
    for name in &by_agent {
        assert_eq!(pods.read(name, "net/core/somaxconn"), "10000");
        pods.remove(name);
    }
    Ok(Cost { beside, headroom, tuning })
}
