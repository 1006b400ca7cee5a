//! When a change of a key reaches what runs already.
//!
//! Most keys are read at every use. Those that are not have a flag in the catalogue, set where the
//! kernel's source shows the one place that reads them:
//!
//! - `at-listen`: `__sys_listen` takes the smaller of `somaxconn` and the backlog; `__inet_listen_sk`
//!   reads the server's half of `tcp_fastopen`.
//! - `at-socket`: `tcp_init_sock` reads the middle of `tcp_rmem` and `tcp_wmem`, `tcp_reordering`,
//!   `tcp_rto_min_us` and `tcp_rto_max_ms`; `sock_init_data` the buffers' defaults and `busy_read`;
//!   `sk_alloc` `bypass_prot_mem`; `inet_create` and `inet6_create` `txrehash`, `bindv6only` and
//!   `ip_no_pmtu_disc`; `ping_init_sock` `ping_group_range`; `unix_create1` `max_dgram_qlen`;
//!   `mptcp_init_sock` `enabled` and `scheduler`. A connection that is accepted is a copy of its
//!   listener (`sk_clone_lock`), so it has the listener's.
//! - `at-bind`: `__inet_bind` asks `inet_port_requires_bind_service`.
//! - `at-connection`: `tcp_ecn_send_syn`, `tcp_syn_options` and `tcp_parse_options`; of congestion
//!   control `tcp_init_sock`, and `tcp_ca_openreq_child` for one that is accepted.
//! - `partly`: the kernel also reads it elsewhere, at every use.
//!
//! What is below `conf.default` and `neigh.default` needs no flag: `inetdev_init`, `ipv6_add_dev` and
//! `neigh_parms_alloc` copy it. A write to it also reaches interfaces that exist, where nobody has set
//! the value (`devinet_copy_dflt_conf`, `neigh_copy_dflt_parms`), but not for `net.ipv6.conf`.

use schemars::JsonSchema;
use serde::Serialize;

use super::catalogue;
use super::key::Key;

/// The moment at which the kernel reads a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Moment {
    /// `listen(2)`.
    Listen,
    /// `socket(2)`.
    Socket,
    /// `bind(2)`.
    Bind,
    /// When a connection starts.
    Connection,
    /// When an interface is created.
    Interface,
}

/// Why a change does not reach everything that runs already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Effect {
    /// When the kernel reads the key.
    pub read_at: Moment,
    /// Whether a part of it is read at every use all the same.
    pub partly: bool,
    /// Whether programs that run already must be restarted to have the new value.
    pub restart: bool,
    /// The same in words.
    pub words: &'static str,
}

/// When a change of a key takes effect; `None`: at once, or it is not known.
#[must_use]
pub fn takes_effect(key: &Key) -> Option<Effect> {
    let entry = catalogue::lookup(key)?;
    // Those of the whole table, such as gc_thresh3, have a line of their own.
    if catalogue::interface(key.as_str()) == Some("default") && entry.key().contains(".*.") {
        let words = match key.as_str().starts_with("net.ipv6.conf.") {
            true => "taken over by an interface when it is created: those that exist keep theirs",
            false => {
                "taken over by an interface when it is created, and by those of the same namespace that \
                 exist, where nobody has set the value"
            }
        };
        return Some(Effect { read_at: Moment::Interface, partly: false, restart: false, words });
    }
    let read_at = [
        ("at-listen", Moment::Listen),
        ("at-socket", Moment::Socket),
        ("at-bind", Moment::Bind),
        ("at-connection", Moment::Connection),
    ];
    let (_, read_at) = read_at.into_iter().find(|(flag, _)| entry.has(flag))?;
    let partly = entry.has("partly");
    let restart = matches!(read_at, Moment::Listen | Moment::Socket);
    Some(Effect { read_at, partly, restart, words: words(read_at, partly) })
}

fn words(read_at: Moment, partly: bool) -> &'static str {
    match (read_at, partly) {
        (Moment::Listen, false) => {
            "read when a program calls listen(): running programs keep the old value until they are \
             restarted"
        }
        (Moment::Listen, true) => {
            "in part read when a program calls listen(): running servers keep the old value until they \
             are restarted"
        }
        (Moment::Socket, false) => {
            "read when a program opens a socket: sockets that are open keep the old value, listeners and \
             what they accept until the program is restarted"
        }
        (Moment::Socket, true) => {
            "in part read when a program opens a socket: sockets that are open keep it, listeners and \
             what they accept until the program is restarted"
        }
        (Moment::Bind, _) => {
            "read when a program calls bind(): one that was refused must try again"
        }
        (Moment::Connection, _) => {
            "read when a connection starts: those that exist go on as they began; no restart is needed"
        }
        (Moment::Interface, _) => "taken over by an interface when it is created",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of(key: &str) -> Option<(Moment, bool)> {
        let effect = takes_effect(&Key::parse(key).unwrap());
        effect.map(|effect| (effect.read_at, effect.restart))
    }

    #[test]
    fn says_when_the_kernel_reads_a_key() {
        assert_eq!(of("net.core.somaxconn"), Some((Moment::Listen, true)));
        assert_eq!(of("net.ipv4.tcp_rmem"), Some((Moment::Socket, true)));
        assert_eq!(of("net.ipv4.ip_unprivileged_port_start"), Some((Moment::Bind, false)));
        assert_eq!(of("net.ipv4.tcp_congestion_control"), Some((Moment::Connection, false)));
        assert_eq!(of("net.ipv4.conf.default.rp_filter"), Some((Moment::Interface, false)));
        assert_eq!(of("net.ipv6.neigh.default.gc_stale_time"), Some((Moment::Interface, false)));
        for at_every_use in [
            "net.ipv4.tcp_fin_timeout",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.conf.all.rp_filter",
            "net.ipv4.neigh.default.gc_thresh3",
            "vm.swappiness",
            "net.core.nothing",
        ] {
            assert_eq!(of(at_every_use), None, "{at_every_use}");
        }
    }

    #[test]
    fn flags_stand_alone_and_partly_not() {
        for entry in catalogue::all() {
            let moments = entry.flags().filter(|flag| flag.starts_with("at-")).count();
            assert!(moments <= 1, "{}", entry.key());
            assert!(moments == 1 || !entry.has("partly"), "{}", entry.key());
            if moments == 1 {
                let key = Key::parse(&entry.key().replace('*', "all")).unwrap();
                assert!(takes_effect(&key).is_some(), "{key}: a flag that is not known");
            }
        }
    }
}
