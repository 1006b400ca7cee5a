//! The table itself.

use super::Usual;

/// From the particular to the general: in this order they are shown.
pub(super) static TABLE: &[Usual] = &[
    Usual {
        who: "kube-proxy",
        what_to_do: "kube-proxy sets it when it starts, from conntrack.maxPerCore and \
                     conntrack.min: run it with --conntrack-max-per-core=0 --conntrack-min=0 \
                     (maxPerCore: 0) and it leaves the key alone.",
        keys: &["net.netfilter.nf_conntrack_max", "net.nf_conntrack_max"],
    },
    Usual {
        who: "kube-proxy",
        what_to_do: "kube-proxy sets it when it starts, where its conntrack timeouts are not 0: \
                     run it with --conntrack-tcp-timeout-established=0s and \
                     --conntrack-tcp-timeout-close-wait=0s, or give it the value you want.",
        keys: &[
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        ],
    },
    Usual {
        who: "kube-proxy",
        what_to_do: "kube-proxy sets it when it starts, only if it is told to: leave \
                     --conntrack-tcp-be-liberal, --conntrack-udp-timeout and \
                     --conntrack-udp-timeout-stream at their defaults.",
        keys: &[
            "net.netfilter.nf_conntrack_tcp_be_liberal",
            "net.netfilter.nf_conntrack_udp_timeout",
            "net.netfilter.nf_conntrack_udp_timeout_stream",
        ],
    },
    Usual {
        who: "kube-proxy",
        what_to_do: "In iptables mode kube-proxy sets it to 1 to serve NodePorts on localhost: \
                     run it with --iptables-localhost-nodeports=false, or in nftables mode.",
        keys: &["net.ipv4.conf.all.route_localnet"],
    },
    Usual {
        who: "kube-proxy",
        what_to_do: "In ipvs mode kube-proxy sets it when it starts, and needs it: leave it to \
                     kube-proxy, or choose another mode.",
        keys: &[
            "net.ipv4.vs.conntrack",
            "net.ipv4.vs.conn_reuse_mode",
            "net.ipv4.vs.expire_nodest_conn",
            "net.ipv4.vs.expire_quiescent_template",
            "net.ipv4.ip_forward",
        ],
    },
    Usual {
        who: "kube-proxy",
        what_to_do: "In ipvs mode with strictARP: true kube-proxy sets it when it starts; load \
                     balancers such as MetalLB ask for that. Leave it to kube-proxy, or set \
                     strictARP: false.",
        keys: &["net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce"],
    },
    Usual {
        who: "kubelet",
        what_to_do: "The kubelet sets it whenever it starts. With protectKernelDefaults: true it \
                     writes nothing, and refuses to start where the value is not its own: want \
                     the kubelet's value, or onConflict: report.",
        keys: &[
            "vm.overcommit_memory",
            "vm.panic_on_oom",
            "kernel.panic",
            "kernel.panic_on_oops",
            "kernel.keys.root_maxkeys",
            "kernel.keys.root_maxbytes",
        ],
    },
    Usual {
        who: "Cilium",
        what_to_do: "The Cilium agent keeps its own value of this key and looks every 10 s. It \
                     cannot be told not to: want the same value, or take the key out of the \
                     policy.",
        keys: &[
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.fib_multipath_use_neigh",
            "net.core.bpf_jit_enable",
            "net.core.fb_tunnels_only_for_init_net",
            "kernel.unprivileged_bpf_disabled",
            "kernel.timer_migration",
            "net.ipv6.conf.all.disable_ipv6",
        ],
    },
    Usual {
        who: "Cilium",
        what_to_do: "The Cilium agent keeps its own value on the interfaces that it makes \
                     (cilium_*, lxc*), and looks every 10 s: leave those out of the policy.",
        keys: &[
            "net.ipv4.conf.<interface>.forwarding",
            "net.ipv4.conf.<interface>.rp_filter",
            "net.ipv4.conf.<interface>.accept_local",
            "net.ipv4.conf.<interface>.send_redirects",
            "net.ipv6.conf.<interface>.forwarding",
        ],
    },
    Usual {
        who: "Calico",
        what_to_do: "Calico sets it on each pod's interface (cali*) when that comes up: leave \
                     those out of the policy.",
        keys: &[
            "net.ipv4.conf.<interface>.route_localnet",
            "net.ipv4.conf.<interface>.proxy_arp",
            "net.ipv4.conf.<interface>.forwarding",
            "net.ipv4.conf.<interface>.rp_filter",
            "net.ipv4.neigh.<interface>.proxy_delay",
            "net.ipv6.conf.<interface>.accept_ra",
            "net.ipv6.conf.<interface>.accept_dad",
            "net.ipv6.conf.<interface>.disable_ipv6",
            "net.ipv6.conf.<interface>.forwarding",
            "net.ipv6.conf.<interface>.proxy_ndp",
        ],
    },
    Usual {
        who: "Calico",
        what_to_do: "Felix sets it to 1 when it starts, unless FelixConfiguration says \
                     ipForwarding: Disabled; the CNI plugin can do the same.",
        keys: &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"],
    },
    Usual {
        who: "Calico",
        what_to_do: "Felix sets it to 1 when it starts: want 1, or onConflict: yield.",
        keys: &["net.netfilter.nf_conntrack_acct"],
    },
    Usual {
        who: "Calico",
        what_to_do: "With bpfEnabled: true Felix sets it, on host interfaces too; \
                     bpfDisableUnprivileged: false keeps it from unprivileged_bpf_disabled.",
        keys: &[
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.conf.<interface>.rp_filter",
            "net.ipv4.conf.<interface>.accept_local",
            "net.core.bpf_jit_harden",
            "kernel.unprivileged_bpf_disabled",
        ],
    },
    Usual {
        who: "AWS VPC CNI",
        what_to_do: "aws-node's init container sets the primary interface to loose (2) when the \
                     pod starts, for NodePorts that answer through another interface: want 2 \
                     there.",
        keys: &["net.ipv4.conf.<interface>.rp_filter"],
    },
    Usual {
        who: "AWS VPC CNI",
        what_to_do: "aws-node's init container sets it when the pod starts, to 0 with \
                     DISABLE_TCP_EARLY_DEMUX=true and to 1 without: choose it there.",
        keys: &["net.ipv4.tcp_early_demux"],
    },
    Usual {
        who: "AWS VPC CNI",
        what_to_do: "With IPv6 the AWS VPC CNI needs it: forwarding for all, accept_ra=2 on the \
                     primary interface, and its own values on the pods' interfaces. Want the \
                     same, or take the key out of the policy.",
        keys: &[
            "net.ipv6.conf.all.disable_ipv6",
            "net.ipv6.conf.all.forwarding",
            "net.ipv6.conf.<interface>.accept_ra",
            "net.ipv6.conf.<interface>.accept_redirects",
            "net.ipv6.conf.<interface>.forwarding",
        ],
    },
    Usual {
        who: "CNI plugins",
        what_to_do: "The CNI plugins bridge and ptp turn forwarding on when a pod is added: pods \
                     need it.",
        keys: &["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"],
    },
    Usual {
        who: "CNI plugins",
        what_to_do: "CNI plugins set it when a pod is added: portmap route_localnet for \
                     hostPorts, bridge and others accept_ra=0 on the bridge and on the pod's \
                     interface. Leave those interfaces out of the policy.",
        keys: &["net.ipv4.conf.<interface>.route_localnet", "net.ipv6.conf.<interface>.accept_ra"],
    },
    Usual {
        who: "flannel",
        what_to_do: "flannel sets it to 0 on its VXLAN interface (flannel.*): leave that out of \
                     the policy.",
        keys: &["net.ipv6.conf.<interface>.accept_ra"],
    },
    Usual {
        who: "k3s",
        what_to_do: "k3s sets it when it starts. For the conntrack keys give it \
                     --kube-proxy-arg=conntrack-max-per-core=0 and the like; the others it needs.",
        keys: &[
            "net.ipv4.conf.all.forwarding",
            "net.ipv4.conf.default.forwarding",
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
            "net.ipv6.conf.default.forwarding",
            "net.core.devconf_inherit_init_net",
            "net.bridge.bridge-nf-call-iptables",
            "net.bridge.bridge-nf-call-ip6tables",
            "net.netfilter.nf_conntrack_max",
            "net.netfilter.nf_conntrack_tcp_timeout_established",
            "net.netfilter.nf_conntrack_tcp_timeout_close_wait",
        ],
    },
    Usual {
        who: "Docker",
        what_to_do: "Docker turns forwarding on when it starts; with --ip-forward=false it only \
                     checks.",
        keys: &[
            "net.ipv4.ip_forward",
            "net.ipv6.conf.all.forwarding",
            "net.ipv6.conf.default.forwarding",
        ],
    },
    Usual {
        who: "Docker",
        what_to_do: "Docker sets it to 1 where it has no userland proxy or no communication \
                     between containers (--icc=false).",
        keys: &["net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"],
    },
    Usual {
        who: "Docker",
        what_to_do: "Docker only raises it: the thresholds for overlay networks, the key quota \
                     when it starts. Want a bound (min) instead of a value.",
        keys: &[
            "net.ipv4.neigh.default.gc_thresh1",
            "net.ipv4.neigh.default.gc_thresh2",
            "net.ipv4.neigh.default.gc_thresh3",
            "kernel.keys.root_maxkeys",
            "kernel.keys.root_maxbytes",
        ],
    },
    Usual {
        who: "Docker",
        what_to_do: "Docker sets it on its own bridges: leave those out of the policy.",
        keys: &[
            "net.ipv4.conf.<interface>.route_localnet",
            "net.ipv6.conf.<interface>.accept_ra",
            "net.ipv6.conf.<interface>.disable_ipv6",
        ],
    },
    Usual {
        who: "systemd-networkd",
        what_to_do: "systemd-networkd sets it on interfaces that a .network file matches, when \
                     they are configured: set it there (IPv4Forwarding=, IPv6AcceptRA=, \
                     IPv4ReversePathFilter= and so on), or have no file match the interface.",
        keys: &[
            "net.ipv4.conf.<interface>.accept_local",
            "net.ipv4.conf.<interface>.forwarding",
            "net.ipv4.conf.<interface>.promote_secondaries",
            "net.ipv4.conf.<interface>.proxy_arp",
            "net.ipv4.conf.<interface>.proxy_arp_pvlan",
            "net.ipv4.conf.<interface>.route_localnet",
            "net.ipv4.conf.<interface>.rp_filter",
            "net.ipv6.conf.<interface>.accept_ra",
            "net.ipv6.conf.<interface>.dad_transmits",
            "net.ipv6.conf.<interface>.disable_ipv6",
            "net.ipv6.conf.<interface>.forwarding",
            "net.ipv6.conf.<interface>.hop_limit",
            "net.ipv6.conf.<interface>.mtu",
            "net.ipv6.conf.<interface>.proxy_ndp",
            "net.ipv6.conf.<interface>.stable_secret",
            "net.ipv6.conf.<interface>.use_tempaddr",
            "net.ipv6.neigh.<interface>.retrans_time_ms",
        ],
    },
    Usual {
        who: "systemd-networkd",
        what_to_do: "systemd-networkd sets it when it starts, if networkd.conf says \
                     IPv4Forwarding= or IPv6Forwarding= (before 256 also if a .network file says \
                     IPForward=).",
        keys: &[
            "net.ipv4.ip_forward",
            "net.ipv4.conf.all.forwarding",
            "net.ipv4.conf.default.forwarding",
            "net.ipv6.conf.all.forwarding",
            "net.ipv6.conf.default.forwarding",
        ],
    },
    Usual {
        who: "NetworkManager",
        what_to_do: "NetworkManager sets it on interfaces that it manages, when a connection is \
                     activated, changes or ends: set it in the connection (ipv6.method, \
                     ipv6.ip6-privacy, ipv4.forwarding and so on), or make the interface \
                     unmanaged.",
        keys: &[
            "net.ipv4.conf.<interface>.forwarding",
            "net.ipv4.conf.<interface>.rp_filter",
            "net.ipv6.conf.<interface>.accept_ra",
            "net.ipv6.conf.<interface>.addr_gen_mode",
            "net.ipv6.conf.<interface>.disable_ipv6",
            "net.ipv6.conf.<interface>.forwarding",
            "net.ipv6.conf.<interface>.hop_limit",
            "net.ipv6.conf.<interface>.mtu",
            "net.ipv6.conf.<interface>.temp_prefered_lft",
            "net.ipv6.conf.<interface>.temp_valid_lft",
            "net.ipv6.conf.<interface>.use_tempaddr",
        ],
    },
    Usual {
        who: "the kernel",
        what_to_do: "ip_forward and conf.all.forwarding are one value, and a change of it is \
                     copied to all interfaces and resets conf.all.accept_redirects: set \
                     ip_forward in the policy too.",
        keys: &[
            "net.ipv4.ip_forward",
            "net.ipv4.conf.*.forwarding",
            "net.ipv4.conf.all.accept_redirects",
        ],
    },
    Usual {
        who: "the kernel",
        what_to_do: "A change of conf.all.forwarding is copied to all interfaces: set that key \
                     in the policy too.",
        keys: &["net.ipv6.conf.*.forwarding"],
    },
    Usual {
        who: "TuneD",
        what_to_do: "TuneD sets it with a profile that names it, when the profile starts, and \
                     puts it back when it stops: change the profile (tuned-adm active names it).",
        keys: &[
            "fs.aio-max-nr",
            "fs.file-max",
            "fs.inotify.max_user_instances",
            "fs.inotify.max_user_watches",
            "kernel.hung_task_timeout_secs",
            "kernel.nmi_watchdog",
            "kernel.numa_balancing",
            "kernel.panic_on_oops",
            "kernel.pid_max",
            "kernel.printk",
            "kernel.sched_autogroup_enabled",
            "kernel.sched_rt_runtime_us",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "kernel.timer_migration",
            "net.core.busy_poll",
            "net.core.busy_read",
            "net.core.rmem_default",
            "net.core.rmem_max",
            "net.core.somaxconn",
            "net.core.wmem_default",
            "net.core.wmem_max",
            "net.ipv4.conf.all.arp_announce",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.neigh.default.*",
            "net.ipv4.tcp_fastopen",
            "net.ipv4.tcp_notsent_lowat",
            "net.ipv4.tcp_rmem",
            "net.ipv4.tcp_slow_start_after_idle",
            "net.ipv4.tcp_timestamps",
            "net.ipv4.tcp_window_scaling",
            "net.ipv4.tcp_wmem",
            "net.ipv6.neigh.default.*",
            "net.netfilter.nf_conntrack_max",
            "vm.dirty_*",
            "vm.max_map_count",
            "vm.min_free_kbytes",
            "vm.stat_interval",
            "vm.swappiness",
            "vm.zone_reclaim_mode",
        ],
    },
    Usual {
        who: "saptune",
        what_to_do: "saptune sets it with a note that names it, when the note is applied: change \
                     the note (saptune note customise), or revert it.",
        keys: &[
            "fs.aio-max-nr",
            "kernel.msgmni",
            "kernel.numa_balancing",
            "kernel.pid_max",
            "kernel.sem",
            "kernel.shmall",
            "kernel.shmmax",
            "kernel.shmmni",
            "net.core.netdev_max_backlog",
            "net.core.rmem_max",
            "net.core.somaxconn",
            "net.core.wmem_max",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.ip_local_reserved_ports",
            "net.ipv4.tcp_*",
            "vm.dirty_background_bytes",
            "vm.dirty_bytes",
            "vm.hugetlb_shm_group",
            "vm.max_map_count",
            "vm.nr_hugepages",
        ],
    },
    Usual {
        who: "systemd-sysctl",
        what_to_do: "Whenever an interface appears, udev runs systemd-sysctl, which applies what \
                     the sysctl.d directories say about it: change it there.",
        keys: &[
            "net.ipv4.conf.<interface>.*",
            "net.ipv4.neigh.<interface>.*",
            "net.ipv6.conf.<interface>.*",
            "net.ipv6.neigh.<interface>.*",
        ],
    },
    Usual {
        who: "systemd-sysctl",
        what_to_do: "At boot and whenever its service is restarted, systemd-sysctl applies what \
                     the sysctl.d directories say: change it there.",
        keys: &["*"],
    },
];
