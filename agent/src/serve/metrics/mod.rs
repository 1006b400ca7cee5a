//! `/metrics`: the picture in Prometheus' text format.

mod pods;
pub mod table;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily};
use prometheus::{Registry, TextEncoder};

use crate::capacity::Fit;
use crate::kernel::neighbor::Family;
use crate::node::{Node, NodeState};
use crate::sysctl::state::KeyStatus;
use table::{Kind, Spec};

/// The commit the agent was built from, where the build says so.
pub const REVISION: &str = match option_env!("HEADROOM_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Renders the picture. Its own registry: kernel counters are set as the kernel has them, series
/// vanish with their objects, and a scrape is one moment.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry over the node's picture.
    pub fn new(node: Node) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(NodeCollector::new(node)?))?;
        Ok(Self { registry })
    }

    /// The text of one scrape.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = String::with_capacity(32 << 10);
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

struct NodeCollector {
    node: Node,
    descs: Vec<Desc>,
}

impl NodeCollector {
    fn new(node: Node) -> Result<Self, prometheus::Error> {
        let desc = |spec: &&Spec| {
            let labels = spec.labels.iter().map(ToString::to_string).collect();
            Desc::new(spec.name.into(), spec.help.into(), labels, Default::default())
        };
        let descs = table::ALL.iter().map(desc).collect::<Result<_, _>>()?;
        Ok(Self { node, descs })
    }
}

/// The error of a section that has a bug.
const PANICKED: &str = "showing it panicked";

/// Adds the series of one part of the picture.
type Section = fn(&NodeState, &mut Families);

/// The parts, each by the name of the collector whose numbers it shows.
const SECTIONS: [(&str, Section); 8] = [
    ("neighbor", neighbor),
    ("bridges", bridges),
    ("sysctl", sysctl),
    ("pods", pods::pods),
    ("limits", limit),
    ("netfilter", netfilter),
    ("agent", agent),
    ("process", process),
];

impl Collector for NodeCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.node.fresh(|state| {
            let mut families = Families::default();
            for (name, section) in SECTIONS {
                // A panic costs the section's numbers, not the scrape.
                let mut part = Families::default();
                match catch_unwind(AssertUnwindSafe(|| section(state, &mut part))) {
                    Ok(()) => {
                        families.0.append(&mut part.0);
                        if let Some(collector) = state.collectors.get_mut(name) {
                            collector.error.take_if(|error| error == PANICKED);
                        }
                    }
                    Err(_) => {
                        state.collected(name, Some(PANICKED.to_owned()), Default::default());
                    }
                }
            }
            collectors(state, &mut families);
            families.finish()
        })
    }
}

