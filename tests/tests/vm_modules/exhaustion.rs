use headroom_tests::exhaustion::{Hooks, conntrack};

use super::*;

#[test]
fn connections_are_dropped_where_it_was_foretold() {
    let Some(host) = virtual_machine() else { return };
    unload(&["ip_vs", "nf_conntrack_netlink", "nf_conntrack"]);
    // No rule has to be loaded that makes namespaces track connections.
    load("nf_conntrack", &["enable_hooks=1"]);
    let row = conntrack(&host, Hooks::Always).unwrap_or_else(|why| panic!("{why}"));
    assert!(row.fact.refusal.contains("drop"), "{row:?}");
    assert!(row.is_as_foretold(), "{row:?}");
    unload(&["nf_conntrack"]);
}
