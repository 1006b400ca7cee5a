//! `headroom run`: the agent.

use headroom::agent::{self, Start};
use headroom::config::load::Loaded;
use headroom::kernel::system;

use super::log::Log;
use super::{Common, Exit, fail};

/// Threads beside the main one are for work that may block; this is what they need.
const STACK: usize = 512 << 10;

pub fn run(common: &Common, event_buffer: usize) -> Exit {
    match common.load() {
        Ok(loaded) => start(common, loaded, event_buffer)
            .unwrap_or_else(|error| fail(format_args!("{error:#}"))),
        Err(exit) => exit,
    }
}

fn start(common: &Common, loaded: Loaded, event_buffer: usize) -> anyhow::Result<Exit> {
    use anyhow::Context as _;

    system::use_one_arena();
    let log = Log::start(loaded.config.log_level, loaded.config.log_format)
        .context("cannot start logging")?;
    // One thread does the work; what may block goes to a few others, which end when idle.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(STACK)
        .build()
        .context("cannot start the runtime")?;
    let start = Start {
        loaded,
        named: common.config.clone(),
        roots: common.roots(),
        event_buffer,
        set_log_level: log.level_setter(),
    };
    let ended = runtime.block_on(agent::run(start));
    // A read that is stuck in the kernel must not keep the process.
    runtime.shutdown_background();
    log.flush();
    ended?;
    Ok(Exit::Ok)
}