/// Series, gathered by family.
#[derive(Default)]
struct Families(Vec<(&'static Spec, Metric)>);

impl Families {
    fn add(&mut self, spec: &'static Spec, labels: &[&str], value: f64) {
        let mut metric = labelled(spec, labels);
        match spec.kind {
            Kind::Gauge => {
                let mut gauge = Gauge::default();
                gauge.set_value(value);
                metric.set_gauge(gauge);
            }
            Kind::Counter => {
                let mut counter = Counter::default();
                counter.set_value(value);
                metric.set_counter(counter);
            }
            // It has more than one value.
            Kind::Histogram => return,
        }
        self.0.push((spec, metric));
    }

    fn maybe(&mut self, spec: &'static Spec, labels: &[&str], value: Option<u64>) {
        if let Some(value) = value {
            self.add(spec, labels, value as f64);
        }
    }

    fn finish(mut self) -> Vec<MetricFamily> {
        self.0.sort_by_key(|(spec, _)| spec.name);
        let mut groups: Vec<(&Spec, Vec<Metric>)> = Vec::new();
        for (spec, metric) in self.0 {
            match groups.last_mut() {
                Some((last, metrics)) if last.name == spec.name => metrics.push(metric),
                _ => groups.push((spec, vec![metric])),
            }
        }
        let family = |(spec, metrics): (&Spec, Vec<Metric>)| {
            let mut family = MetricFamily::default();
            family.set_name(spec.name.to_owned());
            family.set_help(spec.help.to_owned());
            family.set_field_type(spec.kind.proto());
            family.set_metric(metrics);
            family
        };
        groups.into_iter().map(family).collect()
    }
}

fn labelled(spec: &Spec, labels: &[&str]) -> Metric {
    let pairs = spec.labels.iter().zip(labels).map(|(name, value)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    });
    Metric::from_label(pairs.collect())
}

fn neighbor(state: &NodeState, out: &mut Families) {
    for (family, neighbor) in Family::ALL.into_iter().zip(&state.neighbor) {
        let label = [family.label()];
        out.maybe(&table::NEIGHBOR_ENTRIES, &label, neighbor.entries());
        out.maybe(&table::NEIGHBOR_ENTRIES_PEAK, &label, neighbor.peak);
        if let Some([low, middle, high]) = neighbor.gc_thresholds() {
            out.add(&table::NEIGHBOR_GC_THRESH1, &label, low as f64);
            out.add(&table::NEIGHBOR_GC_THRESH2, &label, middle as f64);
            out.add(&table::NEIGHBOR_GC_THRESH3, &label, high as f64);
        }
        if let Some(fullness) = neighbor.fullness() {
            let labels = [family.label(), fullness.basis.label()];
            out.add(&table::NEIGHBOR_FULLNESS, &labels, fullness.ratio);
        }
        out.maybe(&table::NEIGHBOR_TABLE_FULLS, &label, neighbor.table_fulls());
        out.maybe(&table::NEIGHBOR_FORCED_GC, &label, neighbor.forced_gc_runs());
        let discards = neighbor.stat.and_then(|stat| stat.unresolved_discards);
        out.maybe(&table::NEIGHBOR_UNRESOLVED_DISCARDS, &label, discards);
        out.maybe(&table::NEIGHBOR_RESOLUTION_FAILURES, &label, neighbor.resolution_failures());
        if let Some(scan) = neighbor.scan {
            out.add(&table::NEIGHBOR_EXEMPT, &label, scan.counts.exempt as f64);
            out.add(&table::NEIGHBOR_PINNED, &label, scan.counts.pinned as f64);
            out.add(&table::NEIGHBOR_SCAN_TIMESTAMP, &label, seconds(scan.at));
        }
    }
    let grown = state.autogrow.iter().flat_map(|growth| &growth.tables);
    for (family, grown) in Family::ALL.into_iter().zip(grown) {
        out.add(&table::AUTOGROW_STEPS, &[family.label()], grown.steps as f64);
    }
    // Both families are scanned in the same namespaces.
    if let Some(scan) = state.neighbor.iter().find_map(|neighbor| neighbor.scan) {
        out.add(&table::NEIGHBOR_SCAN_NAMESPACES, &["scanned"], scan.scanned as f64);
        out.add(&table::NEIGHBOR_SCAN_NAMESPACES, &["skipped"], scan.skipped as f64);
    }
}

fn bridges(state: &NodeState, out: &mut Families) {
    for bridge in state.bridges.iter().flatten() {
        let name = bridge.name.to_string();
        let label = [name.as_str()];
        out.add(&table::BRIDGE_PORTS, &label, bridge.ports as f64);
        out.add(&table::BRIDGE_PORTS_LIMIT, &label, bridge.limit as f64);
        out.add(&table::BRIDGE_FULLNESS, &label, bridge.ports as f64 / bridge.limit as f64);
    }
}

fn sysctl(state: &NodeState, out: &mut Families) {
    for key in state.keys.iter().flatten() {
        let name = key.key.as_str();
        out.add(&table::SYSCTL_IN_SYNC, &[name], f64::from(u8::from(key.in_sync)));
        out.add(&table::SYSCTL_STATE, &[name, key.state.label()], 1.0);
        fields(key, &key.numbers.actual, &table::SYSCTL_VALUE, out);
        fields(key, &key.numbers.desired, &table::SYSCTL_DESIRED, out);
    }
    let counters = state.counters;
    for (result, count) in [
        ("ok", counters.ok),
        ("rejected", counters.rejected),
        ("denied", counters.denied),
        ("mismatch", counters.mismatch),
    ] {
        out.add(&table::SYSCTL_WRITES, &[result], count as f64);
    }
    out.add(&table::SYSCTL_DRIFT, &[], counters.drift as f64);
}

fn fields(key: &KeyStatus, values: &[i128], spec: &'static Spec, out: &mut Families) {
    for (field, value) in values.iter().enumerate() {
        let field = if values.len() == 1 { String::new() } else { field.to_string() };
        out.add(spec, &[key.key.as_str(), &field], *value as f64);
    }
}

fn limit(state: &NodeState, out: &mut Families) {
    let capacity = state.capacity(Instant::now());
    for fit in &capacity.fits {
        let limit = &fit.limit;
        let labels = [limit.about.name, limit.object.as_str()];
        out.maybe(&table::LIMIT_USED, &labels, limit.used);
        out.maybe(&table::LIMIT_MAX, &labels, limit.max);
        out.maybe(&table::LIMIT_HITS, &labels, limit.hits);
        out.maybe(&table::LIMIT_PODS_REMAINING, &labels, fit.remaining);
    }
    out.maybe(&table::NODE_PODS_REMAINING, &[], capacity.remaining);
    if let Some(fit) = capacity.binding() {
        let labels = [fit.limit.about.name, fit.limit.object.as_str()];
        out.add(&table::NODE_BINDING_LIMIT, &labels, 1.0);
    }
    ages(state, &capacity.fits, out);
    if let Some(stalled) = state.cpu_stalled {
        out.add(&table::PRESSURE_STALLED, &["cpu"], stalled.as_secs_f64());
    }
}

/// How old the dear ones are: the oldest of a limit's objects.
fn ages(state: &NodeState, fits: &[Fit], out: &mut Families) {
    let mut ages = BTreeMap::new();
    for limit in fits.iter().map(|fit| &fit.limit) {
        if let Some(at) = limit.read_at {
            let oldest = ages.entry(limit.about.name).or_insert(at);
            *oldest = at.min(*oldest);
        }
    }
    if let Some(netfilter) = &state.netfilter {
        ages.insert(crate::limits::netfilter::NAME, netfilter.read_at);
    }
    for (name, at) in ages {
        out.add(&table::LIMIT_AGE, &[name], at.elapsed().as_secs_f64());
    }
}

fn netfilter(state: &NodeState, out: &mut Families) {
    let counts = state.netfilter.iter().flat_map(|netfilter| &netfilter.counts);
    for ((backend, family, owner), count) in counts {
        let labels = [backend.label(), family.label(), owner.label()];
        out.add(&table::NETFILTER_RULES, &labels, count.rules as f64);
        out.maybe(&table::NETFILTER_CHAINS, &labels, count.chains);
    }
}

fn agent(state: &NodeState, out: &mut Families) {
    out.add(&table::BUILD_INFO, &[env!("CARGO_PKG_VERSION"), REVISION], 1.0);
    if state.net.is_some() {
        out.add(&table::HOST_NETNS, &[], f64::from(u8::from(state.in_host_netns())));
    }
    for (name, task) in &state.tasks {
        out.add(&table::TASK_RESTARTS, &[name], task.restarts as f64);
    }
    out.add(&table::NETLINK_OVERRUNS, &[], state.netlink_overruns as f64);
    out.add(&table::NETLINK_RESYNCS, &[], state.netlink_resyncs as f64);
    let config = &state.config;
    if let Some(at) = config.loaded_at {
        out.add(&table::CONFIG_INFO, &[&config.hash, config.source], 1.0);
        out.add(&table::CONFIG_RELOAD_TIMESTAMP, &[], seconds(at));
        let good = config.error.is_none();
        out.add(&table::CONFIG_RELOAD_SUCCESSFUL, &[], f64::from(u8::from(good)));
    }
}

fn process(state: &NodeState, out: &mut Families) {
    let Some(usage) = state.process else { return };
    out.add(&table::PROCESS_CPU, &[], usage.cpu_seconds);
    out.add(&table::PROCESS_RESIDENT, &[], usage.resident_bytes as f64);
    out.add(&table::PROCESS_VIRTUAL, &[], usage.virtual_bytes as f64);
    out.maybe(&table::PROCESS_FDS, &[], usage.open_fds);
    out.maybe(&table::PROCESS_MAX_FDS, &[], usage.max_fds);
    out.add(&table::PROCESS_THREADS, &[], usage.threads as f64);
    if let Some(start) = usage.start_time {
        out.add(&table::PROCESS_START, &[], start);
    }
}

fn collectors(state: &NodeState, out: &mut Families) {
    for (name, collector) in &state.collectors {
        let success = f64::from(u8::from(collector.error.is_none()));
        out.add(&table::COLLECTOR_SUCCESS, &[name], success);
        out.add(&table::COLLECTOR_DURATION, &[name], collector.duration.as_secs_f64());
    }
}

fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
#[path = "../metrics_tests.rs"]
mod tests;
