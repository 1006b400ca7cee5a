#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const A: NsId = NsId { dev: 4, ino: 1 };

fn path(index: u8) -> PathBuf {
    format!("/run/netns/{index}").into()
}

fn id(index: u8) -> NsId {
    NsId { dev: 4, ino: index.into() }
}

#[test]
fn it_appeared_when_its_file_did() {
    let (mut register, start) = (Register::default(), Instant::now());
    register.wait(&path(0), start, false);
    assert_eq!(register.first_waiting(), Some(start + FIRST_WAIT));
    let later = start + Duration::from_millis(40);
    assert_eq!(register.take_waiting(later), [path(0)]);
    register.wait(&path(0), later, false);
    assert_eq!(register.first_waiting(), Some(later + Duration::from_millis(40)), "as long again");
    register.wait(&path(0), start + LONGEST_WAIT * 3, false);
    assert_eq!(register.first_waiting(), Some(start + LONGEST_WAIT * 4));
    assert!(register.netns(&path(0), A, later, false));
    assert_eq!(register.space(A).unwrap().appeared, start);
    assert_eq!(register.first_waiting(), None);
    assert!(!register.netns(&path(1), A, later, false), "the same one, mounted twice");
    assert!(register.forget(&path(0)).is_none());
    assert_eq!(register.forget(&path(1)).unwrap().0, A);
}

#[test]
fn those_that_wait_for_their_values_come_first() {
    let (mut register, now) = (Register::default(), Instant::now());
    for index in 0..3 {
        register.netns(&path(index), id(index), now, false);
        let (id, _, number) = register.next_visit().unwrap();
        assert!(register.visited(id, number));
        register.want(id, Purpose::ApplySurely, false);
    }
    register.want(id(2), Purpose::Apply, true);
    let order: Vec<_> = std::iter::from_fn(|| register.next_visit()).collect();
    let order: Vec<_> = order.into_iter().map(|(id, purpose, _)| (id, purpose)).collect();
    assert_eq!(order, [id(2), id(0), id(1)].map(|id| (id, Purpose::ApplySurely)));
}

#[test]
fn a_visit_of_what_had_the_inode_before_is_ignored() {
    let (mut register, now) = (Register::default(), Instant::now());
    register.netns(&path(0), A, now, false);
    let (_, _, old) = register.next_visit().unwrap();
    register.forget(&path(0));
    assert!(!register.visited(A, old));
    register.netns(&path(0), A, now, false);
    assert!(!register.visited(A, old), "not visited yet");
    let (_, _, new) = register.next_visit().unwrap();
    assert!(!register.visited(A, old));
    assert!(register.visited(A, new) && !register.visited(A, new));
    assert!(register.is_idle());
}

#[derive(Clone, Debug)]
enum Event {
    Netns(u8, u8),
    Wait(u8),
    Skip(u8),
    Forget(u8),
    Want(u8, Purpose, bool),
    NextVisit,
    /// One of the visits that were begun and have not ended.
    Visited(Index),
    /// A number that is none of them.
    Stale(u8, u64),
    LookAgain(u8, u64, Purpose),
    StartDue(Purpose),
    TakeWaiting,
    Pass(u64),
}

fn some_event() -> impl Strategy<Value = Event> {
    let purpose =
        || prop_oneof![Just(Purpose::Sweep), Just(Purpose::Apply), Just(Purpose::ApplySurely)];
    let (at, who) = (|| 0..4u8, || 0..3u8);
    prop_oneof![
        4 => (at(), who()).prop_map(|(path, id)| Event::Netns(path, id)),
        2 => at().prop_map(Event::Wait),
        1 => at().prop_map(Event::Skip),
        2 => at().prop_map(Event::Forget),
        3 => (who(), purpose(), any::<bool>()).prop_map(|(id, p, first)| Event::Want(id, p, first)),
        4 => Just(Event::NextVisit),
        3 => any::<Index>().prop_map(Event::Visited),
        1 => (who(), 0..20u64).prop_map(|(id, number)| Event::Stale(id, number)),
        2 => (who(), 0..50u64, purpose()).prop_map(|(id, at, p)| Event::LookAgain(id, at, p)),
        2 => purpose().prop_map(Event::StartDue),
        1 => Just(Event::TakeWaiting),
        2 => (1..40u64).prop_map(Event::Pass),
    ]
}

