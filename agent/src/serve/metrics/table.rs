//! Every metric: name, type, labels, help. The reference in `docs/` is generated from this table.

use prometheus::proto::MetricType;

/// One metric family.
#[derive(Debug)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Its labels, in order.
    pub labels: &'static [&'static str],
    /// What is counted, and in which scope.
    pub help: &'static str,
}

/// The types that are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only goes up, from boot or from the agent's start.
    Counter,
    /// How long things took, since the agent's start.
    Histogram,
}

impl Kind {
    /// In the exposition format's word.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }

    pub(super) fn proto(self) -> MetricType {
        match self {
            Self::Gauge => MetricType::GAUGE,
            Self::Counter => MetricType::COUNTER,
            Self::Histogram => MetricType::HISTOGRAM,
        }
    }
}

macro_rules! table {
    ($($id:ident $kind:ident $name:literal [$($label:literal),*] $help:literal)*) => {
        $(#[doc = $help] pub static $id: Spec = Spec {
            name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help,
        };)*
        /// All of them, in the order of the reference.
        pub static ALL: &[&Spec] = &[$(&$id),*];
    };
}

table! {
    NEIGHBOR_ENTRIES Gauge "headroom_neighbor_entries" ["family"]
        "Entries of the kernel's neighbor table, of all network namespaces together."
    NEIGHBOR_ENTRIES_PEAK Gauge "headroom_neighbor_entries_peak" ["family"]
        "Most entries of the neighbor table since the agent started, sampled every second."
    NEIGHBOR_EXEMPT Gauge "headroom_neighbor_exempt_entries" ["family"]
        "Entries that gc_thresh does not count (permanent, externally learned, loopback since 6.10), in the scanned namespaces."
    NEIGHBOR_PINNED Gauge "headroom_neighbor_pinned_entries" ["family"]
        "Entries that no garbage collection can free now, in the scanned namespaces: what really fills the table."
    NEIGHBOR_SCAN_TIMESTAMP Gauge "headroom_neighbor_scan_timestamp_seconds" ["family"]
        "When the entries were last scanned, in seconds since the epoch."
    NEIGHBOR_SCAN_NAMESPACES Gauge "headroom_neighbor_scan_namespaces" ["state"]
        "Network namespaces known to the agent, by whether the last scan of entries read them."
    NEIGHBOR_GC_THRESH1 Gauge "headroom_neighbor_gc_thresh1" ["family"]
        "Entries below which nothing is garbage collected, kernel-wide."
    NEIGHBOR_GC_THRESH2 Gauge "headroom_neighbor_gc_thresh2" ["family"]
        "Entries above which those older than 5 s are collected on allocation, kernel-wide."
    NEIGHBOR_GC_THRESH3 Gauge "headroom_neighbor_gc_thresh3" ["family"]
        "Entries at which allocation fails if nothing can be collected, kernel-wide."
    NEIGHBOR_FULLNESS Gauge "headroom_neighbor_fullness_ratio" ["family", "basis"]
        "Fullness of the neighbor table against gc_thresh3: of pinned entries where a scan saw them all, else of entries less known exempt ones, an upper bound that may pass 1."
    NEIGHBOR_TABLE_FULLS Counter "headroom_neighbor_table_fulls_total" ["family"]
        "Allocations that failed because the neighbor table was full, since boot, kernel-wide: each is a packet or a connection lost."
    NEIGHBOR_FORCED_GC Counter "headroom_neighbor_forced_gc_runs_total" ["family"]
        "Forced garbage collections of the neighbor table, since boot, kernel-wide. From gc_thresh2 on, so not a failure by itself."
    NEIGHBOR_UNRESOLVED_DISCARDS Counter "headroom_neighbor_unresolved_discards_total" ["family"]
        "Packets dropped while their neighbor was being resolved, since boot, kernel-wide."
    NEIGHBOR_RESOLUTION_FAILURES Counter "headroom_neighbor_resolution_failures_total" ["family"]
        "Neighbors that did not answer, since boot, kernel-wide."
    AUTOGROW_STEPS Counter "headroom_autogrow_steps_total" ["family"]
        "Times that gc_thresh3 was raised because the neighbor table was about to be full, since the agent started; only where `autogrow` is on."
    BRIDGE_PORTS Gauge "headroom_bridge_ports" ["bridge"]
        "Ports of a bridge in the host's network namespace."
    BRIDGE_PORTS_LIMIT Gauge "headroom_bridge_ports_limit" ["bridge"]
        "Ports that a bridge can have; fixed when the kernel is compiled."
    BRIDGE_FULLNESS Gauge "headroom_bridge_fullness_ratio" ["bridge"]
        "Ports of a bridge against its limit."
    SYSCTL_VALUE Gauge "headroom_sysctl_value" ["key", "field"]
        "The value of a configured key now, a series for each field of a vector; numeric keys only."
    SYSCTL_DESIRED Gauge "headroom_sysctl_desired" ["key", "field"]
        "The value that the policy asks for, given the value now; numeric keys only."
    SYSCTL_IN_SYNC Gauge "headroom_sysctl_in_sync" ["key"]
        "Whether the value of a configured key meets its policy (1) or not (0), in whatever state."
    SYSCTL_STATE Gauge "headroom_sysctl_state_info" ["key", "state"]
        "The state of a configured key, always 1."
    SYSCTL_WRITES Counter "headroom_sysctl_writes_total" ["result"]
        "Values written to /proc/sys since the agent started, by what came of it."
    SYSCTL_DRIFT Counter "headroom_sysctl_drift_total" []
        "Times that a value stopped meeting its policy after it had met it, since the agent started."
    POD_NAMESPACES Gauge "headroom_pod_namespaces" ["state", "reason"]
        "Files in the directories of pods' network namespaces, by what became of them; only where the configuration has `pods`."
    POD_APPLY_DURATION Histogram "headroom_pod_apply_duration_seconds" ["from"]
        "Time until policies were in force in a pod's namespace that appeared while the agent ran: those for every pod from the namespace's appearance, those by name from the CNI result's (identity)."
    POD_KEYS Gauge "headroom_pod_keys" ["state"]
        "Keys that policies want in pods' namespaces, over all of them, by state: yielded are kept, because somebody set them on purpose."
    POD_DRIFT Counter "headroom_pod_drift_total" []
        "Values in pods' namespaces that were in force and that another writer changed later, since the agent started."
    POD_LATE Counter "headroom_pod_late_total" []
        "Namespaces that had to be tuned though they were there before the agent: processes in them may have started without the values. Since the agent started."
    POD_IN_SYNC Gauge "headroom_pod_in_sync" ["namespace", "pod"]
        "Whether every key of a pod is as its policies want it, or kept on purpose (1), or not (0); for as many pods as podNamespaces.perPodSeries says, those not in sync first."
    POD_SERIES_OMITTED Gauge "headroom_pod_series_omitted" []
        "Named pods that have no headroom_pod_in_sync because podNamespaces.perPodSeries is smaller."
    LIMIT_USED Gauge "headroom_limit_used" ["limit", "object"]
        "What is in use of a limit."
    LIMIT_MAX Gauge "headroom_limit_max" ["limit", "object"]
        "The maximum of a limit."
    LIMIT_HITS Counter "headroom_limit_hits_total" ["limit", "object"]
        "Times that the kernel refused because a limit was reached, since boot."
    LIMIT_PODS_REMAINING Gauge "headroom_limit_pods_remaining" ["limit", "object"]
        "Pods that still fit before the limit is full, by what a pod costs on this node; 0 while the kernel refuses. Absent where that is not known or pods do not use it up."
    NODE_PODS_REMAINING Gauge "headroom_node_pods_remaining" []
        "Pods that still fit on this node before the first limit stops them, less the configured reserve."
    NODE_BINDING_LIMIT Gauge "headroom_node_binding_limit_info" ["limit", "object"]
        "The limit that stops the next pods first, always 1."
    LIMIT_AGE Gauge "headroom_limit_age_seconds" ["limit"]
        "Time since a limit was read that is too dear for every scrape; of its oldest object, in seconds."
    PRESSURE_STALLED Counter "headroom_pressure_stalled_seconds_total" ["resource"]
        "Time in which some task was ready and had to wait for the resource, since boot, kernel-wide (PSI); only on kernels that have it."
    NETFILTER_RULES Gauge "headroom_netfilter_rules" ["backend", "family", "owner"]
        "Rules of the node's network namespace, by whether they are in chains or tables of kube-proxy's own; of ipvs the destinations. Owner unknown: an upper bound, of tables too large to be read."
    NETFILTER_CHAINS Gauge "headroom_netfilter_chains" ["backend", "family", "owner"]
        "Chains of the node's network namespace, built-in ones included; of ipvs the virtual services."
    HOST_NETNS Gauge "headroom_host_netns" []
        "Whether the agent is in the node's network namespace (1), where it should be, or not (0)."
    TASK_RESTARTS Counter "headroom_task_restarts_total" ["task"]
        "Times that a task of the agent failed and was started again, since the agent started."
    COLLECTOR_SUCCESS Gauge "headroom_collector_success" ["collector"]
        "Whether a source was read without error the last time (1) or not (0)."
    COLLECTOR_DURATION Gauge "headroom_collector_duration_seconds" ["collector"]
        "How long reading a source took the last time."
    NETLINK_OVERRUNS Counter "headroom_netlink_overruns_total" []
        "Times that the kernel dropped link events because the agent's buffer was full, since the agent started."
    NETLINK_RESYNCS Counter "headroom_netlink_resyncs_total" []
        "Times that all links were read anew after the first, since the agent started."
    CONFIG_INFO Gauge "headroom_config_info" ["hash", "source"]
        "The configuration in force, always 1."
    CONFIG_RELOAD_SUCCESSFUL Gauge "headroom_config_last_reload_successful" []
        "Whether the configuration was loaded the last time it was tried (1) or not (0); the last good one stays in force."
    CONFIG_RELOAD_TIMESTAMP Gauge "headroom_config_last_reload_success_timestamp_seconds" []
        "When the configuration in force was loaded, in seconds since the epoch."
    BUILD_INFO Gauge "headroom_build_info" ["version", "revision"]
        "The agent's build, always 1."
    PROCESS_CPU Counter "process_cpu_seconds_total" []
        "User and system CPU time of the agent, in seconds."
    PROCESS_RESIDENT Gauge "process_resident_memory_bytes" []
        "Resident memory of the agent."
    PROCESS_VIRTUAL Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the agent."
    PROCESS_FDS Gauge "process_open_fds" []
        "Open file descriptors of the agent."
    PROCESS_MAX_FDS Gauge "process_max_fds" []
        "File descriptors that the agent may open."
    PROCESS_START Gauge "process_start_time_seconds" []
        "When the agent started, in seconds since the epoch."
    PROCESS_THREADS Gauge "process_threads" []
        "Threads of the agent."
}

/// The reference, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Metrics\n\nGenerated from the agent's own table; `make docs` brings it up to date.\n\n\
         A series disappears when its object does. What cannot be read is absent, never 0; why is in \
         `headroom status`.\n\n| metric | type | labels | help |\n| --- | --- | --- | --- |\n",
    );
    for spec in ALL {
        let labels: Vec<String> = spec.labels.iter().map(|label| format!("`{label}`")).collect();
        text += &format!(
            "| `{}` | {} | {} | {} |\n",
            spec.name,
            spec.kind.label(),
            labels.join(", "),
            spec.help
        );
    }
    text
}
