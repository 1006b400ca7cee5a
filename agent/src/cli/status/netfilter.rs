//! The rules of netfilter in `headroom status`.

use headroom::limits::netfilter::Mode;
use headroom::serve::status::{Netfilter, Status};

use super::super::output::{Output, Tone, or_dash};

/// A section, where there is something to tell.
pub fn print(out: &Output, status: &Status) {
    let Some(netfilter) = &status.netfilter else { return };
    if netfilter.rules.is_empty() && netfilter.unknown.is_empty() {
        return;
    }
    out.line("");
    out.heading(&format!("NETFILTER RULES  kube-proxy: {}", mode(netfilter)));
    let rows: Vec<_> = netfilter
        .rules
        .iter()
        .map(|count| {
            let cells = vec![
                count.backend.label().to_owned(),
                count.family.label().to_owned(),
                count.owner.label().to_owned(),
                count.rules.to_string(),
                or_dash(count.chains),
            ];
            (Tone::Plain, cells)
        })
        .collect();
    if !rows.is_empty() {
        out.table(&["BACKEND", "FAMILY", "OWNER", "RULES", "CHAINS"], &rows);
    }
    for line in netfilter.unknown.iter().chain(&netfilter.advice) {
        out.line(format_args!("{} {line}", out.paint(Tone::Notable, "!")));
    }
}

fn mode(netfilter: &Netfilter) -> String {
    match netfilter.kube_proxy_modes.as_deref() {
        None => "mode not known".to_owned(),
        Some([]) => "no mode found".to_owned(),
        Some(modes) => {
            let modes: Vec<&str> = modes.iter().map(|mode: &Mode| mode.label()).collect();
            modes.join(" and ")
        }
    }
}