/// What must be true of a register, kept beside it in the plainest way.
#[derive(Default)]
struct Model {
    register: Register,
    /// What each namespace that is there is wanted to be visited for.
    wanted: BTreeMap<NsId, Option<Purpose>>,
    /// Visits that have not ended: the number, which namespace, and whether it was forgotten since.
    running: Vec<(u64, NsId, bool)>,
    highest: u64,
    /// Files that were taken to be looked at.
    taken: BTreeSet<PathBuf>,
}

impl Model {
    fn step(&mut self, event: &Event, now: &mut Instant) {
        let register = &mut self.register;
        match event {
            Event::Netns(at, who) => {
                let new = register.netns(&path(*at), id(*who), *now, false);
                self.taken.remove(&path(*at));
                self.lose_spaces();
                assert_eq!(new, !self.wanted.contains_key(&id(*who)));
                if new {
                    self.wanted.insert(id(*who), Some(Purpose::Apply));
                }
            }
            Event::Wait(at) => {
                register.wait(&path(*at), *now, false);
                self.taken.remove(&path(*at));
            }
            Event::Skip(at) => {
                register.skip(&path(*at), PodState::SkippedNotNetns, String::new());
                self.taken.remove(&path(*at));
            }
            Event::Forget(at) => {
                let gone = register.forget(&path(*at)).map(|(id, _)| id);
                self.taken.remove(&path(*at));
                assert!(gone.is_none_or(|id| self.wanted.contains_key(&id)));
                assert!(gone.is_none_or(|id| self.register.space(id).is_none()));
            }
            Event::Want(who, purpose, first) => {
                register.want(id(*who), *purpose, *first);
                self.want(id(*who), *purpose);
            }
            Event::NextVisit => _ = self.next_visit(),
            Event::Visited(which) if !self.running.is_empty() => {
                let (number, id, gone) = self.running.remove(which.index(self.running.len()));
                assert_eq!(self.register.visited(id, number), !gone, "{id:?} {number}");
            }
            Event::Stale(who, number) => {
                let known = |(running, at, gone): &(u64, NsId, bool)| {
                    running == number && *at == id(*who) && !gone
                };
                if !self.running.iter().any(known) {
                    assert!(!register.visited(id(*who), *number));
                }
            }
            Event::LookAgain(who, after, purpose) => {
                register.look_again(id(*who), *now + Duration::from_millis(*after), *purpose);
            }
            Event::StartDue(purpose) => {
                let first = register.first_due(*purpose).filter(|(at, _)| at <= now);
                let due = first.and_then(|(_, id)| Some((id, register.space(id)?.due?.1)));
                assert_eq!(register.start_due(*purpose, *now), due.is_some());
                if let Some((id, purpose)) = due {
                    self.want(id, purpose);
                }
            }
            Event::TakeWaiting => self.taken.extend(register.take_waiting(*now)),
            Event::Pass(time) => *now += Duration::from_millis(*time),
            Event::Visited(_) => {}
        }
        self.lose_spaces();
    }

    fn want(&mut self, id: NsId, purpose: Purpose) {
        if let Some(wanted) = self.wanted.get_mut(&id) {
            *wanted = (*wanted).max(Some(purpose));
        }
    }

    /// Notes which namespaces went away.
    fn lose_spaces(&mut self) {
        let gone: Vec<NsId> =
            self.wanted.keys().copied().filter(|id| self.register.space(*id).is_none()).collect();
        for id in gone {
            self.wanted.remove(&id);
            self.running.iter_mut().filter(|(_, at, _)| *at == id).for_each(|one| one.2 = true);
        }
    }

