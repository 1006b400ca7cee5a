//! The task that counts netfilter's rules, now and then and beside the scrapes.

use std::time::{Duration, Instant};

use tokio::time::sleep;
use tracing::{info, warn};

use super::Context;
use super::limits::SHARE;
use super::supervise::{Failure, blocking, recovered};
use crate::kernel::system;
use crate::limits::netfilter::reader::Reader;

/// Between two rounds, at the least: kube-proxy changes its rules in bursts.
const EVERY: Duration = Duration::from_secs(60);

/// Counts the rules of the host's namespace.
pub async fn count(context: Context) -> Result<(), Failure> {
    let mut reader = Reader::new(&context.roots.proc);
    loop {
        let started = Instant::now();
        let (back, (found, error, cost)) = blocking(reader, |reader| {
            let before = system::thread_cpu_time();
            let (found, error) = reader.read();
            (found, error, system::thread_cpu_time().saturating_sub(before))
        })
        .await?;
        reader = back;
        let changed = context.node.update(|state| {
            state.netfilter = Some(found);
            state.collected("netfilter", error.clone(), started.elapsed())
        });
        match (changed, error) {
            (true, Some(reason)) => warn!(reason, "netfilter's rules cannot be counted"),
            (true, None) => info!("netfilter's rules can be counted again"),
            (false, _) => {}
        }
        recovered(&context.node, "netfilter");
        sleep(EVERY.max(cost.div_f64(SHARE))).await;
    }
}
