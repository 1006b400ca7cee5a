//! The virtual machine: qemu without hardware help, so that it runs everywhere alike.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::kernels::Kernel;

/// Killed when it is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a kernel; the lines of its console up to the end. They go to standard error too, without
/// the many facts.
pub fn boot(kernel: &Kernel, initramfs: &Path, limit: Duration) -> Outcome<Vec<String>> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    // No disk, no network, no screen: a serial line.
    command.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"]);
    command.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    // A panic restarts, and -no-reboot makes that the end.
    command.args(["-append", "console=ttyS0 loglevel=2 panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Machine(command.spawn().map_err(|error| format!("{command:?}: {error}"))?);
    let console = machine.0.stdout.take().ok_or("no console")?;

    let (send, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(line).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + limit;
    let mut console = Vec::new();
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if !line.starts_with("fact: ") {
                    eprintln!("{}", line.escape_debug());
                }
                console.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(console),
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("killed: it has not ended within {limit:?}");
                return Ok(console);
            }
        }
    }
}
