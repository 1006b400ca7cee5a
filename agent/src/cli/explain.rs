//! `headroom explain KEY`: what the catalogue knows, the value now, what is wanted.

use std::time::Instant;

use headroom::agent::once;
use headroom::kernel::name::escape;
use headroom::sysctl::catalogue::{self, Entry, NewNetns, Refusal, Scope};
use headroom::sysctl::disk::Mention;
use headroom::sysctl::key::Key;
use headroom::sysctl::policy::{OnConflict, Policy, Source, Want};
use headroom::sysctl::state::KeyStatus;
use schemars::JsonSchema;
use serde::Serialize;

use super::output::Tone;
use super::{Common, Exit, fail, out, output};

/// What is known about a key.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// Always `headroom.explain/v1`.
    schema: &'static str,
    /// The key in canonical form.
    key: String,
    /// Its file.
    path: String,
    /// What the catalogue knows; absent for a key it does not know.
    known: Option<Known>,
    /// The value now, or why there is none.
    value: Option<String>,
    /// Why there is no value.
    absent: Option<String>,
    /// What the configuration wants, and how that stands; absent where it wants nothing.
    policy: Option<KeyStatus>,
    /// Every line of the host's sysctl.d that concerns the key, in their order.
    files: Vec<Mention>,
    /// Why the host's files are not known, if so.
    files_notice: Option<String>,
    /// A known key of a similar name, for one that is not known.
    did_you_mean: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Known {
    purpose: String,
    scope: Scope,
    scope_in_words: String,
    namespaced_since: Option<String>,
    shape: String,
    range: Option<String>,
    unit: Option<String>,
    default: Option<String>,
    since: Option<String>,
    new_pods: Option<String>,
    flags: Vec<String>,
    siblings: Vec<String>,
    refused: Option<String>,
}

pub fn run(name: &str, common: &Common) -> Exit {
    // What people paste.
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name);
    let key = match Key::parse(name) {
        Ok(key) => key,
        Err(error) => {
            output::error(&format_args!(
                "headroom: `{}` is no key: {error}",
                escape(name.as_bytes())
            ));
            return Exit::Usage;
        }
    };
    let mut loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    // Looked at through the same engine; where nothing is wanted, a policy that never writes.
    let wanted = loaded.config.policy_of(&key).cloned();
    let policy = wanted.clone().unwrap_or_else(looked_at);
    loaded.config.policies = [(key.clone(), policy)].into();
    loaded.config.globs.clear();
    let acts = catalogue::refusal(&key) == Some(Refusal::SideEffect);
    if acts {
        // vm.stat_refresh acts even when it is read.
        loaded.config.policies.clear();
    }
    let mut status = match common.engine(&loaded.config, false) {
        // A preview: it opens the file for writing, to know whether it could, and writes nothing.
        Ok(mut engine) => match engine.preview(Instant::now()) {
            Ok(_) => engine.status().into_iter().next(),
            Err(error) => return fail(error),
        },
        Err(why) => return fail(why),
    };
    let entry = catalogue::lookup(&key);
    let disk = once::disk(common.roots().host.as_deref());
    if let (Some(status), Some(policy)) = (&mut status, &wanted) {
        status.disk = disk.conflict(&key, &policy.want, status.actual.as_deref());
    }
    let explained = Explained {
        schema: "headroom.explain/v1",
        path: format!("/proc/sys/{}", key.path().display()),
        known: entry.as_ref().map(|entry| known(&key, entry)),
        value: status.as_ref().and_then(|status| status.actual.clone()),
        absent: match &status {
            None if acts => Some("it is not read: touching it acts".to_owned()),
            status => {
                let unread = status.as_ref().filter(|status| status.actual.is_none());
                unread.and_then(|status| status.detail.clone())
            }
        },
        policy: status.filter(|_| wanted.is_some()),
        files: disk.mentions(&key),
        files_notice: disk.notice.clone(),
        did_you_mean: entry
            .is_none()
            .then(|| catalogue::similar(&key).map(str::to_owned))
            .flatten(),
        key: key.to_string(),
    };
    print(common, &explained);
    Exit::Ok
}

fn looked_at() -> Policy {
    Policy {
        want: Want::Value("0".to_owned()),
        on_conflict: OnConflict::Report,
        required: false,
        source: Source::Config { line: 0 },
        reason: None,
    }
}

fn known(key: &Key, entry: &Entry) -> Known {
    let version = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let range = match entry.range() {
        (None, None) => None,
        (Some(low), Some(high)) => Some(format!("{low} .. {high}")),
        (Some(low), None) => Some(format!(">= {low}")),
        (None, Some(high)) => Some(format!("<= {high}")),
    };
    Known {
        purpose: entry.purpose().to_owned(),
        scope: entry.scope(),
        scope_in_words: scope(entry).to_owned(),
        namespaced_since: entry.namespaced_since().map(version),
        shape: shape(entry),
        range,
        unit: entry.unit().map(str::to_owned),
        default: entry.default().map(str::to_owned),
        since: entry.since().map(version),
        new_pods: new_pods(key, entry).map(str::to_owned),
        flags: entry.flags().map(|flag| flag_in_words(flag).to_owned()).collect(),
        siblings: entry.siblings().map(str::to_owned).collect(),
        refused: catalogue::refusal(key).map(|refusal| refused(refusal).to_owned()),
    }
}

