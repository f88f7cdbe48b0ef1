//! A scripted fleet in virtual time, and the invariants by name. Tests, benches and later simulations drive the very
//! machine that serves.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Action, Event, Finish, Judged, Machine, Refusal, Seen, Setup, TryId};
use crate::continuation::{Way, Ways};
use crate::ids::TargetId;
use crate::outcome::{Graded, Outcome, TargetFault};
use crate::plan::{ContinueWith, Retry};
use crate::units::Time;

/// What a target does with one try.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Streams: first content, then the whole; whole answers: the whole.
    Answer {
        /// To the first content.
        first: Duration,
        /// To the end.
        whole: Duration,
        /// What the checks will say.
        verdict: Judged,
        /// A growing whole answer is judged half-way too.
        early: bool,
    },
    /// Streams: content, and then this end; before a commit or after it. A continuation joins half-way.
    Break {
        /// To the first content.
        first: Duration,
        /// To the end.
        after: Duration,
        /// How.
        end: Graded,
    },
    /// No content, this end.
    Fail {
        /// When.
        after: Duration,
        /// How.
        end: Graded,
    },
    /// Permit or breaker say no.
    Refuse {
        /// Who.
        why: Refusal,
        /// May be asked again after.
        until: Option<Duration>,
    },
    /// Accepts and never answers; signs of life at this interval, where there is one.
    Silent {
        /// Interval of the signs of life, at most twenty of them.
        alive: Option<Duration>,
    },
}

/// A fleet and its surroundings.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// What each target does, try by try; the last act goes on for ever, an empty script is silence.
    pub scripts: BTreeMap<TargetId, Vec<Act>>,
    /// The ratio budget covers repeats.
    pub may_repeat: bool,
    /// When the caller leaves.
    pub leaves: Option<Time>,
    /// The ways there are to go on with a stream that broke.
    pub ways: Ways,
}

/// What happened.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// Every action but timers, with its time.
    pub actions: Vec<(Time, Action)>,
    /// Events fed.
    pub events: u32,
    /// The first invariant that broke, by name.
    pub broken: Option<String>,
}

impl Story {
    /// The end.
    pub fn finish(&self) -> Option<&Finish> {
        self.actions.iter().rev().find_map(|(_, a)| match a {
            Action::Finish(finish) => Some(finish),
            _ => None,
        })
    }
    /// Targets in the order in which they were started.
    pub fn started(&self) -> Vec<TargetId> {
        let starts = self.actions.iter().filter_map(|(_, a)| match a {
            Action::Start { target, .. } | Action::Continue { target, .. } => Some(*target),
            _ => None,
        });
        starts.collect()
    }
    /// Who was asked to go on, and how, in order.
    pub fn continued(&self) -> Vec<(TargetId, Way)> {
        let asked = self.actions.iter().filter_map(|(_, a)| match a {
            Action::Continue { target, way, .. } => Some((*target, *way)),
            _ => None,
        });
        asked.collect()
    }
    /// When the n-th start was.
    pub fn started_at(&self, n: usize) -> Option<Time> {
        let starts = self
            .actions
            .iter()
            .filter(|(_, a)| matches!(a, Action::Start { .. } | Action::Continue { .. }));
        starts.map(|(t, _)| *t).nth(n)
    }
}

/// More than any story needs: reaching it means that the machine does not end.
const MOST_EVENTS: u32 = 2_000;

