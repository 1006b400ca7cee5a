//! Logging: one line a fact, to standard error, never in the way of the work.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use headroom::config::{LogFormat, LogLevel};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Lines that wait while the reader of the log is slow. More are dropped, and counted.
const WAITING: usize = 1024;
/// How long the end of the program waits for the last lines.
const FLUSH_WITHIN: Duration = Duration::from_millis(300);

enum Item {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

/// The log, once it is set up.
pub struct Log {
    lines: SyncSender<Item>,
    level: reload::Handle<LevelFilter, tracing_subscriber::Registry>,
}

impl Log {
    /// Starts logging for the whole process.
    pub fn start(level: LogLevel, format: LogFormat) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING);
        let dropped = Arc::new(AtomicU64::new(0));
        let lost = dropped.clone();
        thread::Builder::new().name("log".into()).spawn(move || write_lines(&waiting, &lost))?;
        let (level, handle) = reload::Layer::new(filter(level));
        let writer = Lines { lines: lines.clone(), dropped };
        let registry = tracing_subscriber::registry().with(level);
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false);
        let started = match format {
            LogFormat::Text => registry.with(layer.with_writer(writer)).try_init(),
            LogFormat::Json => {
                registry.with(layer.json().flatten_event(true).with_writer(writer)).try_init()
            }
        };
        started.map_err(io::Error::other)?;
        // The default hook would write several lines, in another form.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string).unwrap_or_default();
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied();
            let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            tracing::error!(place, message = ?text.unwrap_or("?"), "panic: this is a bug");
        }));
        Ok(Self { lines, level: handle })
    }

    /// A function that changes how much is logged.
    pub fn level_setter(&self) -> Box<dyn Fn(LogLevel) + Send> {
        let handle = self.level.clone();
        Box::new(move |level| {
            // Fails only when the subscriber is gone, with the process.
            let _ = handle.reload(filter(level));
        })
    }

    /// Waits until what was logged is written, but not for ever.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Item::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_WITHIN);
        }
    }
}

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

/// A pipe that nobody reads blocks this thread, and only this one.
fn write_lines(waiting: &Receiver<Item>, dropped: &AtomicU64) {
    let mut stderr = io::stderr();
    while let Ok(item) = waiting.recv() {
        let _ = match item {
            Item::Line(line) => stderr.write_all(&line),
            Item::Flush(done) => {
                let _ = done.try_send(());
                Ok(())
            }
        };
        // Through the log itself, so that it has the log's form.
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::warn!(lines = lost, "log lines were dropped: standard error was blocked");
        }
    }
}

#[derive(Clone)]
struct Lines {
    lines: SyncSender<Item>,
    dropped: Arc<AtomicU64>,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Item::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