    /// Never of a namespace that is being visited, nor one that nobody wants visited; and none only
    /// where there is nothing left to do.
    fn next_visit(&mut self) -> bool {
        let busy = |running: &[(u64, NsId, bool)], id| {
            running.iter().any(|(_, at, gone)| *at == id && !gone)
        };
        let Some((id, purpose, number)) = self.register.next_visit() else {
            let left = self
                .wanted
                .iter()
                .find(|(id, wanted)| wanted.is_some() && !busy(&self.running, **id));
            assert_eq!(left, None, "never visited");
            return false;
        };
        assert!(!busy(&self.running, id), "{id:?} is visited twice at a time");
        assert!(number > self.highest, "numbers are used once");
        self.highest = number;
        assert_eq!(self.wanted.insert(id, None).flatten(), Some(purpose));
        self.running.push((number, id, false));
        true
    }

    fn check(&self) {
        let register = &self.register;
        let mut at: BTreeMap<NsId, BTreeSet<&PathBuf>> = BTreeMap::new();
        for (path, slot) in &register.slots {
            match slot {
                Slot::Netns(id) => _ = at.entry(*id).or_default().insert(path),
                Slot::Waiting { next, .. } => {
                    let noted = register.waiting.contains(&(*next, path.clone()));
                    assert_eq!(noted, !self.taken.contains(path), "{path:?}");
                }
                Slot::Skipped(..) => {}
            }
        }
        for (id, space) in register.spaces() {
            let paths = at.remove(id).unwrap_or_else(|| panic!("{id:?} is nowhere"));
            assert_eq!(space.paths.len(), paths.len());
            assert!(space.paths.iter().all(|path| paths.contains(path)));
            assert_eq!(space.wanted, self.wanted[id]);
            let running = self.running.iter().find(|(_, at, gone)| at == id && !gone);
            assert_eq!(space.visiting, running.map(|(number, ..)| *number));
            if let Some((at, purpose)) = space.due {
                let [dues, others] = match purpose {
                    Purpose::Sweep => [&register.sweeps, &register.soon],
                    _ => [&register.soon, &register.sweeps],
                };
                assert!(dues.contains(&(at, *id)) && others.iter().all(|(_, other)| other != id));
            }
        }
        assert!(at.is_empty(), "not known: {at:?}");
        for (at, path) in &register.waiting {
            let slot = register.slot(path);
            assert!(matches!(slot, Some(Slot::Waiting { next, .. }) if next == at), "{path:?}");
        }
        for (at, id) in register.soon.iter().chain(&register.sweeps) {
            let due = register.space(*id).and_then(|space| space.due);
            assert_eq!(due.map(|(at, _)| at), Some(*at), "{id:?}");
        }
        let idle = self.wanted.values().all(Option::is_none)
            && self.running.iter().all(|(.., gone)| *gone);
        assert_eq!(register.is_idle(), idle);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn nothing_is_lost_and_nothing_left_over(
        events in prop::collection::vec(some_event(), 0..60),
    ) {
        let (mut model, mut now) = (Model::default(), Instant::now());
        for event in &events {
            model.step(event, &mut now);
            model.check();
        }
        // All that is wanted is visited in the end, whatever order visits end in.
        while model.next_visit() || !model.running.is_empty() {
            if let Some((number, id, gone)) = model.running.pop() {
                assert_eq!(model.register.visited(id, number), !gone);
            }
            model.check();
        }
        prop_assert!(model.register.is_idle());
        prop_assert!(model.register.urgent.is_empty() && model.register.queue.is_empty());
        for at in 0..4 {
            model.step(&Event::Forget(at), &mut now);
        }
        model.check();
        let Register { slots, spaces, soon, sweeps, waiting, .. } = &model.register;
        prop_assert!(slots.is_empty() && spaces.is_empty() && soon.is_empty());
        prop_assert!(sweeps.is_empty() && waiting.is_empty());
    }
}