/// Drives one request to its end.
pub fn run(setup: Setup, world: &World, begin: Time) -> Story {
    let mut watch = Watch::new(&setup);
    let stream = setup.stream;
    let mut machine = Machine::new(setup);
    let mut story = Story::default();
    let mut queue: BTreeMap<(Time, u32), Event> = BTreeMap::new();
    let mut order = 0_u32;
    let mut acts: BTreeMap<TryId, Act> = BTreeMap::new();
    let mut tries: BTreeMap<TargetId, usize> = BTreeMap::new();
    let mut timer = Time::NEVER;
    let mut put = |queue: &mut BTreeMap<_, _>, at: Time, event: Event| {
        order += 1;
        queue.insert((at, order), event);
    };
    put(&mut queue, begin, Event::Begin);
    if let Some(at) = world.leaves {
        put(&mut queue, at, Event::ClientGone);
    }
    while story.events < MOST_EVENTS && !machine.is_done() {
        let next = queue.first_key_value().map(|(&key, _)| key);
        let (now, event) = match next {
            Some(key) if key.0 <= timer => match queue.remove(&key) {
                Some(event) => (key.0, event),
                None => break,
            },
            _ if timer != Time::NEVER => (timer, Event::Timer),
            _ => break,
        };
        story.events += 1;
        watch.event(&event);
        let actions = machine.step(event, now);
        watch.actions(&actions, now);
        for action in actions {
            match &action {
                Action::ArmTimer { at } => timer = *at,
                Action::Start { try_, target, .. } | Action::Continue { try_, target, .. } => {
                    let n = tries.entry(*target).or_default();
                    let script = world.scripts.get(target).map(Vec::as_slice).unwrap_or_default();
                    let act = script.get(*n).or(script.last()).copied();
                    *n += 1;
                    let act = act.unwrap_or(Act::Silent { alive: None });
                    acts.insert(*try_, act);
                    let how = How {
                        judge: matches!(action, Action::Start { judge: true, .. }),
                        stream,
                        goes_on: matches!(action, Action::Continue { .. }),
                        world,
                    };
                    play(act, *try_, how, now, |at, event| put(&mut queue, at, event));
                }
                Action::Judge { try_ } => {
                    if let Some(Act::Answer { verdict, .. }) = acts.get(try_) {
                        let verdict = *verdict;
                        put(&mut queue, now, Event::Verdict { try_: *try_, verdict });
                    } else {
                        let verdict = Judged::unchecked();
                        put(&mut queue, now, Event::Verdict { try_: *try_, verdict });
                    }
                }
                _ => {}
            }
            if !matches!(action, Action::ArmTimer { .. }) {
                story.actions.push((now, action));
            }
        }
    }
    watch.end(&machine);
    story.broken = watch.broken;
    story
}

/// How a try was started.
struct How<'a> {
    judge: bool,
    stream: bool,
    goes_on: bool,
    world: &'a World,
}

fn play(act: Act, try_: TryId, how: How<'_>, now: Time, mut put: impl FnMut(Time, Event)) {
    let How {
        judge,
        stream,
        goes_on,
        world,
    } = how;
    let may_repeat = world.may_repeat;
    let end = |end| Event::Ended {
        try_,
        end,
        may_repeat,
    };
    match act {
        Act::Answer {
            first,
            whole,
            verdict,
            ..
        } if goes_on => {
            let half = first + whole.saturating_sub(first) / 2;
            put(now + first, Event::FirstContent { try_ });
            if verdict.failed() {
                return put(now + half, Event::Unfit { try_ });
            }
            put(now + half, Event::Joined { try_ });
            put(now + whole, end(Graded::plain(Outcome::Ok)));
        }
        Act::Answer {
            first,
            whole,
            verdict,
            early,
        } => {
            let half = first + whole.saturating_sub(first) / 2;
            let prefix = Judged {
                seen: Seen::Prefix(24),
                ..verdict
            };
            put(now + first, Event::FirstContent { try_ });
            if judge && (stream || early) {
                put(
                    now + half,
                    Event::Verdict {
                        try_,
                        verdict: prefix,
                    },
                );
            }
            if judge {
                put(now + whole, Event::Verdict { try_, verdict });
            }
            put(now + whole, end(Graded::plain(Outcome::Ok)));
        }
        Act::Break { first, after, end: e } => {
            let half = first + after.saturating_sub(first) / 2;
            put(now + first, Event::FirstContent { try_ });
            if goes_on {
                put(now + half, Event::Joined { try_ });
            }
            let cut = Event::Cut {
                try_,
                end: e,
                may_repeat,
                ways: world.ways,
            };
            put(now + after, if stream { cut } else { end(e) });
        }
        Act::Fail { after, end: e } => put(now + after, end(e)),
        Act::Refuse { why, until } => put(
            now,
            Event::Refused {
                try_,
                why,
                until: until.map(|d| now + d),
            },
        ),
        Act::Silent { alive } => {
            if let Some(every) = alive {
                (1..=20_u32).for_each(|i| put(now + every * i, Event::SignOfLife { try_ }));
            }
        }
    }
}

