//! What a node needs for so many pods, and where it stops. Pure: limits in, a document out.

mod defaults;
mod document;

use std::collections::BTreeMap;

pub use self::defaults::defaults;
pub use self::document::{Guidance, Plan, Raise, Rules, SCHEMA, Stop};
use super::words::{ROOM, number};
use super::{CostFrom, PodCost, exactness};
use crate::config::profiles;
use crate::limits::{ABOUT, Exactness, cpu_backlog, max_pods};
use crate::sysctl::key::Key;
use crate::sysctl::policy::Want;

/// What is known of one limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Its stable name.
    pub limit: String,
    /// Of what.
    pub object: String,
    /// Both, in a sentence.
    pub named: String,
    /// What is counted.
    pub unit: String,
    /// In use now.
    pub used: u64,
    /// The maximum.
    pub max: u64,
    /// What a pod costs.
    pub cost: PodCost,
    /// How `used` compares with the kernel's number.
    pub exactness: Exactness,
    /// What raises it: a key, or words. `None`: nothing.
    pub raised_by: Option<String>,
    /// Whether the kernel refused a short time ago.
    pub hit_now: bool,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Question {
    /// Pods that the node is to run.
    pub pods: Option<u64>,
    /// Whether pods hang on a bridge; `None`: as it is on the node.
    pub bridge: Option<bool>,
    /// Services of the cluster.
    pub services: Option<u64>,
    /// Values as they might be.
    pub what_if: BTreeMap<String, u64>,
    /// Pods that run now.
    pub pods_now: u64,
    /// Pods that are to be kept free.
    pub reserve: u64,
    /// Cores of the node.
    pub cores: Option<u64>,
}

/// Answers the question. `from` and `node` are as in [`Plan`].
#[must_use]
pub fn plan(
    question: &Question,
    limits: Vec<Known>,
    from: &str,
    node: Option<String>,
    not_known: Vec<String>,
) -> Plan {
    let limits = assumed(question, limits);
    let now = question.pods_now;
    let first = stop(&limits);
    let fits = |limit| now.saturating_add(left(limit)).saturating_sub(question.reserve);
    let possible = first.map(fits);
    let wanted = question.pods.map(|pods| pods.saturating_add(question.reserve));
    let raise = wanted.map(|pods| raises(&limits, now, pods)).unwrap_or_default();
    let raised: Vec<Known> = limits.iter().map(|limit| with_raises(limit, &raise)).collect();
    let then = stop(&raised);
    Plan {
        schema: SCHEMA,
        from: from.to_owned(),
        node,
        pods_now: now,
        pods: question.pods,
        reserve: question.reserve,
        what_if: question.what_if.clone(),
        pods_possible: possible,
        exactness: first.map(|limit| match limit.hit_now {
            true => Exactness::Exact,
            false => exactness(limit.exactness, Some(limit.cost.from)),
        }),
        stopped_by: first.map(Stop::of),
        fits: question.pods.zip(possible).map(|(pods, possible)| pods <= possible),
        raise,
        pods_possible_then: then.map(fits),
        then_stopped_by: then.map(Stop::of),
        guidance: question.cores.map(guidance),
        rules: question
            .services
            .map(|services| rules(services, question.pods.or(possible).unwrap_or(now))),
        not_known,
    }
}

fn assumed(question: &Question, mut limits: Vec<Known>) -> Vec<Known> {
    let on_bridge = |limit: &Known| matches!(limit.limit.as_str(), "bridge_ports" | "cpu_backlog");
    // Of a kubelet that is not seen it can be asked all the same.
    let kubelet = |key: &String| Some(key.as_str()) == max_pods::ABOUT.raised_by;
    if question.what_if.keys().any(kubelet)
        && !limits.iter().any(|limit| limit.limit == max_pods::ABOUT.name)
    {
        let max_pods = defaults(&[&max_pods::ABOUT]).into_iter();
        limits.extend(max_pods.map(|limit| Known { used: question.pods_now, ..limit }));
    }
    match question.bridge {
        Some(false) => limits.retain(|limit| !on_bridge(limit)),
        Some(true) if !limits.iter().any(on_bridge) => {
            let bridge = defaults(ABOUT).into_iter().filter(on_bridge);
            limits.extend(bridge.map(|limit| Known { used: question.pods_now, ..limit }));
        }
        _ => {}
    }
    for limit in &mut limits {
        let value = limit.raised_by.as_ref().and_then(|key| question.what_if.get(key));
        if let Some(value) = value {
            limit.max = most(limit, *value);
            limit.hit_now = false;
        }
    }
    limits
}

