//! When a configuration is loaded again: the decisions, without the files.

use std::path::Path;
use std::time::{Duration, Instant};

use super::load::{Found, LoadError, Loaded, Origin, gone, hash};

/// Changes come in bursts: a load waits until nothing has happened for this long.
const SETTLE: Duration = Duration::from_millis(250);
/// But not longer than this, however long the burst is.
const AT_LEAST: Duration = Duration::from_secs(2);

/// Puts off a load until a burst of changes is over, within a bound.
#[derive(Clone, Copy, Debug, Default)]
pub struct Burst(Option<(Instant, Instant)>);

impl Burst {
    /// Something changed.
    pub fn touch(&mut self, now: Instant) {
        let first = self.0.map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    /// When to load; `None`: nothing happened since the last load.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.0.map(|(first, last)| (last + SETTLE).min(first + AT_LEAST))
    }
}

/// Tells what was found apart, without keeping it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A file with this hash.
    Content(String),
    /// No file.
    Missing,
    /// Not to be read, for this reason.
    Unreadable(String),
}

impl Mark {
    fn of(found: &Found) -> Self {
        match found {
            Found::Content(bytes) => Self::Content(hash(bytes)),
            Found::Missing => Self::Missing,
            Found::Unreadable(why) => Self::Unreadable(why.clone()),
        }
    }
}

/// What is known already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What the configuration in force was made of.
    pub in_force: Mark,
    /// What was judged last, good or bad.
    pub judged: Mark,
}

impl Known {
    /// After this was loaded.
    #[must_use]
    pub fn after(loaded: &Loaded) -> Self {
        let mark = match loaded.origin {
            Origin::File(_) => Mark::Content(loaded.hash.clone()),
            Origin::Embedded => Mark::Missing,
        };
        Self { in_force: mark.clone(), judged: mark }
    }
}

/// What a look came to.
#[derive(Debug)]
pub enum Look {
    /// Nothing new since the last judgement.
    Same,
    /// Something bad was in its place, and now what is in force is there again.
    Back,
    /// A new configuration.
    Good(Box<Loaded>),
    /// One that cannot be used: the last good one stays.
    Bad(LoadError),
}

/// Judges what was found, where it is not known already or the judgement is `forced`.
pub fn look(known: &mut Known, found: Found, named: Option<&Path>, forced: bool) -> Look {
    let mark = Mark::of(&found);
    if !forced && mark == known.judged {
        return Look::Same;
    }
    known.judged = mark.clone();
    if !forced && mark == known.in_force {
        return Look::Back;
    }
    if named.is_none() && found == Found::Missing && known.in_force != Mark::Missing {
        return Look::Bad(gone());
    }
    match found.judge(named) {
        Ok(loaded) => {
            known.in_force = mark;
            Look::Good(Box::new(loaded))
        }
        Err(error) => Look::Bad(error),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "apiVersion: headroom/v1\nkind: AgentConfig\n";

    fn content(text: &str) -> Found {
        Found::Content(text.into())
    }

    fn step(known: &mut Known, found: Found, named: Option<&Path>, forced: bool) -> &'static str {
        match look(known, found, named, forced) {
            Look::Same => "same",
            Look::Back => "back",
            Look::Good(_) => "good",
            Look::Bad(_) => "bad",
        }
    }

    #[test]
    fn each_content_is_judged_once() {
        let named = Some(Path::new("x.yaml"));
        let other = format!("{GOOD}mode: observe\n");
        let unreadable = || Found::Unreadable("EIO".to_owned());
        let mut known = Known::after(&content(GOOD).judge(named).unwrap());
        for (found, forced, came_to) in [
            (content(GOOD), false, "same"),
            (content("bad"), false, "bad"),
            (content("bad"), false, "same"),
            (content("bad"), true, "bad"),
            (content("worse"), false, "bad"),
            (content(GOOD), false, "back"),
            (content(GOOD), false, "same"),
            (content(GOOD), true, "good"),
            (Found::Missing, false, "bad"),
            (Found::Missing, false, "same"),
            (unreadable(), false, "bad"),
            (unreadable(), false, "same"),
            (content(&other), false, "good"),
            (content(&other), false, "same"),
            (content(GOOD), false, "good"),
        ] {
            let what = format!("{found:?} {forced}");
            assert_eq!(step(&mut known, found, named, forced), came_to, "{what}");
        }
    }

    #[test]
    fn without_a_named_file_only_a_start_uses_the_embedded_document() {
        let mut known = Known::after(&Found::Missing.judge(None).unwrap());
        for (found, forced, came_to) in [
            (Found::Missing, false, "same"),
            (Found::Missing, true, "good"),
            (content("bad"), false, "bad"),
            (Found::Missing, false, "back"),
            (content(GOOD), false, "good"),
            (Found::Missing, false, "bad"),
            (Found::Missing, true, "bad"),
            (content(GOOD), false, "back"),
        ] {
            let what = format!("{found:?} {forced}");
            assert_eq!(step(&mut known, found, None, forced), came_to, "{what}");
        }
    }

    #[test]
    fn a_burst_is_waited_for_within_a_bound() {
        let start = Instant::now();
        let mut burst = Burst::default();
        assert_eq!(burst.due(), None);
        burst.touch(start);
        assert_eq!(burst.due(), Some(start + SETTLE));
        for step in 1..=300 {
            let now = start + Duration::from_millis(10) * step;
            burst.touch(now);
            assert_eq!(burst.due(), Some((now + SETTLE).min(start + AT_LEAST)));
        }
    }
}
