//! Ends a run early and cleanly: a signal raises a flag, every step asks for it, and the guards
//! that remove interfaces and end daemons do so on the way out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Outcome;

static STOP: AtomicBool = AtomicBool::new(false);

/// Starts the thread that waits for SIGINT, SIGTERM and SIGHUP.
pub fn listen() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let entered = runtime.enter();
    let signals = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    drop(entered);
    thread::spawn(move || runtime.block_on(wait(signals)));
    Ok(())
}

/// The first signal asks for a clean end; the second one ends at once.
async fn wait((mut interrupt, mut terminate, mut hangup): (Signal, Signal, Signal)) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if STOP.swap(true, Ordering::SeqCst) {
            eprintln!("bench: ending at once; the next run removes what is left");
            std::process::exit(1);
        }
        eprintln!("bench: cleaning up");
    }
}

/// An error once a signal has come.
pub fn check() -> Outcome<()> {
    if STOP.load(Ordering::SeqCst) { Err("interrupted".into()) } else { Ok(()) }
}

/// Sleeps, but not through a signal.
pub fn pause(length: Duration) -> Outcome<()> {
    let end = Instant::now() + length;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(100)));
    }
}

/// Waits until `done` says so, or fails naming what it waited for.
pub fn until(
    what: &str,
    timeout: Duration,
    mut done: impl FnMut() -> Outcome<bool>,
) -> Outcome<()> {
    let end = Instant::now() + timeout;
    while !done()? {
        if Instant::now() > end {
            return Err(format!("{what}: not within {} s", timeout.as_secs()).into());
        }
        pause(Duration::from_millis(50))?;
    }
    Ok(())
}
