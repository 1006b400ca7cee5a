//! The programs that are scraped: how they are started, asked, and what `/proc` says about them.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cpu::{Cpu, own_wait};
use crate::playground::{self, SCRATCH, scratch_root};
use crate::{Outcome, stop};

/// The peer, where Debian's package puts it.
pub const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

/// Where the agent, the peer and the peer with its defaults listen.
const PORTS: [u16; 3] = [19979, 19980, 19981];

/// The host keys that both programs watch, as far as they exist on this kernel.
const KEYS: [&str; 22] = [
    "fs.aio-max-nr",
    "fs.file-max",
    "fs.inotify.max_queued_events",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.nr_open",
    "kernel.pid_max",
    "kernel.threads-max",
    "net.core.netdev_max_backlog",
    "net.core.rmem_max",
    "net.core.somaxconn",
    "net.core.wmem_max",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv6.neigh.default.gc_thresh1",
    "net.ipv6.neigh.default.gc_thresh2",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_max",
    "vm.max_map_count",
];

/// Fails where one of the ports is taken: by another run, which must not lose its interfaces to
/// this one, or by a program that a killed run left behind.
pub fn check_ports() -> Outcome<()> {
    for port in PORTS {
        TcpListener::bind(("127.0.0.1", port))
            .map_err(|error| format!("127.0.0.1:{port}: {error}; does another run go on?"))?;
    }
    Ok(())
}

/// Ends the programs of a run that was killed: those noted in its scratch directory whose parent
/// is no longer the one that started them. A run that still goes on is left alone.
pub fn end_orphans() -> Outcome<()> {
    let directories = playground::ours(&scratch_root());
    for directory in directories.iter().filter(|name| name.starts_with(SCRATCH)) {
        let files = std::fs::read_dir(scratch_root().join(directory)).into_iter().flatten();
        for file in files.flatten().filter(|file| file.path().extension() == Some("pid".as_ref())) {
            let note = std::fs::read_to_string(file.path()).unwrap_or_default();
            let fields: Vec<&str> = note.split_whitespace().collect();
            let [pid, parent, start] = fields[..] else {
                continue;
            };
            let Some(now) = origin(pid) else { continue };
            if now.1 == start && now.0 != parent {
                end_orphan(pid)?;
            }
        }
    }
    Ok(())
}

fn end_orphan(pid: &str) -> Outcome<()> {
    kill(Pid::from_raw(pid.parse()?), Signal::SIGKILL)?;
    stop::until("end of an earlier run's program", Duration::from_secs(5), || {
        Ok(origin(pid).is_none())
    })
}

/// Notes a program that was started, for [`end_orphans`].
pub fn note_pid(name: &str, child: &Child, scratch: &Path) -> Outcome<()> {
    let pid = child.id().to_string();
    if let Some((parent, start)) = origin(&pid) {
        let note = format!("{pid} {parent} {start}\n");
        std::fs::write(scratch.join(format!("{name}.pid")), note)?;
    }
    Ok(())
}

/// Parent and start time of a process: fields 4 and 22 of its `stat`, counted after the name.
fn origin(pid: &str) -> Option<(String, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(((*fields.get(1)?).to_owned(), (*fields.get(19)?).to_owned()))
}

/// One program that is scraped; dropping it ends it.
pub struct Daemon {
    name: &'static str,
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Daemon {
    /// The agent: observe mode, the `dense-node` profile and the keys above with their values.
    pub fn headroom(binary: &Path, scratch: &Path) -> Outcome<Self> {
        let directory = scratch.join("agent");
        std::fs::create_dir_all(&directory)?;
        let config = directory.join("config.yaml");
        std::fs::write(&config, agent_config(&directory))?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&config);
        Self::start("headroom", command, PORTS[0], "/readyz", scratch)
    }

    /// The agent as for [`Self::headroom`], with everything at its default pace.
    pub fn dense(binary: &Path, scratch: &Path) -> Outcome<Self> {
        Self::agent(&[], binary, &observed(), scratch, false)
    }