/// The maximum with a value of the key that raises it.
fn most(limit: &Known, value: u64) -> u64 {
    match limit.limit == cpu_backlog::ABOUT.name {
        true => cpu_backlog::copies(value),
        false => value,
    }
}

/// The value of the key that gives the maximum.
fn value(limit: &Known) -> u64 {
    limit.max - most(limit, 0)
}

/// The limit that stops the next pod first.
fn stop(limits: &[Known]) -> Option<&Known> {
    limits.iter().min_by_key(|limit| left(limit))
}

fn left(limit: &Known) -> u64 {
    if limit.hit_now {
        return 0;
    }
    (limit.max.saturating_sub(limit.used) as f64 / limit.cost.amount + 1e-9).floor() as u64
}

/// What is in use with so many pods.
fn needed(limit: &Known, now: u64, pods: u64) -> u64 {
    let more = pods.saturating_sub(now) as f64 * limit.cost.amount;
    limit.used.saturating_add(more.ceil() as u64)
}

fn raises(limits: &[Known], now: u64, pods: u64) -> Vec<Raise> {
    let mut raises: BTreeMap<String, Raise> = BTreeMap::new();
    for limit in limits {
        let Some(raised_by) = &limit.raised_by else { continue };
        // As it is judged whether they fit.
        if left(limit) >= pods.saturating_sub(now) {
            continue;
        }
        let needed = needed(limit, now, pods);
        let raise = raise(limit, raised_by, needed, pods);
        let other = raises.entry(raised_by.clone()).or_insert_with(|| raise.clone());
        if raise.at_least > other.at_least {
            *other = raise;
        }
    }
    let second = raises.values().filter_map(below).collect::<Vec<_>>();
    let mut all: Vec<Raise> = raises.into_values().chain(second).collect();
    all.sort_by(|one, other| (!one.is_key, &one.what).cmp(&(!other.is_key, &other.what)));
    all
}

fn raise(limit: &Known, raised_by: &str, needed: u64, pods: u64) -> Raise {
    let key = Key::parse(raised_by).ok().filter(|_| !raised_by.contains(' '));
    let at_least = match &key {
        Some(key) => {
            let roomy = ((needed as f64 * ROOM).ceil() as u64).next_power_of_two();
            roomy.max(floor(key).unwrap_or(0)).max(limit.max.saturating_add(1))
        }
        // Not the kernel's: no more than what is asked for.
        None => needed,
    };
    let from = match limit.cost.from {
        CostFrom::Fixed => "",
        CostFrom::Observed | CostFrom::Share => " as seen here",
        CostFrom::Floor => " at the least",
        CostFrom::Prior => " as assumed",
    };
    let why = format!(
        "{}: {needed} {} with {pods} pods, {} a pod{from}",
        limit.named,
        limit.unit,
        number(limit.cost.amount)
    );
    let memory_bytes = bytes_a_unit(&limit.limit).map(|bytes| bytes.saturating_mul(at_least));
    Raise {
        what: raised_by.to_owned(),
        is_key: key.is_some(),
        now: Some(value(limit)),
        at_least,
        policy: key.map(|_| policy(raised_by, at_least)),
        why,
        memory_bytes,
    }
}

fn policy(key: &str, at_least: u64) -> String {
    match key {
        // The third of its fields is the maximum.
        "net.ipv4.tcp_mem" => format!("{{ min: \"_ _ {at_least}\" }}"),
        _ => format!("{{ min: {at_least} }}"),
    }
}