/// The invariants, checked as a request runs.
///
/// * R-1 never more attempts than `max_attempts`; a refused start is not an attempt
/// * R-2 after the commit nothing is started but to go on with what was committed, and nothing is committed again
/// * R-3 every request ends
/// * R-4 every start has exactly one end: an end, a refusal or a cancel
/// * R-5 nothing is started at or after the deadline
/// * R-6 at most two tries run
/// * R-7 one finish, and nothing after it
/// * R-8 after the timer fired, the next one lies ahead: it never fires for ever
/// * R-9 no target is repeated more often than `retry.same_target`, and never without the ratio budget
/// * R-10 a request with effects is sent once
/// * R-11 what is committed was started and not given up, and what is answered was committed, or adopted
/// * R-12 a stream is gone on with only after the commit, while nothing else runs, before its time is over; never with
///   effects upstream, never where the plan says never, never by a weaker tier unless it says any
/// * R-13 after a cut nobody is asked twice in the same way, and only in a way that there is
/// * R-14 only a continuation that runs is adopted
/// * R-15 a hedge stands beside one try that has no content yet; one a request, never with effects upstream
#[derive(Debug)]
pub struct Watch {
    retry: Retry,
    deadline: Time,
    effects: bool,
    stream: bool,
    attempts: u32,
    sent: u32,
    tries: BTreeMap<TargetId, u32>,
    running: BTreeMap<TryId, (TargetId, bool)>,
    /// Ended well, and not forgotten.
    kept: BTreeSet<TryId>,
    committed: Option<TryId>,
    /// By target.
    tiers: BTreeMap<TargetId, u8>,
    continue_with: ContinueWith,
    until: Time,
    /// Since the last cut: whose it was, the ways there are, who was asked and how.
    cut: Option<(TargetId, Ways)>,
    asked: BTreeSet<(TargetId, Way)>,
    last_way: Option<Way>,
    finished: bool,
    timer: Option<Time>,
    fired: bool,
    hedges: u32,
    /// Targets that the ratio budget does not cover a repeat of.
    uncovered: BTreeSet<TargetId>,
    /// The first that broke.
    pub broken: Option<String>,
}

impl Watch {
    /// For one request.
    pub fn new(setup: &Setup) -> Self {
        Self {
            retry: setup.retry.clone(),
            deadline: setup.deadline,
            effects: setup.effects,
            stream: setup.stream,
            attempts: 0,
            sent: 0,
            tries: BTreeMap::new(),
            running: BTreeMap::new(),
            kept: BTreeSet::new(),
            committed: None,
            tiers: setup.slots.iter().map(|s| (s.target, s.tier)).collect(),
            continue_with: setup.continue_with,
            until: setup.until,
            cut: None,
            asked: BTreeSet::new(),
            last_way: None,
            finished: false,
            timer: None,
            fired: false,
            hedges: 0,
            uncovered: BTreeSet::new(),
            broken: None,
        }
    }

    fn check(&mut self, holds: bool, name: &str, detail: &str) {
        if !holds && self.broken.is_none() {
            self.broken = Some(format!("{name} broken: {detail}"));
        }
    }

    /// Before the machine hears it.
    pub fn event(&mut self, event: &Event) {
        self.fired = matches!(event, Event::Timer);
        match event {
            // Only what has not begun can be refused.
            Event::FirstContent { try_ } => {
                if let Some((_, begun)) = self.running.get_mut(try_) {
                    *begun |= self.stream;
                }
            }
            Event::Refused { try_, .. } if self.running.get(try_).is_some_and(|(_, begun)| !begun) => {
                if let Some((target, _)) = self.running.remove(try_) {
                    // Nothing was asked.
                    self.asked
                        .retain(|(t, way)| *t != target || Some(*way) != self.last_way);
                    self.attempts -= 1;
                    self.sent -= 1;
                    *self.tries.entry(target).or_default() -= 1;
                }
            }
            Event::Ended {
                try_,
                end,
                may_repeat,
            } => {
                let ran = self.running.remove(try_);
                self.ended(ran, *try_, end.outcome, *may_repeat);
            }
            Event::Cut {
                try_,
                end,
                may_repeat,
                ways,
            } => {
                let ran = self.running.remove(try_);
                if let Some((target, _)) = ran.filter(|_| self.committed == Some(*try_)) {
                    self.cut = Some((target, *ways));
                    self.asked.clear();
                }
                self.ended(ran, *try_, end.outcome, *may_repeat);
            }
            _ => {}
        }
    }

    fn ended(&mut self, ran: Option<(TargetId, bool)>, try_: TryId, outcome: Outcome, may_repeat: bool) {
        let Some((target, _)) = ran else { return };
        if may_repeat {
            self.uncovered.remove(&target);
        } else {
            self.uncovered.insert(target);
        }
        match outcome {
            Outcome::Ok => {
                self.kept.insert(try_);
            }
            Outcome::TargetFault(TargetFault::Connect | TargetFault::ConnectTimeout) => self.sent -= 1,
            _ => {}
        }
    }

    /// What it answered.
    pub fn actions(&mut self, actions: &[Action], now: Time) {
        for action in actions {
            let finished = self.finished;
            self.check(!finished, "R-7", "an action after the finish");
            self.action(action, now);
        }
        if let Some(at) = self.timer {
            self.check(
                self.finished || !self.fired || at > now,
                "R-8",
                "the timer lies behind",
            );
        }
    }

