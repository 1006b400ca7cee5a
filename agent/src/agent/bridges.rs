//! The bridges' task: found over netlink, kept by link events, checked against `brif`.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::{debug, info, warn};

use super::Context;
use super::appeared::Links;
use super::supervise::{Failure, blocking, current, recovered};
use crate::config::Watch;
use crate::kernel::links::{self, BridgeLink, LinkEvent, LinkEvents};
use crate::kernel::netlink::{DumpSocket, NetlinkError};
use crate::limits::bridge::{Bridge, Effect, Model};

/// Events come in bursts; the count is taken once a burst is over, or at least this often in it.
const SETTLE: Duration = Duration::from_millis(200);
/// Reading all links anew takes RTNL, so not more often than this.
const RESYNC_EVERY: Duration = Duration::from_secs(1);
/// Events are wake-ups only: without any, the truth is looked at all the same.
const RECHECK_EVERY: Duration = Duration::from_secs(10);

/// Watches every bridge of the host's namespace.
pub async fn watch(mut context: Context) -> Result<(), Failure> {
    // Subscribed before the first dump, so that nothing falls between the two.
    let mut events = LinkEvents::subscribe(context.event_buffer)
        .map_err(|error| format!("link events: {error}"))?;
    let mut watcher = Watcher {
        model: dump().await?,
        dumped: TokioInstant::now(),
        due: None,
        resync: false,
        suspect: false,
        links: Links::default(),
    };
    watcher.publish(&context, true).await?;
    recovered(&context.node, "bridges");
    let mut recheck_at = TokioInstant::now() + RECHECK_EVERY;
    loop {
        let due = watcher.due.map_or(recheck_at, |due| due.min(recheck_at));
        tokio::select! {
            event = events.next() => {
                watcher.take(&context, event.ok_or("the socket for link events failed")?);
            }
            changed = context.config.changed() => {
                changed.map_err(|_| "the agent is stopping".to_owned())?;
                watcher.due = Some(TokioInstant::now());
            }
            () = watcher.links.wait() => {
                watcher.links.said(TokioInstant::now());
                context.appeared.say_link();
            }
            () = sleep_until(due) => {
                // However busy the node is: events alone are not trusted for longer.
                let recheck = TokioInstant::now() >= recheck_at;
                if recheck {
                    recheck_at = TokioInstant::now() + RECHECK_EVERY;
                }
                watcher.due = None;
                watcher.publish(&context, recheck).await?;
            }
        }
    }
}

struct Watcher {
    model: Model,
    dumped: TokioInstant,
    /// When the count is to be taken; `None`: nothing happened.
    due: Option<TokioInstant>,
    /// Whether events were lost.
    resync: bool,
    /// Whether `brif` disagreed the last time.
    suspect: bool,
    /// For those who wait for an interface.
    links: Links,
}

impl Watcher {
    fn take(&mut self, context: &Context, event: LinkEvent) {
        self.links.touch(TokioInstant::now());
        match self.model.apply(event) {
            Effect::None => return,
            Effect::Changed => {}
            Effect::Resync => {
                context.node.update(|state| state.netlink_overruns += 1);
                debug!("the kernel dropped link events: all links are read anew");
                self.resync = true;
            }
        }
        self.due.get_or_insert_with(|| TokioInstant::now() + SETTLE);
    }

