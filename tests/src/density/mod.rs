//! The neighbor table driven to its first overflow: pods as namespaces on one real bridge, that talk;
//! and at every step what the agent's own scan says, and so how many pods it would have foretold.

mod node;
mod talk;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use headroom::capacity::{Capacity, CostFrom, History};
use headroom::config::Watch;
use headroom::config::load::{EMBEDDED, Origin, judge};
use headroom::kernel::neighbor::{Family, StatFile};
use headroom::kernel::system;
use headroom::kernel::tour::Tour;
use headroom::limits::Limit;
use headroom::limits::bridge::{self, Bridge, PORTS};
use headroom::limits::neighbor::round::round;
use headroom::limits::neighbor::{self, Neighbor, Sampler, Scan};

use crate::{HostLock, SavedSysctls};
use node::Node;

/// Peers that each pod begins to talk to.
const PEERS: usize = 5;
/// How long the entries of pods that talk may take to be there.
const PATIENCE: Duration = Duration::from_secs(90);

/// Who talks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The node with every pod, as kubelet does.
    Node,
    /// That, and each pod with the next five on its bridge, in a ring.
    Peers,
}

impl Shape {
    /// In a table.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Node => "the node talks to every pod",
            Self::Peers => "and each pod to five peers",
        }
    }

    /// Pods that are added before the agent is asked again.
    fn step(self) -> usize {
        match self {
            Self::Node => 16,
            Self::Peers => 4,
        }
    }

    /// The pairs of pods that talk, where there are so many.
    fn pairs(self, pods: usize) -> BTreeSet<(usize, usize)> {
        let peers = if self == Self::Peers { PEERS } else { 0 };
        let pairs =
            (0..pods).flat_map(|pod| (1..=peers).map(move |peer| (pod, (pod + peer) % pods)));
        let ordered = pairs.map(|(one, other)| (one.min(other), one.max(other)));
        ordered.filter(|(one, other)| one != other).collect()
    }
}

/// What the agent said at so many pods.
#[derive(Clone, Debug)]
pub struct Step {
    /// Pods that talk.
    pub pods: u64,
    /// What the scan found in the IPv4 table.
    pub scan: Scan,
    /// The IPv4 neighbor table and the bridge.
    pub limits: Vec<Limit>,
    when: Instant,
}

/// What was foretold, and from what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Foretold {
    /// Pods when it was asked.
    pub asked_at: u64,
    /// Pinned entries.
    pub used: u64,
    /// Entries a pod.
    pub cost: f64,
    /// Where that came from.
    pub from: CostFrom,
    /// The pod that will be the first to meet a full table.
    pub first_refused: u64,
}

/// One run.
#[derive(Clone, Debug)]
pub struct Density {
    /// Who talked to whom.
    pub shape: Shape,
    /// `gc_thresh1` to `3`.
    pub thresholds: [u64; 3],
    /// The pod with which `table_fulls` first moved.
    pub first_refused: u64,
    /// What the agent said on the way.
    pub steps: Vec<Step>,
    /// What it said once the thresholds were raised.
    pub raised: Step,
}

impl Density {
    /// What an agent foretold at this share of the refused count. `followed`: it saw pods come until
    /// then; otherwise it began there and made two rounds.
    #[must_use]
    pub fn foretold(&self, percent: u64, followed: bool) -> Foretold {
        let off = |step: &&Step| (step.pods * 100).abs_diff(self.first_refused * percent);
        let asked = self.steps.iter().min_by_key(off).expect("steps");
        let mut history = History::default();
        for step in &self.steps {
            let seen = if followed { step.pods <= asked.pods } else { step.pods == asked.pods };
            if seen {
                history.record(&step.limits, Some(step.pods), step.when);
            }
        }
        let now = asked.when;
        let limits = asked.limits.clone();
        let capacity = Capacity::of(limits, Some(asked.pods), &history, 0, now);
        let fit = capacity.binding().expect("it is foretold");
        assert_eq!(fit.limit.about.name, "neighbor_table");
        let cost = fit.cost.expect("a cost");
        Foretold {
            asked_at: asked.pods,
            used: fit.limit.used.expect("used"),
            cost: cost.amount,
            from: cost.from,
            first_refused: asked.pods + fit.remaining.expect("remaining") + 1,
        }
    }

    /// What stops the next pods once the thresholds are raised.
    #[must_use]
    pub fn after_raising(&self) -> Capacity {
        let mut history = History::default();
        for step in &self.steps {
            history.record(&step.limits, Some(step.pods), step.when);
        }
        let limits = self.raised.limits.clone();
        Capacity::of(limits, Some(self.raised.pods), &history, 0, self.raised.when)
    }
}

