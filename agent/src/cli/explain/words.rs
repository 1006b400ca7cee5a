//! What the catalogue and the measurement say, in words.

use headroom::sysctl::catalogue::{Entry, Refusal, Scope};
use headroom::sysctl::measure::InNew;
use headroom::sysctl::value::Shape;

pub fn scope_measured(found: &InNew) -> String {
    match found {
        InNew::Absent => {
            "one value for the whole node: a new network namespace has no such key (measured)"
        }
        InNew::ReadOnly { .. } => {
            "one value for the whole node, which other namespaces show and cannot write (measured)"
        }
        InNew::Own { .. } => "each namespace, so each pod, has its own (measured)",
        InNew::Same => "not told: a new namespace shows the same value",
        InNew::Unknown { reason } => return format!("not measured: {reason}"),
    }
    .to_owned()
}

pub fn shape(entry: &Entry) -> String {
    match entry.shape() {
        Some(Shape::Ints(1)) => "an integer".to_owned(),
        Some(Shape::Ints(count)) => format!("{count} integers"),
        Some(Shape::AnyInts) => "integers".to_owned(),
        Some(Shape::Text) => "text".to_owned(),
        Some(Shape::Ports) => "numbers and ranges, like 8080,9148-9150".to_owned(),
        Some(Shape::Mask) => "a CPU mask in hexadecimal".to_owned(),
        None => "a table of lines".to_owned(),
    }
}

pub fn scope(entry: &Entry) -> &'static str {
    match entry.scope() {
        Scope::Host => "one value for the whole node",
        Scope::Netns => "each network namespace, so each pod, has its own",
        Scope::Ipc => "each IPC namespace has its own",
        Scope::Pid => "each PID namespace has its own",
        Scope::Uts => "each UTS namespace has its own",
        Scope::User => "each user namespace has its own; those of its ancestors apply too",
        Scope::Mountns => "each mount namespace has its own",
    }
}

/// `None` for those that have rows of their own.
pub fn flag_in_words(flag: &str) -> Option<&str> {
    Some(match flag {
        "at-listen" | "at-socket" | "at-bind" | "at-connection" | "partly" => return None,
        "dangerous" => "dangerous: can run code, open the host or stop it",
        "writeonly" => "write-only",
        "sideeffect" => "acts when it is touched, stores nothing",
        "readonly" => "read-only",
        "oneway" => "only goes one way until the next boot",
        "shared" => "writable in every network namespace, though it is the host's",
        "kubelet" => "set by the kubelet with protectKernelDefaults",
        "safe" => "on the kubelet's list of safe sysctls for pods",
        "rounds" => "the kernel rounds it",
        "clamps" => "the kernel silently changes a value that is out of range",
        "zero-unlimited" => "0 means no limit",
        "dead" => "stored, and never used",
        flag => flag,
    })
}

pub fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Dangerous => "in a configuration only with allowDangerous",
        Refusal::SideEffect => "never in a configuration: it stores no value to keep",
        Refusal::ReadOnly => "never in a configuration: it cannot be written",
    }
}
