//! Pods in `headroom status`.

use headroom::pods::state::{Identity, PodKey, PodNamespace, PodState, RESTART};
use headroom::serve::status::Status;
use headroom::sysctl::state::State;

use super::{Output, Tone, or_dash};

/// Rows of namespaces that need a look, unless all are asked for.
const MOST: usize = 20;

/// Whether a namespace cannot be tuned.
pub fn failing(status: &Status) -> bool {
    let failed = |namespace: &PodNamespace| {
        matches!(namespace.state, PodState::Failed | PodState::SkippedNotMounted)
    };
    status.pods.iter().flat_map(|pods| &pods.namespaces).any(failed)
}

/// Whether a key is neither as wanted nor somebody's on purpose.
pub fn differing(status: &Status) -> bool {
    status.pods.iter().flat_map(|pods| &pods.namespaces).any(|namespace| !namespace.is_well())
}

/// The summary, and those that need a look, or all.
pub fn print(out: &Output, status: &Status, all: bool) {
    let Some(pods) = &status.pods else { return };
    let counts = pods.counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<String> =
        counts.map(|(state, count)| format!("{count} {}", in_words(*state))).collect();
    let late = match pods.late {
        0 => String::new(),
        late => format!("; {late} late: there before the agent or its policies"),
    };
    let with = |test: &dyn Fn(&PodKey) -> bool| {
        pods.namespaces.iter().filter(|namespace| namespace.keys.iter().any(test)).count()
    };
    let kept = match with(&|key| key.state == State::Yielded) {
        0 => String::new(),
        kept => format!("; {kept} with values that somebody set on purpose"),
    };
    let restart = match with(&|key| key.detail.as_deref() == Some(RESTART)) {
        0 => String::new(),
        restart => format!("; restart what runs in {restart}: it keeps old values"),
    };
    let summary = match (pods.counts.is_empty(), counts.is_empty()) {
        (true, _) => "not known: the task that looks for them fails".to_owned(),
        (false, true) => "none yet".to_owned(),
        (false, false) => counts.join(", "),
    };
    out.line("");
    out.heading(&format!("PODS  {summary}{kept}{late}{restart}"));
    let chosen = pods.namespaces.iter().filter(|namespace| all || needs_a_look(namespace));
    let mut chosen: Vec<&PodNamespace> = chosen.collect();
    if !all {
        chosen.sort_by_key(|namespace| namespace.is_well());
    }
    let shown = if all { chosen.len() } else { chosen.len().min(MOST) };
    let rows: Vec<_> = chosen.iter().take(shown).flat_map(|namespace| rows(namespace)).collect();
    if !rows.is_empty() {
        out.table(&["", "POD", "KEY", "VALUE", "WANT", "POLICY", "STATE", ""], &rows);
    }
    if chosen.len() > shown {
        out.line(format_args!("... and {} more: headroom status --pods", chosen.len() - shown));
    } else if !all && chosen.len() < pods.namespaces.len() {
        out.line("every namespace: headroom status --pods");
    }
}

/// What was kept on purpose is shown too: it is what someone asks about who set a policy.
fn needs_a_look(namespace: &PodNamespace) -> bool {
    !namespace.is_well()
        || namespace.keys.iter().any(|key| matches!(key.state, State::Yielded | State::Unsupported))
}

fn in_words(state: PodState) -> &'static str {
    match state {
        PodState::Found => "found just now",
        PodState::Tuned => "tuned",
        PodState::Unmatched => "without a policy",
        PodState::Failed => "failed",
        PodState::SkippedHost => "the host's own",
        PodState::SkippedNotNetns => "no namespace",
        PodState::SkippedNotMounted => "not mounted",
    }
}

fn rows(namespace: &PodNamespace) -> Vec<(Tone, Vec<String>)> {
    let mut notes: Vec<String> = namespace.detail.iter().cloned().collect();
    if namespace.pod.as_ref().is_none_or(|pod| pod.names().is_none()) {
        notes.extend(namespace.unnamed.iter().map(|why| format!("not named: {why}")));
    }
    if namespace.late {
        notes.push("late".to_owned());
    }
    let tone = match namespace.state {
        PodState::Tuned | PodState::Unmatched if namespace.is_well() => Tone::Good,
        PodState::Failed | PodState::SkippedNotMounted => Tone::Bad,
        PodState::Tuned => Tone::Bad,
        _ => Tone::Plain,
    };
    let name = named(namespace);
    let mut rows: Vec<(Tone, Vec<String>)> = Vec::new();
    for key in namespace.keys.iter() {
        let first = rows.is_empty();
        let mut detail: Vec<String> = key.detail.iter().cloned().collect();
        if first {
            detail.append(&mut notes);
        }
        let tone = key_tone(key);
        rows.push((
            tone,
            vec![
                tone.symbol().to_owned(),
                if first { name.clone() } else { String::new() },
                key.key.clone(),
                or_dash(key.value.as_ref()),
                key.want.clone(),
                key.policy.clone(),
                key.state.label().to_owned(),
                detail.join("; "),
            ],
        ));
    }
    if rows.is_empty() {
        let dash = || "-".to_owned();
        let state = in_words(namespace.state).to_owned();
        let symbol = tone.symbol().to_owned();
        rows.push((
            tone,
            vec![symbol, name, dash(), dash(), dash(), dash(), state, notes.join("; ")],
        ));
    }
    rows
}

fn key_tone(key: &PodKey) -> Tone {
    match key.state {
        State::InSync | State::Normalized => Tone::Good,
        _ if key.in_sync => Tone::Good,
        _ if key.is_well() => Tone::Notable,
        _ => Tone::Bad,
    }
}

/// Namespace and name; where they are not known the uid, else the file.
fn named(namespace: &PodNamespace) -> String {
    let pod = namespace.pod.as_deref();
    match (pod.and_then(Identity::names), pod.and_then(|pod| pod.uid.as_ref())) {
        (Some((namespace, name)), _) => format!("{namespace}/{name}"),
        (None, Some(uid)) => format!("pod {uid}"),
        (None, None) => namespace.path.to_string(),
    }
}