    /// The agent with this configuration, started by `prefix` if that is not empty. It listens on
    /// the first port, or on the second beside another agent.
    pub fn agent(
        prefix: &[&str],
        binary: &Path,
        config: &str,
        scratch: &Path,
        second: bool,
    ) -> Outcome<Self> {
        let (name, port) = if second { ("agent-2", PORTS[1]) } else { ("agent", PORTS[0]) };
        let directory = scratch.join(name);
        std::fs::create_dir_all(&directory)?;
        let file = directory.join("config.yaml");
        std::fs::write(&file, format!("{}{config}", agent_server(&directory, port)))?;
        let mut command = match prefix.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
            None => Command::new(binary),
        };
        command.arg("run").arg("--config").arg(&file);
        Self::start(name, command, port, "/readyz", scratch)
    }

    /// `node_exporter` with the four collectors that look at what the agent looks at.
    pub fn exporter(scratch: &Path) -> Outcome<Self> {
        let mut command = Command::new(EXPORTER);
        command.args(["--collector.disable-defaults", "--collector.arp", "--collector.lnstat"]);
        command.args(["--collector.conntrack", "--collector.sysctl"]);
        command.args(keys().map(|(key, _)| format!("--collector.sysctl.include={key}")));
        Self::start_exporter("node_exporter", command, PORTS[1], scratch)
    }

    /// `node_exporter` as a package starts it.
    pub fn exporter_defaults(scratch: &Path) -> Outcome<Self> {
        Self::start_exporter("node_exporter-defaults", Command::new(EXPORTER), PORTS[2], scratch)
    }

    fn start_exporter(
        name: &'static str,
        mut command: Command,
        port: u16,
        scratch: &Path,
    ) -> Outcome<Self> {
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg("--web.disable-exporter-metrics");
        Self::start(name, command, port, "/", scratch)
    }

    /// Spawns `command`, its output in a log, and waits until `ready` answers 200.
    fn start(
        name: &'static str,
        mut command: Command,
        port: u16,
        ready: &str,
        scratch: &Path,
    ) -> Outcome<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let log = scratch.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0) // Ctrl-C is for the benchmark; this one is ended by its owner
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let mut daemon = Self { name, child, address, log };
        note_pid(name, &daemon.child, scratch)?;
        stop::until(&format!("{name}: ready"), Duration::from_secs(15), || {
            if let Some(status) = daemon.child.try_wait()? {
                return Err(format!("{name} ended, {status}").into());
            }
            Ok(daemon.get(ready).is_ok())
        })
        .map_err(|error| format!("{error}; it said:\n{}", daemon.last_words()))?;
        Ok(daemon)
    }

    /// The end of what it logged.
    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// The body of a GET; anything but 200 is an error.
    pub fn get(&self, path: &str) -> Outcome<Vec<u8>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        self.ask(stream, path)
    }

    /// A new connection each time, HTTP/1.0 and no compression: the smallest request that both
    /// programs answer in one piece.
    fn ask(&self, mut stream: impl Read + Write, path: &str) -> Outcome<Vec<u8>> {
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let mut answer = Vec::with_capacity(64 * 1024);
        stream.read_to_end(&mut answer)?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.ok_or(format!("{}: no HTTP answer", self.name))?;
        let status = answer.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if status != b"200" {
            let status = String::from_utf8_lossy(status);
            return Err(format!("{}: {path} answered {status}", self.name).into());
        }
        Ok(answer.split_off(end + 4))
    }

    /// One scrape: the body, and how long it took from connecting to the last byte.
    pub fn scrape(&self) -> Outcome<Scrape> {
        let before = (self.cpu()?, own_wait()?);
        let begin = Instant::now();
        let body = self.get("/metrics")?;
        let wall = begin.elapsed();
        let own = own_wait()?.saturating_sub(before.1);
        let queued = own + self.cpu()?.waited_since(&before.0);
        Ok(Scrape { wall, unqueued: wall.saturating_sub(queued), body })
    }

    /// What each of its threads had of the CPU so far.
    pub fn cpu(&self) -> Outcome<Cpu> {
        Cpu::of(self.child.id())
    }

    /// CPU time of the agent as it says itself, threads that have ended included: `schedstat` of those
    /// that are there has it not.
    pub fn own_cpu(&self) -> Outcome<Duration> {
        let metrics = self.get("/metrics")?;
        let metrics = String::from_utf8_lossy(&metrics);
        let value =
            metrics.lines().find_map(|line| line.strip_prefix("process_cpu_seconds_total "));
        Ok(Duration::from_secs_f64(value.ok_or("no CPU time")?.parse()?))
    }

    /// How the agent says it sees other writers, on its socket.
    pub fn watches_by(&self) -> Outcome<String> {
        let stream = UnixStream::connect(self.log.with_extension("").join("agent.sock"))?;
        let status = self.ask(stream, "/status.json")?;
        let status: serde_json::Value = serde_json::from_slice(&status)?;
        let by = &status["notifications"]["by"];
        Ok(by.as_str().ok_or(format!("{}: does not say how it watches", self.name))?.to_owned())
    }

    /// A line of its `/proc/PID/status` that is a number of KiB.
    pub fn memory_kib(&self, field: &str) -> Outcome<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let value = line.and_then(|rest| rest.split_whitespace().next());
        Ok(value.ok_or(format!("{}: no {field}", self.name))?.parse()?)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// One answer and its times.
pub struct Scrape {
    pub wall: Duration,
    /// Without the time in which client or server could run and had no CPU. Of the server's
    /// threads only the one that waited longest counts: they may have waited at the same time.
    pub unqueued: Duration,
    pub body: Vec<u8>,
}

/// The keys of [`KEYS`] that exist here, with their values.
fn keys() -> impl Iterator<Item = (&'static str, String)> {
    KEYS.into_iter().filter_map(|key| {
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        Some((key, std::fs::read_to_string(path).ok()?.trim().to_owned()))
    })
}

/// A configuration that watches and writes nothing.
fn agent_config(directory: &Path) -> String {
    agent_server(directory, PORTS[0]) + "watch: { neighborScan: 1h }\n" + &observed()
}

/// What it watches.
fn observed() -> String {
    let mut text = String::from("mode: observe\nprofiles: [dense-node]\nsysctls:\n");
    keys().for_each(|(key, value)| text += &format!("  {key}: {value}\n"));
    text
}

/// What every configuration begins with.
fn agent_server(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "apiVersion: headroom/v1\n\
         kind: AgentConfig\n\
         server: {{ listen: [\"127.0.0.1:{port}\"], socket: {directory}/agent.sock }}\n\
         state: {directory}/state\n"
    )
}
