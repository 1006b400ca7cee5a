//! What is shown of a key: its state, what is wrong with it, its numbers.

use super::{Managed, Obstacle, no_right, show};
use crate::kernel::who::Who;
use crate::sysctl::fight::PATIENCE;
use crate::sysctl::ledger::Ledger;
use crate::sysctl::policy::{OnConflict, Want};
use crate::sysctl::state::{KeyStatus, Numbers, State};
use crate::sysctl::value::Value;
use crate::sysctl::writers;

impl Managed {
    /// The state, by the design's precedence.
    #[must_use]
    pub fn state(&self, observe: bool) -> State {
        let met = self.met();
        match &self.obstacle {
            Some(Obstacle::Unsupported(_) | Obstacle::Elsewhere(_)) => return State::Unsupported,
            Some(Obstacle::Pending(_)) => return State::Pending,
            // Without a wish to write, the missing right does not matter.
            Some(Obstacle::Denied(_)) if !met && !observe => return State::Denied,
            Some(Obstacle::Unfit(_)) => return State::Rejected,
            _ => {}
        }
        let report = self.policy.on_conflict == OnConflict::Report;
        let errno = self.held.as_ref().filter(|_| !met).and_then(|held| held.errno);
        if errno.is_some_and(no_right) {
            State::Denied
        } else if errno.is_some() {
            State::Rejected
        } else if self.fight.is_on() {
            State::Contested
        } else if self.yielded {
            State::Yielded
        } else if observe || report {
            State::Observed
        } else if !met {
            State::Drifted
        } else if self.spelled_differently() {
            State::Normalized
        } else {
            State::InSync
        }
    }

    fn spelled_differently(&self) -> bool {
        if self.is_rounded() {
            return true;
        }
        let words = |text: &str| text.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let shown = self.text.as_deref().map(words);
        match &self.policy.want {
            Want::Value(text) => shown.is_some_and(|shown| shown != words(text)),
            Want::OneOf(texts) => {
                shown.is_some_and(|shown| !texts.iter().any(|text| shown == words(text)))
            }
            Want::Bounds { .. } => false,
        }
    }

    fn detail(&self, state: State) -> Option<String> {
        let held = self.held.as_ref().map(|held| held.message.clone());
        match (state, &self.obstacle) {
            (
                _,
                Some(
                    Obstacle::Unsupported(why) | Obstacle::Elsewhere(why) | Obstacle::Pending(why),
                ),
            ) => Some(why.clone()),
            (_, Some(Obstacle::Unfit(why))) => Some(format!("{why}; nothing was written")),
            (State::Denied, Some(Obstacle::Denied(why))) => Some(why.clone()),
            (State::Contested, _) => Some(self.contested()),
            (State::Yielded, _) => Some(format!(
                "another writer's value was taken, as onConflict: yield says{}",
                self.written_by()
            )),
            (State::InSync | State::Observed, _) => None,
            (State::Normalized, _) => Some(format!("the kernel's form of {}", self.policy.want)),
            _ => held,
        }
    }

    fn contested(&self) -> String {
        let process = match self.last_write.as_ref().map(|last| &last.who) {
            Some(Who::Process(process)) => writers::recognise(process),
            _ => None,
        };
        let usual = writers::usual(&self.key);
        let known = usual.iter().find(|usual| Some(usual.who) == process);
        let advice = match known {
            Some(known) => format!("; this is {}. {}", known.who, known.what_to_do),
            None if usual.is_empty() => String::new(),
            None => {
                let names: Vec<&str> = usual.iter().map(|usual| usual.who).collect();
                format!(
                    "; often written by {}: `headroom explain {}` says what to do",
                    names.join(", "),
                    self.key
                )
            }
        };
        let (now, want) = (self.shown().unwrap_or_default(), show(&self.policy.want.to_string()));
        let values = match self.met() {
            true => format!("put back to {now}, and watched until it stays"),
            false => format!("now {now}, wanted {want}"),
        };
        format!(
            "another writer keeps changing it ({values}{}): it needed putting back more than \
             {PATIENCE} times within a minute, so it is tried again after a growing pause; stop the \
             other writer, or let it win with onConflict: yield{advice}",
            self.written_by(),
        )
    }

    /// Who wrote it last, for the end of a phrase.
    fn written_by(&self) -> String {
        match self.last_write.as_ref().map(|last| &last.who) {
            None => String::new(),
            Some(Who::Unknown) => {
                "; last written by nobody that a notification names: a process on another mount \
                 of proc, such as a container, the kernel itself, or anybody where the agent may \
                 not use fanotify"
                    .to_owned()
            }
            Some(who) => format!("; last written by {who}"),
        }
    }

    /// What status, metrics and explain show.
    #[must_use]
    pub fn status(&self, observe: bool, ledger: &Ledger) -> KeyStatus {
        let state = self.state(observe);
        let ints = |value: Option<&Value>| value.and_then(Value::ints).unwrap_or_default().to_vec();
        let target = self.target();
        KeyStatus {
            key: self.key.clone().into(),
            state,
            in_sync: self.met(),
            required: self.policy.required
                && !observe
                && !matches!(self.obstacle, Some(Obstacle::Elsewhere(_))),
            want: show(&self.policy.want.to_string()),
            desired: target.as_ref().map(|value| show(&value.to_string())),
            actual: self.shown(),
            original: ledger.get(&self.key).map(|record| show(&record.original)),
            on_conflict: self.policy.on_conflict,
            source: self.policy.source.to_string(),
            reason: self.policy.reason.clone(),
            detail: self.detail(state),
            last_write: self.last_write.clone(),
            members: None,
            disk: None,
            pods: None,
            pods_note: None,
            numbers: Numbers { actual: ints(self.actual.as_ref()), desired: ints(target.as_ref()) },
        }
    }
}
