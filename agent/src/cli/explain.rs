//! `headroom explain KEY`: what the catalogue knows, the value now, what is wanted.

use std::time::Instant;

use headroom::agent::once;
use headroom::config::Config;
use headroom::kernel::name::escape;
use headroom::kernel::sysctl_file::SysctlTree;
use headroom::kernel::system;
use headroom::sysctl::catalogue::{self, Entry, Refusal, Scope};
use headroom::sysctl::disk::Mention;
use headroom::sysctl::effect::{Effect, takes_effect};
use headroom::sysctl::glob::Subject;
use headroom::sysctl::inherit::{Devconf, InPods, Known as KnownOfPods};
use headroom::sysctl::key::Key;
use headroom::sysctl::marks::LastWrite;
use headroom::sysctl::measure::{self, InNew};
use headroom::sysctl::policy::{OnConflict, Policy, Source, Want};
use headroom::sysctl::state::{KeyStatus, State};
use headroom::sysctl::writers;
use schemars::JsonSchema;
use serde::Serialize;

mod agent;
mod pods;
mod words;

use pods::PodPolicyOfKey;
use words::{flag_in_words, refused, scope, scope_measured, shape};

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
    /// What namespaces made for the purpose show of it on this kernel; absent where none of them
    /// could have a value of its own, or the key is not for looking at.
    measured: Option<InNew>,
    /// What pods get of it, when, and what sets it for them.
    pods: InPods,
    /// When a change takes effect; absent where that is at once, or not known.
    takes_effect: Option<Effect>,
    /// The policies of the configuration's `pods` that name the key, in order: the first that matches
    /// a pod counts.
    pod_policies: Vec<PodPolicyOfKey>,
    /// What the configuration wants, and how that stands; absent where it wants nothing. From the
    /// agent, where one runs with the same configuration.
    policy: Option<KeyStatus>,
    /// The last write by another process that the agent saw since it started.
    last_write: Option<LastWrite>,
    /// Programs that often write it.
    usual_writers: Vec<UsualWriter>,
    /// Every line of the host's sysctl.d that concerns the key, in their order.
    files: Vec<Mention>,
    /// Why the host's files are not known, if so.
    files_notice: Option<String>,
    /// A known key of a similar name, for one that is not known.
    did_you_mean: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct UsualWriter {
    /// The program.
    who: &'static str,
    /// When it writes, and what to do about it.
    what_to_do: &'static str,
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
    flags: Vec<String>,
    siblings: Vec<String>,
    refused: Option<String>,
}

