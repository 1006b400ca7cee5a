//! Metrics of pods' namespaces.

use prometheus::proto::{Bucket, Histogram};

use super::{Families, labelled, table};
use crate::node::NodeState;
use crate::pods::state::{BOUNDS, Latency, PodNamespace, PodState, Pods};

pub(super) fn pods(state: &NodeState, out: &mut Families) {
    let Some(pods) = &state.pods else { return };
    if !pods.unknown {
        for (state, count) in pods.counts() {
            out.add(&table::POD_NAMESPACES, &label(state), count as f64);
        }
        for (state, count) in pods.keys() {
            out.add(&table::POD_KEYS, &[state.label()], count as f64);
        }
    }
    for (from, latency) in
        [("namespace", &pods.since_namespace), ("identity", &pods.since_identity)]
    {
        histogram(&table::POD_APPLY_DURATION, from, latency, out);
    }
    out.add(&table::POD_DRIFT, &[], pods.drift as f64);
    out.add(&table::POD_LATE, &[], pods.late as f64);
    if pods.per_pod_series > 0 {
        each(pods, out);
    }
}

/// State and reason.
fn label(state: PodState) -> [&'static str; 2] {
    match state.label().strip_prefix("skipped-") {
        Some(reason) => ["skipped", reason],
        None => [state.label(), ""],
    }
}

/// Those not in sync first, so that a limit hides none of them as long as it can.
fn each(pods: &Pods, out: &mut Families) {
    let named =
        |namespace: &PodNamespace| namespace.pod.as_ref().is_some_and(|pod| pod.names().is_some());
    let mut named: Vec<(bool, &PodNamespace)> = pods
        .namespaces
        .values()
        .filter(|namespace| named(namespace) && namespace.state != PodState::Found)
        .map(|namespace| (namespace.is_well(), namespace))
        .collect();
    let name = |namespace: &PodNamespace| {
        let pod = namespace.pod.as_ref().and_then(|pod| pod.names());
        pod.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())).unwrap_or_default()
    };
    named.sort_by_cached_key(|(well, namespace)| (name(namespace), *well));
    // A name that is there twice, as while a pod is replaced: one series, of the worse one.
    named.dedup_by_key(|(_, namespace)| name(namespace));
    named.sort_by_key(|(well, _)| *well);
    let omitted = named.len().saturating_sub(pods.per_pod_series);
    for (well, namespace) in named.into_iter().take(pods.per_pod_series) {
        if let Some((namespace, name)) = namespace.pod.as_ref().and_then(|pod| pod.names()) {
            out.add(&table::POD_IN_SYNC, &[namespace, name], f64::from(u8::from(well)));
        }
    }
    out.add(&table::POD_SERIES_OMITTED, &[], omitted as f64);
}

fn histogram(spec: &'static table::Spec, from: &str, latency: &Latency, out: &mut Families) {
    let mut histogram = Histogram::default();
    let mut below = 0;
    let buckets = BOUNDS.iter().zip(latency.counts).map(|(bound, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(latency.count);
    histogram.set_sample_sum(latency.sum);
    let mut metric = labelled(spec, &[from]);
    metric.set_histogram(histogram);
    out.0.push((spec, metric));
}
