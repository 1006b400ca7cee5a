//! Saying that something may have appeared that keys were waiting for: an interface, a module.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::Context;
use super::supervise::{Failure, recovered};
use crate::kernel::uevents::{ModuleEvent, ModuleEvents};

/// A module's own code runs after its event; what it brings along is there by then, mostly.
const SOON: Duration = Duration::from_millis(100);
/// And by then on a slow machine. Later still it is found by the sweep.
const LATER: Duration = Duration::from_secs(1);
/// In a burst of link events, once in this time.
const LINK_PAUSE: Duration = Duration::from_millis(50);

/// How often something was said. Whoever waits for a key looks again when it grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Of interfaces: it concerns their keys, and keys that are not there.
    pub links: u64,
    /// Of modules: one that goes, perhaps to come back at once, may take any key along.
    pub modules: u64,
}

/// Where it is said.
#[derive(Clone)]
pub struct Appeared(watch::Sender<Said>);

impl Appeared {
    /// Nobody has said anything yet.
    pub fn new() -> Self {
        Self(watch::channel(Said::default()).0)
    }

    /// An interface may have come, gone, or changed.
    pub fn say_link(&self) {
        self.0.send_modify(|said| said.links = said.links.wrapping_add(1));
    }

    /// A module may have come or gone.
    pub fn say_module(&self) {
        self.0.send_modify(|said| said.modules = said.modules.wrapping_add(1));
    }

    /// Hears what is said from now on. Many times while nobody looks are one.
    pub fn hear(&self) -> watch::Receiver<Said> {
        self.0.subscribe()
    }
}

/// Link events, thinned out: the first is passed on at once, and the last of a burst is not lost.
#[derive(Default)]
pub struct Links {
    due: Option<Instant>,
    said: Option<Instant>,
}

impl Links {
    /// A link event.
    pub fn touch(&mut self, now: Instant) {
        let pause_ends = self.said.map_or(now, |said| said + LINK_PAUSE);
        self.due.get_or_insert(pause_ends.max(now));
    }

    /// Waits until there is something to say; for ever if there is not.
    pub async fn wait(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// It was said.
    pub fn said(&mut self, now: Instant) {
        *self = Self { due: None, said: Some(now) };
    }
}

/// Says it for every module that comes or goes: at once, and again when its code has run.
pub async fn watch_modules(context: Context) -> Result<(), Failure> {
    let mut events = match ModuleEvents::subscribe() {
        Ok(events) => events,
        // A sandbox may forbid it. The sweep finds the keys all the same.
        Err(error) => {
            debug!(reason = %error, "module events cannot be had: the sweep finds their keys");
            recovered(&context.node, "modules");
            return std::future::pending().await;
        }
    };
    recovered(&context.node, "modules");
    let (mut soon, mut later) = (None, None);
    loop {
        let again = [soon, later].into_iter().flatten().min();
        let wait = async {
            match again {
                Some(again) => sleep_until(again).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = events.next() => {
                match event.map_err(|error| format!("module events: {error}"))? {
                    ModuleEvent::Appeared(name) => debug!(module = %name, "module loaded"),
                    ModuleEvent::Gone(name) => debug!(module = %name, "module removed"),
                    ModuleEvent::Overrun => debug!("the kernel dropped module events"),
                }
                let now = Instant::now();
                (soon, later) = (Some(now + SOON), Some(now + LATER));
            }
            () = wait => {
                let now = Instant::now();
                soon = soon.filter(|due| *due > now);
                later = later.filter(|due| *due > now);
            }
        }
        context.appeared.say_module();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_of_link_events_is_passed_on_at_once_and_then_every_50_ms() {
        let start = Instant::now();
        let mut links = Links::default();
        let mut said = Vec::new();
        for ms in 0..=200 {
            let now = start + Duration::from_millis(ms);
            if ms <= 120 {
                links.touch(now);
            }
            if links.due.is_some_and(|due| due <= now) {
                links.said(now);
                said.push(ms);
            }
        }
        assert_eq!(said, [0, 50, 100, 150]);
    }
}