    fn action(&mut self, action: &Action, now: Time) {
        match action {
            Action::Start {
                try_, target, kind, ..
            } => self.start(*try_, *target, *kind, now),
            Action::Continue {
                try_, target, way, ..
            } => self.goes_on(*try_, *target, *way, now),
            Action::Adopt { try_ } => {
                let runs = self.cut.is_some() && self.running.contains_key(try_);
                self.check(runs, "R-14", "adopts what does not go on");
                self.committed = Some(*try_);
                self.cut = None;
            }
            Action::Cancel { try_, .. } => {
                let was = self.running.remove(try_).is_some();
                self.check(was, "R-4", "a cancel of what does not run");
            }
            Action::Forget { try_ } => {
                let was = self.kept.remove(try_);
                self.check(was, "R-4", "forgets what is not kept");
            }
            Action::Commit { try_ } => {
                let first = self.committed.is_none();
                self.check(first, "R-2", "a second commit");
                let there = self.running.contains_key(try_) || self.kept.contains(try_);
                self.check(there, "R-11", "commits what is not there");
                self.committed = Some(*try_);
            }
            Action::Finish(finish) => {
                self.finished = true;
                let left = self.running.is_empty();
                self.check(left, "R-4", "a try runs on after the finish");
                if let Finish::Answered { try_, .. } | Finish::Cut { try_, .. } = finish {
                    let same = self.committed == Some(*try_);
                    self.check(same, "R-11", "answers with what was not committed");
                }
            }
            Action::ArmTimer { at } => self.timer = Some(*at),
            Action::Judge { .. } => {}
        }
    }

    fn start(&mut self, try_: TryId, target: TargetId, kind: super::StartKind, now: Time) {
        self.attempts += 1;
        self.sent += 1;
        let n = self.tries.entry(target).or_default();
        *n += 1;
        let n = *n;
        self.running.insert(try_, (target, false));
        let most = u32::from(self.retry.max_attempts);
        self.check(self.attempts <= most, "R-1", "too many attempts");
        self.check(self.committed.is_none(), "R-2", "a start after the commit");
        self.check(now < self.deadline, "R-5", "a start after the deadline");
        self.check(self.running.len() <= 2, "R-6", "three tries run");
        let again = u32::from(kind == super::StartKind::Again);
        self.check(
            n <= 1 + u32::from(self.retry.same_target) + again,
            "R-9",
            "too many repeats of a target",
        );
        let covered = !self.uncovered.contains(&target) || kind != super::StartKind::Retry;
        self.check(covered, "R-9", "a repeat without the ratio budget");
        self.check(!self.effects || self.sent <= 1, "R-10", "effects sent twice");
        if kind == super::StartKind::Hedge {
            self.hedges += 1;
            let others = self.running.iter().filter(|(id, _)| **id != try_);
            let waiting = others.clone().count() == 1 && others.clone().all(|(_, (_, begun))| !begun);
            self.check(
                waiting,
                "R-15",
                "a hedge beside nobody, or beside one that has content",
            );
            self.check(
                self.hedges == 1 && !self.effects,
                "R-15",
                "a second hedge, or one with effects",
            );
        }
    }

    fn goes_on(&mut self, try_: TryId, target: TargetId, way: Way, now: Time) {
        self.attempts += 1;
        self.sent += 1;
        *self.tries.entry(target).or_default() += 1;
        let most = u32::from(self.retry.max_attempts);
        self.check(self.attempts <= most, "R-1", "too many attempts");
        let cut = self
            .cut
            .filter(|_| self.committed.is_some() && self.running.is_empty());
        let Some((was, ways)) = cut else {
            return self.check(false, "R-12", "goes on with what is not broken");
        };
        self.check(now < self.until, "R-12", "goes on after the deadline");
        let tier = |t: TargetId| self.tiers.get(&t).copied().unwrap_or_default();
        let weaker = match (tier(was), tier(target)) {
            (u8::MAX, _) => false,
            (_, u8::MAX) => true,
            (was, is) => is < was,
        };
        let allowed = match self.continue_with {
            ContinueWith::Never => false,
            ContinueWith::Any => true,
            ContinueWith::Stronger => !weaker,
        };
        self.check(allowed, "R-12", "goes on where it may not");
        self.check(!self.effects, "R-12", "goes on with effects upstream");
        let new = ways.has(way) && self.asked.insert((target, way));
        self.check(new, "R-13", "asked twice in the same way, or in none");
        self.last_way = Some(way);
        self.running.insert(try_, (target, false));
    }

    /// At the end.
    pub fn end(&mut self, machine: &Machine) {
        self.check(machine.is_done() && self.finished, "R-3", "it did not end");
    }
}