    /// Brings the picture up to date. `recheck`: also whether netlink knows other bridges.
    async fn publish(&mut self, context: &Context, recheck: bool) -> Result<(), Failure> {
        let started = Instant::now();
        let mut failure = None;
        if recheck && !self.resync {
            let (_, bridges) = blocking((), |()| {
                DumpSocket::open().and_then(|mut socket| links::bridges(&mut socket))
            })
            .await?;
            match bridges {
                Ok(mut bridges) => {
                    bridges.sort_by(|a, b| a.name.cmp(&b.name));
                    self.resync = bridges != self.model.bridges();
                }
                // The counts below are fresh all the same.
                Err(error) => failure = Some(error.to_string()),
            }
        }
        let mut counted = self.count(context).await?;
        // The model and `brif` disagree while events are on their way, so once is no reason; or
        // when some were lost without a word: one with a name that is not UTF-8 is dropped by its
        // parser.
        let disagree = counted.iter().any(|(_, agrees)| !agrees);
        if disagree && !self.suspect {
            self.due.get_or_insert_with(|| TokioInstant::now() + SETTLE);
        }
        let lost = self.resync || (disagree && self.suspect);
        self.suspect = disagree;
        if lost {
            if self.dumped.elapsed() < RESYNC_EVERY {
                self.due = Some(self.dumped + RESYNC_EVERY);
            } else {
                self.dumped = TokioInstant::now();
                match dump().await {
                    Ok(model) => {
                        self.model = model;
                        self.resync = false;
                        self.suspect = false;
                        context.node.update(|state| state.netlink_resyncs += 1);
                        counted = self.count(context).await?;
                    }
                    // Interrupted by changes again and again: the last good model stays, and the
                    // dump is taken again.
                    Err(error) => {
                        failure = Some(error);
                        self.resync = true;
                        self.due = Some(self.dumped + RESYNC_EVERY);
                    }
                }
            }
        }
        let bridges: Vec<Bridge> = counted.into_iter().map(|(bridge, _)| bridge).collect();
        say_changes(context, &bridges);
        let changed = context.node.update(|state| {
            state.bridges = Some(bridges);
            state.collected("bridges", failure.clone(), started.elapsed())
        });
        if let (true, Some(reason)) = (changed, failure) {
            warn!(reason, "links cannot be read anew; bridges are as last known");
        }
        Ok(())
    }

    /// `brif` takes no RTNL, but sysfs waits while interfaces are being removed: not on the main
    /// thread.
    async fn count(&mut self, context: &Context) -> Result<Vec<(Bridge, bool)>, Failure> {
        let (config, roots) = (current(context), context.roots.clone());
        let model = std::mem::take(&mut self.model);
        let work = move |model: &mut Model| count(model, &config.watch, &roots.sys);
        let (model, counted) = blocking(model, work).await?;
        self.model = model;
        Ok(counted)
    }
}

/// Every watched bridge with its ports, and whether the model agrees with `brif`.
pub fn count(model: &Model, watch: &Watch, sys_root: &Path) -> Vec<(Bridge, bool)> {
    let watched = model.bridges().into_iter().filter(|bridge| watch.covers(&bridge.name));
    watched
        .map(|link| {
            let told = model.ports(link.index);
            let read = brif(sys_root, &link);
            let (ports, read_from) = match read {
                Some(count) => (count, "brif"),
                None => (told, "RTM_GETLINK"),
            };
            let limit = watch.bridge_port_limit;
            let agrees = read.is_none_or(|read| read == told);
            (Bridge { name: link.name, ports, limit, read_from }, agrees)
        })
        .collect()
}

/// `None` where sysfs does not show this bridge, or cannot be read: then netlink's word stands.
fn brif(sys_root: &Path, link: &BridgeLink) -> Option<u64> {
    match links::port_count(sys_root, link) {
        Ok(count) => count.map(|count| count as u64),
        Err(error) => {
            debug!(reason = %error, "brif");
            None
        }
    }
}

/// Bridges and ports as netlink has them now.
pub fn dump_links() -> Result<Model, NetlinkError> {
    let mut socket = DumpSocket::open()?;
    let bridges = links::bridges(&mut socket)?;
    Ok(Model::new(bridges, links::bridge_ports(&mut socket)?))
}

async fn dump() -> Result<Model, Failure> {
    let (_, model) = blocking((), |()| dump_links()).await?;
    model.map_err(|error| error.to_string())
}

/// One line when a bridge comes, goes, or reaches its limit.
fn say_changes(context: &Context, now: &[Bridge]) {
    let before = context.node.read(|state| state.bridges.clone()).unwrap_or_default();
    let find =
        |bridges: &[Bridge], name| bridges.iter().find(|bridge| bridge.name == name).cloned();
    for bridge in now {
        let earlier = find(&before, bridge.name.clone());
        if earlier.is_none() {
            info!(bridge = %bridge.name, ports = bridge.ports, limit = bridge.limit, "bridge found");
        }
        let was_full = earlier.is_some_and(|earlier| earlier.ports >= earlier.limit);
        if bridge.ports >= bridge.limit && !was_full {
            warn!(bridge = %bridge.name, ports = bridge.ports, "the bridge is full: the next port fails with EXFULL (exchange full)");
        }
    }
    for bridge in before {
        if find(now, bridge.name.clone()).is_none() {
            info!(bridge = %bridge.name, "bridge gone");
        }
    }
}