/// `gc_thresh2`, from which entries are collected while pods wait, goes with `gc_thresh3`.
fn below(raise: &Raise) -> Option<Raise> {
    let what = format!("{}gc_thresh2", raise.what.strip_suffix("gc_thresh3")?);
    let at_least = raise.at_least / 2;
    Some(Raise {
        policy: Some(policy(&what, at_least)),
        what,
        is_key: true,
        now: None,
        at_least,
        why: "goes with gc_thresh3; gc_thresh1 stays, so that stale entries die".to_owned(),
        memory_bytes: None,
    })
}

/// What the profile for dense nodes asks for.
fn floor(key: &Key) -> Option<u64> {
    let profile = profiles::get("dense-node")?.ok()?;
    let policy = profile.policies().find(|(one, _)| one == key)?.1;
    match policy.want {
        Want::Bounds { min: Some(min), .. } => min.parse().ok(),
        _ => None,
    }
}

/// Memory of one unit: what the kernel allocates for it.
fn bytes_a_unit(limit: &str) -> Option<u64> {
    match limit {
        // struct neighbour and its address: a slab object of 512.
        "neighbor_table" => Some(512),
        // struct nf_conn with its extensions, and the hash bucket.
        "conntrack" => Some(320),
        // INOTIFY_WATCH_COST: the mark and the inode that it pins.
        "inotify_watches" => Some(1282),
        // struct file.
        "file_handles" => Some(256),
        // A small packet with its skb, on one CPU.
        "cpu_backlog" => Some(1024),
        // What the quota counts.
        "key_bytes" => Some(1),
        _ => None,
    }
}

fn with_raises(limit: &Known, raises: &[Raise]) -> Known {
    let raised = raises.iter().find(|raise| Some(&raise.what) == limit.raised_by.as_ref());
    match raised {
        // Of what is no key it is made as large as is asked for: no stop.
        Some(raise) if !raise.is_key => Known { max: u64::MAX, hit_now: false, ..limit.clone() },
        Some(raise) => Known {
            max: most(limit, raise.at_least).max(limit.max),
            hit_now: false,
            ..limit.clone()
        },
        None => limit.clone(),
    }
}

impl Stop {
    fn of(limit: &Known) -> Self {
        let refuses = if limit.hit_now { ", and the kernel refuses now" } else { "" };
        Self {
            limit: limit.limit.clone(),
            object: limit.object.clone(),
            why: format!(
                "{} ({} of {} {} in use{refuses}, {} a pod)",
                limit.named,
                limit.used,
                limit.max,
                limit.unit,
                number(limit.cost.amount)
            ),
            raised_by: limit.raised_by.clone(),
            ways: ways(&limit.limit),
        }
    }
}

/// What people do where no key helps.
fn ways(limit: &str) -> Vec<String> {
    let ways: &[&str] = match limit {
        "bridge_ports" => &[
            "more nodes",
            "maxPods below it, so that the scheduler does not send pods that cannot start",
            "a second bridge: another CNI network with a range of its own",
            "a CNI without a bridge: ptp, routed veths, ipvlan or an eBPF one",
        ],
        "pod_addresses" => &[
            "a larger range for each node: --node-cidr-mask-size of kube-controller-manager, or the \
             ranges in /etc/cni/net.d; nodes that exist keep theirs until they join anew",
            "more nodes",
        ],
        "max_pods" => &["maxPods in the kubelet's configuration, and a restart of the kubelet"],
        _ => &[],
    };
    ways.iter().map(ToString::to_string).collect()
}

/// The fewer of 110 and ten for each core (Kubernetes' SIG Scalability, "thresholds").
#[must_use]
pub fn guidance(cores: u64) -> Guidance {
    Guidance { pods: cores.saturating_mul(10).min(110), cores }
}

fn rules(services: u64, endpoints: u64) -> Rules {
    let with =
        |each: u64| services.saturating_mul(2).saturating_add(endpoints.saturating_mul(each));
    Rules {
        services,
        least: with(8),
        most: with(23),
        advice:
            "each new connection to a Service walks them in iptables mode, and ipvs mode still \
                 makes some; kube-proxy's nftables mode looks up in one step: Linux 5.13 and \
                 Kubernetes 1.31 or later"
                .to_owned(),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
