//! TuneD, asked to verify the same keys: its daemon with a profile of 100 keys, on a message bus of
//! its own, and `tuned-adm verify`, which is the only way it looks at them again.
//!
//! Where it keeps its configuration cannot be told to it, so it has `/etc/tuned` and `/run` to
//! itself, in a mount namespace that is gone afterwards.

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headroom_tests::{Mount, private_mounts};

use crate::programs::note_pid;
use crate::room::Room;
use crate::sweep::asked;
use crate::{Outcome, stop};

/// The daemon and its client.
pub const TUNED: &str = "/usr/sbin/tuned";
const ADMIN: &str = "/usr/sbin/tuned-adm";
const PROFILE: &str = "bench";

/// CPU time of one `tuned-adm verify`.
pub struct Verify {
    /// `tuned-adm`, from its start to its end.
    pub client: Duration,
    /// The daemon's share, which does the work.
    pub daemon: Duration,
}

/// A bus that only this program's children know, without a policy.
const BUS: &str = "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\" \
    \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
    <busconfig><type>session</type><listen>unix:path=SOCKET</listen><auth>EXTERNAL</auth>\n\
    <policy context=\"default\"><allow own=\"*\"/><allow send_destination=\"*\"/>\
    <allow receive_sender=\"*\"/></policy></busconfig>\n";

/// Measures `rounds` verifications of the room's keys, on a thread that is in it; nothing where
/// TuneD is not installed.
pub fn verify(room: &Room, rounds: u32) -> Outcome<Option<Verify>> {
    if ![TUNED, ADMIN].iter().all(|program| Path::new(program).exists()) {
        eprintln!("tuned is not installed: its columns stay empty");
        return Ok(None);
    }
    let scratch = crate::scratch()?;
    let measure = || {
        let mounts = ["/etc/tuned", "/run"].map(|path| Mount::file_system("tmpfs", path, ""));
        let measured = measure(room, scratch.path(), rounds);
        drop(mounts);
        measured
    };
    private_mounts(measure).map(Some)
}

fn measure(room: &Room, scratch: &Path, rounds: u32) -> Outcome<Verify> {
    let mut profile = String::from("[main]\nsummary=bench\n\n[sysctl]\n");
    room.values(0).for_each(|(key, value)| _ = writeln!(profile, "{key}={value}"));
    let directory = Path::new("/etc/tuned").join(PROFILE);
    std::fs::create_dir(&directory)?;
    std::fs::create_dir("/run/tuned")?;
    std::fs::write(directory.join("tuned.conf"), profile)?;
    // Nothing but the profile: no monitors that wake up, no files of the machine.
    let main = "daemon = 1\ndynamic_tuning = 0\nreapply_sysctl = 0\n";
    std::fs::write("/etc/tuned/tuned-main.conf", main)?;

    let socket = scratch.join("bus");
    let bus_config = scratch.join("bus.conf");
    std::fs::write(&bus_config, BUS.replace("SOCKET", &socket.to_string_lossy()))?;
    let mut bus = Command::new("dbus-daemon");
    bus.args(["--nofork", "--nopidfile", "--config-file"]).arg(&bus_config);
    let _bus = Background::start("dbus-daemon", &mut bus, scratch)?;
    stop::until("message bus", Duration::from_secs(10), || Ok(socket.exists()))?;

    let address = format!("unix:path={}", socket.display());
    let command = |program: &str| {
        let mut command = Command::new(program);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &address).env("LC_ALL", "C").stdin(Stdio::null());
        command
    };
    let mut daemon = command(TUNED);
    daemon.args(["--no-socket", "--profile", PROFILE]);
    let daemon = Background::start("tuned", &mut daemon, scratch)?;
    let mut admin = command(ADMIN);
    admin.arg("verify");
    // Until then it is not on the bus, or has not read its profile.
    stop::until("tuned-adm verify", Duration::from_secs(60), || {
        Ok(admin.output()?.status.success())
    })?;
    let (client, daemon) = asked(&mut admin, daemon.0.id(), rounds)?;
    Ok(Verify { client, daemon })
}

/// A program that ends with its owner.
struct Background(Child);

impl Background {
    fn start(name: &str, command: &mut Command, scratch: &Path) -> Outcome<Self> {
        let log = File::create(scratch.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0) // as for the programs that are scraped
            .spawn()
            .map_err(|error| format!("{name}: {error}"))?;
        let started = Self(child);
        note_pid(name, &started.0, scratch)?;
        Ok(started)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}