/// The measured table.
#[must_use]
pub fn table(runs: &[Density]) -> String {
    let mut text = String::from(
        "| who talks | asked at | pinned | a pod | foretold | refused at | off by |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
    for run in runs {
        for percent in [25, 50, 75] {
            let said = run.foretold(percent, false);
            let off = said.first_refused as f64 / run.first_refused as f64 - 1.0;
            let _ = writeln!(
                text,
                "| {} | {} pods ({percent} %) | {} | {:.2} | {} | {} | {:+.1} % |",
                run.shape.label(),
                said.asked_at,
                said.used,
                said.cost,
                said.first_refused,
                run.first_refused,
                off * 100.0,
            );
        }
    }
    text
}

/// Adds pods until the table refuses one of them an entry; then raises the thresholds, and sees that
/// it was nothing else. Pods, bridge and thresholds are as before afterwards, also where it fails.
#[must_use]
pub fn run(host: &HostLock, shape: Shape, thresholds: [u64; 3], raised: [u64; 3]) -> Density {
    let files = [3, 2, 1].map(|level| format!("net/ipv4/neigh/default/gc_thresh{level}"));
    let mut saved: Vec<&str> = files.iter().map(String::as_str).collect();
    // Without it each pod's six multicast entries come and go in the other table.
    saved.push("net/ipv6/conf/default/disable_ipv6");
    let _saved = SavedSysctls::new(host, saved);
    let _ = system::open_files_limit();
    set(thresholds);
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();

    let mut node = Node::new(host);
    let mut agent = Agent::new(&node);
    let others = agent.look(0).scan.of_pods.unwrap();
    let (mut steps, mut pairs) = (Vec::new(), BTreeSet::new());
    let first_refused = loop {
        let pods = node.pods();
        node.add(shape.step());
        let refused = (pods..node.pods()).find(|pod| !admit(&mut node, shape, *pod, &mut pairs));
        if let Some(pod) = refused {
            break pod + 1;
        }
        let expected = entries(node.pods(), &pairs) + others;
        steps.extend(agent.settled(&node, expected));
    };
    set(raised);
    let admitted = admit(&mut node, shape, first_refused - 1, &mut pairs);
    assert!(admitted, "the raised table refuses as well");
    let raised = agent.look(first_refused as u64);
    Density { shape, thresholds, first_refused: first_refused as u64, steps, raised }
}

fn set(thresholds: [u64; 3]) {
    // From the last to the first where they grow: none is ever above the next.
    for level in [3, 2, 1] {
        let path = format!("/proc/sys/net/ipv4/neigh/default/gc_thresh{level}");
        std::fs::write(path, thresholds[level - 1].to_string()).unwrap();
    }
}

/// Entries of the pods: two for every pair of those that talk.
fn entries(pods: usize, pairs: &BTreeSet<(usize, usize)>) -> u64 {
    2 * (pods + pairs.len()) as u64
}

/// Has a pod talk to whom it should; whether the table had room for that.
fn admit(node: &mut Node, shape: Shape, pod: usize, pairs: &mut BTreeSet<(usize, usize)>) -> bool {
    let wanted = shape.pairs(pod + 1);
    for (one, other) in pairs.difference(&wanted) {
        node.end(*one, *other);
    }
    pairs.retain(|pair| wanted.contains(pair));
    if !node.talk_to(pod) {
        return false;
    }
    for (one, other) in wanted {
        if !pairs.contains(&(one, other)) {
            if !node.talk(one, other) {
                return false;
            }
            pairs.insert((one, other));
        }
    }
    true
}

/// The agent's rooms, asked as its tasks ask them.
struct Agent {
    tour: Tour,
    watch: Watch,
    sampler: Sampler,
    kernel: (u32, u32),
    bridge: String,
}

impl Agent {
    fn new(node: &Node) -> Self {
        let (kernel, _) = system::uname();
        Self {
            tour: Tour { proc_root: "/proc".into(), directories: vec![node.directory()] },
            watch: judge(Origin::Embedded, EMBEDDED.as_bytes()).unwrap().config.watch,
            sampler: Sampler::new(Path::new("/proc")),
            kernel: system::kernel_version(&kernel),
            bridge: node::BRIDGE.to_owned(),
        }
    }

    fn look(&mut self, pods: u64) -> Step {
        let found = round(&self.tour, &self.watch, self.kernel).unwrap();
        assert_eq!(found.trouble, None);
        let [scan, _] = found.tables;
        let scan = scan.unwrap();
        let mut tables = <[Neighbor; 2]>::default();
        self.sampler.sample(&mut tables, true).unwrap();
        tables[0].scan = Some(scan);
        let mut limits = neighbor::limits(&tables);
        limits.retain(|limit| limit.object == Family::Ipv4.label());
        let ports = std::fs::read_dir(format!("/sys/class/net/{}/brif", self.bridge)).unwrap();
        limits.extend(bridge::limits(
            &[Bridge {
                name: headroom::kernel::name::Name::from_bytes(self.bridge.as_bytes()),
                ports: ports.count() as u64,
                limit: PORTS,
                read_from: "brif",
            }],
            None,
        ));
        Step { pods, scan, limits, when: Instant::now() }
    }

    /// Two rounds in a row that see all the entries that these pods need, and no other.
    fn settled(&mut self, node: &Node, expected: u64) -> [Step; 2] {
        let until = Instant::now() + PATIENCE;
        let pods = node.pods() as u64;
        loop {
            let two = [self.look(pods), self.look(pods)];
            let settled = |step: &Step| step.scan.complete && step.scan.of_pods == Some(expected);
            if two.iter().all(settled) {
                return two;
            }
            let scans = two.map(|step| step.scan);
            assert!(Instant::now() < until, "{pods} pods need {expected} entries: {scans:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Allocations that failed in the IPv4 table.
fn table_fulls() -> u64 {
    let mut file = StatFile::open(Path::new("/proc"), Family::Ipv4).unwrap();
    file.read().unwrap().table_fulls.unwrap()
}
