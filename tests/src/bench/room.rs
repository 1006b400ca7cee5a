//! A network namespace of the benchmark's own, with interfaces whose keys nothing else uses.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use crate::Outcome;
use crate::playground::{NAMESPACES, PREFIX, batch, ip};

/// Keys of an interface that change nothing but themselves, with two values each.
const KEYS: [(&str, [u32; 2]); 5] = [
    ("net.ipv4.conf.IF.tag", [1, 2]),
    ("net.ipv4.neigh.IF.gc_stale_time", [61, 62]),
    ("net.ipv4.neigh.IF.proxy_qlen", [65, 66]),
    ("net.ipv6.neigh.IF.gc_stale_time", [61, 62]),
    ("net.ipv6.neigh.IF.proxy_qlen", [65, 66]),
];

/// The namespace; dropping it removes it.
pub struct Room {
    name: String,
    interfaces: usize,
    namespace: File,
}

impl Room {
    /// A namespace with an even number of interfaces, of five keys each, which have their values
    /// of set 0.
    pub fn new(name: &str, interfaces: usize) -> Outcome<Self> {
        let name = format!("{PREFIX}-{name}");
        ip(&["netns", "add", &name])?;
        let namespace = File::open(Path::new(NAMESPACES).join(&name))?;
        let room = Self { name, interfaces, namespace };
        batch(Some(&room.name), &room.interface_commands())?;
        room.inside(|| {
            for (key, value) in room.values(0) {
                std::fs::write(path(&key), value.to_string())?;
            }
            Ok(())
        })?;
        Ok(room)
    }

    /// Runs `work` on a thread in the namespace; what it starts is there too.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Outcome<T> + Send) -> Outcome<T> {
        let entered = || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
            work()
        };
        std::thread::scope(|scope| {
            let panicked = |_| Err("the measuring thread panicked".into());
            scope.spawn(entered).join().unwrap_or_else(panicked)
        })
    }

    /// All keys with their value in one of the two sets.
    pub fn values(&self, set: usize) -> impl Iterator<Item = (String, u32)> {
        (0..self.interfaces).flat_map(move |number| {
            KEYS.map(|(key, values)| (key.replace("IF", &interface(number)), values[set]))
        })
    }

    /// Veth pairs with both ends in the namespace; `lo`, so that programs in it can be asked.
    fn interface_commands(&self) -> String {
        let mut script = String::from("link set lo up\n");
        for pair in (0..self.interfaces).step_by(2) {
            let (one, other) = (interface(pair), interface(pair + 1));
            _ = writeln!(script, "link add {one} type veth peer name {other}");
        }
        script
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "del", &self.name]) {
            eprintln!("bench: {error}");
        }
    }
}

/// No dot and no dash in the name: every program reads such a key the same way.
fn interface(number: usize) -> String {
    format!("{PREFIX}{number:02}")
}

/// The file of a key.
pub fn path(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}
