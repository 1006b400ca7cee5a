//! Keys that appear late, with real modules and interfaces: `make vm-test` runs this in a virtual
//! machine. Elsewhere its tests pass without having looked: no module can be loaded there, or it
//! would change the machine that runs the tests.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use headroom_tests::agent_process::{Agent, Finished, Home};
use headroom_tests::{HostLock, ip, root_or_skip, try_ip};

mod exhaustion;
mod interfaces;
mod modules;

/// An emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The virtual machine, which is all ours. `None`: this is none.
fn virtual_machine() -> Option<HostLock> {
    if std::env::var_os("HEADROOM_VM").is_none_or(|set| set != "1") {
        eprintln!("not looked at: needs the virtual machine of make vm-test");
        return None;
    }
    root_or_skip()
}

/// Loads a module, with parameters.
fn load(module: &str, parameters: &[&str]) {
    let done = Finished::of(Command::new("modprobe").arg(module).args(parameters), b"");
    assert_eq!(done.code, Some(0), "{module}: {done:?}");
}

/// Unloads modules, those that use others first. One that is not loaded is none.
fn unload(modules: &[&str]) {
    for module in modules.iter().filter(|module| is_loaded(module)) {
        let unload = || Finished::of(Command::new("rmmod").arg(module), b"").code == Some(0);
        // What used it may let go a moment later.
        wait_until(&format!("{module} unloaded"), unload);
    }
}

fn is_loaded(module: &str) -> bool {
    let loaded = fs::read_to_string("/proc/modules").unwrap();
    loaded.lines().any(|line| line.split(' ').next() == Some(module))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not {what} within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The value of a file below `/proc/sys`, if it is there.
fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    Some(text.trim_end().to_owned())
}

/// The home of an agent, and a configuration of its own keys; none holds readiness back. The sweep
/// comes once an hour, so that the kernel's events alone have to do.
fn home(keys: &[(&str, &str)]) -> Home<'static> {
    let home = Home::new();
    let key = |(key, value): &(&str, &str)| {
        format!("  {key}: {{ value: \"{value}\", required: false }}\n")
    };
    let keys: String = keys.iter().map(key).collect();
    home.configure(&format!("watch: {{ sysctlSweep: 1h }}\nsysctls:\n{keys}"));
    home
}

/// Waits until a key is in a state; its status then.
fn wait_for(agent: &Agent<'_>, key: &str, state: &str) -> serde_json::Value {
    wait_until(&format!("{key} {state}"), || agent.key(key)["state"] == state);
    agent.key(key)
}

/// Waits until a key is set, in the kernel and in the agent's eyes; the original on record.
fn wait_until_set(agent: &Agent<'_>, key: &str, path: &str, value: &str) -> String {
    let status = wait_for(agent, key, "in-sync");
    assert_eq!(read(path).as_deref(), Some(value), "{key}");
    status["original"].as_str().unwrap_or_else(|| panic!("no original: {status}")).to_owned()
}