pub fn run(name: &str, common: &Common) -> Exit {
    // What people paste.
    let name = name.strip_prefix("/proc/sys/").unwrap_or(name);
    let subject = match Subject::parse(name) {
        Ok(subject) => subject,
        Err(error) => {
            output::error(&format_args!(
                "headroom: `{}` is no key: {error}",
                escape(name.as_bytes())
            ));
            return Exit::Usage;
        }
    };
    // What holds of one interface's key holds of all that a pattern means.
    let Some(key) = subject.example() else { return fail("the pattern means no key") };
    let mut loaded = match common.load() {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let wanted = only(&mut loaded.config, &subject);
    let acts = catalogue::refusal(&key) == Some(Refusal::SideEffect);
    if acts {
        // vm.stat_refresh acts even when it is read.
        loaded.config.policies.clear();
        loaded.config.globs.clear();
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
    let told = agent::ask(&loaded, &subject);
    let last_write = told.as_ref().and_then(|told| told.last_write.clone());
    let tree =
        match SysctlTree::open(&common.roots().sysctl, Some(&common.roots().proc.join("sys"))) {
            Ok(tree) => tree,
            Err(error) => return fail(error),
        };
    let measured = measure::in_new(&tree, &key);
    let is_key = matches!(subject, Subject::Key(_));
    let pods = InPods::of(&KnownOfPods {
        key: &key,
        kernel: system::kernel_version(&system::uname().0),
        devconf: Devconf::read(&tree),
        measured: measured.as_ref(),
        host: status.as_ref().filter(|_| is_key).and_then(|status| status.actual.as_deref()),
    });
    // The agent knows what became of it, such as a fight; a look from outside does not.
    let status = told.and_then(|told| told.status).or(status);
    let explained = Explained {
        schema: "headroom.explain/v1",
        measured,
        pods,
        // The example of a pattern is `default`, of which more holds.
        takes_effect: takes_effect(&key).filter(|_| is_key),
        pod_policies: pods::naming(&loaded.config.pods, &subject),
        last_write,
        usual_writers: writers::usual(&key)
            .into_iter()
            .map(|usual| UsualWriter { who: usual.who, what_to_do: usual.what_to_do })
            .collect(),
        path: format!("/proc/sys/{}", subject.path()),
        known: entry.as_ref().map(|entry| known(&key, entry)),
        value: status.as_ref().and_then(|status| status.actual.clone()),
        absent: match &status {
            None if acts => Some("it is not read: touching it acts".to_owned()),
            status => {
                let unread = status.as_ref().filter(|status| status.actual.is_none());
                unread.and_then(|status| status.detail.clone())
            }
        },
        policy: status.filter(|status| wanted.is_some() || grown(status)),
        files: disk.mentions(&key),
        files_notice: disk.notice.clone(),
        did_you_mean: entry
            .is_none()
            .then(|| catalogue::similar(&key).map(str::to_owned))
            .flatten(),
        key: subject.to_string(),
    };
    print(common, &explained);
    Exit::Ok
}

/// Leaves nothing in the configuration but what is wanted of the subject, which is looked at
/// through the same engine; where nothing is wanted, a policy that never writes.
fn only(config: &mut Config, subject: &Subject) -> Option<Policy> {
    let (policies, globs) =
        (std::mem::take(&mut config.policies), std::mem::take(&mut config.globs));
    let whole = Config { policies, globs, ..config.clone() };
    // Its keys would be others.
    config.autogrow = None;
    match subject {
        Subject::Key(key) => {
            let wanted = whole.policy_of(key).cloned();
            config.policies = [(key.clone(), wanted.clone().unwrap_or_else(looked_at))].into();
            wanted
        }
        Subject::Glob(glob) => {
            let same = whole.globs.iter().rfind(|(one, _)| one == glob);
            let wanted = same.map(|(_, policy)| policy.clone());
            config.globs = vec![(glob.clone(), wanted.clone().unwrap_or_else(looked_at))];
            wanted
        }
    }
}

/// Whether the agent keeps it though the configuration does not name it.
fn grown(status: &KeyStatus) -> bool {
    status.source == Source::Autogrow.to_string()
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
        flags: entry.flags().filter_map(flag_in_words).map(str::to_owned).collect(),
        siblings: entry.siblings().map(str::to_owned).collect(),
        refused: catalogue::refusal(key).map(|refusal| refused(refusal).to_owned()),
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
            facts(explained, known, &mut rows);
        }
        None => {
            let hint = explained.did_you_mean.as_ref().map(|key| format!("; did you mean {key}?"));
            out.line(format_args!("not in the catalogue{}\n", hint.unwrap_or_default()));
            rows.extend(explained.measured.as_ref().map(|found| ("scope", scope_measured(found))));
            pods::rows(explained, &mut rows);
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
            // What was put back in a fight is met until the other writer comes again.
            if !policy.in_sync || policy.state == State::Contested {
                rows.extend(policy.detail.clone().map(|why| (policy.state.label(), why)));
            }
            rows.extend(policy.original.clone().map(|original| ("original", original)));
        }
        None => rows.push(("wanted", "nothing: the configuration does not name it".to_owned())),
    }
    rows.extend(explained.pod_policies.iter().map(|policy| ("wanted in pods", policy.to_string())));
    if let Some(last) = &explained.last_write {
        rows.push(("last writer", format!("{} ({})", last.who, last.ago())));
    }
    let usual = explained.usual_writers.iter();
    rows.extend(usual.map(|usual| ("may be set by", usual.what_to_do.to_owned())));
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

fn facts(explained: &Explained, known: &Known, rows: &mut Vec<(&str, String)>) {
    let since = known
        .namespaced_since
        .as_ref()
        .map(|since| format!(" (since Linux {since}; before, the whole node)"));
    let known_scope = format!("{}{}", known.scope_in_words, since.unwrap_or_default());
    match &explained.measured {
        // What this kernel does is worth more than what is known of kernels.
        Some(found @ (InNew::Absent | InNew::ReadOnly { .. } | InNew::Own { .. })) => {
            rows.push(("scope", scope_measured(found)));
        }
        Some(InNew::Unknown { reason }) => {
            rows.push(("scope", format!("{known_scope} (not measured: {reason})")));
        }
        _ => rows.push(("scope", known_scope)),
    }
    pods::rows(explained, rows);
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
