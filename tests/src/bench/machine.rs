//! What the numbers were measured on: needed to read them, and nothing that names the machine.

use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::apply::SYSTEMD_SYSCTL;
use crate::programs::EXPORTER;
use crate::tuned::TUNED;

/// Lines of the document's first table: what, and which.
pub fn describe(headroom: Option<&Path>) -> Outcome<Vec<(&'static str, String)>> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let memory_kib: f64 = field(&memory, "MemTotal").trim_end_matches("kB").trim().parse()?;
    let cores = std::thread::available_parallelism()?;
    let exporter = first_line(EXPORTER, "--version");
    let exporter = exporter.split(" (").next().unwrap_or_default().to_owned();
    let agent = headroom.map_or("not built: its columns are n/a".into(), |path| {
        first_line(&path.to_string_lossy(), "--version")
    });
    Ok(vec![
        ("date", first_line("date", "+%F")),
        ("kernel", std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
        ("CPU", format!("{}, {cores} cores", field(&cpus, "model name"))),
        ("memory", format!("{:.0} GiB", memory_kib / 1024.0 / 1024.0)),
        ("load before", load()?),
        ("headroom", agent),
        ("node_exporter", exporter),
        ("sysctl", first_line("sysctl", "--version")),
        ("systemd-sysctl", first_line(SYSTEMD_SYSCTL, "--version")),
        ("tuned", first_line(TUNED, "--version")),
        ("iproute2", first_line("ip", "-V")),
    ])
}

/// The load average before anything was started: other work would spoil the numbers.
fn load() -> Outcome<String> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

/// The value of the first `name : value` line.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
    line.split_once(':').map_or("", |(_, value)| value.trim())
}

/// The first line a program prints, on whichever stream.
fn first_line(program: &str, argument: &str) -> String {
    let Ok(output) = Command::new(program).arg(argument).output() else {
        return "n/a".into();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or("n/a").to_owned()
}

/// CPU time of the whole machine so far, in ticks.
pub struct CpuTicks {
    all: u64,
    idle: u64,
}

impl CpuTicks {
    /// The first line of `/proc/stat`; time spent waiting for a disk counts as idle, time that the
    /// hypervisor gave to others as busy.
    pub fn now() -> Outcome<Self> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let line = text.lines().next().unwrap_or_default();
        let ticks = line.split_whitespace().skip(1).flat_map(str::parse::<u64>).take(8);
        let ticks: Vec<u64> = ticks.collect();
        Ok(Self { all: ticks.iter().sum(), idle: ticks.iter().skip(3).take(2).sum() })
    }

    /// Share of the machine that was busy since `earlier`.
    pub fn busy_since(&self, earlier: &Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        1.0 - self.idle.saturating_sub(earlier.idle) as f64 / all as f64
    }
}