fn shape(entry: &Entry) -> String {
    use headroom::sysctl::value::Shape;
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

fn scope(entry: &Entry) -> &'static str {
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

fn new_pods(key: &Key, entry: &Entry) -> Option<&'static str> {
    if !key.is_net() {
        return None;
    }
    Some(match entry.new_netns()? {
        NewNetns::Copied => {
            "a copy of the host's value at the moment they are created; later changes do not reach them"
        }
        NewNetns::Reset => "the kernel's default, whatever the host has",
        NewNetns::Computed => "a value computed from their own tables, whatever the host has",
        NewNetns::Global if entry.has("shared") => "the host's value, and their writes change it",
        NewNetns::Global => "the host's value, read-only",
        NewNetns::Absent => {
            "nothing: the key exists only on the host, and its value applies to all"
        }
    })
}

fn flag_in_words(flag: &str) -> &str {
    match flag {
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
        "listen" => "programs take it over when they open their socket: restart them",
        "dead" => "stored, and never used",
        flag => flag,
    }
}

fn refused(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Dangerous => "in a configuration only with allowDangerous",
        Refusal::SideEffect => "never in a configuration: it stores no value to keep",
        Refusal::ReadOnly => "never in a configuration: it cannot be written",
    }
}

fn print(common: &Common, explained: &Explained) {
    let out = out(&common.format);
    if out.is_json() {
        return out.document(explained);
    }
    out.heading(&explained.key);
    let mut rows: Vec<(&str, String)> = Vec::new();
    match &explained.known {
        Some(known) => {
            out.line(&known.purpose);
            out.line("");
            facts(known, &mut rows);
        }
        None => {
            let hint = explained.did_you_mean.as_ref().map(|key| format!("; did you mean {key}?"));
            out.line(format_args!("not in the catalogue{}\n", hint.unwrap_or_default()));
        }
    }
    match (&explained.value, &explained.absent) {
        (Some(value), _) => rows.push(("value now", value.clone())),
        (None, Some(why)) => rows.push(("value now", format!("none: {why}"))),
        (None, None) => {}
    }
    match &explained.policy {
        Some(policy) => {
            rows.push(("wanted", format!("{} ({})", policy.want, policy.source)));
            rows.extend(policy.reason.clone().map(|reason| ("because", reason)));
            rows.push(("met", if policy.in_sync { "yes" } else { "no" }.to_owned()));
            if !policy.in_sync {
                rows.extend(policy.detail.clone().map(|why| (policy.state.label(), why)));
            }
            rows.extend(policy.original.clone().map(|original| ("original", original)));
        }
        None => rows.push(("wanted", "nothing: the configuration does not name it".to_owned())),
    }
    rows.push(("file", explained.path.clone()));
    on_disk(explained, &mut rows);
    let rows: Vec<_> =
        rows.into_iter().map(|(name, text)| (Tone::Plain, vec![name.to_owned(), text])).collect();
    out.table(&["", ""], &rows);
}

/// What the host's sysctl.d says about the key.
fn on_disk(explained: &Explained, rows: &mut Vec<(&str, String)>) {
    if let Some(notice) = &explained.files_notice {
        rows.push(("on disk", format!("not known: {notice}")));
    } else if explained.files.is_empty() {
        rows.push(("on disk", "no sysctl.d file sets it".to_owned()));
    }
    let differs = explained.policy.as_ref().is_some_and(|policy| policy.disk.is_some());
    for mention in &explained.files {
        let mut notes: Vec<String> = Vec::new();
        if mention.wins {
            notes.push("wins at boot".to_owned());
        }
        if mention.wins && differs {
            notes.push("not what is wanted".to_owned());
        }
        notes.extend(mention.glob.as_ref().map(|glob| format!("by {glob}")));
        if mention.ignore_failure {
            notes.push("ignored if it fails".to_owned());
        }
        notes.extend(mention.note.clone());
        let says = match &mention.value {
            Some(value) => format!("{}:{} sets {value}", mention.file, mention.line),
            None => format!("{}:{} excludes it", mention.file, mention.line),
        };
        let notes =
            if notes.is_empty() { String::new() } else { format!(" ({})", notes.join("; ")) };
        rows.push(("on disk", says + &notes));
    }
}

fn facts(known: &Known, rows: &mut Vec<(&str, String)>) {
    let since = known
        .namespaced_since
        .as_ref()
        .map(|since| format!(" (since Linux {since}; before, the whole node)"));
    rows.push(("scope", format!("{}{}", known.scope_in_words, since.unwrap_or_default())));
    rows.extend(known.new_pods.clone().map(|text| ("new pods get", text)));
    let unit = known.unit.as_ref().map(|unit| format!(", {unit}")).unwrap_or_default();
    let range = known.range.as_ref().map(|range| format!(", {range}")).unwrap_or_default();
    rows.push(("takes", format!("{}{unit}{range}", known.shape)));
    rows.extend(known.default.clone().map(|text| ("default", text)));
    rows.extend(known.since.clone().map(|text| ("since", format!("Linux {text}"))));
    rows.extend(known.flags.iter().map(|flag| ("note", flag.clone())));
    if !known.siblings.is_empty() {
        rows.push(("also changes", known.siblings.join(", ")));
    }
    rows.extend(known.refused.clone().map(|text| ("allowed", text)));
}
